"""Snapshots of a folder, and the changes between two of them."""

import hashlib
import os
import pathlib
import stat
from collections.abc import Iterable

Snapshot = dict[str, tuple[object, ...]]


def snapshot(folder: pathlib.Path) -> Snapshot:
    """Everything below a folder, without following links: relative path -> mode, size, time and content."""
    found: Snapshot = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = pathlib.Path(parent, name)
            status = path.lstat()
            found[str(path.relative_to(folder))] = (status.st_mode, *_content(path, status))
    return found


def _content(path: pathlib.Path, status: os.stat_result) -> tuple[object, ...]:
    if stat.S_ISLNK(status.st_mode):
        return (str(path.readlink()),)
    if not stat.S_ISREG(status.st_mode):
        return ()
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if status.st_size < 2**26 else ""
    return (status.st_size, status.st_mtime_ns, digest)


def touched(before: Snapshot, after: Snapshot, *, may_grow: Iterable[str] = ()) -> list[str]:
    """Paths changed, removed or created between two snapshots; new files in `may_grow` are allowed."""
    wrong = [f"{path} is gone" for path in before if path not in after]
    wrong += [f"{path} was changed" for path in before if path in after and before[path] != after[path]]
    growing = tuple(f"{folder}/" for folder in may_grow)
    new = [path for path in after if path not in before and not path.startswith(growing)]
    return wrong + [f"{path} was made" for path in new]
