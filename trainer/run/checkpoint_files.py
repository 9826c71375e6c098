"""Checkpoints on disk: their names, whether they verify, and which one a start restores. Changes nothing.

A checkpoint is valid if its files verify: every tensor is read back, and TensorFlow compares it with its CRC.
TensorFlow's own state file `checkpoint` is never read, and is rewritten from the files at each start.

    checkpoints/ckpt-<step>.index, .data-*   periodic, the newest few
    best/ckpt-<step>.index, .data-*          the best; it holds the whole state as well
    quarantine/                              checkpoints that did not verify, kept for the user
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from trainer import files, machine
from trainer.errors import StorageError

PERIODIC, BEST, QUARANTINE = "checkpoints", "best", "quarantine"
VARIABLE_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # ends the name of each variable in a checkpoint
READ_ERRORS = (tf.errors.OpError, IndexError, ValueError, OSError)  # what reading a damaged checkpoint raises

_NAME = "ckpt-[0-9]{1,18}"
_OVERHEAD = 2**26  # bytes; more than the strings and the index of a state take


class Damage(NamedTuple):
    """A checkpoint that does not verify, and why."""

    prefix: pathlib.Path
    why: str


class Found(NamedTuple):
    """What a start finds.

    Attributes:
      newest: the newest checkpoint that verifies; None when there is none.
      damaged: the newer ones that do not verify.
    """

    newest: pathlib.Path | None
    damaged: tuple[Damage, ...]


def is_name(name: str) -> bool:
    """Whether this is the name of a checkpoint, `ckpt-<step>`."""
    return re.fullmatch(_NAME, name) is not None


def step_of(prefix: pathlib.Path) -> int:
    """The training step of a checkpoint."""
    return int(prefix.name.removeprefix("ckpt-"))


def index_of(prefix: pathlib.Path) -> pathlib.Path:
    """The index file of a checkpoint, whether or not it exists."""
    return prefix.with_name(f"{prefix.name}.index")


def files_of(prefix: pathlib.Path) -> list[pathlib.Path]:
    """The files of a checkpoint: first its index, whether or not it exists, then its data files."""
    data = [path for path in files.entries(prefix.parent) if path.name.startswith(f"{prefix.name}.data-")]
    return [index_of(prefix), *data]


def size(prefix: pathlib.Path) -> int:
    """The bytes of a checkpoint's files."""
    return sum(path.lstat().st_size for path in files_of(prefix) if is_present(path))


def is_present(path: pathlib.Path) -> bool:
    """Whether there is anything with this name, even a broken link."""
    return path.is_symlink() or path.exists()


def exists(prefix: pathlib.Path) -> bool:
    """Whether there is a checkpoint of this name, damaged or not."""
    return is_name(prefix.name) and index_of(prefix).exists()


