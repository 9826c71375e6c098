"""Reviews in the user's own files: csv, tsv, jsonl and txt, read a row at a time."""

import csv
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from absl import logging

from trainer import files
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE

TABLES = ("csv", "tsv", "jsonl")
CHUNK = 2048  # reviews in memory at once

# In bytes. Without a limit, a binary file or an unclosed quote would fill the memory.
_LONGEST_LINE = 2**26
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """A review; `label` is 0, 1, or None if no label is needed."""

    line: int  # counted from 1; the first line of the row
    text: bytes
    label: int | None


class _BadRow(NamedTuple):
    line: int
    why: str


class _Columns(NamedTuple):
    text: str
    label: str | None  # None: rows need no label


def read(
    path: str, *, labelled: bool, bad_rows: str, text_column: str = "text", label_column: str = "label"
) -> Iterator[Row]:
    """The reviews of a file for evaluate or predict, in its order; memory holds one at a time.

    Args:
      path: a file whose name ends with .csv or .tsv (the first row names the columns), .jsonl (one object per
        line) or .txt (one text per line); or "-", standard input, read like a .txt. Bytes that are not UTF-8
        are kept unchanged.
      labelled: whether a row needs a label: 0 or 1, neg or pos, negative or positive, false or true.
      bad_rows: what to do with an invalid row: "skip" it with a warning, or "stop".
      text_column: the column, or key, of the text.
      label_column: the column, or key, of the label.

    Raises:
      InputError: when the file can't be read, is of another kind, lacks these columns, or has an invalid row
        and `bad_rows` is "stop".
    """
    columns = _Columns(text_column, label_column if labelled else None)
    for row in _read(path, columns):
        if isinstance(row, Row):
            yield row
        elif bad_rows == "stop":
            raise InputError(
                f"Each row must hold a review, but line {row.line} of {path} does not: {row.why}; "
                f"fix it, or give --bad_rows=skip."
            )
        else:
            logging.warning("Line %d of %s is skipped: %s.", row.line, path, row.why)


def read_table(path: pathlib.Path, *, kind: str, text_column: str, label_column: str) -> Iterator[Row]:
    """The labelled reviews of a corpus, in the order of the file; memory holds one at a time.

    Raises:
      InputError: at the first invalid row, with its line: no part of a corpus is skipped.
    """
    try:
        for row in _parse(kind, lines_of(path), path, _Columns(text_column, label_column)):
            if isinstance(row, _BadRow):
                raise InputError(
                    f"Each row must hold a review, but line {row.line} of {path} does not: {row.why}; "
                    f"fix or remove it."
                )
            yield row
    except OSError as error:
        raise InputError(
            f"A file of reviews must be readable, but {path} is not: {files.reason(error)}; "
            f"make it readable, or name another file."
        ) from error


def lines_of(path: pathlib.Path) -> Iterator[str]:
    """The lines of a text in UTF-8, with their line endings.

    Raises:
      InputError: when a line is not text in UTF-8.
      OSError: when the file can't be read.
    """
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(_LONGEST_LINE), b"")
        for number, line in enumerate(lines, start=1):
            try:
                text = _decode(line, is_first=number == 1)
            except ValueError as error:
                raise InputError(
                    f"Reviews must be text in UTF-8, but line {number} of {path} is not ({error}); "
                    f"save it as UTF-8."
                ) from None
            yield text


def _decode(line: bytes, *, is_first: bool) -> str:
    """The text of a line; raises ValueError with the reason if it is not text."""
    if len(line) == _LONGEST_LINE:
        raise ValueError(f"it has more than {_LONGEST_LINE} bytes")
    try:
        text = line.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{error.reason} at its byte {error.start + 1}") from None
    if "\0" in text:
        raise ValueError("it holds a NUL byte")
    return text


def chunks(rows: Iterator[Row], size: int = CHUNK) -> Iterator[list[Row]]:
    """The rows in lists of `size`, the last one shorter."""
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _read(path: str, columns: _Columns) -> Iterator[Row | _BadRow]:
    kind = "txt" if path == "-" else pathlib.Path(path).suffix.removeprefix(".").lower()
    allowed = TABLES if columns.label else (*TABLES, "txt")
    if kind not in allowed:
        endings = " or ".join(f".{name}" for name in allowed)
        raise InputError(
            f"--input must be a file that ends with {endings}, but {path} was given; convert it."
        )
    try:
        if path == "-":
            yield from _texts(sys.stdin.buffer)
            return
        with pathlib.Path(path).open("rb") as file:
            yield from _texts(file) if kind == "txt" else _parse(kind, _any_bytes(file), path, columns)
    except OSError as error:
        if path == "-":
            raise InputError(
                f"Standard input must be readable, but it is not ({files.reason(error)}); "
                f"give some by --text or --input."
            ) from error
        raise InputError(
            f"--input must be a file that can be read, but {path} is not: {files.reason(error)}; "
            f"name another one."
        ) from error


