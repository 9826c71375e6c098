"""The sentiment classifier: embedding, bidirectional LSTM, two dense layers; and its loss."""

import hashlib

import keras
import tensorflow as tf

from trainer.model import lstm


class Classifier(tf.Module):
    """Token ids to one logit a review; positive means a positive review.

    Keras layers hold the weights, so that their initialisation, the cuDNN path on a GPU and export are the library's. Each is an attribute
    of its own: TensorFlow's checkpoints do not see Keras layers inside a list. Each has a name of its own: Keras numbers the nameless in
    the order in which a process makes them, and the number would enter the checkpoint.
    """

    def __init__(self, *, vocab_size: int, embedding_dim: int, lstm_units: int, dense_units: int, dropout: float, seed: int) -> None:
        super().__init__()

        def seed_of(weight: str) -> int:
            return int.from_bytes(hashlib.sha256(f"{seed}/{weight}".encode()).digest()[:4], "big") >> 1

        def glorot(weight: str) -> keras.Initializer:
            return keras.initializers.GlorotUniform(seed_of(weight))

        def lstm_layer(name: str, **kwargs) -> keras.layers.LSTM:
            recurrent = keras.initializers.Orthogonal(seed=seed_of(f"{name}/recurrent"))
            return keras.layers.LSTM(lstm_units, kernel_initializer=glorot(name), recurrent_initializer=recurrent, name=name, **kwargs)

        uniform = keras.initializers.RandomUniform(seed=seed_of("embedding"))
        self.embedding = keras.layers.Embedding(vocab_size, embedding_dim, embeddings_initializer=uniform, name="embedding")
        self.bidirectional = keras.layers.Bidirectional(
            lstm_layer("forward"), backward_layer=lstm_layer("backward", go_backwards=True), name="bidirectional"
        )
        self.hidden = keras.layers.Dense(dense_units, activation="relu", kernel_initializer=glorot("hidden"), name="hidden")
        self.logit = keras.layers.Dense(1, kernel_initializer=glorot("logit"), name="logit")
        self.embedding.build((None, None))
        self.bidirectional.build((None, None, embedding_dim))
        self.hidden.build((None, 2 * lstm_units))
        self.logit.build((None, dense_units))
        self._dropout = dropout
        self._dropout_seed = seed_of("dropout")
        self._on_gpu = bool(tf.config.list_logical_devices("GPU"))

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The weights, in the order of the layers."""
        layers = (self.embedding, self.bidirectional, self.hidden, self.logit)
        return [weight for layer in layers for weight in layer.trainable_variables]

    def __call__(
        self, token_ids: tf.Tensor, lengths: tf.Tensor, *, training_step: tf.Tensor | None = None, position: tuple[int, int] = (0, 1)
    ) -> tf.Tensor:
        """Classifies a batch.

        Args:
          token_ids: int32 [batch, time], padded on the right; what stands beyond a review's length has no influence.
          lengths: int32 [batch], 0 to time.
          training_step: int64 scalar; decides the dropout mask. None: no dropout.
          position: which of how many equal slices of a batch this is; its dropout mask is that slice of the whole batch's.

        Returns:
          float32 [batch], the logits.
        """
        states = (
            self._encode_with_keras(token_ids, lengths) if self._on_gpu else self._encode(token_ids, lengths, training_step is not None)
        )
        if self._dropout and training_step is not None:
            seed = tf.random.experimental.stateless_fold_in(tf.constant([self._dropout_seed, 0], tf.int64), training_step)
            number, slices = position
            rows = tf.shape(states)[0]
            ones = tf.ones([slices * rows, states.shape[1]])
            kept = tf.nn.experimental.stateless_dropout(ones, self._dropout, seed=seed, rng_alg="philox")[
                number * rows : (number + 1) * rows
            ]
            states = tf.where(kept > 0.0, states * (1.0 / (1.0 - self._dropout)), 0.0)
        return tf.squeeze(self.logit(self.hidden(states)), axis=1)

    def _encode(self, token_ids: tf.Tensor, lengths: tf.Tensor, training: bool) -> tf.Tensor:
        forward, backward = (
            lstm.LSTMWeights(*(weight.value for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)))
            for cell in (self.bidirectional.forward_layer.cell, self.bidirectional.backward_layer.cell)
        )
        embeddings = self.embedding.embeddings.value
        return lstm.bidirectional_lstm(
            token_ids=token_ids, lengths=lengths, embeddings=embeddings, forward=forward, backward=backward, training=training
        )

    def _encode_with_keras(self, token_ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        # cuDNN refuses a mask without a single token; an empty review reads one and is set to the zeros that it stands for.
        mask = tf.sequence_mask(tf.maximum(lengths, 1), tf.shape(token_ids)[1])
        states = self.bidirectional(self.embedding(token_ids), mask=mask)
        return tf.where(tf.expand_dims(lengths > 0, 1), states, 0.0)


def count_weights(*, vocab_size: int, embedding_dim: int, lstm_units: int, dense_units: int) -> int:
    """The trainable weights of a `Classifier` of these dimensions, told without building it."""
    direction = 4 * lstm_units * (embedding_dim + lstm_units + 1)
    return vocab_size * embedding_dim + 2 * direction + dense_units * (2 * lstm_units + 1) + dense_units + 1


def losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Sigmoid cross-entropy of each review, float32 [batch], from logits and labels (0.0 or 1.0), both float32 [batch]."""
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)


def is_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Whether the sign of each logit agrees with its label, float32 [batch] of 0.0 and 1.0."""
    return tf.cast(tf.equal(logits > 0.0, labels > 0.5), tf.float32)
