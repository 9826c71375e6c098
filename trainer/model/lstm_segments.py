"""Segments of time steps, and the passes of the LSTM over one, each compiled by XLA; `lstm` runs them.

h and c are the states, float32 [batch, units]. A segment has a fixed number of steps and the token ids
[steps, batch]; padding, whose id is the number of rows of the table, precedes each text.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import function_names, in_place
from trainer.model import pooling as pools

Loop = tuple[Any, ...]  # the variables of a `tf.while_loop`: tensors and arrays of tensors


# Rows are time steps times reviews. A segment of more rows does not fit the caches; one of fewer is called
# too often.
_SEGMENT_ROWS = 4096
_MOST_SEGMENT_STEPS = 64

# Far enough below zero for the tanh of a gate to be -1 exactly, whatever a recurrent state adds.
_SHUT = -1e9


def segment_steps(batch_size: int | None) -> int:
    """The time steps of a segment; `batch_size` is None if only the running graph knows it."""
    return min(_MOST_SEGMENT_STEPS, max(4, _SEGMENT_ROWS // (batch_size or _MOST_SEGMENT_STEPS)))


class Segments:
    """A batch cut into segments of equal length; in the first, padding comes before its first step.

    Args:
      token_ids: int32 [time, batch].

    Attributes:
      batch_size: None if only the running graph knows it.
      rows: the batch size, a tensor if it is not known.
      steps: the time steps of a segment.
      count: the number of segments, a scalar tensor.
    """

    def __init__(self, token_ids: tf.Tensor) -> None:
        self.batch_size = token_ids.shape[1]
        self.rows = self.batch_size or tf.shape(token_ids)[1]
        self.steps = segment_steps(self.batch_size)
        self._missing = -tf.shape(token_ids)[0] % self.steps
        self._token_ids = tf.pad(token_ids, [[self._missing, 0], [0, 0]])
        self.count = tf.shape(self._token_ids)[0] // self.steps

    def ids_of(self, segment: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The token ids of a segment, [steps, batch], and its first step that the batch has."""
        ids = tf.slice(self._token_ids, [segment * self.steps, 0], [self.steps, -1])
        return tf.ensure_shape(ids, [self.steps, self.batch_size]), tf.where(segment > 0, 0, self._missing)

    def with_known_shape(self, *states: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The states with the batch size, if it is known; a segment compiled for any batch size loses it."""
        return tuple(tf.ensure_shape(state, [self.batch_size, None]) for state in states)

    def new_memory(self, units: int) -> list[tf.Tensor]:
        """For the gates and a state of each step of a segment; not set to anything."""
        return [
            tf.raw_ops.Empty(shape=shape, dtype=tf.float32) for shape in _shapes(self.steps, self.rows, units)
        ]


def _shapes(steps: int, rows: int | tf.Tensor | None, units: int) -> tuple[list[Any], list[Any]]:
    # Of the gates of all steps; of a state before the first step and after each.
    return [steps, rows, 4 * units], [steps + 1, rows, units]


def _steps(array: tf.Tensor) -> tf.TensorArray:
    # For XLA, reading a TensorArray at a dynamic step is one dynamic slice. `tf.slice` and `array[step]`
    # first copy the array into one that is twice as large along each axis, so that no slice can end outside.
    return tf.TensorArray(array.dtype, array.shape[0]).unstack(array)


def _with_known_steps(
    values: Iterable[tf.Tensor], token_ids: tf.Tensor, recurrent: tf.Tensor
) -> Iterable[tf.Tensor]:
    # The values of the gates and of a state.
    steps, rows = token_ids.shape
    return map(tf.ensure_shape, values, _shapes(steps, rows, recurrent.shape[0]))


def _with_zeros_before(first: tf.Tensor, array: tf.TensorArray) -> tf.TensorArray:
    def clear(t: tf.Tensor, array: tf.TensorArray) -> Loop:
        return t + 1, array.write(t, tf.zeros_like(array.read(t)))

    return tf.while_loop(lambda t, _: t < first, clear, [0, array])[1]


def _inputs(table: tf.Tensor, token_ids: tf.Tensor) -> tf.Tensor:
    # The inputs of the gates, [..., 4 * units]. For padding, which shuts the input gate, XLA reads any row.
    shut = np.repeat(np.array([_SHUT, 0.0, 0.0, 0.0], np.float32), table.shape[1] // 4)
    is_token = tf.expand_dims(token_ids < tf.shape(table)[0], -1)
    return tf.where(is_token, tf.gather(table, token_ids), shut)


def _step(pre_activations: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, ...]:
    # The tanh of the four gates, and c and its tanh after the step.
    gates = tf.split(tf.tanh(pre_activations), 4, axis=1)
    i, f, g, _ = gates
    c = 0.5 * ((f + 1.0) * c + (i + 1.0) * g)
    return *gates, c, tf.tanh(c)


@tf.function(jit_compile=True, autograph=False)
def skim(
    table: tf.Tensor,
    recurrent: tf.Tensor,
    token_ids: tf.Tensor,
    first: tf.Tensor,
    *state: tf.Tensor,
    pooling: tuple[str, ...] = (),
) -> tuple[tf.Tensor, ...]:
    """One segment from step `first` on; returns h, c and what is carried for the poolings."""
    function_names.number_from(20_000)
    token_ids = _steps(token_ids)

    def step(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *pooled: tf.Tensor) -> Loop:
        ids = token_ids.read(t)
        *_, o, c, tanh_c = _step(_inputs(table, ids) + h @ recurrent, c)
        h = 0.5 * (o + 1.0) * tanh_c
        return t + 1, h, c, *pools.after_step(pooling, pooled, h, ids < tf.shape(table)[0])

    return tf.while_loop(lambda t, *_: t < token_ids.size(), step, [first, *state])[1:]


@tf.function(autograph=False)
def skim_within_a_graph(*arguments: tf.Tensor, pooling: tuple[str, ...] = ()) -> tuple[tf.Tensor, ...]:
    """The same as `skim`, for eager calls."""
    # XLA keeps what it compiled for eager calls apart from what it compiled for graphs. Called from a graph,
    # the segment that evaluates a batch is compiled once for sample texts and evaluations.
    return skim(*arguments, pooling=pooling)


@tf.function(jit_compile=True, autograph=False)
def forward(
    table: tf.Tensor,
    recurrent: tf.Tensor,
    token_ids: tf.Tensor,
    first: tf.Tensor,
    gates_variable: tf.Tensor,
    cs_variable: tf.Tensor,
    *state: tf.Tensor,
    pooling: tuple[str, ...] = (),
) -> Loop:
    """As `skim`; also replaces the values of two variables (`in_place`) by what `backward` needs.

    That is, for each step, the tanh of its gates, [steps, batch, 4 * units]; and c before the first step and
    after each, [steps + 1, batch, units]. What comes before the first step stays as it is.
    """
    function_names.number_from(40_000)
    steps = token_ids.shape[0]
    # To be overwritten. Arrays of their own XLA would first set to zero.
    memory = map(in_place.read, (gates_variable, cs_variable))
    gates, cs = map(_steps, _with_known_steps(memory, token_ids, recurrent))
    token_ids = _steps(token_ids)

    def step(
        t: tf.Tensor,
        gates: tf.TensorArray,
        cs: tf.TensorArray,
        h: tf.Tensor,
        c: tf.Tensor,
        *pooled: tf.Tensor,
    ) -> Loop:
        ids = token_ids.read(t)
        *of_step, c, tanh_c = _step(_inputs(table, ids) + h @ recurrent, c)
        h = 0.5 * (of_step[3] + 1.0) * tanh_c
        gates, cs = gates.write(t, tf.concat(of_step, axis=1)), cs.write(t + 1, c)
        return t + 1, gates, cs, h, c, *pools.after_step(pooling, pooled, h, ids < tf.shape(table)[0])

    start = [first, gates, cs.write(first, state[1]), *state]
    _, gates, cs, *after = tf.while_loop(lambda t, *_: t < steps, step, start)
    in_place.assign(gates_variable, gates.stack())
    in_place.assign(cs_variable, cs.stack())
    return tuple(after)


@tf.function(jit_compile=True, autograph=False)
def backward(
    recurrent: tf.Tensor,
    token_ids: tf.Tensor,
    first: tf.Tensor,
    gates: tf.Tensor,
    cs: tf.Tensor,
    h_before: tf.Tensor,
    dh: tf.Tensor,
    dc: tf.Tensor,
    d_table_variable: tf.Tensor,
    d_gates_variable: tf.Tensor,
    hs_variable: tf.Tensor,
    constant: Mapping[str, tf.Tensor],
    left: tuple[tf.Tensor, ...],
) -> Loop:
    """One segment, from the gradients of h and c after it to those before it.

    gates and cs are what `forward` left in its variables; h_before is h before the segment; constant and left
    are what `pooling.add_gradient` hands out. The gradients of the table are added to one variable
    (`in_place`). Two get other values: the gradients of the gates, [steps, batch, 4 * units]; and h before
    the first step and after each, [steps + 1, batch, units]. Both are zero before the first step: h is, but
    zero times infinity is not.

    Returns:
      dh and dc before the segment; left.
    """
    function_names.number_from(60_000)
    steps = token_ids.shape[0]
    memory = map(in_place.read, (d_gates_variable, hs_variable))
    d_gates_of_steps, hs = map(_steps, _with_known_steps(memory, token_ids, recurrent))
    gates, cs = map(_steps, _with_known_steps((gates, cs), token_ids, recurrent))
    transposed = tf.transpose(recurrent)
    ids = _steps(token_ids)

    def step(
        t: tf.Tensor,
        dh: tf.Tensor,
        dc: tf.Tensor,
        d_table: tf.Tensor,
        d_gates_of_steps: tf.TensorArray,
        hs: tf.TensorArray,
        *left: tf.Tensor,
    ) -> Loop:
        all_gates, c, tanh_c = gates.read(t), cs.read(t), tf.tanh(cs.read(t + 1))
        i, f, g, o = tf.split(all_gates, 4, axis=1)
        h = 0.5 * (o + 1.0) * tanh_c
        dh, left = pools.add_gradient(constant, left, dh, h)
        dc += dh * (0.5 * (o + 1.0) * (1.0 - tanh_c * tanh_c))
        # Of all gates at once: with a formula for each, XLA computes each element of the concatenation by a
        # branch.
        by_gates = 0.5 * (tf.concat([g, c, i + 1.0, tanh_c], axis=1) * (1.0 - all_gates * all_gates))
        d_gates = tf.concat([dc, dc, dc, dh], axis=1) * by_gates
        # XLA leaves out padding, of which the table has no row; its gradients are zero besides.
        d_table = tf.tensor_scatter_nd_add(d_table, tf.expand_dims(ids.read(t), 1), d_gates)
        dh, dc = d_gates @ transposed, dc * (0.5 * (f + 1.0))
        d_gates_of_steps, hs = d_gates_of_steps.write(t, d_gates), hs.write(t + 1, h)
        return t - 1, dh, dc, d_table, d_gates_of_steps, hs, *left

    start = [steps - 1, dh, dc, in_place.read(d_table_variable), d_gates_of_steps, hs, *left]
    _, dh, dc, d_table, d_gates_of_steps, hs, *left = tf.while_loop(lambda t, *_: t >= first, step, start)
    in_place.assign(d_table_variable, d_table)
    in_place.assign(d_gates_variable, _with_zeros_before(first, d_gates_of_steps).stack())
    in_place.assign(hs_variable, _with_zeros_before(first, hs).write(first, h_before).stack())
    return dh, dc, *left
