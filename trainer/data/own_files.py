"""Finds the user's own files that a --dataset means: reviews.csv, csv:reviews.txt, or a folder of them."""

import difflib
import errno
import json
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from trainer import files
from trainer.data import review_folders, splits, tables
from trainer.data.review_folders import readable
from trainer.errors import InputError

KINDS = (*tables.KINDS, "folder")

_TABLE = re.compile(
    r"(?P<split>[^.].*?)(-\d+-of-\d+)?\.(?P<kind>csv|tsv|jsonl|json|parquet|arrow)(\.(gz|bz2|xz|zst))?",
    re.IGNORECASE,
)
_SHARD = re.compile(r"-\d+-of-\d+\.")
# Names that others give to our splits.
_ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}


Files = dict[str, list[pathlib.Path]]
"""Split -> its files in their order."""


class Found(NamedTuple):
    """The files of a corpus.

    Attributes:
      kind: one of KINDS, or empty if each file is recognised by itself.
      by_split: the files of each split in their order, or its folder of texts.
      is_single: whether there are no splits; all of it is called train.
    """

    kind: str
    by_split: Files
    is_single: bool


def has_kind(name: str) -> bool:
    """Whether a --dataset begins with the prefix of a kind, as in csv:reviews.txt."""
    kind, colon, _ = name.partition(":")
    return bool(colon) and kind in KINDS


def is_path(name: str, data_dir: str | None) -> bool:
    """Whether a --dataset is the path of something that exists, or that can't be looked at, or is a URI."""
    try:
        return bool(name) and (files.is_uri(name) or bool(pathlib.Path(data_dir or "", name).stat()))
    except ValueError:  # a NUL byte in the path
        return False
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def exists(name: str, data_dir: str) -> bool:
    """Whether the files of a --dataset, with or without their kind, exist in a folder."""
    return is_path(name.partition(":")[2] if has_kind(name) else name, data_dir)


def nearest(name: str, data_dir: str | None) -> str | None:
    """The path of an existing file or folder that is spelled nearly like a --dataset."""
    try:
        path = pathlib.Path(data_dir or "", name)
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    except (OSError, ValueError):
        return None
    return str(pathlib.Path(name).with_name(near[0])) if near and pathlib.Path(name).name else None


def parse_name(name: str, data_dir: str | None) -> tuple[str, pathlib.Path]:
    """The kind that a --dataset states, or an empty text, and its path.

    Raises:
      InputError: when the path is missing, or is not a path on this machine.
    """
    kind, _, path = name.partition(":") if has_kind(name) else ("", "", name)
    if not path:
        raise InputError(
            f"--dataset must name a path after {kind}:, but {name} was given; write it as in {kind}:reviews."
        )
    for given in (path, data_dir or ""):
        if files.is_uri(given):
            raise InputError(
                f"--dataset={name} must name files on this machine, but {given} was given; "
                f"copy or mount them and give their path."
            )
    return kind, pathlib.Path(data_dir or "", path)


def find(kind: str, root: pathlib.Path) -> Found:
    """The files of a kind at a path; of any kind, if it is empty.

    Raises:
      InputError: when there are none, or they can't be looked at; the message names the path.
    """
    with readable(root):
        if not root.exists():
            raise InputError(
                f"--dataset must name files that exist, but {root} does not; "
                f"a relative path starts from --data_dir, if given."
            )
        if root.is_file() and kind != "folder":
            return Found(kind or tables.kind_of(root), {"train": [root]}, is_single=True)
        if not root.is_dir():
            raise InputError(_not_a_folder(kind, root))
        if kind in ("", "arrow") and (saved := _saved_by_hugging_face(root)):
            return Found("arrow", saved, is_single=(root / "state.json").exists())
        if kind in ("", "folder"):
            if found := _folders_of_texts(root, review_folders.classes_of):
                return found
            _check_classes(root)
        by_split = _tables(kind, root)
        if not by_split and kind in ("", "folder"):
            if found := _folders_of_texts(root, review_folders.plain_classes_of):
                return found
            if kind:
                raise InputError(
                    f"A folder of reviews must hold a folder of .txt for each class, such as neg/ and pos/, "
                    f"or a folder with these for each split, but {root} holds no .txt in them; name another "
                    f"one."
                )
    if not by_split:
        ending = f".{kind}" if kind else "file of reviews"
        raise InputError(
            f"A folder must hold a folder of .txt for each class, or a {ending} for each split, such as "
            f"train.{kind or 'csv'}, but {root} holds neither; name a file, or another folder."
        )
    return Found(kind, by_split, is_single=False)


def _not_a_folder(kind: str, root: pathlib.Path) -> str:
    if kind == "folder":
        return (
            f"--dataset=folder: must name a folder, but {root} is not one; "
            f"give the path of a file alone, as in --dataset={root}."
        )
    return f"--dataset must name a file, but {root} is neither a file nor a folder; name another path."


def _folders_of_texts(root: pathlib.Path, classes_of: Callable[[pathlib.Path], list[str]]) -> Found | None:
    if len(classes_of(root)) > 1:
        return Found("folder", {"train": [root]}, is_single=True)
    named = [path for path in sorted(root.iterdir()) if splits.is_name(path.name)]
    of_splits = {path: classes_of(path) for path in named}
    if any(len(of_split) > 1 for of_split in of_splits.values()):
        return Found("folder", {path.name: [path] for path in named if of_splits[path]}, is_single=False)
    return None


