"""Batches as a pure function of (seed, step): nothing to save, and step one billion is as near as step zero.

An epoch's shuffled reviews fall into windows. Those of a window are sorted by length and cut into batches, so that little is padded, and
they are served in a random order in which short and long ones alternate. One step needs one window, whatever the size of the corpus.

A batch is a handful of slices of a file, made when it is asked for. A tf.data pipeline would only call back into Python, from
a thread of its own: that costs more than it saves, and can hold up the end of the process for seconds.
"""

import functools
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.stored_array import StoredArray
from trainer.data.token_store import Lengths, TokenStore

WINDOW_BATCHES = 200  # pads IMDB at batch 64 by 3 %; 100 would by 6 %, 50 by 10 %
STRATA = 16
# Changes when the order does: a run cannot go on exactly across that.
BATCH_ORDER_ID = f"shuffle-8, windows of {WINDOW_BATCHES}, {STRATA} strata, 1"


class Batch(NamedTuple):
    """Encoded reviews, or the slice of them that one replica computes; T is the length of its longest, at least 1."""

    token_ids: np.ndarray  # [batch_size, T] int32, padded with 0 at the end
    lengths: np.ndarray  # [batch_size] int32, 0 .. T
    labels: np.ndarray  # [batch_size] float32, 0.0 or 1.0
    weights: np.ndarray  # [batch_size] float32: 1.0, or 0.0 for an empty review that only fills the batch
    reviews: np.ndarray  # float32: those of weight 1.0 in the whole batch, of which this may be a slice


