"""The encoded corpus on disk: every review is tokenized once, then opened by each run in constant time.

    <cache_dir>/<dataset>-<version>-<key>/
      vocabulary.txt
      <split>/ token_ids.bin, offsets.bin, labels.bin, manifest.json

No run keeps a large store in memory. Vocabulary and stores are entries of the cache: see `cache_entry`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from trainer import files
from trainer.data import cache_entry, store_manifest, store_writer, stored_array
from trainer.data.corpus import Corpus
from trainer.data.store_manifest import ARRAYS, FORMAT, Manifest
from trainer.data.stored_array import (
    CHECKED_AT_ONCE_BYTES,
    AnyArray,
    Lengths,
    StoredArray,
    Verification,
    open_array,
)
from trainer.data.vocabulary import WORDS, Tokenizer, Vocabulary, build_vocabulary
from trainer.errors import InputError, StorageError
from trainer.labels import MOST_CLASSES, NEGATIVE_POSITIVE

VOCABULARY = "vocabulary.txt"

_VOCABULARY_BYTES = 2**30
# Errors of a store or vocabulary that is missing or damaged. Any other OSError says nothing about its
# content.
_NOT_WHOLE = (*files.ABSENT, ValueError, LookupError, TypeError, RecursionError, InputError)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TokenStore:
    """The encoded reviews of a split, in corpus order.

    Review i has the tokens offsets[i] .. offsets[i + 1] - 1.
    """

    token_ids: AnyArray  # [tokens] of the smallest unsigned type that holds the vocabulary
    offsets: AnyArray  # [examples + 1] int64
    labels: AnyArray  # [examples] uint8, the number of the class
    vocab_size: int
    classes: int
    path: pathlib.Path
    fingerprint: str  # hexadecimal sha256 of content and vocabulary, not of paths or times
    verification: Verification | None = None  # of large arrays, which are not checked on opening

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def lengths(self) -> Lengths:
        """The number of tokens of each review."""
        return Lengths(self.offsets)

    def check(self, *, wait: bool = False) -> None:
        """Raises if the store is known to be damaged; with `wait`, all of it has been verified on return.

        Raises:
          StorageError: when one of its files is damaged or can't be read.
        """
        if self.verification and (why := self.verification.result(wait=wait)):
            raise self.damaged(why)

    def damaged(self, why: str) -> StorageError:
        """The error that ends a run whose store is damaged; the next start rebuilds the store."""
        # The manifest is kept: it proves that the vocabulary is undamaged.
        with contextlib.suppress(OSError):
            (self.path / "labels.bin").unlink()
        return StorageError(
            f"{self.path} must hold the encoded reviews as they were written, but {why}; "
            f"delete it and start again: it will be rebuilt."
        )


def prepare(
    *,
    corpus: Corpus,
    splits: Sequence[str],
    vocab_size: int,
    cache_dir: str,
    tokenizer: Tokenizer = WORDS,
) -> tuple[Vocabulary, dict[str, TokenStore]]:
    """Opens the vocabulary and the store of each split, after building those that are missing or damaged.

    Args:
      corpus: where the reviews come from.
      splits: in TFDS' syntax; the vocabulary is built from the first one, the train split.
      vocab_size: the largest size of the vocabulary.
      cache_dir: the folder of all stores; written only if something is missing.
      tokenizer: makes the tokens of a text.

    Returns:
      The vocabulary, and the store of each split in the order of `splits`.

    Raises:
      InputError: when a split is unknown or empty.
      StorageError: when a store can't be written, or the corpus can't be read.
    """
    for split in splits:
        corpus.examples(split)
    folder = pathlib.Path(cache_dir) / _folder_name(corpus, splits[0], vocab_size, tokenizer)
    with _storage_errors(folder):
        vocabulary = _find_vocabulary(folder, splits[0], tokenizer)
        stores = _find_stores(folder, corpus, splits, vocabulary) if vocabulary else {}
        if vocabulary is None or len(stores) < len(set(splits)):
            with cache_entry.temporary_folder(folder, is_ours=_is_ours) as temporary:
                if vocabulary is None:
                    vocabulary = _build_vocabulary(
                        folder, corpus, splits[0], vocab_size, tokenizer, temporary
                    )
                for split in splits:
                    if split not in stores:
                        stores[split] = _build(folder, corpus, split, vocabulary, temporary)
    return vocabulary, {split: stores[split] for split in splits}


def damage(path: pathlib.Path) -> str | None:
    """Compares a whole store with its checksums; returns what is wrong with it, or None.

    Raises nothing, whatever is at `path`.
    """
    try:
        manifest = store_manifest.read(path)
        arrays = _open_arrays(path, manifest)
        return _damage(arrays, manifest)
    except (*_NOT_WHOLE, OSError, StorageError) as error:
        return f"{type(error).__name__}: {error}"


def _folder_name(corpus: Corpus, train_split: str, vocab_size: int, tokenizer: Tokenizer) -> str:
    sources = sorted((pathlib.PurePath(path).name, size, mtime) for path, size, mtime in corpus.sources)
    key = [FORMAT, corpus.name, corpus.version, train_split, vocab_size, tokenizer.id, sources]
    if corpus.classes != NEGATIVE_POSITIVE:  # which older versions knew alone
        key.append(corpus.classes.to_json())
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return f"{_quote(corpus.name)[-80:]}-{corpus.version}-{digest[:12]}"


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _open_arrays(path: pathlib.Path, manifest: Manifest) -> dict[str, AnyArray]:
    facts = manifest["files"]
    return {
        name: open_array(path / f"{name}.bin", facts[name]["dtype"], size=facts[name]["bytes"])
        for name in ARRAYS
    }


def _damage(
    arrays: Mapping[str, AnyArray], manifest: Manifest, vocab_size: int = 2**32, classes: int = MOST_CLASSES
) -> str | None:
    """What is wrong with the content of a store, or None."""
    bounds = {"token_ids": vocab_size - 1, "offsets": len(arrays["token_ids"]), "labels": classes - 1}
    for name, array in arrays.items():
        sha256 = manifest["files"][name]["sha256"]
        why = stored_array.damage(array, sha256=sha256, at_most=bounds[name], rises=name == "offsets")
        if why:
            return f"{name}.bin {why}"
    return None


def _load(folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary) -> TokenStore:
    """Opens a store; raises one of _NOT_WHOLE when it is missing, damaged or made from something else."""
    path = folder / _quote(split)
    manifest = store_manifest.read(path)
    if manifest != store_manifest.make(corpus, split, vocabulary, manifest["files"]):
        raise ValueError("it belongs to another corpus or vocabulary")
    arrays = _open_arrays(path, manifest)
    verification = None

    def check() -> str | None:
        return _damage(arrays, manifest, len(vocabulary), len(corpus.classes))

    large = [array for array in arrays.values() if isinstance(array, StoredArray)]
    size = sum(facts["bytes"] for facts in manifest["files"].values())
    if large and size > CHECKED_AT_ONCE_BYTES:
        verification = Verification(check, large)
    elif why := check():
        raise ValueError(why)
    return TokenStore(
        **arrays,
        vocab_size=len(vocabulary),
        classes=len(corpus.classes),
        path=path,
        fingerprint=manifest["fingerprint"],
        verification=verification,
    )


def _find(folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary) -> TokenStore | None:
    with contextlib.suppress(*_NOT_WHOLE):
        return _load(folder, corpus, split, vocabulary)
    return None


def _find_stores(
    folder: pathlib.Path, corpus: Corpus, splits: Sequence[str], vocabulary: Vocabulary
) -> dict[str, TokenStore]:
    found = {split: _find(folder, corpus, split, vocabulary) for split in splits}
    return {split: store for split, store in found.items() if store is not None}


def _find_vocabulary(folder: pathlib.Path, train_split: str, tokenizer: Tokenizer) -> Vocabulary | None:
    """The vocabulary, if the train split was encoded with it: nothing else proves that it is undamaged."""
    with contextlib.suppress(*_NOT_WHOLE):
        data = files.read(folder / VOCABULARY, limit=_VOCABULARY_BYTES, follow_links=True)
        vocabulary = Vocabulary.from_bytes(data, tokenizer)
        manifest = store_manifest.read(folder / _quote(train_split))
        return vocabulary if manifest["vocabulary"] == vocabulary.fingerprint else None
    return None


def _build_vocabulary(
    folder: pathlib.Path,
    corpus: Corpus,
    train_split: str,
    vocab_size: int,
    tokenizer: Tokenizer,
    temporary: pathlib.Path,
) -> Vocabulary:
    final, built = folder / VOCABULARY, temporary / VOCABULARY
    if final.exists():
        logging.warning("%s was not used to encode any store of %s; it is rebuilt.", final, train_split)
    texts = (texts for texts, _ in store_writer.read(corpus, train_split, "Counting"))
    vocabulary = build_vocabulary(batches=texts, vocab_size=vocab_size, tokenizer=tokenizer)
    built.write_bytes(vocabulary.to_bytes())
    with cache_entry.removal_lock(folder):
        if final.is_dir() and not final.is_symlink():
            cache_entry.move_aside(final)
        cache_entry.publish(built, folder)
    return vocabulary


def _build(
    folder: pathlib.Path, corpus: Corpus, split: str, vocabulary: Vocabulary, temporary: pathlib.Path
) -> TokenStore:
    final, built = folder / _quote(split), temporary / _quote(split)
    with cache_entry.removal_lock(folder):
        if os.path.lexists(final):
            if store := _find(folder, corpus, split, vocabulary):
                return store
            logging.warning(
                "%s is damaged, or belongs to another corpus or vocabulary; it is rebuilt.", final
            )
            cache_entry.clear_place(final, temporary, is_ours=_is_ours)
    built.mkdir()
    arrays = store_writer.encode(corpus, split, vocabulary, built)
    store_manifest.write(built, store_manifest.make(corpus, split, vocabulary, arrays))
    cache_entry.publish(built, folder)
    try:
        return _load(folder, corpus, split, vocabulary)
    except _NOT_WHOLE as error:
        raise StorageError(
            f"{final} must read back as it was written, but {error}; "
            f"check the disk, or name another folder by --cache_dir."
        ) from error


def _is_ours(name: str) -> bool:
    """Whether a file of this name may be one that a builder wrote."""
    arrays = {f"{array}.bin" for array in ARRAYS}
    return name in {cache_entry.LOCK, VOCABULARY, store_manifest.NAME, *arrays}


@contextlib.contextmanager
def _storage_errors(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The encoded reviews must be kept in {folder}, but it could not be written or read "
            f"({files.reason(error)}); free some space there or name another folder by --cache_dir."
        ) from error
