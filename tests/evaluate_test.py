"""Exact sums, and the probability of a text."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import evaluate
from trainer.data.input_pipeline import Batch
from trainer.data.vocabulary import Vocabulary
from trainer.model import classifier
from trainer.model.classifier import Classifier


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
        yield Batch(*(tf.constant(part) for part in (token_ids, lengths, labels, weights)))


def test_each_review_counts_once_in_a_ragged_last_batch(model):
    logits, labels = [], []
    for batch in batches(300):
        real = batch.weights.numpy() > 0
        logits.append(model(batch.token_ids, batch.lengths).numpy()[real])
        labels.append(batch.labels.numpy()[real])
    logits, labels = np.concatenate(logits), np.concatenate(labels)
    metrics = evaluate.evaluate(evaluate.make_eval_step(model), batches(300), between_batches=lambda: None)
    assert metrics.reviews == 300
    assert metrics.accuracy == np.mean((logits > 0) == (labels > 0.5))
    assert metrics.loss == pytest.approx(np.mean(classifier.losses(logits, labels).numpy(), dtype=np.float64), rel=1e-6)


def test_evaluation_can_be_abandoned_between_two_batches(model):
    looks = []

    def abandon():
        looks.append(1)
        if len(looks) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(evaluate.make_eval_step(model), batches(1000), between_batches=abandon)
    assert len(looks) == 2


VOCABULARY = Vocabulary(tokens=(b"", b"[UNK]", b"the", b"movie", b"was", b"good"))


def test_a_text_has_the_probability_of_its_tokens(model):
    token_ids = tf.constant([[2, 3, 4, 1]])
    expected = tf.sigmoid(model(token_ids, tf.constant([4]))).numpy()[0]
    assert evaluate.probabilities(model, VOCABULARY, ["The movie was ODD!"], max_length=0) == pytest.approx([expected], rel=1e-6)


def test_a_text_is_read_as_far_as_training_reads(model):
    long, short = evaluate.probabilities(model, VOCABULARY, ["the movie was good", "the movie"], max_length=2)
    assert long == pytest.approx(short, rel=1e-6)


def test_texts_without_a_token_have_a_probability(model):
    assert all(0 < probability < 1 for probability in evaluate.probabilities(model, VOCABULARY, ["", "?!"], max_length=0))
