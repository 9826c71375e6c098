"""The n-grams, compared with sets of them in plain Python."""

import collections
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from fakes import relative_error

from trainer.model import ngrams
from trainer.model.ngrams import NGrams, distinct_buckets

LARGE = 2**30  # so many buckets that no two n-grams of a test share one


def grams(text, orders):
    """The set of n-grams of a text."""
    return {
        tuple(text[at : at + order]) for order in range(1, orders + 1) for at in range(len(text) - order + 1)
    }


def batch_of(*texts):
    """The token ids, padded with garbage, and the lengths."""
    longest = max(1, *map(len, texts))
    rows = [[*text, *[9] * (longest - len(text))] for text in texts]
    return tf.constant(rows, tf.int32), tf.constant([len(text) for text in texts], tf.int32)


def make(*, orders=2, buckets=64, logits=1, seed=0):
    """N-grams with random tables."""
    random, made = np.random.default_rng(seed), NGrams(orders=orders, buckets=buckets, logits=logits)
    made.log_ratios.assign(random.normal(0, 1, (buckets, logits)).astype(np.float32))
    made.weights.assign(random.normal(0, 1, (buckets, logits)).astype(np.float32))
    return made


@pytest.mark.parametrize("orders", [1, 2, 3])
def test_each_distinct_ngram_of_a_text_has_a_bucket(orders):
    texts = [3, 4, 3, 4, 4], [], [5], [4, 3], [7, 7, 7, 7]
    rows, buckets = distinct_buckets(*batch_of(*texts), orders=orders, buckets=LARGE)
    found = collections.Counter(rows.numpy().tolist())
    assert found == {row: len(grams(text, orders)) for row, text in enumerate(texts) if text}
    of_row = {row: set(buckets.numpy()[rows == row]) for row in range(len(texts))}
    assert of_row[3] - of_row[0] == set()  # 4, 3 and 4 3 are in the first text too
    assert of_row[2].isdisjoint(of_row[0])


def test_the_order_of_tokens_matters():
    _, one = distinct_buckets(*batch_of([3, 4]), orders=2, buckets=LARGE)
    _, other = distinct_buckets(*batch_of([4, 3]), orders=2, buckets=LARGE)
    assert len(set(one.numpy()) & set(other.numpy())) == 2  # the two unigrams


def test_no_ngram_crosses_from_one_text_into_the_next():
    _, together = distinct_buckets(*batch_of([3], [4]), orders=3, buckets=LARGE)
    assert len(together) == 2


def test_the_buckets_are_used_evenly():
    pairs = np.array(list(itertools.product(range(2, 102), repeat=2)), np.int32)
    _, buckets = distinct_buckets(tf.constant(pairs), tf.fill([len(pairs)], 2), orders=2, buckets=2**20)
    counts = np.bincount(buckets.numpy()[-len(pairs) :] % 128, minlength=128)  # of the bigrams
    assert counts.min() > 0.5 * counts.mean()
    assert counts.max() < 1.5 * counts.mean()


def test_the_buckets_are_pinned():
    # A model that was trained finds its weights by them.
    rows, buckets = distinct_buckets(*batch_of([2, 3, 4]), orders=3, buckets=2**20)
    assert (rows.numpy().tolist(), buckets.numpy().tolist()) == PINNED


PINNED = ([0] * 6, [76691, 115036, 153382, 593106, 104539, 432191])


def test_a_logit_is_the_sum_of_weights_and_log_ratios_over_the_root_of_the_number_of_ngrams():
    made = make(buckets=LARGE >> 14, logits=3)
    token_ids, lengths = batch_of([3, 4, 3], [], [5])
    logits = made.logits_of(made.features(token_ids, lengths)).numpy()
    products = made.weights.numpy() * made.log_ratios.numpy()
    rows, buckets = distinct_buckets(token_ids, lengths, orders=2, buckets=LARGE >> 14)
    for row in range(3):
        of_row = products[buckets.numpy()[rows == row]]
        np.testing.assert_allclose(logits[row], of_row.sum(0) / max(1, len(of_row)) ** 0.5, rtol=1e-5)
    assert not np.any(logits[1])


