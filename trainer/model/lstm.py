"""The bidirectional LSTM on a CPU: forward and backward pass written by hand, compiled by XLA in segments of time.

The values and gradients are those of `keras.layers.Bidirectional(keras.layers.LSTM(units))` over masked embeddings. What makes it fast:

- Tokens are few, positions are many: the product of embeddings and input kernel is taken once a token and step, and looked up by position.
- `sigmoid(x) = (tanh(x / 2) + 1) / 2`: with the halves folded into the weights, one tanh serves all four gates.
- A padding token whose input gate is shut keeps a zero state at exactly zero. With padding before each review, no step needs a mask, and
  the state after the last step is the state at the review's end.
- The backward pass computes its factors for a whole segment at once; left in its loop are one matrix product and three multiplications.
- What the backward pass needs is kept for the last segments, which are all of a usual review; the others are done again from their start,
  so that one review of a megabyte costs time and not all of the memory.
- A segment has a fixed number of steps, so XLA compiles once for each batch size, whatever the lengths.
"""

from typing import NamedTuple

import tensorflow as tf

# A condition of exactness (`run/state.py`): raised whenever a change here can change a bit of a result.
KERNEL_ID = "segments of compiled time steps 1"

_SEGMENT_STEPS = 32
_KEPT_SEGMENTS = 64

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
    *, token_ids: tf.Tensor, lengths: tf.Tensor, embeddings: tf.Tensor, forward: LSTMWeights, backward: LSTMWeights
) -> tf.Tensor:
    """Reads each review forwards and backwards.

    Args:
      token_ids: int32 [batch, time], each in 0 to vocab_size - 1; those beyond a review's length are never read.
      lengths: int32 [batch], 0 to time.
      embeddings: float32 [vocab_size, embedding_dim].
      forward: the weights of the direction that starts at the first token.
      backward: the weights of the direction that starts at the last.

    Returns:
      float32 [batch, 2 * units]: the forward direction's state after the last token, the backward direction's after the first. Zeros for an
      empty review.
    """
    padding = embeddings.shape[0]
    padded = tf.where(tf.sequence_mask(lengths, tf.shape(token_ids)[1]), token_ids, padding)
    backwards = tf.reverse(padded, [1])
    forwards = tf.reverse(tf.reverse_sequence(padded, lengths, 1), [1])
    return tf.concat([_final_state(forwards, embeddings, forward), _final_state(backwards, embeddings, backward)], axis=1)


def _final_state(token_ids: tf.Tensor, embeddings: tf.Tensor, weights: LSTMWeights) -> tf.Tensor:
    # token_ids: [batch, time], padded on the left with the id vocab_size.
    units = weights.recurrent_kernel.shape[0]
    padding = embeddings.shape[0]
    half = tf.repeat([0.5, 0.5, 1.0, 0.5], units)
    shut = tf.repeat([[_SHUT, 0.0, 0.0, 0.0]], units, axis=1)
    table = tf.concat([(embeddings @ weights.kernel + weights.bias) * half, shut], axis=0)
    missing = -tf.shape(token_ids)[1] % _SEGMENT_STEPS
    by_time = tf.pad(tf.transpose(token_ids), [[missing, 0], [0, 0]], constant_values=padding)
    return _run_segments(by_time, table, weights.recurrent_kernel * half)


