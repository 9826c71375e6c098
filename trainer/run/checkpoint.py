"""Checkpoints: save, verify, restore, fall back, keep. The only user of tf.train.Checkpoint and tf.train.CheckpointManager.

The truth is the files that verify: each tensor is read back, and TensorFlow compares it with its CRC. TensorFlow's own state file
`checkpoint` is a convenience, written anew from the files at each start.

    checkpoints/ckpt-<step>.index, .data-*   periodic, the newest few
    best/ckpt-<step>.index, .data-*          the best, the whole state as well
    quarantine/                              what did not verify, kept for the user
"""

import itertools
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from trainer import InputError, StorageError
from trainer.run import workdir
from trainer.run.state import TrainState

PERIODIC, BEST, QUARANTINE = "checkpoints", "best", "quarantine"
RETRY_SECS = (1, 2, 5, 10)  # a save that fails is tried again after each of these
_READ_ERRORS = (tf.errors.OpError, IndexError, ValueError, OSError)


class Damage(NamedTuple):
    """A checkpoint that does not verify, and why."""

    prefix: pathlib.Path
    why: str


class Found(NamedTuple):
    """What a start finds: the newest checkpoint that verifies, None where there is none, and the newer ones that do not."""

    newest: pathlib.Path | None
    damaged: tuple[Damage, ...]


def step_of(prefix: pathlib.Path) -> int:
    """The training step of a checkpoint."""
    return int(prefix.name.removeprefix("ckpt-"))


