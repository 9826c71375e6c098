"""Corpora in the user's own files: csv, tsv and jsonl files, and folders of texts.

    csv:reviews.csv, tsv:reviews.tsv, jsonl:reviews.jsonl   one review per row
    folder:reviews                                          pos/ and neg/, one .txt per review

A path may also be a folder with a file, or with pos/ and neg/, for each split: train.csv and test.csv,
train/pos, train/neg and so on. Rows are read on demand; only their number is kept.
"""

import contextlib
import hashlib
import json
import pathlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from trainer import files
from trainer.data import own_files, permutation, review_folders, splits, tables
from trainer.data.review_folders import Review, readable
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE

DRAWN = ("train", "validation", "test")


class OwnReviews:
    """An opened corpus of files: its splits are known and their rows are counted.

    Args:
      name: kind and path, as in csv:reviews.csv, or the path of a folder of texts.
      data_dir: the folder that a relative path starts from; None: the working directory.
      cache_dir: the folder in which counts are kept, so that a file is counted once.
      text_column: the column, or key, of the text.
      label_column: the column, or key, of the label.
      requested_splits: the splits that a run names. If they are two or three of train, validation and test,
        and the files have no splits, each review is assigned to one of them at random.
      held_out_fraction: the share drawn for validation, and again for test, if these are requested.
      seed: decides which reviews are drawn.

    Attributes:
      split_sizes: the reviews of each split.
      version: changes when the files or the random assignment change.
      description: a text for the log.

    Raises:
      InputError: when there are no such files, or one of them is malformed; the message names file and line.
    """

    def __init__(
        self,
        *,
        name: str,
        data_dir: str | None,
        cache_dir: str,
        text_column: str,
        label_column: str,
        requested_splits: Sequence[str],
        held_out_fraction: float,
        seed: int,
    ) -> None:
        self._kind, self._root = own_files.parse_name(name, data_dir)
        self._columns = {"text_column": text_column, "label_column": label_column}
        self._files, is_single = own_files.find(self._kind, self._root)
        self._facts = self._read_facts()
        self.split_sizes = self._count(pathlib.Path(cache_dir))
        self.description = f"{self._kind} in {self._root}"
        self._draw: _Draw | None = None
        key: list[object] = []
        requested = set(requested_splits)
        if is_single and len(requested) > 1 and requested <= set(DRAWN):
            self._draw = _Draw(self._root, self.split_sizes["train"], requested, held_out_fraction, seed)
            self.split_sizes = self._draw.split_sizes
            key = [seed, held_out_fraction, sorted(requested_splits)]
            others = " and ".join(sorted(requested - {"train"}))
            percent = f"{held_out_fraction * 100:g}%"
            self.description += f", of which {percent} are drawn by --seed for each of {others}"
        elif is_single:
            self.description += ", all of it the split train"
        self.description += "."
        self.version = _digest([self._facts, key])[:12]

    def parts(self, split: str) -> list[splits.Part]:
        """What a split expression selects; raises ValueError when it is malformed."""
        return splits.parts(split, self.split_sizes)

    def batches(self, split: str, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The reviews of a split expression in the order of the files.

        Yields:
          (texts [n] object of bytes, labels [n] uint8), n <= size.

        Raises:
          InputError: when a file is malformed or has changed since it was counted.
        """
        for part in self.parts(split):
            start = 0
            for chunk in tables.chunks(self._rows_of(part.split), size):
                selected = slice(max(0, part.first - start), max(0, part.end - start))
                rows, start = chunk[selected], start + len(chunk)
                if rows:
                    texts = np.empty(len(rows), object)
                    texts[:] = [row.text for row in rows]
                    yield texts, np.array([row.label for row in rows], np.uint8)
                if start >= part.end:
                    break
        if self._read_facts() != self._facts:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(
            f"{self._root} must stay as it is while it is read, but it changed; "
            f"start again when it is complete."
        )

    def _rows_of(self, split: str) -> Iterator[Review]:
        if self._draw is None:
            yield from self._read(self._files[split])
            return
        (file,) = self._files.values()
        start = 0
        for chunk in tables.chunks(self._read(file)):
            if start + len(chunk) > self._draw.count:
                raise self._changed()
            drawn = self._draw.splits_of(start, start + len(chunk))
            yield from (row for row, its_split in zip(chunk, drawn, strict=True) if its_split == split)
            start += len(chunk)

    def _read(self, path: pathlib.Path) -> Iterator[Review]:
        if self._kind == "folder":
            return review_folders.read(path)
        return self._read_table(path)

    def _read_table(self, path: pathlib.Path) -> Iterator[Review]:
        text_column, label_column = self._columns.values()
        options = tables.Options(text_column=text_column, label_column=label_column)
        for row in tables.open_table(path, options, kind=self._kind).rows():
            label = NEGATIVE_POSITIVE.number_of(row.label) if isinstance(row, tables.Row) else None
            if isinstance(row, tables.BadRow) or label is None:
                why = row.why if isinstance(row, tables.BadRow) else f"its label is {row.label!r}"
                raise InputError(
                    f"Each row must hold a review, but line {row.line} of {path} does not: {why}; "
                    f"fix or remove it."
                )
            yield Review(row.text, label)

    def _read_facts(self) -> list[object]:
        # Files with the same facts count as the same files, in whatever folder they are.
        facts: list[object] = [self._kind, *self._columns.values()]
        for split, file in self._files.items():
            paths = [file] if file.is_file() else [path for path, _ in review_folders.texts_of(file)]
            for path in paths:
                with readable(path):
                    status = path.stat()
                facts.append([split, str(path.relative_to(file.parent)), status.st_size, status.st_mtime_ns])
        return facts

    def _count(self, cache_dir: pathlib.Path) -> dict[str, int]:
        """Split -> number of reviews; the counts of files are kept in the cache."""
        if self._kind == "folder":
            return {split: len(review_folders.texts_of(folder)) for split, folder in self._files.items()}
        kept = cache_dir / "counts" / f"{_digest([str(self._root.resolve()), self._facts])}.json"
        if (counts := _read_counts(kept, self._files)) is not None:
            return counts
        logging.info("Counting the reviews of %s; this is done once.", self._root)
        counts = {split: sum(1 for _ in self._read(path)) for split, path in self._files.items()}
        for split, count in counts.items():
            if not count:
                raise InputError(
                    f"A file of reviews must hold at least one, but {self._files[split]} holds none; "
                    f"add reviews to it."
                )
        _keep_counts(kept, counts)
        return counts


class _Draw:
    """Assigns each review of a file to a split: a permutation of all reviews, cut into two or three parts."""

    def __init__(
        self, root: pathlib.Path, count: int, requested: set[str], fraction: float, seed: int
    ) -> None:
        share = int(round(count * fraction, 6))  # without rounding, 0.29 * 100 would be less than 29
        held_out = {name: share for name in DRAWN[1:] if name in requested}
        sizes = {**held_out, "train": count - sum(held_out.values())}
        if min(sizes.values()) < 1:
            raise InputError(
                f"Each of {', '.join(sizes)} must get a review, but {root} has {count}, and "
                f"--held_out_fraction={fraction} of them are {share}; give more reviews or a larger "
                f"fraction, or name the splits, as in --train_split=train[:50%]."
            )
        self.count = count
        self.split_sizes = {name: sizes[name] for name in DRAWN if name in sizes}
        self._names, self._bounds = np.array(list(sizes)), np.cumsum(list(sizes.values()))
        self._key = hashlib.sha256(f"{seed} held out".encode()).digest()[: permutation.KEY_BYTES]

    def splits_of(self, start: int, stop: int) -> np.ndarray:
        """The name of the split of each of the reviews start .. stop-1."""
        positions = permutation.shuffled(start, stop, size=self.count, key=self._key)
        return self._names[np.searchsorted(self._bounds, positions, side="right")]


def _read_counts(kept: pathlib.Path, expected: Iterable[str]) -> dict[str, int] | None:
    """The cached counts of these files; None if they are missing or damaged."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        content = json.loads(files.read(kept, limit=2**20, follow_links=True))
        counts = content["counts"]
        is_whole = isinstance(counts, dict) and content["sha256"] == _digest(counts)
        if (
            is_whole
            and set(counts) == set(expected)
            and all(type(count) is int and 0 < count < 2**63 for count in counts.values())
        ):
            return counts
    return None


def _keep_counts(kept: pathlib.Path, counts: Mapping[str, int]) -> None:
    # Several runs may write here at once, so the temporary file has a random name, unlike that of
    # `files.write_atomically`. Nothing is synced and a failure is ignored: missing or damaged counts are just
    # counted again.
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{secrets.token_hex(4)}.tmp")
        with temporary.open("x") as file:
            file.write(json.dumps({"counts": counts, "sha256": _digest(counts)}))
        temporary.replace(kept)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode(errors="surrogateescape")).hexdigest()
