"""Exact metrics over a split: those that training needs, and all of them for a trained model."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from trainer import InputError
from trainer.config import Config
from trainer.data import review_files
from trainer.data.input_pipeline import Batch, batch_spec
from trainer.model import classifier
from trainer.run.distribution import Replicas, sum_over_replicas
from trainer.streams import printable
from trainer.trained import BATCH_SIZE, logits, make_predict_step, open_corpus, open_trained, write_answer


def run(given: Mapping[str, Any], *, signals) -> None:
    """Evaluates a trained model on a split, or on a file of the user's own; prints a table, and writes JSON where --output says."""
    del signals
    trained = open_trained(given)
    config = trained.config
    name, reviews = _reviews(config)
    predict_step = make_predict_step(trained.model)
    values, truth = [], []
    with tqdm(desc=printable(name), unit="review", disable=None if logging.level_info() else True, leave=False) as bar:
        for texts, labels in reviews:
            values.append(logits(predict_step, trained.vocabulary, texts, max_length=config.max_length))
            truth.append(labels)
            bar.update(len(texts))
    if not values:
        raise InputError(f"There must be reviews to evaluate, but {name} has none.")
    figures = report(np.concatenate(values), np.concatenate(truth))
    if config.output != "-":
        sys.stdout.write(f"step {trained.step} of {config.workdir} on {name}\n\n{table(figures)}\n")
    write_answer(config.output, {"checkpoint": str(trained.prefix), "reviews_of": name, **figures._asdict()})


def _reviews(config: Config) -> tuple[str, Iterator[tuple[Sequence[bytes], np.ndarray]]]:
    # What the reviews are called, and batches of them: texts and labels, 0 or 1.
    if config.input:
        rows = review_files.read(
            config.input,
            labelled=True,
            bad_rows=config.bad_rows,
            text_column=config.text_column,
            label_column=config.label_column,
        )
        chunks = review_files.chunks(rows)
        return config.input, (([row.text for row in chunk], np.array([row.label for row in chunk])) for chunk in chunks)
    split = config.split or config.test_split
    if not split:
        raise InputError("--mode=evaluate needs reviews, but the run has no --test_split; name some by --split or --input.")
    corpus = open_corpus(config)
    corpus.examples(split)
    return f"{config.dataset} {split}", corpus.reviews(split)


class Metrics(NamedTuple):
    """Means over reviews, each counted once."""

    loss: float
    accuracy: float
    reviews: int


EvalStep = Callable[[tuple[Batch, ...], float], tf.Tensor]


def make_eval_step(model: classifier.Classifier, replicas: Replicas) -> EvalStep:
    """Compiles (the slices of a batch, whether to stop) -> float64 [4]: loss, correct reviews, reviews and wishes to stop, summed up."""

    @tf.function(autograph=False, input_signature=[(batch_spec(BATCH_SIZE),) * len(replicas.local), tf.TensorSpec([], tf.float64)])
    def eval_step(batches: tuple[Batch, ...], stop: tf.Tensor) -> tf.Tensor:
        def of_replica(number: int) -> tf.Tensor:
            batch = batches[number - replicas.local.start]
            logits = model(batch.token_ids, batch.lengths)
            values = (classifier.losses(logits, batch.labels), classifier.is_correct(logits, batch.labels), tf.ones_like(logits))
            sums = [tf.reduce_sum(tf.cast(value * batch.weights, tf.float64)) for value in values]
            return sum_over_replicas(tf.stack([*sums, stop]))

        return replicas.run(of_replica)

    return eval_step


def evaluate(
    eval_step: EvalStep, batches: Iterable[tuple[Batch, ...]], *, stop: Callable[[], float], abandon: Callable[[], Exception]
) -> Metrics:
    """Sums over all batches, divided once.

    Args:
      eval_step: of the model to evaluate.
      batches: the slices of each batch.
      stop: whether this process wishes to stop; asked before each batch.
      abandon: what is raised once a process does.
    """
    loss = correct = reviews = 0.0
    for batch in batches:
        *sums, wishes = eval_step(batch, float(stop())).numpy()
        if wishes:
            raise abandon()
        loss, correct, reviews = loss + sums[0], correct + sums[1], reviews + sums[2]
    return Metrics(loss=float(loss / reviews), accuracy=float(correct / reviews), reviews=int(reviews))


class Report(NamedTuple):
    """How a model does on reviews; a ratio with nothing below its line is 0, and `auc` is None where all reviews are of one kind."""

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


def report(logits: np.ndarray, labels: np.ndarray) -> Report:
    """All figures of a set of reviews.

    Args:
      logits: float32 [reviews]; above 0 means positive.
      labels: [reviews], 0 or 1.
    """
    logits, positive = logits.astype(np.float64), labels.astype(bool)
    said = logits > 0
    tp, fp, tn, fn = (int(np.sum(a & b)) for a, b in ((said, positive), (said, ~positive), (~said, ~positive), (~said, positive)))
    return Report(
        reviews=len(labels),
        loss=float(np.mean(np.logaddexp(0.0, np.where(positive, -logits, logits)))),
        accuracy=(tp + tn) / len(labels),
        auc=_auc(logits, positive),
        precision=tp / max(1, tp + fp),
        recall=tp / max(1, tp + fn),
        f1=2 * tp / max(1, 2 * tp + fp + fn),
        true_positives=tp,
        false_positives=fp,
        true_negatives=tn,
        false_negatives=fn,
    )


def _auc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    # The share of pairs of a positive and a negative review that are in order, ties counted half: Mann and Whitney's U over their number.
    _, of_review, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[of_review]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def table(figures: Report) -> str:
    """The figures for people, with the confusion of what is and what was said."""
    said = {
        name: "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        for name, value in figures._asdict().items()
    }
    lines = [f"{name:<10} {said[name]:>9}" for name in figures._fields[:7]]
    lines += ["", f"{'':<10} {'said positive':>14} {'said negative':>14}"]
    lines += [f"{'positive':<10} {figures.true_positives:>14,} {figures.false_negatives:>14,}"]
    lines += [f"{'negative':<10} {figures.false_positives:>14,} {figures.true_negatives:>14,}"]
    return "\n".join(lines)
