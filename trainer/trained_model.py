"""Loads a trained model from a checkpoint. Changes nothing: the run may be training at the same time."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from trainer import build, compatibility, files, flagfile
from trainer.config import FIELDS, Config, Settings
from trainer.data.vocabulary import Tokenizer, Vocabulary
from trainer.errors import InputError, StorageError
from trainer.fields import FIXED, FREE
from trainer.labels import NEGATIVE_POSITIVE, Classes, listed
from trainer.model.classifier import Classifier, count_table_values, count_weights
from trainer.run import checkpoint_files, checkpoint_reading, distribution
from trainer.settings import changes, resolve

# Fixed in training alone: other modes may read reviews of another form.
_READABLE_ELSEWHERE = (
    *("dataset", "text_column", "label_column", "labels", "bad_rows", "encoding", "delimiter", "header"),
)
# What a run has that was begun before there was a flag for it.
_BEFORE = {
    name: field.metadata["before"] for name, field in FIELDS.items() if field.metadata["before"] is not None
}


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A trained model with its settings, its vocabulary and its classes.

    `given` are the settings of the command line, `config` all of them: the given ones, else the run's own.
    """

    given: Settings
    config: Config
    prefix: pathlib.Path
    vocabulary: Vocabulary
    classes: Classes
    model: Classifier

    @property
    def step(self) -> int:
        """The training step of these weights."""
        return checkpoint_files.step_of(self.prefix)

    def check_threshold(self) -> None:
        """Raises InputError when --threshold is given, but there are more than two classes."""
        if self.config.threshold is not None and len(self.classes) > 2:
            raise InputError(
                f"--threshold={self.config.threshold} is for two classes, but {self.config.workdir} has "
                f"{len(self.classes)}: {listed(self.classes.names)}; leave it out."
            )


def load(given: Settings) -> TrainedModel:
    """Loads the checkpoint that --checkpoint names, of the run that --workdir names.

    Raises:
      InputError: when there is no such run or checkpoint, or it is not one of this program.
      StorageError: when the checkpoint or the run's vocabulary is corrupt.
    """
    directory, name = pathlib.Path(given["workdir"]), given.get("checkpoint", "best")
    for _ in range(10):  # A training run removes its best checkpoint when it has a new one: look again.
        prefix = _find(directory, name)
        try:
            return _load(directory, prefix, given)
        except InputError:
            if checkpoint_files.damage(prefix) is None:
                raise
    raise StorageError(
        f"{prefix} is corrupt ({checkpoint_files.damage(prefix)}); name another one by --checkpoint."
    )


def _load(directory: pathlib.Path, prefix: pathlib.Path, given: Settings) -> TrainedModel:
    stored = settings_of(prefix)
    settings = resolve(given, stored)
    own = {name: getattr(settings, name) for name in _READABLE_ELSEWHERE}
    if differences := changes({**stored, **own}, settings, FIXED):
        raise InputError(
            f"{directory} can only be read as it was trained, but {'; '.join(differences)}; leave the flag "
            f"out."
        )
    distribution.set_threads(intra_op=settings.intra_op_threads, inter_op=settings.inter_op_threads)
    fingerprints = checkpoint_reading.read_texts(prefix, "fingerprints")
    vocabulary = _read_vocabulary(directory, fingerprints.get("vocabulary", ""), build.tokenizer_of(settings))
    classes = classes_of(prefix, fingerprints)
    check_size(prefix, settings, len(vocabulary), classes)
    model = build.make_model(settings, len(vocabulary), classes)
    # If there is an average of the weights, it is the model.
    checkpoint_reading.restore_parts(prefix, **{"average" if settings.ema_momentum else "model": model})
    return TrainedModel(given, settings, prefix, vocabulary, classes, model)


def classes_of(prefix: pathlib.Path, fingerprints: Mapping[str, str]) -> Classes:
    """The classes in the fingerprints of a checkpoint; raises InputError when they are malformed."""
    text = fingerprints.get(compatibility.CLASSES)
    if text is None:
        return NEGATIVE_POSITIVE
    try:
        return Classes.from_json(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{prefix} must hold the classes of its run, but does not ({error}); name another checkpoint."
        ) from error


