"""Pooling of states that are all there; what is carried through the loop of the LSTM is in lstm_test."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.model import pooling
from trainer.model.pooling import POOLINGS, pool

STATES = np.arange(-12, 12, dtype=np.float32).reshape(2, 3, 4) / 12


def mask(*lengths):
    return tf.sequence_mask(lengths, 3)


def test_the_last_state_is_that_of_each_direction():
    pooled = pool(STATES, mask(2, 3), ("last",)).numpy()
    assert pooled.tolist() == [
        [*STATES[0, 1, :2], *STATES[0, 0, 2:]],
        [*STATES[1, 2, :2], *STATES[1, 0, 2:]],
    ]


def test_padding_is_neither_in_the_maximum_nor_in_the_mean():
    pooled = pool(STATES, mask(2, 3), ("max", "mean")).numpy()
    np.testing.assert_allclose(pooled[0], [*STATES[0, 1], *STATES[0, :2].mean(axis=0)], rtol=1e-6)
    np.testing.assert_allclose(pooled[1], [*STATES[1, 2], *STATES[1].mean(axis=0)], rtol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_an_empty_text_is_pooled_to_zeros(name):
    assert not np.any(pool(STATES, mask(0, 3), (name,))[0])


@pytest.mark.parametrize("name", ["max", "mean"])
def test_what_a_loop_carries_is_the_same(name):
    lengths = (2, 3)
    pooled = pooling.start([name], tf.zeros([2, 4]))
    for step in range(3):
        is_token = mask(*lengths)[:, step]
        h = tf.where(is_token[:, None], STATES[:, step], 0.0)
        pooled = pooling.after_step([name], pooled, h, is_token)
    (finished,) = pooling.finish(pooled, [name], tf.constant(lengths))
    np.testing.assert_allclose(finished, pool(STATES, mask(*lengths), (name,)), rtol=1e-6)


def test_the_gradient_of_a_maximum_is_handed_out_once():
    maximum, ones = tf.constant([[2.0]]), tf.ones([1, 1])
    constant, left = pooling.to_hand_out({"max": ones}, {"max": maximum})
    first, left = pooling.add_gradient(constant, left, tf.zeros([1, 1]), maximum)
    second, _ = pooling.add_gradient(constant, left, tf.zeros([1, 1]), maximum)
    assert (float(first[0, 0]), float(second[0, 0])) == (1.0, 0.0)
