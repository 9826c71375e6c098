"""Adam (Kingma & Ba 2014) as Keras computes it, bit for bit, in one pass over the memory of large weights."""

import math
from typing import Any

import keras
import tensorflow as tf

from trainer import function_names, in_place

# Below, the call of a compiled function costs more than it saves.
_LARGE = 2**17  # numbers


class Adam(keras.optimizers.Adam):
    """Keras' Adam for gradients that are already summed over the replicas; Keras would sum them again."""

    def _all_reduce_sum_gradients(
        self, grads_and_vars: list[tuple[tf.Tensor, keras.Variable]]
    ) -> list[tuple[tf.Tensor, keras.Variable]]:
        return grads_and_vars

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: tf.Tensor) -> None:
        """Updates a weight and its two slots, which all of Keras' ops would read and write one by one.

        As `keras.optimizers.Adam.update_step`.
        """
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
        if on_gpu or self.amsgrad or variable.shape.num_elements() < _LARGE:
            super().update_step(gradient, variable, learning_rate)
            return
        step = tf.cast(self.iterations + 1, tf.float32)
        rate = tf.cast(learning_rate, tf.float32)
        alpha = rate * tf.sqrt(1 - tf.pow(self.beta_2, step)) / (1 - tf.pow(self.beta_1, step))
        lowest = tf.where(step > 0.0, -math.inf, 0.0)
        index = self._get_variable_index(variable)
        slots = self._momentums[index], self._velocities[index]
        handles = variable.handle, *(slot.value.handle for slot in slots)
        _update(handles, gradient, alpha, lowest, 1 - self.beta_1, 1 - self.beta_2, self.epsilon)


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
