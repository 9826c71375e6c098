"""The table of metrics."""

import pytest

from trainer import metrics
from trainer.config import FIELDS


def test_each_metric_can_be_monitored_in_training_and_in_validation():
    assert FIELDS["monitor"].metadata["choices"] == ("val_loss", "val_accuracy", "loss", "accuracy")


@pytest.mark.parametrize(
    ("monitor", "lower", "validation"),
    [
        ("val_loss", True, True),
        ("loss", True, False),
        ("val_accuracy", False, True),
        ("accuracy", False, False),
    ],
)
def test_direction_and_split_follow_from_the_monitors_name(monitor, lower, validation):
    assert metrics.lower_is_better(monitor) is lower
    assert metrics.is_of_validation(monitor) is validation


def test_the_history_columns_are_pinned():
    assert list(metrics.HISTORY) == ["loss", "accuracy", "val_loss", "val_accuracy", "best", "patience"]
