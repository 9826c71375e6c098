"""The encoded corpus on disk: every review tokenized once, then opened by each run in constant time and kept in memory by none.

    <cache_dir>/<dataset>-<version>-<key>/
      vocabulary.txt
      <split>/ token_ids.bin, offsets.bin, labels.bin, manifest.json
      <random>.tmp/   a builder at work, or what a killed one left

A store is built in a temporary folder and appears by one rename, so that it is whole or not there; of two builders the first one's stays.
"""

import contextlib
import dataclasses
import errno
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import urllib.parse
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from trainer import InputError, StorageError
from trainer.data.datasets import Corpus
from trainer.data.vocabulary import STANDARDISER_ID, Vocabulary, build_vocabulary, on_all_cores

FORMAT = 1
FILES = ("token_ids", "offsets", "labels")
READ_AHEAD_BYTES = 64 * 2**20


class TokenFile:
    """The token ids of a corpus, review after review; a slice of it is read from the file when it is taken.

    Reading is as fast as a mapping, and memory holds what was read. A file that is mapped is resident in pieces of up to 2 MiB around
    whatever is touched: of a large corpus all of it, after some steps.
    """

    def __init__(self, path: pathlib.Path, dtype: str) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._tokens = os.fstat(self._file).st_size // self.dtype.itemsize

    @property
    def is_large(self) -> bool:
        """Whether it is long until all of it was read from the disk once, by batches of random reviews."""
        return self._tokens * self.dtype.itemsize > READ_AHEAD_BYTES

    def read_ahead(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Has the disk read the tokens of some reviews while something else is done, so that slices of them need not wait."""
        size = self.dtype.itemsize
        for start, length in zip((starts * size).tolist(), (lengths * size).tolist(), strict=True):
            if length:  # none would mean: all up to the end of the file
                os.posix_fadvise(self._file, start, length, os.POSIX_FADV_WILLNEED)

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self._tokens)
        size = self.dtype.itemsize
        try:
            return np.frombuffer(os.pread(self._file, (stop - start) * size, start * size), self.dtype, stop - start)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self.path} must hold the encoded reviews, but cannot be read ({error}); delete it: it is built anew."
            ) from error


class Lengths:
    """Tokens of each review, computed from the offsets when they are asked for: by a slice or by an array of reviews, int32."""

    def __init__(self, offsets: np.ndarray) -> None:
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, reviews: slice | np.ndarray) -> np.ndarray:
        return (self._offsets[1:][reviews] - self._offsets[:-1][reviews]).astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStore:
    """The encoded reviews of a split, in corpus order. Review i has the tokens offsets[i] .. offsets[i + 1] - 1."""

    token_ids: TokenFile  # [tokens] of the smallest unsigned type that holds the vocabulary
    offsets: np.ndarray  # [examples + 1] int64, mapped
    labels: np.ndarray  # [examples] uint8, 0 or 1, mapped
    path: pathlib.Path
    fingerprint: str  # hexadecimal sha256 of content and vocabulary; neither of paths nor of times

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def lengths(self) -> Lengths:
        """Tokens of each review."""
        return Lengths(self.offsets)


def prepare(*, corpus: Corpus, splits: Sequence[str], vocab_size: int, cache_dir: str) -> tuple[Vocabulary, dict[str, TokenStore]]:
    """Opens the vocabulary and the store of each split, after building those that are missing or torn.

    Args:
      corpus: where the reviews come from.
      splits: in TFDS' syntax; the first is the train split, and the vocabulary comes from it alone.
      vocab_size: the most tokens the vocabulary may have.
      cache_dir: the folder of all stores; written only where something is missing.

    Raises:
      InputError: when a split is unknown or empty.
      StorageError: when a store cannot be written, or the corpus cannot be read.
    """
    for split in splits:
        corpus.examples(split)
    folder = pathlib.Path(cache_dir).expanduser() / _folder_name(corpus, splits[0], vocab_size)
    with _storage_errors(folder):
        vocabulary = _find_vocabulary(folder, splits[0])
        stores = {split: _find(folder, corpus, split, vocabulary) for split in splits}
        if None not in stores.values():
            return vocabulary, stores
        with _workshop(folder) as workshop:
            vocabulary = vocabulary or _build_vocabulary(folder, corpus, splits[0], vocab_size, workshop)
            for split in splits:
                if _find(folder, corpus, split, vocabulary) is None:
                    _build(folder, corpus, split, vocabulary, workshop)
        return vocabulary, {split: _load(folder, corpus, split, vocabulary) for split in splits}


def folder_of(cache_dir: str) -> str:
    """The folder that --cache_dir names; when it is empty, the user's cache folder."""
    return cache_dir or str(pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "trainer")


def damage(path: pathlib.Path) -> str | None:
    """Reads a whole store and compares it with its checksums; what is wrong with it, or None."""
    try:
        files = json.loads((path / "manifest.json").read_bytes())["files"]
        for name in FILES:
            with (path / f"{name}.bin").open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != files[name]["sha256"]:
                    return f"{name}.bin is not what was written"
    except _NOT_WHOLE as error:
        return f"{type(error).__name__}: {error}"
    return None


def _folder_name(corpus: Corpus, train_split: str, vocab_size: int) -> str:
    sources = sorted((pathlib.PurePath(path).name, size, mtime) for path, size, mtime in corpus.sources)
    key = [FORMAT, corpus.name, corpus.version, train_split, vocab_size, STANDARDISER_ID, sources]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return f"{_quote(corpus.name)[-80:]}-{corpus.version}-{digest[:12]}"


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _manifest(corpus: Corpus, split: str, vocabulary: Vocabulary, files: Mapping[str, Any]) -> dict[str, Any]:
    content = {"vocabulary": vocabulary.fingerprint, "files": files}
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"format": FORMAT, "dataset": corpus.name, "version": corpus.version, "split": split, **content, "fingerprint": fingerprint}