def settings_of(prefix: pathlib.Path, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings in a checkpoint. Those of older versions, and best ones, lack the free settings.

    Args:
      prefix: the checkpoint.
      values: its scalars, if they have been read already.

    Raises:
      InputError: when it holds a setting that this version does not know or must not take from a file.
    """
    values = checkpoint_reading.read_values(prefix) if values is None else values
    free_flags = values.get("free_flags")
    text = checkpoint_reading.read_text(prefix, "frozen_flags", values)
    if isinstance(free_flags, bytes):
        text += free_flags.decode(errors="replace")
    try:
        return {**_BEFORE, **flagfile.from_text(text)}
    except ValueError as error:
        raise InputError(
            f"{prefix} must hold settings of this version, but {error}; "
            f"use the version that the run was started with, or start a new run in another --workdir."
        ) from error


def all_settings_of(
    directory: pathlib.Path, prefix: pathlib.Path, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The same as `settings_of`; free settings that the checkpoint lacks are read from `config.flags`."""
    settings = settings_of(prefix, values)
    free = {name for name, field in FIELDS.items() if field.metadata["on_resume"] is FREE}
    if settings.keys() & free - {"inter_op_threads"}:  # which was among the frozen ones
        return settings
    copy = directory / "config.flags"
    try:
        copied = flagfile.from_file(files.read(copy))
    except (OSError, ValueError) as error:
        reason = files.reason(error) if isinstance(error, OSError) else error
        names = ", ".join(f"--{name}" for name in sorted(free))
        logging.warning("%s can't be used (%s): the defaults apply to %s.", copy, reason, names)
        copied = {}
    return {**{name: copied[name] for name in free & copied.keys()}, **settings}


def check_size(prefix: pathlib.Path, settings: Config, vocab_size: int, classes: Classes) -> None:
    """Raises InputError when a checkpoint is too small for the model that its settings describe.

    Such settings cannot be trusted, and building the model could exhaust the memory.
    """
    dimensions = build.dimensions_of(settings, vocab_size, classes)
    weights = count_weights(dimensions) + count_table_values(dimensions)
    size = checkpoint_files.size(prefix)
    if size < 4 * weights:
        raise InputError(
            f"{prefix} must hold the {weights} weights that its settings describe, but it has {size} bytes; "
            f"name another --workdir."
        )


def _find(directory: pathlib.Path, name: str) -> pathlib.Path:
    if name not in ("best", "latest"):
        named = pathlib.Path(name.removesuffix(".index"))
        if not checkpoint_files.exists(named):
            raise InputError(
                f"--checkpoint must be best, latest or a checkpoint, but {name} does not exist; "
                f"--mode=inspect lists them."
            )
        return named
    is_best = name == "best"
    prefix = checkpoint_files.newest_best(directory) if is_best else checkpoint_files.find(directory).newest
    if prefix is None and is_best and checkpoint_files.find(directory).newest:
        raise InputError(
            f"{directory} must hold a best checkpoint, but has none yet; give --checkpoint=latest."
        )
    if prefix is None:
        raise InputError(f"--workdir must hold a checkpoint to read, but {directory} holds none.")
    return prefix


def _read_vocabulary(directory: pathlib.Path, fingerprint: str, tokenizer: Tokenizer) -> Vocabulary:
    path = directory / "vocabulary.txt"
    try:
        vocabulary = Vocabulary.from_bytes(files.read(path, limit=2**30), tokenizer)
    except (OSError, InputError) as error:
        reason = files.reason(error) if isinstance(error, OSError) else error
        raise StorageError(
            f"{path} cannot be read ({reason}); the command that trained the run writes it again."
        ) from error
    if vocabulary.fingerprint != fingerprint:
        raise StorageError(
            f"{path} is not the run's vocabulary; the command that trained the run writes it again."
        )
    return vocabulary
