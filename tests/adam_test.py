"""Adam in one pass, compared with Keras' bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.run import adam

ROWS, COLUMNS = 2**12, 32


def stepping(optimizer):
    """A compiled step of an optimizer; a step in the executor rounds the smallest numbers to zero."""

    @tf.function(autograph=False)
    def step(gradient):
        optimizer.apply([gradient], optimizer.trained)

    return step


@pytest.fixture
def both():
    """A pair of optimizers, ours and Keras', each with a large weight of its own, and their steps."""
    return a_pair(ROWS)


def a_pair(rows):
    start = np.random.default_rng(0).normal(0, 0.05, (rows, COLUMNS)).astype(np.float32)
    made = []
    for kind in (adam.Adam, keras.optimizers.Adam):
        optimizer = kind(1e-3)
        optimizer.trained = [keras.Variable(start)]
        optimizer.build(optimizer.trained)
        made.append((optimizer, stepping(optimizer)))
    return made


def assert_equal(both):
    (ours, _), (theirs, _) = both
    for one, other in zip(ours.variables, theirs.variables, strict=True):
        assert np.array_equal(one.numpy(), other.numpy(), equal_nan=True)
    assert ours.trained[0].numpy().tobytes() == theirs.trained[0].numpy().tobytes()


def test_a_large_weight_is_updated_as_by_keras_bit_for_bit(both):
    random, compiled = np.random.default_rng(1), adam._update
    before = compiled.experimental_get_tracing_count()
    for _ in range(60):
        gradient = random.normal(0, 10.0 ** random.integers(-12, 3, (ROWS, 1)), (ROWS, COLUMNS))
        gradient[random.random(ROWS) < 0.5] = 0.0
        for _, step in both:
            step(tf.constant(gradient, tf.float32))
    assert compiled.experimental_get_tracing_count() > before
    assert_equal(both)


def test_a_small_weight_is_updated_as_by_keras_bit_for_bit():
    pair, random = a_pair(rows=3), np.random.default_rng(1)
    for _ in range(60):
        gradient = tf.constant(random.normal(0, 10.0 ** random.integers(-12, 3), (3, COLUMNS)), tf.float32)
        for _, step in pair:
            step(gradient)
    assert_equal(pair)


def test_slots_that_decay_to_nothing_are_as_those_of_keras(both):
    gradient = tf.constant(np.random.default_rng(2).normal(0, 1e-16, (ROWS, COLUMNS)), tf.float32)
    for number in range(500):
        for _, step in both:
            step(gradient if number == 0 else tf.zeros_like(gradient))
        if number % 100 == 0:
            assert_equal(both)
    # It no longer falls: the executor takes what is below the smallest normal number for zero.
    assert 1e-38 < np.abs(both[0][0]._momentums[0].numpy()).max() < 2e-37
    assert_equal(both)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_gradient_that_is_not_finite_has_the_effect_that_it_has_in_keras(both, value):
    gradient = np.zeros((ROWS, COLUMNS), np.float32)
    gradient[7, 5] = value
    for _ in range(3):
        for _, step in both:
            step(tf.constant(gradient))
    assert_equal(both)
