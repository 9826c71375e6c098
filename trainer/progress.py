"""What a run tells while it trains: lines, bars, points of the curves, texts; and when it saves."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from tqdm import tqdm

from trainer import config as configuration
from trainer.config import Config, OnResume
from trainer.data.input_pipeline import Batch
from trainer.run.state import Sums
from trainer.start import Run
from trainer.trained import logits, probabilities


class Clock:
    """When to save, and how fast it goes; nothing here decides a bit of the result."""

    def __init__(self, step: int, config: Config) -> None:
        self.saved_step = step
        self._config = config
        self._logged_step = step
        self._saved_at = self._logged_at = time.monotonic()

    def is_save_due(self, step: int) -> bool:
        """Whether --checkpoint_every_steps or --checkpoint_every_secs asks for a checkpoint."""
        steps, secs = self._config.checkpoint_every_steps, self._config.checkpoint_every_secs
        return bool(steps and step % steps == 0) or bool(secs and time.monotonic() - self._saved_at >= secs)

    def saved(self, step: int) -> None:
        """Notes that the state of `step` is committed."""
        self.saved_step, self._saved_at = step, time.monotonic()

    def reviews_per_second(self, step: int) -> float:
        """The rate since the last call."""
        now = time.monotonic()
        rate = (step - self._logged_step) * self._config.batch_size / (now - self._logged_at)
        self._logged_step, self._logged_at = step, now
        return rate


def with_bars(batches: Iterable[Batch], run: Run) -> Iterator[Batch]:
    """Passes batches on, the first of them that of the state's step; on a terminal each epoch has a bar."""
    steps_per_epoch, bar = run.plan.steps_per_epoch, None
    try:
        for step, batch in enumerate(batches, start=int(run.state.step)):
            epoch, slot = divmod(step, steps_per_epoch)
            if bar is None or slot == 0:
                if bar:
                    bar.close()
                hidden = None if logging.level_info() else True  # None: where there is no terminal
                name = f"epoch {epoch + 1}/{run.config.epochs}"
                bar = tqdm(desc=name, total=steps_per_epoch, initial=slot, unit="step", disable=hidden, leave=False, smoothing=0.05)
            yield batch
            bar.update()
    finally:
        if bar:
            bar.close()


def log_training(run: Run, step: int, gradient_norm: float, *, reviews_per_second: float) -> None:
    """Writes the training metrics since the last log, and starts their sums anew."""
    sums = Sums(*run.state.since_log.numpy().tolist())
    run.state.since_log.assign(tf.zeros_like(run.state.since_log))
    scalars = {
        "loss": sums.loss / sums.reviews,
        "accuracy": sums.correct / sums.reviews,
        "gradient_norm": gradient_norm,
        "learning_rate": float(run.state.optimizer.learning_rate.numpy()),
        "padded_ratio": sums.padded_tokens / max(sums.real_tokens, 1.0),
        "reviews_per_second": reviews_per_second,
    }
    run.events.write("train", step=step, scalars=scalars)
    log_line(run, "train", step, scalars, f"padding {scalars['padded_ratio']:.3f} | {reviews_per_second:.0f} reviews/s")


def log_line(run: Run, name: str, step: int, metrics: Mapping[str, float], remark: str, *, is_good: bool = False) -> None:
    """One line in fixed columns, so that those of training and of validation align; a good one stands out on a terminal."""
    width = len(str(run.last_step))
    position = f"step {step:>{width}}/{run.last_step} | epoch {step / run.plan.steps_per_epoch:6.2f}"
    line = f"{name:<10} | {position} | loss {metrics['loss']:.4f} | accuracy {metrics['accuracy']:.4f} | {remark}"
    logging.info("%s", line, extra={"is_good": is_good})


def classify_sample_texts(run: Run) -> list[dict[str, Any]]:
    """Classifies each --sample_text, says so, and returns it for the ending."""
    texts = run.config.sample_text
    results = []
    values = logits(run.state.model, run.vocabulary, texts, max_length=run.config.max_length)
    for text, probability in zip(texts, probabilities(values), strict=True):
        label = "Positive" if probability > 0.5 else "Negative"
        logging.info("%s, with probability %.3f of being positive: %s", label, probability, text)
        results.append({"text": text, "label": label, "probability": probability})
    return results


def write_texts(run: Run, name: str, sample_texts: Sequence[Mapping[str, Any]], *classes: OnResume) -> None:
    """Writes the settings of these classes and the classified sample texts to the event log, for TensorBoard's page of texts."""
    settings = [{"flag": f"--{flag}", "value": value} for flag, value in configuration.shown(run.config, *classes)]
    tables = {"configuration": settings} | ({"sample_texts": sample_texts} if sample_texts else {})
    run.events.write_tables(name, step=int(run.state.step), tables=tables)
