"""Files: durable writes that are whole after a kill or a power loss, and reads that trust nothing.

What a run directory holds may come from a stranger, so only regular files are opened, links only where the
caller says so, and no more is read than the reader can use.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import stat
import weakref
from collections.abc import Iterator

from trainer import InputError, StorageError

SMALL = 2**24  # bytes; more than any text that this program writes but a vocabulary and a long history

_PATTERNS = "*?[]\\"  # what TensorFlow takes for a pattern in a name


class UnexpectedFileError(OSError):
    """Something else is there than the regular file, of bounded size, that its reader expects."""


# There is no such file. Any other OSError means that it can't be read, which says nothing about its content.
ABSENT = (FileNotFoundError, NotADirectoryError, UnexpectedFileError)


class HeldDirectory:
    """A directory that is held open: what was opened is what is written, wherever its name leads meanwhile.

    Attributes:
      path: its name as the user gave it, for messages.
      plain: a name without patterns, for TensorFlow, which reads and removes files by patterns.

    Raises:
      OSError: when it can't be opened.
      InputError: when no plain name of it can be had on this system.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.plain = pathlib.Path(f"/proc/self/fd/{self._descriptor}")
        if not self.plain.is_dir():
            self.plain = path.absolute()
            if any(char in str(self.plain) for char in _PATTERNS):
                raise InputError(f"Without /proc, a path must hold none of {' '.join(_PATTERNS)}, but {path} does; rename it.")

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


def path_identity(path: pathlib.Path) -> tuple[int, int]:
    """Device and inode, which identify a file or a directory of this machine whatever its name."""
    status = path.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def plain_name(path: pathlib.Path) -> Iterator[str]:
    """A name of `path` that TensorFlow takes literally, within the context; no pattern in its last part."""
    held = HeldDirectory(path.parent)
    yield str(held.plain / path.name)
    del held  # only now: its descriptor is closed with it


def is_regular(path: pathlib.Path) -> bool:
    """Whether there is a regular file of this name, and not a link to one."""
    with contextlib.suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def is_uri(path: str) -> bool:
    """Whether a path is not one of this machine's, as in gs://bucket/reviews.csv."""
    return re.match("[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def open_regular(path: pathlib.Path, flags: int = os.O_RDONLY, *, follow_links: bool = False) -> int:
    """Opens a regular file, without waiting for the writer of a pipe.

    Args:
      path: the file's name.
      flags: as `os.open` takes them.
      follow_links: whether a link to a regular file is fine.

    Returns:
      Its descriptor.

    Raises:
      UnexpectedFileError: when it is something else than a regular file.
      OSError: when it can't be opened.
    """
    irregular = UnexpectedFileError(errno.EINVAL, "it is not a regular file", str(path))
    try:
        # Looked at first where links are followed, because some devices act when they are opened.
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
      UnexpectedFileError: when it is something else than a regular file, or larger.
      OSError: when it can't be read.
    """
    with os.fdopen(open_regular(path, follow_links=follow_links), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            why = f"it has {size} bytes, and at most {limit} are read"
            raise UnexpectedFileError(errno.EFBIG, why, str(path))
        return file.read(size)  # not `limit`: a buffer of that many bytes would be allocated


def make_directory(path: pathlib.Path) -> None:
    """Makes a missing directory, with its parents, durably; raises StorageError when it can't be made."""
    with storage_errors(path):
        make_directory_or_fail(path)


def make_directory_or_fail(path: pathlib.Path) -> None:
    """As `make_directory`, but raises OSError."""
    if not path.is_dir():
        make_directory_or_fail(path.parent)
        path.mkdir(exist_ok=True)
        fsync(path.parent)


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Replaces a file by `data`, durably: whatever happens, the old or the new content is there, whole.

    Raises:
      StorageError: when it can't be written; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        # Created new: what a kill, or a stranger, left under this name may be a link to any file.
        temporary.unlink(missing_ok=True)
        descriptor = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync(path.parent)


def append_line(path: pathlib.Path, line: str) -> None:
    """Appends a line to a file, durably; a torn last line, left by a kill, is dropped."""
    with storage_errors(path):
        try:
            whole, _, _ = read(path, limit=2**26).rpartition(b"\n")
        except FileNotFoundError:
            whole = b""
    write_atomically(path, whole + b"\n" * bool(whole) + line.encode() + b"\n")


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link or a folder, durably; one that is not there is fine. A link's target stays.

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
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns an OSError at `path` into a StorageError that names it, and the space left where that is why."""
    try:
        yield
    except OSError as error:
        raise not_written(path, reason(error)) from error


def reason(error: OSError) -> str:
    """Why a call of the system failed, in a few words."""
    return error.strerror or str(error) or type(error).__name__


def not_written(path: pathlib.Path, why: str) -> StorageError:
    """The error for a path that could not be written; names the space that is left there."""
    return StorageError(
        f"{path} could not be written ({why}; {free_space(path)}); "
        f"what was committed stays, the same command continues."
    )


def not_readable(path: pathlib.Path, why: str) -> StorageError:
    """The error for a path that is there and can't be read, which says nothing about its content."""
    return StorageError(
        f"{path} could not be read ({why}); nothing was changed: fix that, and the same command continues."
    )


def free_space(path: pathlib.Path) -> str:
    """How much can be written where `path` is, or would be."""
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB free in {folder}"
    return "nothing is mounted there"
