"""The encoder, token ids to one vector per text: embedding, bidirectional LSTM and pooling.

To try another encoder, replace this module. Its first weight must be the embedding, which a warm start copies
token by token.
"""

import hashlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.model import lstm
from trainer.model.pooling import pool

# A condition of exactness: must change whenever a change of the encoder can change a bit of a result.
NUMERICS_ID = lstm.KERNEL_ID


def seed_of(seed: int, weight: str) -> int:
    """A seed for one weight, derived from the run's; 31 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{weight}".encode()).digest()[:4], "big") >> 1


class Encoder:
    """Embedding and bidirectional LSTM.

    Keras layers hold the weights, so that Keras provides initialisation, the cuDNN path on a GPU and the
    export. Each layer has an explicit name: Keras numbers unnamed layers in the order of their creation, and
    the number would enter the checkpoint.

    Args:
      vocab_size: tokens of the vocabulary.
      embedding_dim: the size of a token's embedding.
      lstm_units: the units of each direction.
      seed: determines the initial weights.
      pooling: what is read of the states.
      shards: how many groups of texts training reads side by side on a CPU.
      longest: the tokens of the longest text that training reads, if known.

    Attributes:
      embedding: the embedding layer.
      bidirectional: the LSTM layer.
      width: the size of the output vector.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embedding_dim: int,
        lstm_units: int,
        seed: int,
        pooling: Sequence[str] = ("last",),
        shards: int = 1,
        longest: int | None = None,
    ) -> None:
        self.width = 2 * lstm_units * len(pooling)
        self._pooling = tuple(pooling)
        self._shards, self._longest = shards, longest
        self.embedding = keras.layers.Embedding(
            vocab_size,
            embedding_dim,
            embeddings_initializer=keras.initializers.RandomUniform(seed=seed_of(seed, "embedding")),
            name="embedding",
        )

        def lstm_layer(name: str, **kwargs: bool) -> keras.layers.LSTM:
            recurrent = keras.initializers.Orthogonal(seed=seed_of(seed, f"{name}/recurrent"))
            kernel = keras.initializers.GlorotUniform(seed_of(seed, name))
            return keras.layers.LSTM(
                lstm_units,
                return_sequences=_needs_sequences(pooling),
                kernel_initializer=kernel,
                recurrent_initializer=recurrent,
                name=name,
                **kwargs,
            )

        self.bidirectional = keras.layers.Bidirectional(
            lstm_layer("forward"),
            backward_layer=lstm_layer("backward", go_backwards=True),
            name="bidirectional",
        )
        self.embedding.build((None, None))
        self.bidirectional.build((None, None, embedding_dim))
        self._on_gpu = bool(tf.config.list_logical_devices("GPU"))

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The layers that hold the weights, in their order."""
        return self.embedding, self.bidirectional

    def __call__(self, token_ids: tf.Tensor, lengths: tf.Tensor, *, training: bool) -> tf.Tensor:
        """Encodes a batch.

        Args:
          token_ids: int32 [batch, time], padded on the right; values beyond a text's length have no effect.
          lengths: int32 [batch], 0 to time.
          training: whether a gradient will be taken.

        Returns:
          float32 [batch, width]; zeros for an empty text.
        """
        if self._on_gpu:
            return self._encode_with_keras(token_ids, lengths)
        forward, backward = (
            lstm.LSTMWeights(*(weight.value for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)))
            for cell in (self.bidirectional.forward_layer.cell, self.bidirectional.backward_layer.cell)
        )
        return lstm.bidirectional_lstm(
            token_ids=token_ids,
            lengths=lengths,
            embeddings=self.embedding.embeddings.value,
            forward=forward,
            backward=backward,
            training=training,
            pooling=self._pooling,
            shards=self._shards if training else 1,
            longest=self._longest,
        )

    def _encode_with_keras(self, token_ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        # cuDNN rejects a mask without any token. So an empty text reads one token, and its output is then set
        # to zero.
        mask = tf.sequence_mask(tf.maximum(lengths, 1), tf.shape(token_ids)[1])
        states = self.bidirectional(self.embedding(token_ids), mask=mask)
        if not _needs_sequences(self._pooling):
            return tf.where(tf.expand_dims(lengths > 0, 1), states, 0.0)
        return pool(states, tf.sequence_mask(lengths, tf.shape(token_ids)[1]), self._pooling)


def count_weights(*, vocab_size: int, embedding_dim: int, lstm_units: int) -> int:
    """The trainable weights of an `Encoder` of these dimensions, without building it."""
    direction = 4 * lstm_units * (embedding_dim + lstm_units + 1)
    return vocab_size * embedding_dim + 2 * direction


def stock_encoding(
    token_ids: keras.KerasTensor,
    *,
    vocab_size: int,
    embedding_dim: int,
    lstm_units: int,
    pooling: Sequence[str] = ("last",),
) -> tuple[keras.KerasTensor, list[keras.layers.Layer]]:
    """Encodes padded token ids in stock Keras.

    Returns:
      float32 [batch, width], and the layers, whose weights can be set from `Encoder.layers`.
    """
    embedding = keras.layers.Embedding(vocab_size, embedding_dim, mask_zero=True)
    lstm_layer = keras.layers.LSTM(lstm_units, return_sequences=_needs_sequences(pooling))
    bidirectional = keras.layers.Bidirectional(lstm_layer)
    states = bidirectional(embedding(token_ids))
    if _needs_sequences(pooling):
        states = pool(states, keras.ops.not_equal(token_ids, 0), pooling)
    return states, [embedding, bidirectional]


def _needs_sequences(pooling: Sequence[str]) -> bool:
    # Whether Keras' LSTM has to return the states of all steps.
    return tuple(pooling) != ("last",)
