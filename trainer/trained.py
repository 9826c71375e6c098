"""A trained model: the weights of one checkpoint of a run, with the run's vocabulary. Reads only: the run may be training all the while."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from trainer import InputError, StorageError, files
from trainer import config as configuration
from trainer.config import FIELDS, FIXED, FREE, Config
from trainer.data import corpus, token_store
from trainer.data.vocabulary import Vocabulary
from trainer.model.classifier import Classifier, count_weights
from trainer.run import checkpoint, distribution

BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a checkpoint holds for whoever uses the model."""

    config: Config
    prefix: pathlib.Path
    vocabulary: Vocabulary
    model: Classifier

    @property
    def step(self) -> int:
        """The training steps that the weights have behind them."""
        return checkpoint.step_of(self.prefix)


def open_trained(given: Mapping[str, Any]) -> Trained:
    """Opens the checkpoint that --checkpoint names, of the run that --workdir names.

    Raises:
      InputError: when there is no such run or no such checkpoint, or it is not one of this program.
      StorageError: when it is damaged, or the run's vocabulary is.
    """
    directory, name = pathlib.Path(given["workdir"]), given.get("checkpoint", "best")
    for _ in range(10):  # A run that trains removes an old best when it has a new one: look again.
        prefix = _prefix(directory, name)
        try:
            stored = settings_of(prefix)
            config = configuration.resolve(given, stored)
            free = {name: getattr(config, name) for name in ("dataset", "text_column", "label_column")}
            if unlike := configuration.changes({**stored, **free}, config, FIXED):
                raise InputError(f"{directory} can only be read as it was trained, but {'; '.join(unlike)}; leave the flag out.")
            distribution.set_threads(intra_op=config.intra_op_threads, inter_op=config.inter_op_threads)
            vocabulary = _vocabulary(directory, checkpoint.read_texts(prefix, "fingerprints").get("vocabulary", ""))
            check_size(prefix, config, len(vocabulary))
            model = make_model(config, len(vocabulary))
            checkpoint.restore_parts(prefix, model=model)
            return Trained(config, prefix, vocabulary, model)
        except InputError:
            if checkpoint.damage(prefix) is None:
                raise
    raise StorageError(f"{prefix} is damaged ({checkpoint.damage(prefix)}); name another one by --checkpoint.")


