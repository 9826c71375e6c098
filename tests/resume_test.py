"""The promise: a run killed at any step and resumed is bit-identical to an uninterrupted one."""

import math
import shutil
import subprocess
import time

import pytest
from compare_runs import outcome, scalars
from fakes import EVERYTHING, TOPICS, NoStopRequests, command, corpus_of, tiny
from processes import popen
from reference_runs import SELDOM, STEPS, Killed, assert_resumes_like, train_to_the_end, train_until_killed

from trainer import build, train
from trainer.run.checkpoint_manager import Checkpoints


def saved_at(step: int) -> dict:
    """Settings of a run that is to be killed at `step`: it saves there, and where it evaluates."""
    return {**SELDOM, "checkpoint_every_steps": step}


def train_with_kills(given, monkeypatch, kills):
    """Trains a run to its end, though it dies at each step of `kills`: after its commit if that is True."""
    for step, committed in kills.items():
        assert train_until_killed({**given, **saved_at(step)}, monkeypatch, step, committed=committed)
    train_to_the_end(given)


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
def test_equal_states_have_equal_futures(tmp_path, cache_dir, killed, seldom_saved_outcome, step):
    given = tiny(shutil.copytree(killed / str(step), tmp_path / "run"), cache_dir)
    train_to_the_end(given)
    assert outcome(tmp_path / "run") == seldom_saved_outcome
    assert seldom_saved_outcome["newest"] == f"ckpt-{STEPS}"


def test_resume_after_many_kills_in_one_epoch_is_bit_identical(
    tmp_path, cache_dir, seldom_saved_outcome, monkeypatch
):
    given = tiny(tmp_path / "run", cache_dir)
    for step in (9, 10, 13, 15, 15):
        assert train_until_killed(given, monkeypatch, step, committed=step != 15)
    train_to_the_end(given)
    assert outcome(tmp_path / "run") == seldom_saved_outcome


@pytest.mark.parametrize("step", [5, 15], ids=["a best that is replaced later", "the final best"])
def test_a_kill_between_the_two_saves_is_repaired_on_resume(
    tmp_path, cache_dir, seldom_saved_outcome, monkeypatch, step
):
    given, save_best = tiny(tmp_path / "run", cache_dir), Checkpoints.save_best

    def save_or_die(checkpoints):
        if int(checkpoints._state.step) == step:
            raise Killed
        save_best(checkpoints)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save_best", save_or_die)
        train_to_the_end(given)
    best = tmp_path / "run" / "best" / f"ckpt-{step}.index"
    assert not best.exists()
    assert train_until_killed({**given, **saved_at(step + 1)}, monkeypatch, step + 1, committed=True)
    assert best.exists()
    train_to_the_end(given)
    assert outcome(tmp_path / "run") == seldom_saved_outcome


@pytest.fixture(scope="module")
def early_stopped_outcome(build_once, cache_dir):
    """The outcome of a run that patience stops early."""

    def make(folder):
        train_to_the_end(tiny(folder / "run", cache_dir, **EARLY_STOPPED))

    return outcome(build_once("early stopped", make) / "run")


EARLY_STOPPED = {"patience": 2, "initial_best": 0.0, "baseline": 0.0, "epochs": 20}


def test_a_run_killed_within_patience_stops_at_the_same_step_for_the_same_reason(
    tmp_path, cache_dir, early_stopped_outcome, monkeypatch
):
    given = tiny(tmp_path / "run", cache_dir, **EARLY_STOPPED)
    train_with_kills(given, monkeypatch, dict.fromkeys((3, 5, 7, 9, 10), True))
    assert outcome(tmp_path / "run") == early_stopped_outcome
    assert b'"no improvement in' in early_stopped_outcome["result.json"]


