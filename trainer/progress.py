"""What training reports: log lines, progress bars, points of the curves, classified sample texts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from trainer import classes, flagfile
from trainer.fields import OnResume
from trainer.inference import logits_of
from trainer.run.state import Sums
from trainer.session import Session
from trainer.steps import Slices

SampleText = dict[str, str | float]  # text, label, probability


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
    log_line(session, "train", step, scalars, remark)


def log_line(
    session: Session,
    name: str,
    step: int,
    metrics: Mapping[str, float],
    remark: str,
    *,
    is_good: bool = False,
) -> None:
    """Logs one line in fixed columns; a good one is green on a terminal."""
    last_step = session.last_step
    position = f"step {step:>{len(str(last_step))}}/{last_step}"
    epoch = f"epoch {step / session.data.plan.steps_per_epoch:6.2f}"
    values = f"loss {metrics['loss']:.4f} | accuracy {metrics['accuracy']:.4f}"
    logging.info("%s", f"{name:<10} | {position} | {epoch} | {values} | {remark}", extra={"is_good": is_good})


def classify_sample_texts(session: Session) -> list[SampleText]:
    """Classifies and logs each --sample_text."""
    texts, max_length = session.config.sample_text, session.config.max_length
    logits = logits_of(session.state.model, session.data.vocabulary, texts, max_length=max_length)
    results: list[SampleText] = []
    for text, probability in zip(texts, classes.probabilities(logits), strict=True):
        label = classes.name_of(probability).capitalize()
        logging.info("%s, with probability %.3f of being %s: %s", label, probability, classes.NAMES[1], text)
        results.append({"text": text, "label": label, "probability": probability})
    return results


def write_texts(
    session: Session, name: str, sample_texts: Sequence[SampleText], *on_resume: OnResume
) -> None:
    """Writes the settings of these classes and classified sample texts to TensorBoard's text page."""
    shown = flagfile.shown(session.config, *on_resume)
    tables: dict[str, Sequence[Mapping[str, str | float]]] = {
        "configuration": [{"flag": f"--{flag}", "value": value} for flag, value in shown]
    }
    if sample_texts:
        tables["sample_texts"] = sample_texts
    session.events.write_tables(name, step=int(session.state.step), tables=tables)
