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
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from trainer import InputError, StorageError
from trainer.data import stored_array
from trainer.data.datasets import Corpus
from trainer.data.regular_files import holds_only, locked, move_aside, read_regular
from trainer.data.stored_array import CHECKED_AT_ONCE_BYTES, StoredArray, Verification, open_array
from trainer.data.vocabulary import STANDARDISER_ID, Vocabulary, build_vocabulary, on_all_cores
from trainer.files import expand_home, fsync

FORMAT = 1
FILES = ("token_ids", "offsets", "labels")
VOCABULARY, MANIFEST = "vocabulary.txt", "manifest.json"
_DTYPES = {"token_ids": ("|u1", "<u2", "<u4"), "offsets": ("<i8",), "labels": ("|u1",)}
_MANIFEST_BYTES = 2**16
_VOCABULARY_BYTES = 2**30
# What is wrong with a store or a vocabulary; that a file cannot be read says nothing about its content.
_NOT_WHOLE = (ValueError, LookupError, TypeError, RecursionError, InputError)


class Lengths:
    """Tokens of each review, computed from the offsets when they are asked for: by a slice or by an array of reviews, int32."""

    def __init__(self, offsets: np.ndarray | StoredArray) -> None:
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, reviews: slice | np.ndarray) -> np.ndarray:
        if isinstance(reviews, slice):
            start, stop, _ = reviews.indices(len(self))
            return np.diff(self._offsets[start : max(start, stop) + 1]).astype(np.int32)
        return (self._offsets[reviews + 1] - self._offsets[reviews]).astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TokenStore:
    """The encoded reviews of a split, in corpus order. Review i has the tokens offsets[i] .. offsets[i + 1] - 1."""

    token_ids: np.ndarray | StoredArray  # [tokens] of the smallest unsigned type that holds the vocabulary
    offsets: np.ndarray | StoredArray  # [examples + 1] int64
    labels: np.ndarray | StoredArray  # [examples] uint8, 0 or 1
    vocab_size: int
    path: pathlib.Path
    fingerprint: str  # hexadecimal sha256 of content and vocabulary; neither of paths nor of times
    verification: Verification | None = None  # of what is not in memory, and was not checked when it was opened

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def lengths(self) -> Lengths:
        """Tokens of each review."""
        return Lengths(self.offsets)

    def check(self, *, wait: bool = False) -> None:
        """Returns at once as long as nothing is known to be wrong; with `wait`, when all of the store is as it was written.

        Raises:
          StorageError: when a file of it is damaged or cannot be read.
        """
        if self.verification and (why := self.verification.result(wait=wait)):
            raise self.damaged(why)

    def damaged(self, why: str) -> StorageError:
        """The error that ends a run whose store is damaged; the next start builds it anew."""
        with contextlib.suppress(OSError):
            (self.path / "labels.bin").unlink()  # not the manifest: it proves that the vocabulary is whole
        return StorageError(
            f"{self.path} must hold the encoded reviews as they were written, but {why}; delete it and start again: it is built anew."
        )


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
    folder = pathlib.Path(cache_dir) / _folder_name(corpus, splits[0], vocab_size)
    with _storage_errors(folder):
        vocabulary = _find_vocabulary(folder, splits[0])
        stores = {split: _find(folder, corpus, split, vocabulary) for split in splits}
        if None not in stores.values():
            return vocabulary, stores
        with _workshop(folder) as workshop:
            vocabulary = vocabulary or _build_vocabulary(folder, corpus, splits[0], vocab_size, workshop)
            for split in splits:
                stores[split] = stores[split] or _build(folder, corpus, split, vocabulary, workshop)
        return vocabulary, stores


def folder_of(cache_dir: str) -> str:
    """The folder that --cache_dir names; when it is empty, the user's cache folder.

    Raises:
      InputError: when that is in the home of a user who has none.
    """
    base = pathlib.PurePath(os.environ.get("XDG_CACHE_HOME", ""))
    # As the XDG Base Directory Specification has it, an empty or a relative one does not count.
    given = cache_dir or str((base if base.is_absolute() else pathlib.PurePath("~/.cache")) / "trainer")
    try:
        return str(pathlib.Path(expand_home(given)))
    except LookupError:
        raise InputError(
            f"The encoded reviews must be kept in a folder, but {given} is in a home that is not known; "
            f"name another one by --cache_dir, as in --cache_dir=/tmp/cache."
        ) from None


