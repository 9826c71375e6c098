"""Split expressions in TFDS' syntax, such as train[:90%]+test."""

import re
from collections.abc import Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """Some consecutive reviews of a split: `first` .. `end`-1."""

    split: str
    first: int
    end: int


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


def is_name(name: str) -> bool:
    """Whether a split may have this name; "all" is reserved for all splits together."""
    return re.fullmatch(r"[\w-]+", name) is not None and name != "all"
