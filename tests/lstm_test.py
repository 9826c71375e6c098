"""The recurrent kernel, compared with the plain loop and with Keras, and bit for bit with itself."""

import functools
import hashlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from fakes import relative_error
from processes import run

from trainer import in_place
from trainer.model import lstm, lstm_segments
from trainer.model.lstm import LSTMWeights, bidirectional_lstm
from trainer.model.pooling import pool


def make(*, batch=5, time=13, vocab_size=1024, dim=8, units=8, scale=0.3, seed=0):
    """Token ids, lengths, and the weights as variables: embeddings, then those of the two directions.

    What XLA compiles for these sizes serves most tests, also those of a larger vocabulary: the tokens of it
    that a batch has are padded to 1,024.
    """
    random = np.random.default_rng(seed)
    lengths = random.integers(0, time + 1, batch).astype(np.int32)
    lengths[0], lengths[-1] = 0, time
    token_ids = random.integers(0, vocab_size, (batch, time)).astype(np.int32)
    shapes = [(vocab_size, dim)] + 2 * [(dim, 4 * units), (units, 4 * units), (4 * units,)]
    return (
        token_ids,
        lengths,
        [tf.Variable(random.normal(0, scale, shape).astype(np.float32)) for shape in shapes],
    )


def fast(token_ids, lengths, variables, training=True, pooling=("last",), shards=1, longest=None):
    embeddings, *rest = (tf.convert_to_tensor(variable) for variable in variables)
    forward, backward = LSTMWeights(*rest[:3]), LSTMWeights(*rest[3:])
    batch = {"token_ids": token_ids, "lengths": lengths}
    return bidirectional_lstm(
        **batch,
        embeddings=embeddings,
        forward=forward,
        backward=backward,
        training=training,
        pooling=pooling,
        shards=shards,
        longest=longest,
    )


@tf.function(reduce_retracing=True, autograph=False)
def read(tokens, embeddings, kernel, recurrent_kernel, bias):
    def step(state, embedding):
        h, c = state
        i, f, g, o = tf.split(embedding[None] @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    zeros = tf.zeros([1, tf.shape(recurrent_kernel)[0]], tf.float64)
    return tf.scan(step, tf.gather(embeddings, tokens), (zeros, zeros))[0][:, 0]


def pooled(states, name):
    """One pooling of the states of a direction, [time, units], in the order in which it reads them."""
    return {"last": states[-1], "max": tf.reduce_max(states, 0), "mean": tf.reduce_mean(states, 0)}[name]


def plain(token_ids, lengths, variables, pooling=("last",)):
    """The definition of an LSTM (Hochreiter and Schmidhuber 1997, with forget gates), in float64."""
    embeddings, *rest = (tf.cast(variable, tf.float64) for variable in variables)
    reviews = [tf.constant(review[:length]) for review, length in zip(token_ids, lengths, strict=True)]
    zeros = tf.zeros([len(pooling) * 2 * rest[1].shape[0]], tf.float64)
    rows = []
    for review in reviews:
        ways = (review, rest[:3]), (review[::-1], rest[3:])
        states = [read(tokens, embeddings, *weights) for tokens, weights in ways if tokens.shape[0]]
        parts = [pooled(way, name) for name in pooling for way in states]
        rows.append(tf.concat(parts, axis=0) if parts else zeros)
    return tf.stack(rows)


def stock_keras(token_ids, lengths, variables, pooling=("last",)):
    is_plain = pooling == ("last",)
    layer = keras.layers.Bidirectional(
        keras.layers.LSTM(variables[2].shape[0], return_sequences=not is_plain)
    )
    layer.build((None, None, variables[0].shape[1]))
    for weight, variable in zip(layer.trainable_variables, variables[1:], strict=True):
        weight.assign(variable)
    mask = tf.sequence_mask(lengths, token_ids.shape[1])
    states = layer(tf.gather(variables[0], token_ids), mask=mask)
    states = states if is_plain else pool(states, mask, pooling)
    return states, [variables[0], *(weight.value for weight in layer.trainable_variables)]


def states_and_gradients(kernel, token_ids, lengths, variables):
    with tf.GradientTape() as tape:
        states = kernel(token_ids, lengths, variables)
        states, variables = states if isinstance(states, tuple) else (states, variables)
        # Unequal factors, so that no two states can stand in for each other.
        loss = tf.reduce_sum(
            states
            * tf.cast(tf.reshape(tf.linspace(-1.0, 2.0, tf.size(states)), tf.shape(states)), states.dtype)
        )
    return [states, *(tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables))]