def _any_bytes(lines: Iterable[bytes]) -> Iterator[str]:
    # Decodes lines of any encoding so that `_bytes` restores them unchanged.
    for number, line in enumerate(lines):
        content = line if number else line.removeprefix(_BYTE_ORDER_MARK)
        yield content.decode(errors="surrogateescape")


def _texts(lines: Iterable[bytes]) -> Iterator[Row | _BadRow]:
    for number, line in enumerate(lines, start=1):
        text = line.rstrip(b"\r\n")
        yield Row(number, text, None) if text.strip() else _BadRow(number, "it is empty")


def _parse(kind: str, lines: Iterable[str], path: object, columns: _Columns) -> Iterator[Row | _BadRow]:
    if kind == "jsonl":
        return _jsonl(lines, columns)
    return _separated(lines, path, columns, "\t" if kind == "tsv" else ",")


def _jsonl(lines: Iterable[str], columns: _Columns) -> Iterator[Row | _BadRow]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line, object_pairs_hook=_without_repeats)
        except _RepeatedKeyError as error:
            yield _BadRow(number, str(error))
            continue
        except (ValueError, RecursionError):
            yield _BadRow(number, "it is not JSON")
            continue
        if isinstance(record, dict):
            label = record.get(columns.label) if columns.label else None
            yield _row(number, record.get(columns.text), label, columns)
        else:
            yield _BadRow(number, "it is not an object")


class _RepeatedKeyError(ValueError):
    pass


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _RepeatedKeyError("it has a key twice")
    return record


def _separated(
    lines: Iterable[str], path: object, columns: _Columns, delimiter: str
) -> Iterator[Row | _BadRow]:
    csv.field_size_limit(_LONGEST_LINE)  # the default of 128 KiB is less than a long review
    # Strict, because otherwise an unclosed quote swallows all rows after it.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise InputError(
            f"The first row must name each column, but line 1 of {path} does not: {_explain(error)}; fix it."
        ) from error
    text_at, label_at = _find_columns(names, path, columns)
    while True:
        first_line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _BadRow(first_line, _explain(error))
            continue
        if len(fields) == len(names):
            label = None if label_at is None else fields[label_at]
            yield _row(first_line, fields[text_at], label, columns)
        elif fields:  # not a blank line
            yield _BadRow(first_line, f"it has {len(fields)} fields, but the first row has {len(names)}")


def _find_columns(names: list[str], path: object, columns: _Columns) -> tuple[int, int | None]:
    """The positions of text and label among the columns of a file, whose names are in lower case."""
    needed = [column.strip().lower() for column in columns if column is not None]
    if any(names.count(name) != 1 for name in needed):
        found = _printable(", ".join(names)[:100]) or "empty"
        raise InputError(
            f"The first row must name each column, {' and '.join(needed)} among them and once, "
            f"but line 1 of {path} is {found}; name them there, or by --text_column and --label_column."
        )
    positions = [names.index(name) for name in needed]
    return positions[0], positions[1] if columns.label else None


def _printable(text: str) -> str:
    # A file may contain line breaks, and escape sequences that a terminal would execute.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _explain(error: csv.Error) -> str:
    explanations = {
        "unexpected end of data": "its quote never closes",
        "field larger": "it is too long, or its quote never closes",
        "expected after": "more follows its closing quote, and a quote within quotes is written twice",
        "new-line character": "its lines end with CR alone, and LF or CR LF is needed",
    }
    matching = (text for start, text in explanations.items() if start in str(error))
    return next(matching, str(error))


def _row(line: int, text: object, label: object, columns: _Columns) -> Row | _BadRow:
    if text is None:
        return _BadRow(line, f'it has no "{columns.text}"')
    if not isinstance(text, str):
        return _BadRow(line, f'its "{columns.text}" is not a text')
    if columns.label is None:
        return Row(line, _bytes(text), None)
    if not text.strip():
        return _BadRow(line, f'its "{columns.text}" is empty')
    known = NEGATIVE_POSITIVE.number_of(label)
    if known is None:
        given = (
            f'it has no "{columns.label}"' if label is None else f"its {columns.label} is {repr(label)[:100]}"
        )
        return _BadRow(
            line,
            f"{given}, and it must be one of {', '.join(sum(NEGATIVE_POSITIVE.values, ()))}",
        )
    return Row(line, _bytes(text), known)


def _bytes(text: str) -> bytes:
    # JSON may escape a lone surrogate, which no encoding can represent.
    lone_surrogates = "[\ud800-\udbff\ude00-\udfff\udc00-\udc7f]"
    return re.sub(lone_surrogates, "\ufffd", text).encode(errors="surrogateescape")
