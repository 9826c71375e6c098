"""What training reports: log lines, progress bars, points of the curves, classified sample texts."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from trainer import data_report, flagfile
from trainer.classes import Prediction, predictions
from trainer.fields import OnResume
from trainer.inference import logits_of
from trainer.labels import NEGATIVE_POSITIVE, Classes
from trainer.run.state import Sums
from trainer.session import Session
from trainer.steps import Slices

SampleText = dict[str, Any]  # text, label, probability; with more than two classes also probabilities

# What a model that has learned has at least one of.
_LEARNED = 0.98  # a loss below this share of that of a constant answer
_GAINED = 0.05  # an accuracy as much above that of a constant answer


def with_progress_bars(batches: Iterable[Slices], session: Session) -> Iterator[Slices]:
    """Yields the batches, the first at the state's step; on a terminal, each epoch has a progress bar."""
    steps_per_epoch = session.data.plan.steps_per_epoch
    hidden = None if logging.level_info() else True  # None: hidden unless there is a terminal
    bar: tqdm | None = None
    try:
        for step, batch in enumerate(batches, start=int(session.state.step)):
            epoch, step_in_epoch = divmod(step, steps_per_epoch)
            if bar is None or step_in_epoch == 0:
                if bar:
                    bar.close()
                bar = tqdm(
                    desc=f"epoch {epoch + 1}/{session.config.epochs}",
                    total=steps_per_epoch,
                    initial=step_in_epoch,
                    unit="step",
                    disable=hidden,
                    leave=False,
                    smoothing=0.05,
                )
            yield batch
            bar.update()
    finally:
        if bar:
            bar.close()


def log_training(session: Session, step: int, gradient_norm: float, *, reviews_per_second: float) -> None:
    """Writes the training metrics since the last log, and resets their sums."""
    state = session.state
    sums = Sums(*state.since_log.numpy().tolist())
    state.since_log.assign(tf.zeros_like(state.since_log))
    scalars = {
        "loss": sums.loss / sums.reviews,
        "accuracy": sums.correct / sums.reviews,
        "gradient_norm": gradient_norm,
        "learning_rate": float(state.optimizer.learning_rate.numpy()),
        "padded_ratio": sums.padded_tokens / max(sums.real_tokens, 1.0),
        "reviews_per_second": reviews_per_second,
    }
    session.events.write("train", step=step, scalars=scalars)
    remark = f"padding {scalars['padded_ratio']:.3f} | {reviews_per_second:.0f} reviews/s"
    log_line(session, "train", session.config.train_split, step, scalars, remark)


def log_line(
    session: Session,
    name: str,
    split: str,
    step: int,
    metrics: Mapping[str, float],
    remark: str,
    *,
    is_good: bool = False,
) -> None:
    """Logs one line in fixed columns; a good one is green on a terminal.

    Args:
      session: what is trained.
      name: what the line is of.
      split: the reviews that the metrics are of.
      step: the step that they are of.
      metrics: loss and accuracy, and perhaps f1 or auc.
      remark: the last column.
      is_good: whether the line is a good one.
    """
    last_step = session.last_step
    position = f"step {step:>{len(str(last_step))}}/{last_step}"
    epoch = f"epoch {step / session.data.plan.steps_per_epoch:6.2f}"
    values = f"loss {metrics['loss']:.4f} | accuracy {metrics['accuracy']:.4f}"
    if constant := data_report.constant_accuracy(session.data.class_counts[split]):
        values += f" (a constant answer: {constant:.4f})"
    for further in ("auc", "f1"):  # which training lacks: behind the columns that all lines have
        if further in metrics:
            remark = f"{further} {metrics[further]:.4f} | {remark}"
    logging.info("%s", f"{name:<10} | {position} | {epoch} | {values} | {remark}", extra={"is_good": is_good})


def warn_if_nothing_was_learned(session: Session, split: str, loss: float, accuracy: float) -> None:
    """Warns when loss and accuracy on a split are hardly better than those of a constant answer."""
    counts = session.data.class_counts
    constant = data_report.constant_loss(counts[session.config.train_split], counts[split])
    most_frequent = max(counts[split]) / sum(counts[split])
    has_learned = loss < _LEARNED * constant or accuracy > most_frequent + _GAINED
    if not has_learned and not session.data.class_weights and session.replicas.is_chief:
        # Above the loss of a model without any training, it has diverged, or learned its reviews by heart.
        is_worse = loss * _LEARNED > math.log(len(session.data.classes))
        rate = session.config.learning_rate * (0.1 if is_worse else 10)
        logging.warning(
            "The loss on %s is %.4f, and that of always answering the shares of the classes %.4f: hardly "
            "anything was learned; try another learning rate in a new run, as in --learning_rate=%g.",
            split,
            loss,
            constant,
            rate,
        )


def classify_sample_texts(session: Session) -> list[SampleText]:
    """Classifies and logs each --sample_text."""
    texts, max_length = session.config.sample_text, session.config.max_length
    logits = logits_of(session.state.evaluated, session.data.vocabulary, texts, max_length=max_length)
    results: list[SampleText] = []
    classes = session.data.classes
    for text, prediction in zip(texts, predictions(logits, classes.names), strict=True):
        result = _sample_text(text, prediction, classes)
        subject = prediction.label if len(classes) > 2 else classes.names[1]
        logging.info(
            "%s, with probability %.3f of being %s: %s",
            result["label"],
            prediction.probability,
            subject,
            text,
        )
        results.append(result)
    return results


def _sample_text(text: str, prediction: Prediction, classes: Classes) -> SampleText:
    # Older versions wrote these two names with a capital; their runs continue with the same texts.
    label = prediction.label.capitalize() if classes == NEGATIVE_POSITIVE else prediction.label
    result: SampleText = {"text": text, "label": label, "probability": prediction.probability}
    return {**result, "probabilities": prediction.probabilities} if prediction.probabilities else result


def write_texts(
    session: Session, name: str, sample_texts: Sequence[SampleText], *on_resume: OnResume
) -> None:
    """Writes the settings of these classes and classified sample texts to TensorBoard's text page."""
    shown = flagfile.shown(session.config, *on_resume)
    tables: dict[str, Sequence[Mapping[str, object]]] = {
        "configuration": [{"flag": f"--{flag}", "value": value} for flag, value in shown]
    }
    if sample_texts:
        tables["sample_texts"] = [_row(result) for result in sample_texts]
    session.events.write_tables(name, step=int(session.state.step), tables=tables)


def _row(result: SampleText) -> dict[str, object]:
    # A sample text as a row of a table: a column for the probability of each class.
    cells = {name: value for name, value in result.items() if name != "probabilities"}
    return cells | {
        f"probability of {name}": value for name, value in result.get("probabilities", {}).items()
    }
