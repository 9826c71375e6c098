"""Durable writes, which a kill or a power loss cannot truncate, and reads of untrusted files.

The content of a run directory is untrusted. So only regular files are opened, links are followed only on
request, and the size of a read is limited.
"""

import contextlib
import errno
import os
import pathlib
import pwd
import re
import shutil
import stat
import weakref
from collections.abc import Iterator

from trainer import machine
from trainer.errors import InputError, StorageError

SMALL = 2**24  # bytes; larger than any text of this program except a vocabulary and a long history

_PATTERNS = "*?[]\\"  # characters that make TensorFlow read a name as a pattern


class UnexpectedFileError(OSError):
    """The path does not hold a regular file of the expected size."""


# Errors that mean: there is no such file. Any other OSError means that it can't be read, which says nothing
# about its content.
ABSENT = (FileNotFoundError, NotADirectoryError, UnexpectedFileError)


class HeldDirectory:
    """A directory that is held open, so that writes reach it even if its path changes meanwhile.

    Attributes:
      path: its name as the user gave it, for messages.
      plain: a name without pattern characters, for TensorFlow, which reads and removes files by pattern.

    Raises:
      OSError: when it can't be opened.
      InputError: when this system offers no plain name for it.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.plain = plain_directory(path, self._descriptor)

    def check(self) -> None:
        """Raises StorageError when the directory was moved, replaced or unmounted since it was opened."""
        try:
            there = path_identity(self.path)
        except OSError as error:
            raise StorageError(
                f"{self.path} must stay where it is while a run writes it, but it can't be found any more "
                f"({reason(error)}); put it back: "
                f"what was committed is in it, and the same command continues."
            ) from error
        here = os.fstat(self._descriptor)
        if there != (here.st_dev, here.st_ino):
            raise StorageError(
                f"{self.path} must stay the directory that the run began to write, but another one is there "
                f"now; put it back: what was committed is in it, and the same command continues."
            )


def plain_directory(path: pathlib.Path, descriptor: int) -> pathlib.Path:
    """A name of an open directory without pattern characters, for libraries that read names as patterns.

    Raises:
      InputError: when this system offers no such name.
    """
    if name := machine.descriptor_name(descriptor):
        return name
    plain = path.absolute()
    if any(char in str(plain) for char in _PATTERNS):
        patterns = " ".join(_PATTERNS)
        raise InputError(f"Without /proc, a path must hold none of {patterns}, but {plain} does; rename it.")
    return plain


def path_identity(path: pathlib.Path) -> tuple[int, int]:
    """Device and inode, which identify a file or a directory on this machine whatever its name."""
    status = path.stat()
    return status.st_dev, status.st_ino


def expand_home(path: str) -> str:
    """Replaces a leading ~ or ~user by that user's home folder; other paths are returned unchanged.

    Raises:
      LookupError: when the home is not known.
    """
    name, slash, rest = path.partition("/")
    if not name.startswith("~"):
        return path
    home = os.environ.get("HOME", "") if name == "~" else ""
    if not home.startswith("/"):
        home = (pwd.getpwuid(os.getuid()) if name == "~" else pwd.getpwnam(name[1:])).pw_dir
    if not home.startswith("/"):
        raise LookupError(f"the home of {name} is {home!r}")
    return f"{home.rstrip('/')}{slash}{rest}" or "/"


@contextlib.contextmanager
def plain_name(path: pathlib.Path) -> Iterator[str]:
    """Yields a name of `path` that TensorFlow takes literally; its last part must have no pattern."""
    held = HeldDirectory(path.parent)
    yield str(held.plain / path.name)
    del held  # not earlier: this closes the descriptor


def is_regular(path: pathlib.Path) -> bool:
    """Whether there is a regular file of this name, and not a link to one."""
    with contextlib.suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def is_uri(path: str) -> bool:
    """Whether a path is not one of this machine's, as in gs://bucket/reviews.csv."""
    return re.match("[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def open_regular(path: pathlib.Path, flags: int = os.O_RDONLY, *, follow_links: bool = False) -> int:
    """Opens a regular file; never blocks on a pipe.

    Args:
      path: the file's name.
      flags: as `os.open` takes them.
      follow_links: whether a link to a regular file is accepted.

    Returns:
      Its descriptor.

    Raises:
      UnexpectedFileError: when it is not a regular file.
      OSError: when it can't be opened.
    """
    irregular = UnexpectedFileError(errno.EINVAL, "it is not a regular file", str(path))
    try:
        # If links are followed, check before opening: some devices act when they are opened.
        if follow_links and not stat.S_ISREG(path.stat().st_mode):
            raise irregular
        no_follow = 0 if follow_links else os.O_NOFOLLOW
        descriptor = os.open(path, flags | no_follow | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnexpectedFileError(errno.ELOOP, "it is a link", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise irregular
    return descriptor


def read(path: pathlib.Path, *, limit: int = SMALL, follow_links: bool = False) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
      UnexpectedFileError: when it is not a regular file, or is larger.
      OSError: when it can't be read.
    """
    with os.fdopen(open_regular(path, follow_links=follow_links), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            why = f"it has {size} bytes, and at most {limit} are read"
            raise UnexpectedFileError(errno.EFBIG, why, str(path))
        return file.read(size)  # not `limit`, for which Python would allocate a buffer


def entries(directory: pathlib.Path) -> list[pathlib.Path]:
    """The paths in a directory, sorted by name; empty if there is no directory.

    Raises:
      StorageError: when the directory exists but can't be read.
    """
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise not_readable(directory, reason(error)) from error


def make_directory(path: pathlib.Path) -> None:
    """Creates a missing directory and its parents durably; raises StorageError when that fails."""
    with storage_errors(path):
        make_directory_or_fail(path)


def make_directory_or_fail(path: pathlib.Path) -> None:
    """The same as `make_directory`, but raises OSError."""
    if not path.is_dir():
        make_directory_or_fail(path.parent)
        path.mkdir(exist_ok=True)
        fsync(path.parent)


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Replaces the content of a file durably: after a crash, the complete old or new content is there.

    Raises:
      StorageError: when it can't be written; the old content is kept.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        # Always a new file: a leftover under this name may be a link to any file.
        temporary.unlink(missing_ok=True)
        descriptor = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            machine.sync(file.fileno())
        temporary.replace(path)
        fsync(path.parent)


def append_line(path: pathlib.Path, line: str) -> None:
    """Appends a line to a file durably; drops an incomplete last line, left by a kill."""
    with storage_errors(path):
        try:
            whole, _, _ = read(path, limit=2**26).rpartition(b"\n")
        except FileNotFoundError:
            whole = b""
    write_atomically(path, whole + b"\n" * bool(whole) + line.encode() + b"\n")


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link or a folder durably, if it exists. The target of a link is kept.

    Raises:
      StorageError: when it can't be removed.
    """
    with storage_errors(path):
        if path.is_symlink() or not path.is_dir():
            if not path.is_symlink() and not path.exists():
                return
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)
        fsync(path.parent)


def fsync(path: pathlib.Path) -> None:
    """Waits until a file's content, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        machine.sync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns an OSError at `path` into a StorageError that names the path and the free space."""
    try:
        yield
    except OSError as error:
        raise not_written(path, reason(error)) from error


def reason(error: OSError) -> str:
    """Why a system call failed, in a few words."""
    return error.strerror or str(error) or type(error).__name__


def not_written(path: pathlib.Path, why: str) -> StorageError:
    """The error for a path that could not be written; names the free space there."""
    return StorageError(
        f"{path} could not be written ({why}; {free_space(path)}); "
        f"what was committed stays, the same command continues."
    )


def not_readable(path: pathlib.Path, why: str) -> StorageError:
    """The error for a path that exists but can't be read, which says nothing about its content."""
    return StorageError(
        f"{path} could not be read ({why}); nothing was changed: fix that, and the same command continues."
    )


def free_space(path: pathlib.Path) -> str:
    """The free space of the filesystem of `path`, which need not exist, in words."""
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB free in {folder}"
    return "nothing is mounted there"
