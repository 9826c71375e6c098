"""Corpora in the user's own files: tables with a review per row, and folders of texts.

    reviews.csv, reviews.tsv.gz, reviews.jsonl, reviews.parquet ...   one review per row
    reviews/                                                          a folder of .txt for each class

A path may also be a folder with one of these for each split: train.csv and test.csv, train/pos, train/neg and
so on. Rows are read on demand; only how many there are with each label is kept.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from trainer.data import held_out, label_counts, own_files, own_rows, splits, tables
from trainer.data.label_counts import Counts
from trainer.data.own_files import Files
from trainer.data.splits import Reviews, Source
from trainer.data.tables import BadRow, Options
from trainer.errors import InputError


class OwnReviews:
    """An opened corpus of files: its splits are known and their rows are counted.

    Args:
      name: a path, or kind and path, as in csv:reviews.txt.
      data_dir: the folder that a relative path starts from; None: the working directory.
      cache_dir: the folder in which counts are kept, so that a file is counted once.
      options: how tables are read.
      labels: `--labels`: the classes; empty: each label is one.
      bad_rows: "skip" leaves out invalid rows; "stop" or empty refuses them.
      requested_splits: the splits that a run names; no other file is opened. Empty: all are.
      evaluated_split: another split, which decides neither the classes nor what is drawn.
      held_out_fraction: the share of train that is drawn for validation, and again for test, if these are
        requested and missing.
      seed: decides which reviews are drawn.

    Attributes:
      split_sizes: the reviews of each split.
      classes: the classes, in their order.
      left_out: each label that means no class -> its reviews, which are left out.
      skipped: each kind of invalid row -> their number.
      version: changes when the files, what is read of them, or the random assignment change.
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
        options: Options,
        labels: str,
        bad_rows: str,
        requested_splits: Sequence[str],
        evaluated_split: str,
        held_out_fraction: float,
        seed: int,
    ) -> None:
        kind, self._root = own_files.parse_name(name, data_dir)
        found = own_files.find(kind, self._root)
        self._options, self._labels, self._skips = options, labels, bad_rows == "skip"
        self._rows = own_rows.OwnRows(found.kind, self._root, options)
        selected = own_files.select(found, splits.names(requested_splits))
        self._files = own_files.to_read(found, selected)
        for folder in own_files.unlabelled(found, selected):
            logging.info("Folder    %s is not read: its reviews have no labels.", folder)
        if others := own_files.unread(found, selected):
            logging.warning(
                "Files beside the texts of the classes are not read: %d, such as %s.",
                len(others),
                others[0],
            )
        counts = self._rows.count(self._files, cache_dir)
        label_counts.check_labelled(counts)
        self._check_rows(counts)
        self.classes = label_counts.classes_of(counts, labels)
        self.left_out = label_counts.left_out(counts.values(), self.classes)
        self.skipped = label_counts.skipped(counts.values())
        rows = sum(of_split.rows for of_split in counts.values())
        label_counts.log_left_out(rows, self.left_out, self.skipped)
        if evaluated := own_files.further(found, splits.names([evaluated_split]) - counts.keys()):
            counts |= self._count_further(own_files.to_read(found, evaluated), cache_dir)
        self._sizes = {split: of_split.size(self.classes) for split, of_split in counts.items()}
        self._source, identity = Source(self._sizes, self._read), []
        if drawn := held_out.missing(requested_splits, self._sizes):
            draw = held_out.Draw(requested_splits, drawn, held_out_fraction, seed)
            identity = draw.identity
            self._source = held_out.HeldOut(self._source, draw, shown=str(self._root)).source
        self.split_sizes = self._source.sizes
        self.description = self._describe(found, drawn, held_out_fraction)
        # Of the files of all splits, as in older versions, although they are not read.
        facts = self._rows.facts(own_files.to_read(found, found.by_split))
        self.version = label_counts.digest([facts, identity, *self._unusual()])[:12]
        self._facts = self._rows.facts(self._files)

    def sizes(self, split: str) -> list[int]:
        """The size of each part of a split expression; raises ValueError when it is malformed."""
        return [part.end - part.first for part in splits.parts(split, self.split_sizes)]

    def batches(self, split: str, size: int) -> Iterator[Reviews]:
        """The reviews of a split expression in the order of the files.

        Yields:
          (texts [n] object of bytes, labels [n] uint8), n <= size.

        Raises:
          InputError: when a file is malformed or has changed since it was counted.
        """
        yield from self._source.select(split, size)
        if self._rows.facts(self._files) != self._facts:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(
            f"{self._root} must stay as it is while it is read, but it changed; "
            f"start again when it is complete."
        )

    def _read(self, split: str, size: int) -> Iterator[Reviews]:
        """The reviews of a whole split."""
        count = 0
        for rows in tables.chunks(self._kept(split), size):
            count += len(rows)
            if count > self._sizes[split]:
                raise self._changed()
            texts = np.empty(len(rows), object)
            texts[:] = [text for text, _ in rows]
            yield texts, np.array([number for _, number in rows], np.uint8)

    def _kept(self, split: str) -> Iterator[tuple[bytes, int]]:
        # What was neither counted nor is left out on request was not there when the rows were counted.
        for _, row in self._rows.read(self._files[split]):
            if isinstance(row, BadRow):
                if not self._skips:
                    raise self._changed()
                continue
            number = self.classes.number_of(label_counts.spelled(row.label))
            if number is not None:
                yield row.text, number
            elif not self._labels:
                raise self._changed()

    def _check_rows(self, counts: Mapping[str, Counts]) -> None:
        # Where none is valid, none would be left.
        refused = [one for one in counts.values() if not self._skips or one.has_none]
        label_counts.check_rows(refused, str(self._root))

    def _count_further(self, files: Files, cache_dir: str) -> dict[str, Counts]:
        """The counts of splits that the run does not name; their labels must be those of the run."""
        counts = self._rows.count(files, cache_dir)
        self._check_rows(counts)
        unknown = label_counts.left_out(counts.values(), self.classes)
        if unknown and not self._labels:
            raise InputError(
                f"The labels must be {', '.join(self.classes.names)}, as in the splits that the run names, "
                f"but {' and '.join(counts)} has {label_counts.listed(unknown)}; name another split."
            )
        self._files |= files
        return counts

    def _describe(self, found: own_files.Found, drawn: Sequence[str], fraction: float) -> str:
        text = f"{found.kind or 'files'} in {self._root}"
        if drawn:
            others = " and ".join(sorted(drawn))
            return f"{text}, of which {fraction * 100:g}% are drawn by --seed for each of {others}."
        return f"{text}, all of it the split train." if found.is_single else f"{text}."

    def _unusual(self) -> list[object]:
        # Options that older versions did not have are part of the identity only where they are given.
        given = {
            "encoding": self._options.encoding,
            "delimiter": self._options.delimiter,
            "header": self._options.header if self._options.header != "auto" else "",
            "labels": self._labels,
            "bad_rows": "skip" if self._skips else "",
        }
        return [given] if any(given.values()) else []
