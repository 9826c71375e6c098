"""What a disturbed run is compared with on its way: the state and the event log of an undisturbed run.

Equal states have equal futures: what a run does after a step is a function of the checkpoint of that step and
of the event log up to it. `resume_test` proves this by runs that are trained to their ends, and by real
kills. So it is enough elsewhere that a resumed run has the reference run's state and event log one step
later.
"""

import functools
import pathlib

from compare_runs import scalars, tensors
from fakes import NoStopRequests

from trainer import train
from trainer.run import checkpoint_reading
from trainer.run.checkpoint_manager import Checkpoints

STEPS = 24

SELDOM = {"checkpoint_every_steps": 0, "checkpoint_every_secs": 0.0}
"""Settings of a run that saves only where it evaluates, which takes two thirds of the time."""


def train_to_the_end(given) -> None:
    """Trains in this process, with few saves; the outcome to compare with is `seldom_saved_outcome`."""
    train.run({**given, **SELDOM}, stop_requests=NoStopRequests())


class Killed(BaseException):
    """Stands for SIGKILL within one process: nothing of ours catches it."""


def train_until_killed(given, monkeypatch, step, *, committed):
    """Trains until the save of `step` and dies before or after its commit; returns whether it got there."""
    save = Checkpoints.save

    def save_and_die(checkpoints):
        if int(checkpoints._state.step) != step:
            return save(checkpoints)
        if committed:
            save(checkpoints)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        try:
            train.run(given, stop_requests=NoStopRequests())
        except Killed:
            return True
    return False


def without_free_flags(prefix):
    """The tensors of a checkpoint that decide something."""
    return {name: value for name, value in tensors(prefix).items() if not name.startswith("free_flags/")}


def so_far(workdir: pathlib.Path, step: int) -> dict:
    """What a run has left of its steps up to `step`: the checkpoint, the log, and what it was begun with."""
    points = {
        key: values
        for key, values in scalars(workdir / "summaries").items()
        if key[2] <= step and key[0] != "test"
    }
    return {
        "state": without_free_flags(workdir / "checkpoints" / f"ckpt-{step}"),
        "points": {key: values for key, values in points.items() if key[1] != "reviews_per_second"},
        **{name: (workdir / name).read_bytes() for name in ("manifest.json", "vocabulary.txt")},
    }


_so_far_undisturbed = functools.cache(so_far)


def assert_resumes_like(reference, given, monkeypatch, *, from_step):
    """The run resumes at a step and makes the next one as the reference run did, bit for bit.

    Args:
      reference: an undisturbed run and has kept all its checkpoints.
      given: the settings of a run that has steps left.
      monkeypatch: pytest's.
      from_step: the step at which it must resume.
    """
    workdir = pathlib.Path(given["workdir"])
    assert train_until_killed(given, monkeypatch, from_step + 1, committed=True)
    assert f'"step": {from_step},' in (workdir / "starts.jsonl").read_text().splitlines()[-1]
    assert so_far(workdir, from_step + 1) == _so_far_undisturbed(reference, from_step + 1)
    best_step = int(
        checkpoint_reading.read_values(workdir / "checkpoints" / f"ckpt-{from_step + 1}")["best_step"]
    )
    best = {
        index.stem: without_free_flags(index.with_suffix("")) for index in (workdir / "best").glob("*.index")
    }
    assert all(
        tensors == without_free_flags(reference / "checkpoints" / name) for name, tensors in best.items()
    )
    if best_step <= from_step:  # else it is yet to be written
        assert set(best) == ({f"ckpt-{best_step}"} if best_step >= 0 else set())
