"""Checkpoints: save, verify, restore, fall back, keep. The only user of tf.train.Checkpoint and tf.train.CheckpointManager.

The truth is the files that verify: each tensor is read back, and TensorFlow compares it with its CRC. TensorFlow's own state file
`checkpoint` is a convenience, written anew from the files at each start.

    checkpoints/ckpt-<step>.index, .data-*   periodic, the newest few
    best/ckpt-<step>.index, .data-*          the best, the whole state as well
    quarantine/                              what did not verify, kept for the user
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
from absl import logging

from trainer import InputError, StorageError, files, machine
from trainer.run.state import TrainState

PERIODIC, BEST, QUARANTINE = "checkpoints", "best", "quarantine"
RETRY_SECS = (1, 2, 5, 10)  # a save that fails is tried again after each of these

_NAME = "ckpt-[0-9]{1,18}"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_LATER = ("free_flags",)  # what the checkpoints of older versions lack
_SLACK = 2**26  # bytes; more than the strings of a state and its index take
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
    """The checkpoints of a directory, oldest first, by their index files; a save that was killed does not count.

    Raises:
      StorageError: when the directory is there and can't be read.
    """
    found = [path.with_suffix("") for path in _entries(directory) if path.suffix == ".index"]
    return sorted((prefix for prefix in found if re.fullmatch(_NAME, prefix.name)), key=step_of)


def _entries(directory: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise files.not_readable(directory, files.reason(error)) from error


def damage(prefix: pathlib.Path) -> str | None:
    """Reads back every tensor of a checkpoint; what is wrong with it, or None.

    Raises:
      StorageError: when it can't be read, which is no damage: a lack of permission, or a disk that fails.
    """
    why = None
    for _ in range(2):  # What went wrong once, and no file is wrong, may have been the disk.
        try:
            why = _malformation(prefix)
            if why is None:
                _read_tensors(prefix)
        except _READ_ERRORS as error:
            why = _reason(error, prefix)
            if isinstance(error, tf.errors.DataLossError):
                break
            _read_through(prefix)
        else:
            break
    return why


def _malformation(prefix: pathlib.Path) -> str | None:
    # What can be told before TensorFlow opens a file: it would wait for the writer of a pipe, and follow a link.
    for path in _files(prefix):
        try:
            status = path.lstat()
        except FileNotFoundError:
            return "its index file is missing" if path == _index(prefix) else f"{path.name} is missing"
        if not files.is_regular(path):
            return f"{path.name} is not a regular file"
        if path == _index(prefix) and status.st_size > _SLACK:
            return f"its index file has {status.st_size} bytes"
    return None


def _read_tensors(prefix: pathlib.Path) -> None:
    # Raises what TensorFlow does, or ValueError, when a checkpoint is not whole.
    data_bytes = sum(path.stat().st_size for path in _files(prefix)[1:])
    with _reading(prefix) as reader:
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        sizes = [tf.TensorShape(shape).num_elements() * dtypes[name].size for name, shape in shapes.items() if dtypes[name] != tf.string]
        if not sum(sizes) <= data_bytes <= sum(sizes) + _SLACK:
            raise ValueError(f"its data has {data_bytes} bytes, and by its index {sum(sizes)}")
        for name in shapes:
            reader.get_tensor(name)
        step = reader.get_tensor(f"step{_VALUE}") if f"step{_VALUE}" in shapes else step_of(prefix)
    if step != step_of(prefix):
        raise ValueError(f"it holds step {step}")


def _read_through(prefix: pathlib.Path) -> None:
    # Raises StorageError when a file can't be read, whatever it holds.
    for path in _files(prefix):
        try:
            with os.fdopen(files.open_regular(path), "rb") as file:
                while file.read(2**20):
                    pass
        except FileNotFoundError:
            continue
        except OSError as error:
            raise files.not_readable(path, files.reason(error)) from error


@contextlib.contextmanager
def _reading(prefix: pathlib.Path) -> Iterator[tf.compat.v1.train.NewCheckpointReader]:
    if why := _malformation(prefix):
        raise ValueError(why)
    with files.plain_name(prefix) as name:
        yield tf.train.load_checkpoint(name)


def listed(run: pathlib.Path) -> list[pathlib.Path]:
    """All checkpoints of a run, also those that have lost their index."""
    folders = (run / PERIODIC, run / BEST)
    return [prefix for folder in folders for prefix in sorted({*_headless(folder), *prefixes(folder)}, key=step_of)]


def find(run: pathlib.Path) -> Found:
    """The newest checkpoint of a run that verifies, in `checkpoints/` and `best/` together; reads only.

    Raises:
      StorageError: when there are checkpoints of trained steps and none of them verifies, or one can't be read.
    """
    folders = (run / PERIODIC, run / BEST)
    damaged = [Damage(prefix, damage(prefix) or "") for folder in folders for prefix in _headless(folder)]
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
    return re.fullmatch(_NAME, prefix.name) is not None and _index(prefix).exists()


def newest_best(run: pathlib.Path) -> pathlib.Path | None:
    """The best checkpoint by the files that are there; None where there is none."""
    return max(prefixes(run / BEST), key=step_of, default=None)


def restore_parts(prefix: pathlib.Path, **parts) -> None:
    """Reads some attributes of a saved state, as model=..., and nothing else; raises InputError when they do not fit the checkpoint."""
    try:
        with files.plain_name(prefix) as name:
            status = tf.train.Checkpoint(root=tf.train.Checkpoint(**parts)).read(name)
            status.assert_existing_objects_matched().expect_partial()
    except Exception as error:  # TensorFlow raises whatever a file of somebody else leads it to.
        raise InputError(f"{prefix} must fit the model of this program, but does not: {_reason(error, prefix)}.") from error


def read_text(prefix: pathlib.Path, name: str, values: Mapping[str, Any] | None = None) -> str:
    """A string of the saved state, read without building a model.

    Args:
      prefix: the checkpoint.
      name: of the string.
      values: what `read_values` gave, where it was read before; a run that trains may have removed it since.

    Raises:
      InputError: when the checkpoint is not one of this program.
    """
    value = (read_values(prefix) if values is None else values).get(name)
    if not isinstance(value, bytes):
        raise InputError(f"{prefix} must be a checkpoint of this program, but it has no {name!r}; name another --workdir.")
    return value.decode(errors="replace")


def read_texts(prefix: pathlib.Path, name: str, values: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The JSON object of texts by name that a string of the saved state holds; arguments and errors as of `read_text`."""
    with contextlib.suppress(ValueError, RecursionError):
        texts = json.loads(read_text(prefix, name, values))
        if isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()):
            return texts
    raise InputError(f"{prefix} must be a checkpoint of this program, but its {name!r} are none; name another --workdir.")


