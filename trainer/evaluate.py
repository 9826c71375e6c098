"""Evaluates a trained model on a split, or on the user's own file."""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from tqdm import tqdm

from trainer import build, classes, output, trained_model
from trainer.config import Config, Settings
from trainer.data import review_files
from trainer.data.review_files import Row
from trainer.errors import InputError
from trainer.inference import logits_of, make_predict_step
from trainer.labels import NEGATIVE_POSITIVE
from trainer.streams import printable


def run(given: Settings) -> None:
    """Prints all metrics as a table, and writes them as JSON to --output."""
    trained = trained_model.load(given)
    config = trained.config
    name, reviews = _reviews(config)
    predict_step = make_predict_step(trained.model)
    logits, labels = [], []
    hidden = None if logging.level_info() else True  # None: hidden unless there is a terminal
    with tqdm(desc=printable(name), unit="review", disable=hidden, leave=False) as bar:
        for texts, true_labels in reviews:
            logits.append(logits_of(predict_step, trained.vocabulary, texts, max_length=config.max_length))
            labels.append(true_labels)
            bar.update(len(texts))
    if not logits:
        raise InputError(f"There must be reviews to evaluate, but {name} has none; name others.")
    report = make_report(np.concatenate(logits), np.concatenate(labels))
    if config.output != "-":
        sys.stdout.write(f"step {trained.step} of {config.workdir} on {name}\n\n{table(report)}\n")
    facts = {"checkpoint": str(trained.prefix), "reviews_of": name, **report._asdict()}
    output.write_json(config.output, facts)


def _reviews(config: Config) -> tuple[str, Iterator[tuple[Sequence[bytes] | np.ndarray, np.ndarray]]]:
    # Returns a name for the reviews, and batches of (texts, labels).
    if config.input:
        rows = review_files.read(
            config.input,
            labelled=True,
            bad_rows=config.bad_rows,
            text_column=config.text_column,
            label_column=config.label_column,
        )
        return config.input, _numbered(rows, config.input)
    split = config.split or config.test_split
    if not split:
        raise InputError(
            "--mode=evaluate needs reviews, but the run has no --test_split; name some by --split or --input."
        )
    corpus = build.open_corpus(config)
    corpus.examples(split)  # raises when there is no such split
    return f"{config.dataset} {split}", corpus.reviews(split)


def _numbered(rows: Iterator[Row], name: str) -> Iterator[tuple[Sequence[bytes], np.ndarray]]:
    for chunk in review_files.chunks(rows):
        labels = [NEGATIVE_POSITIVE.number_of(row.label) for row in chunk]
        if None in labels:
            row = chunk[labels.index(None)]
            raise InputError(
                f"Labels must be {' or '.join(NEGATIVE_POSITIVE.names)}, but line {row.line} of {name} has "
                f"{row.label!r}; remove it."
            )
        yield [row.text for row in chunk], np.array(labels)


class Report(NamedTuple):
    """All metrics. A ratio with a zero denominator is 0; `auc` is None if all reviews have one label."""

    reviews: int
    loss: float
    accuracy: float
    auc: float | None
    precision: float
    recall: float
    f1: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


def make_report(logits: np.ndarray, labels: np.ndarray) -> Report:
    """All metrics of a set of reviews.

    Args:
      logits: float32 [reviews].
      labels: [reviews], 0 or 1.
    """
    positive, predicted = labels.astype(bool), classes.decide(logits).astype(bool)
    true_positives, false_positives = int(np.sum(predicted & positive)), int(np.sum(predicted & ~positive))
    true_negatives, false_negatives = int(np.sum(~predicted & ~positive)), int(np.sum(~predicted & positive))
    wrong = false_positives + false_negatives
    return Report(
        reviews=len(labels),
        loss=float(np.mean(classes.exact_losses(logits, labels))),
        accuracy=(true_positives + true_negatives) / len(labels),
        auc=_auc(logits.astype(np.float64), positive),
        precision=true_positives / max(1, true_positives + false_positives),
        recall=true_positives / max(1, true_positives + false_negatives),
        f1=2 * true_positives / max(1, 2 * true_positives + wrong),
        true_positives=true_positives,
        false_positives=false_positives,
        true_negatives=true_negatives,
        false_negatives=false_negatives,
    )


def _auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    # Mann and Whitney's U over the number of pairs: the share of pairs of a positive and a negative review
    # that are ranked correctly, ties counted half.
    _, of_review, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[of_review]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    u = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(u / (positives * negatives))


def table(report: Report) -> str:
    """The metrics and the confusion matrix as text."""
    lines = [f"{name:<10} {_cell(getattr(report, name)):>9}" for name in report._fields[:7]]
    negative, positive = classes.NAMES
    rows = [
        ("", f"predicted {positive}", f"predicted {negative}"),
        (positive, f"{report.true_positives:,}", f"{report.false_negatives:,}"),
        (negative, f"{report.false_positives:,}", f"{report.true_negatives:,}"),
    ]
    return "\n".join([*lines, "", *(f"{row[0]:<10} {row[1]:>19} {row[2]:>19}" for row in rows)])


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