def _load(folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary) -> TokenStore:
    """Opens a store in constant time; raises one of _NOT_WHOLE when it is missing, torn or of another corpus or vocabulary."""
    path = folder / _quote(split)
    manifest = json.loads((path / "manifest.json").read_bytes())
    arrays = {name: _open(path / f"{name}.bin", **manifest["files"][name]) for name in FILES}
    if manifest != _manifest(corpus, split, vocabulary, manifest["files"]):
        raise ValueError(f"{path} is of another corpus or vocabulary")
    return TokenStore(**arrays, path=path, fingerprint=manifest["fingerprint"])


def _open(path: pathlib.Path, *, dtype: str, bytes: int, sha256: str) -> TokenFile | np.ndarray:
    if path.stat().st_size != bytes:
        raise ValueError(f"{path} must have {bytes} bytes")
    if path.stem == "token_ids":
        return TokenFile(path, dtype)
    # As an array: indexing a memmap takes twice as long. Nothing cannot be mapped.
    return np.asarray(np.memmap(path, dtype, "r")) if bytes else np.zeros(0, dtype)


_NOT_WHOLE = (OSError, ValueError, LookupError, TypeError, InputError)


def _find(folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary | None) -> TokenStore | None:
    with contextlib.suppress(*_NOT_WHOLE):
        return _load(folder, corpus, split, vocabulary) if vocabulary else None


def _find_vocabulary(folder: pathlib.Path, train_split: str) -> Vocabulary | None:
    """The vocabulary, if it is the one that the train split was encoded with: the only witness that it is whole."""
    with contextlib.suppress(*_NOT_WHOLE):
        vocabulary = Vocabulary.from_bytes((folder / "vocabulary.txt").read_bytes())
        manifest = json.loads((folder / _quote(train_split) / "manifest.json").read_bytes())
        return vocabulary if manifest["vocabulary"] == vocabulary.fingerprint else None


