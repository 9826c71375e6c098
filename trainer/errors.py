"""The errors that end the program with one sentence and no traceback, each with its exit code.

Exit code 1 is reserved for bugs: any other exception shows its traceback.
"""


class TrainerError(Exception):
    """An error that the user can act on.

    Its message is one sentence: what was required, what was given, what to do.
    """

    exit_code: int


class InputError(TrainerError):
    """A flag, a file, a corpus or a run directory is invalid, or the run is locked."""

    exit_code = 2


class StorageError(TrainerError):
    """A file could not be written or read; everything committed before is kept."""

    exit_code = 3


class NonFiniteError(TrainerError):
    """The training loss or a gradient became NaN or infinite."""

    exit_code = 4


class PeerLostError(TrainerError):
    """Another worker of this training is gone."""

    exit_code = 5


class InterruptedBySignalError(TrainerError):
    """A signal ended the run; `signum` is its number."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum
