"""TensorBoard: writers, the rewind of the event log to the step that a resumed run goes on from, and the profiler."""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from trainer.run import workdir

T = TypeVar("T")
Curves = dict[tuple[str, str], list[tuple[int, float]]]  # (run, tag) -> points (step, value), in the order of steps

_EVENT_FILES = "events.out.tfevents.*"


class Summaries:
    """Writes scalars and texts under summaries/<run>; a run's writer is made with its first, so that nothing empty lies about."""

    def __init__(self, directory: pathlib.Path, *, is_writer: bool = True) -> None:
        self._directory = directory
        self._is_writer = is_writer
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def write(self, run: str, *, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a point at `step` to the curve of each tag."""
        if not self._is_writer:
            return
        with self._writing(run, step):
            for tag, value in scalars.items():
                tf.summary.scalar(tag, value)

    def write_tables(self, run: str, *, step: int, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Adds a text at `step` to each tag: a table with a line for each of the rows, which all have the same columns."""
        if not self._is_writer:
            return
        with self._writing(run, step):
            for tag, rows in tables.items():
                tf.summary.text(tag, _markdown(rows))

    @contextlib.contextmanager
    def _writing(self, run: str, step: int) -> Iterator[None]:
        directory = self._directory / run
        with _storage_errors(directory):
            if run not in self._writers:
                workdir.make_directory(directory)
                self._writers[run] = tf.summary.create_file_writer(str(directory))
            with self._writers[run].as_default(step):
                yield

    def commit(self) -> None:
        """Waits until every point so far is on the disk."""
        for run, writer in self._writers.items():
            with _storage_errors(self._directory / run):
                writer.flush()
                for path in _event_files(self._directory / run):
                    workdir.fsync(path)
                workdir.fsync(self._directory / run)


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |" for line in lines)


def has_points(directory: pathlib.Path) -> bool:
    """Whether there is an event log."""
    return any(directory.glob(f"*/{_EVENT_FILES}"))


def read(directory: pathlib.Path) -> Curves:
    """The curves of an event log: (run, tag) -> the points (step, value) in the order of steps."""
    curves: dict[tuple[str, str], dict[int, float]] = {}
    for run in sorted(path for path in directory.glob("*") if path.is_dir()):
        for event, _ in _events(_event_files(run)):
            for value in (value for value in event.summary.value if value.metadata.plugin_data.plugin_name == "scalars"):
                curves.setdefault((run.name, value.tag), {}).setdefault(event.step, _shortest(tf.make_ndarray(value.tensor)))
    return {key: sorted(points.items()) for key, points in curves.items()}


def _shortest(value: np.ndarray) -> float:
    # Of the numbers that are this float32, the one with the fewest digits.
    return float(str(value))


def rewind(directory: pathlib.Path, *, step: int) -> int:
    """Drops all that was written after `step`, in each run below `directory`, and returns the last step that had something.

    At step 0 nothing stays: whoever starts there writes what belongs to it anew. What stays is written to one new file before the old ones
    go; a torn tail, left by a kill, is dropped as well.
    """
    last = step
    for run in sorted(path for path in directory.glob("*") if path.is_dir()):
        for leftover in run.glob(".*.tmp"):
            workdir.remove(leftover)
        old = _event_files(run)
        kept: dict[tuple, bytes] = {}
        for event, record in _events(old):
            last = max(last, event.step)
            if event.step <= step and step:
                kept.setdefault((event.step, *(value.tag for value in event.summary.value)), record)
        if kept:
            _write_events(run, list(kept.values()))
        for path in old:
            workdir.remove(path)
    return last


def _write_events(run: pathlib.Path, records: list[bytes]) -> None:
    # A newer name than the old ones', and older than that of the writer to come: TensorBoard reads in the order of names.
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.rewound"
    # The start of a second session makes a TensorBoard that has read the old files forget their points.
    session = {"session_log": tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)}
    header = [{"file_version": "brain.Event:2"}, session, session]
    temporary = run / f".{name}.tmp"
    with _storage_errors(run / name):
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for fields in header:
                writer.write(tf.compat.v1.Event(wall_time=time.time(), **fields).SerializeToString())
            for record in records:
                writer.write(record)
        workdir.fsync(temporary)
        temporary.replace(run / name)
        workdir.fsync(run)


def profiled(batches: Iterator[T], *, directory: pathlib.Path, first_step: int, window: tuple[int, int]) -> Iterator[T]:
    """Passes batches on, and profiles what is done with those of a window.

    Args:
      batches: an iterator, one for each training step.
      directory: of the run in whose place TensorBoard's profiler shows it.
      first_step: the step of the first batch, counted from 1.
      window: the first and the last step that are profiled.
    """
    first, last = window
    is_profiling = False
    try:
        for step, batch in enumerate(batches, start=first_step):
            if max(first, first_step) == step <= last:
                with _storage_errors(directory):
                    tf.profiler.experimental.start(str(directory))
                is_profiling = True
            with tf.profiler.experimental.Trace("train", step_num=step, _r=1) if is_profiling else contextlib.nullcontext():
                yield batch
            if step == last and is_profiling:
                break
    finally:
        if is_profiling:
            with _storage_errors(directory):
                tf.profiler.experimental.stop()
    yield from batches


@contextlib.contextmanager
def _storage_errors(directory: pathlib.Path) -> Iterator[None]:
    try:
        with workdir.storage_errors(directory):
            yield
    except tf.errors.OpError as error:
        raise workdir.not_written(directory, error.message.splitlines()[0]) from error


def _event_files(run: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in run.glob(_EVENT_FILES) if path.is_file())


def _events(paths: list[pathlib.Path]) -> Iterator[tuple[tf.compat.v1.Event, bytes]]:
    for path in paths:
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                if event.summary.value:
                    yield event, record
        except (tf.errors.DataLossError, tf.errors.NotFoundError):  # Torn by a kill, or rewound meanwhile by a run that is looked at.
            continue
