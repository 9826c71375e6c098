#!/usr/bin/env python
"""Compares two runs bit for bit: the tensors of the newest and the best checkpoint, the curves, the results.

    python scripts/compare_runs.py runs/a runs/b

Prints each difference; exits with 1 if there are any. It does not compare what depends on the number and the
speed of the starts: starts.jsonl and the reviews per second. Nor does it compare the free flags in a
checkpoint, because config.flags holds them.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from trainer import files
from trainer.run.records import RESULT
from trainer.tensorflow_setup import importing_tensorflow
from trainer.words import plural

with importing_tensorflow():
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

_COPIES = ("config.flags", "manifest.json", "vocabulary.txt", RESULT)
_FREE_FLAGS = "free_flags/.ATTRIBUTES/VARIABLE_VALUE"


def tensors(prefix: pathlib.Path | str) -> dict[str, bytes]:
    """Every tensor of a checkpoint, as bytes."""
    with files.plain_name(pathlib.Path(prefix)) as name:
        reader = tf.train.load_checkpoint(name)
        values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    return {
        name: value if isinstance(value, bytes) else np.asarray(value).tobytes()
        for name, value in values.items()
    }


def scalars(directory: pathlib.Path) -> dict[tuple[str, str, int], list[float | bytes]]:
    """The points of an event log: (run, tag, step) -> its values or texts, in the order they are read."""
    points: dict[tuple[str, str, int], list[float | bytes]] = {}
    for path in sorted(path for path in directory.glob("*/events.out.tfevents.*") if path.is_file()):
        for record in RawEventFileLoader(str(path)).Load():  # tf.data takes fifty times as long.
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                key = (path.parent.name, value.tag, event.step)
                points.setdefault(key, []).append(tf.make_ndarray(value.tensor).item())
    return points


def newest_checkpoint(workdir: pathlib.Path) -> pathlib.Path:
    """The prefix of the newest periodic checkpoint, readable or not; raises ValueError when there is none."""
    indices = (workdir / "checkpoints").glob("ckpt-*.index")
    return max(indices, key=lambda path: int(path.stem.removeprefix("ckpt-"))).with_suffix("")


def outcome(workdir: pathlib.Path) -> dict[str, object]:
    """Everything in a run directory that a kill must not change, as a nested dictionary."""
    newest = newest_checkpoint(workdir)
    state = tensors(newest)
    state.pop(_FREE_FLAGS, None)
    points = scalars(workdir / "summaries")
    return {
        "newest": newest.name,
        "state": state,
        "best": {
            path.stem: tensors(path.with_suffix("")) for path in (workdir / "best").glob("ckpt-*.index")
        },
        "points": {key: values for key, values in points.items() if key[1] != "reviews_per_second"},
        **{name: _content(workdir / name) for name in _COPIES},
    }


def _content(path: pathlib.Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def differences(expected: object, actual: object, name: str = "") -> list[str]:
    """The names of the values that differ between two outcomes."""
    if not isinstance(expected, Mapping) or not isinstance(actual, Mapping):
        return [] if expected == actual else [name]
    found = []
    for key in sorted(expected.keys() | actual.keys(), key=str):
        found += differences(expected.get(key), actual.get(key), f"{name} {key}".strip())
    return found


def main() -> int:
    """Prints the differences of two run directories; returns 1 if there are any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=pathlib.Path, help="a run directory")
    parser.add_argument("second", type=pathlib.Path, help="another one")
    given = parser.parse_args()
    for workdir in (given.first, given.second):
        if not any((workdir / "checkpoints").glob("ckpt-*.index")):
            parser.error(f"{workdir} must be a run directory, but it holds no checkpoint")
    found = differences(outcome(given.first), outcome(given.second))
    print(*found, plural(len(found), "difference"), sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
