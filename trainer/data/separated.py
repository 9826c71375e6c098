"""Tables whose columns are separated by a character: csv and tsv.

Each row of a tsv is a line: a quote is a character like any other, unless the whole cell is quoted as
spreadsheets and pandas write it. In a csv a quoted cell may hold line breaks, but no whole rows.
"""

import collections
import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from trainer.data.review_rows import NUMBER
from trainer.data.text_encoding import LONGEST_LINE
from trainer.errors import InputError
from trainer.words import plural

SAMPLE_ROWS = 1000

_DELIMITERS = (",", ";", "\t", "|")
_MOST_LINES = 10_000  # of a cell; a quote that never closes must not read the whole file for each row
_MOST_VALUES = 20
_ENOUGH = 10  # numbers in a column to say that it holds no other values

csv.field_size_limit(LONGEST_LINE)  # the default of 128 KiB is less than a long review


class Record(NamedTuple):
    """The cells of a row and its first line, from 1; or, if `kind` is not empty, why there are none."""

    line: int
    cells: list[str]
    kind: str = ""
    why: str = ""


class RowTest:
    """A test of cells: whether each column with few values, or with numbers alone, holds one of these.

    Args:
      rows: some of the table.
      ignored: the columns that may hold anything, those of the text.
    """

    def __init__(self, rows: Sequence[Sequence[str]], ignored: Iterable[int]) -> None:
        self._width = len(rows[0]) if rows else 0
        self._values: dict[int, set[str]] = {}
        self._numbers: set[int] = set()
        for at in set(range(self._width)) - set(ignored):
            column = [row[at].strip() for row in rows]
            # A damaged row may be among them: what is there once does not count.
            repeated = {value: count for value, count in collections.Counter(column).items() if count > 1}
            if len(repeated) <= _MOST_VALUES and sum(repeated.values()) > 0.8 * len(column):
                self._values[at] = set(repeated)
            elif len(column) >= _ENOUGH and all(map(NUMBER.fullmatch, column)):
                self._numbers.add(at)

    def tells(self, start: int) -> bool:
        """Whether there is such a column at a position or after it."""
        return any(at >= start for at in (*self._values, *self._numbers))

    def is_row(self, cells: Sequence[str], start: int) -> bool:
        """Whether cells look like a whole row, by the columns from a position on."""
        return (
            len(cells) == self._width
            and self.tells(start)
            and all(cells[at].strip() in known for at, known in self._values.items())
            and all(NUMBER.fullmatch(cells[at].strip()) for at in self._numbers)
        )


class Layout(NamedTuple):
    """How rows are written.

    Attributes:
      delimiter: what separates the columns; a tab means that quotes are text.
      width: the number of columns; 0: not known yet, and any is taken.
      test: what a whole row looks like; decides whether a quote has swallowed one.
    """

    delimiter: str
    width: int = 0
    test: RowTest = RowTest([], [])


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


def without_headers(records: Iterable[Record], header: Sequence[str]) -> Iterator[Record]:
    """The records below a header; its repetitions, and the dashes below it in Markdown, are bad."""
    follows_header = True
    for record in records:
        kind = record.kind
        if repeats := record.cells == header:
            kind = "it repeats the header"
        elif follows_header and _is_rule(record.cells):
            kind = "it is the line below a header in Markdown"
        follows_header = repeats
        yield record if kind == record.kind else record._replace(kind=kind, why=kind)


def _is_rule(cells: Sequence[str]) -> bool:
    """Whether cells are dashes, as Markdown has them between header and rows; the outer ones may be empty."""
    inner = [cell.strip() for cell in cells]
    inner = inner[inner[0] == "" : len(inner) - (inner[-1] == "")]
    return bool(inner) and all(re.fullmatch(":?-+:?", cell) for cell in inner)


def _csv_row(number: int, line: str, source: _Lines, layout: Layout) -> Record:
    if '"' not in line:
        return Record(number, line.rstrip("\r\n").split(layout.delimiter))
    taken: list[str] = []
    try:
        lines = _quoted_lines(line, source, layout, taken)
        cells = next(csv.reader(lines, delimiter=layout.delimiter, strict=True))
    except csv.Error as error:
        source.give_back(taken)
        kind = _explain(error)
        return Record(number, _cells(line, layout), kind, kind)
    if taken and (layout.width not in (0, len(cells)) or _has_swallowed(line, taken, layout)):
        source.give_back(taken)
        return Record(number, _cells(line, layout), "its quote never closes", "its quote never closes")
    return Record(number, cells)


def _quoted_lines(line: str, source: _Lines, layout: Layout, taken: list[str]) -> Iterator[str]:
    """A line and the next ones, which are added to `taken`, until most of these are rows by themselves."""
    yield line
    while len(taken) < _MOST_LINES and (more := source.take()) is not None:
        taken.append(more)
        if len(taken) > 1 and _are_rows(taken[-6:], layout):
            return
        yield more


def _are_rows(lines: Sequence[str], layout: Layout) -> bool:
    # A text may have a line like a row, but hardly half of its lines are.
    rows = [line.count('"') % 2 == 0 and layout.test.is_row(_cells(line, layout), 0) for line in lines]
    return sum(rows) >= len(rows) / 2


def _has_swallowed(first: str, taken: Sequence[str], layout: Layout) -> bool:
    """Whether the lines of a cell are whole rows: those within, and the first or the last one."""
    if not _are_rows(taken[:-1], layout):
        return False
    # Read alone, the first line ends in the cell whose quote is open.
    opened = len(_cells(first, layout))
    if opened == layout.width:
        # The text comes last, and may hold delimiters.
        return layout.test.is_row(taken[-1].replace('"', "").split(layout.delimiter, layout.width - 1), 0)
    return layout.test.is_row(_cells(first.replace('"', ""), layout), opened)


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
    if layout.width > 1 and any(cell.startswith('"') and _unquoted(cell) == cell for cell in cells):
        quoted = _quoted(line, source, layout)
        if quoted is not None:
            return Record(number, quoted)
    return Record(number, [_unquoted(cell) for cell in cells])


def _quoted(line: str, source: _Lines, layout: Layout) -> list[str] | None:
    """The cells of a row that is quoted, over one line or several; None if its lines are rows themselves."""
    taken: list[str] = []
    try:
        cells = next(csv.reader(_quoted_lines(line, source, layout, taken), delimiter="\t", strict=True))
    except csv.Error:
        cells = []
    opened = len(_cells(line, layout))
    # Where no column tells what a row looks like, a cell holds line breaks or tabs, not both.
    is_row = not taken or line.count("\t") + sum(more.count("\t") for more in taken) == layout.width - 1
    if not is_row and layout.test.tells(0 if opened == layout.width else opened):
        is_row = not _has_swallowed(line, taken, layout)
    if len(cells) != layout.width or not is_row:
        source.give_back(taken)
        return None
    return cells


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
