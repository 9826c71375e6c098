"""Exports the trained model: a SavedModel that takes raw texts, and a .keras file that stock Keras loads.

    export/saved_model/<step>/   one folder for each step, the layout of TensorFlow Serving
    export/model.keras           a keras.Model: TextVectorization, Embedding, Bidirectional(LSTM), two Dense

Both consist of stock Keras layers and do not need this program. Each export is reloaded and must reproduce
the run's probabilities before it replaces an older one.
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from trainer import build, classes, files, trained_model
from trainer.config import Settings
from trainer.data.vocabulary import Vocabulary
from trainer.errors import InputError, StorageError
from trainer.inference import logits_of, make_predict_step
from trainer.model.classifier import stock_model as stock_logits
from trainer.run.event_files import storage_errors
from trainer.trained_model import TrainedModel

_TOLERANCE = 1e-5
_PROBES = (
    *("", "A wonderful film; I would see it again.", "Not good, not even once. " * 50, "zzzzzz"),
    "<p>Not&nbsp;good</p>",
)
_MARK = pathlib.Path("assets.extra", "run.json")  # in a SavedModel: shows that this program made it


def run(given: Settings) -> None:
    """Writes export/ of the run that the command line names; other files there are kept."""
    trained = trained_model.load(given)
    folder = pathlib.Path(trained.config.workdir) / "export"
    model = stock_model(trained)
    saved_model, file = folder / "saved_model" / str(trained.step), folder / "model.keras"
    files.make_directory(saved_model.parent)
    is_behind_link = saved_model.parent.is_symlink()
    if is_behind_link and saved_model.is_dir() and not files.is_regular(saved_model / _MARK):
        raise InputError(
            f"{saved_model} must be an export of this program to be replaced, but it is in a linked folder "
            f"and is not one; move it away, or remove the link."
        )
    probes = tf.constant(_PROBES)
    stripped = trained.vocabulary.tokenizer.stripped(probes)  # No layer of stock Keras can remove HTML.
    expected = _probabilities(trained, probes)
    with _locked(folder):
        _publish(file, model.save, lambda path: _load_keras(path, stripped), expected)
        _publish(
            saved_model,
            lambda path: _save(model, path, trained),
            lambda path: _load_saved_model(path, probes),
            expected,
        )
    if trained.config.strip_html:
        logging.warning("%s does not remove HTML: give it texts without; the SavedModel removes it.", file)
    logging.info("Exported step %d: %s and %s", trained.step, saved_model, file)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    # Two exports at once wait for each other; on a filesystem without locks they may interfere.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def stock_model(trained: TrainedModel) -> keras.Model:
    """The classifier as Keras layers, raw texts to logits; compiled for `fit`, with a fresh optimizer."""
    config = trained.config
    vectorization = keras.layers.TextVectorization(
        max_tokens=len(trained.vocabulary),
        vocabulary=_words(trained.vocabulary),
        output_sequence_length=config.max_length or None,
        split="whitespace" if config.tokens == "words" else "character",
    )
    dimensions = build.dimensions_of(config, len(trained.vocabulary), trained.classes)
    texts = keras.Input(shape=(), dtype="string")
    logits, copy_weights = stock_logits(vectorization(texts), dimensions)
    stock = keras.Model(texts, logits)
    stock.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate, global_clipnorm=config.clip_norm or None),
        loss=classes.keras_loss(trained.classes.logits),
        metrics=classes.keras_metrics(trained.classes.logits),
    )
    copy_weights(trained.model)
    stock.optimizer.build(stock.trainable_variables)
    return stock


def _words(vocabulary: Vocabulary) -> list[str]:
    # Keras keeps a vocabulary as text. A token that is not UTF-8 gets a name in brackets; no real token
    # contains brackets.
    words = []
    for token in vocabulary.tokens[2:]:
        try:
            words.append(token.decode())
        except UnicodeDecodeError:
            words.append(f"[{token.hex()}]")
    return words


def _save(model: keras.Model, path: str, trained: TrainedModel) -> None:
    (vectorization,) = (layer for layer in model.layers if isinstance(layer, keras.layers.TextVectorization))
    logits_of_ids = keras.Model(vectorization.output, model.output)

    def serve(texts: tf.Tensor) -> dict[str, tf.Tensor]:
        # One more token of padding, for a batch in which every review is empty.
        token_ids = tf.pad(vectorization(trained.vocabulary.tokenizer.stripped(texts)), [[0, 0], [0, 1]])
        return classes.serving_outputs(logits_of_ids(token_ids), trained.classes.names)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, input_signature=[tf.TensorSpec([None], tf.string, name="texts")])
    archive.write_out(path, verbose=False)
    mark = pathlib.Path(path) / _MARK
    mark.parent.mkdir()
    facts = {
        "checkpoint": str(trained.prefix),
        "step": trained.step,
        "classes": trained.classes.names,
    }
    mark.write_text(json.dumps(facts) + "\n", encoding="utf-8")


def _load_keras(path: str, texts: tf.Tensor) -> np.ndarray:
    # The logits of some texts, computed by the exported file, in the shape of `logits_of`.
    # Compiled, because outside a graph Keras' LSTM takes milliseconds for each token.
    logits = tf.function(keras.models.load_model(path), autograph=False)(texts).numpy()
    return logits[:, 0] if logits.shape[1] == 1 else logits


def _load_saved_model(path: str, texts: tf.Tensor) -> np.ndarray:
    loaded = tf.saved_model.load(path)  # keep a reference: it owns the variables
    outputs = loaded.serve(texts)
    return outputs["logit" if "logit" in outputs else "logits"].numpy()


def _publish(
    final: pathlib.Path,
    write: Callable[[str], None],
    load: Callable[[str], np.ndarray],
    expected: np.ndarray,
) -> None:
    # Writes beside the final path, reloads, compares its logits as probabilities, and only then renames.
    new, old = final.with_name(f"new.{final.name}"), final.with_name(f"old.{final.name}")
    for leftover in (new, old):
        files.remove(leftover)
    try:
        with storage_errors(final), files.plain_name(new) as name:
            write(name)
            difference = float(np.max(np.abs(classes.probabilities(load(name)) - expected)))
            if not difference <= _TOLERANCE:
                raise StorageError(
                    f"{final} must give the run's probabilities, but differs by {difference}; "
                    f"the older export stays."
                )
            for path in [*new.rglob("*"), new]:
                files.fsync(path)
            # A folder cannot replace another in one step; two renames leave the shortest gap.
            if final.is_dir():
                final.rename(old)
            new.replace(final)
            files.fsync(final.parent)
            files.remove(old)
    finally:
        with contextlib.suppress(StorageError):  # An error of the cleanup must not hide the first one.
            files.remove(new)


def _probabilities(trained: TrainedModel, texts: tf.Tensor) -> np.ndarray:
    predict_step = make_predict_step(trained.model)
    logits = logits_of(predict_step, trained.vocabulary, texts, max_length=trained.config.max_length)
    return classes.probabilities(logits)
