"""Variables of one call: changed where they are, each call's own, freed, never changed under a reader."""

import numpy as np
import psutil
import pytest
import tensorflow as tf

from trainer import in_place

ROWS = 2**18  # a mebibyte, so that a copy would get memory of its own


@tf.function(jit_compile=True, autograph=False)
def add_one_by_one(handle, times):
    """Adds 1 to each row so many times, in a loop as of the LSTM's backward pass."""
    start = [0, in_place.read(handle)]
    _, value = tf.while_loop(lambda i, value: i < times, lambda i, value: (i + 1, value + 1.0), start)
    in_place.assign(handle, value)
    return tf.reduce_sum(value)


def variable_of(value):
    return in_place.assign(in_place.variable(), value)


def address(handle):
    return in_place.read(handle).numpy().ctypes.data


def test_a_compiled_function_changes_the_value_where_it_is():
    handle = variable_of(tf.zeros([ROWS]))
    add_one_by_one(handle, tf.constant(1))  # the call that compiles it still refers to the value
    before = address(handle)
    add_one_by_one(handle, tf.constant(2))
    assert address(handle) == before
    np.testing.assert_array_equal(in_place.read(handle), np.full(ROWS, 3.0))


def test_a_value_that_was_read_does_not_change():
    handle = variable_of(tf.zeros([ROWS]))
    add_one_by_one(handle, tf.constant(1))
    value = in_place.read(handle)
    add_one_by_one(handle, tf.constant(1))
    assert set(np.unique(value)) == {1.0}
    assert set(np.unique(in_place.read(handle))) == {2.0}


@tf.function(autograph=False)
def count(times):
    handle = variable_of(tf.zeros([ROWS]))
    total = add_one_by_one(handle, times)
    return in_place.read(handle, after=total)


def test_each_call_of_a_graph_has_a_variable_of_its_own():
    assert [float(count(tf.constant(times))[-1]) for times in (3, 1, 2)] == [3.0, 1.0, 2.0]


def test_a_call_leaves_no_memory_behind():
    count(tf.constant(1))
    before = psutil.Process().memory_info().rss
    for _ in range(200):
        count(tf.constant(1))
    assert psutil.Process().memory_info().rss - before < 50 * 4 * ROWS  # of 200


@pytest.mark.parametrize("number", [0.0, 1.0])
def test_a_graph_without_automatic_order_reads_what_was_assigned(number):
    graph = tf.Graph()
    with graph.as_default():
        handle = variable_of(tf.fill([ROWS], number))
        value = in_place.read(handle, after=handle)
    with tf.compat.v1.Session(graph=graph) as session:
        assert set(np.unique(session.run(value))) == {number}
