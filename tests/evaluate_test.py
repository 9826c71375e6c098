"""All metrics of a trained model."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from trainer import classes, evaluate
from trainer.errors import InputError


def test_a_report_counts_true_and_false_positives_and_negatives():
    logits, labels = (
        np.array([2.0, 1.0, -1.0, 0.5, -2.0, -0.1, 3.0], np.float32),
        np.array([1, 0, 0, 1, 1, 0, 1]),
    )
    report = evaluate.make_report(logits, labels)
    assert (report.true_positives, report.false_positives, report.true_negatives, report.false_negatives) == (
        3,
        1,
        2,
        1,
    )
    assert (report.accuracy, report.precision, report.recall, report.f1) == (5 / 7, 3 / 4, 3 / 4, 3 / 4)
    assert report.loss == pytest.approx(
        float(tf.reduce_mean(classes.losses(logits, labels.astype(np.float32)))), rel=1e-6
    )


def test_auc_is_the_fraction_of_correctly_ordered_pairs_with_ties_counting_half():
    random = np.random.default_rng(0)
    logits, labels = np.round(random.normal(size=200), 1).astype(np.float32), random.integers(0, 2, 200)
    pairs = [(p > n) + (p == n) / 2 for p in logits[labels == 1] for n in logits[labels == 0]]
    assert evaluate.make_report(logits, labels).auc == pytest.approx(np.mean(pairs), rel=1e-12)


def test_a_report_of_a_single_class_has_no_auc_and_no_division_by_zero():
    report = evaluate.make_report(np.array([-1.0], np.float32), np.array([0]))
    assert report.auc is None
    assert "auc                -" in evaluate.table(report)
    assert (report.precision, report.recall, report.f1, report.accuracy) == (0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def trained(finished, cache_dir):
    """Settings that read a trained model."""
    return {"workdir": str(finished), "cache_dir": cache_dir}


def evaluate_to_json(given, tmp_path):
    evaluate.run({**given, "output": str(tmp_path / "report.json")})
    return json.loads((tmp_path / "report.json").read_text())


def test_the_test_split_has_the_metrics_of_the_final_evaluation(trained, tmp_path, capsys):
    result = json.loads((pathlib.Path(trained["workdir"]) / "result.json").read_text())
    metrics = evaluate_to_json(trained, tmp_path)
    assert metrics["accuracy"] == result["test"]["accuracy"]
    assert metrics["loss"] == pytest.approx(result["test"]["loss"], rel=1e-6)
    assert "predicted positive" in capsys.readouterr().out


def test_another_split_or_a_file_can_be_evaluated(trained, tmp_path):
    assert evaluate_to_json({**trained, "split": "validation[:7]"}, tmp_path)["reviews"] == 7
    file = tmp_path / "own.csv"
    file.write_text("text,label\nA wonderful film.,pos\nDull.,neg\n")
    assert evaluate_to_json({**trained, "input": str(file)}, tmp_path)["reviews"] == 2


def test_an_unknown_split_is_refused_in_one_sentence(trained, tmp_path):
    with pytest.raises(InputError, match="validation"):
        evaluate_to_json({**trained, "split": "tests"}, tmp_path)


def test_a_file_without_reviews_is_refused_in_one_sentence(trained, tmp_path):
    (tmp_path / "own.csv").write_text("text,label\n")
    with pytest.raises(InputError, match="has none"):
        evaluate_to_json({**trained, "input": str(tmp_path / "own.csv")}, tmp_path)
