"""One compiled segment; what segments compute together is in lstm_test."""

import numpy as np
import tensorflow as tf

from trainer.model import lstm_segments as compiled

UNITS, BATCH, STEPS, TOKENS = 3, 2, 5, 7


def arguments(first):
    random = np.random.default_rng(0)
    table = tf.constant(random.normal(0, 0.3, (TOKENS + 1, 4 * UNITS)).astype(np.float32))
    recurrent = tf.constant(random.normal(0, 0.3, (UNITS, 4 * UNITS)).astype(np.float32))
    token_ids = tf.constant(random.integers(0, TOKENS, (STEPS, BATCH)).astype(np.int32))
    zeros = tf.zeros([BATCH, UNITS])
    return table, recurrent, token_ids, tf.constant(first), zeros, zeros


def test_a_segment_that_is_skimmed_ends_as_one_that_is_kept():
    pools = [tf.fill([BATCH, UNITS], -1.0), tf.zeros([BATCH, UNITS])]
    skimmed = compiled.skim(*arguments(0), *pools, pooling=("max", "mean"))
    kept = compiled.forward(*arguments(0), *pools, pooling=("max", "mean"))
    for ours, expected in zip(skimmed, kept[:4], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_steps_before_the_first_are_left_out():
    *_, hs, by_gates, c_by_h, c_by_c = compiled.forward(*arguments(2))
    for factors in (hs, by_gates, c_by_h, c_by_c):
        assert factors.shape[:2] == (STEPS, BATCH) and not np.any(factors[:2])
    assert np.any(by_gates[2:])


def test_without_a_gradient_from_above_there_is_none_below():
    table, recurrent, token_ids, first, zeros, _ = arguments(0)
    *_, _, by_gates, c_by_h, c_by_c = compiled.forward(table, recurrent, token_ids, first, zeros, zeros)
    results = compiled.backward(
        *(recurrent, token_ids, first, by_gates, c_by_h, c_by_c, zeros, zeros, tf.zeros_like(table)),
        *({}, (), None),
    )
    assert not any(np.any(result) for result in results)
