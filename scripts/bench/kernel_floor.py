"""The floor of a train step: the time of each part alone, in cache, run twice at once for two directions."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from kernels import DIM, Call, Example

from trainer.model import lstm

SEGMENTS, SEGMENT_STEPS = 8, 32
STEPS = SEGMENTS * SEGMENT_STEPS


class Parts(NamedTuple):
    """The parts of a train step, by name.

    Attributes:
      each_time_step: each call does the work of `STEPS` time steps.
      once: each call does `SEGMENTS` times the work that a train step does once.
    """

    each_time_step: Mapping[str, Call]
    once: Mapping[str, Call]

    def calls(self) -> dict[str, Call]:
        """All parts."""
        return {**self.each_time_step, **self.once}

    def floor(self, taken: Mapping[str, float], time_steps: int) -> float:
        """The floor of a train step of `time_steps` time steps, from the times of the calls."""
        each = sum(taken[name] for name in self.each_time_step) / STEPS
        once = sum(taken[name] for name in self.once) / SEGMENTS
        return each * time_steps + once


def parts(batch_size: int, time_steps: int, vocab_size: int, units: int) -> Parts:
    """The parts of a train step on random values, with the tokens of an `Example`."""
    random = np.random.default_rng(0)
    drawn = Example(batch_size, time_steps, vocab_size, units).token_ids.numpy()
    distinct, numbered = np.unique(drawn, return_inverse=True)
    tokens = vocab_size if vocab_size <= lstm.SMALL_VOCABULARY else len(distinct)

    def values(*shape: int) -> tf.Tensor:
        return tf.constant(random.normal(0, 0.1, shape).astype(np.float32))

    rows = batch_size * SEGMENT_STEPS
    token_ids = tf.constant(np.resize(numbered, [rows, 1]), tf.int32)
    table, recurrent = values(tokens, 4 * units), values(units, 4 * units)
    transposed = tf.transpose(recurrent)
    state, gates = values(batch_size, units), values(batch_size, 4 * units)
    states_of_segment, gates_of_segment = values(rows, units), values(rows, 4 * units)

    def gradient(sums: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> list[tf.Tensor]:
        # Swap the two operands; otherwise the product would be computed only once.
        return [sums + tf.matmul(states_of_segment, one, transpose_a=True), other, one]

    def look_up(gates: tf.Tensor) -> list[tf.Tensor]:
        return [tf.gather(table, token_ids[:batch_size, 0]) + gates]

    def sum_by_token(sums: tf.Tensor) -> list[tf.Tensor]:
        return [tf.tensor_scatter_nd_add(sums, token_ids, gates_of_segment)]

    starts = (recurrent, gates_of_segment, values(rows, 4 * units))
    each_time_step = {
        "h U": _repeated(lambda h: [(h @ recurrent)[:, :units]], state),
        "dz U'": _repeated(lambda dz: [tf.tile(dz @ transposed, [1, 4])], gates),
        "h' dz": _repeated(gradient, *starts, times=SEGMENTS, jit_compile=False),
        "activations": _repeated(_activations, gates, state),
        "backward products": _repeated(functools.partial(_products, state, gates), state, state),
        "look-up": _repeated(look_up, gates),
        "sum by token": _repeated(sum_by_token, table, times=SEGMENTS),
    }
    half_the_weights = values(vocab_size * DIM // 2 + (DIM + units + 1) * 4 * units, 1)
    return Parts(each_time_step, _once(values(tokens, DIM), values(DIM, 4 * units), half_the_weights))


def _once(embeddings: tf.Tensor, kernel: tf.Tensor, half_the_weights: tf.Tensor) -> dict[str, Call]:
    return {
        "projection": _repeated(_projection, embeddings, kernel, times=SEGMENTS, jit_compile=False),
        "update": _repeated(_update, *3 * [half_the_weights], times=SEGMENTS),
    }


def _repeated(
    body: Callable[..., Sequence[tf.Tensor]],
    *start: tf.Tensor,
    times: int = STEPS,
    jit_compile: bool = True,
) -> Call:
    # Calls `body` on its own results, `times` times, in two loops at once.
    @tf.function(jit_compile=jit_compile)
    def loop(*start: tf.Tensor) -> list[tf.Tensor]:
        def continues(i: tf.Tensor, *values: tf.Tensor) -> tf.Tensor:
            return i < times

        def step(i: tf.Tensor, *values: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (i + 1, *body(*values))

        # Never true. XLA would copy large arguments in a thread that both loops share: see `in_place`.
        is_nan = tf.math.is_nan(start[0][0, 0])
        start = tuple(tf.where(is_nan, 0.0, value) for value in start) if jit_compile else start
        return tf.while_loop(continues, step, [0, *start])

    @tf.function
    def twice(*starts: tf.Tensor) -> list[tf.Tensor]:
        return [loop(*starts[: len(start)])[1], loop(*starts[len(start) :])[1]]

    starts = [*start, *(value + 1e-3 for value in start)]
    return lambda: [value.numpy() for value in twice(*starts)]


def _activations(gates: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, ...]:
    i, f, g, o = tf.split(tf.tanh(gates + c[0, 0]), 4, axis=1)
    c = 0.5 * ((f + 1.0) * c + (i + 1.0) * g)
    return gates, 0.5 * (o + 1.0) * tf.tanh(c)


def _products(state: tf.Tensor, gates: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor) -> tuple[tf.Tensor, ...]:
    dc += dh * state
    d_gates = tf.concat([dc, dc, dc, dh], axis=1) * gates
    return sum(tf.split(d_gates, 4, axis=1)), dc * state


def _projection(embeddings: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, ...]:
    table = embeddings @ kernel
    return tf.matmul(table, kernel, transpose_b=True), tf.matmul(embeddings, table, transpose_a=True)


def _update(weights: tf.Tensor, m: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, ...]:
    m, v = m + 0.1 * (weights - m), v + 0.001 * (weights * weights - v)
    return weights - 1e-4 * m / (tf.sqrt(v) + 1e-7), m, v