def read_values(prefix: pathlib.Path) -> dict[str, Any]:
    """The scalars of the saved state by name, read without building a model; raises InputError when they can't be."""
    try:
        with _reading(prefix) as reader:
            shapes = reader.get_variable_to_shape_map()
            names = [name for name, shape in shapes.items() if not shape and name.endswith(_VALUE)]
            return {name.removesuffix(_VALUE): reader.get_tensor(name) for name in names}
    except _READ_ERRORS as error:
        raise InputError(f"{prefix} must be a checkpoint of this program, but can't be read: {_reason(error, prefix)}.") from error


def quarantined(run: pathlib.Path) -> list[pathlib.Path]:
    """The index files, and what stands for one, in quarantine/."""
    folders = [path for path in _entries(run / QUARANTINE) if path.is_dir()]
    return [path for folder in folders for path in _entries(folder) if path.suffix == ".index"]


def size(prefix: pathlib.Path) -> int:
    """The bytes of a checkpoint's files."""
    return sum(path.lstat().st_size for path in _files(prefix) if _is_there(path))


def tidy(run: pathlib.Path, found: Found) -> None:
    """Moves damaged checkpoints to quarantine/, with a warning each, and removes what killed saves have left.

    A folder that is the user's link to another place is only written into: nothing there is moved or removed.
    """
    restored = step_of(found.newest) if found.newest else 0
    for prefix, why in found.damaged:
        kept = "left there, behind a link" if prefix.parent.is_symlink() else "moved to quarantine/"
        if not prefix.parent.is_symlink():
            _quarantine(run, prefix)
        lost = max(0, step_of(prefix) - restored)
        logging.warning("%s is damaged (%s): %s; %d steps are done again.", prefix, why, kept, lost)
    for directory in (run / PERIODIC, run / BEST):
        if directory.is_symlink():
            continue
        for path in _entries(directory):
            if path.name.startswith("checkpoint.tmp") or (path.name.startswith(".") and path.name.endswith(".tmp")):
                _unlink(path)
            elif path.name.endswith("_temp") and re.fullmatch(_NAME, path.name.removesuffix("_temp")):
                prefix = path.with_name(path.name.removesuffix("_temp"))
                if damage(prefix) is not None:
                    _remove_files(prefix)
                _remove_temporary(path)
        for data in _orphans(directory):
            _unlink(data)


