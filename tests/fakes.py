"""Small real things that several tests share."""

import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

from trainer import train
from trainer.data.corpus import Corpus
from trainer.labels import Classes
from trainer.run.state import TrainState


class TinyModel(tf.Module):
    """A model with the parts that a checkpoint must hold, and nothing else."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(3, name="layer")
        self.layer.build((None, 2))

    @property
    def trainable_variables(self):
        return self.layer.trainable_variables


def make_state(*, model=None, **kwargs) -> TrainState:
    defaults = {
        "lower_is_better": True,
        "initial_best": None,
        "frozen_flags": "--seed=0\n",
        "fingerprints": "{}",
        "conditions": "{}",
    }
    return TrainState(
        model=model or TinyModel(), optimizer=keras.optimizers.Adam(name="adam"), **{**defaults, **kwargs}
    )


def set_step(state: TrainState, step: int) -> None:
    """Takes a state to a step, with weights that tell it from any other."""
    state.step.assign(step)
    for variable in [*state.model.trainable_variables, *state.optimizer.variables[2:]]:
        variable.assign(np.full(variable.shape, step, np.float32))


def relative_error(actual, expected) -> float:
    """The largest difference, relative to the largest expected value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(
        np.max(np.abs(actual - expected), initial=0.0) / max(np.max(np.abs(expected), initial=0.0), 1e-30)
    )


OF_THE_TUTORIAL = {"pooling": "last", "ngrams": 0, "token_dropout": 0.0}
"""The model alone, without what a new run has beside it; its step is shared by all tests of a process."""

TINY = {
    "dataset": "sample_reviews",
    "train_split": "train[:31]",
    "validation_split": "validation[:20]",
    "test_split": "test[:20]",
    "vocab_size": 100,
    "embedding_dim": 8,
    "lstm_units": 8,
    "dense_units": 8,
    "dropout": 0.25,
    "batch_size": 4,
    "learning_rate": 0.03,
    "seed": 2,
    **OF_THE_TUTORIAL,
    "epochs": 3,
    "eval_every_steps": 5,
    "patience": 2,
    "checkpoint_every_steps": 1,
    "checkpoint_every_secs": 0.01,
    "log_every_steps": 3,
}
"""24 steps over 3 epochs, each saved, with a short last batch; evaluations: best, worse, best, worse."""

EVERYTHING = {
    "pooling": "last,max,mean",
    "ngrams": 2,
    "ngram_buckets": 256,
    "token_dropout": 0.3,
    "accumulate": 3,
    "schedule": "cosine",
    "warmup_steps": 4,
    "final_learning_rate": 0.001,
    "plateau_patience": 1,
    "ema_momentum": 0.9,
    "shards": 2,
    "monitor": "val_auc",
    "validation_split": "validation[:300]",
    "patience": 0,
}
"""What is off in the tiny run, all together; its metric is one of all reviews, and each replica sees some."""


def tiny(workdir: pathlib.Path, cache_dir: str, **settings) -> dict:
    """The settings of a tiny run, as `trainer.train.run` takes them."""
    return {**TINY, "workdir": str(workdir), "cache_dir": cache_dir, **settings}


def resume_one_epoch(workdir: pathlib.Path, cache_dir: str, **settings) -> None:
    """Resumes a copy of the run `one_epoch` with some settings changed."""
    train.run(tiny(workdir, cache_dir, **{"epochs": 1, **settings}), stop_requests=NoStopRequests())


def command(given: dict) -> list[str]:
    """The command line that gives these settings."""
    return [sys.executable, "-m", "trainer.main", *flags(given)]


def flags(given: dict) -> list[str]:
    """The settings as flags of the trainer."""
    return [
        f"--{name}={','.join(value) if name == 'sample_text' else value}" for name, value in given.items()
    ]


TOPICS = ("sports", "Politics & Law", "arts")


def corpus_of(*names: str, reviews: int = 60) -> Corpus:
    """A corpus whose classes have these names; each class has a word of its own, which many texts hold.

    Its splits are train, validation and test, with as many reviews each, in any part of which all classes
    occur.
    """
    classes = Classes(names, tuple((name.lower(),) for name in names))
    random = np.random.default_rng(0)
    texts, labels = {}, {}
    for split in ("train", "validation", "test"):
        labels[split] = np.arange(reviews) % len(names)
        words = np.where(random.random((reviews, 9)) < 0.2, labels[split][:, None] + 5, random.integers(5))
        words = np.where(random.random((reviews, 9)) < 0.5, words, random.integers(5, size=(reviews, 9)))
        texts[split] = np.array([" ".join(f"word{word}" for word in row).encode() for row in words], object)

    def part(split):
        name, _, end = split.partition("[:")
        return name, int(end.removesuffix("]") or reviews) if end else reviews

    def batches(split):
        name, end = part(split)
        yield texts[name][:end], labels[name][:end]

    return Corpus(
        name="topics",
        version="1",
        description="Topics.",
        citation="",
        element_spec="text: string, label: a class",
        split_sizes=dict.fromkeys(texts, reviews),
        sources=(),
        sizes=lambda split: [part(split)[1]],
        batches=batches,
        classes=classes,
    )


class NoStopRequests:
    """No signal ever comes."""

    defer_to_loop = False
    received = False

    def take_save_request(self):
        return False
