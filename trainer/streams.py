"""The standard streams: log lines that can't be written are dropped, results that can't are errors.

Standard error carries log lines, progress bars and warnings. If the pipe, terminal or disk does not accept
them, they are dropped and the work continues. Standard output carries results: when its reader is gone, the
program ends quietly with exit code 141; any other failure is an error.
"""

import contextlib
import io
import os
import select
import signal
import sys
from typing import Any, TextIO, TypedDict

from trainer.errors import StorageError

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: repr(chr(code))[1:-1] for code in _CONTROLS if chr(code) not in "\n\t"}


def guard() -> None:
    """Opens standard streams that are closed, and makes all of them fail as described above.

    Call it before any file is opened: a file could get the descriptor of a closed stream, and receive log
    lines.
    """
    for descriptor, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # This gets the lowest free descriptor. It is opened in the wrong direction, so that using it
            # still fails.
            os.open(os.devnull, flags)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    stdout, stderr = _Results(1, "w", closefd=False), _LogLines(2, "w", closefd=False)
    sys.stdout = _Printable(io.BufferedWriter(stdout), **_text_options(sys.stdout))
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(stderr), **_text_options(sys.stderr))


class _TextOptions(TypedDict):
    encoding: str
    errors: str
    line_buffering: bool


def _text_options(stream: TextIO | None) -> _TextOptions:
    encoding = stream.encoding if stream else "utf-8"
    return {"encoding": encoding, "errors": "backslashreplace", "line_buffering": True}


def printable(text: str) -> str:
    """The text with control characters and those of writing direction as Python's escape sequences."""
    return text.translate(_ESCAPES)


def write_at_once(descriptor: int, text: str) -> None:
    """Writes a short text without blocking or failing; safe in a signal handler."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poll.poll(0):
            os.write(descriptor, text.encode(errors="backslashreplace"))


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class _Waiting(io.FileIO):
    """Blocks while the stream is full, even if another program has made it non-blocking."""

    def write(self, data: Any) -> int:
        while (written := super().write(data)) is None:
            select.select((), (self,), ())
        return written


class _LogLines(_Waiting):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Results(_Waiting):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _redirect_to_null(self.fileno())  # the buffer is written again when the program ends
            if isinstance(error, BrokenPipeError):  # The reader, such as `head`, has enough.
                raise SystemExit(128 + signal.SIGPIPE) from None
            raise StorageError(
                f"Standard output must accept the result, but it cannot be written ({error.strerror}); "
                f"redirect it to a terminal, a pipe or a file that can be written."
            ) from error


class _Printable(io.TextIOWrapper):
    def write(self, text: str) -> int:
        return super().write(printable(text))
