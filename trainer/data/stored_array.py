"""The arrays of a token store: small files in memory, large ones read as they are needed, all of them checked."""

import hashlib
import os
import pathlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

import numpy as np

from trainer import StorageError, machine
from trainer.data.regular_files import open_regular

IN_MEMORY_BYTES = 32 * 2**20  # of one file: offsets of 4 million reviews
CHECKED_AT_ONCE_BYTES = 256 * 2**20  # of one store: a quarter of a second
_CHUNK_BYTES = 2**20


class StoredArray:
    """A one-dimensional array in a file, of which what is asked for is read: by a slice or by an array of positions.

    A mapping would end the process by SIGBUS when the file is cut, and of a large corpus all would be resident after some steps.

    Args:
      path: errors as of `open_regular`.
      dtype: of its values.
      size: of the file, bytes; ValueError when it has another.

    Raises:
      StorageError: from each access, when the file cannot be read or was cut.
    """

    def __init__(self, path: pathlib.Path, dtype: str, *, size: int) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._file = open_regular(path)
        weakref.finalize(self, os.close, self._file)
        self._length = size // self.dtype.itemsize
        if os.fstat(self._file).st_size != size:
            raise ValueError(f"{path.name} must have {size} bytes")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, wanted: slice | np.ndarray) -> np.ndarray:
        size = self.dtype.itemsize
        if isinstance(wanted, slice):
            start, stop, _ = wanted.indices(self._length)
            count = max(0, stop - start)
            data = self._read(count * size, start * size)
        else:
            positions = np.where(wanted < 0, wanted + self._length, wanted)
            count = len(positions)
            data = b"".join([self._read(size, position * size) for position in positions.tolist()])
        return np.frombuffer(data, self.dtype, count)

    def _read(self, count: int, start: int) -> bytes:
        try:
            data = os.pread(self._file, count, start)
            while len(data) < count and (more := os.pread(self._file, count - len(data), start + len(data))):
                data += more
        except OSError as error:
            raise StorageError(
                f"{self.path} must hold the encoded reviews, but it cannot be read ({error.strerror}); "
                f"see to that and start again, or give another folder by --cache_dir."
            ) from error
        if len(data) < count:
            raise StorageError(f"{self.path} must hold the encoded reviews, but it was cut; start again: it is built anew.")
        return data

    def read_ahead(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Has the disk read some slices while something else is done, so that taking them need not wait."""
        size = self.dtype.itemsize
        for start, length in zip((starts * size).tolist(), (lengths * size).tolist(), strict=True):
            if length:  # none would mean: all up to the end of the file
                machine.read_ahead(self._file, start, length)

    def chunks(self) -> Iterator[np.ndarray]:
        """The whole array, piece by piece."""
        size = _CHUNK_BYTES // self.dtype.itemsize
        return (self[start : start + size] for start in range(0, self._length, size))

    @property
    def version(self) -> tuple[int, int]:
        """Changes when the file is written."""
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns


def open_array(path: pathlib.Path, dtype: str, *, size: int) -> StoredArray | np.ndarray:
    """An array in a file, read-only; in memory when it is small. Arguments and errors as of `StoredArray`."""
    array = StoredArray(path, dtype, size=size)
    return array if size > IN_MEMORY_BYTES else array[:]


def _pieces(array: StoredArray | np.ndarray) -> Iterable[np.ndarray]:
    return array.chunks() if isinstance(array, StoredArray) else [array]


def damage(array: StoredArray | np.ndarray, *, sha256: str, at_most: int, rises: bool = False) -> str | None:
    """What is wrong with the content of an array, or None.

    Args:
      array: all of it is read, in pieces.
      sha256: of its bytes, hexadecimal.
      at_most: no value may be larger, and none below 0.
      rises: whether its values begin with 0, never fall, and end with `at_most`.
    """
    digest, last = hashlib.sha256(), 0
    for piece in _pieces(array):
        if not piece.size:
            continue
        digest.update(piece.data)
        if int(piece.max()) > at_most or int(piece.min()) < 0:
            return f"holds a value that is not from 0 to {at_most}"
        if rises and (piece[0] < last or (piece[1:] < piece[:-1]).any()):
            return "holds offsets that fall"
        last = int(piece[-1])
    if digest.hexdigest() != sha256:
        return "is not what was written"
    return "does not end where the token ids do" if rises and last != at_most else None


class Verification:
    """The check of large arrays, in a thread beside training.

    Args:
      check: reads the arrays; returns what is wrong, or None.
      arrays: they are checked again once their files were written.
    """

    def __init__(self, check: Callable[[], str | None], arrays: Iterable[StoredArray]) -> None:
        self._check, self._arrays = check, list(arrays)
        self._begin()

    def _begin(self) -> None:
        self._versions = [array.version for array in self._arrays]
        self._outcome: Future[str | None] = Future()
        # A daemon: the end of the process must not wait for a slow disk.
        threading.Thread(target=self._run, args=(self._outcome,), daemon=True).start()

    def _run(self, outcome: "Future[str | None]") -> None:
        try:
            outcome.set_result(self._check())
        except Exception as error:
            outcome.set_exception(error)

    def result(self, *, wait: bool) -> str | None:
        """What is wrong with the arrays as they are now, or None; without `wait`, None also as long as that is not known.

        Raises:
          StorageError: when they cannot be read.
        """
        if wait and self._versions != [array.version for array in self._arrays]:
            self._begin()
        return self._outcome.result() if wait or self._outcome.done() else None
