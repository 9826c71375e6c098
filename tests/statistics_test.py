"""Figures of encoded reviews."""

import numpy as np
import pytest

from trainer.data import statistics
from trainer.data.statistics import class_counts, describe, shared_texts
from trainer.data.token_store import TokenStore


def store_of(tmp_path, reviews, labels=None):
    """A store of reviews that are lists of token ids."""
    lengths = [len(review) for review in reviews]
    return TokenStore(
        token_ids=np.array([token for review in reviews for token in review], np.uint16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=np.array(labels or [0] * len(reviews), np.uint8),
        vocab_size=100,
        classes=2,
        path=tmp_path,
        fingerprint="",
    )


@pytest.mark.parametrize("chunk", [1, 2, 4096])
def test_lengths_unknown_tokens_and_classes_are_counted(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(statistics, "_CHUNK", chunk)
    figures = describe(store_of(tmp_path, [[2, 1, 3, 1], [], [1], [5, 6, 7]], [0, 2, 2, 0]), classes=3)
    assert figures.class_counts == (2, 0, 2)
    assert figures.reviews == 4
    assert figures.median_tokens == 1
    assert figures.short_share == 0.5
    assert figures.unknown_share == 3 / 8


def test_a_split_without_tokens_has_figures(tmp_path):
    figures = describe(store_of(tmp_path, [[], []]), classes=2)
    assert (figures.median_tokens, figures.short_share, figures.unknown_share) == (0, 1.0, 0.0)


@pytest.mark.parametrize("chunk", [1, 2, 4096])
def test_texts_of_both_splits_are_counted_once_each(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(statistics, "_CHUNK", chunk)
    long, other, short = [2, 3, 4, 5, 6], [2, 3, 4, 5, 7], [2, 3]
    train = store_of(tmp_path, [long, short, long, [9, *long]])
    assert shared_texts(train, store_of(tmp_path, [long, other, short, long])) == 2
    assert shared_texts(train, store_of(tmp_path, [other])) == 0


def test_class_counts_include_classes_without_reviews():
    assert class_counts(np.array([2, 0, 2], np.uint8), 4) == (1, 0, 2, 0)


def test_of_a_large_corpus_the_first_reviews_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "MOST", 2)
    long, other = [2, 3, 4, 5, 6], [1, 1, 1, 1, 1]
    store = store_of(tmp_path, [long, long, other, other], [0, 1, 1, 1])
    figures = describe(store, classes=2)
    assert (figures.class_counts, figures.median_tokens, figures.unknown_share) == ((1, 3), 5, 0.0)
    assert shared_texts(store, store_of(tmp_path, [long, other, other])) == 1