def prefixes(directory: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints of a directory, oldest first, by their index files; a save that was killed does not count."""
    found = [path.with_suffix("") for path in directory.glob("ckpt-*.index") if re.fullmatch(r"ckpt-\d+", path.stem)]
    return sorted(found, key=step_of)


def damage(prefix: pathlib.Path) -> str | None:
    """Reads back every tensor of a checkpoint; what is wrong with it, or None."""
    try:
        if not _index(prefix).exists():
            return "its index file is missing"
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except _READ_ERRORS as error:
        return _reason(error)
    return None


def listed(run: pathlib.Path) -> list[pathlib.Path]:
    """All checkpoints of a run, also those that have lost their index."""
    folders = (run / PERIODIC, run / BEST)
    return [prefix for folder in folders for prefix in sorted({*_headless(folder), *prefixes(folder)}, key=step_of)]


def find(run: pathlib.Path) -> Found:
    """The newest checkpoint of a run that verifies, in `checkpoints/` and `best/` together; reads only.

    Raises:
      StorageError: when there are checkpoints of trained steps and none of them verifies.
    """
    folders = (run / PERIODIC, run / BEST)
    damaged = [Damage(prefix, damage(prefix)) for folder in folders for prefix in _headless(folder)]
    candidates = [prefix for folder in folders for prefix in prefixes(folder)]
    for prefix in sorted(candidates, key=step_of, reverse=True):
        why = damage(prefix)
        if why is None:
            return Found(prefix, tuple(damaged))
        if not _is_killed_save(prefix):
            damaged.append(Damage(prefix, why))
    if any(step_of(prefix) for prefix, _ in damaged):
        prefix, why = max(damaged, key=lambda wound: step_of(wound.prefix))
        raise StorageError(
            f"{run} holds checkpoints, but none can be read ({prefix}: {why}); "
            f"restore one from a copy, or delete the directory to start over."
        )
    return Found(None, tuple(damaged))


def exists(prefix: pathlib.Path) -> bool:
    """Whether there is a checkpoint of this name, whole or not."""
    return re.fullmatch(r"ckpt-\d+", prefix.name) is not None and _index(prefix).exists()


def newest_best(run: pathlib.Path) -> pathlib.Path | None:
    """The best checkpoint by the files that are there; None where there is none."""
    return max(prefixes(run / BEST), key=step_of, default=None)


def restore_parts(prefix: pathlib.Path, **parts) -> None:
    """Reads some attributes of a saved state, as model=..., and nothing else; raises InputError when they do not fit the checkpoint."""
    try:
        status = tf.train.Checkpoint(root=tf.train.Checkpoint(**parts)).read(str(prefix))
        status.assert_existing_objects_matched().expect_partial()
    except (AssertionError, *_READ_ERRORS) as error:
        raise InputError(f"{prefix} must fit the model of this program, but does not: {_reason(error)}.") from error


def read_text(prefix: pathlib.Path, name: str) -> str:
    """A string of the saved state, read without building a model; raises InputError when the checkpoint is not one of this program."""
    try:
        return tf.train.load_checkpoint(str(prefix)).get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE").decode()
    except _READ_ERRORS as error:
        raise InputError(f"{prefix} must be a checkpoint of this program, but it has no {name!r}; name another --workdir.") from error


def read_values(prefix: pathlib.Path) -> dict[str, Any]:
    """The scalars of the saved state by name, read without building a model; raises InputError when they cannot be read."""
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = [name for name, shape in reader.get_variable_to_shape_map().items() if not shape and name.endswith(suffix)]
        return {name.removesuffix(suffix): reader.get_tensor(name) for name in names}
    except _READ_ERRORS as error:
        raise InputError(f"{prefix} must be a checkpoint of this program, but cannot be read: {_reason(error)}.") from error


def size(prefix: pathlib.Path) -> int:
    """The bytes of a checkpoint's files."""
    return sum(path.stat().st_size for path in _files(prefix) if path.exists())


def tidy(run: pathlib.Path, found: Found) -> None:
    """Moves damaged checkpoints to quarantine/, with a warning each, and sweeps what kills in saves and in sweeps left behind."""
    restored = step_of(found.newest) if found.newest else 0
    for prefix, why in found.damaged:
        _quarantine(run, prefix)
        lost = max(0, step_of(prefix) - restored)
        logging.warning("%s is damaged (%s): moved to quarantine/; %d steps are done again.", prefix, why, lost)
    for directory in (run / PERIODIC, run / BEST):
        for path in [*directory.glob("checkpoint.tmp*"), *directory.glob(".*.tmp")]:
            workdir.remove(path)
        for temporary in directory.glob("ckpt-*_temp"):
            prefix = temporary.with_name(temporary.name.removesuffix("_temp"))
            if damage(prefix) is not None:
                _remove_files(prefix)
            workdir.remove(temporary)
        for data in _orphans(directory):
            workdir.remove(data)


def _orphans(directory: pathlib.Path) -> list[pathlib.Path]:
    # Data files without their index.
    return [data for data in sorted(directory.glob("ckpt-*.data-*")) if not _index(data.with_suffix("")).exists()]


def _headless(directory: pathlib.Path) -> list[pathlib.Path]:
    # The checkpoints that have lost their index to something else than a kill, which either leaves the folder of a save as well, or fell
    # into the removal of an old checkpoint, index first, when a newer one was whole.
    newest = max(map(step_of, prefixes(directory)), default=-1)
    lost = {data.with_suffix("") for data in _orphans(directory) if re.fullmatch(r"ckpt-\d+", data.stem)}
    return [prefix for prefix in sorted(lost) if step_of(prefix) > newest and not _is_killed_save(prefix)]


def _is_killed_save(prefix: pathlib.Path) -> bool:
    return prefix.with_name(f"{prefix.name}_temp").is_dir()


def _index(prefix: pathlib.Path) -> pathlib.Path:
    return prefix.with_name(f"{prefix.name}.index")


def _files(prefix: pathlib.Path) -> list[pathlib.Path]:
    return [_index(prefix), *sorted(prefix.parent.glob(f"{prefix.name}.data-*"))]


def _remove_files(prefix: pathlib.Path) -> None:
    for path in _files(prefix):
        workdir.remove(path)


def _quarantine(run: pathlib.Path, prefix: pathlib.Path) -> None:
    # Index first: what is left by a kill in between is headless, and follows at the next start.
    paths = [path for path in _files(prefix) if path.exists()]
    targets = (run / QUARANTINE / (prefix.parent.name + f"-{n}" * (n > 1)) for n in itertools.count(1))
    target = next(target for target in targets if not any((target / path.name).exists() for path in paths))
    workdir.make_directory(target)
    with workdir.storage_errors(target):
        for path in paths:
            path.replace(target / path.name)
        for directory in (prefix.parent, target):
            workdir.fsync(directory)


class Checkpoints:
    """Saves and restores one state in one run directory; make it after `find` and `tidy`. Of several workers one alone is the writer."""

    def __init__(
        self,
        *,
        run: pathlib.Path,
        state: TrainState,
        max_to_keep: int,
        is_hurried: Callable[[], bool] = lambda: False,
        is_writer: bool = True,
    ) -> None:
        self._run = run
        self._max_to_keep = max_to_keep
        self._is_hurried = is_hurried
        self._state = state
        self._checkpoint = tf.train.Checkpoint(root=state)
        self._checkpoint.save_counter.assign(0)
        self._is_writer = is_writer
        kept = {PERIODIC: max_to_keep, BEST: 1} if is_writer else {}
        self._managers = {name: self._manager(name, keep) for name, keep in kept.items()}

    def _manager(self, name: str, max_to_keep: int) -> tf.train.CheckpointManager:
        directory = self._run / name
        workdir.make_directory(directory)
        known = prefixes(directory)
        if known:
            lines = [f'model_checkpoint_path: "{known[-1].name}"']
            lines += [f'all_model_checkpoint_paths: "{prefix.name}"' for prefix in known]
            lines += [f"all_model_checkpoint_timestamps: {_files(prefix)[0].stat().st_mtime}" for prefix in known]
            workdir.write_atomically(directory / "checkpoint", "".join(f"{line}\n" for line in lines).encode())
        else:
            workdir.remove(directory / "checkpoint")
        return tf.train.CheckpointManager(self._checkpoint, str(directory), max_to_keep)

    def save(self) -> None:
        """Commits the state as checkpoints/ckpt-<step>; what is older than the newest few goes when it is durable."""
        self._save(PERIODIC)

    def save_best(self) -> None:
        """Writes the state as best/ckpt-<step>; the previous best goes when it is durable."""
        self._save(BEST)

    def _save(self, name: str) -> None:
        if not self._is_writer:
            return
        prefix = self._run / name / f"ckpt-{int(self._state.step)}"
        for wait in (*RETRY_SECS, None):
            if damage(prefix) is None:
                return
            try:
                self._write(name, prefix)
            except (tf.errors.OpError, OSError) as error:
                failure = workdir.not_written(prefix, _reason(error))
            else:
                return
            _remove_partial(prefix)
            if wait is None or self._is_hurried():
                raise failure
            logging.warning("%s Trying again in %d s.", failure, wait)
            self._pause(wait)

    def _write(self, name: str, prefix: pathlib.Path) -> None:
        began = time.monotonic()
        # A save counts itself; set from the step, it leaves no trace of how often a run was saved.
        self._checkpoint.save_counter.assign(step_of(prefix) - 1)
        options = tf.train.CheckpointOptions(experimental_write_callbacks=[_make_durable])
        self._managers[name].save(checkpoint_number=step_of(prefix), options=options)
        workdir.fsync(prefix.parent / "checkpoint")
        workdir.fsync(prefix.parent)
        logging.debug("Saved %s, %.1f MiB in %.3f s.", prefix, size(prefix) / 2**20, time.monotonic() - began)

    def _pause(self, secs: float) -> None:
        until = time.monotonic() + secs
        while time.monotonic() < until and not self._is_hurried():
            time.sleep(0.1)

    def restore(self, prefix: pathlib.Path) -> None:
        """Reads the state from a checkpoint: each saved value has a home, and each variable of the state got a value.

        Raises:
          InputError: when the checkpoint and the state do not fit.
        """
        try:
            status = self._checkpoint.read(str(prefix))
            status.assert_consumed()
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{prefix} must fit the model of this program, but does not: {reason}; name another --workdir.") from error
        untracked = self.untracked()
        if untracked:
            raise AssertionError(f"not in the checkpoint: {untracked}")

    def untracked(self) -> list[str]:
        """The trainable and optimizer variables that no checkpoint would hold; neither of TensorFlow's asserts notices them."""
        tracked = {id(node) for node in tf.train.TrackableView(self._checkpoint).descendants()}
        variables = [*self._state.model.trainable_variables, *self._state.optimizer.variables]
        return [variable.path for variable in variables if id(variable) not in tracked]

    def best(self) -> pathlib.Path | None:
        """The best checkpoint, as the state names it, whether or not its files are there; None before the first."""
        step = int(self._state.best_step)
        return None if step < 0 else self._run / BEST / f"ckpt-{step}"

    def heal_best(self) -> None:
        """Writes best/ anew from the periodic checkpoint of that step when a kill or damage took it; the state must be the restored one.

        Raises:
          StorageError: when the best checkpoint is gone or damaged and nothing holds a copy.
        """
        best = self.best()
        if best is None or damage(best) is None:
            return
        if _index(best).exists():
            logging.warning("%s is damaged (%s): moved to quarantine/ and written anew.", best, damage(best))
            _quarantine(self._run, best)
        if int(self._state.step) == step_of(best):
            self.save_best()
            return
        copy = self._run / PERIODIC / best.name
        if damage(copy) is not None:
            raise StorageError(f"{best} is damaged or missing and no other checkpoint holds step {step_of(best)}; restore it from a copy.")
        present = self._run / PERIODIC / f"ckpt-{int(self._state.step)}"
        self.restore(copy)
        self.save_best()
        self.restore(present)

    def prune(self) -> None:
        """Removes the old checkpoints that a kill just after a save has left; the state must be the restored one."""
        best = self.best()
        surplus = prefixes(self._run / PERIODIC)[: -self._max_to_keep]
        surplus += [prefix for prefix in prefixes(self._run / BEST) if best and prefix != best]
        for prefix in surplus:
            _remove_files(prefix)


def _remove_partial(prefix: pathlib.Path) -> None:
    # What a failed save has left, unless it failed after the commit.
    with workdir.storage_errors(prefix):
        if damage(prefix) is not None:
            _remove_files(prefix)
        workdir.remove(prefix.with_name(f"{prefix.name}_temp"))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _make_durable(prefix: str) -> None:
    """Runs inside a save when the files are complete, before the state file names them and older checkpoints go."""
    path = pathlib.Path(prefix)
    for file in _files(path):
        workdir.fsync(file)
    workdir.fsync(path.parent)
    why = damage(path)
    if why is not None:
        raise OSError(None, f"it did not read back as written ({why})")
