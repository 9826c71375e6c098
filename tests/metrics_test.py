"""The table of metrics."""

import pytest

from trainer import metrics
from trainer.config import FIELDS


def test_each_metric_can_be_monitored_in_validation_and_those_of_training_there_too():
    of_validation = ("val_loss", "val_accuracy", "val_f1", "val_auc")
    assert FIELDS["monitor"].metadata["choices"] == (*of_validation, "loss", "accuracy")


@pytest.mark.parametrize(
    ("monitor", "lower", "validation"),
    [
        ("val_loss", True, True),
        ("loss", True, False),
        ("val_accuracy", False, True),
        ("accuracy", False, False),
        ("val_f1", False, True),
        ("val_auc", False, True),
    ],
)
def test_direction_and_split_follow_from_the_monitors_name(monitor, lower, validation):
    assert metrics.lower_is_better(monitor) is lower
    assert metrics.is_of_validation(monitor) is validation


def test_the_history_columns_are_pinned():
    assert list(metrics.HISTORY) == [
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "val_f1",
        "val_auc",
        "best",
        "patience",
    ]
    assert metrics.SOMETIMES == ("val_f1", "val_auc")


def test_f1_is_of_the_second_of_two_classes_and_else_the_mean_over_classes():
    assert metrics.f1([[2, 1], [3, 4]]) == 8 / 12
    three = [[1, 0, 1], [0, 2, 2], [1, 0, 3]]
    assert metrics.f1(three) == pytest.approx((2 / 4 + 4 / 6 + 6 / 10) / 3)
    assert metrics.macro_f1([[2, 1], [3, 4]]) == pytest.approx((4 / 8 + 8 / 12) / 2)


def test_a_class_that_does_not_occur_is_no_part_of_the_mean_but_one_that_is_wrongly_predicted_is():
    assert metrics.macro_f1([[2, 0, 0], [0, 0, 0], [0, 0, 3]]) == 1.0
    assert metrics.macro_f1([[2, 2, 0], [0, 0, 0], [0, 0, 3]]) == pytest.approx((4 / 6 + 0 + 1) / 3)
    assert metrics.of_classes([[0, 0], [0, 0]])[1] == (0.0, 0.0, 0.0, 0, 0)
    assert metrics.macro_f1([[0, 0], [0, 0]]) == 0.0


def test_only_evaluated_metrics_have_values():
    assert metrics.Metrics(loss=0.5, accuracy=0.75, reviews=4).values() == {"loss": 0.5, "accuracy": 0.75}
    assert metrics.Metrics(loss=0.5, accuracy=0.75, reviews=4, f1=0.0).values()["f1"] == 0.0


@pytest.mark.parametrize(
    ("monitor", "classes", "needed"),
    [("val_loss", 2, False), ("val_f1", 2, True), ("val_loss", 3, True)],
)
def test_the_confusion_is_summed_for_more_than_two_classes_or_when_f1_is_monitored(monitor, classes, needed):
    assert metrics.needs_confusion(monitor, classes) is needed
