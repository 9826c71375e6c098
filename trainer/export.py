"""The trained model for use elsewhere: a SavedModel that takes raw texts, and a .keras file that stock Keras opens.

    export/saved_model/<step>/   a folder for each step, as TensorFlow Serving wants it
    export/model.keras           a Sequential of TextVectorization, Embedding, Bidirectional(LSTM), Dense, Dense

Both are made of Keras' own layers, and run where nothing of this program can be imported. What is written is opened again and has to give
the probabilities of the run before it takes the place of an older export.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from trainer import InputError, StorageError, files
from trainer.data.vocabulary import Vocabulary
from trainer.trained import Trained, logits, make_predict_step, open_trained

_TOLERANCE = 1e-5
_PROBES = ("", "A wonderful film; I would see it again.", "Not good, not even once. " * 50, "zzzzzz")
_MARK = pathlib.Path("assets.extra", "run.json")  # in a SavedModel: that this program made it


def run(given: Mapping[str, Any], *, signals) -> None:
    """Writes export/ of the run that the command line names; what else is there stays."""
    del signals
    trained = open_trained(given)
    folder = pathlib.Path(trained.config.workdir) / "export"
    model = stock_model(trained)
    saved_model, file = folder / "saved_model" / str(trained.step), folder / "model.keras"
    files.make_directory(saved_model.parent)
    if saved_model.parent.is_symlink() and saved_model.is_dir() and not files.is_regular(saved_model / _MARK):
        raise InputError(
            f"{saved_model} must be an export of this program to be replaced, but it lies behind a link and is not; "
            f"move it away, or remove the link."
        )
    with _alone(folder):
        _publish(file, model.save, _ask_keras, trained)
        _publish(saved_model, lambda path: _save(model, path, trained), _ask_saved_model, trained)
    logging.info("Exported step %d: %s and %s", trained.step, saved_model, file)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    # Two exports at once follow each other; on a filesystem without locks they may get in each other's way.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def stock_model(trained: Trained) -> keras.Sequential:
    """The classifier from raw texts to one logit, of Keras' own layers; compiled for `fit`, with an optimizer that is as new."""
    config, model = trained.config, trained.model
    vectorization = keras.layers.TextVectorization(
        max_tokens=len(trained.vocabulary), vocabulary=_words(trained.vocabulary), output_sequence_length=config.max_length or None
    )
    layers = [
        keras.layers.Embedding(len(trained.vocabulary), config.embedding_dim, mask_zero=True),
        keras.layers.Bidirectional(keras.layers.LSTM(config.lstm_units)),
        keras.layers.Dense(config.dense_units, activation="relu"),
        keras.layers.Dense(1),
    ]
    stock = keras.Sequential([keras.Input(shape=(), dtype="string"), vectorization, *layers])
    stock.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate, global_clipnorm=config.clip_norm or None),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
    )
    for layer, ours in zip(layers, (model.embedding, model.bidirectional, model.hidden, model.logit), strict=True):
        layer.set_weights(ours.get_weights())
    stock.optimizer.build(stock.trainable_variables)
    return stock


def _words(vocabulary: Vocabulary) -> list[str]:
    # Keras keeps a vocabulary as text. A token that is none gets a name in brackets, which no token has.
    words = []
    for token in vocabulary.tokens[2:]:
        try:
            words.append(token.decode())
        except UnicodeDecodeError:
            words.append(f"[{token.hex()}]")
    return words


def _save(model: keras.Sequential, path: str, trained: Trained) -> None:
    def serve(texts: tf.Tensor) -> dict[str, tf.Tensor]:
        vectorization, *layers = model.layers
        # One token of padding more, for a batch whose reviews are all empty.
        values = tf.pad(vectorization(texts), [[0, 0], [0, 1]])
        for layer in layers:
            values = layer(values)
        logit = values[:, 0]
        return {"logit": logit, "probability": tf.sigmoid(logit), "label": tf.cast(logit > 0.0, tf.int32)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, input_signature=[tf.TensorSpec([None], tf.string, name="texts")])
    archive.write_out(path, verbose=False)
    mark = pathlib.Path(path) / _MARK
    mark.parent.mkdir()
    mark.write_text(json.dumps({"checkpoint": str(trained.prefix), "step": trained.step}) + "\n", encoding="utf-8")


def _ask_keras(path: str) -> tf.Tensor:
    return keras.models.load_model(path)(tf.constant(_PROBES))[:, 0]


def _ask_saved_model(path: str) -> tf.Tensor:
    loaded = tf.saved_model.load(path)
    return loaded.serve(tf.constant(_PROBES))["logit"]


def _publish(final: pathlib.Path, write: Callable[[str], None], ask: Callable[[str], tf.Tensor], trained: Trained) -> None:
    # Written beside its place, opened, asked, and only then renamed.
    new, old = final.with_name(f"new.{final.name}"), final.with_name(f"old.{final.name}")
    for leftover in (new, old):
        files.remove(leftover)
    try:
        with _storage_errors(final), files.plain_name(new) as name:
            write(name)
            difference = float(np.max(np.abs(tf.sigmoid(ask(name)) - tf.sigmoid(_expected(trained)))))
            if not difference <= _TOLERANCE:
                raise StorageError(f"{final} must give the run's probabilities, but differs by {difference}; the older export stays.")
            for path in [*new.rglob("*"), new]:
                files.fsync(path)
            if final.is_dir():  # A folder cannot take the place of another in one step; this is the shortest there is.
                final.rename(old)
            new.replace(final)
            files.fsync(final.parent)
            files.remove(old)
    finally:
        with contextlib.suppress(StorageError):  # Why it could not be written is not hidden by what could not be removed.
            files.remove(new)


@contextlib.contextmanager
def _storage_errors(final: pathlib.Path) -> Iterator[None]:
    # TensorFlow reports a full disk by the class that it has for too little memory.
    try:
        with files.storage_errors(final):
            yield
    except tf.errors.OpError as error:
        raise files.not_written(final, error.message.splitlines()[0]) from error


def _expected(trained: Trained) -> np.ndarray:
    return logits(make_predict_step(trained.model), trained.vocabulary, _PROBES, max_length=trained.config.max_length)
