"""The event files of TensorBoard: read, rewound to the step that a resumed run continues from, or removed."""

import contextlib
import fnmatch
import math
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

from trainer import files

Curve = tuple[str, str]  # run, which is a folder in summaries/, and tag
Curves = dict[Curve, list[tuple[int, float]]]  # points (step, value), in the order of steps

_EVENT_FILES = "events.out.tfevents.*"


class Rewound(NamedTuple):
    """The result of a rewind.

    Attributes:
      last_step: the last step in the event log, before the rewind.
      ends: the last point, (step, value), of each curve that is kept.
    """

    last_step: int
    ends: dict[Curve, tuple[int, float]]


def has_points(directory: pathlib.Path) -> bool:
    """Whether there is an event log."""
    return any(event_files(run) for run in _runs(directory))


def read(directory: pathlib.Path) -> Curves:
    """The curves of an event log."""
    curves: dict[Curve, dict[int, float]] = {}
    for run in _runs(directory):
        for event, _ in _events(event_files(run)):
            for value in event.summary.value:
                if (number := _scalar(value)) is not None:
                    curves.setdefault((run.name, value.tag), {}).setdefault(event.step, number)
    return {curve: sorted(points.items()) for curve, points in curves.items()}


def _scalar(value: tf.compat.v1.Summary.Value) -> float | None:
    # The number with the fewest digits that rounds to this float32. None if it is not a scalar of ours.
    tensor = value.tensor
    is_scalar = value.metadata.plugin_data.plugin_name == "scalars" and not tensor.tensor_shape.dim
    if is_scalar and tensor.dtype == tf.float32.as_datatype_enum:
        with contextlib.suppress(ValueError, TypeError, IndexError):
            return float(str(np.float32(tf.make_ndarray(tensor))))
    return None


def rewind(directory: pathlib.Path, *, step: int) -> Rewound:
    """Drops everything that was written after `step`, in each run below `directory`.

    At step 0 nothing is kept, because a run that starts there writes it again. What is kept is written to one
    new file before the old ones are removed; an incomplete last record, left by a kill, is dropped too. A
    folder that is a link is left as it is.

    Raises:
      StorageError: when an event file can't be read or written.
    """
    # Read everything before writing anything: if one run can't be read, the others stay unchanged.
    old_files = {run: event_files(run) for run in _runs(directory)}
    selected = {run: _select(paths, step) for run, paths in old_files.items()}
    last_step = max([step, *(last_of_run for last_of_run, _, _ in selected.values())])
    ends: dict[Curve, tuple[int, float]] = {}
    for run, (_, records, ends_of_run) in selected.items():
        ends |= {(run.name, tag): end for tag, end in ends_of_run.items()}
        if run.is_symlink() or directory.is_symlink():
            if last_step > step:
                logging.warning(
                    "%s is a link and is left as it is: points after step %d will appear twice.", run, step
                )
            continue
        for leftover in files.entries(run):
            if re.fullmatch(r"\.events\.out\.tfevents\..*\.tmp", leftover.name) and not leftover.is_dir():
                files.remove(leftover)
        if records:
            _write_events(run, records)
        for path in old_files[run]:
            files.remove(path)
    return Rewound(last_step, ends)


def _select(paths: list[pathlib.Path], step: int) -> tuple[int, list[bytes], dict[str, tuple[int, float]]]:
    # The last step of a run's event files, the records up to `step`, and their last point for each tag.
    last_step = 0
    records: dict[tuple[int | str, ...], bytes] = {}
    ends: dict[str, tuple[int, float]] = {}
    for event, record in _events(paths):
        last_step = max(last_step, event.step)
        if step == 0 or event.step > step:
            continue
        # A rewind that was killed leaves points in two files; one of each is kept.
        records.setdefault((event.step, *(value.tag for value in event.summary.value)), record)
        for value in event.summary.value:
            number = _scalar(value)
            if number is not None and event.step > ends.get(value.tag, (-1, 0.0))[0]:
                ends[value.tag] = (event.step, number)
    return last_step, list(records.values()), ends


def _write_events(run: pathlib.Path, records: list[bytes]) -> None:
    # TensorBoard reads files in the order of their names: this one sorts after the old files, and before that
    # of the next writer.
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.rewound"
    # The start of a second session makes a TensorBoard that has read the old files forget their points.
    session = {"session_log": tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)}
    header = [{"file_version": "brain.Event:2"}, session, session]
    temporary = run / f".{name}.tmp"
    with storage_errors(run / name):
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for fields in header:
                writer.write(tf.compat.v1.Event(wall_time=time.time(), **fields).SerializeToString())
            for record in records:
                writer.write(record)
        files.fsync(temporary)
        temporary.replace(run / name)
        files.fsync(run)


def differences(
    ends: Mapping[Curve, tuple[int, float]], expected: Mapping[Curve, tuple[int, float | None]]
) -> list[str]:
    """The evidence that an event log does not belong to a state; empty if it does.

    Args:
      ends: the last points, as returned by `rewind`.
      expected: curve -> (step, value) of its last point; step 0: there is no point; value None: any value.
    """
    wrong = []
    for (run, tag), (step, value) in expected.items():
        last_step, last_value = ends.get((run, tag), (0, math.nan))
        if last_step != step:
            wrong.append(f"{run}/{tag} ends at step {last_step} instead of {step}")
        elif step and value is not None and np.float32(last_value) != np.float32(value):
            wrong.append(f"{run}/{tag} is {last_value:g} at step {step} instead of {value:g}")
    return wrong


def remove_run(directory: pathlib.Path) -> None:
    """Removes the event files of one run, and its folder if it is empty then; a link is left alone."""
    if directory.is_symlink() or directory.parent.is_symlink():
        return
    for path in event_files(directory):
        files.remove(path)
    with contextlib.suppress(OSError):
        directory.rmdir()
        files.fsync(directory.parent)


def event_files(run: pathlib.Path) -> list[pathlib.Path]:
    """The event files of one run, in the order of their names."""
    return [
        path
        for path in files.entries(run)
        if fnmatch.fnmatchcase(path.name, _EVENT_FILES) and files.is_regular(path)
    ]


@contextlib.contextmanager
def storage_errors(directory: pathlib.Path) -> Iterator[None]:
    """Turns an error of the system or of TensorFlow at `directory` into a StorageError that names it."""
    try:
        with files.storage_errors(directory):
            yield
    except tf.errors.OpError as error:  # a full disk is a ResourceExhaustedError, like too little memory
        raise files.not_written(directory, error.message.splitlines()[0]) from error


def _runs(directory: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in files.entries(directory) if path.is_dir()]


def _events(paths: list[pathlib.Path]) -> Iterator[tuple[tf.compat.v1.Event, bytes]]:
    # The events with values, each with its record.
    for path in paths:
        try:
            os.close(files.open_regular(path))
            for record in RawEventFileLoader(str(path)).Load():
                event = tf.compat.v1.Event.FromString(record)
                if event.summary.value:
                    yield event, record
        # Truncated by a kill, or rewound while a training run is inspected.
        except (tf.errors.DataLossError, tf.errors.NotFoundError, DecodeError, FileNotFoundError):
            continue
        except OSError as error:
            raise files.not_readable(path, files.reason(error)) from error
        except tf.errors.OpError as error:
            raise files.not_readable(path, error.message.splitlines()[0]) from error
