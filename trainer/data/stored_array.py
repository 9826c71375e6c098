"""The arrays of a token store: small files in memory, large ones read on demand, all of them checked."""

import hashlib
import os
import pathlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

import numpy as np

from trainer import files, machine
from trainer.errors import StorageError

IN_MEMORY_BYTES = 32 * 2**20  # of one file; the offsets of 4 million reviews fit
CHECKED_AT_ONCE_BYTES = 256 * 2**20  # of one store; checking them takes a quarter of a second
_CHUNK_BYTES = 2**20


class StoredArray:
    """A one-dimensional array in a file; only the parts that are indexed are read.

    A memory mapping would kill the process by SIGBUS when the file is truncated, and after some steps all of
    a large corpus would be resident.

    Args:
      path: the file, or a link to it.
      dtype: the dtype of its values.
      size: the required size of the file in bytes.

    Raises:
      ValueError: when the file has another size.
      OSError: one of `files.ABSENT` when there is no such file, another one when it can't be opened.
    """

    def __init__(self, path: pathlib.Path, dtype: str, *, size: int) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._file = files.open_regular(path, follow_links=True)
        weakref.finalize(self, os.close, self._file)
        self._length = size // self.dtype.itemsize
        if os.fstat(self._file).st_size != size:
            raise ValueError(f"{path.name} must have {size} bytes")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """The values of a slice without a step, or at an array of positions.

        Raises:
          StorageError: when the file can't be read, or was truncated.
        """
        size = self.dtype.itemsize
        if isinstance(index, slice):
            start, stop, _ = index.indices(self._length)
            count = max(0, stop - start)
            data = self._read(count * size, start * size)
        else:
            positions = np.where(index < 0, index + self._length, index)
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
                f"{self.path} must hold the encoded reviews, but it cannot be read ({files.reason(error)}); "
                f"fix that and start again, or name another folder by --cache_dir."
            ) from error
        if len(data) < count:
            raise StorageError(
                f"{self.path} must hold the encoded reviews, but it was truncated; "
                f"start again: it will be rebuilt."
            )
        return data

    def read_ahead(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Starts reading some slices in the background, so that indexing them does not wait for the disk."""
        size = self.dtype.itemsize
        for start, length in zip((starts * size).tolist(), (lengths * size).tolist(), strict=True):
            if length:  # to the kernel, a length of 0 means: up to the end of the file
                machine.read_ahead(self._file, start, length)

    def chunks(self) -> Iterator[np.ndarray]:
        """The whole array, piece by piece."""
        size = _CHUNK_BYTES // self.dtype.itemsize
        return (self[start : start + size] for start in range(0, self._length, size))

    @property
    def version(self) -> tuple[int, int]:
        """(bytes, mtime_ns) of the file; changes when it is written."""
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns


AnyArray = np.ndarray | StoredArray
"""An array in memory or in a file; both are indexed by slices and by arrays of positions."""


def open_array(path: pathlib.Path, dtype: str, *, size: int) -> AnyArray:
    """Opens an array, read-only; a small one is in memory. Arguments and errors: see `StoredArray`."""
    array = StoredArray(path, dtype, size=size)
    return array if size > IN_MEMORY_BYTES else array[:]


class Lengths:
    """The number of tokens of each review, computed from the offsets on demand."""

    def __init__(self, offsets: AnyArray) -> None:
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, reviews: slice | np.ndarray) -> np.ndarray:
        """The lengths of a slice, or of an array of reviews, int32."""
        if isinstance(reviews, slice):
            start, stop, _ = reviews.indices(len(self))
            return np.diff(self._offsets[start : max(start, stop) + 1]).astype(np.int32)
        return (self._offsets[reviews + 1] - self._offsets[reviews]).astype(np.int32)


def _pieces(array: AnyArray) -> Iterable[np.ndarray]:
    return array.chunks() if isinstance(array, StoredArray) else [array]


def damage(array: AnyArray, *, sha256: str, at_most: int, rises: bool = False) -> str | None:
    """What is wrong with the content of an array, or None.

    Args:
      array: it is read completely, in pieces.
      sha256: the expected checksum of its bytes, hexadecimal.
      at_most: the largest allowed value; the smallest is 0.
      rises: whether its values must start with 0, never decrease, and end with `at_most`.
    """
    digest, last = hashlib.sha256(), 0
    for piece in _pieces(array):
        if not piece.size:
            continue
        digest.update(piece.data)
        if int(piece.max()) > at_most or int(piece.min()) < 0:
            return f"holds a value that is not from 0 to {at_most}"
        if rises and (piece[0] < last or (piece[1:] < piece[:-1]).any()):
            return "holds decreasing offsets"
        last = int(piece[-1])
    if digest.hexdigest() != sha256:
        return "differs from what was written"
    if rises and last != at_most:
        return "does not end where the token ids do"
    return None


class Verification:
    """Checks large arrays in a thread, in parallel with training.

    Args:
      check: reads the arrays and returns what is wrong, or None.
      arrays: the arrays; the check is repeated when one of their files was written.
    """

    def __init__(self, check: Callable[[], str | None], arrays: Iterable[StoredArray]) -> None:
        self._check, self._arrays = check, list(arrays)
        self._begin()

    def _begin(self) -> None:
        self._versions = [array.version for array in self._arrays]
        self._outcome: Future[str | None] = Future()
        # A daemon, so that the process can exit without waiting for a slow disk.
        threading.Thread(target=self._run, args=(self._outcome,), daemon=True).start()

    def _run(self, outcome: "Future[str | None]") -> None:
        try:
            outcome.set_result(self._check())
        except Exception as error:
            outcome.set_exception(error)

    def result(self, *, wait: bool) -> str | None:
        """What is wrong with the arrays, or None; without `wait`, also None while the check is running.

        Raises:
          StorageError: when they can't be read.
        """
        if wait and self._versions != [array.version for array in self._arrays]:
            self._begin()
        return self._outcome.result() if wait or self._outcome.done() else None
