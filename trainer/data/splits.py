"""Split expressions in TFDS' syntax, such as train[:90%]+test, and the reviews that they select."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

Reviews = tuple[np.ndarray, np.ndarray]
"""Texts, [n] object of bytes, and their labels, [n] of an integer dtype."""


class Part(NamedTuple):
    """Some consecutive reviews of a split: `first` .. `end`-1."""

    split: str
    first: int
    end: int


class Source(NamedTuple):
    """The splits of a corpus, each of which can only be read from its start."""

    sizes: Mapping[str, int]  # split -> number of reviews
    read: Callable[[str, int], Iterator[Reviews]]  # (split, n) -> its reviews in order, at most n at once

    def select(self, expression: str, size: int) -> Iterator[Reviews]:
        """The reviews of a split expression, at most `size` at once; ValueError when it is malformed."""
        for part in parts(expression, self.sizes):
            start = 0
            for texts, labels in self.read(part.split, size):
                selected = slice(max(0, part.first - start), max(0, part.end - start))
                if len(labels[selected]):
                    yield texts[selected], labels[selected]
                start += len(labels)
                if start >= part.end:
                    break


def parts(expression: str, sizes: Mapping[str, int]) -> list[Part]:
    """What a split expression selects.

    Args:
      expression: in TFDS' syntax.
      sizes: split -> number of reviews, for all splits.

    Raises:
      ValueError: when the expression is malformed or names an unknown split.
    """
    import tensorflow_datasets as tfds

    infos = {
        name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
        for name, size in sizes.items()
    }
    selected = tfds.core.ReadInstruction.from_spec(expression).to_absolute(infos)
    return [
        Part(part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
        for part in selected
    ]


def names(expressions: Iterable[str]) -> set[str]:
    """The splits that expressions name: train and test for train[:90%]+test."""
    found = [part.partition("[")[0].strip() for expression in expressions for part in expression.split("+")]
    return {name for name in found if name}


def is_name(name: str) -> bool:
    """Whether a split may have this name; "all" is reserved for all splits together."""
    return re.fullmatch(r"[\w-]+", name) is not None and name != "all"