CASES = {
    "one token": {"batch": 1, "time": 1},
    "shorter than a segment": {},
    "a segment exactly": {"time": lstm_segments.segment_steps(5)},
    "a token more than a segment": {"time": lstm_segments.segment_steps(5) + 1},
    "three segments": {"time": 2 * lstm_segments.segment_steps(5) + 2},
    "many reviews in short segments": {"batch": 700, "time": 12},
    "one unit": {"units": 1, "dim": 3},
    "a vocabulary larger than the batch": {"vocab_size": 5000},
    "a batch that holds most of a large vocabulary": {
        "vocab_size": 2100,
        "batch": 60,
        "time": 70,
        "dim": 2,
        "units": 2,
    },
    "a vocabulary of two tokens": {"vocab_size": 2},
}


# The definition reads review by review: of many reviews, Keras alone is the reference.
@pytest.mark.parametrize("case", [case for case in CASES if "many" not in case])
def test_values_and_gradients_match_the_definition(case):
    example = make(**CASES[case])
    for ours, expected in zip(
        states_and_gradients(fast, *example), states_and_gradients(plain, *example), strict=True
    ):
        assert relative_error(ours, expected) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_match_keras(case):
    example = make(**CASES[case])
    for ours, theirs in zip(
        states_and_gradients(fast, *example), states_and_gradients(stock_keras, *example), strict=True
    ):
        assert relative_error(ours, theirs) < 1e-5


@pytest.mark.parametrize("scale", [1.0, 3.0, 10.0])
def test_with_saturated_gates_the_kernel_is_as_exact_as_keras(scale):
    example = make(scale=scale)
    expected = states_and_gradients(plain, *example)
    ours, theirs = states_and_gradients(fast, *example), states_and_gradients(stock_keras, *example)
    for mine, other, truth in zip(ours, theirs, expected, strict=True):
        assert relative_error(mine, truth) < max(1e-5, 4 * relative_error(other, truth))


ALL_POOLINGS = ("last", "max", "mean")


@pytest.mark.slow
def test_gradients_of_the_definition_match_finite_differences():
    token_ids, lengths, variables = make(batch=1, time=3, vocab_size=4, dim=2, units=2)
    variables = [tf.Variable(tf.cast(variable, tf.float64)) for variable in variables]
    definition = tf.function(lambda *values: plain(token_ids, lengths, values, ALL_POOLINGS), autograph=False)
    theoretical, numerical = tf.test.compute_gradient(definition, variables)
    for ours, expected in zip(theoretical, numerical, strict=True):
        assert relative_error(ours, expected) < 1e-6


POOLINGS = [("max",), ("mean",), ALL_POOLINGS, ("max", "last")]
POOLED_CASES = (
    *("one token", "shorter than a segment", "three segments", "one unit"),
    "a vocabulary larger than the batch",
)


def slow_unless(is_fast, *values, name):
    """A parameter whose test is part of the fast tier or not."""
    return pytest.param(*values, id=name, marks=() if is_fast else pytest.mark.slow)


@pytest.mark.parametrize(
    ("case", "pooling"),
    [
        pytest.param(case, pooling, id=f"{case}-{'-'.join(pooling)}")
        for case in POOLED_CASES
        for pooling in POOLINGS
        if case == "three segments" or pooling == ALL_POOLINGS
    ],
)
def test_pooled_values_and_gradients_match_the_definition(case, pooling):
    example, ways = make(**CASES[case]), {"pooling": pooling}
    for ours, expected in zip(
        states_and_gradients(functools.partial(fast, **ways), *example),
        states_and_gradients(functools.partial(plain, **ways), *example),
        strict=True,
    ):
        assert relative_error(ours, expected) < 1e-5


@pytest.mark.parametrize(
    "pooling",
    [
        slow_unless(pooling == ALL_POOLINGS, pooling, name="-".join(pooling))
        for pooling in (ALL_POOLINGS, ("max", "last"))
    ],
)
def test_pooled_values_and_gradients_match_keras(pooling):
    def of_keras(token_ids, lengths, variables):
        return stock_keras(token_ids, lengths, variables, pooling)

    example = make(**CASES["a token more than a segment"])
    for ours, theirs in zip(
        states_and_gradients(functools.partial(fast, pooling=pooling), *example),
        states_and_gradients(of_keras, *example),
        strict=True,
    ):
        assert relative_error(ours, theirs) < 1e-5


