"""The bidirectional LSTM on a CPU: hand-written passes, compiled by XLA in segments of time steps.

Values and gradients are those of `keras.layers.Bidirectional(keras.layers.LSTM(units))` over masked
embeddings. It is fast because:

- A batch has many positions but few distinct tokens. The product of embeddings and input kernel is computed
  once per token and training step, and looked up by position. With a large vocabulary, it is computed only
  for the tokens of the batch.
- `sigmoid(x) = (tanh(x / 2) + 1) / 2`: with the halves folded into the weights, one tanh serves all four
  gates.
- Padding precedes each text. A padding token shuts the input gate, so that a zero state stays exactly zero.
  No time step needs a mask, and the state after the last step is the state at the end of the text.
- The forward pass keeps the factors of the backward pass, computed while their parts are in the cache. The
  backward loop is then one matrix product and four multiplications.
- These factors are kept for the last segments only, which are all segments of a usual text. The others are
  recomputed from their start, so that a text of a megabyte costs time, but not all of the memory.
- The number of steps of a segment depends on the batch size, so that a segment fits the caches. XLA compiles
  it once, whatever the lengths; the first segment of a batch starts at its first token.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

Loop = tuple[Any, ...]  # the variables of a `tf.while_loop`: tensors and arrays of tensors

# A condition of exactness (`run/conditions.py`): must change whenever a change here can change a bit of a
# result.
KERNEL_ID = "segments of compiled time steps 2"

# Rows are time steps times reviews. A segment of more rows does not fit the caches; one of fewer is called
# too often.
_SEGMENT_ROWS = 4096
_MOST_SEGMENT_STEPS = 64
_KEPT_SEGMENTS = 64
_SMALL_VOCABULARY = 2048

# Far enough below zero for the tanh of a gate to be -1 exactly, whatever a recurrent state adds.
_SHUT = -1e9


class LSTMWeights(NamedTuple):
    """The weights of one direction, gates in Keras' order (input, forget, cell, output)."""

    kernel: tf.Tensor
    """float32 [embedding_dim, 4 * units]."""
    recurrent_kernel: tf.Tensor
    """float32 [units, 4 * units]."""
    bias: tf.Tensor
    """float32 [4 * units]."""


def bidirectional_lstm(
    *,
    token_ids: tf.Tensor,
    lengths: tf.Tensor,
    embeddings: tf.Tensor,
    forward: LSTMWeights,
    backward: LSTMWeights,
    training: bool,
) -> tf.Tensor:
    """Reads each review forwards and backwards.

    Args:
      token_ids: int32 [batch, time], each in 0 to vocab_size - 1; those beyond a review's length are never
        read.
      lengths: int32 [batch], 0 to time.
      embeddings: float32 [vocab_size, embedding_dim].
      forward: the weights of the direction that starts at the first token.
      backward: the weights of the direction that starts at the last.
      training: whether to keep what a gradient needs; if False, a gradient is as exact, but takes longer.

    Returns:
      float32 [batch, 2 * units]: the forward direction's state after the last token, the backward direction's
      after the first. Zeros for an empty review.
    """
    mask = tf.sequence_mask(lengths, tf.shape(token_ids)[1])
    token_ids = tf.where(mask, token_ids, 0)
    if embeddings.shape[0] > _SMALL_VOCABULARY:
        token_ids, distinct = _renumbered(token_ids, embeddings.shape[0])
        embeddings = tf.gather(embeddings, distinct)
    padded = tf.where(mask, token_ids, tf.shape(embeddings)[0])
    backwards = tf.reverse(padded, [1])
    forwards = tf.reverse(tf.reverse_sequence(padded, lengths, 1), [1])
    ends = (
        _final_state(forwards, embeddings, forward, training),
        _final_state(backwards, embeddings, backward, training),
    )
    return tf.concat(ends, axis=1)


