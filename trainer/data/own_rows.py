"""Reads, describes and counts the rows of the user's own files, whatever their kind."""

import dataclasses
import pathlib
from collections.abc import Iterator

from absl import logging

from trainer.data import label_counts, review_folders, tables
from trainer.data.label_counts import Counts
from trainer.data.own_files import Files
from trainer.data.review_folders import readable
from trainer.data.tables import BadRow, Options, Row
from trainer.errors import InputError


class OwnRows:
    """The rows of files of one kind.

    Args:
      kind: as in `own_files.Found`.
      root: the path of the corpus, for messages.
      options: how tables are read.
    """

    def __init__(self, kind: str, root: pathlib.Path, options: Options) -> None:
        self._kind, self._root, self._options = kind, root, options

    def read(self, paths: list[pathlib.Path]) -> Iterator[tuple[str, Row | BadRow]]:
        """The rows of files, one file after the other, each with its place for messages.

        Raises:
          InputError: when a file can't be read, or is not of this kind.
        """
        if self._kind == "folder":
            yield from review_folders.read(paths, self._options.encoding)
            return
        for path in paths:
            with readable(path):
                table = tables.open_table(path, self._options, kind=self._kind)
                yield from ((f"in line {row.line} of {path.name}", row) for row in table.rows())

    def facts(self, files: Files) -> list[object]:
        """What changes when files do: kind, columns, and the size and the time of each file.

        Files with the same facts count as the same files, in whatever folder they are.
        """
        facts: list[object] = [self._kind, self._options.text_column, self._options.label_column]
        for split, paths in files.items():
            for path in paths:
                with readable(path):
                    status = path.stat()
                top = path.parent.parent.parent if self._kind == "folder" else path.parent
                facts.append([split, str(path.relative_to(top)), status.st_size, status.st_mtime_ns])
        return facts

    def count(self, files: Files, cache_dir: str) -> dict[str, Counts]:
        """Counts the rows of each split; the counts of files are kept in the cache.

        Raises:
          InputError: when a split can't be read, or has no rows or no labels.
        """
        kept, counts = label_counts.Kept(cache_dir), {}
        # Train comes first: columns that it lacks too are wrong, whereas a test file may have no labels.
        for split, paths in sorted(files.items(), key=lambda item: item[0] != "train"):
            key = [str(self._root.resolve()), dataclasses.asdict(self._options), self.facts({split: paths})]
            if (of_split := kept.read(key)) is None:
                logging.info("Counting the reviews of %s, split %s; this is done once.", self._root, split)
                of_split = self._count(split, paths)
                kept.write(key, of_split)
            counts[split] = of_split
        return {split: counts[split] for split in files}

    def _count(self, split: str, paths: list[pathlib.Path]) -> Counts:
        try:
            counts = label_counts.count(self.read(paths))
        except InputError as error:
            if split == "train" or not self._has_texts(paths):
                raise
            raise label_counts.unlabelled(
                split, f"{paths[0]} has no column {self._options.label_column}"
            ) from error
        if not counts.rows:
            raise InputError(
                f"A file of reviews must hold at least one, but {paths[0]} holds none; add reviews to it."
            )
        return counts

    def _has_texts(self, paths: list[pathlib.Path]) -> bool:
        """Whether files that can't be read with labels can be read without them."""
        if self._kind == "folder":
            return False
        without_labels = dataclasses.replace(self._options, label_column=None)
        try:
            row = next(tables.open_table(paths[0], without_labels, kind=self._kind).rows(), None)
        except (InputError, OSError):
            return False
        return isinstance(row, Row)
