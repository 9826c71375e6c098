"""The promise: a run killed at any step and resumed is bit-identical to an uninterrupted one."""

import shutil
import subprocess
import time

import pytest
from compare_runs import outcome
from fakes import NoStopRequests, command, tiny
from processes import popen
from reference_runs import STEPS, Killed, assert_resumes_like, train_until_killed

from trainer import train
from trainer.run.checkpoint_manager import Checkpoints


@pytest.mark.parametrize("step", range(STEPS + 1))
def test_resume_after_a_kill_at_any_step_is_bit_identical(
    tmp_path, cache_dir, killed, reference, reference_outcome, monkeypatch, step
):
    given = tiny(shutil.copytree(killed / str(step), tmp_path / "run"), cache_dir)
    if step < STEPS:
        assert_resumes_like(reference, given, monkeypatch, from_step=step - step % 2)
    else:
        train.run(given, stop_requests=NoStopRequests())
        assert outcome(tmp_path / "run") == reference_outcome


@pytest.mark.parametrize("step", [0, 3, 5, 8, 10, 15, 16, 23])
def test_equal_states_have_equal_futures(tmp_path, cache_dir, killed, reference_outcome, step):
    given = tiny(shutil.copytree(killed / str(step), tmp_path / "run"), cache_dir)
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "run") == reference_outcome
    assert reference_outcome["newest"] == f"ckpt-{STEPS}"


def test_resume_after_many_kills_in_one_epoch_is_bit_identical(
    tmp_path, cache_dir, reference_outcome, monkeypatch
):
    given = tiny(tmp_path / "run", cache_dir)
    for step in (9, 10, 13, 15, 15):
        assert train_until_killed(given, monkeypatch, step, committed=step != 15)
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "run") == reference_outcome


@pytest.mark.parametrize("step", [5, 15], ids=["a best that is replaced later", "the final best"])
def test_a_kill_between_the_two_saves_is_repaired_on_resume(
    tmp_path, cache_dir, reference_outcome, monkeypatch, step
):
    given, save_best = tiny(tmp_path / "run", cache_dir), Checkpoints.save_best

    def save_or_die(checkpoints):
        if int(checkpoints._state.step) == step:
            raise Killed
        save_best(checkpoints)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save_best", save_or_die)
        train.run(given, stop_requests=NoStopRequests())
    best = tmp_path / "run" / "best" / f"ckpt-{step}.index"
    assert not best.exists()
    assert train_until_killed(given, monkeypatch, step + 1, committed=True)
    assert best.exists()
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "run") == reference_outcome


@pytest.fixture(scope="module")
def early_stopped_outcome(tmp_path_factory, cache_dir):
    """The outcome of a run that patience stops early."""
    workdir = tmp_path_factory.mktemp("early_stopped") / "run"
    train.run(tiny(workdir, cache_dir, **EARLY_STOPPED), stop_requests=NoStopRequests())
    return outcome(workdir)


EARLY_STOPPED = {"patience": 2, "initial_best": 0.0, "baseline": 0.0, "epochs": 20}


@pytest.mark.parametrize("step", [3, 5, 7, 9, 10])
def test_a_run_killed_within_patience_stops_at_the_same_step_for_the_same_reason(
    tmp_path, cache_dir, early_stopped_outcome, monkeypatch, step
):
    given = tiny(tmp_path / "run", cache_dir, **EARLY_STOPPED)
    assert train_until_killed(given, monkeypatch, step, committed=True)
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "run") == early_stopped_outcome
    assert b'"no improvement in' in early_stopped_outcome["result.json"]


@pytest.mark.parametrize("steps", [[0, 8, 17], [4, 10]])
def test_a_real_process_killed_by_sigkill_resumes_bit_identically(
    tmp_path, cache_dir, reference_outcome, steps
):
    workdir = tmp_path / "run"
    given = tiny(workdir, cache_dir)
    for step in steps:
        process = popen(command(given), stderr=subprocess.DEVNULL)
        while not (workdir / "checkpoints" / f"ckpt-{step}.index").exists() and process.poll() is None:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -9
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(workdir) == reference_outcome


def test_two_epochs_and_two_more_equal_four(tmp_path, cache_dir):
    straight, continued = tmp_path / "straight", tmp_path / "continued"
    train.run(tiny(straight, cache_dir, patience=0, epochs=4), stop_requests=NoStopRequests())
    train.run(tiny(continued, cache_dir, patience=0, epochs=2), stop_requests=NoStopRequests())
    train.run(
        {"workdir": str(continued), "cache_dir": cache_dir, "epochs": 4}, stop_requests=NoStopRequests()
    )
    assert outcome(continued) == outcome(straight)


@pytest.mark.parametrize(("step", "committed"), [(0, True), (5, False), (10, True), (17, True), (24, False)])
def test_a_run_of_three_classes_with_weights_and_f1_resumes_bit_identically(
    tmp_path, cache_dir, topics, weighted_topics_outcome, monkeypatch, step, committed
):
    given = tiny(tmp_path / "run", cache_dir, **WEIGHTED)
    assert train_until_killed(given, monkeypatch, step, committed=committed)
    train.run(given, stop_requests=NoStopRequests())
    assert outcome(tmp_path / "run") == weighted_topics_outcome


WEIGHTED = {"monitor": "val_f1", "class_weights": "balanced", "patience": 0, "train_split": "train[:32]"}


@pytest.fixture
def weighted_topics_outcome(tmp_path, cache_dir, topics):
    """The outcome of a run of three classes that was left alone."""
    train.run(tiny(tmp_path / "alone", cache_dir, **WEIGHTED), stop_requests=NoStopRequests())
    alone = outcome(tmp_path / "alone")
    assert {step for run, tag, step in alone["points"] if (run, tag) == ("validation", "f1")} == {
        5,
        10,
        15,
        20,
    }
    assert any(key[:2] == ("best", "f1") for key in alone["points"])
    return alone
