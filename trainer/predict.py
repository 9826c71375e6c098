"""Texts in, label and probability out, from a trained model."""

import contextlib
import json
import pathlib
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from absl import logging
from tqdm import tqdm

from trainer import files
from trainer.config import Config
from trainer.data import review_files
from trainer.data.review_files import Row
from trainer.trained import logits, make_predict_step, open_trained, probabilities


def run(given: Mapping[str, Any], *, signals) -> None:
    """Classifies the texts of --text, --input or standard input; a line each on standard output, or a JSON object each in --output."""
    del signals
    trained = open_trained(given)
    config = trained.config
    logging.info("Model     step %d of %s", trained.step, config.workdir)
    predict_step, began, texts = make_predict_step(trained.model), time.monotonic(), 0
    with _output(config.output) as output, tqdm(unit="text", disable=None if logging.level_info() else True, leave=False) as bar:
        # What is typed at a terminal is answered line by line.
        for chunk in review_files.chunks(_rows(config), 1 if sys.stdin.isatty() else review_files.CHUNK):
            values = logits(predict_step, trained.vocabulary, [row.text for row in chunk], max_length=config.max_length)
            for row, probability in zip(chunk, probabilities(values), strict=True):
                output.write(_json_line(row, probability) if config.output else _plain_line(row, probability))
            texts += len(chunk)
            bar.update(len(chunk))
    seconds = time.monotonic() - began
    logging.info("Classified %d texts in %.1f s, %.0f a second.", texts, seconds, texts / seconds)


def _rows(config: Config) -> Iterator[Row]:
    if config.text:
        return (Row(number, text.encode(errors="replace"), None) for number, text in enumerate(config.text, start=1))
    return review_files.read(config.input or "-", labelled=False, bad_rows=config.bad_rows, text_column=config.text_column)


@contextlib.contextmanager
def _output(path: str) -> Iterator[IO[str]]:
    if not path or path == "-":
        yield sys.stdout
        return
    with files.storage_errors(pathlib.Path(path)), pathlib.Path(path).open("w", encoding="utf-8") as file:
        yield file


def _label(probability: float) -> str:
    return "positive" if probability > 0.5 else "negative"


def _json_line(row: Row, probability: float) -> str:
    text = row.text.decode(errors="replace")
    return json.dumps({"line": row.line, "label": _label(probability), "probability": probability, "text": text}) + "\n"


def _plain_line(row: Row, probability: float) -> str:
    width = max(40, shutil.get_terminal_size().columns - 20)
    text = textwrap.shorten(row.text[: 4 * width].decode(errors="replace"), width, placeholder=" ...")
    return f"{_label(probability)}  {probability:.4f}  {text}\n"
