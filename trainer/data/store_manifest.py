"""The manifest.json of a token store: its files with their checksums, and what they were made from."""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from trainer import files
from trainer.data.corpus import Corpus
from trainer.data.vocabulary import Vocabulary

NAME = "manifest.json"
FORMAT = 1
ARRAYS = ("token_ids", "offsets", "labels")

_DTYPES = {"token_ids": ("|u1", "<u2", "<u4"), "offsets": ("<i8",), "labels": ("|u1",)}
_LIMIT = 2**16  # bytes


class FileFacts(TypedDict):
    """The file of one array."""

    dtype: str
    bytes: int
    sha256: str


class Manifest(TypedDict):
    """The content of the file, with the keys in this order."""

    format: int
    dataset: str
    version: str
    split: str
    vocabulary: str  # the vocabulary's fingerprint
    files: Mapping[str, FileFacts]
    fingerprint: str


def make(corpus: Corpus, split: str, vocabulary: Vocabulary, arrays: Mapping[str, FileFacts]) -> Manifest:
    """The manifest of the store of a split, encoded with `vocabulary` into these arrays."""
    return {
        "format": FORMAT,
        "dataset": corpus.name,
        "version": corpus.version,
        "split": split,
        "vocabulary": vocabulary.fingerprint,
        "files": arrays,
        "fingerprint": fingerprint(vocabulary=vocabulary.fingerprint, arrays=arrays),
    }


def fingerprint(*, vocabulary: str, arrays: Mapping[str, FileFacts]) -> str:
    """Hexadecimal sha256 of a store's content and vocabulary; does not depend on paths or times."""
    content = {"vocabulary": vocabulary, "files": arrays}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write(folder: pathlib.Path, manifest: Manifest) -> None:
    """Writes the manifest of the store in `folder`; raises OSError when it can't be written."""
    (folder / NAME).write_text(json.dumps(manifest, indent=2))


def read(folder: pathlib.Path) -> Manifest:
    """The manifest of the store in `folder`, after a check of its types.

    Raises:
      ValueError, LookupError, TypeError, RecursionError: when it is malformed.
      OSError: one of `files.ABSENT` when it does not exist, another one when it can't be read.
    """
    manifest = json.loads(files.read(folder / NAME, limit=_LIMIT, follow_links=True))
    arrays = manifest["files"]
    if set(arrays) != set(ARRAYS):
        raise ValueError(f"{NAME} must name {', '.join(ARRAYS)}")
    for name, facts in arrays.items():
        dtype, size, sha256 = (facts[key] for key in ("dtype", "bytes", "sha256"))
        if dtype not in _DTYPES[name] or type(size) is not int or size < 0 or size % np.dtype(dtype).itemsize:
            raise ValueError(f"{NAME} describes no {name}")
        if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise ValueError(f"{NAME} has no checksum of {name}")
    if arrays["offsets"]["bytes"] != 8 * (arrays["labels"]["bytes"] + 1):
        raise ValueError(f"{NAME} must have one offset more than labels")
    if manifest["fingerprint"] != fingerprint(vocabulary=manifest["vocabulary"], arrays=arrays):
        raise ValueError(f"{NAME} has the fingerprint of other content")
    return manifest
