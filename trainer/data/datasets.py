"""Where labelled reviews come from: TFDS' prepared datasets, `sample_reviews`, which is prepared here without a network, or own files."""

import contextlib
import dataclasses
import difflib
import io
import logging as standard_logging
import os
import pathlib
import re
import shutil
import sys
import tempfile
import textwrap
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from absl import logging

from trainer import InputError, StorageError, TrainerError, machine
from trainer.data import own_reviews
from trainer.data.regular_files import holds_only, locked, move_aside, open_regular
from trainer.files import expand_home, plain_directory

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

READ_BATCH = 1024  # reviews in memory at once
SAMPLE_REVIEWS = "sample_reviews"
_NAME = r"(\w+)(/[\w.+-]+)?(:[\d.*]+)?"  # of TFDS: name/config:version


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A prepared dataset of texts with a label of 0 or 1."""

    name: str
    version: str
    description: str
    citation: str
    element_spec: str
    split_sizes: dict[str, int]  # the splits it is prepared with, each with its number of reviews
    sources: tuple[tuple[str, int, int], ...]  # (path, bytes, mtime_ns) of each file it is read from that its version does not tell
    sizes: Callable[[str], list[int]]  # of a split expression's parts; raises ValueError when it is malformed
    batches: Callable[[str], Iterator[tuple[np.ndarray, np.ndarray]]]  # as `reviews`, whatever the labels are

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
            raise InputError(
                f"A split must be in TFDS' syntax and select reviews of {self.name}, but {split!r} was given; "
                f"its splits are {', '.join(self.split_sizes)}, and a part of one is given as in {next(iter(self.split_sizes))}[:90%]."
            )
        return sum(sizes)

    def reviews(self, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The reviews of `split` in the order of the files, the same on every machine.

        Yields:
          (texts [n] object of bytes, labels [n] uint8), n <= 1024.

        Raises:
          InputError: at a label that is neither 0 nor 1, as that of unlabelled reviews.
          StorageError: when a source file is missing or damaged.
        """
        for texts, labels in self.batches(split):
            if not np.isin(labels, (0, 1)).all():
                raise InputError(f"Labels must be 0 or 1, but split {split!r} of {self.name} has others; name a split that is labelled.")
            yield texts, labels.astype(np.uint8)


