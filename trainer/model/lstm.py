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
- The forward pass keeps the gates and the cell state of each step. The backward pass computes all else from
  them, which is faster than to write it to memory and to read it again.
- They are kept for the last segments only, which are all segments of a usual text. The others are recomputed
  from their start, so that a text of a megabyte costs time, but not all of the memory.
- The number of steps of a segment depends on the batch size, so that a segment fits the caches. XLA compiles
  it once, whatever the lengths; the first segment of a batch starts at its first token.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from trainer import in_place
from trainer.model import lstm_segments as compiled
from trainer.model import pooling as pools
from trainer.model import products, token_inputs
from trainer.model.lstm_segments import Loop

# A condition of exactness (`run/conditions.py`): must change whenever a change here can change a bit of a
# result.
KERNEL_ID = "segments of compiled time steps 2"

_KEPT_SEGMENTS = 64
SMALL_VOCABULARY = 2048


class _Variables(NamedTuple):
    """Of one direction, for the compiled passes to write to; see `lstm_segments`."""

    gates: tf.Tensor
    cs: tf.Tensor
    d_table: tf.Tensor
    d_gates: tf.Tensor
    hs: tf.Tensor


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
    pooling: Sequence[str] = ("last",),
    shards: int = 1,
    longest: int | None = None,
) -> tf.Tensor:
    """Reads each review forwards and backwards, and pools the states of each direction.

    Args:
      token_ids: int32 [batch, time], each in 0 to vocab_size - 1; those beyond a review's length are never
        read.
      lengths: int32 [batch], 0 to time.
      embeddings: float32 [vocab_size, embedding_dim].
      forward: the weights of the direction that starts at the first token.
      backward: the weights of the direction that starts at the last.
      training: whether to keep what a gradient needs; if False, a gradient is as exact, but takes longer.
      pooling: "last" is the state after the direction's last token; "max" and "mean" are over all tokens.
      shards: how many groups of reviews to read side by side, each in both directions.
      longest: the most time steps of a batch, if known: a graph that need not recompute any is smaller.

    Returns:
      float32 [batch, poolings * 2 * units]: for each pooling the forward direction, then the backward one.
      Zeros for an empty review.
    """
    directions = forward, backward
    embeddings = tf.convert_to_tensor(embeddings)
    is_small = embeddings.shape[0] <= SMALL_VOCABULARY
    weights = [way.kernel for way in directions], [way.bias for way in directions]
    tables = token_inputs.tables(embeddings, *weights) if is_small else None

    def read(token_ids: tf.Tensor, lengths: tf.Tensor, *variables: _Variables) -> tf.Tensor:
        mask = tf.sequence_mask(lengths, tf.shape(token_ids)[1])
        token_ids, tables_here = tf.where(mask, token_ids, 0), tables
        if tables_here is None:
            token_ids, distinct = token_inputs.renumbered(token_ids, embeddings.shape[0])
            tables_here = token_inputs.tables(
                tf.gather(embeddings, distinct), *weights, embeddings_first=True
            )
        padded = tf.where(mask, token_ids, tf.shape(tables_here[0])[0])
        forwards = tf.reverse(tf.reverse_sequence(padded, lengths, 1), [1])
        kept = _kept_segments(token_ids.shape[0], longest) if training else 0
        read_direction = functools.partial(_pooled_states, kept=kept, pooling=tuple(pooling))
        ways = (forwards, tf.reverse(padded, [1])), tables_here, directions, variables
        states = map(read_direction, *ways)
        pooled = [tf.concat(of_both, axis=1) for of_both in zip(*states, strict=True)]
        finished = pools.finish(pooled, pooling, lengths)
        return tf.concat(finished, axis=1) if len(finished) > 1 else finished[0]

    variables = [
        [_Variables(*(in_place.variable() for _ in _Variables._fields)) for _ in directions]
        for _ in range(shards)
    ]
    if shards == 1:
        return read(token_ids, lengths, *variables[0])
    # Traced once, and optimized once since it is not inlined, whatever the number of shards.
    read_shard = tf.function(read, autograph=False, experimental_attributes={"_noinline": True})
    groups = zip(_cut(token_ids, shards), _cut(lengths, shards), variables, strict=True)
    results = [read_shard(ids, lengths, *own) for ids, lengths, own in groups]
    return tf.concat(results, axis=0)[: tf.size(lengths)]


