"""Writes results to --output."""

import contextlib
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import IO

from trainer import files


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[str]]:
    """The file that --output names, open for writing text; standard output when it is empty or "-".

    Raises:
      StorageError: when it cannot be written.
    """
    if not path or path == "-":
        yield sys.stdout
        return
    with files.storage_errors(pathlib.Path(path)), pathlib.Path(path).open("w", encoding="utf-8") as file:
        yield file


def write_json(path: str, value: Mapping[str, object]) -> None:
    """Writes a value as JSON to --output; does nothing when that is empty."""
    if path:
        with opened(path) as file:
            file.write(json.dumps(value, indent=2) + "\n")
