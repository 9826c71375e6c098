"""Exact metrics over a split, and the probability of a text."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf

from trainer.data.input_pipeline import Batch
from trainer.data.vocabulary import Vocabulary
from trainer.model import classifier

BATCH_SIZE = 256


class Metrics(NamedTuple):
    """Means over reviews, each counted once."""

    loss: float
    accuracy: float
    reviews: int


def batch_spec(batch_size: int | None) -> Batch:
    """The shapes and dtypes of a batch of any length, so that a compiled step is traced once."""
    return Batch(
        token_ids=tf.TensorSpec([batch_size, None], tf.int32),
        lengths=tf.TensorSpec([batch_size], tf.int32),
        labels=tf.TensorSpec([batch_size], tf.float32),
        weights=tf.TensorSpec([batch_size], tf.float32),
    )


def make_eval_step(model: classifier.Classifier) -> Callable[[Batch], tf.Tensor]:
    """Compiles batch -> float64 [3], the sums of loss, correct reviews and reviews."""

    @tf.function(input_signature=[batch_spec(BATCH_SIZE)])
    def eval_step(batch: Batch) -> tf.Tensor:
        logits = model(batch.token_ids, batch.lengths)
        values = (classifier.losses(logits, batch.labels), classifier.is_correct(logits, batch.labels), tf.ones_like(logits))
        return tf.stack([tf.reduce_sum(tf.cast(value * batch.weights, tf.float64)) for value in values])

    return eval_step


def evaluate(eval_step: Callable[[Batch], tf.Tensor], batches: Iterable[Batch], *, between_batches: Callable[[], None]) -> Metrics:
    """Sums over all batches, divided once; whatever `between_batches` raises abandons the evaluation."""
    loss = correct = reviews = 0.0
    for batch in batches:
        between_batches()
        sums = eval_step(batch).numpy()
        loss, correct, reviews = loss + sums[0], correct + sums[1], reviews + sums[2]
    return Metrics(loss=float(loss / reviews), accuracy=float(correct / reviews), reviews=int(reviews))


def probabilities(model: classifier.Classifier, vocabulary: Vocabulary, texts: Sequence[str], *, max_length: int) -> list[float]:
    """The probability that each text is a positive review."""
    values = []
    for start in range(0, len(texts), BATCH_SIZE):
        token_ids = vocabulary.encode(tf.constant(texts[start : start + BATCH_SIZE]))
        if max_length:
            token_ids = token_ids[:, :max_length]
        # In batches as large as those of an evaluation, so that the kernel is compiled once for both.
        rows = token_ids.nrows()
        lengths = tf.pad(tf.cast(token_ids.row_lengths(), tf.int32), [[0, BATCH_SIZE - rows]])
        padded = token_ids.to_tensor(shape=[BATCH_SIZE, tf.maximum(tf.reduce_max(lengths), 1)])
        values += tf.sigmoid(model(padded, lengths)[:rows]).numpy().tolist()
    return values
