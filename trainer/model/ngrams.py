"""A linear classifier of hashed n-grams with naive Bayes features (Wang & Manning 2012).

A text is the set of its n-grams; how often it has one makes no difference. N-grams are hashed into buckets.
The value of a bucket is its log-count ratio: the logarithm of how much more frequent it is in the training
texts of a class than in the others. The values of a text are divided by the root of their number.

Plain gradient descent trains the weights of these values. It changes those of a batch's n-grams alone,
so that the size of the tables costs no time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

# A condition of exactness: must change whenever a change here can change a bit of a result.
NUMERICS_ID = "sets of hashed n-grams 1"

# The bucket of an n-gram is (sum of token id times multiplier, modulo a prime) modulo the number of buckets
# (Carter & Wegman 1979). No product of a token id and a multiplier exceeds an int64.
_PRIME = 2**31 - 1
_MULTIPLIERS = (1_181_783_497, 1_531_442_623, 879_190_747)

# The learning rate for the sum over the reviews of a batch. On held-out reviews of IMDB it was as good for
# 1,000 reviews as for 21,000; a third of it needs more epochs.
_LEARNING_RATE = 16.0


class Features(NamedTuple):
    """The distinct n-grams of each text of a batch, n in all."""

    rows: tf.Tensor
    """int64 [n], the text."""
    buckets: tf.Tensor
    """int64 [n]."""
    values: tf.Tensor
    """float32 [n, logits]."""
    batch_size: tf.Tensor
    """int32 scalar."""


class NGrams(tf.Module):
    """Logits of texts by their n-grams; zeros until `set_counts` and training.

    The tables are variables of their own, not copies on each replica: only rows are read and written.

    Args:
      orders: the longest n-grams, in tokens; shorter ones are used too.
      buckets: the rows of the tables.
      logits: their columns.
    """

    def __init__(self, *, orders: int, buckets: int, logits: int) -> None:
        super().__init__()
        self.orders = orders
        self.log_ratios = tf.Variable(tf.zeros([buckets, logits]), trainable=False, name="log_ratios")
        self.weights = tf.Variable(tf.zeros([buckets, logits]), trainable=False, name="weights")

    @property
    def shape(self) -> list[int]:
        """[buckets, logits]."""
        return self.weights.shape.as_list()

    def is_like(self, other: "NGrams") -> bool:
        """Whether the tables of both mean the same."""
        return (self.orders, self.shape) == (other.orders, other.shape)

    def copy(self, other: "NGrams") -> None:
        """Takes the tables of another one that is like this."""
        self.log_ratios.assign(other.log_ratios)
        self.weights.assign(other.weights)

    def set_counts(self, counts: np.ndarray) -> None:
        """Sets the log-count ratios.

        Args:
          counts: int [classes, buckets], in how many training texts of each class a bucket occurs.
        """
        smoothed = counts.astype(np.float64) + 1.0
        if len(counts) == 2:
            ratios = _log_shares(smoothed[1:]) - _log_shares(smoothed[:1])
        else:
            ratios = _log_shares(smoothed) - _log_shares(smoothed.sum(axis=0) - smoothed)
        self.log_ratios.assign(ratios.T.astype(np.float32))

    @property
    def has_counts(self) -> bool:
        """Whether the log-count ratios are set."""
        return bool(np.any(self.log_ratios.numpy()))

    def features(self, token_ids: tf.Tensor, lengths: tf.Tensor) -> Features:
        """The features of a batch; arguments as of the classifier."""
        rows, buckets = distinct_buckets(token_ids, lengths, orders=self.orders, buckets=self.shape[0])
        batch_size = tf.size(lengths)
        counts = tf.math.unsorted_segment_sum(tf.ones_like(rows, tf.float32), rows, batch_size)
        scales = tf.gather(tf.math.rsqrt(tf.maximum(counts, 1.0)), rows)
        values = tf.gather(self.log_ratios, buckets) * tf.expand_dims(scales, 1)
        return Features(rows, buckets, values, batch_size)

    def logits_of(self, features: Features) -> tf.Tensor:
        """float32 [batch, logits]."""
        products = tf.gather(self.weights, features.buckets) * features.values
        return tf.math.unsorted_segment_sum(products, features.rows, features.batch_size)

    def gradient(self, features: Features, d_logits: tf.Tensor) -> tf.IndexedSlices:
        """The gradient of the weights, from that of the logits, float32 [batch, logits]."""
        values = features.values * tf.gather(d_logits, features.rows)
        return tf.IndexedSlices(values, features.buckets, tf.constant(self.shape, tf.int64))

    def descend(self, gradient: tf.Tensor | tf.IndexedSlices, factor: float | tf.Tensor) -> None:
        """Updates the weights.

        Args:
          gradient: that of the sum of the losses of a batch.
          factor: of the learning rate, as a schedule gives it.
        """
        rate = _LEARNING_RATE * factor
        if isinstance(gradient, tf.IndexedSlices):
            self.weights.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))
        else:
            self.weights.assign_sub(rate * gradient)


def _log_shares(counts: np.ndarray) -> np.ndarray:
    return np.log(counts / counts.sum(axis=1, keepdims=True))


def distinct_buckets(
    token_ids: tf.Tensor, lengths: tf.Tensor, *, orders: int, buckets: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The n-grams of each text, without padding, so that one long text does not fill the memory.

    Args:
      token_ids: int32 [batch, time], padded on the right.
      lengths: int32 [batch].
      orders: the longest n-grams.
      buckets: the number of buckets.

    Returns:
      Two of int64 [n]: for each distinct n-gram of a text the number of the text and the bucket.
    """
    tokens = tf.cast(tf.boolean_mask(token_ids, tf.sequence_mask(lengths, tf.shape(token_ids)[1])), tf.int64)
    rows = tf.repeat(tf.range(tf.size(lengths, tf.int64)), lengths)
    hashed, exists, keys = tf.zeros_like(tokens), tf.ones_like(tokens, tf.bool), []
    for order in range(orders):
        missing = [[0, tf.minimum(order, tf.size(tokens))]]
        following = tf.pad(tokens[order:], missing)
        exists &= tf.equal(tf.pad(rows[order:], missing, constant_values=-1), rows)
        hashed = (hashed + following * _MULTIPLIERS[order]) % _PRIME
        keys.append(tf.boolean_mask(rows * buckets + hashed % buckets, exists))
    distinct, _ = tf.unique(tf.concat(keys, axis=0))
    return distinct // buckets, distinct % buckets


