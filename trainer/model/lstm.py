"""Stand-in until the fast kernel is in place: a plain loop over time."""

from typing import NamedTuple

import tensorflow as tf

KERNEL_ID = "plain while_loop 0"


class LSTMWeights(NamedTuple):
    kernel: tf.Tensor
    recurrent_kernel: tf.Tensor
    bias: tf.Tensor


def _last_state(x, lengths, weights):
    units = weights.recurrent_kernel.shape[0]
    projected = tf.transpose(tf.einsum("bte,eg->btg", x, weights.kernel) + weights.bias, [1, 0, 2])

    def step(t, h, c):
        i, f, g, o = tf.split(projected[t] + h @ weights.recurrent_kernel, 4, axis=1)
        new_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        new_h = tf.sigmoid(o) * tf.tanh(new_c)
        live = (t < lengths)[:, None]
        return t + 1, tf.where(live, new_h, h), tf.where(live, new_c, c)

    zeros = tf.zeros([tf.shape(x)[0], units])
    return tf.while_loop(lambda t, h, c: t < tf.shape(x)[1], step, [0, zeros, zeros])[1]


def bidirectional_lstm(*, token_ids, lengths, embeddings, forward, backward):
    x = tf.gather(embeddings, token_ids)
    return tf.concat([_last_state(x, lengths, forward), _last_state(tf.reverse_sequence(x, lengths, 1), lengths, backward)], 1)