def prefixes(directory: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints of a directory, oldest first, by their index files.

    Raises:
      StorageError: when the directory is there and can't be read.
    """
    indexed = [path.with_suffix("") for path in files.entries(directory) if path.suffix == ".index"]
    return sorted((prefix for prefix in indexed if is_name(prefix.name)), key=step_of)


def listed(run: pathlib.Path) -> list[pathlib.Path]:
    """All checkpoints of a run, including those whose index is missing."""
    directories = (run / PERIODIC, run / BEST)
    return [
        prefix
        for directory in directories
        for prefix in sorted({*_missing_index(directory), *prefixes(directory)}, key=step_of)
    ]


def newest_best(run: pathlib.Path) -> pathlib.Path | None:
    """The newest checkpoint in `best/`, by its name; None when there is none."""
    return max(prefixes(run / BEST), key=step_of, default=None)


def find(run: pathlib.Path) -> Found:
    """Finds the newest checkpoint of a run that verifies, in `checkpoints/` and `best/` together.

    Raises:
      StorageError: when there are checkpoints of trained steps and none verifies, or when one can't be read.
    """
    directories = (run / PERIODIC, run / BEST)
    damaged = [
        Damage(prefix, damage(prefix) or "")
        for directory in directories
        for prefix in _missing_index(directory)
    ]
    candidates = [prefix for directory in directories for prefix in prefixes(directory)]
    for prefix in sorted(candidates, key=step_of, reverse=True):
        why = damage(prefix)
        if why is None:
            return Found(prefix, tuple(damaged))
        if not is_killed_save(prefix):
            damaged.append(Damage(prefix, why))
    if any(step_of(prefix) for prefix, _ in damaged):
        prefix, why = max(damaged, key=lambda found: step_of(found.prefix))
        raise StorageError(
            f"{run} holds checkpoints, but none can be read ({prefix}: {why}); "
            f"restore one from a copy, or delete the directory to start over."
        )
    return Found(None, tuple(damaged))


def _missing_index(directory: pathlib.Path) -> list[pathlib.Path]:
    # The checkpoints whose index was lost. A kill can also leave data without an index, in two harmless
    # cases: during a save, which also leaves the folder of that save; and while an old checkpoint was
    # removed, index first, after a newer one had been saved.
    newest = max(map(step_of, prefixes(directory)), default=-1)
    lost = {data.with_suffix("") for data in without_index(directory)}
    return [prefix for prefix in sorted(lost) if step_of(prefix) > newest and not is_killed_save(prefix)]


def without_index(directory: pathlib.Path) -> list[pathlib.Path]:
    """The data files of checkpoints that have no index file."""
    names = {path.name: path for path in files.entries(directory)}
    data = [path for path in names.values() if path.suffix.startswith(".data-") and is_name(path.stem)]
    return [path for path in data if f"{path.stem}.index" not in names]


def is_killed_save(prefix: pathlib.Path) -> bool:
    """Whether a kill ended the save of this checkpoint: the folder of the save is still there."""
    folder = temporary_of(prefix)
    return folder.is_dir() and not folder.is_symlink()


def temporary_of(prefix: pathlib.Path) -> pathlib.Path:
    """The folder in which TensorFlow assembles a checkpoint that it saves."""
    return prefix.with_name(f"{prefix.name}_temp")


def damage(prefix: pathlib.Path) -> str | None:
    """Reads back every tensor of a checkpoint; returns what is wrong with it, or None.

    Raises:
      StorageError: when it can't be read, which is not damage: missing permission, or a failing disk.
    """
    why = None
    for _ in range(2):  # The first error may be transient; it is damage only if it recurs.
        try:
            why = _malformation(prefix)
            if why is None:
                _read_tensors(prefix)
        except READ_ERRORS as error:
            why = reason(error, prefix)
            if isinstance(error, tf.errors.DataLossError):
                break
            _read_through(prefix)
        else:
            break
    return why


def _malformation(prefix: pathlib.Path) -> str | None:
    # Checked before TensorFlow opens a file, because it would block on a pipe and follow links.
    for path in files_of(prefix):
        try:
            status = path.lstat()
        except FileNotFoundError:
            return "its index file is missing" if path == index_of(prefix) else f"{path.name} is missing"
        if not files.is_regular(path):
            return f"{path.name} is not a regular file"
        if path == index_of(prefix) and status.st_size > _OVERHEAD:
            return f"its index file is too large: {status.st_size} bytes"
    return None


def _read_tensors(prefix: pathlib.Path) -> None:
    # Raises one of READ_ERRORS when a checkpoint is not complete.
    data_bytes = sum(path.stat().st_size for path in files_of(prefix)[1:])
    with open_reader(prefix) as reader:
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        sizes = [
            tf.TensorShape(shape).num_elements() * dtypes[name].size
            for name, shape in shapes.items()
            if dtypes[name] != tf.string
        ]
        if not sum(sizes) <= data_bytes <= sum(sizes) + _OVERHEAD:
            raise ValueError(f"its data files have {data_bytes} bytes, but its index describes {sum(sizes)}")
        for name in shapes:
            reader.get_tensor(name)
        name = f"step{VARIABLE_VALUE}"
        step = reader.get_tensor(name) if name in shapes else step_of(prefix)
    if step != step_of(prefix):
        raise ValueError(f"it holds step {step}")


def _read_through(prefix: pathlib.Path) -> None:
    # Raises StorageError when a file can't be read, whatever it holds.
    for path in files_of(prefix):
        try:
            with os.fdopen(files.open_regular(path), "rb") as file:
                while file.read(2**20):
                    pass
        except FileNotFoundError:
            continue
        except OSError as error:
            raise files.not_readable(path, files.reason(error)) from error


@contextlib.contextmanager
def open_reader(prefix: pathlib.Path) -> Iterator[tf.compat.v1.train.NewCheckpointReader]:
    """TensorFlow's reader of a checkpoint's tensors; raises one of `READ_ERRORS` when it can't be read."""
    if why := _malformation(prefix):
        raise ValueError(why)
    with files.plain_name(prefix) as name:
        yield tf.train.load_checkpoint(name)


def reason(error: Exception, prefix: pathlib.Path) -> str:
    """The first line of a TensorFlow error, with the directory of the checkpoint as the user named it."""
    return machine.replace_descriptor_names(first_line(error), str(prefix.parent))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__