def test_a_maximum_below_zero_is_not_that_of_the_padding():
    token_ids, lengths, variables = make(time=30)
    for bias in variables[3], variables[6]:
        bias[16:24].assign(tf.fill([8], -5.0))  # the cell's gate
    lengths[:] = 3, 1, 30, 0, 0
    maxima = fast(token_ids, lengths, variables, pooling=("max",))
    assert np.all(maxima[:3] < 0.0) and not np.any(maxima[3:])
    assert relative_error(maxima, plain(token_ids, lengths, variables, ("max",))) < 1e-5


def test_the_gradient_of_equal_maxima_goes_to_the_token_that_the_direction_reads_last():
    # Without kernels, and with a forget gate that is shut, each state is the same.
    token_ids, lengths = np.int32([[1, 2, 3, 4], [1, 2, 0, 0]]), np.int32([4, 2])
    _, _, variables = make(vocab_size=5, dim=5, units=1)
    variables[0].assign(tf.eye(5))
    for kernel, recurrent_kernel, bias in (variables[1:4], variables[4:7]):
        kernel.assign(tf.zeros_like(kernel))
        recurrent_kernel.assign(tf.zeros_like(recurrent_kernel))
        bias.assign([1.0, -100.0, 1.0, 1.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fast(token_ids, lengths, variables, pooling=("max",)))
    forward, backward = tape.gradient(loss, [variables[1], variables[4]])
    assert np.flatnonzero(forward[:, 0]).tolist() == [2, 4]
    assert np.flatnonzero(backward[:, 0]).tolist() == [1]


@pytest.mark.parametrize("segments", [0, 1, 3])
def test_recomputed_segments_give_the_same_bits_of_poolings(monkeypatch, segments):
    kernel = functools.partial(fast, pooling=ALL_POOLINGS)
    example = make(time=250)
    kept = [value.numpy().tobytes() for value in states_and_gradients(kernel, *example)]
    monkeypatch.setattr(lstm, "_KEPT_SEGMENTS", segments)
    assert [value.numpy().tobytes() for value in states_and_gradients(kernel, *example)] == kept


@pytest.mark.parametrize(("longest", "loops"), [(None, 8), (178, 4), (64 * 64, 4), (64 * 64 + 1, 8)])
def test_with_a_known_longest_text_a_graph_has_half_the_loops_and_the_same_bits(longest, loops):
    example = make(time=178)
    read = functools.partial(fast, pooling=("last", "max"))

    @tf.function(autograph=False)
    def in_a_graph():
        return states_and_gradients(functools.partial(read, longest=longest), *example)

    operations = in_a_graph.get_concrete_function().graph.get_operations()
    assert sum(operation.type in ("While", "StatelessWhile") for operation in operations) == loops
    for one, other in zip(in_a_graph(), states_and_gradients(read, *example), strict=True):
        assert one.numpy().tobytes() == other.numpy().tobytes()


def test_tokens_beyond_the_length_are_never_read():
    token_ids, lengths, variables = make()
    garbage = np.where(np.arange(token_ids.shape[1]) < lengths[:, None], token_ids, 10**6)
    assert (
        fast(garbage, lengths, variables).numpy().tobytes()
        == fast(token_ids, lengths, variables).numpy().tobytes()
    )


def test_an_empty_review_gives_zeros_and_has_no_gradient():
    token_ids, lengths, variables = make(time=5)
    states, *gradients = states_and_gradients(fast, token_ids, np.zeros_like(lengths), variables)
    assert not np.any(states)
    assert not any(np.any(gradient) for gradient in gradients)


def test_recomputed_segments_give_the_same_bits(monkeypatch):
    example = make(time=250)
    kept = [value.numpy().tobytes() for value in states_and_gradients(fast, *example)]
    for segments in (0, 1, 3):
        monkeypatch.setattr(lstm, "_KEPT_SEGMENTS", segments)
        assert [value.numpy().tobytes() for value in states_and_gradients(fast, *example)] == kept


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_without_training_are_bit_identical(case):
    example = make(**CASES[case])

    def without(*example):
        return fast(*example, training=False)

    for ours, expected in zip(
        states_and_gradients(without, *example), states_and_gradients(fast, *example), strict=True
    ):
        assert ours.numpy().tobytes() == expected.numpy().tobytes()


def test_the_rows_of_a_batch_do_not_influence_each_other():
    token_ids, lengths, variables = make(time=40)
    together = fast(token_ids, lengths, variables).numpy()
    for row in range(len(lengths)):
        alone = fast(token_ids[row : row + 1], lengths[row : row + 1], variables).numpy()
        assert relative_error(alone[0], together[row]) < 1e-6


def test_one_trace_serves_all_lengths():
    _, _, variables = make()
    states = tf.function(
        lambda token_ids, lengths: fast(token_ids, lengths, variables),
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)],
        autograph=False,
    )
    for time in (1, 30, 31, 32, 33, 64, 65, 200, 7):
        token_ids, lengths, _ = make(batch=4, time=time)
        assert relative_error(states(token_ids, lengths), plain(token_ids, lengths, variables)) < 1e-5
    assert states.experimental_get_tracing_count() == 1
    segments = lstm_segments.forward.experimental_get_tracing_count()
    states(*make(batch=4, time=500)[:2])
    assert lstm_segments.forward.experimental_get_tracing_count() == segments


