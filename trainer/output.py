"""Writes results to --output."""

import contextlib
import csv
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from trainer import files
from trainer.errors import InputError


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[str]]:
    """The file that --output names, open for writing text; standard output when it is empty or "-".

    Raises:
      StorageError: when it cannot be written.
    """
    if not path or path == "-":
        yield sys.stdout
        return
    with (
        files.storage_errors(pathlib.Path(path)),
        # An input may hold half of a surrogate pair, which no encoding can represent.
        pathlib.Path(path).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def is_csv(path: str) -> bool:
    """Whether records are written to --output as csv rather than as JSON."""
    return path.lower().endswith(".csv")


@contextlib.contextmanager
def records(path: str, columns: Sequence[str]) -> Iterator[Callable[[Mapping[str, object]], object]]:
    """A function that writes a record to --output: as a row of a .csv, else as a line of JSON.

    Args:
      path: the value of --output.
      columns: of the csv, in their order; those that a record lacks are empty, its other values are left out.

    Raises:
      StorageError: when it cannot be written.
    """
    with opened(path) as file:
        if not is_csv(path):
            yield lambda record: file.write(json.dumps(record) + "\n")
            return
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        yield writer.writerow


def check_is_not_input(path: str, input_path: str) -> None:
    """Raises InputError when --output would overwrite what --input reads."""
    with contextlib.suppress(OSError):
        if path not in ("", "-") and pathlib.Path(path).samefile(input_path):
            raise InputError(
                f"--output must be another file than --input, but both are {path}; name a new one."
            )


def write_json(path: str, value: Mapping[str, object]) -> None:
    """Writes a value as JSON to --output; does nothing when that is empty."""
    if path:
        with opened(path) as file:
            file.write(json.dumps(value, indent=2) + "\n")
