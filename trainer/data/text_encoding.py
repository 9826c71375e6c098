"""Text from bytes: its encoding, its lines, and a guess at the encoding when it is not UTF-8."""

import codecs
import collections
import io
import re
from collections.abc import Iterable, Iterator

from trainer.data.compression import Source
from trainer.data.encoding_guess import excerpt, guesses
from trainer.errors import InputError

# In characters. Without a limit, a file without line ends would fill the memory.
LONGEST_LINE = 2**26

_LONGEST_CHECK = 2**28  # bytes; a guess is tried on the whole file up to this size
# UTF-32 first: its mark begins with the one of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
NOT_UTF8 = "it is not all UTF-8"
"""Why a row is bad whose text `is_damaged`."""
_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf4][\x80-\xbf]{3}"
)
_FEWEST_WHOLE = 3  # sequences; fewer may be there by chance
_MOST_DAMAGED = 0.1  # of the bytes that are not ASCII
_DAMAGED = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of bytes


class Text:
    """The text of a source.

    Where UTF-8 is not given but most of it is UTF-8, the other bytes become surrogates: see `is_damaged`.

    Args:
      source: its bytes.
      encoding: as Python names it; empty: by the byte order mark, else UTF-8.

    Attributes:
      encoding: the one that is used.
      sample: the beginning of the text, without what can't be decoded.

    Raises:
      InputError: when there is no such encoding, or, from the methods, when bytes are no text in it; the
        message names the line.
    """

    def __init__(self, source: Source, encoding: str = "") -> None:
        self._source, self._given = source, encoding
        if encoding:
            _check(encoding)
        self.encoding, self._mark = _find(source.sample, encoding)
        start = source.sample[self._mark :]
        self._is_damaged = not self._decodes_sample() and self._may_be_damaged(start)
        errors = "surrogateescape" if self._is_damaged else "ignore"
        self.sample = codecs.getincrementaldecoder(self.encoding)(errors).decode(start)
        # Line ends of old Macs.
        self._newline = "\r" if "\r" in self.sample and "\n" not in self.sample else "\n"

    def check_sample(self) -> None:
        """Raises InputError when the sample is not all text, before anything is concluded from it."""
        if "\0" in self.sample or not (self._is_damaged or self._decodes_sample()):
            collections.deque(self.blocks(), maxlen=0)

    def _decodes_sample(self) -> bool:
        decoder = codecs.getincrementaldecoder(self.encoding)()
        try:
            decoder.decode(self._source.sample[self._mark :], final=self._source.is_complete)
        except UnicodeError:
            return False
        return True

    def _may_be_damaged(self, data: bytes) -> bool:
        return not self._given and self.encoding == "utf-8" and is_mostly_utf8(data)

    def blocks(self) -> Iterator[str]:
        """The text in blocks."""
        line, skipped, size = 1, self._mark, 0
        decoder = codecs.getincrementaldecoder(self.encoding)(
            "surrogateescape" if self._is_damaged else "strict"
        )
        source = self._source.blocks()
        for block in _with_last(source):
            state = decoder.getstate()
            size += len(block)
            try:
                text = decoder.decode(block[skipped:], final=not block)
            except UnicodeError as error:
                pending = state[0] + block[skipped:]
                # The sample alone has decided on what it holds, so that all readers see the same.
                is_late = size > len(self._source.sample) or (not block and not self._source.is_complete)
                if not is_late or not self._may_be_damaged(self._source.sample + pending):
                    raise self._undecodable(error, line, source) from None
                decoder = codecs.getincrementaldecoder(self.encoding)("surrogateescape")
                decoder.setstate(state)
                text = decoder.decode(block[skipped:], final=not block)
            skipped = max(0, skipped - len(block))
            if "\0" in text:
                raise self._nul(line + text.count(self._newline, 0, text.index("\0")))
            line += text.count(self._newline)
            yield text

    def lines(self) -> Iterator[str]:
        """The lines with their ends; CR alone ends them only in a file without LF."""
        return self._split(self.blocks())

    def sample_lines(self) -> list[str]:
        """The whole lines of the sample."""
        lines = list(self._split([self.sample]))
        return lines if self._source.is_complete else lines[:-1]

    def _split(self, blocks: Iterable[str]) -> Iterator[str]:
        pending: list[str] = []
        number, size = 1, 0
        for block in blocks:
            first, *others = block.split(self._newline)
            pending.append(first)
            size += len(first)
            if size > LONGEST_LINE:
                raise InputError(
                    f"A line of reviews must have at most {LONGEST_LINE} characters, but line {number} of "
                    f"{self._source.name} has more; name a file of text, with a review in each row."
                )
            if others:
                yield "".join(pending) + self._newline
                yield from (line + self._newline for line in others[:-1])
                number, pending, size = number + len(others), [others[-1]], len(others[-1])
        if last := "".join(pending):
            yield last

    def _nul(self, line: int) -> InputError:
        nuls = [self._source.sample[start::2].count(0) for start in (0, 1)]
        is_utf_16 = max(nuls) > len(self._source.sample) / 8 and not self._given
        remedy = f"give --encoding=utf-16-{'be' if nuls[0] > nuls[1] else 'le'}" if is_utf_16 else "mend it"
        return InputError(
            f"Reviews must be text in UTF-8, but line {line} of {self._source.name} is not (it holds a NUL "
            f"byte); {remedy}, or name a file of text."
        )

    def _undecodable(self, error: UnicodeError, line: int, rest: Iterator[bytes]) -> InputError:
        reason, around = str(error), b""
        if isinstance(error, UnicodeDecodeError):
            before = error.object[: error.start].decode(self.encoding, "ignore")
            line, reason = line + before.count(self._newline), error.reason
            around = error.object[max(0, error.start - 2000) :] + next(rest, b"")
        name = self._source.name
        if self._given:
            return InputError(
                f"Reviews must be text in --encoding={self._given}, but line {line} of {name} is not "
                f"({reason}); name another encoding, or none for UTF-8."
            )
        possible = [guess for guess in guesses(around) if _decodes(self._source, guess) is not False]
        guess = possible[0]  # latin-1 decodes anything
        kind = "in which all of it can be read" if _decodes(self._source, guess) else "which is likely"
        shown = excerpt(around, guess)
        others = [other for other in possible[1:] if excerpt(around, other) != shown and other != "latin-1"][
            :2
        ]
        hint = f"; if that looks wrong, try {' or '.join(others)}" if others else ""
        return InputError(
            f"Reviews must be text in UTF-8, or in UTF-16 with a byte order mark, but line {line} of "
            f"{name} is not ({reason}); give --encoding={guess}, {kind}, as in {shown!r}{hint}."
        )


