"""Text to tokens and tokens to ids, exactly as Keras' `TextVectorization` does by default.

Tokens are bytes, and only TensorFlow's own ops process them: Python's `str.lower` and `str.split` also affect
letters and spaces that are not ASCII.
"""

import collections
import dataclasses
import functools
import hashlib
import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from trainer.errors import InputError
from trainer.parallel import on_all_cores

PADDING, UNKNOWN = b"", b"[UNK]"
_HTML = "<[A-Za-z/!][^<>]*>|&(#[0-9]+|#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);"

Texts: TypeAlias = Sequence[str] | Sequence[bytes] | np.ndarray | tf.Tensor
"""Texts, [n] string; any bytes, UTF-8 or not."""


class Tokenizer(NamedTuple):
    """How a text becomes tokens: "lower_and_strip_punctuation", then a split.

    Attributes:
      tokens: "words": split at whitespace; "characters": each code point is a token, spaces too.
      strip_html: whether tags and entities are replaced by spaces first.
    """

    tokens: str = "words"
    strip_html: bool = False

    @property
    def id(self) -> str:
        """Must change whenever the tokens of a text do."""
        split = "split at ascii whitespace" if self.tokens == "words" else "split into code points"
        html = "no html, " if self.strip_html else ""
        return f"{html}ascii-lower, no ascii punctuation, {split}"

    def __call__(self, texts: Texts) -> tf.RaggedTensor:
        """The tokens of each text.

        Args:
          texts: [n] string. Only ASCII letters are lowered.

        Returns:
          [n, None] string; a text that has only spaces and punctuation has no words.
        """
        plain = tf.strings.regex_replace(tf.strings.lower(self.stripped(texts)), "[[:punct:]]", "")
        if self.tokens == "words":
            return tf.strings.split(plain)
        return tf.strings.unicode_split(plain, "UTF-8")

    def stripped(self, texts: Texts) -> tf.Tensor:
        """The texts without HTML if that is to be removed, else as they are; [n] string."""
        as_given = tf.convert_to_tensor(texts, tf.string)
        return tf.strings.regex_replace(as_given, _HTML, " ") if self.strip_html else as_given


WORDS = Tokenizer()


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The known tokens; the id of a token is its position.

    The first two represent padding and every unknown token.
    """

    tokens: tuple[bytes, ...]
    tokenizer: Tokenizer = WORDS

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, texts: Texts) -> tf.RaggedTensor:
        """The ids of each text's tokens, [n, None] int32."""
        return tf.ragged.map_flat_values(self._table.lookup, self.tokenizer(texts))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of `to_bytes`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The content of a vocabulary file: one token per line, in the order of ids; none is a newline."""
        return b"\n".join(self.tokens)

    @classmethod
    def from_bytes(cls, data: bytes, tokenizer: Tokenizer = WORDS) -> "Vocabulary":
        """The inverse of `to_bytes`; the file does not hold the tokenizer.

        Raises:
          InputError: when `data` is not what `to_bytes` writes.
        """
        tokens = tuple(data.split(b"\n"))
        if tokens[:2] != (PADDING, UNKNOWN) or len(set(tokens)) < len(tokens):
            raise InputError(
                "A vocabulary must be an empty line, [UNK] and distinct tokens, a line each, "
                "but this one is not; delete it to have it rebuilt."
            )
        return cls(tokens, tokenizer)

    @functools.cached_property
    def _table(self) -> tf.lookup.StaticHashTable:
        with tf.init_scope():
            ids = tf.range(len(self.tokens), dtype=tf.int32)
            initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(self.tokens), ids)
            return tf.lookup.StaticHashTable(initializer, default_value=1)


def _count(tokenizer: Tokenizer, texts: Texts) -> list[tuple[bytes, int]]:
    """The distinct tokens of some texts, each with its count."""
    tokens, _, counts = tf.unique_with_counts(tokenizer(texts).flat_values)
    return list(zip(tokens.numpy().tolist(), counts.numpy().tolist(), strict=True))


def build_vocabulary(
    *, batches: Iterable[Texts], vocab_size: int, tokenizer: Tokenizer = WORDS
) -> Vocabulary:
    """The most frequent tokens, in the order of Keras' `adapt`: by count, then by bytes, both descending.

    Args:
      batches: batches of texts, read once; memory holds the distinct tokens and a few batches.
      vocab_size: the largest number of tokens, including padding and [UNK]; at least 3.
      tokenizer: makes the tokens.
    """
    counts: collections.Counter[bytes] = collections.Counter()
    for counted in on_all_cores(functools.partial(_count, tokenizer), batches):
        for token, count in counted:
            counts[token] += count
    # A vocabulary file has a token per line. As a character, a newline is unknown.
    counts.pop(b"\n", None)
    frequent = heapq.nlargest(vocab_size - 2, counts, key=lambda token: (counts[token], token))
    return Vocabulary((PADDING, UNKNOWN, *frequent), tokenizer)
