"""The learning rate of each step, as a factor: a pure function of the step."""

import math
from typing import NamedTuple

import tensorflow as tf


class Schedule(NamedTuple):
    """How the learning rate changes; with the defaults it does not.

    Attributes:
      name: constant, linear or cosine: how the factor falls from 1 to `final`.
      steps: the step at which it arrives there; later it stays.
      warmup_steps: the steps in which the factor also rises linearly from 0.
      final: the last factor.
    """

    name: str = "constant"
    steps: int = 0
    warmup_steps: int = 0
    final: float = 0.0

    @property
    def is_constant(self) -> bool:
        """Whether the factor is always 1."""
        return self.name == "constant" and not self.warmup_steps

    def factor(self, step: tf.Tensor) -> tf.Tensor:
        """The factor of the learning rate in the step that follows `step` finished ones, float32 scalar.

        `step` is an int64 scalar. The cosine is that of Loshchilov & Hutter (2017), without restarts.
        """
        done = tf.cast(step, tf.float32)
        factor = tf.constant(1.0)
        if self.name != "constant":
            progress = tf.minimum(done / max(self.steps, 1), 1.0)
            share = 1.0 - progress if self.name == "linear" else 0.5 * (1.0 + tf.cos(math.pi * progress))
            factor = self.final + (1.0 - self.final) * share
        if self.warmup_steps:
            factor *= tf.minimum((done + 1.0) / self.warmup_steps, 1.0)
        return factor
