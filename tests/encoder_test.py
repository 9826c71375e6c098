"""The encoder."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.model import encoder, lstm
from trainer.model.encoder import Encoder

DIMENSIONS = {"vocab_size": 30, "embedding_dim": 6, "lstm_units": 5}


def test_count_weights_counts_the_weights_of_the_layers():
    layers = Encoder(**DIMENSIONS, seed=0).layers
    weights = [weight for layer in layers for weight in layer.trainable_variables]
    assert encoder.count_weights(**DIMENSIONS) == sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.mark.parametrize("pooling", [("last",), ("max",), ("last", "max", "mean")], ids="-".join)
def test_stock_keras_gives_the_same_encoding(pooling):
    ours = Encoder(**DIMENSIONS, seed=0, pooling=pooling)
    texts = keras.Input(shape=(None,), dtype="int32")
    encoding, layers = encoder.stock_encoding(texts, **DIMENSIONS, pooling=pooling)
    for layer, our_layer in zip(layers, ours.layers, strict=True):
        layer.set_weights(our_layer.get_weights())
    token_ids = tf.constant([[3, 4, 5, 0], [7, 8, 9, 10], [2, 0, 0, 0]])
    vectors = keras.Model(texts, encoding)(token_ids)
    np.testing.assert_allclose(ours(token_ids, tf.constant([3, 4, 1]), training=False), vectors, atol=1e-6)
    assert vectors.shape == (3, ours.width)


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_text_is_encoded_as_zeros(training):
    vector = Encoder(**DIMENSIONS, seed=0)(
        tf.zeros([1, 1], tf.int32), tf.zeros([1], tf.int32), training=training
    )
    assert not np.any(vector.numpy())


def test_the_numerics_id_is_the_kernels():
    assert encoder.NUMERICS_ID == lstm.KERNEL_ID
