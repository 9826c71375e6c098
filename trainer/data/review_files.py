"""Reviews for evaluate and predict, from files and standard input."""

import pathlib
from collections.abc import Iterator

from absl import logging

from trainer.data.tables import CHUNK, BadRow, BadRows, Options, Row, chunks, open_table
from trainer.errors import InputError
from trainer.words import plural

__all__ = ["CHUNK", "Row", "chunks", "read"]


def read(
    path: str,
    *,
    labelled: bool,
    bad_rows: str,
    text_column: str = "text",
    label_column: str = "label",
    kind: str = "",
    encoding: str = "",
    delimiter: str = "",
    header: str = "auto",
) -> Iterator[Row]:
    """The reviews of a file, in its order; memory holds a part.

    Args:
      path: a file of any kind that `tables` knows; or "-", standard input.
      labelled: whether a row needs a label.
      bad_rows: what to do with invalid rows: "stop" at the first one; else skip them, and say at the end how
        many there were.
      text_column: the column, or key, of the text; as in `tables.Options`, like the following.
      label_column: the column, or key, of the label.
      kind: one of `tables.KINDS`; empty: recognised.
      encoding: of the file.
      delimiter: of its columns.
      header: whether the first row names them.

    Raises:
      InputError: when the file can't be read, lacks these columns, or has an invalid row and `bad_rows` is
        "stop".
    """
    options = Options(
        text_column=text_column,
        label_column=label_column if labelled else None,
        encoding=encoding,
        delimiter=delimiter,
        header=header,
    )
    table = open_table(None if path == "-" else pathlib.Path(path), options, kind=kind)
    place = "standard input" if path == "-" else path
    bad, rows = BadRows(), table.rows()
    for row in rows:
        if isinstance(row, Row):
            yield row
            continue
        bad.add(row)
        if bad_rows == "stop":
            raise _invalid(row, bad, rows, place)
    if len(bad):
        logging.warning("Of %s, %s skipped: %s.", place, plural(len(bad), "row"), bad.summary())


def _invalid(first: BadRow, bad: BadRows, rest: Iterator[Row | BadRow], place: str) -> InputError:
    for row in rest:
        if isinstance(row, BadRow):
            bad.add(row)
    return InputError(
        f"Each row must hold a review, but line {first.line} of {place} does not: {first.why}; in all there "
        f"are {plural(len(bad), 'bad row')}: {bad.summary()}; fix them, or give --bad_rows=skip."
    )
