"""Times the recurrent kernel, forward and backward, against Keras', BlockLSTM and the sum of its parts timed alone.

    python scripts/bench_kernel.py [--batch_sizes=64,256] [--times=50,250,1000] [--rounds=5]

Each round times every kernel once, one after the other, so that a machine that slows down slows all of them; the table has medians and, as
ratios, the medians of the rounds' ratios. The floor of a train step is what its parts cost alone, in cache: the three matrix products of a
time step, the activations, the products of the backward pass, the look-ups and their sum; once a step, the product of embeddings and input
kernel with its gradients, and the update of the weights. Each part is done twice at once, as the two directions do it.
"""

import argparse
import itertools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from trainer.main import importing_tensorflow

with importing_tensorflow():
    import keras
    import numpy as np
    import tensorflow as tf

from trainer import machine, start, train
from trainer.config import Config
from trainer.data.input_pipeline import Batch
from trainer.model import lstm
from trainer.run import distribution

DIM = UNITS = 64


class Example:
    """A batch of reviews whose lengths lie between 0.95 and 1 times the longest, and weights, all random."""

    def __init__(self, batch_size: int, time_steps: int, vocab_size: int) -> None:
        random = np.random.default_rng(0)
        self.token_ids = tf.constant(random.integers(0, vocab_size, (batch_size, time_steps)), tf.int32)
        self.lengths = tf.constant(random.integers(time_steps * 19 // 20, time_steps + 1, batch_size), tf.int32)
        self.layer = keras.layers.Bidirectional(keras.layers.LSTM(UNITS))
        self.layer.build((None, None, DIM))
        embeddings = tf.Variable(random.uniform(-0.05, 0.05, (vocab_size, DIM)).astype(np.float32))
        self.variables = [embeddings, *(weight.value for weight in self.layer.trainable_variables)]


def ours(example: Example) -> tf.Tensor:
    """The trainer's kernel."""
    embeddings, *weights = map(tf.convert_to_tensor, example.variables)
    forward, backward = lstm.LSTMWeights(*weights[:3]), lstm.LSTMWeights(*weights[3:])
    batch = {"token_ids": example.token_ids, "lengths": example.lengths}
    return lstm.bidirectional_lstm(**batch, embeddings=embeddings, forward=forward, backward=backward, training=True)


def keras_lstm(example: Example) -> tf.Tensor:
    """Keras' own layer over masked embeddings, as `model.fit` runs it on a CPU."""
    mask = tf.sequence_mask(example.lengths, tf.shape(example.token_ids)[1])
    return example.layer(tf.gather(example.variables[0], example.token_ids), mask=mask)


def block_lstm(example: Example) -> tf.Tensor:
    """TensorFlow's fused operation; without a mask, which it does not have."""
    embedded = tf.transpose(tf.gather(example.variables[0], example.token_ids), [1, 0, 2])
    ends = []
    for inputs, (kernel, recurrent, bias) in (
        (embedded, example.variables[1:4]),
        (tf.reverse(embedded, [0]), example.variables[4:]),
    ):
        zeros = tf.zeros([tf.shape(inputs)[1], UNITS])
        weights = {"w": tf.concat([kernel, recurrent], axis=0), "b": bias, **dict.fromkeys(("wci", "wcf", "wco"), tf.zeros(UNITS))}
        states = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.shape(inputs, tf.int64)[0], x=inputs, cs_prev=zeros, h_prev=zeros, **weights, forget_bias=0.0, cell_clip=-1.0
        )
        ends.append(states.h[-1])
    return tf.concat(ends, axis=1)


def forward(kernel: Callable, example: Example) -> Callable[[], None]:
    """The forward pass."""
    call = tf.function(lambda: tf.reduce_sum(kernel(example)))
    return lambda: call().numpy()


def forward_and_backward(kernel: Callable, example: Example) -> Callable[[], None]:
    """The forward and the backward pass."""

    @tf.function
    def call() -> tf.Tensor:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(kernel(example))
        gradients = tape.gradient(total, example.variables)
        return tf.add_n([tf.reduce_sum(tf.convert_to_tensor(gradient)) for gradient in gradients])

    return lambda: call().numpy()


def train_step(batch_size: int, time_steps: int, vocab_size: int) -> Callable[[], None]:
    """The trainer's whole step, on a batch of that shape."""
    example, settings = Example(batch_size, time_steps, vocab_size), Config(workdir="none", batch_size=batch_size)
    replicas = distribution.Replicas()
    state = start.make_state(settings, vocab_size, dict.fromkeys(("frozen_flags", "fingerprints", "conditions"), ""), replicas)
    step = train.make_train_step(state, replicas, batch_size=batch_size, clip_norm=settings.clip_norm)
    batch = Batch(example.token_ids, example.lengths, tf.zeros(batch_size), tf.ones(batch_size), reviews=tf.constant(float(batch_size)))
    return lambda: step((batch,), 0.0).numpy()


SEGMENTS, SEGMENT_STEPS = 8, 32
STEPS = SEGMENTS * SEGMENT_STEPS


def parts(batch_size: int, vocab_size: int) -> tuple[Mapping[str, Callable[[], None]], Mapping[str, Callable[[], None]]]:
    """What a train step is made of, each part alone: those of `STEPS` time steps, and, done `SEGMENTS` times, those that it does once."""
    random = np.random.default_rng(0)

    def values(*shape: int) -> tf.Tensor:
        return tf.constant(random.normal(0, 0.1, shape).astype(np.float32))

    def repeated(body: Callable, *start: tf.Tensor, times: int = STEPS, jit_compile: bool = True) -> Callable[[], None]:
        @tf.function(jit_compile=jit_compile)
        def loop(*start):
            return tf.while_loop(lambda i, *_: i < times, lambda i, *values: (i + 1, *body(*values)), [0, *start])

        @tf.function
        def twice(*starts):
            return [loop(*starts[: len(start)])[1], loop(*starts[len(start) :])[1]]

        starts = [*start, *(value + 1e-3 for value in start)]
        return lambda: [value.numpy() for value in twice(*starts)]

    def activations(gates, c):
        i, f, g, o = tf.split(tf.tanh(gates + c[0, 0]), 4, axis=1)
        c = 0.5 * ((f + 1.0) * c + (i + 1.0) * g)
        return gates, 0.5 * (o + 1.0) * tf.tanh(c)

    def products(dh, dc):
        dc += dh * state
        d_gates = tf.concat([dc, dc, dc, dh], axis=1) * gates
        return sum(tf.split(d_gates, 4, axis=1)), dc * state

    def projection(embeddings, kernel):
        table = embeddings @ kernel
        return tf.matmul(table, kernel, transpose_b=True), tf.matmul(embeddings, table, transpose_a=True)

    def update(weights, m, v):
        m, v = m + 0.1 * (weights - m), v + 0.001 * (weights * weights - v)
        return weights - 1e-4 * m / (tf.sqrt(v) + 1e-7), m, v

    rows = batch_size * SEGMENT_STEPS
    token_ids = tf.constant(random.integers(0, vocab_size, [rows, 1]), tf.int32)
    embeddings, table, recurrent = values(vocab_size, DIM), values(vocab_size, 4 * UNITS), values(UNITS, 4 * UNITS)
    state, gates = values(batch_size, UNITS), values(batch_size, 4 * UNITS)
    states_of_segment, gates_of_segment = values(rows, UNITS), values(rows, 4 * UNITS)
    transposed, half_the_weights = tf.transpose(recurrent), values(vocab_size * DIM // 2 + (DIM + UNITS + 1) * 4 * UNITS)
    each_time_step = {
        "h U": repeated(lambda h: [(h @ recurrent)[:, :UNITS]], state),
        "dz U'": repeated(lambda dz: [tf.tile(dz @ transposed, [1, 4])], gates),
        "h' dz": repeated(
            # Two operands that change places, or the product would be taken once.
            lambda sums, one, other: [sums + tf.matmul(states_of_segment, one, transpose_a=True), other, one],
            *(recurrent, gates_of_segment, values(rows, 4 * UNITS)),
            times=SEGMENTS,
            jit_compile=False,
        ),
        "activations": repeated(activations, gates, state),
        "backward products": repeated(products, state, state),
        "look-up": repeated(lambda gates: [tf.gather(table, token_ids[:batch_size, 0]) + gates], gates),
        "sum by token": repeated(lambda sums: [tf.tensor_scatter_nd_add(sums, token_ids, gates_of_segment)], table, times=SEGMENTS),
    }
    return each_time_step, {
        "projection": repeated(projection, embeddings, recurrent, times=SEGMENTS, jit_compile=False),
        "update": repeated(update, *3 * [half_the_weights], times=SEGMENTS),
    }


def milliseconds(call: Callable[[], None], repeats: int) -> float:
    """The median of some calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def compare(batch_size: int, time_steps: int, vocab_size: int, rounds: int) -> dict[str, float]:
    """Medians of one shape, interleaved, in milliseconds; and the medians of the rounds' ratios."""
    example = Example(batch_size, time_steps, vocab_size)
    calls = {"train step": train_step(batch_size, time_steps, vocab_size), "forward": forward(ours, example)}
    calls |= {kernel.__name__: forward_and_backward(kernel, example) for kernel in (ours, keras_lstm, block_lstm)}
    each_time_step, once = parts(batch_size, vocab_size)
    calls |= each_time_step | once
    for call in calls.values():
        call()
    times = [{name: milliseconds(call, 3) for name, call in calls.items()} for _ in range(rounds)]
    for row in times:
        row["floor"] = sum(row[name] for name in each_time_step) * time_steps / STEPS + sum(row[name] for name in once) / SEGMENTS
        row["train step / floor"] = row["train step"] / row["floor"]
        row |= {f"{name} / ours": row[name] / row["ours"] for name in ("keras_lstm", "block_lstm")}
    result = {name: statistics.median(row[name] for row in times) for name in times[0]}
    return result | {
        "each time step": {name: 1000 * result[name] / STEPS for name in each_time_step},
        "once": {name: 1000 * result[name] / SEGMENTS for name in once},
    }


def profile(logdir: str, batch_size: int, time_steps: int, vocab_size: int) -> None:
    """Writes a profile of 20 steps, for TensorBoard's profiler."""
    call = train_step(batch_size, time_steps, vocab_size)
    call()
    with tf.profiler.experimental.Profile(logdir):
        for number in range(20):
            with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
                call()


COLUMNS = ("train step", "floor", "train step / floor", "ours", "forward", "keras_lstm / ours", "block_lstm / ours")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"type": lambda text: [int(number) for number in text.split(",")]}
    parser.add_argument("--batch_sizes", default=[64, 256], **numbers)
    parser.add_argument("--times", default=[50, 250, 1000], **numbers)
    parser.add_argument("--vocab_size", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", metavar="LOGDIR", help="instead, write a profile of 20 steps of the first shape for TensorBoard")
    parser.add_argument("--intra_op_threads", type=int, default=Config.intra_op_threads)
    parser.add_argument("--inter_op_threads", type=int, default=Config.inter_op_threads)
    given = parser.parse_args()
    distribution.set_threads(intra_op=given.intra_op_threads, inter_op=given.inter_op_threads)
    if given.profile:
        profile(given.profile, given.batch_sizes[0], given.times[0], given.vocab_size)
        return
    here = f"{machine.cpu()['cpu']}, {machine.usable_cores()} cores, {time.strftime('%Y-%m-%d')}"
    print(f"{here}; milliseconds, {UNITS} units in each direction\n")
    print(f"| batch x time | {' | '.join(COLUMNS)} |\n|{' --- |' * (len(COLUMNS) + 1)}")
    shares = {}
    for batch_size, time_steps in itertools.product(given.batch_sizes, given.times):
        row = compare(batch_size, time_steps, given.vocab_size, given.rounds)
        shares[batch_size] = {use: ", ".join(f"{name} {cost:.1f}" for name, cost in row[use].items()) for use in ("each time step", "once")}
        cells = [f"{row[name]:.2f}" if "/" in name else f"{row[name]:.1f}" for name in COLUMNS]
        print(f"| {batch_size} x {time_steps} | {' | '.join(cells)} |", flush=True)
    for batch_size, costs in shares.items():
        print(f"\nThe floor of batch {batch_size} in microseconds: each time step {costs['each time step']}; once a step {costs['once']}.")


if __name__ == "__main__":
    main()
