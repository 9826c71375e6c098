"""Checkpoints of tiny states and small event logs, for the tests of the package `run`."""

from fakes import make_state, set_step

from trainer.run import checkpoint_cleanup, checkpoint_files, summaries
from trainer.run.checkpoint_manager import Checkpoints


def open_checkpoints(run, *, state=None, max_to_keep=3):
    """Opens a run as at startup; returns the state, restored if there is a checkpoint, and `Checkpoints`."""
    state = state or make_state()
    found = checkpoint_files.find(run)
    checkpoint_cleanup.tidy(run, found)
    checkpoints = Checkpoints(run=run, state=state, max_to_keep=max_to_keep)
    if found.newest:
        checkpoints.restore(found.newest)
    return state, checkpoints


def save_steps(run, steps, *, best=(), max_to_keep=3):
    """Saves a state at each of `steps`, and as the best at those of `best`."""
    state, checkpoints = open_checkpoints(run, max_to_keep=max_to_keep)
    for step in steps:
        set_step(state, step)
        if step in best:
            state.best_step.assign(step)
        checkpoints.save()
        if step in best:
            checkpoints.save_best()
    return state, checkpoints


def names(directory):
    """The names of a directory's checkpoints, oldest first."""
    return [prefix.name for prefix in checkpoint_files.prefixes(directory)]


def write_steps(directory, steps, *, offset=0.0):
    """Writes three points at each of `steps`: two of run "train" and one of run "validation"."""
    log = summaries.Summaries(directory)
    for step in steps:
        log.write("train", step=step, scalars={"loss": step + offset, "accuracy": 0.5})
        log.write("validation", step=step, scalars={"loss": 2 * step + offset})
    log.commit()
