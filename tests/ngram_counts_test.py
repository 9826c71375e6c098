"""Counting the n-grams of the training reviews."""

import numpy as np
import pytest
from fakes import corpus_of

from trainer import ngram_counts
from trainer.data import token_store
from trainer.model.ngrams import distinct_buckets


@pytest.fixture
def store(tmp_path):
    corpus = corpus_of("train", reviews=20)
    _, stores = token_store.prepare(corpus=corpus, splits=["train"], vocab_size=50, cache_dir=str(tmp_path))
    return stores["train"]


def text_of(store, number):
    start, end = store.offsets[number], store.offsets[number + 1]
    return np.asarray(store.token_ids[int(start) : int(end)]).astype(np.int32)[None]


@pytest.mark.parametrize("max_length", [0, 3])
@pytest.mark.parametrize("rows", [7, 256])
def test_a_bucket_is_counted_once_for_each_review_that_has_it(store, monkeypatch, rows, max_length):
    monkeypatch.setattr(ngram_counts, "_ROWS", rows)
    counts = ngram_counts.count(store, classes=2, orders=2, buckets=32, max_length=max_length)
    expected = np.zeros([2, 32], np.int64)
    for number in range(len(store)):
        tokens = text_of(store, number)[:, : max_length or None]
        _, buckets = distinct_buckets(tokens, np.int32([tokens.shape[1]]), orders=2, buckets=32)
        expected[int(store.labels[number]), buckets.numpy()] += 1
    assert np.array_equal(counts, expected) and counts.sum()
