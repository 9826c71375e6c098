"""The classifier: the weights, the values and the gradients of stock Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from fakes import relative_error

from trainer import classes
from trainer.model.classifier import Classifier, Dimensions


def make(*, vocab_size=50, dropout=0.0, seed=0, units=16):
    return Classifier(Dimensions(vocab_size, 8, units, 12), dropout=dropout, seed=seed)


def make_batch(*, batch=7, time=13, vocab_size=50, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(0, time + 1, batch).astype(np.int32)
    lengths[0], lengths[-1] = 0, time
    token_ids = random.integers(1, vocab_size, (batch, time)).astype(np.int32)
    token_ids[np.arange(time) >= lengths[:, None]] = 0
    return tf.constant(token_ids), tf.constant(lengths)


def stock_keras(model):
    """Embedding(mask_zero) and Bidirectional(LSTM) as a user would write them, with our weights."""
    reference_outcome = keras.Sequential(
        [
            keras.layers.Embedding(model.embedding.input_dim, model.embedding.output_dim, mask_zero=True),
            keras.layers.Bidirectional(keras.layers.LSTM(model.bidirectional.forward_layer.units)),
            keras.layers.Dense(model.hidden.units, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    reference_outcome.build((None, None))
    reference_outcome.set_weights([weight.numpy() for weight in model.trainable_variables])
    return reference_outcome


def randomise(model, seed=0):
    """Weights that are neither zero nor equal, the biases included."""
    random = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(weight.numpy() + random.normal(0, 0.1, weight.shape).astype(np.float32))


def test_the_parameters_are_those_of_the_tutorials_model():
    model = Classifier(Dimensions(1000, 64, 64, 64), dropout=0.0, seed=0)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_variables) == 138_369


@pytest.mark.parametrize(("batch", "time"), [(7, 13), (1, 1), (64, 90)])
def test_logits_and_gradients_are_those_of_stock_keras(batch, time):
    model = make()
    randomise(model)
    reference_outcome = stock_keras(model)
    token_ids, lengths = make_batch(batch=batch, time=time)
    labels = tf.constant(np.arange(batch) % 2, tf.float32)
    with tf.GradientTape() as tape:
        logits = model(token_ids, lengths)
        loss = tf.reduce_mean(classes.losses(logits, labels))
    ours = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    with tf.GradientTape() as tape:
        their_logits = reference_outcome(token_ids)[:, 0]
        loss = keras.losses.BinaryCrossentropy(from_logits=True)(labels[:, None], their_logits[:, None])
    theirs = tape.gradient(loss, [weight.value for weight in reference_outcome.trainable_variables])
    assert relative_error(logits, their_logits) < 1e-5
    for mine, other in zip(ours, theirs, strict=True):
        assert relative_error(tf.convert_to_tensor(mine), tf.convert_to_tensor(other)) < 1e-5


def test_the_path_through_keras_layers_gives_the_same(monkeypatch):
    model = make()
    randomise(model)
    token_ids, lengths = make_batch()
    expected = model(token_ids, lengths)
    monkeypatch.setattr(model._encoder, "_on_gpu", True)
    assert relative_error(model(token_ids, lengths), expected) < 1e-5


def test_padding_is_never_seen():
    model = make()
    token_ids, lengths = make_batch()
    garbage = tf.where(tf.sequence_mask(lengths, token_ids.shape[1]), token_ids, 3)
    longer = tf.pad(token_ids, [[0, 0], [0, 5]])
    assert model(garbage, lengths).numpy().tobytes() == model(token_ids, lengths).numpy().tobytes()
    assert relative_error(model(longer, lengths), model(token_ids, lengths)) < 1e-6


def test_an_empty_review_has_a_logit():
    assert np.isfinite(make()(tf.zeros([1, 1], tf.int32), tf.zeros([1], tf.int32)).numpy()).all()


def weights(model):
    return [weight.numpy().tobytes() for weight in model.trainable_variables]


def test_the_seed_alone_decides_the_initial_weights():
    first = weights(make(seed=3))
    keras.utils.set_random_seed(99)
    assert weights(make(seed=3)) == first
    assert weights(make(seed=4)) != first


def test_each_weight_has_a_seed_of_its_own():
    model = make()
    forward, backward = model.bidirectional.forward_layer.cell, model.bidirectional.backward_layer.cell
    assert not np.array_equal(forward.kernel.numpy(), backward.kernel.numpy())
    assert not np.array_equal(forward.recurrent_kernel.numpy(), backward.recurrent_kernel.numpy())


def test_dropout_is_a_function_of_the_step_and_off_in_evaluation():
    model = make(dropout=0.5)
    token_ids, lengths = make_batch()

    def logits(step):
        return model(token_ids, lengths, training_step=step).numpy().tobytes()

    assert logits(tf.constant(7, tf.int64)) == logits(tf.constant(7, tf.int64))
    assert logits(tf.constant(7, tf.int64)) != logits(tf.constant(8, tf.int64))
    assert logits(None) == make(dropout=0.0)(token_ids, lengths).numpy().tobytes()


def test_dropout_draws_for_each_unit_of_each_row_and_scales_what_it_keeps():
    model, ones = make(dropout=0.5), tf.ones([64, 16])
    dropped = model._drop(ones, tf.constant(7, tf.int64), (0, 1)).numpy()
    assert set(dropped.ravel()) == {0.0, 2.0}
    assert 0.4 < np.mean(dropped > 0) < 0.6
    assert len(np.unique(dropped, axis=0)) == 64 and len(np.unique(dropped, axis=1).T) == 16
    halves = [model._drop(ones[:32], tf.constant(7, tf.int64), (half, 2)).numpy() for half in (0, 1)]
    assert np.array_equal(np.concatenate(halves), dropped)


def test_a_logit_above_zero_is_positive():
    correct = classes.is_correct(tf.constant([0.1, -0.1, 0.0, 5.0]), tf.constant([1.0, 1.0, 0.0, 0.0]))
    assert correct.numpy().tolist() == [1.0, 0.0, 1.0, 0.0]
