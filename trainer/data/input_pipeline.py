"""Batches as a pure function of (seed, step): nothing to save, and any step is as cheap as the first.

An epoch's shuffled reviews are divided into windows. The reviews of a window are sorted by length and cut
into batches, so that there is little padding; the batches are served in a random order in which short and
long ones alternate. A step needs one window, whatever the size of the corpus.

A batch is a few slices of a file, made on demand. A tf.data pipeline would only call back into Python from
another thread: that costs more than it saves, and can delay the exit of the process.
"""

import functools
import hashlib
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from trainer.data import permutation
from trainer.data.stored_array import Lengths, StoredArray
from trainer.data.token_store import TokenStore

WINDOW_BATCHES = 200  # adds 3% padding on IMDB at batch 64; 100 would add 6%, 50 10%
STRATA = 16
_LENGTHS_AT_A_TIME = 2**20
# Must change whenever the order does: a run can't resume exactly across such a change.
BATCH_ORDER_ID = f"shuffle-8, windows of {WINDOW_BATCHES}, {STRATA} strata, 1"

Array = TypeVar("Array", bound=np.ndarray | tf.Tensor | tf.TensorSpec)


class Batch(NamedTuple, Generic[Array]):
    """Encoded reviews, or the slice of them that one replica computes, as arrays, tensors or their specs.

    T is the length of the longest review, at least 1.
    """

    token_ids: Array  # [batch_size, T] int32, padded with 0 at the end
    lengths: Array  # [batch_size] int32, 0 .. T
    labels: Array  # [batch_size] float32, the numbers of the classes
    weights: Array  # [batch_size] float32: 1.0, or 0.0 for an empty review that only fills the batch
    reviews: Array  # [] float32: the number of weights 1.0 in the whole batch, even if this is a slice


def batch_spec(batch_size: int | None) -> Batch[tf.TensorSpec]:
    """The shapes and dtypes of a batch of any length, so that a compiled step is traced once."""
    return Batch(
        token_ids=tf.TensorSpec([batch_size, None], tf.int32),
        lengths=tf.TensorSpec([batch_size], tf.int32),
        labels=tf.TensorSpec([batch_size], tf.float32),
        weights=tf.TensorSpec([batch_size], tf.float32),
        reviews=tf.TensorSpec([], tf.float32),
    )


