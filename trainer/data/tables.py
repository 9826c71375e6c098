"""Tables of reviews in files and on standard input: csv, tsv, JSON, parquet, arrow, and texts in lines.

Kind, compression, encoding, delimiter, header and columns are recognised. Rows are read on demand.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import logging

from trainer.data import columns, file_kinds, json_rows, separated
from trainer.data.compression import Source
from trainer.data.file_kinds import KINDS, kind_of
from trainer.data.review_rows import (
    CHUNK,
    BadRow,
    BadRows,
    Columns,
    Options,
    Row,
    chunks,
    encoded,
    make_row,
)
from trainer.data.text_encoding import NOT_UTF8, Text, is_damaged
from trainer.errors import InputError

__all__ = [
    "CHUNK",
    "KINDS",
    "BadRow",
    "BadRows",
    "Options",
    "Row",
    "Table",
    "chunks",
    "kind_of",
    "open_source",
    "open_table",
]

_SAMPLE_OBJECTS = 100


class Table:
    """An opened table; made by `open_table`.

    Attributes:
      kind: one of `KINDS`.
      encoding: as Python names it; empty for parquet and arrow.
      delimiter: what separates the columns; empty if nothing does.
      columns: their names, or their numbers if there is no header; empty for txt.
      description: a phrase for the log.
    """

    def __init__(
        self,
        source: Source,
        *,
        kind: str,
        text: Text | None = None,
        layout: Sequence[str] = (),
        delimiter: str = "",
        columns: Sequence[str] = (),
        rows: Callable[[], Iterator[Row | BadRow]],
    ) -> None:
        self.kind, self.delimiter, self.columns = kind, delimiter, tuple(columns)
        self.encoding = text.encoding if text else ""
        known = [kind, source.compression, self.encoding, *layout]
        self.description = ", ".join(part for part in known if part)
        self._rows = rows

    def rows(self) -> Iterator[Row | BadRow]:
        """The rows in the order of the file; memory holds a part. From a pipe, they can be read once.

        Raises:
          InputError: when the file can't be read, or is not what it seemed to be.
        """
        return self._rows()


def open_table(path: pathlib.Path | None, options: Options, *, kind: str = "") -> Table:
    """Opens a table of reviews.

    Args:
      path: a file; None: standard input.
      options: which columns, and what is not to be recognised.
      kind: one of `KINDS`; empty: recognised.

    Raises:
      InputError: when it can't be read, lacks the columns, or is of no kind; the message says what to do.
    """
    return open_source(Source(path), options, kind=kind)


def open_source(source: Source, options: Options, *, kind: str = "") -> Table:
    """The same for a source, which may be opened several times until its rows are read."""
    labelled = options.label_column is not None
    # The first bytes are right even where a prefix or a flag says otherwise.
    kind = file_kinds.kind_by_magic(source) or kind
    if not kind:
        kind = file_kinds.kind_of_source(
            source, labelled=labelled, encoding=options.encoding, wanted=[options.text_column]
        )
    if kind in ("parquet", "arrow"):
        return _open_arrow(source, kind, options)
    text = Text(source, options.encoding)
    text.check_sample()
    if kind in ("json", "jsonl"):
        found = file_kinds.kind_of_json(text.sample.lstrip(), kind, is_complete=source.is_complete)
        return _open_json(source, text, found or kind, options)
    if kind == "txt" and not labelled:
        return Table(source, kind=kind, text=text, rows=lambda: _texts(text))
    return _open_separated(source, text, "csv" if kind == "txt" else kind, options)


def _texts(text: Text) -> Iterator[Row | BadRow]:
    for number, line in enumerate(text.lines(), start=1):
        content = line.rstrip("\r\n")
        if is_damaged(content):
            yield BadRow(number, number, NOT_UTF8, NOT_UTF8)
        elif content.strip():
            yield Row(number, number, encoded(content), None)
        else:
            yield BadRow(number, number, "its text is empty", "it is empty")


def _open_separated(source: Source, text: Text, kind: str, options: Options) -> Table:
    lines = text.sample_lines()
    wanted = [*options.text_column.lower().split(","), *(options.label_column or "").lower().split(",")]
    names = {name.strip() for name in wanted if name.strip()}
    delimiter, skip = separated.find_delimiter(lines, names, given=options.delimiter, kind=kind)
    layout = separated.Layout(delimiter)
    sample = list(itertools.islice(separated.records(lines, layout, skip=skip), separated.SAMPLE_ROWS + 1))
    first = _first_row(sample, source.name, options)
    rows = [record.cells for record in sample[1:] if len(record.cells) == len(first)]
    has_header = columns.has_header(first, rows, options)
    if has_header:
        _check_header(first, source.name)
    found = first if has_header else [str(number) for number in range(1, len(first) + 1)]
    table = columns.Table(source.name, found, rows if has_header else [first, *rows], has_header, True)
    selected, note = columns.select(table, options)
    _log_once(source.name, note)
    layout = separated.Layout(delimiter, len(first))
    again = itertools.islice(separated.records(lines, layout, skip=skip), 1, separated.SAMPLE_ROWS)
    single = [record.cells for record in again if not record.kind]
    test = separated.RowTest(single, selected.text.values())
    layout = separated.Layout(delimiter, len(first), test)

    def records() -> Iterator[Row | BadRow]:
        whole = separated.records(text.lines(), layout, skip=skip)
        below = itertools.islice(whole, int(has_header), None)
        # A table of one column may hold a text that is its name.
        checked = separated.without_headers(below, first) if has_header and len(first) > 1 else below
        return _rows_of(checked, len(first), selected)

    shown = {"\t": "tab", " ": "space"}.get(delimiter, delimiter)
    is_usual = delimiter == ("\t" if kind == "tsv" else ",")
    details = ["" if is_usual else f"separated by {shown}", "" if has_header else "no header"]
    return Table(
        source, kind=kind, text=text, layout=details, delimiter=delimiter, columns=found, rows=records
    )


def _rows_of(
    records: Iterable[separated.Record], width: int, selected: Columns[int]
) -> Iterator[Row | BadRow]:
    used = _used(selected)
    for number, record in enumerate(records, start=1):
        if record.kind:
            kept = _kept(record.cells, selected) if len(record.cells) == width else {}
            yield BadRow(number, record.line, record.kind, record.why, kept)
        elif any(is_damaged(record.cells[at]) for at in used):
            yield BadRow(number, record.line, NOT_UTF8, NOT_UTF8, _kept(record.cells, selected))
        else:
            yield make_row(number, record.line, record.cells.__getitem__, selected)


def _first_row(sample: Sequence[separated.Record], place: str, options: Options) -> list[str]:
    if sample and not sample[0].kind:
        return sample[0].cells
    why = f"does not: {sample[0].why}; fix it" if sample else "is empty; add a header and reviews"
    names = " and ".join(filter(None, (options.text_column, options.label_column)))
    raise InputError(f"The first row must name each column, {names} among them, but line 1 of {place} {why}.")


def _check_header(names: Sequence[str], place: str) -> None:
    if any(map(is_damaged, names)):
        raise InputError(
            f"The first row must name each column in UTF-8, but that of {place} is not all UTF-8; mend it."
        )


def _used(selected: Columns[int]) -> list[int]:
    label = [selected.label[1]] if selected.label else []
    return [*selected.text.values(), *label, *selected.keep.values()]


def _kept(cells: Sequence[str], selected: Columns[int]) -> dict[str, str]:
    return {name: encoded(cells[at]).decode() for name, at in selected.keep.items()}


def _open_json(source: Source, text: Text, kind: str, options: Options) -> Table:
    def records(blocks: Iterator[str], lines: Iterator[str]) -> Iterator[json_rows.Record]:
        return json_rows.of_lines(lines) if kind == "jsonl" else json_rows.of_array(blocks, source.name)

    sample: list[dict[str, Any]] = []
    # The sample may end within an object, which is no error yet.
    try:
        start = records(iter([text.sample]), iter(text.sample_lines()))
        for record in itertools.islice(start, _SAMPLE_OBJECTS):
            sample += [] if record.kind else [record.content]
    except InputError:
        if source.is_complete and not sample:
            raise
    keys = list(dict.fromkeys(key for record in sample for key in record))
    rows = [[_as_cell(record.get(key)) for key in keys] for record in sample]
    if sample:
        positions, note = columns.select(columns.Table(source.name, keys, rows), options)
        _log_once(source.name, note)
        selected = _with_keys(positions, keys)
    else:
        label = options.label_column
        selected = Columns({options.text_column: options.text_column}, (label, label) if label else None, {})

    def parsed() -> Iterator[Row | BadRow]:
        for number, record in enumerate(records(text.blocks(), text.lines()), start=1):
            if record.kind:
                yield BadRow(number, record.line, record.kind, record.why)
            else:
                row = make_row(number, record.line, record.content.get, selected)
                yield _unless_refused(row, record.content, selected)

    return Table(source, kind=kind, text=text, columns=keys, rows=parsed)


def _unless_refused(row: Row | BadRow, content: dict[str, Any], selected: Columns[str]) -> Row | BadRow:
    """The row, if an annotator took it: Prodigy also writes those that were rejected or ignored."""
    answer = content.get("answer")
    if selected.label is None or "answer" in (selected.label[1], *selected.text.values()):
        return row
    if answer not in ("reject", "ignore"):
        return row
    kind = f"its answer is {answer}"
    return BadRow(row.number, row.line, kind, kind, row.kept)


def _as_cell(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, dict | list):
        return columns.NESTED[isinstance(value, list)]
    return "" if value is None else str(value)


def _with_keys(selected: Columns[int], keys: Sequence[str]) -> Columns[str]:
    """The same columns, by their keys in place of their positions."""
    return Columns(
        {name: keys[at] for name, at in selected.text.items()},
        (selected.label[0], keys[selected.label[1]]) if selected.label else None,
        {name: keys[at] for name, at in selected.keep.items()},
    )


def _open_arrow(source: Source, kind: str, options: Options) -> Table:
    from trainer.data.arrow_rows import ArrowTable  # not at each start, because Arrow takes a while to import

    table = ArrowTable(source, kind)
    sample = itertools.islice(table.rows(table.names), _SAMPLE_OBJECTS)
    rows = [[_as_cell(value) for value in row] for row in sample]
    positions, note = columns.select(columns.Table(source.name, table.names, rows), options)
    _log_once(source.name, note)
    selected = _with_keys(positions, table.names)
    label = [selected.label[1]] if selected.label else []
    needed = [*selected.text.values(), *label, *selected.keep.values()]

    def parsed() -> Iterator[Row | BadRow]:
        for number, values in enumerate(table.rows(needed), start=1):
            yield make_row(number, number, dict(zip(needed, values, strict=True)).get, selected)

    return Table(source, kind=kind, columns=table.names, rows=parsed)


@functools.cache
def _log_once(place: str, note: str) -> None:
    if note:
        logging.info("In %s %s.", place, note)
