"""The cleanup at a start: moves damaged checkpoints to quarantine/, removes leftovers of killed saves."""

import contextlib
import itertools
import pathlib

from absl import logging

from trainer import files
from trainer.run.checkpoint_files import (
    BEST,
    PERIODIC,
    QUARANTINE,
    Found,
    damage,
    files_of,
    is_name,
    is_present,
    step_of,
    temporary_of,
    without_index,
)
from trainer.words import plural


def tidy(run: pathlib.Path, found: Found) -> None:
    """Moves damaged checkpoints to quarantine/, with a warning each; removes the leftovers of killed saves.

    In a folder that is a link, nothing is moved or removed.
    """
    restored = step_of(found.newest) if found.newest else 0
    for prefix, why in found.damaged:
        outcome = quarantine(run, prefix)
        lost = max(0, step_of(prefix) - restored)
        logging.warning("%s is damaged (%s): %s; recomputing %s.", prefix, why, outcome, plural(lost, "step"))
    for directory in (run / PERIODIC, run / BEST):
        if not directory.is_symlink():
            _remove_leftovers(directory)


def _remove_leftovers(directory: pathlib.Path) -> None:
    for path in files.entries(directory):
        is_state_file = path.name.startswith("checkpoint.tmp")
        is_own_temporary = path.name.startswith(".") and path.name.endswith(".tmp")
        if is_state_file or is_own_temporary:
            remove_file(path)
        elif path.name.endswith("_temp") and is_name(path.name.removesuffix("_temp")):
            remove_partial_save(path.with_name(path.name.removesuffix("_temp")))
    for data in without_index(directory):
        remove_file(data)


def remove_partial_save(prefix: pathlib.Path) -> None:
    """Removes what a killed or failed save has left; a checkpoint that it completed is kept."""
    if damage(prefix) is not None:
        remove_checkpoint(prefix)
    folder = temporary_of(prefix)
    if not folder.is_dir() or folder.is_symlink():
        files.remove(folder)  # removes a link, not its target
        return
    for part in files.entries(folder):
        if part.name.startswith("part-"):
            remove_file(part)
    with contextlib.suppress(OSError):  # The folder is kept if it holds foreign files.
        folder.rmdir()
        files.fsync(folder.parent)


def remove_checkpoint(prefix: pathlib.Path) -> None:
    """Removes the files of a checkpoint, its index first."""
    for path in files_of(prefix):
        remove_file(path)


def remove_file(path: pathlib.Path) -> None:
    """Removes a file or a link; keeps a folder, because no save leaves one."""
    if path.is_symlink() or not path.is_dir():
        files.remove(path)


def quarantine(run: pathlib.Path, prefix: pathlib.Path) -> str:
    """Moves a checkpoint to quarantine/, unless its directory is a link; returns what it did, in words."""
    if prefix.parent.is_symlink():
        return "left in place, in a linked directory"
    # The index first: if a kill leaves data behind, it has no index, and the next start moves it.
    paths = [path for path in files_of(prefix) if is_present(path)]
    targets = (run / QUARANTINE / (prefix.parent.name + f"-{n}" * (n > 1)) for n in itertools.count(1))
    target = next(target for target in targets if not any(is_present(target / path.name) for path in paths))
    files.make_directory(target)
    with files.storage_errors(target):
        for path in paths:
            path.replace(target / path.name)
        for directory in (prefix.parent, target):
            files.fsync(directory)
    return "moved to quarantine/"


def quarantined(run: pathlib.Path) -> list[pathlib.Path]:
    """The index files in quarantine/."""
    folders = [path for path in files.entries(run / QUARANTINE) if path.is_dir()]
    return [path for folder in folders for path in files.entries(folder) if path.suffix == ".index"]
