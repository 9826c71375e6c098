"""The front door: reads the flags, holds the run directory, and hands over; all of it before TensorFlow is imported.

python -m trainer.main --flagfile=trainer/configs/quickstart.flags
"""

import contextlib
import logging
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from trainer import InputError, InterruptedBySignalError, PeerLostError, StorageError, TrainerError, config, streams
from trainer.run import workdir
from trainer.run.cluster import Cluster, read_cluster

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGXCPU)
_REPEAT_SECS = 1.0  # within which a second signal is no new wish: a terminal and a shell may both send one


class Signals:
    """What signals ask for.

    SIGINT, SIGTERM, SIGHUP, SIGUSR2 and SIGXCPU end the program. Before the first step, and in all modes but
    training, there is nothing to save: it ends at once. In training the first of them is noted, and the loop
    honours it between two steps or two batches of an evaluation; another one ends the program at once only when
    it comes more than a second later, or when the save is done. SIGUSR1 asks for a save alone. SIGHUP stays
    ignored where it was at the start, as `nohup` has it.

    Within `with signals`, they are heeded; behind it they are ignored, until the process is gone.

    Attributes:
      hint: what is said behind the signal's name at an end without a save.
      wait_for_a_save: whether there is something to save before the end.
    """

    def __init__(self) -> None:
        self.hint = ""
        self.wait_for_a_save = False
        self._stderr = os.dup(2)  # standard error is turned away while TensorFlow is imported
        self._received: int | None = None
        self._received_at = 0.0
        self._save_requested = False
        for signum in _ENDING:
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._receive)
        signal.signal(signal.SIGUSR1, self._request_save)

    def _receive(self, signum: int, frame) -> None:
        del frame
        if self._ends_at_once(signum):
            streams.say_at_once(self._stderr, f"Ended by {signal.Signals(signum).name}{self.hint}.\n")
            os._exit(128 + signum)
        if self._received is None:
            self._received, self._received_at = signum, time.monotonic()

    def _ends_at_once(self, signum: int) -> bool:
        if self._received is None or not self.wait_for_a_save:
            return not self.wait_for_a_save
        # The kernel repeats SIGXCPU each second.
        return signum != signal.SIGXCPU and time.monotonic() - self._received_at >= _REPEAT_SECS

    def _request_save(self, signum: int, frame) -> None:
        del signum, frame
        self._save_requested = True

    @property
    def received(self) -> bool:
        """Whether a signal to end waits to be honoured."""
        return self._received is not None

    def take_save_request(self) -> bool:
        """Whether a save was asked for since the last call."""
        if not self._save_requested:
            return False
        self._save_requested = False  # What is asked from here on is asked anew.
        return True

    def __enter__(self) -> "Signals":
        return self

    def __exit__(self, *why: object) -> None:
        # The work is done, and its exit code stands. While Python ends, it has no handlers: any signal would be a death.
        for signum in (*_ENDING, signal.SIGUSR1):
            signal.signal(signum, signal.SIG_IGN)

    def end(self, message: str) -> InterruptedBySignalError:
        """The error that ends the program for the signal received, by this process or by another worker."""
        if self._received is None:
            return InterruptedBySignalError(signal.SIGTERM, f"Ended by a signal to another worker: {message}")
        return InterruptedBySignalError(self._received, f"Ended by {signal.Signals(self._received).name}: {message}")


_RED, _GREEN, _YELLOW = 31, 32, 33  # as terminals number them


class _Lines(logging.Handler):
    """Lines on standard error that do not tear a progress bar, coloured on a terminal; of the libraries, warnings only."""

    def __init__(self) -> None:
        super().__init__()
        self._has_colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and not pathlib.Path(record.pathname).is_relative_to(pathlib.Path(__file__).parent):
            return
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        line, colour = streams.printable(f"{prefix}{record.getMessage()}"), self._colour(record)
        if colour:
            line = f"\x1b[{colour}m{line}\x1b[0m"
        tqdm.write(f"{line}\n", file=sys.stderr, end="")  # In one write: a signal may end the process after any.

    def _colour(self, record: logging.LogRecord) -> int | None:
        if not self._has_colours:
            return None
        if record.levelno >= logging.WARNING:
            return _RED if record.levelno >= logging.ERROR else _YELLOW
        return _GREEN if getattr(record, "is_good", False) else None


@contextlib.contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Within it TensorFlow is imported: sets what it reads then and what decides bits, where the user has not set it, and keeps it quiet.

    Keras' settings are the program's own, whatever the environment and the user's keras.json say, and none
    are written. TensorFlow's libraries write while they load, before they heed a log level;
    TF_CPP_MIN_LOG_LEVEL=0 shows all of it.
    """
    for name in [name for name in os.environ if name.startswith("KERAS_")]:
        del os.environ[name]
    # The null device is no folder: no keras.json is below it, and none can be made.
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    kept = os.dup(2)
    with pathlib.Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _machine_errors() -> Iterator[None]:
    """Within it too little memory, and a disk that fails wherever that was not expected, are the user's to mend."""
    try:
        yield
    except OSError as error:
        place = error.filename or "A file"
        raise StorageError(
            f"{place} could not be read or written ({error.strerror}); what was committed stays, the same command goes on."
        ) from error
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        if isinstance(error, MemoryError) or (tensorflow and isinstance(error, tensorflow.errors.ResourceExhaustedError)):
            raise InputError("The memory must hold a step, but it does not; try a smaller --batch_size, --max_length or model.") from error
        raise


def program(mode: str) -> Callable:
    """What --mode names; imported only now, because importing TensorFlow takes seconds."""
    with importing_tensorflow():
        match mode:
            case "train":
                from trainer.train import run
            case "evaluate":
                from trainer.evaluate import run
            case "predict":
                from trainer.predict import run
            case "export":
                from trainer.export import run
            case "inspect":
                from trainer.inspect_run import run
    return run


def cluster_of(given: Mapping[str, Any]) -> Cluster:
    """The processes that train together; which --strategy a run was begun with is known when its checkpoint is read."""
    connect_secs = given.get("connect_secs", config.FIELDS["connect_secs"].default)
    return read_cluster(given.get("strategy"), connect_secs=connect_secs)


def main(argv: Sequence[str]) -> int:
    """Runs the program; returns its exit code, or raises SystemExit when nobody reads its answer any more."""
    streams.guard()
    logging.basicConfig(handlers=[_Lines()])
    signals = Signals()
    try:
        given = config.parse(argv)
        if given is None:
            sys.stdout.write(config.help_text())
            return 0
        directory, mode = pathlib.Path(given.get("workdir", "")), given.get("mode", "train")
        config.check(given, is_run=workdir.is_run(directory))
        signals.hint = "; the same command goes on" if mode == "train" else ""
        is_writer = mode == "train" and cluster_of(given).is_chief
        with signals, _machine_errors(), workdir.hold(directory) if is_writer else contextlib.nullcontext():
            program(mode)(given, signals=signals)
    except TrainerError as error:
        logging.getLogger("absl").error("%s", error)
        if isinstance(error, PeerLostError):
            os._exit(error.exit_code)  # What TensorFlow does at an end would wait for the worker that is gone.
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
