"""Signals as requests: to stop the training at the next safe point, or to save now and continue."""

import os
import signal
import time
from types import FrameType
from typing import Protocol

from trainer import streams
from trainer.errors import InterruptedBySignalError

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGXCPU)
# A second signal within this time is the same request: a terminal and a shell may both send one.
_REPEAT_SECS = 1.0


class StopRequests(Protocol):
    """What the training loop needs to know of signals.

    Attributes:
      defer_to_loop: whether there is something to save before the program stops.
    """

    defer_to_loop: bool

    @property
    def received(self) -> bool:
        """Whether a request to stop is pending."""

    def take_save_request(self) -> bool:
        """Whether a save was requested since the last call."""

    def stopped(self, message: str) -> InterruptedBySignalError:
        """The error that ends the program for the signal received."""


class Signals:
    """Turns signals into requests; a `StopRequests`.

    SIGINT, SIGTERM, SIGHUP, SIGUSR2 and SIGXCPU stop the program. Before the first step, and in every mode
    but training, there is nothing to save, and the program stops at once. In training the first signal is
    recorded, and the loop honours it between two steps or two batches of an evaluation; another one stops the
    program at once only if it comes more than a second later, or if the save is done. SIGUSR1 requests a save
    alone. SIGHUP stays ignored if it was ignored at the start, as `nohup` has it.

    After `with signals` all of them are ignored until the process exits.

    Attributes:
      hint: what to print after the signal's name when the program stops without a save.
      defer_to_loop: whether there is something to save before the program stops.
    """

    def __init__(self) -> None:
        self.hint = ""
        self.defer_to_loop = False
        self._stderr = os.dup(2)  # standard error is redirected while TensorFlow is imported
        self._received: int | None = None
        self._received_at = 0.0
        self._save_requested = False
        for signum in _STOPPING:
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._receive)
        signal.signal(signal.SIGUSR1, self._request_save)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if self._stops_at_once(signum):
            streams.write_at_once(self._stderr, f"Ended by {signal.Signals(signum).name}{self.hint}.\n")
            os._exit(128 + signum)
        if self._received is None:
            self._received, self._received_at = signum, time.monotonic()

    def _stops_at_once(self, signum: int) -> bool:
        if self._received is None or not self.defer_to_loop:
            return not self.defer_to_loop
        # The kernel repeats SIGXCPU every second.
        return signum != signal.SIGXCPU and time.monotonic() - self._received_at >= _REPEAT_SECS

    def _request_save(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self._save_requested = True

    @property
    def received(self) -> bool:
        """Whether a request to stop is pending."""
        return self._received is not None

    def take_save_request(self) -> bool:
        """Whether a save was requested since the last call."""
        if not self._save_requested:
            return False
        self._save_requested = False
        return True

    def __enter__(self) -> "Signals":
        return self

    def __exit__(self, *error: object) -> None:
        # The work is done, and its exit code is decided. While Python shuts down it has no handlers, so a
        # signal would kill the process.
        for signum in (*_STOPPING, signal.SIGUSR1):
            signal.signal(signum, signal.SIG_IGN)

    def stopped(self, message: str) -> InterruptedBySignalError:
        """The error that ends the program for the signal received, by this process or by another worker."""
        if self._received is None:
            return InterruptedBySignalError(signal.SIGTERM, f"Ended by a signal to another worker: {message}")
        return InterruptedBySignalError(
            self._received, f"Ended by {signal.Signals(self._received).name}: {message}"
        )
