"""What a run directory holds, whether it verifies, and what the same command would do next. Reads only; the run may be training."""

import contextlib
import csv
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trainer import InputError, StorageError, files
from trainer import config as configuration
from trainer.config import FIXED, FREE, INEXACT
from trainer.data import token_store
from trainer.run import checkpoint, distribution, summaries, workdir
from trainer.run.state import stop_reason
from trainer.start import NUMERICS, is_ending_of, read_starts
from trainer.trained import all_settings_of, write_answer

# What is told of a state, each with numpy's kind of it.
_KINDS = {"step": "i", "best_step": "i", "best_metric": "f", "waited": "i", "improved": "b", "frozen_flags": "S"}

# The history's, each with its width on a screen.
COLUMNS = {"step": 10, "epoch": 8, "loss": 8, "accuracy": 10, "val_loss": 10, "val_accuracy": 14, "best": 6, "patience": 10}


def run(given: Mapping[str, Any], *, signals) -> None:
    """Prints what the run directory holds; with --output, writes it as JSON."""
    del signals
    directory = pathlib.Path(given["workdir"])
    with _readable(directory):
        if not directory.is_dir():
            raise InputError(f"--workdir must be a run directory, but {directory} is not there.")
    facts = inspect(directory, given)
    output = given.get("output", "")
    if output != "-":
        sys.stdout.write("".join(f"{line}\n" for line in _lines(facts)))
    if output.endswith(".csv"):
        _write_csv(pathlib.Path(output), facts["history"])
    else:
        write_answer(output, facts)


