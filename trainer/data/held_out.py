"""Splits that a corpus lacks: reviews of train are drawn for validation and test."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from trainer.data import permutation, splits
from trainer.data.splits import Reviews, Source
from trainer.errors import InputError

DRAWN = ("validation", "test")


class Draw(NamedTuple):
    """What decides which reviews are drawn.

    Attributes:
      requested: the split expressions that the run names.
      missing: which of validation and test are drawn.
      fraction: the share of train that is drawn for each of them.
      seed: `--seed`.
    """

    requested: Sequence[str]
    missing: Sequence[str]
    fraction: float
    seed: int

    @property
    def identity(self) -> list[object]:
        """Its part in the version of a corpus."""
        expressions = sorted(self.requested)
        # Older versions drew splits only for runs that name no part of one, and recorded what the run names.
        is_plain = set(expressions) <= {"train", *DRAWN}
        return [self.seed, self.fraction, expressions if is_plain else sorted({"train", *self.missing})]


class HeldOut:
    """A corpus with splits that are drawn from its split train.

    Args:
      source: the corpus.
      draw: what is drawn.
      shown: the corpus, for messages.

    Attributes:
      source: the corpus with these splits, in each of which reviews keep their order.

    Raises:
      InputError: when a split would get no review.
    """

    def __init__(self, source: Source, draw: Draw, *, shown: str) -> None:
        self._of, self._count = source, source.sizes["train"]
        # Without rounding, 0.29 * 100 would be less than 29.
        share = int(round(self._count * draw.fraction, 6))
        held_out = {name: share for name in DRAWN if name in draw.missing}
        sizes = {**held_out, "train": self._count - sum(held_out.values())}
        if min(sizes.values()) < 1:
            raise InputError(
                f"Each of {', '.join(sizes)} must get a review, but {shown} has {self._count}, and "
                f"--held_out_fraction={draw.fraction} of them are {share}; {_remedy(self._count)}."
            )
        # A permutation of all reviews is cut into two or three parts.
        self._names, self._bounds = np.array(list(sizes)), np.cumsum(list(sizes.values()))
        self._key = hashlib.sha256(f"{draw.seed} held out".encode()).digest()[: permutation.KEY_BYTES]
        in_order = ("train", *held_out)
        self.source = Source(
            {name: sizes[name] for name in in_order}
            | {name: size for name, size in source.sizes.items() if name not in sizes},
            self._read,
        )
        for name in held_out:
            logging.info(
                "Split     %s is drawn from train, %d of its %d reviews, because %s has none of that name.",
                name,
                share,
                self._count,
                shown,
            )

    def _read(self, split: str, size: int) -> Iterator[Reviews]:
        if split not in self._names:
            yield from self._of.read(split, size)
            return
        start = 0
        for texts, labels in self._of.read("train", size):
            drawn = self._splits_of(start, start + len(labels)) == split
            if drawn.any():
                yield texts[drawn], labels[drawn]
            start += len(labels)

    def _splits_of(self, start: int, stop: int) -> np.ndarray:
        """The name of the split of each of the reviews start .. stop-1."""
        positions = permutation.shuffled(start, stop, size=self._count, key=self._key)
        return self._names[np.searchsorted(self._bounds, positions, side="right")]


def _remedy(count: int) -> str:
    """What gives each split one of so many reviews."""
    if count < 3:
        return "give more reviews"
    return f"give --held_out_fraction={-(-100 // count) / 100:g} or more reviews"


def missing(requested: Iterable[str], available: Iterable[str]) -> list[str]:
    """Which of validation and test split expressions name that a corpus with a train split lacks.

    Args:
      requested: split expressions.
      available: the splits of the corpus.
    """
    has = set(available)
    return [name for name in DRAWN if "train" in has and name in splits.names(requested) - has]