def test_a_batch_of_static_size_may_follow_one_of_dynamic_size():
    token_ids, lengths, variables = make(batch=6, time=40, units=5)

    def call(batch):
        signature = [tf.TensorSpec([batch, None], tf.int32), tf.TensorSpec([batch], tf.int32)]
        return tf.function(
            lambda *batch: states_and_gradients(fast, *batch, variables),
            input_signature=signature,
            autograph=False,
        )(token_ids, lengths)

    for ours, expected in zip(call(None), call(6), strict=True):
        assert relative_error(ours, expected) < 1e-6


@pytest.mark.slow
def test_a_thousand_identical_calls_give_the_same_bits():
    example = make(batch=4, time=70, vocab_size=20, dim=16, units=16)
    kernel = functools.partial(fast, longest=70)
    call = tf.function(lambda: states_and_gradients(kernel, *example), autograph=False)
    first = [value.numpy().tobytes() for value in call()]
    assert all([value.numpy().tobytes() for value in call()] == first for _ in range(1000))


PROGRAM = """
import glob, os, sys
sys.path[:0] = sys.argv[2:]
import lstm_test
from trainer.run import distribution

def on(cores, threads):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    distribution.set_threads(intra_op=1, inter_op=threads)
    for shards in (1, 3):
        print(lstm_test.digest_of(shards))

def compilations():
    os.environ["XLA_FLAGS"] += f" --xla_dump_to={sys.argv[1]} --xla_dump_hlo_as_text"
    for vocab_size in (50, 5000):
        for times in ((200, 7, 64), (1, 63, 65, 128, 129, 299)):
            for time in times:
                example = lstm_test.make(batch=3, time=time, vocab_size=vocab_size, dim=4, units=4)
                lstm_test.states_and_gradients(lstm_test.fast, *example)
            print(len(glob.glob(sys.argv[1] + "/*before_optimizations.txt")))

# TensorFlow is imported but not used yet: a fork has the threads and the flags that it makes.
for task in (lambda: on(cores=1, threads=1), lambda: on(cores=2, threads=4), compilations):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        task()
        sys.stdout.flush()
        os._exit(0)
"""


@pytest.fixture(scope="module")
def printed(build_once):
    """What other processes print, which compile for themselves: four digests, and four counts."""

    def make(folder):
        environment = os.environ | {"TF_XLA_FLAGS": ""}
        command = [sys.executable, "-c", PROGRAM, str(folder), *sys.path]
        answer = run(command, env=environment, stdout=subprocess.PIPE, check=True)
        (folder / "printed").write_bytes(answer.stdout)

    return (build_once("lstm", make) / "printed").read_text().split()


@pytest.mark.slow
def test_another_process_gives_the_same_bits_on_one_core_and_on_two(printed):
    assert printed[0:4:2] == [digest_of(shards=1)] * 2


@pytest.mark.slow
def test_shards_give_the_same_bits_on_one_thread_and_on_more_than_there_are_cores(printed):
    assert printed[1:4:2] == [digest_of(shards=3)] * 2


def digest_of(shards):
    """Of states and gradients of four reviews a shard: XLA compiles the same for any number of shards."""
    example = make(batch=4 * shards, time=70, vocab_size=20, dim=16, units=16)
    kernel = tf.function(functools.partial(fast, shards=shards, longest=70), autograph=False)
    values = states_and_gradients(kernel, *example)
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest()