def is_recognised(source: Source) -> bool:
    """Whether a source has a byte order mark or is UTF-8; of a pipe and a large file, the start decides."""
    if source.sample.startswith(tuple(_MARKS)):
        return True
    # But for NUL bytes and escapes, text in UTF-16 and ISO-2022 may be UTF-8 as well.
    if {0, 0x1B} & set(source.sample):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(source.sample, final=source.is_complete)
    except UnicodeError:
        return is_mostly_utf8(source.sample)
    return source.is_complete or _decodes(source, "utf-8") is not False or is_mostly_utf8(source.sample)


def _decodes(source: Source, encoding: str) -> bool | None:
    """Whether all of a source is text in an encoding; None: it is too large to try, or a pipe."""
    if not source.can_reopen:
        return None
    decoder, size = codecs.getincrementaldecoder(encoding)(), 0
    try:
        for block in _with_last(source.blocks()):
            decoder.decode(block, final=not block)
            size += len(block)
            if size > _LONGEST_CHECK:
                return None
    except UnicodeError:
        return False
    return True


def is_mostly_utf8(data: bytes) -> bool:
    """Whether bytes that are not UTF-8 are so but for a few: those damaged by a cut or a wrong byte.

    A character that is cut off at the end does not count.
    """
    data = re.sub(rb"[\xc2-\xf4][\x80-\xbf]{0,2}$", b"", data)
    whole = _SEQUENCE.findall(data)
    high = len(re.findall(rb"[\x80-\xff]", data))
    return len(whole) >= _FEWEST_WHOLE and high - sum(map(len, whole)) <= _MOST_DAMAGED * high


def is_damaged(text: str) -> bool:
    """Whether a text that `Text` has read holds bytes that are not UTF-8."""
    return _DAMAGED.search(text) is not None


def _check(encoding: str) -> None:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # refuses codecs of bytes, such as base64
        codecs.getincrementaldecoder(encoding)("ignore").decode(b"a", final=True)
    except (LookupError, ValueError):
        raise InputError(
            f"--encoding must name an encoding of text, but --encoding={encoding} was given; "
            f"name one as in cp1252, or none for UTF-8."
        ) from None


def _find(sample: bytes, given: str) -> tuple[str, int]:
    """The encoding of a text, and the length of its byte order mark."""
    for mark, name in _MARKS.items():
        if sample.startswith(mark) and (not given or name.startswith(codecs.lookup(given).name)):
            return name, len(mark)
    return given or "utf-8", 0


def _with_last(blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield from blocks
    yield b""
