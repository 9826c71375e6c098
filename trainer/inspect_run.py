"""Reports what a run directory holds, whether it is valid, and what the same command would do next."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer import files, inspection, metrics, output
from trainer.config import FIELDS, Settings
from trainer.errors import InputError
from trainer.inspection import Row
from trainer.words import plural

# Column of the history -> its width in characters.
COLUMNS = {name: max(8, len(name) + 2) for name in ("step", "epoch", *metrics.HISTORY)} | {"step": 10}


def run(given: Settings) -> None:
    """Prints what the run directory holds; with --output, writes it as JSON, or the history as .csv."""
    directory = pathlib.Path(given["workdir"])
    with _not_readable(directory):
        if not directory.is_dir():
            raise InputError(
                f"--workdir must be a run directory, but {directory} does not exist; name another."
            )
    facts = inspection.facts_of(inspection.look(directory, given))
    path = given.get("output", "")
    if path != "-":
        sys.stdout.write("".join(f"{line}\n" for line in _lines(facts)))
    if output.is_csv(path):
        with output.records(path, list(_columns(facts["history"]))) as write:
            for row in facts["history"]:
                write({**row, "best": int(row["best"])})
    else:
        output.write_json(path, facts)


@contextlib.contextmanager
def _not_readable(directory: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.not_readable(directory, files.reason(error)) from error


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    monitor = facts["config"]["monitor"]
    training = ", training now" if facts["is_training"] else ""
    yield f"{facts['workdir']}: step {facts['step']} of {facts['last_step'] or 'an unknown number'}{training}"
    yield f"next        the same command would {facts['next']}"
    if best := facts["best"]:
        waited = facts["evaluations_without_improvement"]
        value = f"{monitor} {best[monitor]:.4f}"
        yield f"best        step {best['step']}, {value}; {waited} without improvement since"
    recomputed = plural(facts["steps_recomputed_at_least"], "step")
    goodput = f", goodput at most {facts['goodput_at_most']:.1%}" if facts["goodput_at_most"] else ""
    yield f"starts      {facts['starts']}, at least {recomputed} recomputed{goodput}"
    for checkpoint in facts["checkpoints"]:
        value = checkpoint[monitor]
        metric = "" if value is None else f"  {monitor} {value:.4f}"
        size = f"{checkpoint['bytes'] / 2**20:.1f} MiB"
        yield f"checkpoint  {checkpoint['path']}{metric}  {size}  {checkpoint['damage'] or 'verified'}"
    for path in facts["quarantine"]:
        yield f"quarantine  {path}"
    for split, store in facts["stores"].items():
        yield f"store       {split}: {store['path']}  {store['damage'] or 'verified'}"
    yield from _table(facts["history"])
    for name, value in facts["config"].items():
        if value != FIELDS[name].default:
            yield f"flag        --{name}={value}"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    columns = _columns(rows)
    if rows:
        yield f"{'history':<10}{''.join(f'{name:>{width}}' for name, width in columns.items())}"
    for row in rows:
        line = "".join(f"{_cell(name, row[name]):>{width}}" for name, width in columns.items())
        yield f"{'':<10}{line}{'' if row['is_committed'] else '  not committed'}"


def _columns(rows: Sequence[Row]) -> dict[str, int]:
    # Without those of metrics that the run does not evaluate.
    is_shown = {name: name not in metrics.SOMETIMES or any(name in row for row in rows) for name in COLUMNS}
    return {name: width for name, width in COLUMNS.items() if is_shown[name]}


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "best":
        return "*" if value else ""
    if name == "epoch":
        return f"{value:.2f}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
