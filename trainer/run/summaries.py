"""TensorBoard: writers, the rewind of the event log to the step that a resumed run goes on from, and the profiler."""

import contextlib
import fnmatch
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from trainer import StorageError, files

T = TypeVar("T")
Curves = dict[tuple[str, str], list[tuple[int, float]]]  # (run, tag) -> points (step, value), in the order of steps

_EVENT_FILES = "events.out.tfevents.*"


class Summaries:
    """Writes scalars and texts under summaries/<run>; a run's writer is made with its first, so that nothing empty lies about.

    Args:
      directory: summaries/ in a run directory that is there.
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
        with self._storage_errors(directory):
            if run not in self._writers:
                self._held.check()
                files.make_directory(directory)
                place = self._held.plain / self._directory.name / run
                self._writers[run] = tf.summary.create_file_writer(str(place))
            with self._writers[run].as_default(step):
                yield

    def commit(self) -> None:
        """Waits until every point so far is on the disk.

        Raises:
          StorageError: when it can't be written, or the run directory is not where it was.
        """
        self._held.check()
        for run, writer in self._writers.items():
            with self._storage_errors(self._directory / run):
                writer.flush()
                for path in _event_files(self._directory / run):
                    files.fsync(path)
                files.fsync(self._directory / run)

    @contextlib.contextmanager
    def _storage_errors(self, directory: pathlib.Path) -> Iterator[None]:
        try:
            with _storage_errors(directory):
                yield
        except StorageError:
            self._held.check()  # says more, where that is why
            raise


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in line)} |" for line in lines)


def has_points(directory: pathlib.Path) -> bool:
    """Whether there is an event log."""
    return any(_event_files(run) for run in _runs(directory))


def read(directory: pathlib.Path) -> Curves:
    """The curves of an event log: (run, tag) -> the points (step, value) in the order of steps."""
    curves: dict[tuple[str, str], dict[int, float]] = {}
    for run in _runs(directory):
        for event, _ in _events(_event_files(run)):
            for value in event.summary.value:
                if (number := _scalar(value)) is not None:
                    curves.setdefault((run.name, value.tag), {}).setdefault(event.step, number)
    return {key: sorted(points.items()) for key, points in curves.items()}


def _scalar(value: tf.compat.v1.Summary.Value) -> float | None:
    # Of the numbers that are this float32, the one with the fewest digits; None for what is no scalar of this program.
    tensor = value.tensor
    if value.metadata.plugin_data.plugin_name != "scalars" or tensor.tensor_shape.dim or tensor.dtype != tf.float32.as_datatype_enum:
        return None
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return float(str(np.float32(tf.make_ndarray(tensor))))
    return None


class Rewound(NamedTuple):
    """What a rewind found: the last step that had anything, and the last point of each curve that stays."""

    last_step: int
    ends: dict[tuple[str, str], tuple[int, float]]


def rewind(directory: pathlib.Path, *, step: int) -> Rewound:
    """Drops all that was written after `step`, in each run below `directory`.

    At step 0 nothing stays: whoever starts there writes what belongs to it anew. What stays is written to one new file
    before the old ones go; a torn tail, left by a kill, is dropped as well. A folder that is the user's link to another
    place is left as it is.

    Raises:
      StorageError: when an event file can't be read or written.
    """
    last, ends = step, {}
    for run in _runs(directory):
        old = _event_files(run)
        kept: dict[tuple, bytes] = {}
        for event, record in _events(old):
            last = max(last, event.step)
            if event.step <= step and step:
                kept.setdefault((event.step, *(value.tag for value in event.summary.value)), record)
                for value in event.summary.value:
                    end = ends.get((run.name, value.tag), (-1, 0.0))
                    if event.step > end[0] and (number := _scalar(value)) is not None:
                        ends[run.name, value.tag] = (event.step, number)
        if run.is_symlink() or directory.is_symlink():
            if last > step:
                logging.warning("%s is a link, and stays as it is: what was logged there after step %d will be there twice.", run, step)
            continue
        for leftover in _entries(run):
            if re.fullmatch(r"\.events\.out\.tfevents\..*\.tmp", leftover.name) and not leftover.is_dir():
                files.remove(leftover)
        if kept:
            _write_events(run, list(kept.values()))
        for path in old:
            files.remove(path)
    return Rewound(last, ends)


def differences(
    ends: Mapping[tuple[str, str], tuple[int, float]], expected: Mapping[tuple[str, str], tuple[int, float | None]]
) -> list[str]:
    """What tells that an event log is not that of a state.

    Args:
      ends: the last points, as of `rewind`.
      expected: (run, tag) -> step and value of the last point; step 0: there is none; value None: it may be any.
    """
    wrong = []
    for (run, tag), (step, value) in expected.items():
        last, found = ends.get((run, tag), (0, None))
        if last != step:
            wrong.append(f"{run}/{tag} ends at step {last} and not at {step}")
        elif step and value is not None and np.float32(found) != np.float32(value):
            wrong.append(f"{run}/{tag} is {found:g} at step {step} and not {value:g}")
    return wrong


def remove_run(directory: pathlib.Path) -> None:
    """Removes the event files of one run, and its folder where it holds nothing else; behind a link nothing."""
    if directory.is_symlink() or directory.parent.is_symlink():
        return
    for path in _event_files(directory):
        files.remove(path)
    with contextlib.suppress(OSError):
        directory.rmdir()
        files.fsync(directory.parent)


def mismatches(curves: Curves, expected: Mapping[tuple[str, str], tuple[int, float | None]], *, step: int) -> list[str]:
    """What tells that an event log is not that of a state: curves whose last point up to `step` is not the expected one.

    Args:
      curves: as of `read`.
      expected: (run, tag) -> step and value of the last point; step 0: there is none; value None: it may be any.
      step: that of the state.
    """
    wrong = []
    for (run, tag), (last, value) in expected.items():
        points = [point for point in curves.get((run, tag), []) if point[0] <= step]
        found = points[-1] if points else (0, None)
        is_same = value is None or not last or (found[1] is not None and np.float32(found[1]) == np.float32(value))
        if found[0] != last:
            wrong.append(f"{run}/{tag} ends at step {found[0]} and not at {last}")
        elif not is_same:
            wrong.append(f"{run}/{tag} is {found[1]:g} at step {last} and not {value:g}")
    return wrong


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
        files.fsync(temporary)
        temporary.replace(run / name)
        files.fsync(run)


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
    except BaseException:
        if is_profiling:
            with contextlib.suppress(tf.errors.OpError, OSError):  # Why training ends is not hidden by its profile.
                tf.profiler.experimental.stop()
        raise
    if is_profiling:
        with _storage_errors(directory):
            tf.profiler.experimental.stop()
    yield from batches


@contextlib.contextmanager
def _storage_errors(directory: pathlib.Path) -> Iterator[None]:
    try:
        with files.storage_errors(directory):
            yield
    except tf.errors.OpError as error:
        raise files.not_written(directory, error.message.splitlines()[0]) from error


def _runs(directory: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in _entries(directory) if path.is_dir()]


def _entries(directory: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise files.not_readable(directory, files.reason(error)) from error


def _event_files(run: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in _entries(run) if fnmatch.fnmatchcase(path.name, _EVENT_FILES) and files.is_regular(path)]


def _events(paths: list[pathlib.Path]) -> Iterator[tuple[tf.compat.v1.Event, bytes]]:
    for path in paths:
        try:
            os.close(files.open_regular(path))
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                if event.summary.value:
                    yield event, record
        # Torn by a kill, or rewound meanwhile by a run that is looked at.
        except (tf.errors.DataLossError, tf.errors.NotFoundError, DecodeError, FileNotFoundError):
            continue
        except OSError as error:
            raise files.not_readable(path, files.reason(error)) from error
        except tf.errors.OpError as error:
            raise files.not_readable(path, error.message.splitlines()[0]) from error
