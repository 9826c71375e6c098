"""Labelled reviews to train on: the corpus that a --dataset names, whatever it is read from."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from trainer.data import own_files, own_reviews, tfds_builder, tfds_corpus
from trainer.errors import InputError

READ_BATCH = 1024  # reviews in memory at once

Reviews = tuple[np.ndarray, np.ndarray]
"""Texts, [n] object of bytes, and their labels, [n] of an integer dtype."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A prepared dataset of texts with a label of 0 or 1."""

    name: str
    version: str
    description: str
    citation: str
    element_spec: str
    split_sizes: Mapping[str, int]  # the splits it was prepared with, each with its number of reviews
    # (path, bytes, mtime_ns) of each file it is read from, where `version` does not change with the files.
    sources: tuple[tuple[str, int, int], ...]
    # The number of reviews in each part of a split expression; raises ValueError when it is malformed.
    sizes: Callable[[str], list[int]]
    # As `reviews`, whatever the labels are.
    batches: Callable[[str], Iterator[Reviews]]

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
                f"and a part of one is given as in {first}[:90%]."
            )
        return sum(sizes)

    def reviews(self, split: str) -> Iterator[Reviews]:
        """The reviews of `split` in the order of the files, the same on every machine.

        Yields:
          (texts [n] object of bytes, labels [n] uint8), n <= 1024.

        Raises:
          InputError: at a label that is neither 0 nor 1, such as that of unlabelled reviews.
          StorageError: when a source file is missing or damaged.
        """
        for texts, labels in self.batches(split):
            if not np.isin(labels, (0, 1)).all():
                raise InputError(
                    f"Labels must be 0 or 1, but split {split!r} of {self.name} has others; "
                    f"name a split that is labelled."
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
      data_dir: of TFDS, where datasets are prepared, and downloaded to; None: TFDS' own default, or
        TFDS_DATA_DIR. Of the user's own files, where a relative path begins.
      cache_dir: where `sample_reviews` is prepared, and the counts of the user's own files are kept.
      text_column: the name of the texts, a feature of TFDS or a column.
      label_column: that of the labels.
      requested_splits: of the user's own files, the splits that a run names.
      held_out_fraction: of own files without splits, the share drawn for validation, and as much for test.
      seed: decides which reviews are drawn.

    Raises:
      InputError: when there is no such dataset, it is no binary text classification, or it can neither be
        found nor downloaded.
      StorageError: when it is there and can't be read, or `sample_reviews` can't be prepared in `cache_dir`.
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
