"""Text to tokens and tokens to ids, exactly as Keras' `TextVectorization` does by default.

Tokens are bytes, and only TensorFlow's own ops process them: Python's `str.lower` and `str.split` also affect
letters and spaces that are not ASCII.
"""

import collections
import dataclasses
import functools
import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, TypeVar

import numpy as np
import tensorflow as tf

from trainer import machine
from trainer.errors import InputError

# Must change whenever `tokenize` does.
STANDARDISER_ID = "ascii-lower, no ascii punctuation, split at ascii whitespace"
PADDING, UNKNOWN = b"", b"[UNK]"

Texts: TypeAlias = Sequence[str] | Sequence[bytes] | np.ndarray | tf.Tensor
"""Texts, [n] string; any bytes, UTF-8 or not."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def tokenize(texts: Texts) -> tf.RaggedTensor:
    """The tokens of each text: "lower_and_strip_punctuation", then split at whitespace.

    Args:
      texts: [n] string. Only ASCII letters are lowered.

    Returns:
      [n, None] string; a text that has only spaces and punctuation has no tokens.
    """
    lowered = tf.strings.lower(tf.convert_to_tensor(texts, tf.string))
    return tf.strings.split(tf.strings.regex_replace(lowered, "[[:punct:]]", ""))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The known tokens; the id of a token is its position.

    The first two represent padding and every unknown token.
    """

    tokens: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, texts: Texts) -> tf.RaggedTensor:
        """The ids of each text's tokens, [n, None] int32."""
        return tf.ragged.map_flat_values(self._table.lookup, tokenize(texts))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of `to_bytes`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The content of a vocabulary file: one token per line, in the order of ids.

        No token holds a newline, because that is whitespace.
        """
        return b"\n".join(self.tokens)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Vocabulary":
        """The inverse of `to_bytes`.

        Raises:
          InputError: when `data` is not what `to_bytes` writes.
        """
        tokens = tuple(data.split(b"\n"))
        if tokens[:2] != (PADDING, UNKNOWN) or len(set(tokens)) < len(tokens):
            raise InputError(
                "A vocabulary must be an empty line, [UNK] and distinct tokens, a line each, "
                "but this one is not; delete it to have it rebuilt."
            )
        return cls(tokens)

    @functools.cached_property
    def _table(self) -> tf.lookup.StaticHashTable:
        with tf.init_scope():
            ids = tf.range(len(self.tokens), dtype=tf.int32)
            initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(self.tokens), ids)
            return tf.lookup.StaticHashTable(initializer, default_value=1)


def on_all_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Applies `function` to each item in parallel; yields the results in the order of the items.

    TensorFlow's eager operations run on the calling thread and release Python's global lock, so the thread
    counts that are set for training do not apply here. At most two items more than there are cores are in
    memory.
    """
    cores = machine.usable_cores()
    with ThreadPoolExecutor(cores) as pool:
        running: collections.deque[Future[Result]] = collections.deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > cores:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _count(texts: Texts) -> list[tuple[bytes, int]]:
    """The distinct tokens of some texts, each with its count."""
    tokens, _, counts = tf.unique_with_counts(tokenize(texts).flat_values)
    return list(zip(tokens.numpy().tolist(), counts.numpy().tolist(), strict=True))


def build_vocabulary(*, batches: Iterable[Texts], vocab_size: int) -> Vocabulary:
    """The most frequent tokens, in the order of Keras' `adapt`: by count, then by bytes, both descending.

    Args:
      batches: batches of texts, read once; memory holds the distinct tokens and a few batches.
      vocab_size: the largest number of tokens, including padding and [UNK]; at least 3.
    """
    counts: collections.Counter[bytes] = collections.Counter()
    for counted in on_all_cores(_count, batches):
        for token, count in counted:
            counts[token] += count
    frequent = heapq.nlargest(vocab_size - 2, counts, key=lambda token: (counts[token], token))
    return Vocabulary((PADDING, UNKNOWN, *frequent))
