"""The passes of the LSTM over one segment of time steps, each compiled by XLA; `lstm` runs them.

h and c are the states, float32 [batch, units]. A segment has a fixed number of steps and the token ids
[steps, batch]; padding, whose id is the last row of the table, precedes each text.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer import function_names
from trainer.model import pooling as pools

Loop = tuple[Any, ...]  # the variables of a `tf.while_loop`: tensors and arrays of tensors


def _steps(array: tf.Tensor) -> tf.TensorArray:
    # For XLA, reading a TensorArray at a dynamic step is one dynamic slice. `tf.slice` and `array[step]`
    # first copy the array into one that is twice as large along each axis, so that no slice can end outside.
    return tf.TensorArray(array.dtype, array.shape[0]).unstack(array)


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
        *_, o, c, tanh_c = _step(tf.gather(table, ids) + h @ recurrent, c)
        h = 0.5 * (o + 1.0) * tanh_c
        return t + 1, h, c, *pools.after_step(pooling, pooled, h, ids < tf.shape(table)[0] - 1)

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
    *state: tf.Tensor,
    pooling: tuple[str, ...] = (),
) -> Loop:
    """As `skim`; also returns, for each step, h before it and the factors of the backward pass."""
    function_names.number_from(40_000)
    steps = token_ids.shape[0]
    token_ids = _steps(token_ids)

    def step(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *values: Any) -> Loop:
        pooled, arrays = values[: len(pooling)], values[len(pooling) :]
        ids = token_ids.read(t)
        i, f, g, o, new_c, tanh_c = _step(tf.gather(table, ids) + h @ recurrent, c)
        by_gates = [g * (1.0 - i * i), c * (1.0 - f * f), (i + 1.0) * (1.0 - g * g), tanh_c * (1.0 - o * o)]
        factors = (
            h,
            0.5 * tf.concat(by_gates, axis=1),
            0.5 * (o + 1.0) * (1.0 - tanh_c * tanh_c),
            0.5 * (f + 1.0),
        )
        written = [a.write(t, value) for a, value in zip(arrays, factors, strict=True)]
        new_h = 0.5 * (o + 1.0) * tanh_c
        pools_after = pools.after_step(pooling, pooled, new_h, ids < tf.shape(table)[0] - 1)
        return t + 1, new_h, new_c, *pools_after, *written

    saved = [tf.TensorArray(tf.float32, steps) for _ in range(4)]
    _, *values = tf.while_loop(lambda t, *_: t < steps, step, [first, *state, *saved])
    return *values[:-4], *(a.stack() for a in values[-4:])


@tf.function(jit_compile=True, autograph=False)
def backward(
    recurrent: tf.Tensor,
    token_ids: tf.Tensor,
    first: tf.Tensor,
    by_gates: tf.Tensor,
    c_by_h: tf.Tensor,
    c_by_c: tf.Tensor,
    dh: tf.Tensor,
    dc: tf.Tensor,
    d_table: tf.Tensor,
    constant: Mapping[str, tf.Tensor],
    left: tuple[tf.Tensor, ...],
    hs: tf.Tensor | None,
) -> Loop:
    """One segment, from the gradients of h and c after it to those before it.

    Adds to d_table, and returns the gradients of the gates, [steps * batch, 4 * units]. `constant` and `left`
    are what `pooling.add_gradient` hands out, and hs is h before each step, if `left` needs it.
    """
    function_names.number_from(60_000)
    steps, _, width = by_gates.shape
    by_gates, c_by_h, c_by_c = _steps(by_gates), _steps(c_by_h), _steps(c_by_c)
    transposed = tf.transpose(recurrent)

    ids = _steps(token_ids)
    hs = None if hs is None else _steps(hs)

    def step(
        t: tf.Tensor,
        dh: tf.Tensor,
        dc: tf.Tensor,
        d_table: tf.Tensor,
        saved: tf.TensorArray,
        *left: tf.Tensor,
    ) -> Loop:
        dh, left = pools.add_gradient(constant, left, dh, hs and hs.read(t))
        dc += dh * c_by_h.read(t)
        d_gates = tf.concat([dc, dc, dc, dh], axis=1) * by_gates.read(t)
        d_table = tf.tensor_scatter_nd_add(d_table, tf.expand_dims(ids.read(t), 1), d_gates)
        return t - 1, d_gates @ transposed, dc * c_by_c.read(t), d_table, saved.write(t, d_gates), *left

    start = [steps - 1, dh, dc, d_table, tf.TensorArray(tf.float32, steps), *left]
    _, dh, dc, d_table, saved, *left = tf.while_loop(lambda t, *_: t >= first, step, start)
    return dh, dc, d_table, tf.reshape(saved.stack(), [-1, width]), *left
