"""Evaluates a trained model on a split, or on the user's own file."""

import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import logging
from tqdm import tqdm

from trainer import build, output, places, trained_model
from trainer.compiled_cache import CompiledCache
from trainer.config import Settings
from trainer.data import review_files
from trainer.data.review_files import BadRow, Row
from trainer.errors import InputError
from trainer.inference import logits_of, make_predict_step
from trainer.labels import Classes, listed, parse_labels
from trainer.report import make_report, table
from trainer.streams import printable
from trainer.trained_model import TrainedModel

Reviews = tuple[Sequence[bytes] | np.ndarray, np.ndarray]
"""Texts, and the numbers of their classes."""


def run(given: Settings) -> None:
    """Prints all metrics as a table, and writes them as JSON to --output."""
    trained = trained_model.load(given)
    trained.check_threshold()
    config = trained.config
    output.check_is_not_input(config.output, config.input)
    name, reviews = _reviews(trained)
    report = make_report(_logits(trained, name, reviews), trained.classes, config.threshold)
    if report is None:
        raise InputError(f"There must be reviews to evaluate, but {name} has none; name others.")
    if config.output != "-":
        sys.stdout.write(f"step {trained.step} of {config.workdir} on {name}\n\n{table(report)}\n")
    facts = {"checkpoint": str(trained.prefix), "reviews_of": name, **report.facts()}
    output.write_json(config.output, facts)


def _logits(
    trained: TrainedModel, name: str, reviews: Iterable[Reviews]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # Yields the logits and the labels of each batch.
    predict_step, max_length = make_predict_step(trained.model), trained.config.max_length
    compiled = CompiledCache(trained.config)
    hidden = None if logging.level_info() else True  # None: hidden unless there is a terminal
    with tqdm(desc=printable(name), unit="review", disable=hidden, leave=False) as bar:
        for texts, labels in reviews:
            yield logits_of(predict_step, trained.vocabulary, texts, max_length=max_length), labels
            bar.update(len(labels))
    compiled.keep()


def _reviews(trained: TrainedModel) -> tuple[str, Iterator[Reviews]]:
    # Returns a name for the reviews, and batches of them.
    config = trained.config
    if config.input:
        classes = parse_labels(config.labels) if config.labels else trained.classes
        numbers = np.array(_numbers_of(classes, trained.classes, config.input))
        reviews = review_files.open_input(
            config.input,
            build.style_of(config, trained.given),
            classes=classes,
            bad_rows=trained.given.get("bad_rows", ""),
        )
        batches = _of_rows(review_files.chunks(reviews.rows()), classes)
        return config.input, ((texts, numbers[labels]) for texts, labels in batches)
    split = config.split or config.test_split
    if not split:
        raise InputError(
            "--mode=evaluate needs reviews, but the run has no --test_split; name some by --split or --input."
        )
    corpus = build.open_corpus(places.where_trained(config, trained.given))
    corpus.examples(split)  # raises when there is no such split
    name = f"{config.dataset} {split}"
    numbers = np.array(_numbers_of(corpus.classes, trained.classes, name))
    return name, ((texts, numbers[labels]) for texts, labels in corpus.reviews(split))


def _of_rows(chunks: Iterable[Sequence[Row | BadRow]], classes: Classes) -> Iterator[Reviews]:
    # The rows that are not bad; their labels mean classes.
    for chunk in chunks:
        rows = [row for row in chunk if isinstance(row, Row)]
        yield [row.text for row in rows], np.array([classes.number_of(row.label) for row in rows], np.int64)


def _numbers_of(theirs: Classes, ours: Classes, name: str) -> list[int]:
    """The number that each class of some reviews has in the run, by its name or else by its values."""
    numbers: list[int] = []
    for class_name, values in zip(theirs.names, theirs.values, strict=True):
        by_value = {number for value in values if (number := ours.number_of(value)) is not None}
        meant = {ours.names.index(class_name)} if class_name in ours.names else by_value
        if len(meant) != 1:
            example = ";".join(
                f"{own}={value[0]}" for own, value in zip(ours.names, theirs.values, strict=False)
            )
            raise InputError(
                f"Reviews must be of the run's classes, {listed(ours.names)}, but {name} has the class "
                f"{class_name}, which is none of them; name other reviews, or the labels of these classes, "
                f"as in --labels='{example}'."
            )
        numbers += meant
    return numbers
