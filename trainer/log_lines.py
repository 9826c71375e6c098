"""Log records as lines on standard error."""

import logging
import os
import pathlib
import sys

from tqdm import tqdm

from trainer import streams

_RED, _GREEN, _YELLOW = 31, 32, 33  # ANSI colour codes
_PACKAGE = pathlib.Path(__file__).parent


class LogLines(logging.Handler):
    """Prints records without breaking a progress bar, coloured on a terminal; from libraries only warnings.

    A record with `is_good=True` is green.
    """

    def __init__(self) -> None:
        super().__init__()
        no_colours = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._has_colours = sys.stderr.isatty() and not no_colours

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record."""
        is_ours = pathlib.Path(record.pathname).is_relative_to(_PACKAGE)
        if record.levelno < logging.WARNING and not is_ours:
            return
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        line = streams.printable(f"{prefix}{record.getMessage()}")
        if colour := self._colour(record):
            line = f"\x1b[{colour}m{line}\x1b[0m"
        # A single write: a signal may end the process between two.
        tqdm.write(f"{line}\n", file=sys.stderr, end="")

    def _colour(self, record: logging.LogRecord) -> int | None:
        if not self._has_colours:
            return None
        if record.levelno >= logging.WARNING:
            return _RED if record.levelno >= logging.ERROR else _YELLOW
        return _GREEN if getattr(record, "is_good", False) else None
