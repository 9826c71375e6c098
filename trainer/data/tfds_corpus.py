"""Datasets of TFDS, and `sample_reviews`, which is prepared as one of them without a network."""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import tensorflow as tf
from absl import logging

from trainer import files
from trainer.data import label_counts, splits, tfds_builder, tfds_features
from trainer.data.cache_entry import LOCK, holds_only, locked, move_aside
from trainer.data.label_counts import Counts
from trainer.data.splits import Reviews, Source
from trainer.data.tfds_builder import SAMPLE_REVIEWS, Columns, Folder, short
from trainer.data.tfds_features import LabelNames
from trainer.errors import InputError, StorageError, TrainerError

_CHECK_BATCH = 1024  # reviews in memory at once
# Errors of damaged files, as opposed to files that can't be read at the moment.
_DAMAGED = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.InvalidArgumentError,
)


class TfdsReviews:
    """An opened dataset of TFDS, prepared first if necessary.

    Args:
      name: name/config:version, as TFDS writes it, or `sample_reviews`.
      data_dir: the folder of prepared datasets and downloads; None: TFDS' own default, TFDS_DATA_DIR if set.
      cache_dir: the folder for `sample_reviews`, and for the counts of labels.
      columns: the names of text and label.
      labels: `--labels`: the classes; empty: those of the dataset.
      requested_splits: the split expressions that a run names; empty: all splits.
      evaluated_split: another one, which does not decide the classes.

    Attributes:
      version: TFDS' version number.
      description: TFDS' description.
      citation: in BibTeX; may be empty.
      element_spec: shapes and dtypes of the columns.
      classes: the classes, in their order.
      left_out: each label that means no class -> its reviews, which are left out.
      sources: (path, bytes, mtime_ns) of each source file.

    Raises:
      InputError: when there is no such dataset, it is not a labelled text dataset, or it can neither be found
        nor downloaded.
      StorageError: when it exists but can't be read, or `sample_reviews` can't be prepared in `cache_dir`.
    """

    def __init__(
        self,
        *,
        name: str,
        data_dir: str | None,
        cache_dir: str,
        columns: Columns,
        labels: str,
        requested_splits: Sequence[str],
        evaluated_split: str,
    ) -> None:
        self._name = name
        folder = Folder(tfds_builder.path_of_prepared(name, data_dir, cache_dir))
        with _errors_of_tfds(name, folder):
            if name == SAMPLE_REVIEWS:
                _remove_damaged_sample_reviews(folder, read_all=False)
            builder = tfds_builder.make_builder(name, folder)
            self._columns = tfds_features.find_columns(name, builder, columns)
            if not builder.info.splits:
                folder, builder = tfds_builder.prepare(name, folder)
            self._folder, self._builder, self._splits = folder, builder, builder.info.splits
            self.version = str(builder.version)
            self.description: str = builder.info.description
            self.citation: str = builder.info.citation
            self._sizes = {split: info.num_examples for split, info in self._splits.items()}
            self.element_spec = str(tfds_builder.ELEMENT_SPEC)
            paths = [path for info in self._splits.values() for path in info.filepaths if path.exists()]
            self.sources = tuple(_source(path, folder) for path in paths)
            names = LabelNames.of(builder.info.features[self._columns.label])
        # Label -> class; None: labels are the numbers of classes, and all are kept.
        self._numbers: Mapping[int, int] | None = None
        self.left_out: Mapping[str, int] = {}
        if names.names and not labels:
            self.classes = names.classes()
        else:
            used = splits.names(requested_splits) & self._sizes.keys() or {*self._sizes}
            further = splits.names([evaluated_split]) & self._sizes.keys() - used
            self._find_classes(names, labels, used, further, label_counts.Kept(cache_dir))

    @property
    def source(self) -> Source:
        """The splits with their reviews."""
        return Source(self._sizes, self._read)

    def sizes(self, split: str) -> list[int]:
        """The size of each part of a split expression; raises ValueError when it is malformed."""
        if self._numbers is not None:
            return [part.end - part.first for part in splits.parts(split, self._sizes)]
        return [part.take for part in self._splits[split].file_instructions]

    def batches(self, split: str, size: int) -> Iterator[Reviews]:
        """The reviews of a split expression, one file after the other.

        Yields:
          (texts [n] object of bytes, labels [n] int64), n <= size.

        Raises:
          StorageError: when a file is missing, damaged or can't be read.
        """
        return self._stored(split, size) if self._numbers is None else self.source.select(split, size)

    def _read(self, split: str, size: int) -> Iterator[Reviews]:
        """The reviews of a whole split that are kept, each with the number of its class."""
        for texts, labels in self._stored(split, size):
            if self._numbers is None:
                yield texts, labels
                continue
            numbers = np.array([self._numbers.get(label, -1) for label in labels.tolist()])
            if (kept := numbers >= 0).any():
                yield texts[kept], numbers[kept]

    def _find_classes(
        self, names: LabelNames, given: str, used: set[str], further: set[str], kept: label_counts.Kept
    ) -> None:
        """Finds classes by counting the labels of the splits in use, and leaves out other labels."""
        counts = {split: self._count(split, kept) for split in sorted(used | further)}
        as_named = {
            split: dataclasses.replace(of_split, labels=names.counts(of_split.labels))
            for split, of_split in counts.items()
            if split in used
        }
        label_counts.check_labelled(as_named)
        self.classes = names.complete(label_counts.classes_of(as_named, given))
        self._numbers = names.numbers(self.classes, {label for c in counts.values() for label in c.labels})
        for split, of_split in counts.items():
            self._sizes[split] = sum(n for label, n in of_split.labels.items() if int(label) in self._numbers)
        of_run = [of_split for split, of_split in counts.items() if split in used]
        self.left_out = {
            names.values(int(label))[-1]: n
            for label, n in label_counts.total(of_run).items()
            if int(label) not in self._numbers
        }
        label_counts.log_left_out(sum(of_split.rows for of_split in of_run), self.left_out, {})

    def _count(self, split: str, kept: label_counts.Kept) -> Counts:
        """The labels of a split, as TFDS holds them, with their numbers; kept in the cache."""
        sources = [(pathlib.PurePath(path).name, size, time) for path, size, time in self.sources]
        key = [self._name, self.version, self._columns, split, sources]
        if (counts := kept.read(key)) is None:
            logging.info("Counting the labels of %s, split %s; this is done once.", self._name, split)
            batches = self._stored(split, _CHECK_BATCH)
            counts = label_counts.count_labels(
                str(label) for _, labels in batches for label in labels.tolist()
            )
            kept.write(key, counts)
        return counts

    def _stored(self, split: str, size: int) -> Iterator[Reviews]:
        """The reviews of a split expression with their labels as TFDS holds them."""
        name, folder, builder = self._name, self._folder, self._builder
        try:
            if name == SAMPLE_REVIEWS and _remove_damaged_sample_reviews(folder, read_all=True):
                tfds_builder.prepare(name, folder)
            batches = tfds_builder.read(builder, split, self._columns, size).prefetch(1)
            # TensorFlow's own annotation says that an element is one array.
            yield from cast(Iterator[Reviews], batches.as_numpy_iterator())
        except (OSError, tf.errors.OpError) as error:
            place, why = folder.shown(builder.data_dir), folder.shown(short(error))
            is_damaged = isinstance(error, _DAMAGED)
            remedy = (
                f"delete {place} and prepare it again"
                if is_damaged
                else f"make {place} readable and start again"
            )
            raise StorageError(f"Split {split!r} of {name} could not be read ({why}); {remedy}.") from error


