"""Records of a run that are not part of its state: its starts, and whether its result is final."""

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Mapping
from typing import TypedDict

from trainer import files

RESULT = "result.json"

_STARTS = "starts.jsonl"
_MAX_BYTES = 2**26  # of starts.jsonl; more than any run writes


class Places(TypedDict):
    """The folders that the paths of a process started from; empty: none was named.

    Attributes:
      cwd: the working directory.
      data_dir: that of --data_dir.
      tfds_data_dir: that of the environment variable TFDS_DATA_DIR.
    """

    cwd: str
    data_dir: str
    tfds_data_dir: str


class Start(TypedDict):
    """The facts of a start that later processes read: those of `append_start`."""

    step: int
    steps_recomputed_at_least: int
    steps_per_epoch: int
    stores: dict[str, str]
    places: Places


def append_start(
    directory: pathlib.Path,
    *,
    step: int,
    steps_recomputed_at_least: int,
    steps_per_epoch: int,
    stores: Mapping[str, pathlib.Path],
    places: Places,
) -> None:
    """Records that this process starts to train.

    Args:
      directory: the run directory.
      step: the step that training starts from.
      steps_recomputed_at_least: the logged steps after `step`.
      steps_per_epoch: the training steps of an epoch.
      stores: split -> its encoded reviews.
      places: the folders that the paths of this process start from.

    Raises:
      StorageError: when it can't be written.
    """
    start = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "step": step,
        "steps_recomputed_at_least": steps_recomputed_at_least,
        "steps_per_epoch": steps_per_epoch,
        "stores": {split: str(path) for split, path in stores.items()},
        "places": places,
    }
    files.append_line(directory / _STARTS, json.dumps(start))


def read_starts(directory: pathlib.Path) -> list[Start]:
    """The recorded starts, oldest first; lines that `append_start` can't have written are skipped."""
    starts = []
    with contextlib.suppress(OSError):
        for line in files.read(directory / _STARTS, limit=_MAX_BYTES).splitlines():
            if start := _parse(line):
                starts.append(start)
    return starts


def _parse(line: bytes) -> Start | None:
    with contextlib.suppress(
        ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError
    ):
        given = json.loads(line)
        start = Start(
            step=int(given["step"]),
            steps_recomputed_at_least=int(given["steps_recomputed_at_least"]),
            steps_per_epoch=int(given["steps_per_epoch"]),
            stores={str(split): str(path) for split, path in given["stores"].items()},
            places=_places(given.get("places", {})),  # older versions recorded none
        )
        numbers = (start["step"], start["steps_recomputed_at_least"], start["steps_per_epoch"])
        if start["steps_per_epoch"] > 0 and all(0 <= number < 2**63 for number in numbers):
            return start
    return None


def _places(given: Mapping[str, object]) -> Places:
    cwd, data_dir, tfds_data_dir = (str(given.get(name, "")) for name in Places.__annotations__)
    return Places(cwd=cwd, data_dir=data_dir, tfds_data_dir=tfds_data_dir)


def is_result_of(directory: pathlib.Path, stop_step: int, best_step: int) -> bool:
    """Whether result.json is the result for this stop step and this best step."""
    try:
        result = json.loads(files.read(directory / RESULT))
        return (result["stop_step"], result["best_step"]) == (stop_step, best_step)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