def test_a_real_process_killed_by_sigkill_resumes_bit_identically(tmp_path, cache_dir, seldom_saved_outcome):
    workdir = tmp_path / "run"
    given = tiny(workdir, cache_dir)
    for step in (0, 4, 8, 10, 17):
        process = popen(command(given), stderr=subprocess.DEVNULL)
        while not (workdir / "checkpoints" / f"ckpt-{step}.index").exists() and process.poll() is None:
            time.sleep(0.003)
        process.kill()
        assert process.wait() == -9
    train_to_the_end(given)
    assert outcome(workdir) == seldom_saved_outcome


def test_two_epochs_and_one_more_equal_three(tmp_path, cache_dir, seldom_saved_outcome):
    run = tmp_path / "run"
    train_to_the_end(tiny(run, cache_dir, epochs=2))
    train.run({"workdir": str(run), "cache_dir": cache_dir, "epochs": 3}, stop_requests=NoStopRequests())
    assert outcome(run) == seldom_saved_outcome


def test_a_run_of_three_classes_with_weights_and_f1_resumes_bit_identically(
    tmp_path, cache_dir, topics, weighted_topics_outcome, monkeypatch
):
    given = tiny(tmp_path / "run", cache_dir, **WEIGHTED)
    train_with_kills(given, monkeypatch, {0: True, 5: False, 10: True, 17: True, 24: False})
    assert outcome(tmp_path / "run") == weighted_topics_outcome


@pytest.fixture(scope="module")
def outcome_with_everything(everything):
    """The outcome of a run with everything on that is off by default, that was left alone."""
    return outcome(everything)


def test_a_run_with_everything_switched_on_resumes_bit_identically(
    tmp_path, cache_dir, outcome_with_everything, monkeypatch
):
    given = tiny(tmp_path / "run", cache_dir, **EVERYTHING)
    train_with_kills(given, monkeypatch, {0: True, 4: True, 5: False, 10: True, 17: True})
    assert outcome(tmp_path / "run") == outcome_with_everything


def learning_rates(points):
    return {
        step: values[0]
        for (run, tag, step), values in points.items()
        if (run, tag) == ("train", "learning_rate")
    }


def test_with_everything_switched_on_the_learning_rate_warms_up_falls_and_is_reduced(outcome_with_everything):
    rates = learning_rates(outcome_with_everything["points"])

    def scheduled(step):
        warm = min((step + 1) / 4, 1.0)
        return warm * (0.001 + 0.029 * 0.5 * (1 + math.cos(math.pi * step / 24)))

    assert rates[3] == pytest.approx(scheduled(2), rel=1e-5)
    reductions = {step: round(math.log2(scheduled(step - 1) / rate), 4) for step, rate in rates.items()}
    assert set(reductions.values()) <= {0, 1, 2, 3, 4}
    assert reductions[24] >= 1


@pytest.mark.parametrize("more", [{}, {"schedule_epochs": 0}])
def test_two_epochs_of_a_schedule_and_one_more_follow_the_schedule_of_the_first_start(
    tmp_path, cache_dir, more
):
    schedule = {"schedule": "linear", "final_learning_rate": 0.003, **more}
    given = tiny(tmp_path / "run", cache_dir, patience=0, epochs=2, **schedule)
    train_to_the_end(given)
    train_to_the_end({**given, "epochs": 3})
    rates = learning_rates(scalars(tmp_path / "run" / "summaries"))
    assert rates[18] == rates[24] == pytest.approx(0.003)
    assert rates[9] == pytest.approx(0.03 - 0.027 * 8 / 16, rel=1e-4)


WEIGHTED = {"monitor": "val_f1", "class_weights": "balanced", "patience": 0, "train_split": "train[:32]"}


@pytest.fixture(scope="module")
def weighted_topics_outcome(build_once, cache_dir):
    """The outcome of a run of three classes that was left alone."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "open_corpus", lambda config: corpus_of(*TOPICS))
            train_to_the_end(tiny(folder / "run", cache_dir, **WEIGHTED))

    alone = outcome(build_once("weighted topics", make) / "run")
    assert {step for run, tag, step in alone["points"] if (run, tag) == ("validation", "f1")} == {
        5,
        10,
        15,
        20,
    }
    assert any(key[:2] == ("best", "f1") for key in alone["points"])
    return alone