def open_corpus(
    *,
    name: str,
    data_dir: str | None,
    cache_dir: str,
    text_column: str = "text",
    label_column: str = "label",
    asked: Sequence[str] = (),
    held_out_fraction: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Opens a dataset, after preparing it where it is not.

    Args:
      name: `sample_reviews`; or own files, as in csv:reviews.csv; or a dataset of TFDS, as in imdb_reviews or name/config:version.
      data_dir: where TFDS' prepared datasets lie, and where TFDS downloads to; None: TFDS' own default, TFDS_DATA_DIR if set. Of own files,
        where a relative path begins.
      cache_dir: where `sample_reviews` is prepared.
      text_column: the name of the texts, a feature of TFDS or a column.
      label_column: that of the labels.
      asked: of own files, the splits that a run names.
      held_out_fraction: of own files without splits, what is drawn for validation, and as much for test.
      seed: decides which are drawn.

    Raises:
      InputError: when there is no such dataset, it is no binary text classification, or it can neither be found nor downloaded.
      StorageError: when it is there and cannot be read, or `sample_reviews` cannot be prepared in `cache_dir`.
    """
    logging.get_absl_logger().addFilter(_is_no_chatter_of_tfds)
    columns = {"text_column": text_column, "label_column": label_column}
    if own_reviews.has_kind(name) or (own_reviews.is_folder(name, data_dir) and not _is_known(name)):
        own = own_reviews.OwnReviews(
            name=name, data_dir=data_dir, cache_dir=cache_dir, asked=asked, held_out_fraction=held_out_fraction, seed=seed, **columns
        )
        return Corpus(
            name=name,
            version=own.version,
            description=own.description,
            citation="",
            element_spec=f"{text_column}: string, {label_column}: 0 or 1",
            split_sizes=own.split_sizes,
            sources=(),
            sizes=lambda split: [end - first for _, first, end in own.parts(split)],
            batches=lambda split: own.batches(split, READ_BATCH),
        )
    folder = _Folder(_path_of_prepared(name, data_dir, cache_dir))
    with _errors_of_tfds(name, folder):
        return _open_tfds(name, folder, columns)


def _open_tfds(name: str, folder: "_Folder", columns: Mapping[str, str]) -> Corpus:
    if name == SAMPLE_REVIEWS:
        _remove_damaged_sample_reviews(folder, is_read=False)
    builder = _make_builder(name, folder)
    _check_features(name, builder, **columns)
    if not builder.info.splits:
        folder, builder = _prepare(name, folder)
    splits = builder.info.splits
    return Corpus(
        name=name,
        version=str(builder.version),
        description=builder.info.description,
        citation=builder.info.citation,
        element_spec=str(_read(builder, next(iter(splits)), **columns).unbatch().element_spec),
        split_sizes={split: info.num_examples for split, info in splits.items()},
        sources=tuple(_source(path, folder) for info in splits.values() for path in info.filepaths if path.exists()),
        sizes=lambda split: [part.take for part in splits[split].file_instructions],
        batches=lambda split: _batches(name, folder, builder, split, **columns),
    )


def _is_no_chatter_of_tfds(record: standard_logging.LogRecord) -> bool:
    return record.levelno >= standard_logging.WARNING or "tensorflow_datasets" not in record.pathname


def _is_known(name: str) -> bool:
    """Whether a name is that of a dataset, which counts before a folder that is called the same."""
    import tensorflow_datasets as tfds

    match = re.fullmatch(_NAME, name)
    return match is not None and (name == SAMPLE_REVIEWS or match[1] in tfds.list_builders(with_community_datasets=False))


class _Folder:
    """A folder, and a name for it that is nothing but plain, because TFDS puts names into globs and takes some for URIs.

    `name` leads to the folder that was there when this was made, and to nothing at all where there was none.
    """

    def __init__(self, path: str) -> None:
        self.path, self.name = path, path
        if not own_reviews.is_uri(path):
            try:
                descriptor = machine.open_directory(path)
            except (FileNotFoundError, NotADirectoryError):
                self.name = f"{os.devnull}/nothing"
            else:
                weakref.finalize(self, os.close, descriptor)
                self.name = str(plain_directory(pathlib.Path(path), descriptor))

    def shown(self, text: object) -> str:
        """A text, with the path in place of the name."""
        return str(text).replace(self.name, self.path)


def _path_of_prepared(name: str, data_dir: str | None, cache_dir: str) -> str:
    from tensorflow_datasets.core import constants

    if name == SAMPLE_REVIEWS:
        return cache_dir
    given = data_dir or constants.DATA_DIR
    try:
        return given if own_reviews.is_uri(given) else str(pathlib.Path(expand_home(given)))
    except LookupError:
        raise InputError(
            f"TFDS' prepared datasets must lie in a folder, but {given} is in a home that is not known; "
            f"name another one by --data_dir or TFDS_DATA_DIR."
        ) from None


@contextlib.contextmanager
def _errors_of_tfds(name: str, folder: _Folder) -> Iterator[None]:
    """Within it whatever goes wrong is told in a sentence: the code of a dataset runs here, and may raise anything."""
    place = pathlib.Path(folder.path, re.split("[/:]", name)[0])
    try:
        # What is no name of a dataset may lead anywhere, as ../datasets does.
        if name != SAMPLE_REVIEWS and re.fullmatch(_NAME, name) and not own_reviews.is_uri(folder.path):
            _look_into(place)
        yield
    except TrainerError:
        raise
    except (OSError, tf.errors.PermissionDeniedError) as error:
        other = "--cache_dir" if name == SAMPLE_REVIEWS else "--data_dir or TFDS_DATA_DIR"
        raise StorageError(
            f"{name} must be read from {place}, but cannot ({folder.shown(_short(error))}); "
            f"make it readable, or name another folder by {other}."
        ) from error
    except Exception as error:
        remedy = f"; if {place} is damaged, delete it and prepare it anew" if os.path.lexists(place) else ""
        raise InputError(
            f"--dataset={name} must be one that TFDS can open, but it cannot ({folder.shown(_short(error))}){remedy}."
        ) from None


def _look_into(place: pathlib.Path) -> None:
    """Raises what keeps TFDS from reading what is prepared; itself, it takes that for missing."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for folder in (place.parent, place):
        try:
            os.scandir(folder).close()
        except OSError as error:
            fail(error)
    for folder, _, names in os.walk(place, onerror=fail):
        for name in names:
            if name.endswith(".json"):
                os.close(open_regular(pathlib.Path(folder, name)))


def _make_builder(name: str, folder: _Folder) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    if name == SAMPLE_REVIEWS:
        from trainer.data.sample_reviews import SampleReviews

        return SampleReviews(data_dir=folder.name)
    try:
        # A namespace, as in huggingface:name, would be looked up in the network.
        if not re.fullmatch(_NAME, name):
            raise tfds.core.registered.DatasetNotFoundError
        return tfds.builder(name, data_dir=folder.name)
    except tfds.core.registered.DatasetNotFoundError:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=1)
        raise InputError(
            f"--dataset must be {SAMPLE_REVIEWS}, a text dataset of TFDS, or own files as in csv:reviews.csv, but there is no {name!r}"
            f"{f'; did you mean {near[0]}?' if near else '; https://www.tensorflow.org/datasets/catalog lists them.'}"
        ) from None


