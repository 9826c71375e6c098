"""Folders of texts, as in IMDB's own archive: a folder for each class with a .txt for each review."""

import contextlib
import os
import pathlib
import re
import stat
from collections.abc import Iterable, Iterator

from trainer import files
from trainer.data.compression import Source
from trainer.data.review_rows import BadRow, Row
from trainer.data.text_encoding import NOT_UTF8, Text, is_damaged
from trainer.errors import InputError
from trainer.labels import natural_key

UNLABELLED = ("unsup", "unlabeled", "unlabelled")
SPLITS = ("train", "validation", "test", "dev", "valid", "val")

_TEXT = re.compile(r"[^.].*\.txt(\.(gz|bz2|xz|zst))?", re.IGNORECASE)
# Messages of 20 newsgroups and of SpamAssassin: no suffix, or a number or a digest.
_PLAIN = re.compile(r"[^.]+(\.(\d+|[0-9a-f]{8,}))?(\.(gz|bz2|xz|zst))?", re.IGNORECASE)


def classes_of(folder: pathlib.Path) -> list[str]:
    """The folders of texts that a folder holds, in natural order; empty if it is not a folder.

    Folders of unlabelled reviews and of whole splits are not among them.

    Raises:
      OSError: when it can't be read.
    """
    return _classes(folder, _TEXT)


def plain_classes_of(folder: pathlib.Path) -> list[str]:
    """The same for texts without a suffix, or with a number or a digest as theirs, where there is no .txt."""
    return [] if classes_of(folder) else _classes(folder, _PLAIN)


def _classes(folder: pathlib.Path, pattern: re.Pattern[str]) -> list[str]:
    if not folder.is_dir():
        return []
    names = (
        path.name
        for path in folder.iterdir()
        if path.name[0] != "." and path.name.lower() not in (*UNLABELLED, *SPLITS) and path.is_dir()
    )
    return sorted((name for name in names if any(_texts(folder / name, pattern))), key=natural_key)


def unlabelled_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders of unlabelled reviews that a folder holds."""
    return [folder / name for name in UNLABELLED if (folder / name).is_dir()]


def unread_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files beside the texts of the classes that a folder holds, hidden ones left out."""
    pattern = _TEXT if classes_of(folder) else _PLAIN
    others = (
        path
        for name in _classes(folder, pattern)
        for path in (folder / name).iterdir()
        if path.name[0] != "." and not pattern.fullmatch(path.name) and path.is_file()
    )
    return sorted(others)


def _texts(folder: pathlib.Path, pattern: re.Pattern[str]) -> Iterator[pathlib.Path]:
    matching = (path for path in folder.iterdir() if pattern.fullmatch(path.name))
    # A folder hardly ends in .txt: that is an error, found where it is opened.
    return matching if pattern is _TEXT else (path for path in matching if path.is_file())


def texts_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """The texts of all classes, in the natural order of their names, 9.txt before 10.txt.

    For equal names, the order is that of the classes.

    Raises:
      InputError: when a class can't be read.
    """
    texts = []
    with readable(folder):
        pattern = _TEXT if classes_of(folder) else _PLAIN
        names = _classes(folder, pattern)
    for number, name in enumerate(names):
        with readable(folder / name):
            texts += [(path, number) for path in _texts(folder / name, pattern)]
    return [path for path, _ in sorted(texts, key=_natural_order)]


def texts_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """All texts in a folder and in the folders within it, in the natural order of their paths.

    Raises:
      InputError: when a folder can't be read.
    """
    texts = []
    for top, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if name[0] != "."]
        texts += [pathlib.Path(top, name) for name in names if _TEXT.fullmatch(name)]
    return sorted(texts, key=lambda path: [(natural_key(part), part) for part in path.parts])


def _raise(error: OSError) -> None:
    with readable(pathlib.Path(error.filename)):
        raise error


def _natural_order(entry: tuple[pathlib.Path, int]) -> tuple[list[int | str], int, str]:
    path, number = entry
    # 1.txt and 01.txt have the same number: without the name itself, the file system would order them.
    return natural_key(path.name), number, path.name


def read(texts: Iterable[pathlib.Path], encoding: str) -> Iterator[tuple[str, Row | BadRow]]:
    """The reviews of texts, each with its path and the name of its folder as its label.

    Memory holds one at a time. `encoding` is as in `review_rows.Options`.

    Raises:
      InputError: when a text can't be read; the message names it.
    """
    for number, path in enumerate(texts, start=1):
        yield str(path), row_of(number, open_text(path), encoding)


def open_text(path: pathlib.Path) -> Source:
    """The bytes of a text; raises InputError when it can't be read."""
    with readable(path):
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise InputError(f"Each .txt must be a file, but {path} is not one; remove it.")
        return Source(path)


def row_of(number: int, source: Source, encoding: str) -> Row | BadRow:
    """The review of a text, with the name of its folder as its label; arguments as in `read`."""
    text = "".join(Text(source, encoding).blocks())
    if is_damaged(text):
        return BadRow(number, 1, NOT_UTF8, NOT_UTF8)
    if not text.strip():
        return BadRow(number, 1, "the text is empty", "it is empty")
    return Row(number, 1, text.encode(), source.path.parent.name if source.path else None)


@contextlib.contextmanager
def readable(path: pathlib.Path) -> Iterator[None]:
    """Turns an OSError into an InputError that names the path, because the files are the user's."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"Files of reviews must be readable, but {path} is not: {files.reason(error)}; "
            f"make it readable, or name others."
        ) from error
