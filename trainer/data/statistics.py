"""What the encoded reviews of a split are like: classes, lengths, unknown tokens, texts of another split."""

import collections
import dataclasses
from collections.abc import Iterator

import numpy as np

from trainer.data.stored_array import AnyArray
from trainer.data.token_store import TokenStore

_CHUNK = 4096  # reviews in memory at once
MOST = 200_000  # reviews of a split that are read, so that a start takes no longer for a large corpus
_UNKNOWN_ID = 1
_COMPARED_TOKENS = 5  # the shortest text that is compared with others: shorter ones repeat by chance


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Figures of one split; those of tokens are of its first `MOST` reviews.

    Attributes:
      class_counts: the number of reviews of each class.
      median_tokens: of a review.
      short_share: the share of reviews of at most one token.
      unknown_share: the share of unknown tokens among all.
    """

    class_counts: tuple[int, ...]
    median_tokens: int
    short_share: float
    unknown_share: float

    @property
    def reviews(self) -> int:
        """The number of reviews."""
        return sum(self.class_counts)


def class_counts(labels: AnyArray, classes: int) -> tuple[int, ...]:
    """The number of reviews of each class.

    Args:
      labels: [reviews] uint8.
      classes: how many there are.
    """
    counts = np.zeros(classes, np.int64)
    for start in range(0, len(labels), 2**20):
        # A label that is none, in a damaged store, is reported when the store has been verified.
        counts += np.bincount(labels[start : start + 2**20], minlength=classes)[:classes]
    return tuple(counts.tolist())


def describe(store: TokenStore, classes: int) -> Statistics:
    """The figures of a store, which is read piece by piece."""
    of_length = np.zeros(1, np.int64)  # reviews of each length
    tokens = unknown = 0
    for token_ids, lengths in _pieces(store):
        counts = np.bincount(lengths, minlength=len(of_length))
        counts[: len(of_length)] += of_length
        of_length = counts
        tokens += len(token_ids)
        unknown += int(np.count_nonzero(token_ids == _UNKNOWN_ID))
    read = int(of_length.sum())
    median = int(np.searchsorted(np.cumsum(of_length), (read + 1) // 2))
    return Statistics(
        class_counts=class_counts(store.labels, classes),
        median_tokens=median,
        short_share=float(of_length[:2].sum() / read),
        unknown_share=unknown / max(1, tokens),
    )


def shared_texts(store: TokenStore, other: TokenStore) -> int:
    """How many reviews of `other` are in `store` too, of the first `MOST` each; short ones do not count.

    Memory holds a number for each different review of `other`.
    """
    sought = collections.Counter(
        text for token_ids, lengths in _pieces(other) for text in _hashes(token_ids, lengths)
    )
    shared = 0
    for token_ids, lengths in _pieces(store):
        for text in _hashes(token_ids, lengths):
            shared += sought.pop(text, 0)
    return shared


def _hashes(token_ids: np.ndarray, lengths: np.ndarray) -> Iterator[int]:
    # One for each review that is not short. Python's hash of bytes differs from process to process: these are
    # not kept.
    content, size = token_ids.tobytes(), token_ids.itemsize
    for end, length in zip(np.cumsum(lengths).tolist(), lengths.tolist(), strict=True):
        if length >= _COMPARED_TOKENS:
            yield hash(content[(end - length) * size : end * size])


def _pieces(store: TokenStore) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # The token ids of some reviews, one after the other, and their lengths.
    most = min(len(store), MOST)
    for start in range(0, most, _CHUNK):
        offsets = store.offsets[start : min(start + _CHUNK, most) + 1]
        yield store.token_ids[int(offsets[0]) : int(offsets[-1])], np.diff(offsets)
