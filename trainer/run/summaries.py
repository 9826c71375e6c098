"""Writing for TensorBoard: scalars, texts, profiles. The only user of tf.summary and tf.profiler."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import tensorflow as tf

from trainer import files
from trainer.errors import StorageError
from trainer.run.event_files import event_files, storage_errors

T = TypeVar("T")


class Summaries:
    """Writes scalars and texts under summaries/<run>; a run without any has no file.

    Args:
      directory: summaries/ in an existing run directory.
      is_writer: whether this process writes.
    """

    def __init__(self, directory: pathlib.Path, *, is_writer: bool = True) -> None:
        self._directory = directory
        self._held = files.HeldDirectory(directory.parent)
        self._is_writer = is_writer
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def write(self, run: str, *, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a point at `step` to the curve of each tag."""
        if not self._is_writer:
            return
        with self._writing(run, step):
            for tag, value in scalars.items():
                tf.summary.scalar(tag, value)

    def write_tables(
        self, run: str, *, step: int, tables: Mapping[str, Sequence[Mapping[str, object]]]
    ) -> None:
        """Adds a table, as a text, at `step` to each tag; its rows, column -> cell, have the same columns."""
        if not self._is_writer:
            return
        with self._writing(run, step):
            for tag, rows in tables.items():
                tf.summary.text(tag, _markdown(rows))

    @contextlib.contextmanager
    def _writing(self, run: str, step: int) -> Iterator[None]:
        directory = self._directory / run
        with self._storage_errors(directory):
            if run not in self._writers:
                self._held.check()
                files.make_directory(directory)
                plain = self._held.plain / self._directory.name / run
                self._writers[run] = tf.summary.create_file_writer(str(plain))
            with self._writers[run].as_default(step):
                yield

    def commit(self) -> None:
        """Waits until every point so far is on disk.

        Raises:
          StorageError: when it can't be written, or the run directory is not where it was.
        """
        self._held.check()
        for run, writer in self._writers.items():
            with self._storage_errors(self._directory / run):
                writer.flush()
                for path in event_files(self._directory / run):
                    files.fsync(path)
                files.fsync(self._directory / run)

    @contextlib.contextmanager
    def _storage_errors(self, directory: pathlib.Path) -> Iterator[None]:
        try:
            with storage_errors(directory):
                yield
        except StorageError:
            self._held.check()  # if the directory was moved, that is the better message
            raise


def _markdown(rows: Sequence[Mapping[str, object]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    escaped = [[str(cell).replace("|", "&#124;") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def profiled(
    batches: Iterator[T], *, directory: pathlib.Path, first_step: int, window: tuple[int, int]
) -> Iterator[T]:
    """Yields the batches, and profiles the steps of a window.

    Args:
      batches: one for each training step.
      directory: the TensorBoard run that will show the profile.
      first_step: the step of the first batch, counted from 1.
      window: the first and the last step that are profiled.
    """
    first, last = window
    is_profiling = False
    try:
        for step, batch in enumerate(batches, start=first_step):
            if max(first, first_step) == step <= last:
                with storage_errors(directory):
                    tf.profiler.experimental.start(str(directory))
                is_profiling = True
            with _trace(step) if is_profiling else contextlib.nullcontext():
                yield batch
            if step == last and is_profiling:
                break
    except BaseException:
        if is_profiling:
            # An error of the profiler must not hide why training ends.
            with contextlib.suppress(tf.errors.OpError, OSError):
                tf.profiler.experimental.stop()
        raise
    if is_profiling:
        with storage_errors(directory):
            tf.profiler.experimental.stop()
    yield from batches


def _trace(step: int) -> tf.profiler.experimental.Trace:
    return tf.profiler.experimental.Trace("train", step_num=step, _r=1)
