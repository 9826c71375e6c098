"""Saving and restoring a run's state. With `checkpoint_reading`, the only user of tf.train.Checkpoint."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from trainer import files
from trainer.errors import InputError, StorageError
from trainer.run.checkpoint_cleanup import quarantine, remove_checkpoint, remove_file, remove_partial_save
from trainer.run.checkpoint_files import (
    BEST,
    PERIODIC,
    damage,
    files_of,
    first_line,
    index_of,
    is_present,
    prefixes,
    reason,
    size,
    step_of,
)
from trainer.run.checkpoint_reading import read_values
from trainer.run.state import TrainState

RETRY_SECS = (1, 2, 5, 10)  # the pauses before a failed save is tried again

_ADDED_LATER = ("free_flags",)  # attributes of the state that checkpoints of older versions lack


class Checkpoints:
    """Saves and restores one state in one run directory; create it after `find` and `tidy`.

    Args:
      run: the run directory.
      state: the state.
      max_to_keep: how many periodic checkpoints are kept.
      stop_requested: whether a stop is requested; then a failed save is not tried again.
      is_writer: whether this process saves; only one of several workers does.
    """

    def __init__(
        self,
        *,
        run: pathlib.Path,
        state: TrainState,
        max_to_keep: int,
        stop_requested: Callable[[], bool] = lambda: False,
        is_writer: bool = True,
    ) -> None:
        self._run = run
        self._held = files.HeldDirectory(run)
        self._max_to_keep = max_to_keep
        self._stop_requested = stop_requested
        self._state = state
        self._checkpoint = tf.train.Checkpoint(root=state)
        self._checkpoint.save_counter.assign(0)
        self._is_writer = is_writer
        kept = {PERIODIC: max_to_keep, BEST: 1} if is_writer else {}
        self._managers = {name: self._manager(name, keep) for name, keep in kept.items()}

    def _manager(self, name: str, max_to_keep: int) -> tf.train.CheckpointManager:
        directory = self._run / name
        files.make_directory(directory)
        # A linked directory may hold the checkpoints of other runs, which the manager must not know of.
        known = [] if directory.is_symlink() else prefixes(directory)
        if known:
            lines = [f'model_checkpoint_path: "{known[-1].name}"']
            lines += [f'all_model_checkpoint_paths: "{prefix.name}"' for prefix in known]
            lines += [
                f"all_model_checkpoint_timestamps: {index_of(prefix).stat().st_mtime}" for prefix in known
            ]
            files.write_atomically(directory / "checkpoint", "".join(f"{line}\n" for line in lines).encode())
        else:
            remove_file(directory / "checkpoint")
        return tf.train.CheckpointManager(self._checkpoint, str(self._held.plain / name), max_to_keep)

    def save(self) -> None:
        """Saves the state as checkpoints/ckpt-<step>; once that is durable, the oldest are removed.

        A step that is already saved is not written again.

        Raises:
          StorageError: when it can't be written, after some retries.
        """
        self._save(PERIODIC)

    def save_best(self) -> None:
        """Saves the state as best/ckpt-<step>, as `save` does, and then removes the previous best."""
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
            with contextlib.suppress(StorageError):  # `failure` matters more; the next start cleans up.
                remove_partial_save(prefix)
            if wait is None or self._stop_requested():
                raise failure
            logging.warning("%s Trying again in %d s.", failure, wait)
            self._pause(wait)

    def _reason(self, error: Exception) -> str:
        return first_line(error).replace(str(self._held.plain), str(self._run))

    def _write(self, name: str, prefix: pathlib.Path) -> None:
        began = time.monotonic()
        # A save increments the counter. Set from the step, it does not depend on how often the run was saved.
        self._checkpoint.save_counter.assign(step_of(prefix) - 1)
        # Called when the files are complete, before the state file names them and old ones are removed.
        options = tf.train.CheckpointOptions(experimental_write_callbacks=[lambda _: _make_durable(prefix)])
        with self._flags_of(name):
            self._managers[name].save(checkpoint_number=step_of(prefix), options=options)
        files.fsync(prefix.parent / "checkpoint")
        files.fsync(prefix.parent)
        logging.debug("Saved %s, %.1f MiB in %.3f s.", prefix, size(prefix) / 2**20, time.monotonic() - began)

    @contextlib.contextmanager
    def _flags_of(self, name: str) -> Iterator[None]:
        # Free flags do not influence which state is best, so best/ holds none: after ten epochs and ten more,
        # best/ is bit-identical to that of twenty.
        kept = self._state.free_flags.numpy()
        if name == BEST:
            self._state.free_flags.assign("")
        try:
            yield
        finally:
            self._state.free_flags.assign(kept)

    def _pause(self, secs: float) -> None:
        until = time.monotonic() + secs
        while time.monotonic() < until and not self._stop_requested():
            time.sleep(0.1)

    def restore(self, prefix: pathlib.Path) -> None:
        """Restores the state: every saved value is consumed, and every variable of the state gets a value.

        Raises:
          InputError: when the checkpoint and the state do not fit.
        """
        try:
            with files.plain_name(prefix) as name, self._only_saved_attributes(prefix):
                status = self._checkpoint.read(name)
                status.assert_consumed()
                status.assert_existing_objects_matched()
        except Exception as error:  # TensorFlow may raise anything for a file that is not from this program.
            raise InputError(
                f"{prefix} must fit the model of this program, but does not: {reason(error, prefix)}; "
                f"give another --workdir."
            ) from error
        untracked = self.untracked()
        if untracked:
            raise AssertionError(f"not in the checkpoint: {untracked}")

    @contextlib.contextmanager
    def _only_saved_attributes(self, prefix: pathlib.Path) -> Iterator[None]:
        # Inside, the state has only those attributes that the checkpoint has; an older version may have saved
        # it.
        saved = read_values(prefix)
        missing = {name: getattr(self._state, name) for name in _ADDED_LATER if name not in saved}
        for name in missing:
            delattr(self._state, name)
        try:
            yield
        finally:
            for name, variable in missing.items():
                setattr(self._state, name, variable)

    def untracked(self) -> list[str]:
        """The variables of model and optimizer that are not saved; TensorFlow's own asserts overlook them."""
        tracked = {id(node) for node in tf.train.TrackableView(self._checkpoint).descendants()}
        variables = [*self._state.model.trainable_variables, *self._state.optimizer.variables]
        return [variable.path for variable in variables if id(variable) not in tracked]

    def best(self) -> pathlib.Path | None:
        """The best checkpoint according to the state, whether or not it exists; None before the first."""
        step = int(self._state.best_step)
        return None if step < 0 else self._run / BEST / f"ckpt-{step}"

    def repair_best(self) -> None:
        """Repairs best/ after a kill or damage, from the state or the periodic checkpoint of that step.

        Call it right after `restore`; it leaves the state unchanged.

        Raises:
          StorageError: when the best checkpoint is missing or damaged and there is no copy of it.
        """
        best = self.best()
        why = None if best is None else damage(best)
        if best is None or why is None:
            return
        if is_present(index_of(best)):
            outcome = quarantine(self._run, best)
            logging.warning("%s is damaged (%s): %s; rewriting it.", best, why, outcome)
        if int(self._state.step) == step_of(best):
            self.save_best()
            return
        copy = self._run / PERIODIC / best.name
        if damage(copy) is not None:
            raise StorageError(
                f"{best} is damaged or missing and no other checkpoint holds step {step_of(best)}; "
                f"restore it from a copy."
            )
        present = self._run / PERIODIC / f"ckpt-{int(self._state.step)}"
        self.restore(copy)
        self.save_best()
        self.restore(present)

    def prune(self) -> None:
        """Removes old checkpoints that a kill during a save has left. Call it after `restore`."""
        best = self.best()
        surplus = prefixes(self._run / PERIODIC)[: -self._max_to_keep]
        surplus += [prefix for prefix in prefixes(self._run / BEST) if best and prefix != best]
        for prefix in surplus:
            if not prefix.parent.is_symlink():
                remove_checkpoint(prefix)


def _make_durable(prefix: pathlib.Path) -> None:
    for file in files_of(prefix):
        files.fsync(file)
    files.fsync(prefix.parent)
    why = damage(prefix)
    if why is not None:
        raise OSError(None, f"it did not read back as written ({why})")
