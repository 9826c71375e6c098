"""The lock of a run directory: one writer at a time."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

from trainer import files, machine
from trainer.errors import InputError, StorageError

FILES = ("config.flags", "manifest.json", "starts.jsonl", "vocabulary.txt", "result.json", "lock")
FOLDERS = ("checkpoints", "best", "quarantine", "summaries", "export")

_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EMFILE,
    errno.ENFILE,
}  # caused by the disk or the system, not by the given path
_LOCK_SECS = 0.3  # how long to wait for the lock, which `is_held` takes briefly
_held: dict[pathlib.Path, files.HeldDirectory] = {}  # the run directories that this process writes


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
    """Creates the run directory if it is missing, and locks it; the lock ends with the process at the latest.

    Raises:
      InputError: when it can't be created or written, holds something that is not a run, or is locked by
        another process.
      StorageError: when the disk is full or fails.
    """
    try:
        files.make_directory_or_fail(workdir)
        entries = {entry.name for entry in workdir.iterdir()}
        if entries and entries.isdisjoint(FILES + FOLDERS):
            raise InputError(
                f"--workdir must be new, empty or a run of this program, but {workdir} "
                f"holds {min(entries)!r}; give another directory."
            )
        held = files.HeldDirectory(workdir)
        lock = files.open_regular(workdir / "lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise files.not_written(workdir, files.reason(error)) from error
        raise InputError(
            f"--workdir must be a directory that can be written, but {error.filename or workdir} is not "
            f"({files.reason(error)}); give another directory."
        ) from error
    try:
        _take(lock, workdir)
        _held[workdir] = held
        yield
    finally:
        _held.pop(workdir, None)
        with contextlib.suppress(OSError):  # An error here must not hide why the program ends.
            os.close(lock)


def is_run(workdir: pathlib.Path) -> bool:
    """Whether there may be checkpoints, whose settings a start would use; reads none of them."""
    with contextlib.suppress(OSError):
        return any((workdir / name).is_dir() for name in ("checkpoints", "best"))
    return True


def held(workdir: pathlib.Path) -> files.HeldDirectory:
    """The run directory that `hold` has opened; otherwise it is created and opened now."""
    if workdir not in _held:
        files.make_directory(workdir)
        return files.HeldDirectory(workdir)
    return _held[workdir]


def _take(lock: int, workdir: pathlib.Path) -> None:
    until = time.monotonic() + _LOCK_SECS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise InputError(
                    f"Only one process at a time may train in {workdir}, but {_holder(lock)} does already; "
                    f"wait for it or stop it."
                ) from None
            time.sleep(0.05)
        except OSError as error:
            raise InputError(
                f"--workdir must be on a filesystem that can lock files, but {workdir} is not "
                f"({files.reason(error)}); give another directory."
            ) from None
    if _content(lock) is None:
        return  # A foreign file serves as the lock, but is not overwritten.
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(holder).encode(), 0)
        machine.sync(lock)
    except OSError as error:
        raise files.not_written(workdir / "lock", files.reason(error)) from error


def _content(lock: int) -> dict[str, Any] | None:
    # The content of a lock file of this program; {} when it is new or was truncated by a power loss; None
    # when it is not ours.
    try:
        text = os.pread(lock, 4096, 0)
    except OSError as error:
        raise StorageError(
            f"The lock of the run must be readable, but is not ({files.reason(error)}); check the disk."
        ) from error
    if not text.strip(b"\0"):
        return {}
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(text)
        return content if isinstance(content, dict) and content.keys() >= {"host", "pid"} else None
    return {} if text.startswith(b'{"host": ') else None


def _holder(lock: int) -> str:
    content = _content(lock) or {}
    try:
        return f"process {int(content['pid'])} on {str(content['host'])!r}"
    except (ValueError, KeyError, TypeError, OverflowError):
        return "another process"


def token(workdir: pathlib.Path) -> str | None:
    """A text unique to the process that holds, or last held, a run directory; None if there is none."""
    with contextlib.suppress(OSError, StorageError):
        lock = files.open_regular(workdir / "lock")
        try:
            content = _content(lock) or {}
        finally:
            os.close(lock)
        return str(content["token"]) if "token" in content else None
    return None


def is_held(workdir: pathlib.Path) -> bool:
    """Whether a process holds the run; changes nothing.

    The kernel's list of locks omits the processes of other PID namespaces. When the run is not in it, a
    shared lock is taken for an instant, for which `hold` waits.
    """
    with contextlib.suppress(OSError):
        lock = files.open_regular(workdir / "lock")
        try:
            if machine.is_locked(os.fstat(lock).st_ino):
                return True
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
    return False