def _renumbered(token_ids: tf.Tensor, vocab_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    # Returns the ids as positions in the list of the batch's distinct tokens, and that list. The list is
    # padded to one of a few sizes, since XLA compiles for each size.
    distinct, positions = tf.unique(tf.reshape(token_ids, [-1]))
    sizes = tf.constant([2**k for k in range(10, (vocab_size - 1).bit_length() + 1)])
    size = tf.reduce_min(tf.boolean_mask(sizes, sizes >= tf.size(distinct)))
    return tf.reshape(positions, tf.shape(token_ids)), tf.pad(distinct, [[0, size - tf.size(distinct)]])


def _final_state(
    token_ids: tf.Tensor, embeddings: tf.Tensor, weights: LSTMWeights, training: bool
) -> tf.Tensor:
    # token_ids: [batch, time], padded on the left with the number of embeddings.
    units = weights.recurrent_kernel.shape[0]
    half = tf.repeat([0.5, 0.5, 1.0, 0.5], units)
    shut = tf.repeat([[_SHUT, 0.0, 0.0, 0.0]], units, axis=1)
    table = tf.concat([(embeddings @ weights.kernel + weights.bias) * half, shut], axis=0)
    return _run_segments(
        tf.transpose(token_ids), table, weights.recurrent_kernel * half, _KEPT_SEGMENTS if training else 0
    )


def segment_steps(batch_size: int | None) -> int:
    """The time steps of a segment; `batch_size` is None if only the running graph knows it."""
    return min(_MOST_SEGMENT_STEPS, max(4, _SEGMENT_ROWS // (batch_size or _MOST_SEGMENT_STEPS)))


def _run_segments(token_ids: tf.Tensor, table: tf.Tensor, recurrent: tf.Tensor, kept: int) -> tf.Tensor:
    # token_ids: [time, batch]; table: [tokens + 1, 4 * units]; recurrent: [units, 4 * units]; kept: segments.
    batch_size, units = token_ids.shape[1], recurrent.shape[0]
    steps = segment_steps(batch_size)
    missing = -tf.shape(token_ids)[0] % steps
    token_ids = tf.pad(token_ids, [[missing, 0], [0, 0]])
    segments = tf.shape(token_ids)[0] // steps
    first_kept = tf.maximum(segments - kept, 0)

    def ids_of(segment: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ids = tf.slice(token_ids, [segment * steps, 0], [steps, -1])
        return tf.ensure_shape(ids, [steps, batch_size]), tf.where(segment > 0, 0, missing)

    def array(size: tf.Tensor, *shape: int | None) -> tf.TensorArray:
        return tf.TensorArray(tf.float32, size, clear_after_read=False, element_shape=shape)

    def with_known_shape(*states: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # A segment that was compiled for any batch size loses a known size: restore it.
        return tuple(tf.ensure_shape(state, [batch_size, units]) for state in states)

    def write(
        arrays: tuple[tf.TensorArray, ...], at: tf.Tensor, values: list[tf.Tensor]
    ) -> list[tf.TensorArray]:
        return [a.write(at, value) for a, value in zip(arrays, values, strict=True)]

    @tf.custom_gradient
    def run(table: tf.Tensor, recurrent: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        # An eager tape would record the loops inside the compiled segments, which it cannot differentiate.
        table, recurrent = tf.stop_gradient(table), tf.stop_gradient(recurrent)

        def skim(segment: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *starts: tf.TensorArray) -> Loop:
            written = write(starts, segment, [h, c])
            skim_segment = _skim_within_a_graph if tf.executing_eagerly() else _skim
            h, c = skim_segment(table, recurrent, *ids_of(segment), h, c)
            return segment + 1, *with_known_shape(h, c), *written

        def advance(segment: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *saved: tf.TensorArray) -> Loop:
            h, c, *values = _forward(table, recurrent, *ids_of(segment), h, c)
            return segment + 1, *with_known_shape(h, c), *write(saved, segment - first_kept, values)

        zero = tf.zeros([batch_size or tf.shape(token_ids)[1], units])
        starts = [array(first_kept, batch_size, units) for _ in range(2)]
        segment, h, c, *starts = tf.while_loop(
            lambda segment, *_: segment < first_kept, skim, [0, zero, zero, *starts]
        )
        saved = [
            array(segments - first_kept, steps, batch_size, width)
            for width in (units, 4 * units, units, units)
        ]
        _, h, _, *saved = tf.while_loop(
            lambda segment, *_: segment < segments, advance, [segment, h, c, *saved]
        )

        def gradients(dh: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def retreat(segment: tf.Tensor, *values: tf.Tensor) -> Loop:
                hs, by_gates, c_by_h, c_by_c, dh, dc, d_table, d_recurrent = values
                dh, dc, d_table, d_gates = _backward(
                    recurrent, *ids_of(segment), by_gates, c_by_h, c_by_c, dh, dc, d_table
                )
                d_recurrent += tf.matmul(tf.reshape(hs, [-1, units]), d_gates, transpose_a=True)
                return segment - 1, *with_known_shape(dh, dc), d_table, d_recurrent

            def retreat_kept(segment: tf.Tensor, *values: tf.Tensor) -> Loop:
                return retreat(segment, *(a.read(segment - first_kept) for a in saved), *values)

            def retreat_skimmed(segment: tf.Tensor, *values: tf.Tensor) -> Loop:
                return retreat(
                    segment,
                    *_forward(table, recurrent, *ids_of(segment), *(a.read(segment) for a in starts))[2:],
                    *values,
                )

            values = [segments - 1, dh, tf.zeros_like(dh), tf.zeros_like(table), tf.zeros_like(recurrent)]
            values = tf.while_loop(lambda segment, *_: segment >= first_kept, retreat_kept, values)
            return tuple(tf.while_loop(lambda segment, *_: segment >= 0, retreat_skimmed, values)[3:])

        return h, gradients

    return run(table, recurrent)


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
def _skim(
    table: tf.Tensor, recurrent: tf.Tensor, token_ids: tf.Tensor, first: tf.Tensor, h: tf.Tensor, c: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    # One segment from step `first` on. Returns h and c after it.
    token_ids = _steps(token_ids)

    def step(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> Loop:
        *_, o, c, tanh_c = _step(tf.gather(table, token_ids.read(t)) + h @ recurrent, c)
        return t + 1, 0.5 * (o + 1.0) * tanh_c, c

    return tf.while_loop(lambda t, *_: t < token_ids.size(), step, [first, h, c])[1:]


@tf.function(autograph=False)
def _skim_within_a_graph(*arguments: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # XLA keeps what it compiled for eager calls apart from what it compiled for graphs. Called from a graph,
    # the segment that evaluates a batch is compiled once for sample texts and evaluations.
    return _skim(*arguments)


@tf.function(jit_compile=True, autograph=False)
def _forward(
    table: tf.Tensor, recurrent: tf.Tensor, token_ids: tf.Tensor, first: tf.Tensor, h: tf.Tensor, c: tf.Tensor
) -> Loop:
    # One segment from step `first` on. Returns h and c after it and, for each step: h before it, and the
    # factors of the backward pass.
    steps = token_ids.shape[0]
    token_ids = _steps(token_ids)

    def step(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor, *saved: tf.TensorArray) -> Loop:
        i, f, g, o, new_c, tanh_c = _step(tf.gather(table, token_ids.read(t)) + h @ recurrent, c)
        by_gates = [g * (1.0 - i * i), c * (1.0 - f * f), (i + 1.0) * (1.0 - g * g), tanh_c * (1.0 - o * o)]
        values = (
            h,
            0.5 * tf.concat(by_gates, axis=1),
            0.5 * (o + 1.0) * (1.0 - tanh_c * tanh_c),
            0.5 * (f + 1.0),
        )
        written = [a.write(t, value) for a, value in zip(saved, values, strict=True)]
        return t + 1, 0.5 * (o + 1.0) * tanh_c, new_c, *written

    _, h, c, *saved = tf.while_loop(
        lambda t, *_: t < steps, step, [first, h, c, *(tf.TensorArray(tf.float32, steps) for _ in range(4))]
    )
    return h, c, *(a.stack() for a in saved)


@tf.function(jit_compile=True, autograph=False)
def _backward(
    recurrent: tf.Tensor,
    token_ids: tf.Tensor,
    first: tf.Tensor,
    by_gates: tf.Tensor,
    c_by_h: tf.Tensor,
    c_by_c: tf.Tensor,
    dh: tf.Tensor,
    dc: tf.Tensor,
    d_table: tf.Tensor,
) -> Loop:
    # One segment, from the gradients of h and c after it to those before it. Adds to d_table; d_gates is
    # [steps * batch, 4 * units].
    steps, _, width = by_gates.shape
    by_gates, c_by_h, c_by_c = _steps(by_gates), _steps(c_by_h), _steps(c_by_c)
    transposed = tf.transpose(recurrent)

    ids = _steps(token_ids)

    def step(t: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, d_table: tf.Tensor, saved: tf.TensorArray) -> Loop:
        dc += dh * c_by_h.read(t)
        d_gates = tf.concat([dc, dc, dc, dh], axis=1) * by_gates.read(t)
        d_table = tf.tensor_scatter_nd_add(d_table, tf.expand_dims(ids.read(t), 1), d_gates)
        return t - 1, d_gates @ transposed, dc * c_by_c.read(t), d_table, saved.write(t, d_gates)

    start = [steps - 1, dh, dc, d_table, tf.TensorArray(tf.float32, steps)]
    _, dh, dc, d_table, saved = tf.while_loop(lambda t, *_: t >= first, step, start)
    return dh, dc, d_table, tf.reshape(saved.stack(), [-1, width])
