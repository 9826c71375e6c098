"""Corpora of the user's own: csv, tsv and jsonl files, and folders of texts.

    csv:reviews.csv, tsv:reviews.tsv, jsonl:reviews.jsonl   a review a row
    folder:reviews                                          pos/ and neg/, a .txt a review, in the natural order of the files' names

A path may also be a folder with a file, or with pos/ and neg/, for each split: train.csv and test.csv, train/pos, train/neg and so on. Rows
are read as they are asked for; what is kept is how many there are.
"""

import contextlib
import errno
import hashlib
import json
import pathlib
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from trainer.data import review_files, review_folders
from trainer.data.regular_files import read_regular
from trainer.data.review_files import Row
from trainer.data.review_folders import readable
from trainer.errors import InputError

KINDS = (*review_files.TABLES, "folder")
DRAWN = ("train", "validation", "test")


def has_kind(name: str) -> bool:
    """Whether a --dataset begins with the prefix of a kind, as in csv:reviews.csv."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in KINDS


def is_uri(path: str) -> bool:
    """Whether a path is not one of this machine's, as in gs://bucket/reviews.csv."""
    return re.match("[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def is_folder(name: str, data_dir: str | None) -> bool:
    """Whether a --dataset is the path of a folder of texts, or of one that cannot be looked into."""
    try:
        return bool(name and _folders_of_texts(pathlib.Path(data_dir or "", name)))
    except ValueError:  # a NUL byte in the path
        return False
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class OwnReviews:
    """A corpus in files, opened: its splits are known and the rows of each are counted.

    Args:
      name: kind and path, as in csv:reviews.csv, or the path of a folder of texts.
      data_dir: where a relative path begins; None: the working directory.
      cache_dir: where the counts are kept, so that a file is counted once.
      text_column: the column, or key, of the text.
      label_column: that of the label.
      asked: the splits that a run names; where they are but train, validation and test, and the files have no splits, each review is drawn
        into one of them.
      held_out_fraction: the share that is drawn for validation, and as much for test, where these are asked for.
      seed: decides which are drawn.

    Raises:
      InputError: when there are no such files, or one of them is not what it has to be; the sentence names file and line.
    """

    def __init__(
        self,
        *,
        name: str,
        data_dir: str | None,
        cache_dir: str,
        text_column: str,
        label_column: str,
        asked: Sequence[str],
        held_out_fraction: float,
        seed: int,
    ) -> None:
        kind, _, path = name.partition(":") if has_kind(name) else ("folder", "", name)
        if not path:
            raise InputError(
                f"--dataset must name a path behind {kind}:, but {name} was given; write it as in {kind}:reviews."
            )
        for given in (path, data_dir or ""):
            if is_uri(given):
                raise InputError(
                    f"--dataset={kind}: must name files of this machine, but {given} was given; copy or mount them and give their path."
                )
        self._kind, self._root = kind, pathlib.Path(data_dir or "", path)
        self._columns = {"text_column": text_column, "label_column": label_column}
        files, is_single = _find(kind, self._root)
        self._files = files
        self._facts = self._look()
        counts = self._count(pathlib.Path(cache_dir))
        is_drawn = is_single and set(asked) <= set(DRAWN) and len(set(asked)) > 1
        self._key = [seed, held_out_fraction, sorted(asked)] if is_drawn else []
        self._seed = seed
        self.split_sizes = self._draw(counts["train"], asked, held_out_fraction) if is_drawn else counts
        self.version = _digest([self._facts, self._key])[:12]
        others = " and ".join(sorted(set(asked) - {"train"}))
        drawn = f", of which {held_out_fraction * 100:g}% are drawn by --seed for each of {others}"
        self.description = f"{kind} in {self._root}{drawn if is_drawn else ', all of it the split train' if is_single else ''}."

    def parts(self, split: str) -> list[tuple[str, int, int]]:
        """What a split expression stands for: (split, first review, one after the last); raises ValueError when it is malformed."""
        import tensorflow_datasets as tfds

        infos = {
            name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
            for name, size in self.split_sizes.items()
        }
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
        sizes = self.split_sizes
        return [
            (part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
            for part in parts
        ]

    def batches(self, split: str, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The reviews of a split expression: (texts [n] object of bytes, labels [n] uint8), n <= size."""
        for name, first, end in self.parts(split):
            start = 0
            for chunk in review_files.chunks(self._rows_of(name), size):
                keep = slice(max(0, first - start), max(0, end - start))
                rows, start = chunk[keep], start + len(chunk)
                if rows:
                    texts = np.empty(len(rows), object)
                    texts[:] = [row.text for row in rows]
                    yield texts, np.array([row.label for row in rows], np.uint8)
                if start >= end:
                    break
        if self._look() != self._facts:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(
            f"{self._root} must stay as it is while it is read, but it changed; start again when it is written."
        )

    def _rows_of(self, name: str) -> Iterator[Row]:
        if not self._key:
            yield from self._read(self._files[name])
            return
        (file,) = self._files.values()
        start = 0
        for chunk in review_files.chunks(self._read(file)):
            if start + len(chunk) > self._count_of_all:
                raise self._changed()
            drawn = self._names[
                np.searchsorted(self._bounds, self._positions(start, start + len(chunk)), side="right")
            ]
            yield from (row for row, its_split in zip(chunk, drawn, strict=True) if its_split == name)
            start += len(chunk)

    def _draw(self, count: int, asked: Sequence[str], fraction: float) -> dict[str, int]:
        # The permutation of all reviews is cut in two or three: that a position falls into one of them decides the split.
        share = int(round(count * fraction, 6))  # 0.29 * 100 is less than 29 by a bit
        held_out = {name: share for name in DRAWN[1:] if name in asked}
        sizes = {**held_out, "train": count - sum(held_out.values())}
        if min(sizes.values()) < 1:
            raise InputError(
                f"Each of {', '.join(sizes)} must get a review, but {self._root} has {count}, and --held_out_fraction={fraction} of them "
                f"are {share}; give more reviews or a larger fraction, or name the splits, as in --train_split=train[:50%]."
            )
        self._count_of_all, self._names, self._bounds = (
            count,
            np.array(list(sizes)),
            np.cumsum(list(sizes.values())),
        )
        return {name: sizes[name] for name in DRAWN if name in sizes}

    def _positions(self, start: int, stop: int) -> np.ndarray:
        digest = hashlib.sha256(f"{self._seed} held out".encode()).digest()
        with tf.device("CPU"):
            return tf.raw_ops.RandomIndexShuffle(
                index=np.arange(start, stop),
                seed=np.frombuffer(digest[:12], "<u4").astype(np.uint32),
                max_index=np.int64(self._count_of_all - 1),
                rounds=8,
            ).numpy()

    def _read(self, path: pathlib.Path) -> Iterator[Row]:
        if self._kind == "folder":
            return review_folders.read(path)
        return review_files.read_table(path, kind=self._kind, **self._columns)

    def _look(self) -> list:
        # What tells whether the files are those that were counted, wherever they lie.
        facts = [self._kind, *self._columns.values()]
        for name, file in self._files.items():
            for path in [file] if file.is_file() else [path for path, _ in review_folders.texts_of(file)]:
                with readable(path):
                    status = path.stat()
                facts.append([name, str(path.relative_to(file.parent)), status.st_size, status.st_mtime_ns])
        return facts

    def _count(self, cache_dir: pathlib.Path) -> dict[str, int]:
        if self._kind == "folder":
            return {name: len(review_folders.texts_of(folder)) for name, folder in self._files.items()}
        kept = cache_dir / "counts" / f"{_digest([str(self._root.resolve()), self._facts])}.json"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            content = json.loads(read_regular(kept, limit=2**20))
            counts = content["counts"]
            if (
                content["sha256"] == _digest(counts)
                and set(counts) == set(self._files)
                and _are_counts(counts.values())
            ):
                return counts
        logging.info("Counting the reviews of %s; this is done once.", self._root)
        counts = {name: sum(1 for _ in self._read(path)) for name, path in self._files.items()}
        for name, count in counts.items():
            if not count:
                raise InputError(f"A file of reviews must hold some, but {self._files[name]} holds none.")
        with contextlib.suppress(OSError):  # It is only counted again.
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = kept.with_suffix(f".{secrets.token_hex(4)}.tmp")
            with temporary.open("x") as file:
                file.write(json.dumps({"counts": counts, "sha256": _digest(counts)}))
            temporary.replace(kept)
        return counts


def _are_counts(values: Iterable[object]) -> bool:
    return all(type(value) is int and 0 < value < 2**63 for value in values)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode(errors="surrogateescape")).hexdigest()


def _find(kind: str, root: pathlib.Path) -> tuple[dict[str, pathlib.Path], bool]:
    # The file or folder of each split, and whether there is but one, which has no name of a split.
    with readable(root):
        if not root.exists():
            raise InputError(
                f"--dataset must name files that are there, but {root} is not; a relative path begins in --data_dir, if given."
            )
        if kind == "folder":
            return _find_folders(root)
        if root.is_file():
            return {"train": root}, True
        if not root.is_dir():
            raise InputError(f"--dataset must name a file, but {root} is neither a file nor a folder.")
        files = {
            path.stem: path
            for path in sorted(root.iterdir())
            if path.suffix == f".{kind}" and path.name[0] != "." and path.is_file()
        }
    if not files:
        raise InputError(
            f"A folder must hold a .{kind} for each split, as train.{kind}, but {root} holds none."
        )
    for name, path in files.items():
        if not _is_split(name):
            raise InputError(
                f"A file for a split must be called by letters, digits, - and _, and not all, but there is {path}; rename it."
            )
    return files, False


def _find_folders(root: pathlib.Path) -> tuple[dict[str, pathlib.Path], bool]:
    if not root.is_dir():
        raise InputError(
            f"--dataset=folder: must name a folder, but {root} is none; of a file name the kind, as in csv:{root}."
        )
    for folder in (root, *root.iterdir()):
        if len(classes := review_folders.classes_of(folder)) == 1:
            raise InputError(
                f"A folder of reviews must hold pos/ and neg/, but {folder} holds {classes[0]}/ alone."
            )
    folders = _folders_of_texts(root)
    if not folders:
        raise InputError(
            f"A folder of reviews must hold pos/ and neg/, or folders that do, one for each split, but {root} does not."
        )
    return folders, folders.get("train") == root


def _folders_of_texts(root: pathlib.Path) -> dict[str, pathlib.Path]:
    if len(review_folders.classes_of(root)) == 2:
        return {"train": root}
    return {
        path.name: path
        for path in sorted(root.iterdir())
        if _is_split(path.name) and len(review_folders.classes_of(path)) == 2
    }


def _is_split(name: str) -> bool:
    # TFDS' names of splits; "all" stands for all of them.
    return re.fullmatch(r"[\w-]+", name) is not None and name != "all"