class BatchPlan:
    """Which reviews each training step reads.

    Args:
      lengths: [examples] int, the number of tokens of each review; examples >= 1. Read window by window.
      batch_size: rows per batch.
      seed: determines the order.
      max_length: most tokens read of a review; 0: all.
      window_batches: batches per window; 1: no sorting.
    """

    def __init__(
        self,
        *,
        lengths: np.ndarray | Lengths,
        batch_size: int,
        seed: int,
        max_length: int = 0,
        window_batches: int = WINDOW_BATCHES,
    ) -> None:
        self.examples = len(lengths)
        self.batch_size = batch_size
        self.steps_per_epoch = -(-self.examples // batch_size)
        self._lengths, self._max_length = lengths, max_length
        self._seed = seed
        self._window_batches = window_batches
        self._window = functools.lru_cache(maxsize=2)(self._make_window)

    def rows(self, step: int) -> np.ndarray:
        """The review numbers of batch `step`, counted from 0; [batch_size] int64.

        -1 marks a missing row; only the last batch of an epoch has any.
        """
        epoch, slot = divmod(step, self.steps_per_epoch)
        window, slot_in_window = divmod(slot, self._window_batches)
        return self._window(epoch, window)[slot_in_window]

    def step_before(self, step: int, *, reviews: int) -> int:
        """The step at which the last `reviews` reviews before `step` began; 0 if there were fewer."""
        missing_in_last = self.steps_per_epoch * self.batch_size - self.examples
        while reviews > 0 and step > 0:
            is_last_of_epoch = step % self.steps_per_epoch == 0
            reviews -= self.batch_size - (missing_in_last if is_last_of_epoch else 0)
            step -= 1
        return step

    def lengths(self, reviews: np.ndarray) -> np.ndarray:
        """How many tokens of each review are read; the same shape as `reviews`."""
        return _cut(self._lengths[reviews], self._max_length)

    @functools.cached_property
    def longest(self) -> int:
        """How many tokens of the longest review are read."""
        starts = range(0, self.examples, _LENGTHS_AT_A_TIME)
        longest = [self._lengths[start : start + _LENGTHS_AT_A_TIME].max() for start in starts]
        return int(_cut(np.max(longest), self._max_length))

    def _make_window(self, epoch: int, window: int) -> np.ndarray:
        """The batches of one window in the order they are served, [batches, batch_size]."""
        size = self._window_batches * self.batch_size
        first = window * size
        end = min(first + size, self.examples)
        key = _random_bytes(permutation.KEY_BYTES, self._seed, epoch)
        reviews = permutation.shuffled(first, end, size=self.examples, key=key)
        by_length = reviews[np.argsort(self.lengths(reviews), kind="stable")]
        batches = -(-len(reviews) // self.batch_size)
        order = _alternate(_random_order(batches, self._seed, epoch, window))
        # The batch that is served last is the short one. If it always held the longest reviews, they would
        # weigh more in every epoch.
        missing = batches * self.batch_size - len(reviews)
        end_of_last = (order[-1] + 1) * self.batch_size - missing
        padded = np.insert(by_length, end_of_last, np.full(missing, -1))
        return padded.reshape(batches, self.batch_size)[order]


def _random_bytes(count: int, *key: int) -> bytes:
    # A hash, because no library promises that a generator's stream stays the same in its next version.
    return hashlib.shake_256(" ".join(map(str, key)).encode()).digest(count)


def _random_order(count: int, *key: int) -> np.ndarray:
    return np.argsort(np.frombuffer(_random_bytes(8 * count, *key), "<u8"), kind="stable")


def _alternate(order: np.ndarray) -> np.ndarray:
    """Rearranges batches, as little as possible, so that short and long ones alternate.

    The batches are divided by length into STRATA equal strata. Counted from the end, every STRATA consecutive
    batches then have one of each stratum. Reviews of similar length have more in common: many such batches in
    a row, by chance, would pull the weights towards them.
    """
    strata = order * STRATA // len(order)
    by_stratum = np.argsort(strata, kind="stable")
    sorted_strata = strata[by_stratum]
    rank_from_end = np.arange(len(order)) - np.searchsorted(sorted_strata, sorted_strata, side="right")
    rounds = np.empty_like(order)
    rounds[by_stratum] = rank_from_end
    return order[np.argsort(rounds, kind="stable")]


def _cut(lengths: np.ndarray, max_length: int) -> np.ndarray:
    return np.minimum(lengths, max_length) if max_length else lengths


def padded_ratio(plan: BatchPlan, *, steps: int) -> float:
    """The number of tokens of the first `steps` batches with padding, divided by that without."""
    lengths = [plan.lengths(rows[rows >= 0]) for rows in map(plan.rows, range(steps))]
    padded = plan.batch_size * sum(max(1, int(batch.max())) for batch in lengths)
    return padded / max(1, sum(int(batch.sum(dtype=np.int64)) for batch in lengths))


def _spans(store: TokenStore, rows: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The start of each row's tokens, and how many of them are read (int32)."""
    starts, ends = store.offsets[rows], store.offsets[rows + 1]
    lengths = np.where(rows >= 0, ends - starts, 0)  # a missing row, -1, indexes another review
    if lengths.min() < 0 or starts.min() < 0 or ends.max() > len(store.token_ids):
        raise store.damaged("its offsets are out of range")
    return starts, _cut(lengths, max_length).astype(np.int32)


def _gather(store: TokenStore, rows: np.ndarray, max_length: int, reviews: np.ndarray) -> Batch[np.ndarray]:
    is_real = rows >= 0
    starts, lengths = _spans(store, rows, max_length)
    token_ids = np.zeros([len(rows), max(1, lengths.max())], np.int32)
    for row, start, length in zip(token_ids, starts.tolist(), lengths.tolist(), strict=True):
        row[:length] = store.token_ids[start : start + length]
    labels = np.where(is_real, store.labels[rows], 0)
    if token_ids.view(np.uint32).max() >= store.vocab_size or labels.max() >= store.classes:
        raise store.damaged("its token ids or labels are out of range")
    return Batch(token_ids, lengths, labels.astype(np.float32), is_real.astype(np.float32), reviews)


def slice_rows(batch_size: int, replicas: int) -> int:
    """The rows per replica when a batch is cut into equal slices, in the order of the replicas."""
    return -(-batch_size // replicas)


def _slices(
    store: TokenStore, rows: np.ndarray, max_length: int, replicas: int, local: range
) -> tuple[Batch[np.ndarray], ...]:
    # A batch that can't be cut evenly is filled with missing rows. Each slice is as long as its longest
    # review.
    size = slice_rows(len(rows), replicas)
    padded = np.pad(rows, (0, size * replicas - len(rows)), constant_values=-1).reshape(replicas, size)
    reviews = np.array(np.sum(rows >= 0), np.float32)
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
) -> Iterator[tuple[Batch[np.ndarray], ...]]:
    """The batches of steps first_step .. last_step-1; batch N takes the state from step N to N+1.

    A batch is a function of (seed, step), and the slice of a replica is a function of (seed, step, replica),
    so replicas need not communicate about it.

    Args:
      store: the encoded training reviews.
      plan: made for the lengths of `store` and for `max_length`.
      max_length: most tokens read, from the start of a review; 0: all.
      first_step: the first step; a late one costs no more than step 0.
      last_step: one past the last step.
      replicas: how many replicas share a batch.
      local: the replicas whose slices are made.

    Yields:
      The slices of a batch, one for each local replica.

    Raises:
      StorageError: when a batch can't be read, or once the store is known to be damaged. Only
        `store.check(wait=True)` guarantees that the batches so far are correct.
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
) -> Iterator[tuple[Batch[np.ndarray], ...]]:
    """The first `examples` reviews of the corpus, each once, sorted by length to reduce padding.

    Args:
      store: the encoded reviews.
      batch_size: rows of a slice; the last slices are filled with empty reviews of weight 0.
      max_length: most tokens read, from the start of a review; 0: all.
      examples: how many reviews, at most len(store).
      replicas: how many replicas share a batch.
      local: the replicas whose slices are made.

    Yields:
      The slices of a batch, one for each local replica.

    Raises:
      StorageError: when a batch can't be read, or, after the last batch at the latest, when the store is
        damaged.
    """
    steps = -(-examples // (batch_size * replicas))
    order = np.full(steps * batch_size * replicas, -1)
    order[:examples] = np.argsort(_cut(store.lengths[:examples], max_length), kind="stable")
    for rows in order.reshape(steps, batch_size * replicas):
        yield _slices(store, rows, max_length, replicas, local)
    store.check(wait=True)