def _check_classes(root: pathlib.Path) -> None:
    for folder in [root, *(path for path in sorted(root.iterdir()) if splits.is_name(path.name))]:
        if len(of_folder := review_folders.classes_of(folder)) == 1:
            raise InputError(
                f"A folder of reviews must hold a folder of .txt for each class, such as neg/ and pos/, but "
                f"{folder} holds only {of_folder[0]}/; add the others."
            )


def _tables(kind: str, root: pathlib.Path) -> Files:
    """Split -> its files, of a folder or of the only folder in it that has some, as on Hugging Face's hub."""
    if by_split := _tables_in(kind, root):
        return by_split
    inner = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name[0] != "."]
    found = [by_split for folder in inner if (by_split := _tables_in(kind, folder))]
    return found[0] if len(found) == 1 else {}


def _tables_in(kind: str, folder: pathlib.Path) -> Files:
    matches = [(path, _TABLE.fullmatch(path.name)) for path in sorted(folder.iterdir()) if path.is_file()]
    of_kind = [(path, match) for path, match in matches if match and kind in ("", match["kind"].lower())]
    by_split: Files = {}
    for path, match in of_kind:
        if splits.is_name(match["split"]):
            by_split.setdefault(match["split"], []).append(path)
    if not by_split and len(of_kind) == 1:  # all there is, whatever its name
        return {"train": [of_kind[0][0]]}
    return by_split


def _saved_by_hugging_face(root: pathlib.Path) -> Files:
    """Split -> its files, of a folder written by `datasets`' save_to_disk; empty if it is another one."""
    folders = {"train": root} if (root / "state.json").exists() else {}
    if (root / "dataset_dict.json").exists():
        folders = {path.name: path for path in sorted(root.iterdir()) if (path / "state.json").exists()}
    return {split: _arrow_files(folder) for split, folder in folders.items()}


def _arrow_files(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        state = json.loads(files.read(folder / "state.json", follow_links=True))
        return [folder / pathlib.PurePath(file["filename"]).name for file in state["_data_files"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise InputError(
            f"{folder / 'state.json'} must list the files that `datasets` saved by save_to_disk, but it does "
            f"not; save the dataset again."
        ) from None


def select(found: Found, wanted: Iterable[str]) -> Files:
    """The files of those splits that a run names and that exist; of all splits, if it names none.

    Validation and test are drawn from train where they are missing, so train is then among them.

    Raises:
      InputError: when none of these splits exists, or it is not clear which files belong to one of them.
    """
    names = set(wanted)
    if not names or "all" in names:
        names = set(found.by_split)
    selected = {name: of_split for name in sorted(names) if (of_split := _files_of(found, name))}
    if "train" not in names and names & {"validation", "test"} - selected.keys():
        selected |= {"train": of_train} if (of_train := _files_of(found, "train")) else {}
    if not selected and len(found.by_split) == 1:
        return {"train": next(iter(found.by_split.values()))}
    if not selected:
        likely = sorted(found.by_split, key=lambda name: "train" not in name.lower())
        raise InputError(
            f"A run must name splits that exist, but there is no {' or '.join(sorted(names))} among "
            f"{', '.join(found.by_split)}; name others, as in --train_split={likely[0]}."
        )
    return selected


def _files_of(found: Found, split: str) -> list[pathlib.Path]:
    alike = [name for name in found.by_split if name.lower() in _ALIASES.get(split, ())]
    names = [split] if split in found.by_split else alike or _partly(found, split)
    paths = [path for name in names for path in found.by_split[name]]
    is_sharded = len(names) == 1 and (
        found.kind == "arrow" or all(_SHARD.search(path.name) for path in paths)
    )
    if len(paths) > 1 and not is_sharded:
        raise InputError(
            f"It must be clear which file is the split {split}, but there are "
            f"{' and '.join(path.name for path in paths)} in {paths[0].parent}; remove one, or state its "
            f"kind, as in --dataset=csv:{paths[0].parent}."
        )
    return paths


def _partly(found: Found, split: str) -> list[str]:
    """The only name with an alias of this split alone among its words, as my_train has; empty: none.

    Where train has a name of its own, or there is a single file, the missing splits are drawn, as they
    always were.
    """
    if len(found.by_split) == 1 or any(name.lower() in _ALIASES["train"] for name in found.by_split):
        return []
    names: dict[str, list[str]] = {}
    for name in found.by_split:
        words = set(re.split(r"[\W\d_]+", name.lower()))
        of = [split for split, aliases in _ALIASES.items() if words & set(aliases)]
        if len(of) == 1:
            names.setdefault(of[0], []).append(name)
    partly = names.get(split, [])
    return partly if len(partly) == len(names.get("train", [])) == 1 else []


def further(found: Found, names: Iterable[str]) -> Files:
    """The files of those of these splits that exist."""
    return {name: paths for name in sorted(names) if (paths := _files_of(found, name))}


def to_read(found: Found, by_split: Files) -> Files:
    """The files that are read for each split: for a folder of texts, the texts in it."""
    if found.kind != "folder":
        return by_split
    return {split: review_folders.texts_of(folder) for split, (folder,) in by_split.items()}


def unread(found: Found, by_split: Files) -> list[pathlib.Path]:
    """The files beside the texts of the classes, which are not read."""
    folders = [paths[0] for paths in by_split.values()] if found.kind == "folder" else []
    return [path for folder in folders for path in review_folders.unread_of(folder)]


def unlabelled(found: Found, by_split: Files) -> list[pathlib.Path]:
    """The folders of unlabelled reviews beside those of the classes, which are not read."""
    folders = [paths[0] for paths in by_split.values()] if found.kind == "folder" else []
    return [path for folder in folders for path in review_folders.unlabelled_of(folder)]
