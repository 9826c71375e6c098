"""Inspects a run directory: checkpoints, history, encoded reviews, and what the same command would do.

Changes nothing: the run may be training at the same time.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer import compatibility, metrics
from trainer.config import FIELDS, Config, Settings
from trainer.data import cache_entry, token_store
from trainer.errors import InputError, StorageError
from trainer.fields import NOT_STORED
from trainer.run import (
    checkpoint_cleanup,
    checkpoint_files,
    checkpoint_reading,
    conditions,
    early_stopping,
    event_files,
    records,
    workdir,
)
from trainer.run.early_stopping import MonitorState
from trainer.settings import resolve
from trainer.trained_model import all_settings_of
from trainer.words import plural

# The scalars of a state that are read here -> their NumPy dtype kind.
_KINDS = {
    "step": "i",
    "best_step": "i",
    "best_metric": "f",
    "patience_reference": "f",
    "waited": "i",
    "improved": "b",
    "frozen_flags": "S",
}

Row = dict[str, Any]  # of the history: column -> value


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """An inspected checkpoint.

    Attributes:
      prefix: its path.
      size: the total size of its files in bytes.
      damage: what is wrong with it, or None.
      values: the scalars of its state; None when it is corrupt.
    """

    prefix: pathlib.Path
    size: int
    damage: str | None
    values: Mapping[str, Any] | None

    @property
    def step(self) -> int:
        """Its training step."""
        return checkpoint_files.step_of(self.prefix)

    @property
    def monitor_state(self) -> MonitorState:
        """The best metric and patience of a valid checkpoint."""
        assert self.values is not None
        return MonitorState(
            best_metric=float(self.values["best_metric"]),
            best_step=int(self.values["best_step"]),
            patience_reference=float(self.values["patience_reference"]),
            waited=int(self.values["waited"]),
            improved=bool(self.values["improved"]),
        )


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The content of a run directory.

    Attributes:
      directory: the run directory.
      checkpoints: all of them, valid or not.
      newest: the newest valid one, or None.
      stored: the settings stored in `newest`.
      config: the settings that the same command would use.
      starts: the lines of starts.jsonl.
      history: one row for each evaluation, from the event log.
      last_logged_step: the last step of the event log.
    """

    directory: pathlib.Path
    checkpoints: Sequence[Checkpoint]
    newest: Checkpoint | None
    stored: Settings
    config: Config
    starts: Sequence[records.Start]
    history: Sequence[Row]
    last_logged_step: int

    @property
    def step(self) -> int:
        """The step that the same command would resume from."""
        return self.newest.step if self.newest else 0


def look(directory: pathlib.Path, given: Settings) -> Inspection:
    """Reads everything in a run directory."""
    read = [_look_at(prefix) for prefix in checkpoint_files.listed(directory)]
    remaining = set(checkpoint_files.listed(directory))  # a training run may have removed some meanwhile
    valid = [checkpoint for checkpoint in read if checkpoint.values is not None]
    newest = max(valid, key=lambda checkpoint: checkpoint.step, default=None)
    stored = all_settings_of(directory, newest.prefix, newest.values) if newest else {}
    starts = records.read_starts(directory)
    curves = event_files.read(directory / "summaries")
    return Inspection(
        directory=directory,
        checkpoints=[checkpoint for checkpoint in read if checkpoint.prefix in remaining],
        newest=newest,
        stored=stored,
        config=resolve(given, stored),
        starts=starts,
        history=history(curves, starts[-1]["steps_per_epoch"]) if starts else [],
        last_logged_step=max((points[-1][0] for points in curves.values() if points), default=0),
    )


def _look_at(prefix: pathlib.Path) -> Checkpoint:
    values = None
    try:
        damage = checkpoint_files.damage(prefix)
        if damage is None:
            values = checkpoint_reading.read_values(prefix)
            if {name: np.asarray(values.get(name)).dtype.kind for name in _KINDS} != _KINDS:
                values, damage = None, "it is not a checkpoint of this program"
    except (InputError, StorageError) as error:
        values, damage = None, str(error)
    return Checkpoint(prefix, checkpoint_files.size(prefix), damage, values)


def history(curves: event_files.Curves, steps_per_epoch: int) -> list[Row]:
    """One row for each evaluation, from an event log.

    Returns:
      `step`, `epoch`; each training metric since the previous evaluation; each validation metric, None
      without validation; `best`, whether it was the best so far; `patience`, the evaluations since patience
      restarted.
    """
    values = {
        name: dict(curves.get(curve, []))
        for name, curve in metrics.HISTORY.items()
        if curve in curves or name not in metrics.SOMETIMES
    }
    rows: list[Row] = []
    for step in sorted(values["best"]):
        row: Row = {"step": step, "epoch": step / steps_per_epoch}
        row |= {name: points.get(step) for name, points in values.items()}
        waited = row["patience"]
        row |= {"best": row["best"] == step, "patience": None if waited is None else int(waited)}
        rows.append(row)
    return rows


