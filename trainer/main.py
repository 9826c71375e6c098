"""The front door: reads the flags, holds the run directory, and hands over; all of it before TensorFlow is imported.

python -m trainer.main --flagfile=trainer/configs/quickstart.flags
"""

import contextlib
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from trainer import InputError, InterruptedBySignalError, PeerLostError, TrainerError, config
from trainer.run import workdir
from trainer.run.cluster import read_cluster


class Signals:
    """What SIGINT and SIGTERM ask for.

    Before the first step there is nothing to save: the process ends at once, and so does it at a second signal; being killed is safe at any
    time. In training the first signal is noted, and the loop honours it between two steps or two batches of an evaluation.
    """

    def __init__(self, hint: str = "") -> None:
        self._hint = hint
        self._stderr = os.dup(sys.stderr.fileno())  # standard error is turned away while TensorFlow is imported
        self.wait_for_a_save = False
        self._received: int | None = None
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame) -> None:
        del frame
        if self._received or not self.wait_for_a_save:
            os.write(self._stderr, f"Ended by {signal.Signals(signum).name}{self._hint}.\n".encode())
            os._exit(128 + signum)
        self._received = signum

    @property
    def received(self) -> bool:
        """Whether a signal waits to be honoured."""
        return self._received is not None

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
        line, colour = f"{prefix}{record.getMessage()}", self._colour(record)
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

    TensorFlow's libraries write while they load, before they heed a log level; TF_CPP_MIN_LOG_LEVEL=0 shows all of it.
    """
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
def _enough_memory() -> Iterator[None]:
    """Within it too little memory for a tensor or an array is the user's to mend."""
    try:
        yield
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


def main(argv: Sequence[str]) -> int:
    """Runs the program; returns its exit code."""
    logging.basicConfig(handlers=[_Lines()])
    try:
        given = config.parse(argv)
        if given is None:
            sys.stdout.write(config.help_text())
            return 0
        config.check(given, is_run=workdir.is_run(pathlib.Path(given.get("workdir", ""))))
        mode = given.get("mode", config.FIELDS["mode"].default)
        is_writer = mode == "train" and read_cluster(given.get("strategy")).is_chief
        signals = Signals("; the same command goes on" if mode == "train" else "")
        with _enough_memory(), workdir.hold(pathlib.Path(given["workdir"])) if is_writer else contextlib.nullcontext():
            program(mode)(given, signals=signals)
    except TrainerError as error:
        logging.getLogger("absl").error("%s", error)
        if isinstance(error, PeerLostError):
            os._exit(error.exit_code)  # What TensorFlow does at an end would wait for the worker that is gone.
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