def _build_vocabulary(folder: pathlib.Path, corpus: Corpus, train_split: str, vocab_size: int, workshop: pathlib.Path) -> Vocabulary:
    if (folder / "vocabulary.txt").exists():
        logging.warning("%s has no store of %s that was encoded with it; it is built anew.", folder / "vocabulary.txt", train_split)
    texts = (texts for texts, _ in _reviews(corpus, train_split, "Counting"))
    vocabulary = build_vocabulary(batches=texts, vocab_size=vocab_size)
    (workshop / "vocabulary.txt").write_bytes(vocabulary.to_bytes())
    _fsync(workshop / "vocabulary.txt")
    _publish(workshop / "vocabulary.txt", folder)
    return vocabulary


def _build(folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary, workshop: pathlib.Path) -> None:
    final, built = folder / _quote(split), workshop / _quote(split)
    with _gate(folder):
        if final.exists() and _find(folder, corpus, split, vocabulary) is None:
            logging.warning("%s is torn or belongs to another corpus or vocabulary; it is built anew.", final)
            final.rename(workshop / f"{final.name}.torn")
    built.mkdir()
    files = _encode(corpus, split, vocabulary, built)
    (built / "manifest.json").write_text(json.dumps(_manifest(corpus, split, vocabulary, files), indent=2))
    for path in (*built.iterdir(), built):
        _fsync(path)
    _publish(built, folder)


def _encode(corpus: Corpus, split: str, vocabulary: Vocabulary, path: pathlib.Path) -> dict[str, Any]:
    """Writes the arrays batch by batch; returns what the manifest says of them."""
    dtypes = {"token_ids": np.min_scalar_type(len(vocabulary) - 1), "offsets": np.dtype(np.int64), "labels": np.dtype(np.uint8)}
    hashes = {name: hashlib.sha256() for name in FILES}
    vocabulary.encode([])  # makes its table here: each thread would make one of its own

    def encode(reviews: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        token_ids = vocabulary.encode(reviews[0])
        return token_ids.flat_values.numpy().astype(dtypes["token_ids"]), token_ids.row_splits.numpy()[1:], reviews[1]

    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context((path / f"{name}.bin").open("wb")) for name in FILES}

        def append(name: str, values: np.ndarray) -> None:
            data = values.astype(dtypes[name], copy=False).data
            files[name].write(data)
            hashes[name].update(data)

        end = np.zeros(1, np.int64)
        append("offsets", end)
        for token_ids, ends, labels in on_all_cores(encode, _reviews(corpus, split, "Encoding")):
            for name, values in zip(FILES, (token_ids, end + ends, labels), strict=True):
                append(name, values)
            end = end + ends[-1]
        return {name: {"dtype": dtypes[name].str, "bytes": file.tell(), "sha256": hashes[name].hexdigest()} for name, file in files.items()}


def _reviews(corpus: Corpus, split: str, action: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    logging.info("%s the tokens of %s %s; this is done once.", action, corpus.name, split)
    with tqdm(
        total=corpus.examples(split), desc=f"{action} {split}", unit="review", disable=None if logging.level_info() else True, leave=False
    ) as bar:
        for texts, labels in corpus.reviews(split):
            yield texts, labels
            bar.update(len(labels))


@contextlib.contextmanager
def _gate(folder: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time, for moments, remove what another may have left; nobody builds in here."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _workshop(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder beside the stores, locked so that others can tell it from one whose builder was killed; those are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with _gate(folder):
        for leftover in folder.glob("*.tmp"):
            if _is_abandoned(leftover):
                shutil.rmtree(leftover)
        workshop = pathlib.Path(tempfile.mkdtemp(dir=folder, suffix=".tmp"))
        lock = (workshop / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield workshop
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def _is_abandoned(workshop: pathlib.Path) -> bool:
    try:
        with (workshop / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # its builder works, or is another user's
        return False
    return True


def _fsync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish(built: pathlib.Path, folder: pathlib.Path) -> None:
    try:
        built.rename(folder / built.name)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # these: another builder was faster, and its store stays
            raise
    _fsync(folder)


@contextlib.contextmanager
def _storage_errors(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The encoded reviews must be kept in {folder}, but it could not be written or read ({error.strerror}); "
            f"make room there or give another folder by --cache_dir."
        ) from error
