"""What XLA has compiled, kept in the cache folder, so that later starts need not compile it.

TensorFlow reads and writes only files in memory, so that no disk can make a step fail or change its bits.
This module copies them: verified ones into memory before the first step, new ones to the disk later.

    <cache_dir>/compiled/<key>/
      <entry>         a SHA-256 of key, name and content, then the content as TensorFlow wrote it
      lock            as in `data/cache_entry`
      <random>.tmp/   likewise

The key is that of the conditions of exactness, because what XLA makes of the same input depends on version,
CPU, threads and environment; TensorFlow's name for an entry is a hash of that input. Entries hold machine
code, so those that another user could have written are not read. Without a usable folder everything is
compiled, as before.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re

import tensorflow as tf

from trainer import files, machine
from trainer.config import Config
from trainer.data import cache_entry
from trainer.errors import TrainerError
from trainer.run import conditions
from trainer.tensorflow_setup import COMPILED

MOST_BYTES = 2**25  # of all entries; the oldest are removed. Those of one run have half a megabyte.

_FOLDER = "compiled"
_ENTRY = re.compile(r"\w+\.pb")
_HASH_BYTES = 32
_FAILURES = (OSError, TrainerError, tf.errors.OpError)


class CompiledCache:
    """The entries of this process's conditions; making one copies the valid ones into memory.

    No failure to read or write is reported: it costs the time to compile, and nothing else.

    Args:
      config: names the cache folder and the threads.
    """

    def __init__(self, config: Config) -> None:
        self._folder: pathlib.Path | None = None  # None: not used
        self._in_both: set[str] = set()  # the names of entries that need not be copied
        if COMPILED not in os.environ.get("TF_XLA_FLAGS", ""):
            return
        threads = config.intra_op_threads
        with contextlib.suppress(*_FAILURES):
            facts = {
                **conditions.conditions(numerics={}, intra_op_threads=threads),
                **{"threads": threads, "cores": machine.usable_cores(), "user": os.geteuid()},
            }
            key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
            self._folder = pathlib.Path(cache_entry.folder_of(config.cache_dir), _FOLDER, key)
            self._load(self._folder)

    def _load(self, folder: pathlib.Path) -> None:
        tf.io.gfile.makedirs(COMPILED)
        present = set(tf.io.gfile.listdir(COMPILED))
        for path in folder.iterdir():
            content = _verified(path) if _ENTRY.fullmatch(path.name) else None
            if content is not None:
                # In memory, "wb" appends to a file that is there, and an entry twice fails the step.
                if path.name not in present:
                    with tf.io.gfile.GFile(f"{COMPILED}/{path.name}", "wb") as file:
                        file.write(content)
                self._in_both.add(path.name)
                with contextlib.suppress(OSError):
                    os.utime(path)  # so that it is not among the oldest

    def keep(self) -> None:
        """Copies what was compiled since the last call to the disk."""
        with contextlib.suppress(*_FAILURES):
            if self._folder is None or not tf.io.gfile.isdir(COMPILED):
                return
            new = set(filter(_ENTRY.fullmatch, tf.io.gfile.listdir(COMPILED))) - self._in_both
            self._in_both |= new
            if new:
                with cache_entry.temporary_folder(self._folder, is_ours=_is_ours) as temporary:
                    for name in sorted(new):
                        _publish(name, temporary, self._folder)
                _remove_oldest(self._folder.parent)


def _publish(name: str, temporary: pathlib.Path, folder: pathlib.Path) -> None:
    with tf.io.gfile.GFile(f"{COMPILED}/{name}", "rb") as file:
        content = file.read()
    path = temporary / name
    path.touch(mode=0o600)
    path.write_bytes(_digest(folder.name, name, content) + content)
    cache_entry.publish(path, folder)


def _digest(key: str, name: str, content: bytes) -> bytes:
    return hashlib.sha256(f"{key}/{name}\n".encode() + content).digest()


def _verified(path: pathlib.Path) -> bytes | None:
    """The content of an entry; None unless this user wrote it, under this name in this folder."""
    with contextlib.suppress(OSError), os.fdopen(files.open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid == os.geteuid() and not status.st_mode & 0o022 and status.st_size <= MOST_BYTES:
            digest, content = file.read(_HASH_BYTES), file.read(status.st_size)
            return content if digest == _digest(path.parent.name, path.name, content) else None
    return None


def _is_ours(name: str) -> bool:
    return name == cache_entry.LOCK or _ENTRY.fullmatch(name) is not None


def _remove_oldest(folder: pathlib.Path) -> None:
    """Removes the entries that were not used for longest, of any conditions, until all are small enough."""
    entries = [path for path in folder.glob("*/*.pb") if _ENTRY.fullmatch(path.name)]
    facts = [(status.st_mtime_ns, status.st_size, path) for path in entries if (status := path.lstat())]
    excess = sum(size for _, size, _ in facts) - MOST_BYTES
    for _, size, path in sorted(facts):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