def facts_of(inspection: Inspection) -> dict[str, Any]:
    """The report, as values that JSON can hold."""
    directory, settings, starts = inspection.directory, inspection.config, inspection.starts
    newest, step = inspection.newest, inspection.step
    monitor_state = newest.monitor_state if newest else None
    metric_at = {row["step"]: row.get(settings.monitor) for row in inspection.history}
    recomputed = sum(start["steps_recomputed_at_least"] for start in starts)
    best = None
    if monitor_state and monitor_state.best_step >= 0:
        best = {"step": monitor_state.best_step, settings.monitor: monitor_state.best_metric}
    stored_names = [name for name, field in FIELDS.items() if field.metadata["on_resume"] is not NOT_STORED]
    return {
        "workdir": str(directory),
        "is_training": workdir.is_held(directory),
        "config": {name: getattr(settings, name) for name in stored_names},
        "step": step,
        "last_step": settings.epochs * starts[-1]["steps_per_epoch"] if starts else None,
        "best": best,
        "evaluations_without_improvement": monitor_state.waited if monitor_state else 0,
        "checkpoints": [
            {
                "path": str(checkpoint.prefix),
                "step": checkpoint.step,
                "bytes": checkpoint.size,
                "damage": checkpoint.damage,
                settings.monitor: metric_at.get(checkpoint.step),
            }
            for checkpoint in inspection.checkpoints
        ],
        "quarantine": sorted(str(path) for path in checkpoint_cleanup.quarantined(directory)),
        "history": [{**row, "is_committed": row["step"] <= step} for row in inspection.history],
        "last_logged_step": inspection.last_logged_step,
        "starts": len(starts),
        "steps_recomputed_at_least": recomputed,
        "goodput_at_most": step / (step + recomputed) if step else None,
        "stores": {
            split: {"path": path, "damage": _damage_of_store(pathlib.Path(path), settings.cache_dir)}
            for split, path in (starts[-1]["stores"] if starts else {}).items()
        },
        "next": next_action(inspection),
    }


def _damage_of_store(path: pathlib.Path, cache_dir: str) -> str | None:
    # starts.jsonl is untrusted: only stores in the folder that the command line gives are read.
    if not cache_entry.is_inside(path, cache_dir):
        return "not read: it is not in --cache_dir"
    return token_store.damage(path)


def next_action(inspection: Inspection) -> str:
    """What the same command would do next, as in "resume at step 5"."""
    newest, settings, starts = inspection.newest, inspection.config, inspection.starts
    damaged = [str(checkpoint.prefix) for checkpoint in inspection.checkpoints if checkpoint.damage]
    if newest is None:
        has_traces = damaged or inspection.history
        return "end with an error: no checkpoint can be read" if has_traces else "start at step 0"
    recorded = checkpoint_reading.read_texts(newest.prefix, "conditions", newest.values)
    current = conditions.conditions(
        numerics=compatibility.numerics_of(settings),
        intra_op_threads=settings.intra_op_threads,
    )
    current["replicas"] = recorded.get("replicas", "1")  # known only in training
    differences = compatibility.compare(
        inspection.stored, settings, recorded_conditions=recorded, current_conditions=current
    )
    if differences.fixed:
        return f"refuse: {'; '.join(differences.fixed)}"
    if differences.inexact and not settings.allow_inexact_resume:
        return f"refuse, unless --allow_inexact_resume is given: {'; '.join(differences.inexact)}"
    first = f"move {', '.join(damaged)} to quarantine/, and " if damaged else ""
    monitored = newest.monitor_state
    reason = starts and early_stopping.stop_reason(
        waited=monitored.waited,
        improved=monitored.improved,
        step=newest.step,
        epochs=settings.epochs,
        steps_per_epoch=starts[-1]["steps_per_epoch"],
        patience=settings.patience,
    )
    if reason and records.is_result_of(inspection.directory, newest.step, monitored.best_step):
        return f"{first}do nothing: it is finished, {reason}"
    if reason:
        return f"{first}do the final evaluation: {reason}"
    again = inspection.last_logged_step - newest.step
    recompute = f"; at least {plural(again, 'step')} to recompute" if again > 0 else ""
    return f"{first}resume at step {newest.step}{recompute}"
