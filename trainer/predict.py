"""Classifies texts with a trained model."""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence

from absl import logging
from tqdm import tqdm

from trainer import output, trained_model
from trainer.classes import Prediction, predictions
from trainer.config import Config, Settings
from trainer.data import review_files
from trainer.data.review_files import Row
from trainer.inference import logits_of, make_predict_step
from trainer.words import shortened

_LONGEST_NAME = 20  # columns for the name of a class


def run(given: Settings) -> None:
    """Classifies the texts of --text, --input or standard input; prints a line each, JSON with --output."""
    trained = trained_model.load(given)
    config = trained.config
    logging.info("Model     step %d of %s", trained.step, config.workdir)
    trained.check_threshold()
    names = trained.classes.names
    predict_step = make_predict_step(trained.model)
    started, texts = time.monotonic(), 0
    as_line = _json_line if config.output else _plain_line
    # On a terminal each line is classified before the next is typed.
    size = 1 if sys.stdin.isatty() else review_files.CHUNK
    hidden = None if logging.level_info() else True  # None: hidden unless there is a terminal
    with output.opened(config.output) as file, tqdm(unit="text", disable=hidden, leave=False) as bar:
        for rows in review_files.chunks(_rows(config), size):
            chunk = [row.text for row in rows]
            logits = logits_of(predict_step, trained.vocabulary, chunk, max_length=config.max_length)
            for row, prediction in zip(rows, predictions(logits, names, config.threshold), strict=True):
                file.write(as_line(row, prediction, names))
            texts += len(rows)
            bar.update(len(rows))
    seconds = time.monotonic() - started
    logging.info("Classified %d texts in %.1f s, %.0f per second.", texts, seconds, texts / seconds)


def _rows(config: Config) -> Iterator[Row]:
    if config.text:
        return (
            Row(number, number, text.encode(errors="replace"), None)
            for number, text in enumerate(config.text, start=1)
        )
    return review_files.read(
        config.input or "-", labelled=False, bad_rows=config.bad_rows, text_column=config.text_column
    )


def _json_line(row: Row, prediction: Prediction, names: Sequence[str]) -> str:
    answer: dict[str, object] = {
        "line": row.line,
        "label": prediction.label,
        "probability": prediction.probability,
    }
    if len(names) > 2:
        answer["probabilities"] = prediction.probabilities
    return json.dumps({**answer, "text": row.text.decode(errors="replace")}) + "\n"


def _plain_line(row: Row, prediction: Prediction, names: Sequence[str]) -> str:
    # With the usual two classes, 20 columns are before the text and beside it.
    label_width = min(_LONGEST_NAME, max(map(len, names)))
    width = max(40, shutil.get_terminal_size().columns - label_width - 12)
    text = textwrap.shorten(row.text[: 4 * width].decode(errors="replace"), width, placeholder=" ...")
    return (
        f"{shortened(prediction.label, label_width):<{label_width}}  {prediction.probability:.4f}  {text}\n"
    )
