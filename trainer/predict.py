"""Classifies texts with a trained model."""

import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence

from absl import logging
from tqdm import tqdm

from trainer import build, output, trained_model
from trainer.classes import Prediction, predictions
from trainer.compiled_cache import CompiledCache
from trainer.config import Settings
from trainer.data import review_files
from trainer.data.review_files import BadRow, Input, Row
from trainer.errors import InputError
from trainer.inference import logits_of, make_predict_step
from trainer.trained_model import TrainedModel
from trainer.words import plural, shortened

_LONGEST_NAME = 20  # columns for the name of a class
# What an answer has besides the columns that it keeps.
_OWN = ("number", "line", review_files.FILE, "label", "probability", "probabilities", "text", "error")

_Answer = tuple[Row | BadRow, Prediction | None]
"""A row, and what is predicted; None for a bad row."""


def run(given: Settings) -> None:
    """Classifies the texts of --text, --input or standard input, each in its place.

    Prints a line each; with --output, writes a row of a .csv or an object in JSON lines.
    """
    trained = trained_model.load(given)
    logging.info("Model     step %d of %s", trained.step, trained.config.workdir)
    trained.check_threshold()
    reviews = _open(trained)
    path, names = trained.config.output, trained.classes.names
    if not path:
        _print(trained, reviews)
        return
    output.check_is_not_input(path, trained.config.input)
    record_of = _csv_record if output.is_csv(path) else _json_record
    with output.records(path, _columns(reviews, names)) as write:
        for row, prediction in _answers(trained, reviews):
            write({**_place(row, reviews), **record_of(prediction, names), **_text(row)})


def _open(trained: TrainedModel) -> Input:
    config = trained.config
    if not config.text:
        return review_files.open_input(
            config.input or "-",
            build.style_of(config, trained.given),
            bad_rows=trained.given.get("bad_rows", ""),
            keep=[name.strip() for names in config.keep_columns for name in names.split(",")],
        )
    if config.keep_columns:
        raise InputError(
            f"--keep_columns={config.keep_columns[0]} is for an --input with columns, but --text was given; "
            f"leave it out."
        )
    texts = [Row(n, n, text.encode(errors="replace"), None) for n, text in enumerate(config.text, start=1)]
    return Input("--text", lambda: iter(texts), kept=(), has_lines=True, classes=None, bad_rows="")


def _answers(trained: TrainedModel, reviews: Input) -> Iterator[_Answer]:
    config, names = trained.config, trained.classes.names
    predict_step, compiled = make_predict_step(trained.model), CompiledCache(config)
    started, texts = time.monotonic(), 0
    # On a terminal each line is classified before the next is typed.
    is_typed = not config.text and config.input in ("", "-") and sys.stdin.isatty()
    hidden = None if logging.level_info() else True  # None: hidden unless there is a terminal
    with tqdm(unit="text", disable=hidden, leave=False) as bar:
        for rows in review_files.chunks(reviews.rows(), 1 if is_typed else review_files.CHUNK):
            good = [row.text for row in rows if isinstance(row, Row)]
            logits = logits_of(predict_step, trained.vocabulary, good, max_length=config.max_length)
            found = iter(predictions(logits, names, config.threshold))
            yield from ((row, next(found) if isinstance(row, Row) else None) for row in rows)
            texts += len(good)
            bar.update(len(rows))
    compiled.keep()
    seconds = time.monotonic() - started
    logging.info("Classified %s in %.1f s, %.0f per second.", plural(texts, "text"), seconds, texts / seconds)


def _columns(reviews: Input, names: Sequence[str]) -> list[str]:
    """The columns of a csv of answers."""
    of_classes = [f"probability of {name}" for name in names] if len(names) > 2 else []
    before = ["number", *(["line"] if reviews.has_lines else []), *map(_name_of_kept, reviews.kept)]
    return [*before, "label", "probability", *of_classes, "text", "error"]


def _name_of_kept(name: str) -> str:
    return f"input_{name}" if name in _OWN and name != review_files.FILE else name


def _place(row: Row | BadRow, reviews: Input) -> dict[str, object]:
    line = {"line": row.line} if reviews.has_lines else {}
    return {
        "number": row.number,
        **line,
        **{_name_of_kept(name): row.kept.get(name) for name in reviews.kept},
    }


def _json_record(prediction: Prediction | None, names: Sequence[str]) -> dict[str, object]:
    record: dict[str, object] = {
        "label": prediction and prediction.label,
        "probability": prediction and prediction.probability,
    }
    return {**record, "probabilities": prediction and prediction.probabilities} if len(names) > 2 else record


def _csv_record(prediction: Prediction | None, names: Sequence[str]) -> dict[str, object]:
    if prediction is None:
        return {}
    of_classes = {f"probability of {name}": value for name, value in prediction.probabilities.items()}
    return {"label": prediction.label, "probability": prediction.probability, **of_classes}


def _text(row: Row | BadRow) -> dict[str, object]:
    if isinstance(row, BadRow):
        return {"text": None, "error": row.why}
    return {"text": row.text.decode(errors="replace")}


def _print(trained: TrainedModel, reviews: Input) -> None:
    # With the usual two classes, 20 columns are before the text and beside it.
    names = trained.classes.names
    label_width = min(_LONGEST_NAME, max(map(len, names)))
    width = max(40, shutil.get_terminal_size().columns - label_width - 12)
    for row, prediction in _answers(trained, reviews):
        label, probability = "-", "-"
        if prediction:
            label, probability = shortened(prediction.label, label_width), f"{prediction.probability:.4f}"
        if isinstance(row, BadRow):
            text = f"{reviews.place_of(row)}: {row.why}"
        else:
            text = row.text[: 4 * width].decode(errors="replace")
        text = textwrap.shorten(text, width, placeholder=" ...")
        sys.stdout.write(f"{label:<{label_width}}  {probability:<6}  {text}\n")