class BatchPlan:
    """Which reviews each training step reads.

    Args:
      lengths: [examples] int, tokens of each review of the corpus; at least one review. Read when a window needs them.
      batch_size: rows of a batch.
      seed: decides the order.
      max_length: tokens of a review that are read; 0: all.
    """

    def __init__(
        self, *, lengths: np.ndarray | Lengths, batch_size: int, seed: int, max_length: int = 0
    ) -> None:
        self.examples = len(lengths)
        self.batch_size = batch_size
        self.steps_per_epoch = -(-self.examples // batch_size)
        self._lengths, self._max_length = lengths, max_length
        self._seed = seed
        self._window = functools.lru_cache(maxsize=2)(self._make_window)

    def rows(self, step: int) -> np.ndarray:
        """The reviews of batch `step`, counted from 0: [batch_size] int64, -1 where a row is missing; in an epoch's last batch alone."""
        epoch, slot = divmod(step, self.steps_per_epoch)
        window, slot_in_window = divmod(slot, WINDOW_BATCHES)
        return self._window(epoch, window)[slot_in_window]

    def step_before(self, step: int, *, reviews: int) -> int:
        """The step from which on `reviews` were read up to `step`; 0 where there were not as many."""
        while reviews > 0 and step > 0:
            step -= 1
            is_last = (step + 1) % self.steps_per_epoch == 0
            reviews -= self.batch_size - is_last * (self.steps_per_epoch * self.batch_size - self.examples)
        return step

    def lengths(self, reviews: np.ndarray) -> np.ndarray:
        """Tokens of some reviews that are read, like `reviews` in shape."""
        return _cut(self._lengths[reviews], self._max_length)

    def _make_window(self, epoch: int, window: int) -> np.ndarray:
        """The batches of one window in the order they are served, [batches, batch_size]."""
        size = WINDOW_BATCHES * self.batch_size
        reviews = self._shuffled(epoch, window * size, min((window + 1) * size, self.examples))
        reviews = reviews[np.argsort(self.lengths(reviews), kind="stable")]
        order = _alternate(_permutation(-(-len(reviews) // self.batch_size), self._seed, epoch, window))
        missing = len(order) * self.batch_size - len(reviews)
        # Whichever batch is served last is the short one: were it the one of the longest reviews, these would weigh more in every epoch.
        end_of_last = (order[-1] + 1) * self.batch_size - missing
        return np.insert(reviews, end_of_last, np.full(missing, -1)).reshape(-1, self.batch_size)[order]

    def _shuffled(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """The reviews at positions start .. stop-1 of the epoch's permutation, [stop - start] int64."""
        # The public index_shuffle has 4 rounds, and with these the permutations of two epochs correlate by up to 0.5.
        with tf.device("CPU"):
            return tf.raw_ops.RandomIndexShuffle(
                index=np.arange(start, stop),
                seed=np.frombuffer(_random_bytes(12, self._seed, epoch), "<u4").astype(np.uint32),
                max_index=np.int64(self.examples - 1),
                rounds=8,
            ).numpy()


def _random_bytes(count: int, *key: int) -> bytes:
    # A hash, because no generator's stream is promised to stay the same from one version of a library to the next.
    return hashlib.shake_256(" ".join(map(str, key)).encode()).digest(count)


def _permutation(count: int, *key: int) -> np.ndarray:
    return np.argsort(np.frombuffer(_random_bytes(8 * count, *key), "<u8"), kind="stable")


def _alternate(order: np.ndarray) -> np.ndarray:
    """The order nearest to this one in which each run of STRATA batches, counted from the end, has one of each STRATA-th of the lengths.

    Reviews of like length have more in common; were many such batches to follow each other by chance, the weights would follow them.
    """
    strata = order * STRATA // len(order)
    grouped = np.argsort(strata, kind="stable")
    rounds = np.empty_like(order)
    rounds[grouped] = np.arange(len(order)) - np.searchsorted(strata[grouped], strata[grouped], side="right")
    return order[np.argsort(rounds, kind="stable")]


def _cut(lengths: np.ndarray, max_length: int) -> np.ndarray:
    return np.minimum(lengths, max_length) if max_length else lengths


def padded_ratio(plan: BatchPlan, *, steps: int) -> float:
    """Tokens of the first `steps` batches with padding, over those without."""
    lengths = [plan.lengths(rows[rows >= 0]) for rows in map(plan.rows, range(steps))]
    padded = plan.batch_size * sum(max(1, int(batch.max())) for batch in lengths)
    return padded / max(1, sum(int(batch.sum(dtype=np.int64)) for batch in lengths))


def _spans(store: TokenStore, rows: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the tokens of each row begin, and how many are read, int32."""
    starts, ends = store.offsets[rows], store.offsets[rows + 1]
    lengths = np.where(rows >= 0, ends - starts, 0)  # of a missing row, -1, the offsets are any
    if lengths.min() < 0 or starts.min() < 0 or ends.max() > len(store.token_ids):
        raise store.damaged("its offsets are out of range")
    return starts, _cut(lengths, max_length).astype(np.int32)


def _gather(store: TokenStore, rows: np.ndarray, max_length: int, reviews: np.float32) -> Batch:
    is_real = rows >= 0
    starts, lengths = _spans(store, rows, max_length)
    token_ids = np.zeros([len(rows), max(1, lengths.max())], np.int32)
    for row, start, length in zip(token_ids, starts.tolist(), lengths.tolist(), strict=True):
        row[:length] = store.token_ids[start : start + length]
    labels = np.where(is_real, store.labels[rows], 0)
    if token_ids.view(np.uint32).max() >= store.vocab_size or labels.max() > 1:
        raise store.damaged("its token ids or labels are out of range")
    return Batch(token_ids, lengths, labels.astype(np.float32), is_real.astype(np.float32), reviews)


def slice_rows(batch_size: int, replicas: int) -> int:
    """The rows of each of the equal slices into which a batch is cut for the replicas, in the order of its rows."""
    return -(-batch_size // replicas)


def _slices(
    store: TokenStore, rows: np.ndarray, max_length: int, replicas: int, local: range
) -> tuple[Batch, ...]:
    # A batch that cannot be cut evenly is filled up; each slice is as long as its own longest review.
    size = slice_rows(len(rows), replicas)
    padded = np.pad(rows, (0, size * replicas - len(rows)), constant_values=-1).reshape(replicas, size)
    reviews = np.float32(np.sum(rows >= 0))
    return tuple(_gather(store, padded[replica], max_length, reviews) for replica in local)


def train_batches(
    *,
    store: TokenStore,
    plan: BatchPlan,
    max_length: int,
    first_step: int,
    last_step: int,
    replicas: int = 1,
    local: range = range(1),
) -> Iterator[tuple[Batch, ...]]:
    """The batches of steps first_step .. last_step-1; batch N takes the state from step N to N+1.

    A batch is a function of (seed, step), and the slice of a replica is one of (seed, step, replica): replicas exchange nothing about it.

    Args:
      store: the encoded training reviews.
      plan: made for the lengths of `store` and for `max_length`.
      max_length: tokens of a review that are read, from its start; 0: all.
      first_step: where to begin; at no cost, however far.
      last_step: where to end.
      replicas: how many share a batch.
      local: those whose slices are made.

    Raises:
      StorageError: at a batch that cannot be read, or once the store is known to be damaged; whether it is when a batch is served,
        is known after `store.check(wait=True)` alone.
    """
    for step in range(first_step, last_step):
        store.check()
        batch = _slices(store, plan.rows(step), max_length, replicas, local)
        if isinstance(store.token_ids, StoredArray) and step + 1 < last_step:
            store.token_ids.read_ahead(*_spans(store, plan.rows(step + 1), max_length))
        yield batch


def evaluation_batches(
    *,
    store: TokenStore,
    batch_size: int,
    max_length: int,
    examples: int,
    replicas: int = 1,
    local: range = range(1),
) -> Iterator[tuple[Batch, ...]]:
    """The first `examples` reviews of the corpus, each exactly once, sorted by length so that little is padded.

    Args:
      store: the encoded reviews.
      batch_size: rows of a slice; those that are missing in the last ones are empty reviews of weight 0.
      max_length: tokens of a review that are read, from its start; 0: all.
      examples: at most as many as `store` holds.
      replicas: how many share a batch.
      local: those whose slices are made.

    Raises:
      StorageError: at a batch that cannot be read, and at the latest behind the last one when the store is damaged.
    """
    steps = -(-examples // (batch_size * replicas))
    order = np.full(steps * batch_size * replicas, -1)
    order[:examples] = np.argsort(_cut(store.lengths[:examples], max_length), kind="stable")
    for rows in order.reshape(steps, batch_size * replicas):
        yield _slices(store, rows, max_length, replicas, local)
    store.check(wait=True)
