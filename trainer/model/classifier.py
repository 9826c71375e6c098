"""The classifier: an encoder and two dense layers, and beside them a linear classifier of n-grams."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainer.model import encoder, ngrams
from trainer.model.encoder import Encoder, seed_of
from trainer.model.ngrams import Features, NGrams

_UNKNOWN_ID = 1

# What the logits of the LSTM count beside those of the n-grams, chosen on held-out reviews. They are as far
# from zero, but less often right.
_SHARE_BESIDE_NGRAMS = 0.25


class Dimensions(NamedTuple):
    """The sizes that determine the shapes of the weights."""

    vocab_size: int
    embedding_dim: int
    lstm_units: int
    dense_units: int
    logits: int = 1
    pooling: tuple[str, ...] = ("last",)
    ngrams: int = 0
    ngram_buckets: int = 0

    def of_encoder(self) -> dict[str, Any]:
        """The arguments of an `Encoder`, but for the seed."""
        names = ("vocab_size", "embedding_dim", "lstm_units", "pooling")
        return {name: getattr(self, name) for name in names}


class Parts(NamedTuple):
    """The logits of the parts of a classifier for one batch, each float32 [batch] or [batch, logits].

    Attributes:
      lstm: those of the LSTM.
      ngrams: those of the n-grams; None without.
      features: the n-grams.
    """

    lstm: tf.Tensor
    ngrams: tf.Tensor | None = None
    features: Features | None = None

    @property
    def joined(self) -> tf.Tensor:
        """The logits of the classifier."""
        return self.lstm if self.ngrams is None else self.ngrams + _SHARE_BESIDE_NGRAMS * self.lstm


class Classifier(tf.Module):
    """Token ids to logits.

    Each layer is an attribute: TensorFlow's checkpoints do not see Keras layers inside a list, and take the
    names of layers from the attributes.

    Args:
      dimensions: the sizes of the layers.
      dropout: the probability with which an output of the encoder is set to 0 in training.
      seed: determines the initial weights and the dropout.
      token_dropout: the probability with which the encoder reads a token as unknown in training.
      shards: how many groups of texts the encoder reads side by side in training.
      longest: the tokens of the longest text that training reads, if known.
      encoder: an encoder of these dimensions; None: a new `Encoder`.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        *,
        dropout: float,
        seed: int,
        token_dropout: float = 0.0,
        shards: int = 1,
        longest: int | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__()
        dense_units, logits = dimensions.dense_units, dimensions.logits

        def dense(units: int, name: str, **kwargs: str) -> keras.layers.Dense:
            kernel = keras.initializers.GlorotUniform(seed_of(seed, name))
            return keras.layers.Dense(units, kernel_initializer=kernel, name=name, **kwargs)

        self._encoder = encoder or Encoder(
            **dimensions.of_encoder(), seed=seed, shards=shards, longest=longest
        )
        self.embedding, self.bidirectional = self._encoder.layers
        self.hidden = dense(dense_units, "hidden", activation="relu")
        self.logit = dense(logits, "logit")
        self.hidden.build((None, self._encoder.width))
        self.logit.build((None, dense_units))
        self._dropout = dropout
        self._dropout_seed = seed_of(seed, "dropout")
        self._token_dropout = token_dropout
        self._token_dropout_seed = seed_of(seed, "token_dropout")
        self.ngrams = None
        if dimensions.ngrams:
            self.ngrams = NGrams(orders=dimensions.ngrams, buckets=dimensions.ngram_buckets, logits=logits)

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
        return self.parts(token_ids, lengths, training_step=training_step, position=position).joined

    def parts(
        self,
        token_ids: tf.Tensor,
        lengths: tf.Tensor,
        *,
        training_step: tf.Tensor | None = None,
        position: tuple[int, int] = (0, 1),
    ) -> Parts:
        """The logits of each part, which training trains apart; arguments as of a call."""
        known = token_ids
        if self._token_dropout and training_step is not None:
            known = self._drop_tokens(token_ids, training_step, position)
        states = self._encoder(known, lengths, training=training_step is not None)
        if self._dropout and training_step is not None:
            states = self._drop(states, training_step, position)
        lstm = self._squeezed(self.logit(self.hidden(states)))
        if self.ngrams is None:
            return Parts(lstm)
        features = self.ngrams.features(token_ids, lengths)
        return Parts(lstm, self._squeezed(self.ngrams.logits_of(features)), features)

    def _squeezed(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(logits, axis=1) if self.logit.units == 1 else logits

    def _drop_tokens(
        self, token_ids: tf.Tensor, training_step: tf.Tensor, position: tuple[int, int]
    ) -> tf.Tensor:
        seed = tf.constant([self._token_dropout_seed, 0], tf.int64)
        seed = tf.random.experimental.stateless_fold_in(seed, training_step)
        number, slices = position
        rows, steps = tf.unstack(tf.shape(token_ids))
        # Of the whole batch, and time first: so it is the same whatever the longest text of a slice.
        values = tf.random.stateless_uniform([steps, slices * rows], seed, alg="philox")
        values = tf.transpose(values[:, number * rows : (number + 1) * rows])
        return tf.where(values < self._token_dropout, _UNKNOWN_ID, token_ids)

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
    dense_units, logits = dimensions.dense_units, dimensions.logits
    width = 2 * dimensions.lstm_units * len(dimensions.pooling)
    encoding = encoder.count_weights(
        vocab_size=dimensions.vocab_size,
        embedding_dim=dimensions.embedding_dim,
        lstm_units=dimensions.lstm_units,
    )
    return encoding + dense_units * (width + 1) + logits * (dense_units + 1)


def count_table_values(dimensions: Dimensions) -> int:
    """The numbers in the tables of n-grams, which are saved with the weights."""
    if not dimensions.ngrams:
        return 0
    return ngrams.count_weights(buckets=dimensions.ngram_buckets, logits=dimensions.logits)


def stock_model(
    token_ids: keras.KerasTensor, dimensions: Dimensions
) -> tuple[keras.KerasTensor, Callable[[Classifier], None]]:
    """Computes the logits of padded token ids in stock Keras.

    Args:
      token_ids: int [batch, time], 0 in padding.
      dimensions: the sizes of the model.

    Returns:
      float32 [batch, logits], and what copies the weights of a classifier into the layers.
    """
    states, layers = encoder.stock_encoding(token_ids, **dimensions.of_encoder())
    layers += [
        keras.layers.Dense(dimensions.dense_units, activation="relu"),
        keras.layers.Dense(dimensions.logits),
    ]
    logits, table = layers[-1](layers[-2](states)), None
    if dimensions.ngrams:
        of_ngrams, table = ngrams.stock_logits(
            token_ids, orders=dimensions.ngrams, buckets=dimensions.ngram_buckets, logits=dimensions.logits
        )
        logits = of_ngrams + _SHARE_BESIDE_NGRAMS * logits

    def copy(model: Classifier) -> None:
        for layer, theirs in zip(layers, model.layers, strict=True):
            layer.set_weights(theirs.get_weights())
        if table is not None and model.ngrams is not None:
            table.set_weights(ngrams.merged(model.ngrams))

    return logits, copy
