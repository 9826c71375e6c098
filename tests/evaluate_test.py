"""Exact sums, and the figures of a trained model."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from fakes import NoSignals

from trainer import InputError, evaluate
from trainer.data.input_pipeline import Batch
from trainer.model import classifier
from trainer.model.classifier import Classifier
from trainer.run.distribution import Replicas


@pytest.fixture(scope="module")
def model():
    return Classifier(vocab_size=50, embedding_dim=8, lstm_units=8, dense_units=8, dropout=0.5, seed=0)


def batches(examples):
    random = np.random.default_rng(0)
    for start in range(0, examples, evaluate.BATCH_SIZE):
        rows = min(evaluate.BATCH_SIZE, examples - start)
        weights = (np.arange(evaluate.BATCH_SIZE) < rows).astype(np.float32)
        token_ids = random.integers(1, 50, (evaluate.BATCH_SIZE, 5)).astype(np.int32)
        labels = random.integers(0, 2, evaluate.BATCH_SIZE).astype(np.float32)
        lengths = np.where(weights > 0, 5, 0).astype(np.int32)
        yield (Batch(*(tf.constant(part) for part in (token_ids, lengths, labels, weights, np.float32(weights.sum())))),)


def test_each_review_counts_once_in_a_ragged_last_batch(model):
    logits, labels = [], []
    for (batch,) in batches(300):
        real = batch.weights.numpy() > 0
        logits.append(model(batch.token_ids, batch.lengths).numpy()[real])
        labels.append(batch.labels.numpy()[real])
    logits, labels = np.concatenate(logits), np.concatenate(labels)
    metrics = evaluate.evaluate(evaluate.make_eval_step(model, Replicas()), batches(300), stop=lambda: False, abandon=KeyboardInterrupt)
    assert metrics.reviews == 300
    assert metrics.accuracy == np.mean((logits > 0) == (labels > 0.5))
    assert metrics.loss == pytest.approx(np.mean(classifier.losses(logits, labels).numpy(), dtype=np.float64), rel=1e-6)


def test_evaluation_can_be_abandoned_between_two_batches(model):
    looks = []

    def stop():
        looks.append(1)
        return len(looks) == 2

    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(evaluate.make_eval_step(model, Replicas()), batches(1000), stop=stop, abandon=KeyboardInterrupt)
    assert len(looks) == 2


def test_a_report_counts_what_is_said_and_what_is():
    logits, labels = np.array([2.0, 1.0, -1.0, 0.5, -2.0, -0.1, 3.0], np.float32), np.array([1, 0, 0, 1, 1, 0, 1])
    report = evaluate.report(logits, labels)
    assert (report.true_positives, report.false_positives, report.true_negatives, report.false_negatives) == (3, 1, 2, 1)
    assert (report.accuracy, report.precision, report.recall, report.f1) == (5 / 7, 3 / 4, 3 / 4, 3 / 4)
    assert report.loss == pytest.approx(float(tf.reduce_mean(classifier.losses(logits, labels.astype(np.float32)))), rel=1e-6)


def test_auc_is_the_share_of_pairs_in_order_with_ties_half():
    random = np.random.default_rng(0)
    logits, labels = np.round(random.normal(size=200), 1).astype(np.float32), random.integers(0, 2, 200)
    pairs = [(p > n) + (p == n) / 2 for p in logits[labels == 1] for n in logits[labels == 0]]
    assert evaluate.report(logits, labels).auc == pytest.approx(np.mean(pairs), rel=1e-12)


def test_a_report_of_one_kind_of_review_has_no_auc_and_divides_by_no_zero():
    report = evaluate.report(np.array([-1.0], np.float32), np.array([0]))
    assert report.auc is None
    assert "auc                -" in evaluate.table(report)
    assert (report.precision, report.recall, report.f1, report.accuracy) == (0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def trained(finished, cache_dir):
    """The settings that read a trained model."""
    return {"workdir": str(finished), "cache_dir": cache_dir}


def answer(given, tmp_path):
    evaluate.run({**given, "output": str(tmp_path / "answer.json")}, signals=NoSignals())
    return json.loads((tmp_path / "answer.json").read_text())


def test_the_test_split_has_the_figures_of_the_ending(trained, tmp_path, capsys):
    ending = json.loads((pathlib.Path(trained["workdir"]) / "result.json").read_text())
    figures = answer(trained, tmp_path)
    assert figures["accuracy"] == ending["test"]["accuracy"]
    assert figures["loss"] == pytest.approx(ending["test"]["loss"], rel=1e-6)
    assert "said positive" in capsys.readouterr().out


def test_another_split_or_file_may_be_named(trained, tmp_path):
    assert answer({**trained, "split": "validation[:7]"}, tmp_path)["reviews"] == 7
    file = tmp_path / "own.csv"
    file.write_text("text,label\nA wonderful film.,pos\nDull.,neg\n")
    assert answer({**trained, "input": str(file)}, tmp_path)["reviews"] == 2


def test_a_split_that_is_not_there_is_one_sentence(trained, tmp_path):
    with pytest.raises(InputError, match="validation"):
        answer({**trained, "split": "tests"}, tmp_path)


def test_a_file_without_reviews_is_one_sentence(trained, tmp_path):
    (tmp_path / "own.csv").write_text("text,label\n")
    with pytest.raises(InputError, match="has none"):
        answer({**trained, "input": str(tmp_path / "own.csv")}, tmp_path)
