"""Objects of JSON: one per line, or in an array, which is read a part at a time."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from trainer.data.text_encoding import LONGEST_LINE, NOT_UTF8, is_damaged
from trainer.errors import InputError

_SPACE = " \t\r\n\ufeff"


class Record(NamedTuple):
    """An object and its first line, from 1; or, if `kind` is not empty, why there is none."""

    line: int
    content: dict[str, Any]
    kind: str = ""
    why: str = ""


class _Repeated(dict[str, Any]):
    """An object in which a key is there twice."""


def of_lines(lines: Iterable[str]) -> Iterator[Record]:
    """The object of each line; blank lines are left out."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if is_damaged(line):
            yield Record(number, {}, NOT_UTF8, NOT_UTF8)
            continue
        try:
            content = json.loads(line, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError):
            yield Record(number, {}, "it is not JSON", "it is not JSON")
            continue
        yield _record(number, content)


def of_array(blocks: Iterable[str], place: str) -> Iterator[Record]:
    """The objects of an array, or of the one array of objects within an object; memory holds a block.

    Args:
      blocks: the text.
      place: what messages call it.

    Raises:
      InputError: when it is no such array, or is cut short.
    """
    reader = _Reader(blocks, place)
    start = reader.peek()
    if start == "{":
        yield from _within_object(reader)
        return
    reader.expect("[")
    if reader.peek() == "]":
        reader.expect("]")
    else:
        while True:
            reader.peek()  # skips spaces, so that the line is the one of the value
            line, value = reader.line, reader.value()
            yield Record(line, {}, NOT_UTF8, NOT_UTF8) if reader.is_damaged else _record(line, value)
            if reader.peek() == "]":
                reader.expect("]")
                break
            reader.expect(",")
    if reader.peek():
        raise reader.error("more follows the array")


def _within_object(reader: "_Reader") -> Iterator[Record]:
    content = reader.value()
    if reader.is_damaged:
        raise reader.error(NOT_UTF8)
    if reader.peek():
        raise reader.error("more follows the object")
    lists = [
        value
        for value in content.values()
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
    ]
    if len(lists) == 1:
        yield from (_record(number, one) for number, one in enumerate(lists[0], start=1))
        return
    keys = ", ".join(repr(key)[1:-1][:30] for key in list(content)[:10])
    raise InputError(
        f"A file of JSON must hold an array of objects, each with a review, but {reader.place} holds an "
        f"object of {keys}; save it as JSON lines, in pandas by to_json(orient='records', lines=True)."
    )


class _Reader:
    """Takes values from a text that arrives in blocks."""

    def __init__(self, blocks: Iterable[str], place: str) -> None:
        self._blocks, self.place = iter(blocks), place
        self._buffer, self._at, self._is_whole = "", 0, False
        self.line = 1
        self.is_damaged = False  # whether the value that was read last holds bytes that are not UTF-8
        self._decoder = json.JSONDecoder(object_pairs_hook=_without_repeats)

    def _read_more(self) -> None:
        # At least as much as there is, so that a long value is not parsed once for each of its blocks.
        parts, size = [self._buffer[self._at :]], 0
        wanted = len(parts[0])
        while size <= wanted:
            block = next(self._blocks, None)
            if block is None:
                self._is_whole = True
                break
            parts.append(block)
            size += len(block)
        self._buffer, self._at = "".join(parts), 0
        if len(self._buffer) > LONGEST_LINE:
            raise self.error(f"a value has more than {LONGEST_LINE} characters, or never ends")

    def peek(self) -> str:
        """The next character that is not a space; empty: there is none."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACE:
                self._take(self._at + 1)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._is_whole:
                return ""
            self._read_more()

    def expect(self, char: str) -> None:
        if self.peek() != char:
            raise self.error(f"there is no {char}")
        self._take(self._at + 1)

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError):
                end = len(self._buffer)
                if self._is_whole:
                    raise self.error("a value is not JSON, or is cut short") from None
            # A number at the end of the buffer may go on.
            if end < len(self._buffer) or self._is_whole:
                self.is_damaged = is_damaged(self._buffer[self._at : end])
                self._take(end)
                return value
            self._read_more()

    def _take(self, end: int) -> None:
        self.line += self._buffer.count("\n", self._at, end)
        self._at = end

    def error(self, why: str) -> InputError:
        return InputError(
            f"A file of JSON must hold an array of objects, but line {self.line} of {self.place} is not part "
            f"of one ({why}); mend it, or save it again."
        )


def _record(line: int, content: object) -> Record:
    if isinstance(content, _Repeated):
        return Record(line, content, "it has a key twice", "it has a key twice")
    if not isinstance(content, dict):
        return Record(line, {}, "it is not an object", "it is not an object")
    return Record(line, content)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    return record if len(record) == len(pairs) else _Repeated(record)
