"""Finds the user's own files that a --dataset such as csv:reviews.csv names."""

import errno
import pathlib
from typing import NamedTuple

from trainer import files
from trainer.data import review_folders, splits
from trainer.data.review_folders import readable
from trainer.errors import InputError

KINDS = ("csv", "tsv", "jsonl", "folder")


class Found(NamedTuple):
    """The file or folder of each split. `is_single`: a single one, which is not divided into splits."""

    by_split: dict[str, pathlib.Path]
    is_single: bool


def has_kind(name: str) -> bool:
    """Whether a --dataset begins with the prefix of a kind, as in csv:reviews.csv."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in KINDS


def is_folder(name: str, data_dir: str | None) -> bool:
    """Whether a --dataset is the path of a folder of texts, or of one that can't be read."""
    try:
        return bool(name and _folders_of_texts(pathlib.Path(data_dir or "", name)))
    except ValueError:  # a NUL byte in the path
        return False
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def parse_name(name: str, data_dir: str | None) -> tuple[str, pathlib.Path]:
    """The kind of a --dataset and its path.

    Raises:
      InputError: when the path is missing, or is not a path on this machine.
    """
    kind, _, path = name.partition(":") if has_kind(name) else ("folder", "", name)
    if not path:
        raise InputError(
            f"--dataset must name a path after {kind}:, but {name} was given; write it as in {kind}:reviews."
        )
    for given in (path, data_dir or ""):
        if files.is_uri(given):
            raise InputError(
                f"--dataset={kind}: must name files on this machine, but {given} was given; "
                f"copy or mount them and give their path."
            )
    return kind, pathlib.Path(data_dir or "", path)


def find(kind: str, root: pathlib.Path) -> Found:
    """The files or folders of a kind at a path.

    Raises:
      InputError: when there are none, or they can't be read; the message names the path.
    """
    with readable(root):
        if not root.exists():
            raise InputError(
                f"--dataset must name files that exist, but {root} does not; "
                f"a relative path starts from --data_dir, if given."
            )
        if kind == "folder":
            return _find_folders(root)
        if root.is_file():
            return Found({"train": root}, is_single=True)
        if not root.is_dir():
            raise InputError(
                f"--dataset must name a file, but {root} is neither a file nor a folder; name another path."
            )
        of_kind = [
            path for path in sorted(root.iterdir()) if path.suffix == f".{kind}" and path.name[0] != "."
        ]
        by_split = {path.stem: path for path in of_kind if path.is_file()}
    if not by_split:
        raise InputError(
            f"A folder must hold a .{kind} for each split, such as train.{kind}, but {root} holds none; "
            f"name a file, or another folder."
        )
    for split, path in by_split.items():
        if not splits.is_name(split):
            raise InputError(
                f"The name of a split's file must consist of letters, digits, - and _, and not be 'all', "
                f"but there is {path}; rename it."
            )
    return Found(by_split, is_single=False)


def _find_folders(root: pathlib.Path) -> Found:
    if not root.is_dir():
        raise InputError(
            f"--dataset=folder: must name a folder, but {root} is not one; "
            f"give a file with its kind, as in csv:{root}."
        )
    for folder in (root, *root.iterdir()):
        if len(classes := review_folders.classes_of(folder)) == 1:
            raise InputError(
                f"A folder of reviews must hold pos/ and neg/, but {folder} holds only {classes[0]}/; "
                f"add the other one."
            )
    folders = _folders_of_texts(root)
    if not folders:
        raise InputError(
            f"A folder of reviews must hold pos/ and neg/, or a folder with both for each split, "
            f"but {root} does not; name another one."
        )
    return Found(folders, is_single=folders.get("train") == root)


def _folders_of_texts(root: pathlib.Path) -> dict[str, pathlib.Path]:
    if len(review_folders.classes_of(root)) == 2:
        return {"train": root}
    named = [path for path in sorted(root.iterdir()) if splits.is_name(path.name)]
    return {path.name: path for path in named if len(review_folders.classes_of(path)) == 2}
