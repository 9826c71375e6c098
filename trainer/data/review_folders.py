"""Folders of texts, as IMDB's own archive has them: pos/ and neg/ with a .txt a review."""

import contextlib
import pathlib
import re
import stat
from collections.abc import Iterator

from trainer.data import review_files
from trainer.data.review_files import Row
from trainer.errors import InputError

CLASSES = ("neg", "pos")


def classes_of(folder: pathlib.Path) -> list[str]:
    """Which of neg and pos a folder holds; raises OSError when it cannot be looked into."""
    return [name for name in CLASSES if (folder / name).is_dir()]


def texts_of(folder: pathlib.Path) -> list[tuple[pathlib.Path, int]]:
    """The texts of both classes, each with its label, in the natural order of their names: 9.txt, 10.txt; of one name the negative first.

    Raises:
      InputError: when a class has none or cannot be read.
    """
    texts = []
    for label, name in enumerate(CLASSES):
        with readable(folder / name):
            of_class = [
                (path, label)
                for path in (folder / name).iterdir()
                if path.suffix == ".txt" and not path.name.startswith(".")
            ]
        if not of_class:
            raise InputError(f"Both classes must have reviews, but {folder / name} holds no .txt.")
        texts += of_class
    return sorted(texts, key=_natural_order)


def _natural_order(entry: tuple[pathlib.Path, int]) -> tuple[list, int, str]:
    path, label = entry
    parts = re.split("([0-9]+)", path.name)  # every other one a number
    # 1.txt and 01.txt have one number: without the name itself, their order would be that of the file system.
    return [int(part) if at % 2 else part for at, part in enumerate(parts)], label, path.name


def read(folder: pathlib.Path) -> Iterator[Row]:
    """The reviews of a folder, in the order of `texts_of`; memory holds one of them.

    Raises:
      InputError: at the first file that holds no review; the sentence names it.
    """
    for path, label in texts_of(folder):
        with readable(path):
            if not stat.S_ISREG(path.stat().st_mode):  # Whoever opens a pipe waits for its writer.
                raise InputError(f"Each .txt must be a file, but {path} is none.")
            text = "".join(review_files.lines_of(path))
        if not text.strip():
            raise InputError(f"Each file must hold a review, but {path} is empty.")
        yield Row(1, text.encode(), label)


@contextlib.contextmanager
def readable(path: pathlib.Path) -> Iterator[None]:
    """Within it a path that cannot be looked at or read is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--dataset must name files that can be read, but {path} cannot: {error.strerror}."
        ) from error
