"""What the gates get from each token, compared with Keras' formula and its automatic gradients."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from trainer.model import token_inputs

TOKENS, DIM, UNITS = 9, 4, 3


def make():
    random = np.random.default_rng(0)
    shapes = [(TOKENS, DIM), *2 * [(DIM, 4 * UNITS)], *2 * [(4 * UNITS,)]]
    return [tf.constant(random.normal(size=shape).astype(np.float32)) for shape in shapes]


def expected(embeddings, *weights):
    halves = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), UNITS)
    return [
        (embeddings @ kernel + bias) * halves for kernel, bias in zip(weights[:2], weights[2:], strict=True)
    ]


def tables_and_gradients(tables, values):
    with tf.GradientTape() as tape:
        tape.watch(values)
        results = tables(*values)
        loss = tf.add_n([tf.reduce_sum(tf.sin(table * (way + 1))) for way, table in enumerate(results)])
    return [*results, *tape.gradient(loss, values)]


@pytest.mark.parametrize("embeddings_first", [False, True])
def test_tables_and_gradients_are_those_of_the_formula(embeddings_first):
    def tables(embeddings, *weights):
        return token_inputs.tables(embeddings, weights[:2], weights[2:], embeddings_first=embeddings_first)

    @tf.function(autograph=False)
    def ours(*values):
        return tables_and_gradients(tables, values)

    reference = tables_and_gradients(expected, tuple(make()))
    for value, expectation in zip(ours(*make()), reference, strict=True):
        np.testing.assert_allclose(value, expectation, rtol=1e-5, atol=1e-6)


def test_the_other_gradients_wait_for_that_of_the_embeddings_one_by_one():
    @tf.function(autograph=False)
    def gradients(*values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            results = token_inputs.tables(values[0], values[1:3], values[3:], embeddings_first=True)
            loss = tf.add_n([tf.reduce_sum(table) for table in results])
        return tape.gradient(loss, values)

    def waits_for(op):
        constants = [tensor.op for tensor in op.inputs if tensor.op.type == "Const"]
        return [before for waiting in (op, *constants) for before in waiting.control_inputs]

    operations = gradients.get_concrete_function(*make()).graph.get_operations()
    of_embeddings = [op for op in operations if op.type == "AddN"][-1]
    waiting = [op for op in operations if op.type in ("MatMul", "Sum") and waits_for(op)]
    assert [op.type for op in waiting] == ["MatMul", "Sum", "MatMul", "Sum"]
    for before, after in itertools.pairwise([of_embeddings, *waiting]):
        assert before in waits_for(after)


def test_the_tokens_of_a_batch_are_numbered_in_the_order_in_which_they_occur():
    positions, distinct = token_inputs.renumbered(tf.constant([[5, 2, 5], [2, 7, 0]]), 5000)
    assert positions.numpy().tolist() == [[0, 1, 0], [1, 2, 3]]
    assert distinct.shape == [1024] and distinct[:4].numpy().tolist() == [5, 2, 7, 0]
    np.testing.assert_array_equal(distinct[4:], 0)


def test_halves_are_of_the_gates_that_are_sigmoids():
    assert token_inputs.halves(2).tolist() == [0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5]