@contextlib.contextmanager
def _errors_of_tfds(name: str, folder: Folder) -> Iterator[None]:
    """Turns any exception into a TrainerError: the code of a dataset runs here, and may raise anything."""
    place = pathlib.Path(folder.path, re.split("[/:]", name)[0])
    try:
        # Only the name of a dataset is a safe path; ../datasets, for example, is not.
        if name != SAMPLE_REVIEWS and tfds_builder.is_name(name) and not files.is_uri(folder.path):
            _check_readable(place)
        yield
    except TrainerError:
        raise
    except (OSError, tf.errors.PermissionDeniedError) as error:
        other = "--cache_dir" if name == SAMPLE_REVIEWS else "--data_dir or TFDS_DATA_DIR"
        raise StorageError(
            f"{name} must be read from {place}, but it cannot be ({folder.shown(short(error))}); "
            f"make it readable, or name another folder by {other}."
        ) from error
    except Exception as error:
        remedy = f"; if {place} is damaged, delete it and prepare it again" if os.path.lexists(place) else ""
        raise InputError(
            f"--dataset={name} must be one that TFDS can open, but it cannot "
            f"({folder.shown(short(error))}){remedy}."
        ) from None


def _check_readable(place: pathlib.Path) -> None:
    """Raises OSError when a prepared dataset can't be read; TFDS would treat it as missing."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for folder in (place.parent, place):
        try:
            os.scandir(folder).close()
        except OSError as error:
            fail(error)
    for walked, _, names in os.walk(place, onerror=fail):
        for path in (pathlib.Path(walked, name) for name in names if name.endswith(".json")):
            try:
                os.close(files.open_regular(path, follow_links=True))
            except files.ABSENT as error:
                raise ValueError(f"{path.name} is not a file") from error


def _remove_damaged_sample_reviews(folder: Folder, *, read_all: bool) -> bool:
    """Removes `sample_reviews` from the cache if it is damaged; returns whether it has to be prepared.

    With `read_all` its files are read too, which is done only before its reviews are used.
    """
    from trainer.data.sample_reviews import SampleReviews

    parent = pathlib.Path(folder.name, SAMPLE_REVIEWS)
    if os.path.lexists(parent) and not parent.is_dir():
        move_aside(parent)
    prepared = parent / str(SampleReviews.VERSION)
    if not os.path.lexists(prepared):
        return True
    if _damage_of_sample_reviews(folder, prepared, read_all) is None:
        return False
    with locked(parent / LOCK):  # another process may be replacing it as well
        if os.path.lexists(prepared) and (why := _damage_of_sample_reviews(folder, prepared, read_all)):
            place, why = folder.shown(prepared), folder.shown(why)
            logging.warning("%s is damaged (%s); it is prepared again.", place, why)
            if holds_only(prepared, _is_of_sample_reviews):
                torn = pathlib.Path(tempfile.mkdtemp(dir=parent, suffix=".torn"))
                prepared.rename(torn / prepared.name)
                shutil.rmtree(torn)
            else:
                move_aside(prepared)
    return not os.path.lexists(prepared)


def _is_of_sample_reviews(name: str) -> bool:
    return name.endswith(".json") or name.startswith(f"{SAMPLE_REVIEWS}-")


def _damage_of_sample_reviews(folder: Folder, prepared: pathlib.Path, read_all: bool) -> str | None:
    from trainer.data.sample_reviews import SPLITS

    try:
        if not all(path.is_file() for path in prepared.iterdir()):
            return "it holds something that is not a file"
        builder = tfds_builder.make_builder(SAMPLE_REVIEWS, folder)
        sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
        if sizes != {split: count for split, (_, count) in SPLITS.items()}:
            return "dataset_info.json does not describe it"
        if read_all and tfds_builder.count_records(builder) != sum(sizes.values()):
            return "its files do not hold what dataset_info.json describes"
    except (FileNotFoundError, NotADirectoryError) as error:
        return short(error)
    except (OSError, tf.errors.PermissionDeniedError):
        raise  # it may be undamaged
    except Exception as error:  # from json, protobuf or TensorFlow
        return short(error)
    return None


def _source(path: os.PathLike[str], folder: Folder) -> tuple[str, int, int]:
    status = pathlib.Path(path).stat()
    return folder.shown(os.fspath(path)), status.st_size, status.st_mtime_ns
