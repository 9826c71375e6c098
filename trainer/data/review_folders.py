"""Folders of texts, as in IMDB's own archive: pos/ and neg/ with a .txt for each review."""

import contextlib
import pathlib
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from trainer import files
from trainer.data.compression import Source
from trainer.data.text_encoding import Text
from trainer.errors import InputError

CLASSES = ("neg", "pos")


class Review(NamedTuple):
    """A text in UTF-8 and the number of its class."""

    text: bytes
    label: int


def classes_of(folder: pathlib.Path) -> list[str]:
    """Which of neg and pos a folder holds; raises OSError when it can't be read."""
    return [name for name in CLASSES if (folder / name).is_dir()]


def texts_of(folder: pathlib.Path) -> list[tuple[pathlib.Path, int]]:
    """The texts of both classes, each with its label.

    They are in the natural order of their names, 9.txt before 10.txt; for equal names, the negative one comes
    first.

    Raises:
      InputError: when a class has no text or can't be read.
    """
    texts = []
    for label, name in enumerate(CLASSES):
        with readable(folder / name):
            paths = [
                path for path in (folder / name).iterdir() if path.suffix == ".txt" and path.name[0] != "."
            ]
        if not paths:
            raise InputError(
                f"Both classes must have reviews, but {folder / name} holds no .txt; add one for each review."
            )
        texts += [(path, label) for path in paths]
    return sorted(texts, key=_natural_order)


def _natural_order(entry: tuple[pathlib.Path, int]) -> tuple[list[int | str], int, str]:
    path, label = entry
    parts = re.split("([0-9]+)", path.name)
    # Every other part is a number.
    numbered = [int(part) if index % 2 else part for index, part in enumerate(parts)]
    # 1.txt and 01.txt have the same number: without the name itself, the file system would order them.
    return numbered, label, path.name


def read(folder: pathlib.Path) -> Iterator[Review]:
    """The reviews of a folder, in the order of `texts_of`; memory holds one at a time.

    Raises:
      InputError: at the first file that holds no review; the message names it.
    """
    for path, label in texts_of(folder):
        with readable(path):
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
                raise InputError(f"Each .txt must be a file, but {path} is not one; remove it.")
            text = "".join(Text(Source(path)).blocks())
        if not text.strip():
            raise InputError(f"Each file must hold a review, but {path} is empty; write one, or remove it.")
        yield Review(text.encode(), label)


@contextlib.contextmanager
def readable(path: pathlib.Path) -> Iterator[None]:
    """Turns an OSError into an InputError that names the path, because the files are the user's."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--dataset must name files that can be read, but {path} cannot: {files.reason(error)}; "
            f"make it readable, or name others."
        ) from error
