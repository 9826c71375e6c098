"""The classifier: the weights, the values and the gradients of stock Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from fakes import relative_error

from trainer import classes
from trainer.model.classifier import Classifier, Dimensions, count_table_values, count_weights, stock_model

STEP = tf.constant(7, tf.int64)


def make(*, vocab_size=50, dropout=0.0, token_dropout=0.0, seed=0, units=16, **dimensions):
    return Classifier(
        Dimensions(vocab_size, 8, units, 12, **dimensions),
        dropout=dropout,
        token_dropout=token_dropout,
        seed=seed,
    )


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


@pytest.mark.parametrize(("batch", "time"), [(7, 13), (1, 1), pytest.param(128, 40, marks=pytest.mark.slow)])
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


def test_a_dropped_token_is_read_as_unknown_in_training_alone():
    model = make(token_dropout=0.99)
    token_ids, lengths = make_batch(batch=3)
    dropped = model._drop_tokens(token_ids, STEP, (0, 1)).numpy()
    assert set(np.unique(dropped)) <= {0, 1, *np.unique(token_ids)}
    assert np.mean(dropped == 1) > 0.9
    assert model(token_ids, lengths).numpy().tobytes() == make()(token_ids, lengths).numpy().tobytes()
    assert relative_error(model(token_ids, lengths, training_step=STEP), model(dropped, lengths)) < 1e-6


def test_which_tokens_are_dropped_is_a_function_of_seed_and_step():
    token_ids, _ = make_batch(batch=20)

    def dropped(seed, step):
        model = make(token_dropout=0.5, seed=seed)
        return model._drop_tokens(token_ids, tf.constant(step, tf.int64), (0, 1)).numpy().tobytes()

    assert dropped(0, 7) == dropped(0, 7)
    assert len({dropped(0, 7), dropped(0, 8), dropped(1, 7)}) == 3


def test_the_share_of_dropped_tokens_is_the_given_one():
    dropped = make(token_dropout=0.3)._drop_tokens(tf.fill([100, 100], 5), STEP, (0, 1)).numpy()
    assert 0.27 < np.mean(dropped == 1) < 0.33


def test_each_slice_drops_its_part_of_the_batch_whatever_its_length():
    model, token_ids = make(token_dropout=0.5), tf.fill([8, 10], 5)
    whole = model._drop_tokens(token_ids, STEP, (0, 1)).numpy()
    first = model._drop_tokens(token_ids[:4, :6], STEP, (0, 2)).numpy()
    second = model._drop_tokens(token_ids[4:], STEP, (1, 2)).numpy()
    assert np.array_equal(first, whole[:4, :6]) and np.array_equal(second, whole[4:])


EVERYTHING = {"pooling": ("last", "max", "mean"), "ngrams": 2, "ngram_buckets": 128}


@pytest.mark.parametrize("logits", [1, 3])
def test_the_logits_are_those_of_the_ngrams_and_a_share_of_the_lstm(logits):
    model = make(logits=logits, **EVERYTHING)
    randomise(model)
    for table in (model.ngrams.log_ratios, model.ngrams.weights):
        table.assign(tf.random.stateless_normal(table.shape, [1, 2]))
    token_ids, lengths = make_batch()
    parts = model.parts(token_ids, lengths)
    expected = parts.ngrams.numpy() + 0.25 * parts.lstm.numpy()
    assert expected.shape == ((7,) if logits == 1 else (7, 3))
    assert relative_error(model(token_ids, lengths), expected) < 1e-6


@pytest.mark.parametrize("dimensions", [{}, EVERYTHING, {"logits": 3, **EVERYTHING}])
def test_stock_keras_gives_the_same_logits(dimensions):
    model = make(**dimensions)
    randomise(model)
    if model.ngrams:
        model.ngrams.weights.assign(tf.random.stateless_normal(model.ngrams.weights.shape, [1, 2]))
        model.ngrams.log_ratios.assign(tf.random.stateless_normal(model.ngrams.weights.shape, [3, 4]))
    token_ids = keras.Input(shape=(None,), dtype="int32")
    logits, copy_weights = stock_model(token_ids, Dimensions(50, 8, 16, 12, **dimensions))
    copy_weights(model)
    batch, lengths = make_batch()
    theirs = keras.Model(token_ids, logits)(batch)
    assert relative_error(np.squeeze(theirs), np.squeeze(model(batch, lengths))) < 1e-5


@pytest.mark.parametrize("dimensions", [{}, EVERYTHING, {"logits": 3, **EVERYTHING}])
def test_the_weights_are_counted_without_building_a_model(dimensions):
    model, sizes = make(**dimensions), Dimensions(50, 8, 16, 12, **dimensions)
    assert count_weights(sizes) == sum(int(np.prod(weight.shape)) for weight in model.trainable_variables)
    tables = [model.ngrams.log_ratios, model.ngrams.weights] if model.ngrams else []
    assert count_table_values(sizes) == sum(int(np.prod(table.shape)) for table in tables)