@contextlib.contextmanager
def _readable(directory: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.not_readable(directory, files.reason(error)) from error


def inspect(directory: pathlib.Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """All that is told, ready for JSON."""
    looked_at = [_look_at(prefix) for prefix in checkpoint.listed(directory)]
    there = {str(prefix) for prefix in checkpoint.listed(directory)}  # A run that trains may have removed some meanwhile.
    listed = [told for told, _ in looked_at if told["path"] in there]
    prefix, state = max(
        ((pathlib.Path(told["path"]), state) for told, state in looked_at if state),
        key=lambda found: int(found[1]["step"]),
        default=(None, None),
    )
    step = int(state["step"]) if state else 0
    stored = all_settings_of(directory, prefix, state) if prefix else {}
    config = configuration.resolve(given, stored)
    starts = read_starts(directory)
    curves = summaries.read(directory / "summaries")
    evaluations = history(curves, starts[-1]["steps_per_epoch"]) if starts else []
    monitored = {row["step"]: row[config.monitor] for row in evaluations}
    recomputed = sum(start["steps_recomputed_at_least"] for start in starts)
    facts = {
        "workdir": str(directory),
        "is_training": workdir.is_held(directory),
        "config": {
            name: getattr(config, name)
            for name, field in configuration.FIELDS.items()
            if field.metadata["on_resume"] in (FIXED, INEXACT, FREE)
        },
        "step": step,
        "last_step": config.epochs * starts[-1]["steps_per_epoch"] if starts else None,
        "best": {"step": int(state["best_step"]), config.monitor: float(state["best_metric"])}
        if state and state["best_step"] >= 0
        else None,
        "evaluations_without_improvement": int(state["waited"]) if state else 0,
        "checkpoints": [{**told, config.monitor: monitored.get(told["step"])} for told in listed],
        "quarantine": sorted(str(path) for path in checkpoint.quarantined(directory)),
        "history": [{**row, "is_committed": row["step"] <= step} for row in evaluations],
        "last_logged_step": max((points[-1][0] for points in curves.values() if points), default=0),
        "starts": len(starts),
        "steps_recomputed_at_least": recomputed,
        "goodput_at_most": step / (step + recomputed) if step else None,
        "stores": {
            split: {"path": path, "damage": _look_at_store(pathlib.Path(path), config.cache_dir)}
            for split, path in (starts[-1]["stores"] if starts else {}).items()
        },
    }
    return facts | {"next": _next(directory, config, facts, (prefix, state, stored), starts)}


def _look_at(prefix: pathlib.Path) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    # What is told of a checkpoint, and its state when it is whole.
    state, why = None, None
    try:
        why = checkpoint.damage(prefix)
        state = checkpoint.read_values(prefix) if why is None else None
        if state is not None and {name: np.asarray(state.get(name)).dtype.kind for name in _KINDS} != _KINDS:
            state, why = None, "it is not a checkpoint of this program"
    except (InputError, StorageError) as error:
        state, why = None, str(error)
    told = {"path": str(prefix), "step": checkpoint.step_of(prefix), "bytes": checkpoint.size(prefix), "damage": why}
    return told, state


def _look_at_store(path: pathlib.Path, cache_dir: str) -> str | None:
    # starts.jsonl may be a stranger's: what it names is read only where the command line says that the stores are.
    if not token_store.is_inside(path, cache_dir):
        return "not looked at: it is not in --cache_dir"
    return token_store.damage(path)


def history(curves: summaries.Curves, steps_per_epoch: int) -> list[dict[str, Any]]:
    """One row for each evaluation, from an event log.

    Returns:
      `step`, `epoch`; `loss` and `accuracy`, those of training since the evaluation before; `val_loss`, `val_accuracy`, None without
      validation; `best`, whether it was the best so far; `patience`, the evaluations since patience started anew.
    """
    columns = {
        "loss": ("train", "loss_since_evaluation"),
        "accuracy": ("train", "accuracy_since_evaluation"),
        "val_loss": ("validation", "loss"),
        "val_accuracy": ("validation", "accuracy"),
        "best": ("best", "best_step"),
        "patience": ("best", "waited"),
    }
    values = {name: dict(curves.get(curve, [])) for name, curve in columns.items()}
    rows = []
    for step in sorted(values["best"]):
        row = {"step": step, "epoch": step / steps_per_epoch, **{name: points.get(step) for name, points in values.items()}}
        waited = row["patience"]
        rows.append(row | {"best": row["best"] == step, "patience": None if waited is None else int(waited)})
    return rows


def _next(directory: pathlib.Path, config, facts: Mapping[str, Any], found, starts) -> str:
    """What the same command would do, in a sentence; `found` is the newest checkpoint, its scalars and its settings."""
    prefix, state, stored = found
    damaged = [entry["path"] for entry in facts["checkpoints"] if entry["damage"] is not None]
    if state is None:
        return "end with an error: no checkpoint can be read" if damaged or facts["history"] else "begin at step 0"
    if fixed := configuration.changes(stored, config, FIXED):
        return f"refuse: {'; '.join(fixed)}"
    unlike = configuration.changes(stored, config, INEXACT)
    recorded = checkpoint.read_texts(prefix, "conditions", state)
    # Who trains together is known to those who train.
    threads = {"intra_op": config.intra_op_threads, "inter_op": config.inter_op_threads}
    now = distribution.conditions(numerics=NUMERICS, **threads) | {"replicas": recorded.get("replicas")}
    unlike += distribution.differences(json.dumps(recorded), now)
    if unlike and not config.allow_inexact_resume:
        return f"refuse, unless --allow_inexact_resume is given: {'; '.join(unlike)}"
    step, first = facts["step"], f"move {', '.join(damaged)} to quarantine/, and " if damaged else ""
    reason = starts and stop_reason(
        step=step,
        waited=int(state["waited"]),
        improved=bool(state["improved"]),
        epochs=config.epochs,
        steps_per_epoch=starts[-1]["steps_per_epoch"],
        patience=config.patience,
    )
    if reason and is_ending_of(directory, step, int(state["best_step"])):
        return f"{first}do nothing: it is finished, {reason}"
    if reason:
        return f"{first}do the ending: {reason}"
    again = facts["last_logged_step"] - step
    return f"{first}resume at step {step}" + (f"; at least {again} steps are done again" if again > 0 else "")


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    last_step = facts["last_step"] or "an unknown number"
    yield f"{facts['workdir']}: step {facts['step']} of {last_step}{', training now' if facts['is_training'] else ''}"
    yield f"next        the same command would {facts['next']}"
    if facts["best"]:
        (step, metric), name = facts["best"].values(), list(facts["best"])[1]
        waited = facts["evaluations_without_improvement"]
        yield f"best        step {step}, {name} {metric:.4f}; {waited} without improvement since"
    goodput = f", goodput at most {facts['goodput_at_most']:.1%}" if facts["goodput_at_most"] else ""
    yield f"starts      {facts['starts']}, at least {facts['steps_recomputed_at_least']} steps done again{goodput}"
    for entry in facts["checkpoints"]:
        metric = f"  {facts['config']['monitor']} {value:.4f}" if (value := entry[facts["config"]["monitor"]]) is not None else ""
        yield f"checkpoint  {entry['path']}{metric}  {entry['bytes'] / 2**20:.1f} MiB  {entry['damage'] or 'verified'}"
    for path in facts["quarantine"]:
        yield f"quarantine  {path}"
    for split, store in facts["stores"].items():
        yield f"store       {split}: {store['path']}  {store['damage'] or 'verified'}"
    yield from _table(facts["history"])
    for name, value in facts["config"].items():
        if value != configuration.FIELDS[name].default:
            yield f"flag        --{name}={value}"


def _table(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    if rows:
        yield f"{'history':<10}{''.join(f'{name:>{width}}' for name, width in COLUMNS.items())}"
    for row in rows:
        cells = {name: f"{row[name]:.4f}" if isinstance(row[name], float) else row[name] for name in COLUMNS}
        cells |= {"epoch": f"{row['epoch']:.2f}", "best": "*" if row["best"] else ""}
        line = "".join(f"{'-' if cells[name] is None else cells[name]:>{width}}" for name, width in COLUMNS.items())
        yield f"{'':<10}{line}{'' if row['is_committed'] else '  not committed'}"


def _write_csv(path: pathlib.Path, rows: list[Mapping[str, Any]]) -> None:
    with files.storage_errors(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "best": int(row["best"])} for row in rows)