def is_inside(path: pathlib.Path, cache_dir: str) -> bool:
    """Whether a path, wherever links lead, lies in the folder of --cache_dir; nothing is opened."""
    try:
        return pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder_of(cache_dir)))
    except (OSError, ValueError, InputError):  # ValueError: a NUL byte in the path
        return False


def damage(path: pathlib.Path) -> str | None:
    """Reads a whole store and compares it with its checksums; what is wrong with it, or None. Whatever lies there, raises nothing."""
    try:
        manifest = _read_manifest(path)
        arrays = _open_arrays(path, manifest["files"])
        return _damage(arrays, manifest["files"])
    except (*_NOT_WHOLE, OSError, StorageError) as error:
        return f"{type(error).__name__}: {error}"


def _folder_name(corpus: Corpus, train_split: str, vocab_size: int) -> str:
    sources = sorted((pathlib.PurePath(path).name, size, mtime) for path, size, mtime in corpus.sources)
    key = [FORMAT, corpus.name, corpus.version, train_split, vocab_size, STANDARDISER_ID, sources]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return f"{_quote(corpus.name)[-80:]}-{corpus.version}-{digest[:12]}"


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _manifest(corpus: Corpus, split: str, vocabulary: Vocabulary, files: Mapping[str, Any]) -> dict[str, Any]:
    content = {"vocabulary": vocabulary.fingerprint, "files": files}
    described = {"format": FORMAT, "dataset": corpus.name, "version": corpus.version, "split": split}
    return {**described, **content, "fingerprint": _fingerprint(**content)}


def _fingerprint(*, vocabulary: str, files: Mapping[str, Any]) -> str:
    content = {"vocabulary": vocabulary, "files": files}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """The manifest of a store, its parts of the right types; raises one of _NOT_WHOLE when there is none."""
    manifest = json.loads(read_regular(path / MANIFEST, limit=_MANIFEST_BYTES))
    files = manifest["files"]
    if set(files) != set(FILES):
        raise ValueError(f"{MANIFEST} must name {', '.join(FILES)}")
    for name, described in files.items():
        dtype, size, sha256 = (described[key] for key in ("dtype", "bytes", "sha256"))
        if dtype not in _DTYPES[name] or type(size) is not int or size < 0 or size % np.dtype(dtype).itemsize:
            raise ValueError(f"{MANIFEST} describes no {name}")
        if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise ValueError(f"{MANIFEST} has no checksum of {name}")
    if files["offsets"]["bytes"] != 8 * (files["labels"]["bytes"] + 1):
        raise ValueError(f"{MANIFEST} must have one offset more than labels")
    if manifest["fingerprint"] != _fingerprint(vocabulary=manifest["vocabulary"], files=files):
        raise ValueError(f"{MANIFEST} has a fingerprint of another content")
    return manifest


def _open_arrays(path: pathlib.Path, files: Mapping[str, Any]) -> dict[str, np.ndarray | StoredArray]:
    return {name: open_array(path / f"{name}.bin", files[name]["dtype"], size=files[name]["bytes"]) for name in FILES}


def _damage(arrays: Mapping[str, np.ndarray | StoredArray], files: Mapping[str, Any], vocab_size: int = 2**32) -> str | None:
    """What is wrong with the content of a store, or None."""
    bounds = {"token_ids": vocab_size - 1, "offsets": len(arrays["token_ids"]), "labels": 1}
    for name, array in arrays.items():
        why = stored_array.damage(array, sha256=files[name]["sha256"], at_most=bounds[name], rises=name == "offsets")
        if why:
            return f"{name}.bin {why}"
    return None


def _load(folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary) -> TokenStore:
    """Opens a store; raises one of _NOT_WHOLE when it is missing, torn, damaged or of another corpus or vocabulary."""
    path = folder / _quote(split)
    manifest = _read_manifest(path)
    files = manifest["files"]
    if manifest != _manifest(corpus, split, vocabulary, files):
        raise ValueError("it is of another corpus or vocabulary")
    arrays = _open_arrays(path, files)
    large = [array for array in arrays.values() if isinstance(array, StoredArray)]
    verification = None

    def check() -> str | None:
        return _damage(arrays, files, len(vocabulary))

    if large and sum(described["bytes"] for described in files.values()) > CHECKED_AT_ONCE_BYTES:
        verification = Verification(check, large)
    elif why := check():
        raise ValueError(why)
    return TokenStore(
        **arrays,
        vocab_size=len(vocabulary),
        path=path,
        fingerprint=manifest["fingerprint"],
        verification=verification,
    )