def test_the_gradient_is_that_of_the_definition():
    made = make(logits=2)
    token_ids, lengths = batch_of([3, 4, 3, 5], [4, 3], [])
    d_logits = tf.constant([[1.0, 2.0], [-1.0, 0.5], [3.0, 3.0]])
    features = made.features(token_ids, lengths)
    with tf.GradientTape() as tape:
        tape.watch(made.weights)
        loss = tf.reduce_sum(d_logits * made.logits_of(features))
    expected = tf.convert_to_tensor(tape.gradient(loss, made.weights))
    assert relative_error(tf.convert_to_tensor(made.gradient(features, d_logits)), expected) < 1e-6


def test_a_descent_changes_the_rows_of_the_batch_alone_and_as_a_dense_one_would():
    sparse, dense = make(), make()
    batch = batch_of([3, 4], [5])
    features = sparse.features(*batch)
    gradient = sparse.gradient(features, tf.ones([2, 1]))
    before = sparse.weights.numpy()
    sparse.descend(gradient, 0.5)
    dense.descend(tf.convert_to_tensor(gradient), 0.5)
    np.testing.assert_allclose(sparse.weights.numpy(), dense.weights.numpy(), rtol=1e-6)
    changed = np.flatnonzero(np.any(sparse.weights.numpy() != before, axis=1))
    assert set(changed) == set(features.buckets.numpy())


def test_a_log_ratio_compares_the_shares_of_two_classes():
    made = NGrams(orders=1, buckets=2, logits=1)
    assert not made.has_counts
    made.set_counts(np.array([[0, 8], [5, 3]]))
    expected = np.log([6 / 10, 4 / 10]) - np.log([1 / 10, 9 / 10])
    np.testing.assert_allclose(made.log_ratios.numpy()[:, 0], expected, rtol=1e-6)
    assert made.has_counts


def test_with_more_classes_each_is_compared_with_the_others():
    made = NGrams(orders=1, buckets=2, logits=3)
    made.set_counts(np.array([[0, 1], [2, 3], [4, 5]]))
    smoothed = np.array([[1, 2], [3, 4], [5, 6]])
    for number in range(3):
        one, others = smoothed[number], np.delete(smoothed, number, axis=0).sum(axis=0)
        expected = np.log(one / one.sum()) - np.log(others / others.sum())
        np.testing.assert_allclose(made.log_ratios.numpy()[:, number], expected, rtol=1e-6)


@pytest.mark.parametrize("orders", [1, 2, 3])
def test_stock_keras_gives_the_same_logits(orders):
    made = make(orders=orders, logits=2)
    token_ids = keras.Input(shape=(None,), dtype="int32")
    logits, table = ngrams.stock_logits(token_ids, orders=orders, buckets=64, logits=2)
    table.set_weights(ngrams.merged(made))
    texts = [3, 4, 3, 5, 5], [], [4], [6, 7]
    padded, lengths = batch_of(*texts)
    mask = tf.sequence_mask(lengths, padded.shape[1])
    theirs = keras.Model(token_ids, logits)(tf.where(mask, padded, 0))
    assert relative_error(theirs, made.logits_of(made.features(padded, lengths))) < 1e-6


def test_a_long_text_takes_memory_for_itself_and_not_for_each_row_of_the_batch():
    token_ids = tf.ones([64, 1], tf.int32)
    longest = tf.pad(tf.ones([1, 10_000], tf.int32), [[0, 63], [0, 0]])
    lengths = tf.constant([10_000, *[1] * 63])
    rows, _ = distinct_buckets(longest, lengths, orders=2, buckets=LARGE)
    short, _ = distinct_buckets(token_ids, tf.ones([64], tf.int32), orders=2, buckets=LARGE)
    assert len(rows) == len(short) + 1
