"""The standard streams: a word that fails is lost, an answer that fails ends the program.

Standard error carries words: log lines, progress bars, warnings. What the pipe, the terminal or the disk
behind it does not take is lost, and the work goes on. Standard output carries answers: a reader that went
away ends the program quietly, with exit code 141, any other failure with a sentence.
"""

import contextlib
import io
import os
import select
import signal
import sys
from typing import TextIO

from trainer import StorageError

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: repr(chr(code))[1:-1] for code in _CONTROLS if chr(code) not in "\n\t"}


def guard() -> None:
    """Opens the standard streams that are closed, and replaces Python's own by such as fail as told above.

    Call it before any file is opened, which would else take the number of a closed stream, and be written to.
    """
    for descriptor, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # It takes the lowest free number; the wrong direction, so that a use fails as before.
            os.open(os.devnull, flags)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _Printable(*_buffer(_Answers(1, "w", closefd=False), sys.stdout))
    sys.stderr = io.TextIOWrapper(*_buffer(_Words(2, "w", closefd=False), sys.stderr))


def _buffer(raw: io.RawIOBase, stream: TextIO | None) -> tuple:
    # What io.TextIOWrapper takes: buffer, encoding, errors, newline, line_buffering.
    return io.BufferedWriter(raw), stream.encoding if stream else "utf-8", "backslashreplace", None, True


def printable(text: str) -> str:
    """The text with control characters, also those of writing direction, as Python's escape sequences."""
    return text.translate(_ESCAPES)


def write_at_once(descriptor: int, text: str) -> None:
    """Writes a short text without waiting and without failing, so that a signal handler may."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poll.poll(0):
            os.write(descriptor, text.encode(errors="backslashreplace"))


def _send_to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Waiting(io.FileIO):
    """Waits where a stream is full that another program has made one that does not block."""

    def write(self, data) -> int:
        while (written := super().write(data)) is None:
            select.select((), (self,), ())
        return written


class _Words(_Waiting):
    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Answers(_Waiting):
    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _send_to_nowhere(self.fileno())  # the buffer is written once more when the program ends
            if isinstance(error, BrokenPipeError):  # Whoever reads, as `head`, has had enough.
                raise SystemExit(128 + signal.SIGPIPE) from None
            raise StorageError(
                f"Standard output must take the answer, but it cannot be written ({error.strerror}); "
                f"send it to a terminal, a pipe or a file that can be."
            ) from error


class _Printable(io.TextIOWrapper):
    def write(self, text: str) -> int:
        return super().write(printable(text))