def _unlink(path: pathlib.Path) -> None:
    # A folder is not what a save leaves, and stays.
    if path.is_symlink() or not path.is_dir():
        files.remove(path)


def _remove_temporary(folder: pathlib.Path) -> None:
    # The folder in which TensorFlow puts the parts of a save together; a link in its place goes, what it leads to stays.
    if folder.is_dir() and not folder.is_symlink():
        for part in _entries(folder):
            if part.name.startswith("part-"):
                _unlink(part)
        with contextlib.suppress(OSError):  # It holds something else, and stays.
            folder.rmdir()
            files.fsync(folder.parent)
    else:
        files.remove(folder)


def _orphans(directory: pathlib.Path) -> list[pathlib.Path]:
    # Data files without their index.
    entries = {path.name: path for path in _entries(directory)}
    data = [path for path in entries.values() if path.suffix.startswith(".data-") and re.fullmatch(_NAME, path.stem)]
    return [path for path in data if f"{path.stem}.index" not in entries]


def _is_there(path: pathlib.Path) -> bool:
    return path.is_symlink() or path.exists()


def _headless(directory: pathlib.Path) -> list[pathlib.Path]:
    # The checkpoints that have lost their index to something else than a kill, which either leaves the folder of a save
    # as well, or fell into the removal of an old checkpoint, index first, when a newer one was whole.
    newest = max(map(step_of, prefixes(directory)), default=-1)
    lost = {data.with_suffix("") for data in _orphans(directory)}
    return [prefix for prefix in sorted(lost) if step_of(prefix) > newest and not _is_killed_save(prefix)]


def _is_killed_save(prefix: pathlib.Path) -> bool:
    folder = prefix.with_name(f"{prefix.name}_temp")
    return folder.is_dir() and not folder.is_symlink()


def _index(prefix: pathlib.Path) -> pathlib.Path:
    return prefix.with_name(f"{prefix.name}.index")


def _files(prefix: pathlib.Path) -> list[pathlib.Path]:
    # The index first, whether or not it is there.
    data = [path for path in _entries(prefix.parent) if path.name.startswith(f"{prefix.name}.data-")]
    return [_index(prefix), *data]


def _remove_files(prefix: pathlib.Path) -> None:
    for path in _files(prefix):
        _unlink(path)


