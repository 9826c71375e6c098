"""Where a run's reviews are: recorded at each start of training, and found again from another directory."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from trainer import files
from trainer.config import Config, Settings
from trainer.data import corpus, own_files
from trainer.run import records
from trainer.run.records import Places


def of_process(config: Config) -> Places:
    """The folders that the paths of this process start from."""
    try:
        cwd = str(pathlib.Path.cwd())
    except OSError:  # it was deleted
        cwd = ""
    return Places(
        cwd=cwd,
        data_dir=_absolute(config.data_dir),
        tfds_data_dir=_absolute(os.environ.get("TFDS_DATA_DIR", "")),
    )


def where_trained(config: Config, given: Settings) -> Config:
    """The settings with the folders in which the run's reviews were when it was trained, if they still are.

    What the command line names stays as it is.
    """
    starts = records.read_starts(pathlib.Path(config.workdir))
    recorded = [start["places"] for start in reversed(starts)]
    changes: dict[str, Any] = {}
    if "dataset" not in given and "data_dir" not in given and (folder := _data_dir(config.dataset, recorded)):
        changes["data_dir"] = folder
    return dataclasses.replace(config, **changes)


def _data_dir(dataset: str, recorded: Sequence[Places]) -> str | None:
    """The newest folder in which a dataset is."""
    for places in recorded:
        own, of_tfds = places["data_dir"] or places["cwd"], places["data_dir"] or places["tfds_data_dir"]
        if own and corpus.is_own(dataset, own):
            if own_files.exists(dataset, own):
                logging.info("Dataset   %s in %s, where the run was trained", dataset, own)
                return own
        elif (
            of_tfds
            and not os.environ.get("TFDS_DATA_DIR")
            and (files.is_uri(of_tfds) or pathlib.Path(of_tfds).is_dir())
        ):
            return of_tfds
    return None


def _absolute(path: str) -> str:
    if not path or files.is_uri(path):
        return path
    with contextlib.suppress(LookupError):
        path = files.expand_home(path)
    with contextlib.suppress(OSError):
        path = str(pathlib.Path(path).absolute())
    return path
