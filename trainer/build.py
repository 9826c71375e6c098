"""Builds what a config describes: corpus, model, optimizer and state."""

import dataclasses
from collections.abc import Mapping

from trainer.config import Config, Settings
from trainer.data import cache_entry, corpus
from trainer.data.review_files import Style
from trainer.data.tables import Options
from trainer.data.vocabulary import Tokenizer
from trainer.labels import Classes
from trainer.model.classifier import Classifier, Dimensions
from trainer.run.adam import Adam
from trainer.run.distribution import Replicas
from trainer.run.state import TrainState
from trainer.schedule import Schedule


def open_corpus(config: Config) -> corpus.Corpus:
    """The corpus that the config names, with its splits."""
    return corpus.open_corpus(
        name=config.dataset,
        data_dir=config.data_dir or None,
        cache_dir=cache_entry.folder_of(config.cache_dir),
        options=options_of(config),
        labels=config.labels,
        bad_rows=config.bad_rows,
        requested_splits=[
            split for split in (config.train_split, config.validation_split, config.test_split) if split
        ],
        evaluated_split=config.split,
        held_out_fraction=config.held_out_fraction,
        seed=config.seed,
    )


def options_of(config: Config) -> Options:
    """How the user's own files are read, as the config says."""
    return Options(
        text_column=config.text_column,
        label_column=config.label_column,
        encoding=config.encoding,
        delimiter=config.delimiter,
        header=config.header,
    )


def style_of(config: Config, given: Settings) -> Style:
    """How --input is read: as the command line says, else like the run's own reviews if it is like them."""
    options = options_of(config)
    names = {field.name for field in dataclasses.fields(Options)}
    stated = Options(**{name: value for name, value in given.items() if name in names})
    return Style(given=stated, usual=options, kind=config.input_format)


def tokenizer_of(config: Config) -> Tokenizer:
    """How the config makes tokens of a text."""
    return Tokenizer(tokens=config.tokens, strip_html=config.strip_html)


def dimensions_of(config: Config, vocab_size: int, classes: Classes) -> Dimensions:
    """The dimensions of the model that the config describes, for these classes."""
    return Dimensions(
        vocab_size=vocab_size,
        embedding_dim=config.embedding_dim,
        lstm_units=config.lstm_units,
        dense_units=config.dense_units,
        logits=classes.logits,
        pooling=tuple(config.pooling.split(",")),
        ngrams=config.ngrams,
        ngram_buckets=config.ngram_buckets,
    )


def make_model(
    config: Config, vocab_size: int, classes: Classes, *, longest: int | None = None
) -> Classifier:
    """The classifier that the config describes, with its initial weights.

    Args:
      config: the settings.
      vocab_size: tokens of the vocabulary.
      classes: the classes of the corpus.
      longest: the tokens of the longest text that training reads, if known.
    """
    return Classifier(
        dimensions_of(config, vocab_size, classes),
        dropout=config.dropout,
        token_dropout=config.token_dropout,
        seed=config.seed,
        shards=config.shards or 1,
        longest=longest,
    )


def schedule_of(config: Config, steps_per_epoch: int) -> Schedule:
    """How the config changes the learning rate."""
    return Schedule(
        name=config.schedule,
        steps=config.schedule_epochs * steps_per_epoch,
        warmup_steps=config.warmup_steps,
        final=config.final_learning_rate / config.learning_rate,
    )


def make_state(
    config: Config,
    vocab_size: int,
    classes: Classes,
    texts: Mapping[str, str],
    replicas: Replicas,
    *,
    longest: int | None = None,
) -> TrainState:
    """A state at step 0 with every variable built; each replica has a copy of the model and the optimizer.

    Args:
      config: the settings.
      vocab_size: tokens of the vocabulary.
      classes: the classes of the corpus.
      texts: the string variables of the state by name, as `TrainState` takes them.
      replicas: the replicas that get a copy of the variables.
      longest: the tokens of the longest text that training reads, if known.
    """
    with replicas.scope():
        model = make_model(config, vocab_size, classes, longest=longest)
        average = make_model(config, vocab_size, classes) if config.ema_momentum else None
        if average:
            average.ngrams = model.ngrams
        optimizer = Adam(config.learning_rate, name="adam")
        optimizer.build(model.trainable_variables)
    return TrainState(
        model=model,
        optimizer=optimizer,
        lower_is_better=config.lower_is_better,
        initial_best=config.initial_best,
        average=average,
        accumulates=config.accumulate > 1,
        has_plateau=config.plateau_patience > 0,
        **texts,
    )
