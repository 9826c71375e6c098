"""The classifier: an encoder and two dense layers."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.model import encoder
from trainer.model.encoder import Encoder, seed_of


class Dimensions(NamedTuple):
    """The sizes that determine the shapes of the weights."""

    vocab_size: int
    embedding_dim: int
    lstm_units: int
    dense_units: int
    logits: int = 1


class Classifier(tf.Module):
    """Token ids to logits.

    Each layer is an attribute: TensorFlow's checkpoints do not see Keras layers inside a list, and take the
    names of layers from the attributes.

    Args:
      dimensions: the sizes of the layers.
      dropout: the probability with which an output of the encoder is set to 0 in training.
      seed: determines the initial weights and the dropout.
      encoder: an encoder of these dimensions; None: a new `Encoder`.
    """

    def __init__(
        self, dimensions: Dimensions, *, dropout: float, seed: int, encoder: Encoder | None = None
    ) -> None:
        super().__init__()
        vocab_size, embedding_dim, lstm_units, dense_units, logits = dimensions

        def dense(units: int, name: str, **kwargs: str) -> keras.layers.Dense:
            kernel = keras.initializers.GlorotUniform(seed_of(seed, name))
            return keras.layers.Dense(units, kernel_initializer=kernel, name=name, **kwargs)

        self._encoder = encoder or Encoder(
            vocab_size=vocab_size, embedding_dim=embedding_dim, lstm_units=lstm_units, seed=seed
        )
        self.embedding, self.bidirectional = self._encoder.layers
        self.hidden = dense(dense_units, "hidden", activation="relu")
        self.logit = dense(logits, "logit")
        self.hidden.build((None, self._encoder.width))
        self.logit.build((None, dense_units))
        self._dropout = dropout
        self._dropout_seed = seed_of(seed, "dropout")

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The layers that hold the weights, in their order."""
        return *self._encoder.layers, self.hidden, self.logit

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The weights, in the order of the layers; the first is the embedding."""
        return [weight for layer in self.layers for weight in layer.trainable_variables]

    def __call__(
        self,
        token_ids: tf.Tensor,
        lengths: tf.Tensor,
        *,
        training_step: tf.Tensor | None = None,
        position: tuple[int, int] = (0, 1),
    ) -> tf.Tensor:
        """Classifies a batch, or one of the equal slices that replicas compute.

        Args:
          token_ids: int32 [batch, time], padded on the right; values beyond a text's length have no effect.
          lengths: int32 [batch], 0 to time.
          training_step: int64 scalar that determines the dropout mask; None: no dropout and no gradient.
          position: (slice, slices): the dropout mask is this slice of the whole batch's mask.

        Returns:
          float32, the logits: [batch] if there is one for each text, else [batch, logits].
        """
        states = self._encoder(token_ids, lengths, training=training_step is not None)
        if self._dropout and training_step is not None:
            states = self._drop(states, training_step, position)
        logits = self.logit(self.hidden(states))
        return tf.squeeze(logits, axis=1) if self.logit.units == 1 else logits

    def _drop(self, states: tf.Tensor, training_step: tf.Tensor, position: tuple[int, int]) -> tf.Tensor:
        seed = tf.constant([self._dropout_seed, 0], tf.int64)
        seed = tf.random.experimental.stateless_fold_in(seed, training_step)
        number, slices = position
        rows = tf.shape(states)[0]
        ones = tf.ones([slices * rows, states.shape[1]])
        mask = tf.nn.experimental.stateless_dropout(ones, self._dropout, seed=seed, rng_alg="philox")
        mask = mask[number * rows : (number + 1) * rows]
        return tf.where(mask > 0.0, states * (1.0 / (1.0 - self._dropout)), 0.0)


def count_weights(dimensions: Dimensions) -> int:
    """The trainable weights of a `Classifier` of these dimensions, without building it."""
    vocab_size, embedding_dim, lstm_units, dense_units, logits = dimensions
    encoding = encoder.count_weights(
        vocab_size=vocab_size, embedding_dim=embedding_dim, lstm_units=lstm_units
    )
    return encoding + dense_units * (2 * lstm_units + 1) + logits * (dense_units + 1)


def stock_layers(dimensions: Dimensions) -> list[keras.layers.Layer]:
    """New Keras layers that compute logits from padded token ids, float32 [batch, logits].

    Once they are built, their weights can be set from `Classifier.layers`, one by one.
    """
    vocab_size, embedding_dim, lstm_units, dense_units, logits = dimensions
    return [
        *encoder.stock_layers(vocab_size=vocab_size, embedding_dim=embedding_dim, lstm_units=lstm_units),
        keras.layers.Dense(dense_units, activation="relu"),
        keras.layers.Dense(logits),
    ]
