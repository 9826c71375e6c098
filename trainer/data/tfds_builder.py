"""TFDS builders: finds them by name, prepares them in a folder, and reads them in batches."""

import contextlib
import difflib
import functools
import io
import logging as standard_logging
import os
import pathlib
import re
import sys
import textwrap
import weakref
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf
from absl import logging

from trainer import files, machine
from trainer.errors import InputError, StorageError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SAMPLE_REVIEWS = "sample_reviews"
ELEMENT_SPEC = tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)  # of a text and its label

_NAME = re.compile(r"(\w+)(/[\w.+-]+)?(:[\d.*]+)?")


class Columns(NamedTuple):
    """The names of the two features that are read."""

    text: str
    label: str


class NoSuchDatasetError(InputError):
    """A --dataset is the name of no dataset."""


class Folder:
    """A folder and a plain name for it, because TFDS puts names into globs and reads some as URIs.

    `name` is that of the folder that existed when this object was made; if none did, it names nothing.
    """

    def __init__(self, path: str) -> None:
        self.path, self.name = path, path
        if not files.is_uri(path):
            try:
                descriptor = machine.open_directory(path)
            except (FileNotFoundError, NotADirectoryError):
                self.name = f"{os.devnull}/nothing"
            else:
                weakref.finalize(self, os.close, descriptor)
                self.name = str(files.plain_directory(pathlib.Path(path), descriptor))

    def shown(self, text: object) -> str:
        """Replaces the plain name in a text by the path."""
        return str(text).replace(self.name, self.path)


def silence_log() -> None:
    """Removes TFDS' own messages from the log, except warnings."""
    logging.get_absl_logger().addFilter(_is_wanted)


def _is_wanted(record: standard_logging.LogRecord) -> bool:
    return record.levelno >= standard_logging.WARNING or "tensorflow_datasets" not in record.pathname


def is_name(name: str) -> bool:
    """Whether this has the form name/config:version; anything else may be any path, such as ../datasets."""
    return _NAME.fullmatch(name) is not None


def is_known(name: str) -> bool:
    """Whether this is the name of a dataset."""
    match = _NAME.fullmatch(name)
    return match is not None and (name == SAMPLE_REVIEWS or match[1] in _known_names())


def _known_names() -> list[str]:
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def path_of_prepared(name: str, data_dir: str | None, cache_dir: str) -> str:
    """The folder in which a dataset is prepared; raises InputError when it is in an unknown user's home."""
    from tensorflow_datasets.core import constants

    if name == SAMPLE_REVIEWS:
        return cache_dir
    given = data_dir or str(constants.DATA_DIR)
    try:
        return given if files.is_uri(given) else str(pathlib.Path(files.expand_home(given)))
    except LookupError:
        raise InputError(
            f"TFDS' prepared datasets must lie in a folder, but {given} is in the home of an unknown user; "
            f"name another one by --data_dir or TFDS_DATA_DIR."
        ) from None