def _find(folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary | None) -> TokenStore | None:
    with contextlib.suppress(*_NOT_WHOLE):
        return _load(folder, corpus, split, vocabulary) if vocabulary else None


def _find_vocabulary(folder: pathlib.Path, train_split: str) -> Vocabulary | None:
    """The vocabulary, if it is the one that the train split was encoded with: the only witness that it is whole."""
    with contextlib.suppress(*_NOT_WHOLE):
        vocabulary = Vocabulary.from_bytes(read_regular(folder / VOCABULARY, limit=_VOCABULARY_BYTES))
        manifest = _read_manifest(folder / _quote(train_split))
        return vocabulary if manifest["vocabulary"] == vocabulary.fingerprint else None


def _build_vocabulary(folder: pathlib.Path, corpus: Corpus, train_split: str, vocab_size: int, workshop: pathlib.Path) -> Vocabulary:
    if (folder / VOCABULARY).exists():
        logging.warning("%s has no store of %s that was encoded with it; it is built anew.", folder / VOCABULARY, train_split)
    texts = (texts for texts, _ in _reviews(corpus, train_split, "Counting"))
    vocabulary = build_vocabulary(batches=texts, vocab_size=vocab_size)
    (workshop / VOCABULARY).write_bytes(vocabulary.to_bytes())
    fsync(workshop / VOCABULARY)
    with _gate(folder):
        if (folder / VOCABULARY).is_dir() and not (folder / VOCABULARY).is_symlink():
            move_aside(folder / VOCABULARY)
        _publish(workshop / VOCABULARY, folder)
    return vocabulary


def _build(folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary, workshop: pathlib.Path) -> TokenStore:
    final, built = folder / _quote(split), workshop / _quote(split)
    with _gate(folder):
        if os.path.lexists(final):
            if store := _find(folder, corpus, split, vocabulary):
                return store
            logging.warning("%s is torn, damaged or of another corpus or vocabulary; it is built anew.", final)
            if holds_only(final, _is_ours):
                final.rename(workshop / f"{final.name}.torn")
            else:
                move_aside(final)
    built.mkdir()
    files = _encode(corpus, split, vocabulary, built)
    (built / MANIFEST).write_text(json.dumps(_manifest(corpus, split, vocabulary, files), indent=2))
    for path in (*built.iterdir(), built):
        fsync(path)
    _publish(built, folder)
    try:
        return _load(folder, corpus, split, vocabulary)
    except _NOT_WHOLE as error:
        raise StorageError(
            f"{final} must read back as it was written, but {error}; see to the disk, or give another folder by --cache_dir."
        ) from error


def _is_ours(name: str) -> bool:
    """Whether a file of this name may be one that a builder wrote."""
    return name in {"lock", VOCABULARY, MANIFEST, *(f"{name}.bin" for name in FILES)}


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


def _gate(folder: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Lets one process at a time, for moments, remove what another may have left; nobody builds in here."""
    return locked(folder / "lock")


@contextlib.contextmanager
def _workshop(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder beside the stores, locked so that others can tell it from one whose builder was killed; those are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with _gate(folder):
            for leftover in folder.glob("*.tmp"):
                if _is_abandoned(leftover):
                    shutil.rmtree(leftover, ignore_errors=True)  # a builder that ends removes it as well
            workshop = pathlib.Path(tempfile.mkdtemp(dir=folder, suffix=".tmp"))
            held.enter_context(locked(workshop / "lock"))
        try:
            yield workshop
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def _is_abandoned(leftover: pathlib.Path) -> bool:
    """Whether a builder made a folder and was killed; not of what is anybody else's, or still held."""
    with contextlib.suppress(OSError):  # its builder works, or it is another user's
        if holds_only(leftover, _is_ours):
            if not any(leftover.iterdir()):  # killed before it made its lock
                return True
            with locked(leftover / "lock", create=False, wait=False):
                return True
    return False


def _publish(built: pathlib.Path, folder: pathlib.Path) -> None:
    try:
        built.rename(folder / built.name)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # these: another builder was faster, and its store stays
            raise
    fsync(folder)


@contextlib.contextmanager
def _storage_errors(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The encoded reviews must be kept in {folder}, but it could not be written or read ({error.strerror}); "
            f"make room there or give another folder by --cache_dir."
        ) from error
