"""TensorBoard: writers, and the rewind of the event log to the step that a resumed run goes on from."""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping

import tensorflow as tf

from trainer.run import workdir

_EVENT_FILES = "events.out.tfevents.*"


class Summaries:
    """Writes scalars under summaries/<run>; a run's writer is made with its first point, so that nothing empty lies about."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def write(self, run: str, *, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a point at `step` to the curve of each tag."""
        directory = self._directory / run
        with _storage_errors(directory):
            if run not in self._writers:
                workdir.make_directory(directory)
                self._writers[run] = tf.summary.create_file_writer(str(directory))
            with self._writers[run].as_default(step):
                for tag, value in scalars.items():
                    tf.summary.scalar(tag, value)

    def commit(self) -> None:
        """Waits until every point so far is on the disk."""
        for run, writer in self._writers.items():
            with _storage_errors(self._directory / run):
                writer.flush()
                for path in _event_files(self._directory / run):
                    workdir.fsync(path)
                workdir.fsync(self._directory / run)


def has_points(directory: pathlib.Path) -> bool:
    """Whether there is an event log."""
    return any(directory.glob(f"*/{_EVENT_FILES}"))


def read(directory: pathlib.Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """The curves of an event log: (run, tag) -> the points (step, value) in the order of steps."""
    curves: dict[tuple[str, str], dict[int, float]] = {}
    for run in sorted(path for path in directory.glob("*") if path.is_dir()):
        for event, _ in _events(_event_files(run)):
            for value in event.summary.value:
                curves.setdefault((run.name, value.tag), {}).setdefault(event.step, float(tf.make_ndarray(value.tensor)))
    return {key: sorted(points.items()) for key, points in curves.items()}


def rewind(directory: pathlib.Path, *, step: int) -> int:
    """Drops every point after `step`, in each run below `directory`, and returns the last step that had one.

    The points that stay are written to one new file before the old ones go; a torn tail, left by a kill, is dropped as well.
    """
    last = step
    for run in sorted(path for path in directory.glob("*") if path.is_dir()):
        for leftover in run.glob(".*.tmp"):
            workdir.remove(leftover)
        old = _event_files(run)
        kept: dict[tuple, bytes] = {}
        for event, record in _events(old):
            last = max(last, event.step)
            if event.step <= step:
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
