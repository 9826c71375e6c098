"""Reviews in files of the user's own: csv, jsonl and txt, read a row at a time."""

import csv
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from absl import logging

from trainer import InputError

FORMATS = ("csv", "jsonl", "txt")
CHUNK = 2048  # reviews in memory at once
LABELS = {"0": 0, "1": 1, "neg": 0, "pos": 1, "negative": 0, "positive": 1, "false": 0, "true": 1}

_INT32_MAX = 2**31 - 1


class Row(NamedTuple):
    """A review; `label` is 0, 1, or None where the file has none."""

    line: int  # counted from 1; of a row of several lines the last
    text: bytes
    label: int | None


class _BadRow(NamedTuple):
    line: int
    why: str


def read(path: str, *, labelled: bool, bad_rows: str) -> Iterator[Row]:
    """The reviews of a file, in its order; memory holds one of them.

    Args:
      path: a file whose name ends with .csv (its first row names the columns), .jsonl (an object a line) or .txt (a text a line); or "-",
        standard input, as a .txt. Columns and keys are "text" and "label". Bytes that are no UTF-8 stay as they are.
      labelled: whether a row needs a label: 0 or 1, neg or pos, negative or positive, false or true.
      bad_rows: what to do at a row that holds no review: "skip" it with a warning, or "stop".

    Raises:
      InputError: when the file cannot be read, is of another kind, is a csv without these columns, or has a bad row to stop at.
    """
    for row in _read(path, labelled):
        if isinstance(row, Row):
            yield row
        elif bad_rows == "stop":
            raise InputError(
                f"Each row must hold a review, but line {row.line} of {path} does not: {row.why}; mend it, or give --bad_rows=skip."
            )
        else:
            logging.warning("Line %d of %s is skipped: %s.", row.line, path, row.why)


def chunks(rows: Iterator[Row], size: int = CHUNK) -> Iterator[list[Row]]:
    """The rows in lists of `size`, the last one shorter."""
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _read(path: str, labelled: bool) -> Iterator[Row | _BadRow]:
    kind = "txt" if path == "-" else pathlib.Path(path).suffix.removeprefix(".").lower()
    if kind not in FORMATS or (labelled and kind == "txt"):
        allowed = [f".{name}" for name in FORMATS if not (labelled and name == "txt")]
        raise InputError(f"--input must be a file that ends with {' or '.join(allowed)}, but {path} was given.")
    if path == "-":
        yield from _texts(sys.stdin.buffer)
        return
    try:
        with pathlib.Path(path).open("rb") as file:
            yield from {"csv": _csv, "jsonl": _jsonl, "txt": _labelless}[kind](file, labelled)
    except OSError as error:
        raise InputError(f"--input must be a file that can be read, but {path} is not: {error.strerror}.") from error


def _labelless(lines: Iterable[bytes], labelled: bool) -> Iterator[Row | _BadRow]:
    del labelled
    return _texts(lines)


def _texts(lines: Iterable[bytes]) -> Iterator[Row | _BadRow]:
    for number, line in enumerate(lines, start=1):
        text = line.rstrip(b"\r\n")
        yield Row(number, text, None) if text.strip() else _BadRow(number, "it is empty")


def _jsonl(lines: Iterable[bytes], labelled: bool) -> Iterator[Row | _BadRow]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line.decode(errors="surrogateescape"))
        except (ValueError, RecursionError):
            yield _BadRow(number, "it is not JSON")
            continue
        if isinstance(record, dict):
            yield _row(number, record.get("text"), record.get("label"), labelled)
        else:
            yield _BadRow(number, "it is not an object")


def _csv(lines: Iterable[bytes], labelled: bool) -> Iterator[Row | _BadRow]:
    csv.field_size_limit(_INT32_MAX)  # its own 128 KiB are less than a long review
    decoded = (line.decode(errors="surrogateescape") for line in lines)
    reader = csv.reader(decoded)
    columns = [name.strip().lower().removeprefix("\ufeff") for name in next(reader, [])]
    needed = ["text", "label"] if labelled else ["text"]
    if not set(needed) <= set(columns):
        raise InputError(
            f"The first row of a csv must name its columns, {' and '.join(needed)} among them, but it is {str(columns)[:100]}."
        )
    at_text, at_label = columns.index("text"), columns.index("label") if "label" in columns else None
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _BadRow(reader.line_num, str(error))
            continue
        if len(fields) == len(columns):
            yield _row(reader.line_num, fields[at_text], None if at_label is None else fields[at_label], labelled)
        elif fields:
            yield _BadRow(reader.line_num, f"it has {len(fields)} fields, and the first row {len(columns)}")


def _row(line: int, text: object, label: object, labelled: bool) -> Row | _BadRow:
    if not isinstance(text, str):
        return _BadRow(line, 'it has no "text"')
    if not labelled:
        return Row(line, _bytes(text), None)
    known = LABELS.get(str(label).strip().lower())
    if known is None:
        return _BadRow(line, f"its label is {label!r}, and it must be one of {', '.join(LABELS)}")
    return Row(line, _bytes(text), known)


def _bytes(text: str) -> bytes:
    # JSON may escape half of a surrogate pair, which no encoding has.
    return re.sub("[\ud800-\udbff\ude00-\udfff\udc00-\udc7f]", "\ufffd", text).encode(errors="surrogateescape")
