"""The corpus that --dataset names: labelled reviews from TFDS or from the user's own files."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from trainer.data import own_files, own_reviews, tfds_builder, tfds_corpus
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE, Classes

READ_BATCH = 1024  # reviews in memory at once

Reviews = tuple[np.ndarray, np.ndarray]
"""Texts, [n] object of bytes, and their labels, [n] of an integer dtype."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A prepared dataset of texts, each with the number of its class."""

    name: str
    version: str
    description: str
    citation: str
    element_spec: str
    split_sizes: Mapping[str, int]  # split -> number of reviews
    # (path, bytes, mtime_ns) of each source file; empty if `version` changes with the files anyway.
    sources: tuple[tuple[str, int, int], ...]
    # Split expression -> number of reviews in each of its parts; raises ValueError when it is malformed.
    sizes: Callable[[str], list[int]]
    # The same as `reviews`, without the check of the labels.
    batches: Callable[[str], Iterator[Reviews]]
    classes: Classes = NEGATIVE_POSITIVE

    def examples(self, split: str) -> int:
        """The number of reviews of `split`, an expression in TFDS' syntax, as in train[:90%].

        Raises:
          InputError: when it names no split of this corpus, is malformed or selects no review.
        """
        try:
            sizes = self.sizes(split)
        except (ValueError, NotImplementedError):
            sizes = []
        if min(sizes, default=0) < 1:
            first = next(iter(self.split_sizes))
            raise InputError(
                f"A split must be in TFDS' syntax and select reviews of {self.name}, "
                f"but {split!r} was given; its splits are {', '.join(self.split_sizes)}, "
                f"and a part of a split is written as in {first}[:90%]."
            )
        return sum(sizes)

    def reviews(self, split: str) -> Iterator[Reviews]:
        """The reviews of `split` in the order of the files, the same on every machine.

        Yields:
          (texts [n] object of bytes, labels [n] uint8), n <= 1024.

        Raises:
          InputError: when a label is not the number of a class, as in an unlabelled split.
          StorageError: when a source file is missing or damaged.
        """
        for texts, labels in self.batches(split):
            if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(self.classes):
                raise InputError(
                    f"Labels must be numbers from 0 to {len(self.classes) - 1}, but split {split!r} of "
                    f"{self.name} has others; name a labelled split."
                )
            yield texts, labels.astype(np.uint8)


def open_corpus(
    *,
    name: str,
    data_dir: str | None,
    cache_dir: str,
    text_column: str = "text",
    label_column: str = "label",
    requested_splits: Sequence[str] = (),
    held_out_fraction: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Opens a dataset, after preparing it if necessary.

    Args:
      name: `sample_reviews`; or the user's own files, as in csv:reviews.csv; or a dataset of TFDS, as in
        imdb_reviews or name/config:version.
      data_dir: for TFDS, the folder of prepared datasets and downloads; None: TFDS' own default, or
        TFDS_DATA_DIR. For the user's own files, the folder that relative paths start from.
      cache_dir: the folder for `sample_reviews` and for the counts of the user's own files.
      text_column: the name of the TFDS feature, or of the column, that holds the texts.
      label_column: the name of the feature or column that holds the labels.
      requested_splits: for the user's own files, the splits that a run names.
      held_out_fraction: for own files without splits, the share drawn for validation, and again for test.
      seed: decides which reviews are drawn.

    Raises:
      InputError: when there is no such dataset, it is not a text dataset with two classes, or it can neither
        be found nor downloaded.
      StorageError: when it exists but can't be read, or `sample_reviews` can't be prepared in `cache_dir`.
    """
    tfds_builder.silence_log()
    if _is_own(name, data_dir):
        own = own_reviews.OwnReviews(
            name=name,
            data_dir=data_dir,
            cache_dir=cache_dir,
            text_column=text_column,
            label_column=label_column,
            requested_splits=requested_splits,
            held_out_fraction=held_out_fraction,
            seed=seed,
        )
        return Corpus(
            name=name,
            version=own.version,
            description=own.description,
            citation="",
            element_spec=f"{text_column}: string, {label_column}: 0 or 1",
            split_sizes=own.split_sizes,
            sources=(),
            sizes=lambda split: [part.end - part.first for part in own.parts(split)],
            batches=lambda split: own.batches(split, READ_BATCH),
        )
    columns = tfds_builder.Columns(text_column, label_column)
    dataset = tfds_corpus.TfdsReviews(name=name, data_dir=data_dir, cache_dir=cache_dir, columns=columns)
    return Corpus(
        name=name,
        version=dataset.version,
        description=dataset.description,
        citation=dataset.citation,
        element_spec=dataset.element_spec,
        split_sizes=dataset.split_sizes,
        sources=dataset.sources,
        sizes=dataset.sizes,
        batches=lambda split: dataset.batches(split, READ_BATCH),
    )


def _is_own(name: str, data_dir: str | None) -> bool:
    if own_files.has_kind(name):
        return True
    # The name of a dataset takes precedence over a folder of the same name.
    return own_files.is_folder(name, data_dir) and not tfds_builder.is_known(name)
