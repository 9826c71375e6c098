"""Encoding a split on all cores, in order."""

import collections
import hashlib
import json
import os
import weakref

import numpy as np
from token_store_test import ListedCorpus, prepare
from vocabulary_test import awkward_texts

from trainer.data import store_writer
from trainer.data.vocabulary import WORDS, Vocabulary


def test_at_most_two_more_batches_of_reviews_than_cores_are_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(3))
    seen, alive = [], []

    class WatchedCorpus(ListedCorpus):
        """Counts the batches that are still in memory when the next one is read."""

        def reviews(self, split):
            for texts, labels in super().reviews(split):
                seen.append(weakref.ref(texts))
                alive.append(sum(reference() is not None for reference in seen))
                yield texts, labels

    prepare(tmp_path, WatchedCorpus({"train": [("a film", 1)] * 20}), ["train"])
    assert len(seen) == 40 and max(alive) <= 5


def test_a_store_built_on_all_cores_equals_one_built_review_by_review(tmp_path, monkeypatch):
    texts = awkward_texts(300)
    labels = (np.arange(len(texts)) % 3 == 0).astype(np.uint8)

    class Batched(ListedCorpus):
        def examples(self, split):
            return len(texts)

        def reviews(self, split):
            cuts = [1, 2, 300, 301, 500]
            yield from zip(np.split(texts, cuts), np.split(labels, cuts), strict=True)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(4))
    vocabulary, stores = prepare(tmp_path, Batched(), ["train"], vocab_size=300)
    tokens = [WORDS([text]).to_list()[0] for text in texts]
    counts = collections.Counter(token for review in tokens for token in review)
    by_rank = sorted(counts, key=lambda token: (counts[token], token), reverse=True)
    assert vocabulary.tokens == (b"", b"[UNK]", *by_rank[:298])
    number = {token: number for number, token in enumerate(vocabulary.tokens)}
    contents = {
        "token_ids": np.array([number.get(token, 1) for review in tokens for token in review], "<u2"),
        "offsets": np.cumsum([0, *map(len, tokens)]).astype("<i8"),
        "labels": labels,
    }
    manifest = json.loads((stores["train"].path / "manifest.json").read_text())
    for name, content in contents.items():
        assert (stores["train"].path / f"{name}.bin").read_bytes() == content.tobytes()
        assert manifest["files"][name]["sha256"] == hashlib.sha256(content.tobytes()).hexdigest()


def test_encode_describes_the_arrays_that_it_writes(tmp_path):
    vocabulary = Vocabulary((b"", b"[UNK]", b"good"))
    corpus = ListedCorpus({"train": [("good film", 1), ("", 0), ("good", 1)]})
    described = store_writer.encode(corpus, "train", vocabulary, tmp_path)
    assert {name: facts["dtype"] for name, facts in described.items()} == {
        "token_ids": "|u1",
        "offsets": "<i8",
        "labels": "|u1",
    }
    for name, facts in described.items():
        content = (tmp_path / f"{name}.bin").read_bytes()
        assert (facts["bytes"], facts["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (tmp_path / "token_ids.bin").read_bytes() == bytes([2, 1, 2])
    assert (tmp_path / "labels.bin").read_bytes() == bytes([1, 0, 1])
