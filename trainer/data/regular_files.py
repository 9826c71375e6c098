"""Files of the cache, where others may have put something else: only regular files are read, only what is ours is removed."""

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import stat
from collections.abc import Callable, Iterator

from absl import logging

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)


def open_regular(path: pathlib.Path) -> int:
    """Opens a regular file, or one that a link leads to, for reading; returns its descriptor.

    Raises:
      ValueError: when there is none; a pipe or a device is neither waited for nor touched.
      OSError: when it is there and cannot be opened.
    """
    try:
        # Looked at first, because some devices act when they are opened.
        if path.is_file():
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if stat.S_ISREG(os.fstat(file).st_mode):
                return file
            os.close(file)
    except OSError as error:
        if error.errno not in _NOTHING_THERE:
            raise
        raise ValueError(f"{path.name} is not there") from error
    raise ValueError(f"{path.name} is not a file")


def read_regular(path: pathlib.Path, *, limit: int) -> bytes:
    """The content of a regular file; errors as of `open_regular`, and ValueError beyond `limit` bytes."""
    with open(open_regular(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise ValueError(f"{path.name} has more than {limit} bytes")
        return file.read()


@contextlib.contextmanager
def locked(path: pathlib.Path, *, create: bool = True, wait: bool = True) -> Iterator[None]:
    """Holds a lock file; never one behind a link, which may be anybody's.

    Raises:
      OSError: when it cannot be opened or made; BlockingIOError, when another process holds it and this one does not wait.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    file = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "Its lock is not a file", str(path))
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(file)


def holds_only(folder: pathlib.Path, is_ours: Callable[[str], bool]) -> bool:
    """Whether a path is a folder, no link, with nothing below it but folders and files whose names are ours."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return all(
            holds_only(pathlib.Path(entry.path), is_ours)
            if entry.is_dir(follow_symlinks=False)
            else entry.is_file(follow_symlinks=False) and is_ours(entry.name)
            for entry in entries
        )


def move_aside(path: pathlib.Path) -> None:
    """Renames what lies where a file or folder of ours has to be, and is not; says so."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.aside")
    path.rename(aside)
    logging.warning("%s is not what belongs there; it is kept as %s.", path, aside.name)
