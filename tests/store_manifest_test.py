"""The manifest of a store."""

import json

import pytest
from token_store_test import ListedCorpus

from trainer import files
from trainer.data import store_manifest
from trainer.data.vocabulary import Vocabulary

VOCABULARY = Vocabulary((b"", b"[UNK]", b"good"))
ARRAYS = {
    "token_ids": {"dtype": "<u2", "bytes": 8, "sha256": "0" * 64},
    "offsets": {"dtype": "<i8", "bytes": 32, "sha256": "1" * 64},
    "labels": {"dtype": "|u1", "bytes": 3, "sha256": "2" * 64},
}
# The fingerprint of a store in format version 1: if it changes, no existing store can be opened.
PINNED_FINGERPRINT = "13dc780e7e647992f29d0b0adbd69a408f37754de29ee020410e419a59d29072"


@pytest.fixture
def manifest():
    return store_manifest.make(ListedCorpus(), "train[:90%]", VOCABULARY, ARRAYS)


def test_the_manifest_is_pinned(manifest):
    assert list(manifest) == ["format", "dataset", "version", "split", "vocabulary", "files", "fingerprint"]
    assert (manifest["format"], manifest["dataset"], manifest["split"]) == (1, "listed/plain", "train[:90%]")
    assert manifest["vocabulary"] == VOCABULARY.fingerprint
    assert manifest["fingerprint"] == PINNED_FINGERPRINT


def test_a_written_manifest_is_read_back(tmp_path, manifest):
    store_manifest.write(tmp_path, manifest)
    assert store_manifest.read(tmp_path) == manifest


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}},
        {"files": ARRAYS | {"labels": ARRAYS["labels"] | {"bytes": 4}}},
        {"files": ARRAYS | {"labels": ARRAYS["labels"] | {"dtype": "<u2"}}},
        {"files": ARRAYS | {"token_ids": ARRAYS["token_ids"] | {"bytes": 7}}},
        {"files": ARRAYS | {"token_ids": ARRAYS["token_ids"] | {"sha256": "?"}}},
        {"vocabulary": "0" * 64},
        {"fingerprint": "0" * 64},
    ],
)
def test_an_inconsistent_manifest_is_malformed(tmp_path, manifest, change):
    changed = manifest | change
    if "files" in change:
        fingerprint = store_manifest.fingerprint(vocabulary=changed["vocabulary"], arrays=changed["files"])
        changed |= {"fingerprint": fingerprint}
    (tmp_path / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"manifest\.json"):
        store_manifest.read(tmp_path)


def test_a_missing_manifest_counts_as_absent(tmp_path):
    with pytest.raises(files.ABSENT):
        store_manifest.read(tmp_path)
