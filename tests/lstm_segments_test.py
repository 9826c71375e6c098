"""One compiled segment; what segments compute together is in lstm_test."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import in_place
from trainer.model import lstm_segments as compiled

UNITS, BATCH, STEPS, TOKENS = 3, 2, 5, 7


def arguments(first, *, batch=BATCH, units=UNITS, steps=STEPS):
    random = np.random.default_rng(0)
    table = tf.constant(random.normal(0, 0.3, (TOKENS + 1, 4 * units)).astype(np.float32))
    recurrent = tf.constant(random.normal(0, 0.3, (units, 4 * units)).astype(np.float32))
    token_ids = tf.constant(random.integers(0, TOKENS, (steps, batch)).astype(np.int32))
    zeros = tf.zeros([batch, units])
    return table, recurrent, token_ids, tf.constant(first), zeros, zeros


def memory(given):
    """Variables for what is computed of each step; whatever is in memory must not matter."""
    _, _, token_ids, _, h, _ = given
    (steps, batch), units = token_ids.shape, h.shape[1]
    shapes = [steps, batch, 4 * units], [steps + 1, batch, units]
    return [in_place.assign(in_place.variable(), tf.fill(shape, np.nan)) for shape in shapes]


def forward(given, *pooled, **pooling):
    """The state after the segment, the gates and c."""
    table, recurrent, token_ids, first, *state = given
    variables = memory(given)
    after = compiled.forward(table, recurrent, token_ids, first, *variables, *state, *pooled, **pooling)
    return *after, *map(in_place.read, variables)


def backward(given, gradient, kept, *, constant, left):
    """From gradients of h and c: those before; those of the table and of the gates; h; what is left.

    kept is what `forward` has returned.
    """
    table, recurrent, token_ids, first, h, _ = given
    *_, gates, cs = kept
    sums = [in_place.assign(in_place.variable(), tf.zeros_like(table)), *memory(given)]
    gradients = gradient, gradient
    results = compiled.backward(recurrent, token_ids, first, gates, cs, h, *gradients, *sums, constant, left)
    dh, dc, *left = results
    return dh, dc, *map(in_place.read, sums), *left


def test_a_segment_that_is_skimmed_ends_as_one_that_is_kept():
    pools = [tf.fill([BATCH, UNITS], -1.0), tf.zeros([BATCH, UNITS])]
    skimmed = compiled.skim(*arguments(0), *pools, pooling=("max", "mean"))
    kept = forward(arguments(0), *pools, pooling=("max", "mean"))
    for ours, expected in zip(skimmed, kept[:4], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_steps_before_the_first_are_left_out():
    table, recurrent, token_ids, _, *states = arguments(0)
    shorter = forward((table, recurrent, token_ids[2:], tf.constant(0), *states))
    for ours, expected in zip(forward(arguments(2)), shorter, strict=True):
        ours = ours[2:] if len(ours.shape) == 3 else ours
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_without_a_gradient_from_above_there_is_none_below():
    given = arguments(0)
    dh, dc, d_table, d_gates, _ = backward(given, given[-1], forward(given), constant={}, left=())
    assert not any(np.any(gradient) for gradient in (dh, dc, d_table, d_gates))


def test_before_the_first_step_h_and_the_gradients_of_the_gates_are_zero():
    given = arguments(2)
    *_, d_gates, hs = backward(given, tf.ones_like(given[-1]), forward(given), constant={}, left=())
    assert not np.any(d_gates[:2]) and not np.any(hs[:2])
    assert np.any(d_gates[2]) and np.any(hs[3])


def test_the_backward_pass_computes_the_states_again():
    given = arguments(0)
    *_, hs = backward(given, given[-1], forward(given), constant={}, left=())
    assert not np.any(hs[0])
    np.testing.assert_array_equal(hs[-1], forward(given)[0])


@pytest.mark.parametrize("size", [(1, 1, 4), (3, 5, 5), (5, 17, 4), (33, 37, 7), (64, 64, 16), (9, 31, 16)])
def test_the_gradient_of_each_maximum_finds_its_step(size):
    # The backward pass computes each state again. A bit of difference, and the gradient would be lost.
    given = arguments(0, **dict(zip(("batch", "units", "steps"), size, strict=True)))
    zeros = given[-1]
    _, _, maximum, *_ = kept = forward(given, tf.fill(zeros.shape, -1.0), pooling=("max",))
    *_, left = backward(given, zeros, kept, constant={"maximum": maximum}, left=(tf.ones_like(zeros),))
    assert not np.any(left)
