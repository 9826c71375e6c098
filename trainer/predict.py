"""Classifies texts with a trained model."""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator

from absl import logging
from tqdm import tqdm

from trainer import classes, output, trained_model
from trainer.config import Config, Settings
from trainer.data import review_files
from trainer.data.review_files import Row
from trainer.inference import logits_of, make_predict_step


def run(given: Settings) -> None:
    """Classifies the texts of --text, --input or standard input; prints a line each, JSON with --output."""
    trained = trained_model.load(given)
    config = trained.config
    logging.info("Model     step %d of %s", trained.step, config.workdir)
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
            for row, probability in zip(rows, classes.probabilities(logits), strict=True):
                file.write(as_line(row, probability))
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


def _json_line(row: Row, probability: float) -> str:
    text = row.text.decode(errors="replace")
    label = classes.name_of(probability)
    return json.dumps({"line": row.line, "label": label, "probability": probability, "text": text}) + "\n"


def _plain_line(row: Row, probability: float) -> str:
    width = max(40, shutil.get_terminal_size().columns - 20)
    text = textwrap.shorten(row.text[: 4 * width].decode(errors="replace"), width, placeholder=" ...")
    return f"{classes.name_of(probability)}  {probability:.4f}  {text}\n"
