"""Tables whose columns are separated by a character: csv and tsv.

Each row of a tsv is a line: a quote is a character like any other, unless the whole cell is quoted as
spreadsheets and pandas write it. In a csv a quoted cell may hold line breaks, but no whole rows.
"""

import collections
import csv
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from trainer.data.text_encoding import LONGEST_LINE
from trainer.errors import InputError
from trainer.words import plural

SAMPLE_ROWS = 1000

_DELIMITERS = (",", ";", "\t", "|")
_MOST_LINES = 10_000  # of a cell; a quote that never closes must not read the whole file for each row
_MOST_VALUES = 20

csv.field_size_limit(LONGEST_LINE)  # the default of 128 KiB is less than a long review


class Record(NamedTuple):
    """The cells of a row and its first line, from 1; or, if `kind` is not empty, why there are none."""

    line: int
    cells: list[str]
    kind: str = ""
    why: str = ""


class Layout(NamedTuple):
    """How rows are written.

    Attributes:
      delimiter: what separates the columns; a tab means that quotes are text.
      width: the number of columns; 0: not known yet, and any is taken.
      is_row: whether cells look like a whole row; decides whether a quote has swallowed one.
    """

    delimiter: str
    width: int = 0
    is_row: Callable[[list[str]], bool] = lambda cells: False


