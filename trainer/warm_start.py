"""--init_from: starts a new run with the weights of another."""

import math
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from absl import logging

from trainer import trained_model
from trainer.config import Config
from trainer.data.vocabulary import Vocabulary
from trainer.errors import InputError
from trainer.labels import Classes, listed
from trainer.run import checkpoint_files, checkpoint_reading
from trainer.run.state import TrainState
from trainer.trained_model import TrainedModel


def open_source(config: Config) -> TrainedModel:
    """The model that --init_from names: a run's best checkpoint, or any checkpoint."""
    path = pathlib.Path(config.init_from)
    is_run = (path / checkpoint_files.PERIODIC).is_dir()
    names = {"workdir": str(path)}
    if not is_run:
        names = {"workdir": str(path.parent.parent), "checkpoint": str(path)}
    threads = {
        "intra_op_threads": config.intra_op_threads,
        "inter_op_threads": config.inter_op_threads,
    }
    return trained_model.load({**names, **threads})


def best_metric_of(source: TrainedModel, config: Config) -> float | None:
    """The best metric of the source's run; raises InputError when that run monitors another metric."""
    if source.config.monitor != config.monitor:
        raise InputError(
            f"--init_best_metric needs a run that monitors {config.monitor}, "
            f"but {config.init_from} monitors {source.config.monitor}; "
            f"give --monitor={source.config.monitor}, or --initial_best."
        )
    metric = float(checkpoint_reading.read_values(source.prefix)["best_metric"])
    return metric if math.isfinite(metric) else None


def copy_weights(
    source: TrainedModel, config: Config, state: TrainState, vocabulary: Vocabulary, classes: Classes
) -> None:
    """Copies the weights of the source to a new run; embeddings only for tokens that both have.

    Raises:
      InputError: when its classes have other names, a weight has another shape, or --init_optimizer is given
        and the vocabularies differ; the message names each difference.
    """
    if source.classes.names != classes.names:
        raise InputError(
            f"--init_from={config.init_from} must have the classes of this run, {listed(classes.names)}, "
            f"but has {listed(source.classes.names)}; {_renamed(source.classes, classes)}leave out "
            f"--init_from."
        )
    theirs, ours = source.model.trainable_variables, state.model.trainable_variables
    differences = _shape_differences(ours, theirs)
    if config.init_optimizer and source.vocabulary != vocabulary:
        differences.append("the vocabulary differs, but --init_optimizer needs the same one")
    if differences:
        raise InputError(
            f"--init_from={config.init_from} must fit this model, but {'; '.join(differences)}; "
            f"give the flags of that run, or leave out --init_from."
        )
    for our, their in zip(ours[1:], theirs[1:], strict=True):
        our.assign(their)
    their_row = {token: row for row, token in enumerate(source.vocabulary.tokens)}
    is_known = np.array([token in their_row for token in vocabulary.tokens])
    rows = np.array([their_row.get(token, 0) for token in vocabulary.tokens])
    ours[0].assign(np.where(is_known[:, None], theirs[0].numpy()[rows], ours[0].numpy()))
    _copy_ngrams(source, state, is_same_vocabulary=source.vocabulary == vocabulary)
    if state.average:
        for average, weight in zip(state.average.trainable_variables, ours, strict=True):
            average.assign(weight)
    if config.init_optimizer:
        checkpoint_reading.restore_parts(source.prefix, optimizer=state.optimizer)
        state.optimizer.learning_rate.assign(config.learning_rate)
    logging.info(
        "Weights   of %s, step %d; %d of %d token embeddings copied",
        config.init_from,
        source.step,
        is_known.sum(),
        len(is_known),
    )


def _copy_ngrams(source: TrainedModel, state: TrainState, *, is_same_vocabulary: bool) -> None:
    # N-grams are of token ids: with another vocabulary the new run counts and trains its own.
    ours, theirs = state.model.ngrams, source.model.ngrams
    if ours and theirs and is_same_vocabulary and ours.is_like(theirs):
        ours.copy(theirs)


def _renamed(theirs: Classes, ours: Classes) -> str:
    # How to give our classes the names and the order of theirs, if there are as many.
    if len(theirs) != len(ours):
        return ""
    values = dict(zip(ours.names, ours.values, strict=True))
    if set(theirs.names) != set(ours.names):
        values = dict(zip(theirs.names, ours.values, strict=True))
    labels = ";".join(f"{name}={','.join(values[name])}" for name in theirs.names)
    return f"name its own by --labels='{labels}', or "


def _shape_differences(ours: Sequence[keras.Variable], theirs: Sequence[keras.Variable]) -> list[str]:
    # A phrase for each weight that can't be copied. The first is the embedding, whose rows may differ in
    # number.
    if len(ours) != len(theirs):
        return [f"it has {len(theirs)} weights and this model {len(ours)}"]
    differences = []
    for number, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        ignored_axes = 1 if number == 0 else 0
        if our.shape[ignored_axes:] != their.shape[ignored_axes:]:
            differences.append(f"{our.path} is {list(their.shape)} there and {list(our.shape)} here")
    return differences
