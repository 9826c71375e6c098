"""Entries of the cache folder: built in a temporary folder, then published by one rename, so never partial.

    <folder>/
      <entry>         a file or a folder
      lock            held briefly by a process that removes what another one left
      <random>.tmp/   a builder's temporary folder; the lock in it is held while the builder works

The cache may also hold foreign files. Only files that a builder made are removed, and no link is followed to
remove, lock or write anything.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator

from absl import logging

from trainer import files
from trainer.errors import InputError

LOCK = "lock"

IsOurs = Callable[[str], bool]
"""Whether a file of this name may be one that a builder made."""


def folder_of(cache_dir: str) -> str:
    """The folder that --cache_dir names; if that is empty, the user's cache folder.

    Raises:
      InputError: when it is in the home of a user who has none.
    """
    base = pathlib.PurePath(os.environ.get("XDG_CACHE_HOME", ""))
    # By the XDG Base Directory Specification, an empty or a relative value is ignored.
    given = cache_dir or str((base if base.is_absolute() else pathlib.PurePath("~/.cache")) / "trainer")
    try:
        return str(pathlib.Path(files.expand_home(given)))
    except LookupError:
        raise InputError(
            f"The encoded reviews must be kept in a folder, but {given} is in the home of an unknown user; "
            f"name another one by --cache_dir, as in --cache_dir=/tmp/cache."
        ) from None


def is_inside(path: pathlib.Path, cache_dir: str) -> bool:
    """Whether a path, with links resolved, is in the folder of --cache_dir; opens nothing."""
    try:
        return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder_of(cache_dir)))
    except (OSError, ValueError, InputError):  # ValueError: a NUL byte in the path
        return False


@contextlib.contextmanager
def locked(path: pathlib.Path, *, create: bool = True, wait: bool = True) -> Iterator[None]:
    """Holds a lock file; refuses a link, which could point to any file.

    Raises:
      BlockingIOError: when another process holds it and `wait` is False.
      OSError: when it can't be opened or created.
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


@contextlib.contextmanager
def temporary_folder(folder: pathlib.Path, *, is_ours: IsOurs) -> Iterator[pathlib.Path]:
    """Creates a folder inside `folder` to build entries in; removes those of killed builders.

    It is locked within the context, so that other builders see that it is in use.

    Raises:
      OSError: when it can't be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with removal_lock(folder):
            for leftover in folder.glob("*.tmp"):
                if _is_abandoned(leftover, is_ours):
                    # A builder that is about to exit may remove its own at the same time.
                    shutil.rmtree(leftover, ignore_errors=True)
            temporary = pathlib.Path(tempfile.mkdtemp(dir=folder, suffix=".tmp"))
            held.enter_context(locked(temporary / LOCK))
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def removal_lock(folder: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """The lock to hold while removing what another process may have left; meanwhile nothing is built."""
    return locked(folder / LOCK)


def _is_abandoned(leftover: pathlib.Path, is_ours: IsOurs) -> bool:
    """Whether this is the temporary folder of a builder that was killed."""
    with contextlib.suppress(OSError):  # its builder is at work, or it is another user's
        if not holds_only(leftover, is_ours):
            return False
        if not any(leftover.iterdir()):  # killed before it created its lock
            return True
        with locked(leftover / LOCK, create=False, wait=False):
            return True
    return False


def publish(built: pathlib.Path, folder: pathlib.Path) -> None:
    """Moves a finished entry, a file or a folder of files, into `folder`, durably.

    If two builders publish the same folder, the first one wins.
    """
    for path in (*built.iterdir(), built) if built.is_dir() else (built,):
        files.fsync(path)
    try:
        built.rename(folder / built.name)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # these mean that another builder was first
            raise
    files.fsync(folder)


def clear_place(path: pathlib.Path, temporary: pathlib.Path, *, is_ours: IsOurs) -> None:
    """Moves away what is at the path of an entry: into `temporary` if a builder made it, else aside."""
    if holds_only(path, is_ours):
        path.rename(temporary / f"{path.name}.torn")
    else:
        move_aside(path)


def holds_only(folder: pathlib.Path, is_ours: IsOurs) -> bool:
    """Whether a path is a folder, not a link, with only our files below it; no link or pipe is ours."""
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
    """Renames something that is at the path of an entry but is not one, and logs its new name."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.aside")
    path.rename(aside)
    logging.warning("%s is not an entry of the cache; it is kept as %s.", path, aside.name)
