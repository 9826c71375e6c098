"""Keyed permutations."""

import numpy as np
import pytest

from trainer.data.permutation import KEY_BYTES, shuffled

KEY = bytes(range(KEY_BYTES))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_every_number_appears_exactly_once(size):
    assert sorted(shuffled(0, size, size=size, key=KEY)) == list(range(size))


def test_a_range_equals_the_same_range_of_the_whole_permutation():
    whole = shuffled(0, 100, size=100, key=KEY)
    np.testing.assert_array_equal(shuffled(30, 70, size=100, key=KEY), whole[30:70])
    assert whole.dtype == np.int64


@pytest.mark.parametrize("at", [0, 4, 8])
def test_each_word_of_the_key_changes_the_order(at):
    other = bytearray(KEY)
    other[at] ^= 1
    assert (shuffled(0, 1000, size=1000, key=bytes(other)) != shuffled(0, 1000, size=1000, key=KEY)).any()


def test_the_permutation_is_pinned():
    expected = [2, 4, 3, 9, 0, 1, 8, 7, 5, 6]
    assert shuffled(0, 10, size=10, key=KEY).tolist() == expected, (
        "TensorFlow's RandomIndexShuffle changed, and with it the order of every run's batches and the "
        "reviews that are held out of the user's own files. See BATCH_ORDER_ID in input_pipeline_test."
    )
