"""Entry point: parses the flags, locks the run directory and starts the mode, before TensorFlow is imported.

python -m trainer.main --flagfile=trainer/configs/quickstart.flags
"""

import contextlib
import importlib
import logging
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

from trainer import config, flags, streams
from trainer.config import Settings
from trainer.errors import InputError, PeerLostError, StorageError, TrainerError
from trainer.log_lines import LogLines
from trainer.run import workdir
from trainer.run.cluster import Cluster, read_cluster
from trainer.settings import check_given
from trainer.signals import Signals
from trainer.tensorflow_setup import importing_tensorflow

MODES = {
    "train": "trainer.train",
    "evaluate": "trainer.evaluate",
    "predict": "trainer.predict",
    "export": "trainer.export",
    "inspect": "trainer.inspect_run",
}


@contextlib.contextmanager
def _machine_errors() -> Iterator[None]:
    """Turns too little memory, and an unexpected disk failure, into an error that the user can act on."""
    try:
        yield
    except OSError as error:
        place = error.filename or "A file"
        raise StorageError(
            f"{place} could not be read or written ({error.strerror}); "
            f"what was committed stays, and the same command continues."
        ) from error
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        exhausted = tensorflow and isinstance(error, tensorflow.errors.ResourceExhaustedError)
        if isinstance(error, MemoryError) or exhausted:
            raise InputError(
                "The memory must hold a training step, but it does not; "
                "try a smaller --batch_size, --max_length or model."
            ) from error
        raise


def start(mode: str, given: Settings, signals: Signals) -> None:
    """Imports and runs one mode; not earlier, because importing TensorFlow takes seconds."""
    with importing_tensorflow():
        module = importlib.import_module(MODES[mode])
    if mode == "train":
        module.run(given, stop_requests=signals)
    else:
        module.run(given)


def cluster_of(given: Settings) -> Cluster:
    """The workers of this training. The strategy stored with a run is not known yet."""
    connect_secs = given.get("connect_secs", config.FIELDS["connect_secs"].default)
    return read_cluster(given.get("strategy"), connect_secs=connect_secs)


def main(argv: Sequence[str]) -> int:
    """Runs the program; returns its exit code. Raises SystemExit when the reader of its output is gone."""
    streams.guard()
    logging.basicConfig(handlers=[LogLines()])
    signals = Signals()
    try:
        given = flags.parse(argv)
        if given is None:
            sys.stdout.write(flags.help_text())
            return 0
        directory, mode = pathlib.Path(given.get("workdir", "")), given.get("mode", "train")
        check_given(given, is_run=workdir.is_run(directory))
        signals.hint = "; the same command continues" if mode == "train" else ""
        is_writer = mode == "train" and cluster_of(given).is_chief
        with signals, _machine_errors(), workdir.hold(directory) if is_writer else contextlib.nullcontext():
            start(mode, given, signals)
    except TrainerError as error:
        logging.getLogger("absl").error("%s", error)
        if isinstance(error, PeerLostError):
            os._exit(error.exit_code)  # TensorFlow's own cleanup would wait for the worker that is gone.
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