def _run_segments(token_ids: tf.Tensor, table: tf.Tensor, recurrent: tf.Tensor) -> tf.Tensor:
    # token_ids: [time, batch], time a multiple of a segment; table: [vocab_size + 1, 4 * units]; recurrent: [units, 4 * units].
    segments = tf.shape(token_ids)[0] // _SEGMENT_STEPS
    first_kept = tf.maximum(segments - _KEPT_SEGMENTS, 0)
    batch_size, units = token_ids.shape[1], recurrent.shape[0]

    def ids_of(segment: tf.Tensor) -> tf.Tensor:
        ids = tf.slice(token_ids, [segment * _SEGMENT_STEPS, 0], [_SEGMENT_STEPS, -1])
        return tf.ensure_shape(ids, [_SEGMENT_STEPS, batch_size])

    def array(size: tf.Tensor, *shape: int | None) -> tf.TensorArray:
        return tf.TensorArray(tf.float32, size, clear_after_read=False, element_shape=shape)

    def with_known_shape(*states: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # A segment that was compiled for batches of any size serves those of a known size as well, and forgets it.
        return tuple(tf.ensure_shape(state, [batch_size, units]) for state in states)

    def write(arrays: tuple[tf.TensorArray, ...], at: tf.Tensor, values: list[tf.Tensor]) -> list[tf.TensorArray]:
        return [a.write(at, value) for a, value in zip(arrays, values, strict=True)]

    @tf.custom_gradient
    def run(table: tf.Tensor, recurrent: tf.Tensor):
        # An eager tape would look into the compiled segments, whose loops it cannot reverse.
        table, recurrent = tf.stop_gradient(table), tf.stop_gradient(recurrent)

        def skim(segment, h, c, *starts):
            starts = write(starts, segment, [h, c])
            h, c, *_ = _forward(table, recurrent, ids_of(segment), h, c)
            return segment + 1, *with_known_shape(h, c), *starts

        def advance(segment, h, c, *saved):
            h, c, *values = _forward(table, recurrent, ids_of(segment), h, c)
            return segment + 1, *with_known_shape(h, c), *write(saved, segment - first_kept, values)

        zero = tf.zeros([batch_size or tf.shape(token_ids)[1], units])
        starts = [array(first_kept, batch_size, units) for _ in range(2)]
        segment, h, c, *starts = tf.while_loop(lambda segment, *_: segment < first_kept, skim, [0, zero, zero, *starts])
        saved = [array(segments - first_kept, _SEGMENT_STEPS, batch_size, width) for width in (4 * units, units, units)]
        _, h, _, *saved = tf.while_loop(lambda segment, *_: segment < segments, advance, [segment, h, c, *saved])

        def gradients(dh: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def retreat(segment, gates, hs, cs, dh, dc, d_table, d_recurrent):
                dh, dc, d_table, d_gates = _backward(recurrent, ids_of(segment), gates, cs, dh, dc, d_table)
                d_recurrent += tf.matmul(tf.reshape(hs, [-1, units]), d_gates, transpose_a=True)
                return segment - 1, *with_known_shape(dh, dc), d_table, d_recurrent

            def retreat_kept(segment, *values):
                return retreat(segment, *(a.read(segment - first_kept) for a in saved), *values)

            def retreat_skimmed(segment, *values):
                return retreat(segment, *_forward(table, recurrent, ids_of(segment), *(a.read(segment) for a in starts))[2:], *values)

            values = [segments - 1, dh, tf.zeros_like(dh), tf.zeros_like(table), tf.zeros_like(recurrent)]
            values = tf.while_loop(lambda segment, *_: segment >= first_kept, retreat_kept, values)
            return tuple(tf.while_loop(lambda segment, *_: segment >= 0, retreat_skimmed, values)[3:])

        return h, gradients

    return run(table, recurrent)


def _at(array: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    # XLA reads `array[step]` as a strided slice with an unknown size.
    return tf.squeeze(tf.slice(array, [step] + [0] * (array.shape.rank - 1), [1, *[-1] * (array.shape.rank - 1)]), axis=0)


@tf.function(jit_compile=True, autograph=False)
def _forward(table, recurrent, token_ids, h, c):
    # One segment. Returns h and c after it and, of each step: the tanh of its gates, h and c before it.
    steps = token_ids.shape[0]

    def step(t, h, c, *saved):
        gates = tf.tanh(tf.gather(table, _at(token_ids, t)) + h @ recurrent)
        saved = [a.write(t, s) for a, s in zip(saved, (gates, h, c), strict=True)]
        i, f, g, o = tf.split(gates, 4, axis=1)
        c = 0.5 * ((f + 1.0) * c + (i + 1.0) * g)
        return t + 1, 0.5 * (o + 1.0) * tf.tanh(c), c, *saved

    start = [0, h, c, *(tf.TensorArray(tf.float32, steps) for _ in range(3))]
    _, h, c, *saved = tf.while_loop(lambda t, *_: t < steps, step, start)
    return h, c, *(a.stack() for a in saved)


@tf.function(jit_compile=True, autograph=False)
def _backward(recurrent, token_ids, gates, cs, dh, dc, d_table):
    # One segment, from the gradients of h and c after it to those before it. d_table is added to; d_gates is [steps * batch, 4 * units].
    steps = token_ids.shape[0]
    i, f, g, o = tf.split(gates, 4, axis=2)
    tanh_c = tf.tanh(0.5 * ((f + 1.0) * cs + (i + 1.0) * g))
    by_gates = 0.5 * tf.concat([g, cs, i + 1.0, tanh_c], axis=2) * (1.0 - tf.square(gates))
    c_by_h = 0.5 * (o + 1.0) * (1.0 - tf.square(tanh_c))
    c_by_c = 0.5 * (f + 1.0)
    transposed = tf.transpose(recurrent)

    def step(k, dh, dc, saved):
        t = steps - 1 - k
        dc += dh * _at(c_by_h, t)
        d_gates = tf.concat([dc, dc, dc, dh], axis=1) * _at(by_gates, t)
        return k + 1, d_gates @ transposed, dc * _at(c_by_c, t), saved.write(t, d_gates)

    start = [0, dh, dc, tf.TensorArray(tf.float32, steps)]
    _, dh, dc, saved = tf.while_loop(lambda k, *_: k < steps, step, start)
    d_gates = tf.reshape(saved.stack(), [-1, gates.shape[2]])
    return dh, dc, tf.tensor_scatter_nd_add(d_table, tf.reshape(token_ids, [-1, 1]), d_gates), d_gates
