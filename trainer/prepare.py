"""Prepares a run directory for training: rewinds the event log, writes copies, removes an old result."""

import contextlib
import json
import pathlib

from absl import logging

from trainer import files, flagfile, metrics, places
from trainer.run import event_files, records
from trainer.run.state import Sums
from trainer.session import Session


def prepare_directory(session: Session) -> None:
    """Brings the run directory to the state's step, and commits that step."""
    if not session.replicas.is_chief:
        return
    directory, step = session.directory, int(session.state.step)
    log = event_files.rewind(directory / "summaries", step=step)
    if differences := event_files.differences(log.ends, _expected_points(session)):
        logging.warning(
            "%s is not the event log of this run up to step %d (%s); its curves stay as they are, and "
            "continue from here.",
            directory / "summaries",
            step,
            "; ".join(differences),
        )
    files.remove(directory / records.RESULT)
    event_files.remove_run(directory / "summaries" / "test")
    write_copies(session)
    records.append_start(
        directory,
        step=step,
        steps_recomputed_at_least=log.last_step - step,
        steps_per_epoch=session.data.plan.steps_per_epoch,
        stores={split: store.path for split, store in session.data.stores.items()},
        places=places.of_process(session.config),
    )
    session.checkpoints.save()
    if step:
        logging.info("Resumed at step %d of %d.", step, session.last_step)


def write_copies(session: Session) -> None:
    """Writes readable copies of parts of the state, for people and other modes."""
    if not session.replicas.is_chief:
        return
    state = session.state
    texts = {"conditions": state.conditions, "fingerprints": state.fingerprints}
    recorded = {name: json.loads(text.numpy()) for name, text in texts.items()}
    copies = {
        "config.flags": flagfile.to_file(session.config),
        "manifest.json": (json.dumps(recorded, indent=2) + "\n").encode(),
        "vocabulary.txt": session.data.vocabulary.to_bytes(),
    }
    for name, content in copies.items():
        _write_if_changed(session.directory / name, content)


def _write_if_changed(path: pathlib.Path, data: bytes) -> None:
    with contextlib.suppress(OSError):
        if files.read(path, limit=len(data)) == data:
            return
    files.write_atomically(path, data)


def _expected_points(session: Session) -> dict[tuple[str, str], tuple[int, float | None]]:
    # The last point of each curve in an event log that matches the state: (run, tag) -> (step, or 0 for no
    # point; value, or None for any).
    state, config = session.state, session.config
    step, monitored = int(state.step), state.monitor_state

    def start_of(sums: Sums) -> int:
        return session.data.plan.step_before(step, reviews=int(sums.reviews))

    logged = start_of(Sums(*state.since_log.numpy().tolist()))
    evaluated = start_of(Sums(*state.since_evaluation.numpy().tolist()))
    points: dict[tuple[str, str], tuple[int, float | None]] = {
        ("train", "loss"): (logged, None),
        ("best", "best_step"): (evaluated, monitored.best_step),
        ("best", "waited"): (evaluated, monitored.waited),
    }
    # After an inexact resume, another metric may have been monitored before.
    if monitored.best_step >= 0 and not config.allow_inexact_resume:
        points["best", metrics.curve_of(config.monitor)] = (evaluated, monitored.best_metric)
    return points
