"""A new run that begins with the weights of another one (--init_from)."""

import math
import pathlib

import numpy as np
from absl import logging

from trainer import InputError
from trainer.config import Config
from trainer.data.vocabulary import Vocabulary
from trainer.run import checkpoint_files, checkpoint_reading
from trainer.run.state import TrainState
from trainer.trained import Trained, open_trained


def open_source(config: Config) -> Trained:
    """The model that --init_from names, of a run's best or of one of its checkpoints."""
    path = pathlib.Path(config.init_from)
    is_run = (path / checkpoint_files.PERIODIC).is_dir()
    names = {"workdir": str(path)} if is_run else {"workdir": str(path.parent.parent), "checkpoint": str(path)}
    return open_trained({**names, "intra_op_threads": config.intra_op_threads, "inter_op_threads": config.inter_op_threads})


def best_metric_of(source: Trained, config: Config) -> float | None:
    """What a run had to beat at a checkpoint; raises InputError when that was another metric than the one that is monitored here."""
    if source.config.monitor != config.monitor:
        raise InputError(
            f"--init_best_metric needs a run that monitors {config.monitor}, but {config.init_from} monitors {source.config.monitor}; "
            f"give --monitor={source.config.monitor}, or --initial_best."
        )
    metric = float(checkpoint_reading.read_values(source.prefix)["best_metric"])
    return metric if math.isfinite(metric) else None


def take_over(source: Trained, config: Config, state: TrainState, vocabulary: Vocabulary) -> None:
    """Begins a new run with another's weights; of a token that both vocabularies have, the embedding is taken along.

    Raises:
      InputError: when a weight has another shape, or the optimizer is asked for and the vocabulary another one; the sentence names each.
    """
    theirs, ours = source.model.trainable_variables, state.model.trainable_variables
    unlike = [
        f"{our.path} is {list(their.shape)} there and {list(our.shape)} here"
        for our, their in zip(ours, theirs, strict=True)
        if our.shape[our is ours[0] :] != their.shape[our is ours[0] :]
    ]
    is_same_vocabulary = source.vocabulary == vocabulary
    if config.init_optimizer and not is_same_vocabulary:
        unlike.append("the vocabulary is another one, and --init_optimizer needs the same")
    if unlike:
        raise InputError(f"--init_from={config.init_from} must have the weights of this model, but {'; '.join(unlike)}.")
    for our, their in zip(ours[1:], theirs[1:], strict=True):
        our.assign(their)
    rows = {token: row for row, token in enumerate(source.vocabulary.tokens)}
    known = [token in rows for token in vocabulary.tokens]
    taken = np.array([rows.get(token, 0) for token in vocabulary.tokens])
    ours[0].assign(np.where(np.array(known)[:, None], theirs[0].numpy()[taken], ours[0].numpy()))
    if config.init_optimizer:
        checkpoint_reading.restore_parts(source.prefix, optimizer=state.optimizer)
        state.optimizer.learning_rate.assign(config.learning_rate)
    logging.info("Weights   of %s, step %d; %d of %d tokens are known to it", config.init_from, source.step, sum(known), len(known))