def count_weights(*, buckets: int, logits: int) -> int:
    """The numbers in the tables of `NGrams`."""
    return 2 * buckets * logits


def stock_logits(
    token_ids: keras.KerasTensor, *, orders: int, buckets: int, logits: int
) -> tuple[keras.KerasTensor, keras.layers.Embedding]:
    """Logits in stock Keras, and the layer whose weights are those of `merged`.

    Args:
      token_ids: int [batch, time], 0 in padding, which follows the text.
      orders: the longest n-grams.
      buckets: the number of buckets.
      logits: how many logits a text has.
    """
    ops = keras.ops
    table = keras.layers.Embedding(buckets, logits, name="ngrams")
    padded = ops.pad(ops.cast(token_ids, "int64"), [[0, 0], [0, orders - 1]])
    hashed, exists, found = ops.zeros_like(padded), ops.equal(padded, padded), []
    for order in range(orders):
        following = ops.roll(padded, -order, axis=1)  # What is rolled around meets padding.
        hashed = ops.mod(hashed + following * _MULTIPLIERS[order], _PRIME)
        exists = ops.logical_and(exists, following > 0)
        found.append(ops.where(exists, ops.mod(hashed, buckets), buckets))
    ordered = ops.sort(ops.concatenate(found, axis=1), axis=1)
    before = ops.pad(ordered, [[0, 0], [1, 0]], constant_values=-1)[:, :-1]
    is_first = ops.logical_and(ordered < buckets, ops.not_equal(ordered, before))
    ones = ops.cast(is_first, "float32")
    scales = ones * ops.rsqrt(ops.maximum(ops.sum(ones, axis=1, keepdims=True), 1.0))
    products = table(ops.where(is_first, ordered, 0)) * ops.expand_dims(scales, 2)
    return ops.sum(products, axis=1), table


def merged(ngrams: NGrams) -> Sequence[np.ndarray]:
    """The product of both tables, which is all that a trained model needs."""
    return [ngrams.weights.numpy() * ngrams.log_ratios.numpy()]