@pytest.mark.parametrize(
    ("shards", "vocab_size"),
    [
        slow_unless((shards, vocab_size) == (3, 1024), shards, vocab_size, name=f"{shards}-{vocab_size}")
        for shards, vocab_size in ((2, 5000), (3, 1024), (6, 5000))
    ],
)
def test_shards_change_values_and_gradients_by_rounding_alone(shards, vocab_size):
    example = make(time=70, vocab_size=vocab_size)
    kernel = functools.partial(fast, pooling=("last", "max"), longest=70)
    in_shards = tf.function(functools.partial(kernel, shards=shards), autograph=False)
    for one, other in zip(
        states_and_gradients(in_shards, *example), states_and_gradients(kernel, *example), strict=True
    ):
        assert relative_error(one, other) < 1e-5


@functools.cache
def graph_of_four_shards():
    """The operations of states and gradients, and how many segments were traced anew for them."""
    token_ids, lengths, variables = make(batch=8, time=9, vocab_size=30, dim=4, units=4)
    before = lstm_segments.forward.experimental_get_tracing_count()

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            states = fast(tf.constant(token_ids), tf.constant(lengths), variables, shards=4)
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(states, variables)]

    operations = gradients.get_concrete_function().graph.get_operations()
    return operations, lstm_segments.forward.experimental_get_tracing_count() - before


def test_all_shards_use_the_same_compiled_segments():
    _, traced = graph_of_four_shards()
    assert traced == 1


def test_segments_that_share_memory_wait_for_each_other():
    # A graph that is not a function's orders nothing by itself.
    with tf.Graph().as_default() as graph:
        segments, before = lstm_segments.Segments(tf.zeros([8, 2], tf.int32)), tf.zeros([])
        weights, states = (tf.zeros([7, 12]), tf.zeros([3, 12])), [tf.zeros([2, 3])] * 2
        handles = [in_place.variable() for _ in range(2)]
        after, _ = lstm._forward(segments, *weights, handles, tf.constant(0), states, after=before)
    assigned, read = (
        [operation for operation in graph.get_operations() if operation.type == kind]
        for kind in ("AssignVariableOp", "ReadVariableOp")
    )
    assert len(assigned) == len(read) == 2
    assert all(before.op in waited_for(operation) for operation in assigned)
    assert all(set(read) <= waited_for(state.op) for state in after)


def waited_for(operation):
    """The operations that come before one, whether it uses what they compute or not."""
    found, left = set(), [operation]
    while left:
        last = left.pop()
        new = {*last.control_inputs, *(tensor.op for tensor in last.inputs)} - found
        found |= new
        left += new
    return found


def test_no_shard_waits_for_another():
    operations, _ = graph_of_four_shards()
    calls = [operation for operation in operations if "PartitionedCall" in operation.type]
    assert len(calls) == 2 * 4
    assert not any(set(call.control_inputs) & set(calls) for call in calls)


def ancestors(nodes, name):
    """All that a node of a function waits for, by data or by control."""
    found, left = set(), [name]
    while left:
        name = left.pop().lstrip("^").split(":")[0]
        if name in nodes and name not in found:
            found.add(name)
            left += nodes[name].input
    return found


def test_a_segment_waits_for_the_product_of_the_gradients_that_it_replaces():
    token_ids, lengths, variables = make(batch=8, time=9, vocab_size=30, dim=4, units=4)
    values = [variable.numpy() for variable in variables]
    with tf.Graph().as_default() as graph:
        weights = [tf.constant(value) for value in values]
        tf.gradients(fast(tf.constant(token_ids), tf.constant(lengths), weights), weights)
    loops = 0
    for function in graph.as_graph_def().library.function:
        nodes = {node.name: node for node in function.node_def}
        calls = {name for name, node in nodes.items() if "backward" in node.attr["f"].func.name}
        products = {name for name, node in nodes.items() if node.op == "MatMul"}
        if calls and products:
            loops += 1
            waits = [ancestors(nodes, output) for output in function.ret.values()]
            assert all(products <= found for found in waits if calls & found)
    assert loops == 2 * 2  # kept and recomputed segments of each direction


@pytest.mark.slow
def test_new_lengths_compile_nothing_new(printed):
    assert printed[4:] == ["2", "2", "4", "4"]
