"""The data of a training start: vocabulary, classes, the encoded reviews of each split, and the batches."""

import dataclasses
from collections.abc import Mapping, Sequence

from absl import logging

from trainer import build, data_report, metrics
from trainer.classes import training_weights
from trainer.config import Config
from trainer.data import cache_entry, input_pipeline, token_store
from trainer.data.corpus import Corpus
from trainer.data.statistics import class_counts
from trainer.data.vocabulary import Vocabulary
from trainer.errors import InputError
from trainer.labels import Classes
from trainer.words import plural


@dataclasses.dataclass(frozen=True)
class Data:
    """The encoded reviews of a run.

    Attributes:
      vocabulary: the tokens of the train split.
      classes: the classes of the corpus.
      class_weights: the weight of each class in the training loss; empty: none.
      class_counts: the number of reviews of each class, by the split's name.
      stores: one for each split, by the split's name.
      plan: which reviews each training step reads.
    """

    vocabulary: Vocabulary
    classes: Classes
    class_weights: tuple[float, ...]
    class_counts: Mapping[str, Sequence[int]]
    stores: Mapping[str, token_store.TokenStore]
    plan: input_pipeline.BatchPlan


def open_data(settings: Config, *, is_new: bool) -> Data:
    """Opens what the config names, after encoding what --cache_dir lacks; logs a description.

    That of a new run is more detailed, with warnings of what would make a worthless model.

    Raises:
      InputError: when the corpus or a split is unknown, the training reviews are all of one class, or
        --class_weights does not fit the classes.
      StorageError: when the corpus can't be read, or the encoded reviews can't be written.
    """
    corpus = build.open_corpus(settings)
    splits = [settings.train_split, settings.validation_split, settings.test_split]
    _describe(corpus, settings)
    _check_classes(corpus, settings)
    vocabulary, stores = token_store.prepare(
        corpus=corpus,
        splits=[split for split in splits if split],
        vocab_size=settings.vocab_size,
        cache_dir=cache_entry.folder_of(settings.cache_dir),
        tokenizer=build.tokenizer_of(settings),
    )
    train = stores[settings.train_split]
    counts = {split: class_counts(store.labels, len(corpus.classes)) for split, store in stores.items()}
    _check_labels(settings.train_split, counts[settings.train_split], corpus.classes)
    if is_new:
        sample, _ = next(corpus.batches(settings.train_split))
        data_report.report(settings, corpus.classes, vocabulary, stores, sample.tolist())
    plan = input_pipeline.BatchPlan(
        lengths=train.lengths,
        batch_size=settings.batch_size,
        seed=settings.seed,
        max_length=settings.max_length,
    )
    _describe_schedule(settings)
    weights = training_weights(settings.class_weights, corpus.classes, counts[settings.train_split])
    return Data(vocabulary, corpus.classes, weights, counts, stores, plan)


def _describe(corpus: Corpus, settings: Config) -> None:
    splits = {
        "train": settings.train_split,
        "validate": settings.validation_split,
        "test": settings.test_split,
    }
    splits = {use: split for use, split in splits.items() if split}
    sizes = ", ".join(f"{corpus.examples(split)} to {use} ({split})" for use, split in splits.items())
    if settings.validation_steps:
        validated = settings.validation_steps * settings.batch_size
        sizes += f"; validation uses the first {validated} of its split"
    logging.info("Dataset   %s %s: %s", corpus.name, corpus.version, " ".join(corpus.description.split()))
    logging.info("Reviews   %s", sizes)
    logging.info("Elements  %s", corpus.element_spec)
    logging.info("Citation  %s", " ".join(corpus.citation.split()) or "none")


def _describe_schedule(settings: Config) -> None:
    if settings.schedule == "constant":
        return
    warmup = f" after {settings.warmup_steps} steps of warm-up" if settings.warmup_steps else ""
    logging.info(
        "Schedule  %s, from %g to %g in %s%s; it is fixed for this run",
        settings.schedule,
        settings.learning_rate,
        settings.final_learning_rate,
        plural(settings.schedule_epochs, "epoch"),
        warmup,
    )
    if settings.epochs > settings.schedule_epochs:
        logging.warning(
            "--epochs=%d is beyond --schedule_epochs=%d: the learning rate stays at %g from there on.",
            settings.epochs,
            settings.schedule_epochs,
            settings.final_learning_rate,
        )


def _check_classes(corpus: Corpus, settings: Config) -> None:
    # Checks what depends on the classes before the reviews are encoded, which may take minutes.
    training_weights(settings.class_weights, corpus.classes, [1] * len(corpus.classes))
    if metrics.needs_scores(settings.monitor) and len(corpus.classes) > 2:
        raise InputError(
            f"--monitor={settings.monitor} needs two classes, but {corpus.name} has {len(corpus.classes)}; "
            f"give --monitor=val_f1."
        )


def _check_labels(split: str, counts: Sequence[int], classes: Classes) -> None:
    present = [name for name, count in zip(classes.names, counts, strict=True) if count]
    if len(present) == 1:
        raise InputError(
            f"--train_split must hold reviews of two classes or more, but all {sum(counts)} of {split} are "
            f"{present[0]}; name other reviews."
        )