def _cut(rows: tf.Tensor, shards: int) -> list[tf.Tensor]:
    # Into groups of equal size; empty reviews fill the last.
    missing = -(rows.shape[0] or tf.shape(rows)[0]) % shards
    paddings = [[0, missing], *[[0, 0]] * (len(rows.shape) - 1)]
    return tf.split(tf.pad(rows, paddings), shards)


def _pooled_states(
    token_ids: tf.Tensor,
    table: tf.Tensor,
    weights: LSTMWeights,
    variables: _Variables,
    kept: int | None,
    pooling: tuple[str, ...],
) -> tuple[tf.Tensor, ...]:
    # token_ids: [batch, time], padded on the left with the number of rows of the table.
    recurrent = weights.recurrent_kernel * token_inputs.halves(weights.recurrent_kernel.shape[0])
    return _run_segments(tf.transpose(token_ids), table, recurrent, kept, pooling, variables)


def _kept_segments(batch_size: int | None, longest: int | None) -> int | None:
    # None: all that there can be.
    if longest is not None and longest <= _KEPT_SEGMENTS * compiled.segment_steps(batch_size):
        return None
    return _KEPT_SEGMENTS


def _array(size: tf.Tensor, *shape: int | None) -> tf.TensorArray:
    return tf.TensorArray(tf.float32, size, clear_after_read=False, element_shape=shape)


def _write(
    arrays: Sequence[tf.TensorArray], at: tf.Tensor, values: Sequence[tf.Tensor]
) -> list[tf.TensorArray]:
    return [a.write(at, value) for a, value in zip(arrays, values, strict=True)]


def _forward(
    segments: compiled.Segments,
    table: tf.Tensor,
    recurrent: tf.Tensor,
    variables: Sequence[tf.Tensor],
    segment: tf.Tensor,
    state: Sequence[tf.Tensor],
    *,
    after: tf.Tensor,
    carried: tuple[str, ...] = (),
) -> tuple[Sequence[tf.Tensor], list[tf.Tensor]]:
    # One segment, once `after` is computed, which must come after the segment before: they share variables.
    # Returns the state after the segment, and what its gradient needs: gates, cs, and h before it.
    units = recurrent.shape[0]
    with tf.control_dependencies([after]):
        handles = list(map(in_place.assign, variables[:2], segments.new_memory(units)))
    results = compiled.forward(table, recurrent, *segments.ids_of(segment), *handles, *state, pooling=carried)
    gates, cs = (in_place.read(handle, after=results[0]) for handle in handles)
    with tf.control_dependencies([gates, cs]):  # the next segment replaces them
        return segments.with_known_shape(*results), [gates, cs, state[0]]


def _product(segments: compiled.Segments, first: tf.Tensor, h: tf.Tensor, d_gates: tf.Tensor) -> tf.Tensor:
    # The gradient of the recurrent weights. Before the first step all is zero.
    left_out = products.first_rows_to_leave_out(first * segments.rows, segments.steps * segments.rows)
    return tf.matmul(h[left_out:], d_gates[left_out:], transpose_a=True)