def settings_of(prefix: pathlib.Path, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings that a checkpoint holds, by name; one of an older version, and a best one, holds no free ones.

    Args:
      prefix: the checkpoint.
      values: its scalars, where they were read before.

    Raises:
      InputError: when it holds a setting that this version does not know, or none that it may take from a file.
    """
    values = checkpoint.read_values(prefix) if values is None else values
    try:
        return configuration.from_text(checkpoint.read_text(prefix, "frozen_flags", values) + _decoded(values.get("free_flags")))
    except ValueError as error:
        raise InputError(
            f"{prefix} must hold settings of this version, but {error}; use the version that the run was begun with, "
            f"or begin another run in a new --workdir."
        ) from error


def _decoded(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def all_settings_of(directory: pathlib.Path, prefix: pathlib.Path, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """As `settings_of`; where a checkpoint holds no free ones, those of the readable copy `config.flags` are taken."""
    settings = settings_of(prefix, values)
    free = {name for name, field in FIELDS.items() if field.metadata["on_resume"] is FREE}
    if settings.keys() & free:
        return settings
    copy = directory / "config.flags"
    try:
        copied = configuration.from_file(files.read(copy))
    except (OSError, ValueError) as error:
        why = files.reason(error) if isinstance(error, OSError) else error
        logging.warning("%s can't be used (%s): of %s alone the defaults hold.", copy, why, ", ".join(f"--{name}" for name in sorted(free)))
        copied = {}
    return {**{name: copied[name] for name in free & copied.keys()}, **settings}


def check_size(prefix: pathlib.Path, config: Config, vocab_size: int) -> None:
    """Raises InputError when a checkpoint can't hold the model of its settings, which may be too large to be built."""
    weights = count_weights(
        vocab_size=vocab_size,
        embedding_dim=config.embedding_dim,
        lstm_units=config.lstm_units,
        dense_units=config.dense_units,
    )
    if checkpoint.size(prefix) < 4 * weights:
        raise InputError(
            f"{prefix} must hold the {weights} weights that its settings describe, but it has {checkpoint.size(prefix)} "
            f"bytes; name another --workdir."
        )


def _prefix(directory: pathlib.Path, name: str) -> pathlib.Path:
    if name not in ("best", "latest"):
        prefix = pathlib.Path(name.removesuffix(".index"))
        if not checkpoint.exists(prefix):
            raise InputError(f"--checkpoint must be best, latest or a checkpoint, but {name} is not there; --mode=inspect lists them.")
        return prefix
    prefix = checkpoint.newest_best(directory) if name == "best" else checkpoint.find(directory).newest
    if prefix is None:
        hint = "has no best yet; give --checkpoint=latest" if name == "best" and checkpoint.find(directory).newest else "holds none"
        raise InputError(f"--workdir must hold a checkpoint to read, but {directory} {hint}.")
    return prefix


def _vocabulary(directory: pathlib.Path, fingerprint: str) -> Vocabulary:
    path = directory / "vocabulary.txt"
    try:
        vocabulary = Vocabulary.from_bytes(files.read(path, limit=2**30))
    except (OSError, InputError) as error:
        why = files.reason(error) if isinstance(error, OSError) else error
        raise StorageError(f"{path} cannot be read ({why}); the command that trained the run writes it anew.") from error
    if vocabulary.fingerprint != fingerprint:
        raise StorageError(f"{path} is not the run's vocabulary; the command that trained the run writes it anew.")
    return vocabulary


def open_corpus(config: Config) -> corpus.Corpus:
    """The corpus that the settings name, with its splits."""
    return corpus.open_corpus(
        name=config.dataset,
        data_dir=config.data_dir or None,
        cache_dir=token_store.folder_of(config.cache_dir),
        text_column=config.text_column,
        label_column=config.label_column,
        requested_splits=[split for split in (config.train_split, config.validation_split, config.test_split) if split],
        held_out_fraction=config.held_out_fraction,
        seed=config.seed,
    )


def make_model(config: Config, vocab_size: int) -> Classifier:
    """The classifier that the settings describe, with its initial weights."""
    return Classifier(
        vocab_size=vocab_size,
        embedding_dim=config.embedding_dim,
        lstm_units=config.lstm_units,
        dense_units=config.dense_units,
        dropout=config.dropout,
        seed=config.seed,
    )


def make_predict_step(model: Classifier) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Compiles (token_ids int32 [256, time], lengths int32 [256]) -> logits, float32 [256]."""
    signature = [tf.TensorSpec([BATCH_SIZE, None], tf.int32), tf.TensorSpec([BATCH_SIZE], tf.int32)]
    return tf.function(lambda token_ids, lengths: model(token_ids, lengths), input_signature=signature, autograph=False)


def logits(predict_step: Callable, vocabulary: Vocabulary, texts: Sequence[bytes | str], *, max_length: int) -> np.ndarray:
    """The logit of each text, in batches sorted by length so that little is padded.

    Args:
      predict_step: a classifier, or what `make_predict_step` makes of it, which is faster for more than a few texts.
      vocabulary: the one that the classifier was trained with.
      texts: all of them are in memory, encoded.
      max_length: tokens of a text that are read, from its start; 0: all.

    Returns:
      float32 [texts].
    """
    token_ids = vocabulary.encode(tf.constant(texts, tf.string))
    if max_length:
        token_ids = token_ids[:, :max_length]
    order = np.argsort(token_ids.row_lengths().numpy(), kind="stable")
    result = np.zeros(len(order), np.float32)
    for start in range(0, len(order), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        batch = tf.gather(token_ids, rows)
        lengths = tf.pad(tf.cast(batch.row_lengths(), tf.int32), [[0, BATCH_SIZE - len(rows)]])
        padded = batch.to_tensor(shape=[BATCH_SIZE, tf.maximum(tf.reduce_max(lengths), 1)])
        result[rows] = predict_step(padded, lengths)[: len(rows)]
    return result


def probabilities(logits: np.ndarray) -> list[float]:
    """The probability of being positive that each logit stands for."""
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).tolist()


def write_answer(output: str, answer: Mapping[str, Any]) -> None:
    """Writes an answer as JSON where --output says, "-" being standard output; nowhere when it is empty."""
    text = json.dumps(answer, indent=2) + "\n"
    if output == "-":
        sys.stdout.write(text)
    elif output:
        with files.storage_errors(pathlib.Path(output)):
            pathlib.Path(output).write_text(text, encoding="utf-8")
