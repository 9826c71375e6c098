"""Keras `fit` as a contender: as most users write it, and on this trainer's batches."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from protocol import BATCH_SIZE, LEARNING_RATE, VALIDATION_BATCHES, VOCAB_SIZE, is_reached
from timing import seconds
from turns import Step, Turns

_FOREVER = 10**6  # steps


def usual(turns: Turns) -> None:
    """Trains in turns, then evaluates the test split as often as ordered."""
    keras.utils.set_random_seed(0)
    made = _usual()
    callbacks = [_Paced(turns)]
    made.model.fit(made.train.repeat(), epochs=1, steps_per_epoch=_FOREVER, callbacks=callbacks, verbose=0)
    made.model.evaluate(made.test, steps=2, verbose=0)
    while turns.order == "evaluate":
        turns.answer(seconds=seconds(lambda: made.model.evaluate(made.test, verbose=0)))


def usual_until_target(seed: int) -> None:
    """Trains until validation has reached the target."""
    keras.utils.set_random_seed(seed)
    made = _usual()
    made.model.fit(
        made.train,
        epochs=30,
        validation_data=made.test,
        validation_steps=VALIDATION_BATCHES,
        callbacks=[_UntilTarget()],
        verbose=2,
    )


class _Usual(NamedTuple):
    model: keras.Model
    train: tf.data.Dataset
    test: tf.data.Dataset


def _usual() -> _Usual:
    train, test = tfds.load("imdb_reviews", split=["train", "test"], as_supervised=True)
    train = train.shuffle(10_000).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    test = test.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    encoder = keras.layers.TextVectorization(max_tokens=VOCAB_SIZE)
    encoder.adapt(train.map(lambda text, label: text))
    embedding = keras.layers.Embedding(VOCAB_SIZE, 64)
    return _Usual(_compiled([encoder, embedding]), train, test)


def fair(turns: Turns, *, cache_dir: str) -> None:
    """Trains in turns on this trainer's batches, with a mask."""
    from trainer.data import corpus, input_pipeline, token_store

    keras.utils.set_random_seed(0)
    imdb = corpus.open_corpus(name="imdb_reviews", data_dir=None, cache_dir=cache_dir)
    _, stores = token_store.prepare(corpus=imdb, splits=["train"], vocab_size=VOCAB_SIZE, cache_dir=cache_dir)
    store = stores["train"]
    plan = input_pipeline.BatchPlan(lengths=store.lengths, batch_size=BATCH_SIZE, seed=0)
    batches = input_pipeline.train_batches(
        store=store, plan=plan, max_length=0, first_step=0, last_step=_FOREVER
    )

    def examples() -> Iterator[tuple]:
        for (batch,) in batches:
            yield batch.token_ids, batch.labels, batch.weights

    signature = (
        tf.TensorSpec([BATCH_SIZE, None], tf.int32),
        tf.TensorSpec([BATCH_SIZE], tf.float32),
        tf.TensorSpec([BATCH_SIZE], tf.float32),
    )
    dataset = tf.data.Dataset.from_generator(examples, output_signature=signature)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    model = _compiled([keras.layers.Embedding(VOCAB_SIZE, 64, mask_zero=True)])
    paced = _Paced(turns, lambda step: int(plan.lengths(plan.rows(step)).max()))
    model.fit(dataset, epochs=1, callbacks=[paced], verbose=0)


def _compiled(first_layers: list[keras.layers.Layer]) -> keras.Model:
    # Adds the layers after the embedding, the loss, the optimizer and the metric of all contenders.
    lstm = keras.layers.Bidirectional(keras.layers.LSTM(64))
    dense = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)]
    model = keras.Sequential([*first_layers, lstm, *dense])
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    )
    return model


class _Paced(keras.callbacks.Callback):
    """Makes `fit` wait for its turns, and records its steps."""

    def __init__(self, turns: Turns, length_of: Callable[[int], int] | None = None) -> None:
        super().__init__()
        self._turns, self._length_of = turns, length_of
        self._steps, self._began = 0, 0.0

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self._turns.is_over()
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        taken = time.perf_counter() - self._began
        length = self._length_of(self._steps) if self._length_of else None
        self._turns.steps.append(Step(seconds=taken, length=length, in_step=None, repeated=None))
        self._steps += 1
        self.model.stop_training = self._turns.is_over()
        self._began = time.perf_counter()


class _UntilTarget(keras.callbacks.Callback):
    """Ends `fit` when validation has reached the target."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.model.stop_training = is_reached(logs or {})
