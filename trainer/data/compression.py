"""The bytes of a file or of standard input, decompressed from gzip, bzip2, xz or Zstandard."""

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import pathlib
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from trainer import files
from trainer.errors import InputError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

_BLOCK = 2**16
_SAMPLE = 2**20
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Source:
    """Bytes that can be looked at before they are read.

    Args:
      path: a file; None: standard input.

    Attributes:
      name: what messages call it.
      path: the same as the argument.
      compression: gzip, bzip2, xz or zstd; empty: none.
      sample: the first MiB after decompression, or all of it.
      is_complete: whether `sample` is all of it.
      can_reopen: whether `blocks` may be called more than once; not for a pipe.

    Raises:
      InputError: when it can't be read, or its compressed data are corrupt; so do the methods.
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self.path = path
        self.name = "standard input" if path is None else str(path)
        self.compression = ""
        self._copy: tempfile._TemporaryFileWrapper[bytes] | None = None
        with self._readable():
            self.can_reopen = path is not None and (path.is_file() or not path.exists())
            self._stream = self._open()
            self.sample = self._read_sample()
        self.is_complete = len(self.sample) < _SAMPLE and not self.is_terminal
        if self.can_reopen:
            self._stream.close()

    def blocks(self) -> Iterator[bytes]:
        """All bytes after decompression, in blocks; memory holds one."""
        with self._readable():
            if self.is_complete:
                yield self.sample
                return
            if not self.can_reopen:
                yield self.sample
                yield from self._read(self._stream)
                return
            with contextlib.closing(self._open()) as stream:
                yield from self._read(stream)

    def seekable(self) -> BinaryIO:
        """All bytes as a file that can be read at any position, as often as needed.

        What comes from a pipe or is compressed is copied to the disk.
        """
        if self.path is not None and self.can_reopen and not self.compression:
            return self.path.open("rb")
        if self._copy is None:
            self._copy = tempfile.NamedTemporaryFile()  # noqa: SIM115
            self._copy.writelines(self.blocks())
            self._copy.flush()
        return pathlib.Path(self._copy.name).open("rb")

    def _read(self, stream: BinaryIO) -> Iterator[bytes]:
        return iter(lambda: stream.read(_BLOCK), b"")

    def _read_sample(self) -> bytes:
        if self.is_terminal:  # what is typed is answered line by line
            return self._stream.readline()
        blocks = itertools.islice(self._read(self._stream), _SAMPLE // _BLOCK)
        return b"".join(blocks)[:_SAMPLE]

    @property
    def is_terminal(self) -> bool:
        """Whether someone types it."""
        return self.path is None and self._stream.isatty()

    def _open(self) -> BinaryIO:
        if self.path is not None:
            file = self.path.open("rb")
        elif sys.stdin is None:
            raise OSError("it is closed")
        else:
            stdin: Any = sys.stdin.buffer
            file = stdin if isinstance(stdin, io.BufferedReader) else io.BufferedReader(stdin)
        if self.path is None and file.isatty():
            return file
        start = file.peek(6)
        self.compression = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")
        if self.compression == "zstd":
            import pyarrow  # not at each start, because it takes a while

            return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
        openers: dict[str, Callable[[BinaryIO], Any]] = {
            "gzip": gzip.open,
            "bzip2": bz2.open,
            "xz": lzma.open,
        }
        return openers[self.compression](file) if self.compression else file

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            is_corrupt = not isinstance(error, OSError) or error.errno is None
            if self.compression and is_corrupt:
                raise InputError(
                    f"Compressed reviews must be whole, but {self.name} ({self.compression}) is cut short or "
                    f"corrupt: {error}; copy or download it again."
                ) from error
            reason = files.reason(error) if isinstance(error, OSError) else error
            if self.path is None:
                raise InputError(
                    f"Standard input must be readable, but it is not ({reason}); "
                    f"give some by --text or --input."
                ) from error
            raise InputError(
                f"A file of reviews must be readable, but {self.name} is not: {reason}; "
                f"make it readable, or name another file."
            ) from error


def without_suffix(path: pathlib.Path) -> pathlib.Path:
    """The path without the suffix of a compression: reviews.csv for reviews.csv.gz."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
