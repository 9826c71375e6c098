"""Adam (Kingma & Ba 2014) as Keras computes it, bit for bit, in one pass over the memory of large weights."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer import function_names, in_place

# Below, the call of a compiled function costs more than it saves.
_LARGE = 2**17  # numbers


class Adam(keras.optimizers.Adam):
    """Keras' Adam for gradients that are already summed over the replicas; Keras would sum them again."""

    def __init__(self, learning_rate: float, name: str = "adam") -> None:
        super().__init__(learning_rate, name=name)

    def _all_reduce_sum_gradients(
        self, grads_and_vars: list[tuple[tf.Tensor, keras.Variable]]
    ) -> list[tuple[tf.Tensor, keras.Variable]]:
        return grads_and_vars

    def _backend_update_step(
        self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        # The rate with the corrections of the first steps, once and not for each weight as in Keras: a graph
        # of a third fewer operations is sooner traced and optimized.
        step = tf.cast(self.iterations + 1, tf.float32)
        rate = tf.cast(learning_rate, tf.float32)
        alpha = rate * tf.sqrt(1 - tf.pow(self.beta_2, step)) / (1 - tf.pow(self.beta_1, step))
        super()._backend_update_step(grads, trainable_variables, alpha)

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: tf.Tensor) -> None:
        """Updates a weight and its two slots; large ones in a single pass over the memory.

        Args:
          gradient: float32, of the weight's shape.
          variable: the weight.
          learning_rate: what the optimizer's was corrected to for this step, a scalar.
        """
        index = self._get_variable_index(variable)
        m, v = self._momentums[index].value, self._velocities[index].value
        m_rate, v_rate = 1 - self.beta_1, 1 - self.beta_2
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
        if on_gpu or variable.shape.num_elements() < _LARGE:
            m.assign_add((gradient - m) * m_rate)
            v.assign_add((tf.square(gradient) - v) * v_rate)
            variable.assign_sub(m * learning_rate / (tf.sqrt(v) + self.epsilon))
        else:
            lowest = tf.where(self.iterations >= 0, -math.inf, 0.0)
            handles = variable.handle, m.handle, v.handle
            _update(handles, gradient, learning_rate, lowest, m_rate, v_rate, self.epsilon)


@tf.function(jit_compile=True, autograph=False)
def _update(
    handles: tuple[tf.Tensor, ...],
    gradient: tf.Tensor,
    alpha: tf.Tensor,
    lowest: tf.Tensor,
    m_rate: float,
    v_rate: float,
    epsilon: float,
) -> None:
    # handles: of the weights, m and v.
    function_names.number_from(80_000)
    # XLA would join a product and a sum into one operation, which rounds once. A maximum between them, with a
    # value that XLA does not know, prevents that and changes no bit.
    weights, m, v = map(in_place.read, handles)
    m += tf.maximum((gradient - m) * m_rate, lowest)
    v += tf.maximum((tf.maximum(tf.square(gradient), lowest) - v) * v_rate, lowest)
    changed = weights - m * alpha / (tf.sqrt(v) + epsilon), m, v
    for handle, value in zip(handles, changed, strict=True):
        in_place.assign(handle, value)