def _quarantine(run: pathlib.Path, prefix: pathlib.Path) -> None:
    # Index first: what is left by a kill in between is headless, and follows at the next start.
    paths = [path for path in _files(prefix) if _is_there(path)]
    targets = (run / QUARANTINE / (prefix.parent.name + f"-{n}" * (n > 1)) for n in itertools.count(1))
    target = next(target for target in targets if not any(_is_there(target / path.name) for path in paths))
    files.make_directory(target)
    with files.storage_errors(target):
        for path in paths:
            path.replace(target / path.name)
        for directory in (prefix.parent, target):
            files.fsync(directory)


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
        self._held = files.HeldDirectory(run)
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
        files.make_directory(directory)
        # Behind a link there may be the checkpoints of others: there the manager removes what it saved itself.
        known = [] if directory.is_symlink() else prefixes(directory)
        if known:
            lines = [f'model_checkpoint_path: "{known[-1].name}"']
            lines += [f'all_model_checkpoint_paths: "{prefix.name}"' for prefix in known]
            lines += [f"all_model_checkpoint_timestamps: {_index(prefix).stat().st_mtime}" for prefix in known]
            files.write_atomically(directory / "checkpoint", "".join(f"{line}\n" for line in lines).encode())
        else:
            _unlink(directory / "checkpoint")
        return tf.train.CheckpointManager(self._checkpoint, str(self._held.plain / name), max_to_keep)

    def save(self) -> None:
        """Commits the state as checkpoints/ckpt-<step>; what is older than the newest few goes when it is durable."""
        self._save(PERIODIC)

    def save_best(self) -> None:
        """Writes the state as best/ckpt-<step>; the previous best goes when it is durable."""
        self._save(BEST)

    def check(self) -> None:
        """Raises StorageError when the run directory was moved, replaced or unmounted since it was opened."""
        self._held.check()

    def _save(self, name: str) -> None:
        if not self._is_writer:
            return
        prefix = self._run / name / f"ckpt-{int(self._state.step)}"
        for wait in (*RETRY_SECS, None):
            self._held.check()
            if damage(prefix) is None:
                return
            try:
                self._write(name, prefix)
            except (tf.errors.OpError, OSError) as error:
                failure = files.not_written(prefix, self._reason(error))
            else:
                return
            self._held.check()
            with contextlib.suppress(StorageError):  # The failure counts; what is left is found by the next start.
                _remove_partial(prefix)
            if wait is None or self._is_hurried():
                raise failure
            logging.warning("%s Trying again in %d s.", failure, wait)
            self._pause(wait)

    def _reason(self, error: Exception) -> str:
        return _first_line(error).replace(str(self._held.plain), str(self._run))

    def _write(self, name: str, prefix: pathlib.Path) -> None:
        began = time.monotonic()
        # A save counts itself; set from the step, it leaves no trace of how often a run was saved.
        self._checkpoint.save_counter.assign(step_of(prefix) - 1)
        # Inside a save, when the files are complete, before the state file names them and older checkpoints go.
        options = tf.train.CheckpointOptions(experimental_write_callbacks=[lambda _: _make_durable(prefix)])
        with self._settings_of(name):
            self._managers[name].save(checkpoint_number=step_of(prefix), options=options)
        files.fsync(prefix.parent / "checkpoint")
        files.fsync(prefix.parent)
        logging.debug("Saved %s, %.1f MiB in %.3f s.", prefix, size(prefix) / 2**20, time.monotonic() - began)

    @contextlib.contextmanager
    def _settings_of(self, name: str) -> Iterator[None]:
        # The free flags decide nothing of what is best: of ten epochs and ten more, the best is that of twenty.
        kept = self._state.free_flags.numpy()
        if name == BEST:
            self._state.free_flags.assign("")
        try:
            yield
        finally:
            self._state.free_flags.assign(kept)

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
            with files.plain_name(prefix) as name, self._only_what(prefix):
                status = self._checkpoint.read(name)
                status.assert_consumed()
                status.assert_existing_objects_matched()
        except Exception as error:  # TensorFlow raises whatever a file of somebody else leads it to.
            raise InputError(
                f"{prefix} must fit the model of this program, but does not: {_reason(error, prefix)}; name another --workdir."
            ) from error
        untracked = self.untracked()
        if untracked:
            raise AssertionError(f"not in the checkpoint: {untracked}")

    @contextlib.contextmanager
    def _only_what(self, prefix: pathlib.Path) -> Iterator[None]:
        # Within it the state has no variables but those that the version knew which saved the checkpoint.
        saved = read_values(prefix)
        lacking = {name: getattr(self._state, name) for name in _LATER if name not in saved}
        for name in lacking:
            delattr(self._state, name)
        try:
            yield
        finally:
            for name, variable in lacking.items():
                setattr(self._state, name, variable)

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
        why = None if best is None else damage(best)
        if best is None or why is None:
            return
        if _is_there(_index(best)):
            logging.warning("%s is damaged (%s): moved to quarantine/ and written anew.", best, why)
            if not best.parent.is_symlink():
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
            if not prefix.parent.is_symlink():
                _remove_files(prefix)


def _remove_partial(prefix: pathlib.Path) -> None:
    # What a failed save has left, unless it failed after the commit.
    if damage(prefix) is not None:
        _remove_files(prefix)
    _remove_temporary(prefix.with_name(f"{prefix.name}_temp"))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _reason(error: Exception, prefix: pathlib.Path) -> str:
    # The name that TensorFlow was given of the checkpoint's directory is known to nobody else.
    return machine.replace_descriptor_names(_first_line(error), str(prefix.parent))


def _make_durable(prefix: pathlib.Path) -> None:
    for file in _files(prefix):
        files.fsync(file)
    files.fsync(prefix.parent)
    why = damage(prefix)
    if why is not None:
        raise OSError(None, f"it did not read back as written ({why})")