def _remove_damaged_sample_reviews(folder: _Folder, *, is_read: bool) -> bool:
    """Lets `sample_reviews` be prepared anew where what lies in the cache is not what was; returns whether it has to be.

    Its reviews are looked at only when they are going to be read: that takes as long as to start a training otherwise takes.
    """
    from trainer.data.sample_reviews import SampleReviews

    parent = pathlib.Path(folder.name, SAMPLE_REVIEWS)
    if os.path.lexists(parent) and not parent.is_dir():
        move_aside(parent)
    prepared = parent / str(SampleReviews.VERSION)
    if not os.path.lexists(prepared):
        return True
    if _damage_of_sample_reviews(folder, prepared, is_read) is None:
        return False
    with locked(parent / "lock"):  # another process may prepare it anew as well
        if os.path.lexists(prepared) and (why := _damage_of_sample_reviews(folder, prepared, is_read)):
            logging.warning("%s is damaged (%s); it is prepared anew.", folder.shown(prepared), folder.shown(why))
            if holds_only(prepared, lambda name: name.endswith(".json") or name.startswith(f"{SAMPLE_REVIEWS}-")):
                torn = pathlib.Path(tempfile.mkdtemp(dir=parent, suffix=".torn"))
                prepared.rename(torn / prepared.name)
                shutil.rmtree(torn)
            else:
                move_aside(prepared)
    return not os.path.lexists(prepared)


def _damage_of_sample_reviews(folder: _Folder, prepared: pathlib.Path, is_read: bool) -> str | None:
    from trainer.data.sample_reviews import SPLITS

    try:
        if not all(path.is_file() for path in prepared.iterdir()):
            return "it holds something that is not a file"
        builder = _make_builder(SAMPLE_REVIEWS, folder)
        if {split: info.num_examples for split, info in builder.info.splits.items()} != {
            split: count for split, (_, count) in SPLITS.items()
        }:
            return "dataset_info.json does not describe it"
        for split in SPLITS if is_read else ():
            for _ in _read(builder, split, text_column="text", label_column="label"):
                pass  # what is too short, too long or changed raises
    except (FileNotFoundError, NotADirectoryError) as error:
        return _short(error)
    except (OSError, tf.errors.PermissionDeniedError):
        raise  # it may be whole
    except Exception as error:  # of json, protobuf or TensorFlow
        return _short(error)
    return None


def _check_features(name: str, builder: "tfds.core.DatasetBuilder", *, text_column: str, label_column: str) -> None:
    import tensorflow_datasets as tfds

    features = builder.info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    label = features.get(label_column)
    classes = getattr(label, "num_classes", None)
    # A number may be a label as well; what it is, is seen when it is read.
    is_number = type(label) in (tfds.features.Scalar, tfds.features.Tensor) and label.shape == () and label.np_dtype != np.object_
    is_label = classes == 2 or (classes is None and is_number and np.dtype(label.np_dtype).kind in "biu")
    if not isinstance(features.get(text_column), tfds.features.Text) or not is_label:
        raise InputError(
            f'--dataset must have a text "{text_column}" and a label "{label_column}" of 2 classes, but {name} has '
            f"{_short(features or builder.info.features)}; name others by --text_key and --label_key."
        )


