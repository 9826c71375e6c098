"""Reports of evaluations."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import classes
from trainer.labels import NEGATIVE_POSITIVE, Classes
from trainer.report import make_report, table

TWO = (
    np.array([2.0, 1.0, -1.0, 0.5, -2.0, -0.1, 3.0], np.float32),
    np.array([1, 0, 0, 1, 1, 0, 1]),
)


def classes_named(*names):
    return Classes(names, tuple((name,) for name in names))


def one_hot(predicted, size):
    return 4.0 * np.eye(size, dtype=np.float32)[predicted]


def facts_of_two(logits, labels):
    return make_report([(logits, labels)], NEGATIVE_POSITIVE).facts()


def test_a_report_of_two_classes_counts_true_and_false_positives_and_negatives():
    logits, labels = TWO
    facts = facts_of_two(logits, labels)
    names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    assert [facts[name] for name in names] == [3, 1, 2, 1]
    assert [facts[name] for name in ("accuracy", "precision", "recall", "f1")] == [5 / 7, 3 / 4, 3 / 4, 3 / 4]
    expected = float(tf.reduce_mean(classes.losses(logits, labels.astype(np.float32))))
    assert facts["loss"] == pytest.approx(expected, rel=1e-6)
    assert facts["confusion"] == [[2, 1], [1, 3]]
    assert facts["classes"] == [
        {"name": "negative", "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "reviews": 3},
        {"name": "positive", "precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "reviews": 4},
    ]
    assert facts["macro_f1"] == (2 / 3 + 3 / 4) / 2


def test_the_parts_of_the_reviews_do_not_matter():
    logits, labels = TWO
    parts = [(logits[:2], labels[:2]), (logits[2:2], labels[2:2]), (logits[2:], labels[2:])]
    assert make_report(parts, NEGATIVE_POSITIVE) == make_report([TWO], NEGATIVE_POSITIVE)


def test_a_threshold_moves_reviews_between_the_two_classes_and_keeps_loss_and_auc():
    usual, strict = make_report([TWO], NEGATIVE_POSITIVE), make_report([TWO], NEGATIVE_POSITIVE, 0.8)
    assert strict.confusion == [[3, 0], [2, 2]]
    assert (strict.loss, strict.auc) == (usual.loss, usual.auc)


def test_auc_is_the_fraction_of_correctly_ordered_pairs_with_ties_counting_half():
    random = np.random.default_rng(0)
    logits, labels = np.round(random.normal(size=200), 1).astype(np.float32), random.integers(0, 2, 200)
    pairs = [(p > n) + (p == n) / 2 for p in logits[labels == 1] for n in logits[labels == 0]]
    assert facts_of_two(logits, labels)["auc"] == pytest.approx(np.mean(pairs), rel=1e-12)


def test_a_report_of_a_single_class_has_no_auc_and_no_division_by_zero():
    report = make_report([(np.array([-1.0], np.float32), np.array([0]))], NEGATIVE_POSITIVE)
    assert "auc                -" in table(report)
    facts = report.facts()
    assert facts["auc"] is None
    assert [facts[name] for name in ("precision", "recall", "f1", "accuracy")] == [0.0, 0.0, 0.0, 1.0]


def test_a_report_of_more_classes_has_the_metrics_of_each_and_their_confusion():
    logits, labels = one_hot([0, 0, 1, 2, 1, 1], 3), np.array([0, 1, 1, 2, 2, 1], np.uint8)
    facts = make_report([(logits, labels)], classes_named("bad", "fair", "good")).facts()
    assert set(facts) == {"reviews", "loss", "accuracy", "macro_f1", "classes", "confusion"}
    assert facts["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 1, 1]]
    assert (facts["reviews"], facts["accuracy"]) == (6, 4 / 6)
    assert facts["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 2 / 3) / 3)
    good = {"name": "good", "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "reviews": 2}
    assert facts["classes"][2] == pytest.approx(good)
    assert facts["loss"] == pytest.approx(np.mean(classes.exact_losses(logits, labels)))


def test_without_reviews_there_is_no_report():
    assert make_report([], NEGATIVE_POSITIVE) is None
    assert make_report([(np.zeros(0, np.float32), np.zeros(0))], NEGATIVE_POSITIVE) is None


def test_the_table_of_two_classes_names_them():
    logits, labels = TWO
    lines = table(make_report([(logits, labels)], classes_named("ham", "spam"))).splitlines()
    assert lines[0] == "reviews            7"
    assert lines[-3:] == [
        "                predicted spam       predicted ham",
        "spam                         3                   1",
        "ham                          1                   2",
    ]


@pytest.mark.parametrize("size", [3, 20])
def test_the_table_of_more_classes_is_aligned_and_narrow_enough_to_read(size):
    names = [f"class {number}" for number in range(size - 1)] + ["a name that is much too long for a table"]
    labels = np.arange(900) % size
    text = table(make_report([(one_hot(labels, size), labels)], classes_named(*names)))
    _, of_classes, matrix = (part.splitlines() for part in text.split("\n\n"))
    assert len({len(line) for line in of_classes}) == 1
    assert len({len(line) for line in matrix[1:]}) == 1
    assert max(len(line) for line in text.splitlines()) <= 130
    assert "a name that is mu..." in of_classes[-1]
    assert of_classes[1].split()[-4:] == ["1.0000", "1.0000", "1.0000", str(sum(labels == 0))]
    assert matrix[1].split() == [str(number) for number in range(1, size + 1)]
    assert matrix[2].split()[-size:] == [str(sum(labels == 0)), *["."] * (size - 1)]


def test_a_matrix_too_wide_for_a_terminal_is_left_to_the_json():
    labels = np.arange(42) % 21
    report = make_report([(one_hot(labels, 21), labels)], classes_named(*map(str, range(21))))
    assert table(report).endswith("The confusion matrix of 21 classes is in the JSON of --output.")
    assert report.facts()["confusion"][20][20] == 2