def _run_segments(
    token_ids: tf.Tensor,
    table: tf.Tensor,
    recurrent: tf.Tensor,
    kept: int | None,
    pooling: tuple[str, ...],
    variables: _Variables,
) -> tuple[tf.Tensor, ...]:
    # token_ids: [time, batch]; table: [tokens, 4 * units]; recurrent: [units, 4 * units]; kept: segments,
    # None: all. Returns [batch, units] for each pooling: the last state, the maximum, the sum.
    segments, units = compiled.Segments(token_ids), recurrent.shape[0]
    first_kept = tf.constant(0) if kept is None else tf.maximum(segments.count - kept, 0)
    carried = pools.carried(pooling)

    @tf.custom_gradient
    def run(
        table: tf.Tensor, recurrent: tf.Tensor, *handles: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], Callable[..., Any]]:
        # An eager tape would record the loops inside the compiled segments, which it cannot differentiate.
        table, recurrent = tf.stop_gradient(table), tf.stop_gradient(recurrent)
        forward = functools.partial(_forward, segments, table, recurrent, handles)
        state, starts, saved = _run_forward(segments, table, recurrent, kept, first_kept, carried, forward)
        h, _, *pooled = state
        results = {"last": h, **dict(zip(carried, pooled, strict=True))}

        def gradients(*d_results: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
            d_by_name = dict(zip(pooling, d_results, strict=True))
            dh = d_by_name.pop("last", tf.zeros_like(h))
            constant, left = pools.to_hand_out(d_by_name, results)

            def retreat(segment: tf.Tensor, kept: Sequence[tf.Tensor], *values: tf.Tensor) -> Loop:
                dh, dc, d_recurrent, *left = values
                ids, first = segments.ids_of(segment)
                dh, dc, *left = compiled.backward(
                    recurrent, ids, first, *kept, dh, dc, *sums, constant, tuple(left)
                )
                d_gates, hs = (in_place.read(handle, after=dh) for handle in sums[1:])
                h_of_steps, d_gates = tf.reshape(hs[:-1], [-1, units]), tf.reshape(d_gates, [-1, 4 * units])
                d_recurrent += _product(segments, first, h_of_steps, d_gates)
                with tf.control_dependencies([d_recurrent]):  # the next segment replaces d_gates and hs
                    dh, dc, *left = segments.with_known_shape(dh, dc, *left)
                return segment - 1, dh, dc, d_recurrent, *left

            def retreat_kept(segment: tf.Tensor, *values: tf.Tensor) -> Loop:
                return retreat(segment, [a.read(segment - first_kept) for a in saved], *values)

            def retreat_skimmed(segment: tf.Tensor, *values: tf.Tensor) -> Loop:
                start = [a.read(segment) for a in starts]
                _, again = forward(segment, start, after=values[0])
                return retreat(segment, again, *values)

            memory = tf.zeros_like(table), *segments.new_memory(units)
            sums = list(map(in_place.assign, handles[2:], memory))
            values = [segments.count - 1, dh, tf.zeros_like(dh), tf.zeros_like(recurrent), *left]
            if kept != 0:
                values = tf.while_loop(lambda segment, *_: segment >= first_kept, retreat_kept, values)
            if kept is not None:
                values = tf.while_loop(lambda segment, *_: segment >= 0, retreat_skimmed, values)
            d_recurrent = values[3]
            d_table = tf.ensure_shape(in_place.read(sums[0], after=d_recurrent), table.shape)
            return d_table, d_recurrent, *[None] * len(handles)

        return tuple(results[name] for name in pooling), gradients

    # A custom gradient takes the handle of a variable only as an argument.
    return run(table, recurrent, *variables)


def _run_forward(
    segments: compiled.Segments,
    table: tf.Tensor,
    recurrent: tf.Tensor,
    kept: int | None,
    first_kept: tf.Tensor,
    carried: tuple[str, ...],
    forward: Callable[..., Any],
) -> tuple[Sequence[tf.Tensor], Sequence[tf.TensorArray], Sequence[tf.TensorArray]]:
    # The state after the last segment (h, c, and what is carried for the poolings); h and c before each one
    # that is not kept; what the gradient needs of each that is.
    batch_size, units = segments.batch_size, recurrent.shape[0]
    width = 2 + len(carried)  # of the state

    def skim(segment: tf.Tensor, *values: Any) -> Loop:
        state, starts = values[:width], values[width:]
        skim_segment = compiled.skim_within_a_graph if tf.executing_eagerly() else compiled.skim
        after = skim_segment(table, recurrent, *segments.ids_of(segment), *state, pooling=carried)
        return segment + 1, *segments.with_known_shape(*after), *_write(starts, segment, state[:2])

    def advance(segment: tf.Tensor, *values: Any) -> Loop:
        state, saved = values[:width], values[width:]
        state, of_segment = forward(segment, state, after=state[0], carried=carried)
        return segment + 1, *state, *_write(saved, segment - first_kept, of_segment)

    zero = tf.zeros([segments.rows, units])
    state, starts, saved = [zero, zero, *pools.start(carried, zero)], [], []
    if kept is not None:
        starts = [_array(first_kept, batch_size, units) for _ in range(2)]
        values = tf.while_loop(lambda segment, *_: segment < first_kept, skim, [0, *state, *starts])
        state, starts = values[1 : 1 + width], values[1 + width :]
    if kept != 0:
        # The gates; c before and after each step; h before the segment.
        shapes = (segments.steps, batch_size, 4 * units), (segments.steps + 1, batch_size, units)
        saved = [_array(segments.count - first_kept, *shape) for shape in (*shapes, (batch_size, units))]
        start = [first_kept, *state, *saved]
        values = tf.while_loop(lambda segment, *_: segment < segments.count, advance, start)
        state, saved = values[1 : 1 + width], values[1 + width :]
    return state, starts, saved
