"""Rows of tables of reviews: which columns are asked for, and what a row of them holds."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from trainer.words import plural

CHUNK = 2048  # reviews in memory at once
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")  # what a cell of numbers holds

# How R, pandas and spreadsheets write a missing value.
_MISSING = {*("#N/A", "<NA>", "N/A", "n/a", "NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None")}

_Any = TypeVar("_Any")
_Key = TypeVar("_Key", int, str)


class Row(NamedTuple):
    """A review.

    Attributes:
      number: its position among the rows, from 1; bad rows count, a header and blank lines do not.
      line: its first line in the file, from 1; in a file without lines, its number.
      text: in UTF-8.
      label: as it is spelled, without outer spaces; None: none was asked for.
      kept: the columns of `Options.keep`.
    """

    number: int
    line: int
    text: bytes
    label: str | None
    kept: Mapping[str, str] = {}


class BadRow(NamedTuple):
    """A row that holds no review; `kind` is one of few, `why` is the whole reason. The others as in `Row`."""

    number: int
    line: int
    kind: str
    why: str
    kept: Mapping[str, str] = {}


@dataclasses.dataclass(frozen=True)
class Options:
    """How a table is read.

    Attributes:
      text_column: a name, or a number from 1, or several of them, as in title,body, which are joined by a
        space. Names are compared without case and outer spaces.
      label_column: likewise, a single one; None: rows need no label.
      encoding: as Python names it; empty: recognised.
      delimiter: one character, or tab; empty: recognised.
      header: first_row, none, or auto: recognised.
      keep: the columns that rows keep, besides.
    """

    text_column: str = "text"
    label_column: str | None = "label"
    encoding: str = ""
    delimiter: str = ""
    header: str = "auto"
    keep: tuple[str, ...] = ()


class Columns(NamedTuple, Generic[_Key]):
    """Where the values of a row are; a key is a position, or a key of an object.

    Attributes:
      text: name -> key of each part of the text.
      label: the name and the key of the label; None: rows need none.
      keep: name -> key.
    """

    text: Mapping[str, _Key]
    label: tuple[str, _Key] | None
    keep: Mapping[str, _Key]


class BadRows:
    """Counts bad rows by their kind, and remembers the first of each."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, BadRow]] = {}
        self._counts: dict[str, int] = {}

    def add(self, row: BadRow, place: str = "") -> None:
        """Counts a row; `place` is where it is, if its line does not say so."""
        self._first.setdefault(row.kind, (place or f"line {row.line}", row))
        self._counts[row.kind] = self._counts.get(row.kind, 0) + 1

    def __len__(self) -> int:
        return sum(self._counts.values())

    def summary(self) -> str:
        """One phrase: how many rows of which kind, and the first of each."""
        return ", ".join(
            f"{plural(self._counts[kind], 'row')} because {kind} (first in {place}"
            + (f": {row.why})" if row.why != kind else ")")
            for kind, (place, row) in self._first.items()
        )


def chunks(rows: Iterator[_Any], size: int = CHUNK) -> Iterator[list[_Any]]:
    """The rows in lists of `size`, the last one shorter."""
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def make_row(number: int, line: int, get: Callable[[_Key], object], columns: Columns[_Key]) -> Row | BadRow:
    """The row whose values `get` looks up by their keys; a missing one is None."""
    kept = {name: _as_text(get(key)) for name, key in columns.keep.items()}
    parts = {name: get(key) for name, key in columns.text.items()}
    name = next(iter(parts))
    if all(part is None for part in parts.values()):
        return BadRow(number, line, "it has no text", f'it has no "{name}"', kept)
    for name, part in parts.items():
        if not isinstance(part, str | None):
            return BadRow(number, line, "its text is not a text", f'its "{name}" is not a text', kept)
    text = " ".join(str(part or "") for part in parts.values())
    if not text.strip():
        return BadRow(number, line, "its text is empty", f'its "{name}" is empty', kept)
    if columns.label is None:
        return Row(number, line, encoded(text), None, kept)
    label_name, key = columns.label
    given = get(key)
    label = _label(given)
    if label is None:
        return BadRow(
            number, line, "its label is not one value", f"its {label_name} is {_short(given)}", kept
        )
    if not label:
        why = f'it has no "{label_name}"' if given is None else f"its {label_name} is {_short(given)}"
        return BadRow(number, line, "it has no label", why, kept)
    return Row(number, line, encoded(text), label, kept)


def _label(value: object) -> str | None:
    """A label as text; empty: there is none; None: it is not a single value."""
    if isinstance(value, list) and len(value) == 1:  # as annotation tools write the only choice
        (value,) = value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    return "" if text in _MISSING else text


def _short(value: object) -> str:
    return repr(value)[:100]


def _as_text(value: object) -> str:
    return "" if value is None else str(value)


def encoded(text: str) -> bytes:
    """A text in UTF-8; JSON may escape a lone surrogate, which no encoding can represent."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()


def printable(text: str) -> str:
    """A text for a message: a file may hold line breaks, and sequences that a terminal would execute."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
