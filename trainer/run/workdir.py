"""The run directory: one writer at a time, and files that are whole after a kill or a power loss."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator

from trainer import InputError, StorageError

FILES = ("config.flags", "manifest.json", "starts.jsonl", "vocabulary.txt", "result.json", "lock")
FOLDERS = ("checkpoints", "best", "quarantine", "summaries", "export")


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
    """Makes the run directory where it is missing and holds it for this process; the kernel lets go of it when the process dies.

    Raises:
      InputError: when it cannot be made or written, holds something that is not a run, or is held by another process.
    """
    try:
        _make_directory(workdir)
        entries = {entry.name for entry in workdir.iterdir()}
        if entries and entries.isdisjoint(FILES + FOLDERS):
            raise InputError(
                f"--workdir must be new, empty or a run of this program, but {workdir} holds {min(entries)!r}; name another directory."
            )
        descriptor = os.open(workdir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"--workdir must be a directory that can be written, but {workdir} is not: {error.strerror}.") from None
    with os.fdopen(descriptor, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"One process at a time may train in {workdir}, but {_holder(lock.read())} does; wait for it or stop it."
            ) from None
        except OSError as error:
            raise InputError(
                f"--workdir must lie on a filesystem that can lock files, but {workdir} does not: {error.strerror}; name another."
            ) from None
        lock.truncate()
        lock.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": os.urandom(8).hex()}))
        lock.flush()
        yield


def is_held(workdir: pathlib.Path) -> bool:
    """Whether a process of this machine holds the run; told from the kernel's list, since to try the lock would be to hold it."""
    with contextlib.suppress(OSError):
        inode = (workdir / "lock").stat().st_ino
        return any(
            line.split()[5].rpartition(":")[2] == str(inode)
            for line in pathlib.Path("/proc/locks").read_text().splitlines()
            if "->" not in line
        )
    return False


def token(workdir: pathlib.Path) -> str | None:
    """What the process that holds the run wrote there to tell it from any other; None: nothing."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((workdir / "lock").read_text())["token"])
    return None


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {int(holder['pid'])} on {str(holder['host'])!r}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def make_directory(path: pathlib.Path) -> None:
    """Makes a directory where it is missing, with its parents, durably."""
    with storage_errors(path):
        _make_directory(path)


def _make_directory(path: pathlib.Path) -> None:
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(exist_ok=True)
        fsync(path.parent)


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Replaces a file by `data`, durably: whatever happens, the old or the new content is there, whole.

    Raises:
      StorageError: when it cannot be written; the old content stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync(path.parent)


def keep_copy(path: pathlib.Path, data: bytes) -> None:
    """Writes a file unless it holds `data` already."""
    with storage_errors(path):
        if path.exists() and path.read_bytes() == data:
            return
    write_atomically(path, data)


def append_line(path: pathlib.Path, line: str) -> None:
    """Appends a line to a file, durably; a torn last line, left by a kill, is dropped."""
    with storage_errors(path):
        whole, _, _ = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
    write_atomically(path, whole + b"\n" * bool(whole) + line.encode() + b"\n")


def remove(path: pathlib.Path) -> None:
    """Removes a file or a folder, durably; one that is not there is fine."""
    with storage_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            return
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
        raise not_written(path, error.strerror) from error


def not_written(path: pathlib.Path, reason: str) -> StorageError:
    """The error for a path that could not be written; names the space that is left there."""
    return StorageError(f"{path} could not be written ({reason}; {free_space(path)}); what was committed stays, the same command goes on.")


def free_space(path: pathlib.Path) -> str:
    """How much can be written where `path` is, or would be."""
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB free in {folder}"
    return "nothing is mounted there"
