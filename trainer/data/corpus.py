"""The corpus that --dataset names: labelled reviews from TFDS or from the user's own files."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from trainer.data import held_out, label_counts, own_files, own_reviews, splits, tfds_builder, tfds_corpus
from trainer.data.splits import Reviews
from trainer.data.tables import Options
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE, Classes

READ_BATCH = 1024  # reviews in memory at once

_DEFAULTS = Options()


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
    # Each label that means no class -> its number of reviews, which are left out.
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)  # each kind of invalid row

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
                name = next(iter(splits.names([split])), split)
                raise label_counts.unlabelled(name, f"in {self.name} some labels are no number of a class")
            yield texts, labels.astype(np.uint8)


def open_corpus(
    *,
    name: str,
    data_dir: str | None,
    cache_dir: str,
    options: Options = _DEFAULTS,
    labels: str = "",
    bad_rows: str = "",
    requested_splits: Sequence[str] = (),
    evaluated_split: str = "",
    held_out_fraction: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Opens a dataset, after preparing it if necessary.

    Args:
      name: `sample_reviews`; or a dataset of TFDS, as in imdb_reviews or name/config:version; or the path of
        the user's own files, with or without their kind, as in reviews.csv or csv:reviews.txt.
      data_dir: for TFDS, the folder of prepared datasets and downloads; None: TFDS' own default, or
        TFDS_DATA_DIR. For the user's own files, the folder that relative paths start from.
      cache_dir: the folder for `sample_reviews` and for counts of labels.
      options: the names of text and label, and how the user's own files are read.
      labels: `--labels`: the classes; empty: each label is one.
      bad_rows: for the user's own files, whether to "skip" invalid rows; otherwise they are refused.
      requested_splits: the splits that a run names; no others are read. Empty: all are.
      evaluated_split: another one to read, which decides neither the classes nor what is drawn.
      held_out_fraction: the share of train that is drawn for validation, and again for test, if the run names
        these and the corpus lacks them.
      seed: decides which reviews are drawn.

    Raises:
      InputError: when there is no such dataset, it is not a labelled text dataset, or it can neither be found
        nor downloaded.
      StorageError: when it exists but can't be read, or `sample_reviews` can't be prepared in `cache_dir`.
    """
    tfds_builder.silence_log()
    if is_own(name, data_dir):
        own = own_reviews.OwnReviews(
            name=name,
            data_dir=data_dir,
            cache_dir=cache_dir,
            options=options,
            labels=labels,
            bad_rows=bad_rows,
            requested_splits=requested_splits,
            evaluated_split=evaluated_split,
            held_out_fraction=held_out_fraction,
            seed=seed,
        )
        return _of_own_files(name, options, own)
    columns = tfds_builder.Columns(options.text_column, options.label_column or "")
    try:
        dataset = tfds_corpus.TfdsReviews(
            name=name,
            data_dir=data_dir,
            cache_dir=cache_dir,
            columns=columns,
            labels=labels,
            requested_splits=requested_splits,
            evaluated_split=evaluated_split,
        )
    except tfds_builder.NoSuchDatasetError as error:
        near = own_files.nearest(name, data_dir)
        raise (tfds_builder.no_such_dataset(name, near) if near else error) from None
    return _of_tfds(name, dataset, requested_splits, held_out_fraction, seed)


def _of_own_files(name: str, options: Options, own: own_reviews.OwnReviews) -> Corpus:
    names = ", ".join(own.classes.names)
    return Corpus(
        name=name,
        version=own.version,
        description=own.description,
        citation="",
        element_spec=f"{options.text_column}: string, {options.label_column}: one of {names}",
        split_sizes=own.split_sizes,
        sources=(),
        sizes=own.sizes,
        batches=lambda split: own.batches(split, READ_BATCH),
        classes=own.classes,
        left_out=own.left_out,
        skipped=own.skipped,
    )


def _of_tfds(
    name: str, dataset: tfds_corpus.TfdsReviews, requested: Sequence[str], fraction: float, seed: int
) -> Corpus:
    corpus = Corpus(
        name=name,
        version=dataset.version,
        description=dataset.description,
        citation=dataset.citation,
        element_spec=dataset.element_spec,
        split_sizes=dataset.source.sizes,
        sources=dataset.sources,
        sizes=dataset.sizes,
        batches=lambda split: dataset.batches(split, READ_BATCH),
        classes=dataset.classes,
        left_out=dataset.left_out,
    )
    drawn = held_out.missing(requested, corpus.split_sizes)
    if not drawn:
        return corpus
    draw = held_out.Draw(requested, drawn, fraction, seed)
    source = held_out.HeldOut(dataset.source, draw, shown=name).source
    return dataclasses.replace(
        corpus,
        version=f"{dataset.version}-{label_counts.digest(draw.identity)[:8]}",
        split_sizes=source.sizes,
        sizes=lambda split: [part.end - part.first for part in splits.parts(split, source.sizes)],
        batches=lambda split: source.select(split, READ_BATCH),
    )


def is_own(name: str, data_dir: str | None) -> bool:
    """Whether a --dataset names the user's own files rather than a dataset of TFDS."""
    if own_files.has_kind(name):
        return True
    # The name of a dataset takes precedence over a file or folder of the same name.
    return own_files.is_path(name, data_dir) and not tfds_builder.is_known(name)
