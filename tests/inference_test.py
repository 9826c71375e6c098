"""Logits of raw texts."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from trainer import classes, machine
from trainer.data.vocabulary import Vocabulary
from trainer.inference import BATCH_SIZE, logits_of, make_predict_step
from trainer.model.classifier import Classifier, Dimensions

VOCABULARY = Vocabulary(tokens=(b"", b"[UNK]", b"the", b"movie", b"was", b"good"))


@pytest.fixture(scope="module")
def model():
    return Classifier(Dimensions(50, 8, 8, 8), dropout=0.5, seed=0)


def test_a_text_has_the_logit_of_its_tokens(model):
    expected = model(tf.constant([[2, 3, 4, 1]]), tf.constant([4])).numpy()
    assert logits_of(model, VOCABULARY, ["The movie was ODD!"], max_length=0) == pytest.approx(
        expected, rel=1e-5
    )


def test_texts_are_truncated_to_max_length_as_in_training(model):
    long, short = logits_of(model, VOCABULARY, ["the movie was good", "the movie"], max_length=2)
    assert long == pytest.approx(short, rel=1e-5)


def test_texts_without_tokens_have_a_probability(model):
    assert all(
        0 < value < 1
        for value in classes.probabilities(logits_of(model, VOCABULARY, ["", "?!"], max_length=0))
    )


def test_logits_are_in_the_order_of_the_texts(model):
    random = np.random.default_rng(0)
    texts = [
        " ".join(random.choice(["the", "movie", "was", "good"], random.integers(0, 30)))
        for _ in range(2 * BATCH_SIZE + 3)
    ]
    together = logits_of(make_predict_step(model), VOCABULARY, texts, max_length=0)
    for at in (0, 1, BATCH_SIZE, len(texts) - 1):
        assert logits_of(model, VOCABULARY, [texts[at]], max_length=0)[0] == pytest.approx(
            together[at], rel=1e-5
        )


def test_computing_several_batches_at_a_time_changes_no_bit(model, monkeypatch):
    step = make_predict_step(model)
    texts = ["the movie " * (number % 7) for number in range(4 * BATCH_SIZE)]
    at_work = threading.Barrier(2, timeout=60)

    def meeting(*arguments):
        at_work.wait()
        return step(*arguments)

    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    one_at_a_time = logits_of(step, VOCABULARY, texts, max_length=0)
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    np.testing.assert_array_equal(logits_of(meeting, VOCABULARY, texts, max_length=0), one_at_a_time)


def test_texts_are_encoded_on_all_cores(model, monkeypatch):
    at_work = threading.Barrier(2, timeout=60)

    class Meeting(Vocabulary):
        def encode(self, texts):
            at_work.wait()
            return super().encode(texts)

    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    texts = ["the movie"] * (2 * BATCH_SIZE)
    assert len(logits_of(make_predict_step(model), Meeting(VOCABULARY.tokens), texts, max_length=0)) == len(
        texts
    )


def test_three_classes_have_a_logit_each_and_no_texts_have_none():
    model = Classifier(Dimensions(50, 8, 8, 8, 3), dropout=0.5, seed=0)
    texts = ["movie was good", "the", "good good good good"]
    logits = logits_of(model, VOCABULARY, texts, max_length=0)
    assert logits.shape == (3, 3)
    for text, of_text in zip(texts, logits, strict=True):
        assert logits_of(model, VOCABULARY, [text], max_length=0)[0] == pytest.approx(of_text, rel=1e-5)
    assert len(logits_of(model, VOCABULARY, [], max_length=0)) == 0
