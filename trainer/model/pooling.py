"""Pooling over time inside a loop over time steps: carried forwards, its gradient handed out backwards.

Only the maximum and the sum so far are carried; the states of all steps are never together in memory.
"""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

POOLINGS = ("last", "max", "mean")

_LOWEST = -1.0  # No state of an LSTM is lower.


def carried(pooling: Sequence[str]) -> tuple[str, ...]:
    """The poolings for which the loop carries a value: all but the last state, which is there anyway."""
    return tuple(name for name in pooling if name != "last")


def start(pooling: Sequence[str], zero: tf.Tensor) -> list[tf.Tensor]:
    """What is carried before the first step, for each of the carried poolings."""
    return [tf.fill(tf.shape(zero), _LOWEST) if name == "max" else zero for name in pooling]


def after_step(
    pooling: Sequence[str], pools: Sequence[tf.Tensor], h: tf.Tensor, is_token: tf.Tensor
) -> list[tf.Tensor]:
    """What is carried after a step.

    Args:
      pooling: the carried poolings.
      pools: what was carried before the step, for each.
      h: float32 [batch, units], the state after the step; zeros in padding.
      is_token: bool [batch], whether the step reads a token or padding.
    """
    return [
        tf.where(tf.expand_dims(is_token, 1), tf.maximum(pool, h), pool) if name == "max" else pool + h
        for name, pool in zip(pooling, pools, strict=True)
    ]


def to_hand_out(
    gradients: Mapping[str, tf.Tensor], pooled: Mapping[str, tf.Tensor]
) -> tuple[dict[str, tf.Tensor], tuple[tf.Tensor, ...]]:
    """What a loop over the steps, the last one first, hands out by `add_gradient`.

    Args:
      gradients: those of the sum ("mean") and of the maximum ("max"), by name; float32 [batch, units].
      pooled: the sum and the maximum, by the same names.

    Returns:
      What stays the same in all steps, and what the loop carries.
    """
    constant = {"d_sum": gradients["mean"]} if "mean" in gradients else {}
    if "max" not in gradients:
        return constant, ()
    return {**constant, "maximum": pooled["max"]}, (gradients["max"],)


def add_gradient(
    constant: Mapping[str, tf.Tensor], left: tuple[tf.Tensor, ...], dh: tf.Tensor, h: tf.Tensor
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """Adds to the gradient of the state after a step what the poolings contribute.

    The gradient of a maximum goes to the first state that the loop finds equal to it, and to no other.

    Args:
      constant: as `to_hand_out` returns it.
      left: what the loop carries: the gradient of the maximum as far as no state has had it, or nothing.
      dh: float32 [batch, units], the gradient that comes from the steps after.
      h: float32 [batch, units], the state after the step, to the bit as `after_step` had it.

    Returns:
      The gradient of the state after the step, and what the loop carries on.
    """
    if "d_sum" in constant:
        dh += constant["d_sum"]
    if not left:
        return dh, left
    (d_max,) = left
    is_maximum = tf.equal(h, constant["maximum"])
    dh += tf.where(is_maximum, d_max, 0.0)
    return dh, (tf.where(is_maximum, 0.0, d_max),)


def finish(pooled: Sequence[tf.Tensor], pooling: Sequence[str], lengths: tf.Tensor) -> list[tf.Tensor]:
    """Makes means of sums, and zeros of the maxima of empty texts.

    Args:
      pooled: float32 [batch, width] for each pooling.
      pooling: their names.
      lengths: int32 [batch].
    """
    counts = tf.expand_dims(tf.cast(lengths, tf.float32), 1)

    def finished(name: str, values: tf.Tensor) -> tf.Tensor:
        if name == "mean":
            return values / tf.maximum(counts, 1.0)
        return tf.where(counts > 0.0, values, 0.0) if name == "max" else values

    return [finished(name, values) for name, values in zip(pooling, pooled, strict=True)]


def pool(states: tf.Tensor, mask: tf.Tensor, pooling: Sequence[str]) -> tf.Tensor:
    """Pools the states of all steps that a bidirectional Keras layer returns, in Keras' ops.

    Args:
      states: float32 [batch, time, 2 * units], the forward direction first.
      mask: bool [batch, time], whether there is a token.
      pooling: some of `POOLINGS`.

    Returns:
      float32 [batch, poolings * 2 * units], as of `lstm.bidirectional_lstm`.
    """
    ops = keras.ops
    is_token = ops.expand_dims(ops.cast(mask, "float32"), 2)
    counts = ops.sum(is_token, axis=1)

    def pooled(name: str) -> tf.Tensor:
        if name == "mean":
            return ops.sum(states * is_token, axis=1) / ops.maximum(counts, 1.0)
        if name == "max":
            lowest = ops.where(is_token > 0.0, states, _LOWEST)
            return ops.max(lowest, axis=1) * ops.cast(counts > 0.0, "float32")
        forward, backward = ops.split(states, 2, axis=2)
        is_last = is_token - ops.pad(is_token, [[0, 0], [0, 1], [0, 0]])[:, 1:]
        ends = [ops.sum(forward * is_last, axis=1), ops.sum(backward[:, :1] * is_token[:, :1], axis=1)]
        return ops.concatenate(ends, axis=1)

    return ops.concatenate([pooled(name) for name in pooling], axis=1)