class _Lines:
    """Lines that may be taken back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._returned: collections.deque[str] = collections.deque()
        self.number = 0  # of the line taken last

    def take(self) -> str | None:
        line = self._returned.popleft() if self._returned else next(self._lines, None)
        self.number += line is not None
        return line

    def give_back(self, lines: Sequence[str]) -> None:
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)


def records(lines: Iterable[str], layout: Layout, *, skip: int = 0) -> Iterator[Record]:
    """The rows, without blank lines. After a bad row, reading goes on at the next line.

    Args:
      lines: with their ends.
      layout: how they are written.
      skip: the number of lines to leave out at the start.
    """
    source = _Lines(lines)
    for _ in range(skip):
        source.take()
    read = _tsv_row if layout.delimiter == "\t" else _csv_row
    while (line := source.take()) is not None:
        if not line.strip("\r\n"):
            continue
        number = source.number
        record = read(number, line, source, layout)
        count = len(record.cells)
        if not record.kind and layout.width not in (0, count):
            kind = f"it has {'more' if count > layout.width else 'fewer'} fields than columns"
            why = f"it has {plural(count, 'field')}, but the first row has {layout.width}"
            record = Record(number, record.cells, kind, why)
        yield record


def _csv_row(number: int, line: str, source: _Lines, layout: Layout) -> Record:
    if '"' not in line:
        return Record(number, line.rstrip("\r\n").split(layout.delimiter))
    taken: list[str] = []

    def its_lines() -> Iterator[str]:
        yield line
        while len(taken) < _MOST_LINES and (more := source.take()) is not None:
            taken.append(more)
            if more.count('"') % 2 == 0 and layout.is_row(_cells(more, layout)):
                return
            yield more

    try:
        cells = next(csv.reader(its_lines(), delimiter=layout.delimiter, strict=True))
    except csv.Error as error:
        source.give_back(taken)
        kind = _explain(error)
        return Record(number, _cells(line, layout), kind, kind)
    if taken and _has_swallowed(line, taken[-1], layout):
        source.give_back(taken)
        return Record(number, _cells(line, layout), "its quote never closes", "its quote never closes")
    return Record(number, cells)


def _has_swallowed(first: str, last: str, layout: Layout) -> bool:
    """Whether a cell over several lines has a whole row in its first line, or in its last one."""
    # Read alone, the first line ends in the cell whose quote is open.
    if len(_cells(first, layout)) == layout.width:
        return layout.is_row(_cells(last.replace('"', ""), layout))
    return layout.is_row(_cells(first.replace('"', ""), layout))


def _cells(line: str, layout: Layout) -> list[str]:
    """The cells of a single line, whatever its quotes."""
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=layout.delimiter), [])
    except csv.Error:
        return line.rstrip("\r\n").split(layout.delimiter)


def _tsv_row(number: int, line: str, source: _Lines, layout: Layout) -> Record:
    cells = line.rstrip("\r\n").split("\t")
    if '"' not in line:
        return Record(number, cells)
    if layout.width > 1:
        if len(cells) > layout.width:
            quoted = _quoted([line], layout.width)
        elif cells[-1].startswith('"') and _unquoted(cells[-1]) == cells[-1]:
            quoted = _quoted_over_lines(line, source, layout.width)
        else:
            quoted = None
        if quoted is not None:
            return Record(number, quoted)
    return Record(number, [_unquoted(cell) for cell in cells])


def _quoted_over_lines(line: str, source: _Lines, width: int) -> list[str] | None:
    """The cells of a row with line breaks in a quoted one; None if its lines are rows by themselves."""
    taken: list[str] = []
    tabs = line.count("\t")

    def its_lines() -> Iterator[str]:
        nonlocal tabs
        yield line
        while len(taken) < _MOST_LINES and (more := source.take()) is not None:
            taken.append(more)
            tabs += more.count("\t")
            if tabs >= width:  # more columns than a row has
                return
            yield more

    cells = _quoted(its_lines(), width)
    if cells is None or tabs != width - 1:
        source.give_back(taken)
        return None
    return cells


def _quoted(lines: Iterable[str], width: int) -> list[str] | None:
    try:
        cells = next(csv.reader(lines, delimiter="\t", strict=True))
    except csv.Error:
        return None
    return cells if len(cells) == width else None


def _unquoted(cell: str) -> str:
    if len(cell) < 2 or not cell.startswith('"') or not cell.endswith('"'):
        return cell
    inner = cell[1:-1].replace('""', "")
    return cell if '"' in inner else cell[1:-1].replace('""', '"')


def _explain(error: csv.Error) -> str:
    explanations = {
        "unexpected end of data": "its quote never closes",
        "field larger": "it is too long, or its quote never closes",
        "new-line character": "a line break stands outside its quotes",
        "expected after": "more follows its closing quote, and a quote within quotes is written twice",
    }
    matching = (text for start, text in explanations.items() if start in str(error))
    return next(matching, str(error))


def row_test(rows: Sequence[Sequence[str]], ignored: Iterable[int]) -> Callable[[list[str]], bool]:
    """A test of cells: whether each column with few values, or with numbers alone, holds one of these.

    Args:
      rows: some of the table.
      ignored: the columns that may hold anything, those of the text.
    """
    width = len(rows[0]) if rows else 0
    values: dict[int, set[str]] = {}
    numbers: set[int] = set()
    for at in set(range(width)) - set(ignored):
        column = [row[at].strip() for row in rows]
        if len(set(column)) <= min(_MOST_VALUES, len(column) / 2):
            values[at] = set(column)
        elif all(re.fullmatch(r"[+-]?\d+(\.\d*)?", cell) for cell in column):
            numbers.add(at)

    def is_row(cells: list[str]) -> bool:
        return (
            len(cells) == width
            and bool(values or numbers)
            and all(cells[at].strip() in known for at, known in values.items())
            and all(re.fullmatch(r"[+-]?\d+(\.\d*)?", cells[at].strip()) for at in numbers)
        )

    return is_row


def find_delimiter(lines: Sequence[str], wanted: Iterable[str], *, given: str, kind: str) -> tuple[str, int]:
    """What separates the columns, and how many lines at the start state only that.

    Args:
      lines: the first ones.
      wanted: names of columns, in lower case; a first row that has them all decides.
      given: --delimiter, which decides; empty: recognised.
      kind: csv or tsv, which decides where nothing else does.

    Raises:
      InputError: when `given` is not a character.
    """
    stated = re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE) if lines else None
    if given:
        delimiter = {"tab": "\t", "\\t": "\t"}.get(given.lower(), given)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise InputError(
                f"--delimiter must be one character, or tab, but --delimiter={given} was given; "
                f"give one as in ';'."
            )
        return delimiter, int(bool(stated))
    if stated:
        return stated[1], 1
    first, *others = sorted(_DELIMITERS, key=lambda one: (one == "\t") != (kind == "tsv"))
    best, best_share = first, 0.0
    names = set(wanted)
    for delimiter in (first, *others):
        rows = [record.cells for record in itertools.islice(records(lines, Layout(delimiter)), 50)]
        if names and rows and names <= {cell.strip().lower() for cell in rows[0]}:
            return delimiter, 0
        widths = collections.Counter(map(len, rows)).most_common(1)
        share = widths[0][1] / len(rows) if widths and widths[0][0] > 1 else 0.0
        if share > best_share:
            best, best_share = delimiter, share
    return best if best_share >= 0.5 else first, 0