def _prepare(name: str, folder: _Folder) -> "tuple[_Folder, tfds.core.DatasetBuilder]":
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    downloader.MAX_RETRIES = 2  # its own 10 take minutes to say that there is no network
    standard_logging.getLogger("urllib3").setLevel(standard_logging.ERROR)
    tfds.display_progress_bar(sys.stderr.isatty() and logging.level_info())
    expected = (OSError, tf.errors.OpError) if name == SAMPLE_REVIEWS else Exception  # the code of others may raise anything
    reason = "its folder is there, but holds no dataset_info.json; delete it"
    try:
        if not own_reviews.is_uri(folder.path):
            pathlib.Path(folder.path).mkdir(parents=True, exist_ok=True)
            folder = _Folder(folder.path)
        builder = _make_builder(name, folder)
        logging.info("TFDS prepares %s in %s; this is done once.", name, folder.shown(builder.data_dir))
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except expected as error:
        reason = folder.shown(_short(error))
    # Opened anew, because another process may have been faster, at whose folder this one's attempt then failed.
    prepared = _make_builder(name, folder)
    if prepared.info.splits:
        return folder, prepared
    place = folder.shown(prepared.data_dir)
    if name == SAMPLE_REVIEWS:
        raise StorageError(f"{SAMPLE_REVIEWS} could not be prepared in {place} ({reason}); give another folder by --cache_dir.")
    raise InputError(
        f"{name} must be prepared by TFDS, but {place} does not hold it and it could not be downloaded ({reason}); "
        f"connect to the network, or name the folder of prepared datasets by --data_dir or TFDS_DATA_DIR."
    )


def _batches(
    name: str, folder: _Folder, builder: "tfds.core.DatasetBuilder", split: str, *, text_column: str, label_column: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    try:
        if name == SAMPLE_REVIEWS and _remove_damaged_sample_reviews(folder, is_read=True):
            _prepare(name, folder)
        yield from _read(builder, split, text_column=text_column, label_column=label_column).prefetch(1).as_numpy_iterator()
    except (OSError, tf.errors.OpError) as error:
        damaged = (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError, tf.errors.InvalidArgumentError)
        place = folder.shown(builder.data_dir)
        remedy = f"delete {place} and prepare it anew" if isinstance(error, damaged) else f"make {place} readable and start again"
        raise StorageError(f"Split {split!r} of {name} could not be read ({folder.shown(_short(error))}); {remedy}.") from error


def _read(builder: "tfds.core.DatasetBuilder", split: str, *, text_column: str, label_column: str) -> tf.data.Dataset:
    """Batches of (texts, labels), one file after the other."""
    from tensorflow_datasets.core import file_adapters

    # TFDS' own as_dataset parses one review at a time, with all of its features: that takes ten times as long.
    format = file_adapters.ADAPTER_FOR_FORMAT[builder.info.file_format]
    parts = [(os.fspath(part.filename), part.skip, part.take) for part in builder.info.splits[split].file_instructions]
    files = tf.data.Dataset.from_tensor_slices(tuple(map(list, zip(*parts, strict=True))))
    examples = files.flat_map(
        lambda file, skip, take: format.make_tf_data(file).skip(tf.cast(skip, tf.int64)).take(tf.cast(take, tf.int64))
    )
    examples = examples.apply(tf.data.experimental.assert_cardinality(sum(take for _, _, take in parts)))
    features = {text_column: tf.io.FixedLenFeature([], tf.string), label_column: tf.io.FixedLenFeature([], tf.int64)}
    parsed = examples.batch(READ_BATCH).map(lambda batch: tf.io.parse_example(batch, features))
    return parsed.map(lambda batch: (batch[text_column], batch[label_column]))


def _source(path: os.PathLike, folder: _Folder) -> tuple[str, int, int]:
    status = pathlib.Path(path).stat()
    return folder.shown(os.fspath(path)), status.st_size, status.st_mtime_ns


def _short(reason: object) -> str:
    return textwrap.shorten(str(reason).partition("\n")[0] or type(reason).__name__, 200, placeholder=" ...")