def make_builder(name: str, folder: Folder) -> "tfds.core.DatasetBuilder":
    """The builder of a dataset whose prepared files lie, or will lie, in `folder`.

    Raises:
      NoSuchDatasetError: when there is no such dataset.
      Exception: any exception from the code of the dataset.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if name == SAMPLE_REVIEWS:
        from trainer.data.sample_reviews import SampleReviews

        return SampleReviews(data_dir=folder.name)
    try:
        # A namespace, as in huggingface:name, would be looked up on the network.
        if not is_name(name):
            raise DatasetNotFoundError
        _look_in_packages_first()
        return tfds.builder(name, data_dir=folder.name)
    except DatasetNotFoundError:
        raise no_such_dataset(name) from None


@functools.cache
def _look_in_packages_first() -> None:
    # Else TFDS imports the modules of all datasets that have no package of their own, at each start.
    from tensorflow_datasets.core import constants, registered

    packages = registered.SourceDirDatasetBuilderProvider(constants.DATASETS_TFDS_SRC_DIR)
    registered.add_dataset_builder_provider(packages, index=0)


def no_such_dataset(name: str, nearest: str | None = None) -> NoSuchDatasetError:
    """The error for an unknown --dataset; `nearest` is a path that exists and is spelled nearly like it."""
    near = [nearest] if nearest else difflib.get_close_matches(name, _known_names(), n=1)
    hint = f"did you mean {near[0]}?" if near else "https://www.tensorflow.org/datasets/catalog lists them."
    return NoSuchDatasetError(
        f"--dataset must be {SAMPLE_REVIEWS}, a text dataset of TFDS, or the path of your own reviews as in "
        f"reviews.csv, but there is no {name!r}; {hint}"
    )


def prepare(name: str, folder: Folder) -> "tuple[Folder, tfds.core.DatasetBuilder]":
    """Downloads and prepares a dataset.

    Returns:
      The folder, which may be new, and the builder of the prepared dataset.

    Raises:
      InputError: when it can't be downloaded or prepared.
      StorageError: when `sample_reviews` can't be prepared.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    downloader.MAX_RETRIES = 2  # with the default of 10, it takes minutes to report a missing network
    standard_logging.getLogger("urllib3").setLevel(standard_logging.ERROR)
    tfds.display_progress_bar(sys.stderr.isatty() and logging.level_info())
    # The code of a dataset may raise anything.
    expected = (OSError, tf.errors.OpError) if name == SAMPLE_REVIEWS else Exception
    reason = "its folder is there, but holds no dataset_info.json; delete it"
    try:
        if not files.is_uri(folder.path):
            pathlib.Path(folder.path).mkdir(parents=True, exist_ok=True)
            folder = Folder(folder.path)
        builder = make_builder(name, folder)
        logging.info("TFDS prepares %s in %s; this is done once.", name, folder.shown(builder.data_dir))
        with contextlib.redirect_stdout(io.StringIO()):
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
    except expected as error:
        reason = folder.shown(short(error))
    # Open it again: if another process was faster, the attempt above failed.
    prepared = make_builder(name, folder)
    if prepared.info.splits:
        return folder, prepared
    place = folder.shown(prepared.data_dir)
    if name == SAMPLE_REVIEWS:
        raise StorageError(
            f"{name} could not be prepared in {place} ({reason}); name another folder by --cache_dir."
        )
    raise InputError(
        f"{name} must be prepared by TFDS, but {place} does not hold it and it could not be downloaded "
        f"({reason}); connect to the network, or name the folder of prepared datasets by --data_dir or "
        f"TFDS_DATA_DIR."
    )


def read(builder: "tfds.core.DatasetBuilder", split: str, columns: Columns, size: int) -> tf.data.Dataset:
    """The reviews of a split expression in batches of `size`, one file after the other: (texts, labels)."""
    from tensorflow_datasets.core import file_adapters

    # TFDS' own as_dataset takes ten times as long: it parses one review at a time, with all of its features.
    adapter = file_adapters.ADAPTER_FOR_FORMAT[builder.info.file_format or file_adapters.DEFAULT_FILE_FORMAT]
    parts = [
        (os.fspath(part.filename), part.skip, part.take)
        for part in builder.info.splits[split].file_instructions
    ]
    filenames, skips, takes = map(list, zip(*parts, strict=True))
    # AutoGraph would find nothing to convert, and take a quarter of a second at each start.
    as_written = tf.autograph.experimental.do_not_convert

    @as_written
    def read_part(*part: tf.Tensor) -> tf.data.Dataset:
        filename, skip, take = part
        return adapter.make_tf_data(filename).skip(tf.cast(skip, tf.int64)).take(tf.cast(take, tf.int64))

    examples = tf.data.Dataset.from_tensor_slices((filenames, skips, takes)).flat_map(read_part)
    examples = examples.apply(tf.data.experimental.assert_cardinality(sum(takes)))
    names = columns.text, columns.label
    features = {
        name: tf.io.FixedLenFeature(spec.shape, spec.dtype)
        for name, spec in zip(names, ELEMENT_SPEC, strict=True)
    }
    parsed = examples.batch(size).map(as_written(lambda batch: tf.io.parse_example(batch, features)))
    return parsed.map(as_written(lambda batch: tuple(batch[name] for name in names)))


def count_records(builder: "tfds.core.DatasetBuilder") -> int:
    """Reads all files of a dataset of TFRecords, none of which is parsed; returns how many records they hold.

    Raises:
      tf.errors.OpError: when one is truncated or changed.
    """
    paths = [os.fspath(path) for split in builder.info.splits.values() for path in split.filepaths]
    return sum(len(records) for records in tf.data.TFRecordDataset(paths).batch(1024))


def short(reason: object) -> str:
    """The first line of an error or a description, at most 200 characters of it."""
    first_line = str(reason).partition("\n")[0]
    return textwrap.shorten(first_line or type(reason).__name__, 200, placeholder=" ...")
