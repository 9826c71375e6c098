"""The training loop."""

import json

import pytest
from compare_runs import outcome, scalars
from fakes import NoStopRequests, tiny
from reference_runs import SELDOM, train_to_the_end

from trainer import train
from trainer.data.token_store import TokenStore
from trainer.errors import InterruptedBySignalError
from trainer.run.checkpoint_manager import Checkpoints
from trainer.run.distribution import Replicas
from trainer.run.summaries import Summaries


def run_tiny(workdir, cache_dir, **settings):
    train_to_the_end(tiny(workdir, cache_dir, **settings))
    return result_and_points(workdir)


def result_and_points(workdir):
    return json.loads((workdir / "result.json").read_text()), scalars(workdir / "summaries")


def note_calls(monkeypatch, *methods):
    """Records the calls of methods, (class, name) each; returns the list that they are appended to."""
    calls = []

    def note(owner, name):
        original = getattr(owner, name)

        def noted(self, *arguments, **options):
            if name != "check" or options.get("wait"):
                calls.append(name)
            return original(self, *arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in methods:
        note(owner, name)
    return calls


def steps_of(points, run, tag):
    return [step for point_run, point_tag, step in points if (point_run, point_tag) == (run, tag)]


def test_logs_evaluations_and_the_final_evaluation_come_at_their_steps(finished):
    result, points = result_and_points(finished)
    for tag in ("loss", "accuracy", "gradient_norm", "learning_rate", "padded_ratio", "reviews_per_second"):
        assert steps_of(points, "train", tag) == [3, 6, 9, 12, 15, 18, 21, 24]
    assert (
        steps_of(points, "validation", "loss")
        == steps_of(points, "validation", "accuracy")
        == [5, 10, 15, 20]
    )
    assert steps_of(points, "test", "loss") == [result["best_step"]]
    assert result["stop_step"] == 24
    assert result["reason"] == "--epochs=3 done"
    best = min(points["validation", "loss", step][0] for step in (5, 10, 15, 20))
    assert result["best_metric"] == pytest.approx(best, rel=1e-6)


def test_a_save_follows_the_check_of_the_store_and_the_commit_of_the_event_log(
    tmp_path, cache_dir, monkeypatch
):
    methods = (TokenStore, "check"), (Summaries, "commit"), (Checkpoints, "save"), (Checkpoints, "save_best")
    calls = note_calls(monkeypatch, *methods)
    without_evaluations = {"validation_split": "", "test_split": "", "monitor": "loss"}
    given = tiny(tmp_path / "run", cache_dir, epochs=1, **without_evaluations)
    train.run(given, stop_requests=NoStopRequests())
    at_each_step, at_step_5 = ["check", "commit", "save"], ["check", "commit", "save", "save_best"]
    assert calls == ["save", *4 * at_each_step, *at_step_5, *3 * at_each_step, "commit"]


def test_evaluation_is_once_per_epoch_by_default(tmp_path, cache_dir):
    _, points = run_tiny(tmp_path / "run", cache_dir, eval_every_steps=0, patience=0)
    assert steps_of(points, "validation", "loss") == [8, 16, 24]


def test_without_validation_the_training_metrics_are_monitored(tmp_path, cache_dir):
    result, points = run_tiny(tmp_path / "run", cache_dir, validation_split="", monitor="loss", patience=0)
    assert steps_of(points, "validation", "loss") == []
    assert result["best_step"] in (5, 10, 15, 20)


def test_without_a_best_checkpoint_the_latest_is_tested_and_that_is_logged(tmp_path, cache_dir, caplog):
    result, _ = run_tiny(tmp_path / "run", cache_dir, initial_best=0.0, patience=0)
    assert (result["best_step"], result["best_metric"]) == (-1, None)
    assert "latest" in caplog.text
    assert not list((tmp_path / "run" / "best").glob("*.index"))


def test_without_a_test_split_the_result_has_no_test_metrics(tmp_path, cache_dir):
    result, points = run_tiny(tmp_path / "run", cache_dir, test_split="", epochs=1)
    assert "test" not in result
    assert steps_of(points, "test", "loss") == []


def test_an_early_stopped_run_logs_which_patience_would_continue_it(tmp_path, cache_dir, caplog):
    result, _ = run_tiny(tmp_path / "run", cache_dir, initial_best=0.0, baseline=0.0, patience=2)
    assert result["stop_step"] == 10
    assert "--patience=3" in caplog.text
    caplog.clear()
    run_tiny(tmp_path / "run", cache_dir, initial_best=0.0, baseline=0.0, patience=2, epochs=9)
    assert "is finished" in caplog.text
    assert "--patience=3" in caplog.text


def test_an_interrupted_final_evaluation_is_repeated(tmp_path, cache_dir):
    result, points = run_tiny(tmp_path / "run", cache_dir, epochs=1)
    (tmp_path / "run" / "result.json").unlink()
    assert run_tiny(tmp_path / "run", cache_dir, epochs=1) == (result, points)


class SignalAt:
    """Stop requests that report a signal after so many checks."""

    defer_to_loop = False

    def __init__(self, checks):
        self.checks = checks

    @property
    def received(self):
        self.checks -= 1
        return self.checks < 0

    def take_save_request(self):
        return False

    def stopped(self, message):
        return InterruptedBySignalError(15, message)


def test_a_signal_between_steps_saves_and_ends_the_run(tmp_path, cache_dir, monkeypatch):
    calls = note_calls(monkeypatch, (Checkpoints, "save"), (Replicas, "gather"))
    given = tiny(tmp_path / "run", cache_dir, **SELDOM)
    with pytest.raises(InterruptedBySignalError, match="saved at step 3") as error:
        train.run(given, stop_requests=SignalAt(2))
    assert error.value.exit_code == 143
    assert (tmp_path / "run" / "checkpoints" / "ckpt-3.index").exists()
    assert calls[-2:] == ["save", "gather"]  # no worker ends before the chief has saved


def test_a_signal_during_an_evaluation_abandons_it_and_saves_nothing(tmp_path, cache_dir):
    given = tiny(tmp_path / "run", cache_dir, **SELDOM)
    with pytest.raises(InterruptedBySignalError, match="5 steps to redo"):
        train.run(given, stop_requests=SignalAt(5))
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").glob("*.index")] == ["ckpt-0"]


class SaveRequestAt(NoStopRequests):
    """Requests a save at each of these checks."""

    def __init__(self, *checks):
        self.checks, self.checked = checks, 0

    def take_save_request(self):
        self.checked += 1
        return self.checked in self.checks


def test_a_requested_save_is_done_at_the_next_step_and_changes_no_bit(
    tmp_path, cache_dir, reference_outcome, caplog
):
    given = tiny(tmp_path / "run", cache_dir, max_to_keep=100, **SELDOM)
    train.run(given, stop_requests=SaveRequestAt(1, 5, 7))
    assert [line for line in caplog.messages if line.startswith("Saved")] == [
        f"Saved at step {step}, as SIGUSR1 requested." for step in (1, 5, 7)
    ]
    saved = {
        int(path.stem.removeprefix("ckpt-")) for path in (tmp_path / "run" / "checkpoints").glob("*.index")
    }
    assert {1, 5, 7} <= saved
    assert 8 not in saved
    after = outcome(tmp_path / "run")
    for name in ("newest", "state", "best", "result.json"):
        assert after[name] == reference_outcome[name]


@pytest.mark.slow
def test_a_rare_class_shows_what_a_constant_answer_scores_and_learning_nothing_is_warned_of(
    tmp_path, cache_dir, caplog, monkeypatch
):
    # With as many words as other tiny runs have, so that they share their compiled steps.
    texts = [f"{'good' if number == 7 else 'bad'} a{number} b{number} c{number}" for number in range(60)]
    path = tmp_path / "rare.csv"
    lines = [f"{text},{int(number == 7)}\n" for number, text in enumerate(texts)]
    path.write_text("text,label\n" + "".join(lines))
    given = tiny(tmp_path / "run", cache_dir, dataset=str(path), epochs=1, learning_rate=1e-6)
    splits = {"train_split": "train[:40]", "validation_split": "train[40:50]", "test_split": "train[50:]"}
    train.run({**given, **splits}, stop_requests=NoStopRequests())
    lines = caplog.text.splitlines()
    assert any(" train " in line and "(a constant answer: 0.9750)" in line for line in lines)
    assert "Only 2.5% of train[:40] are positive: always answering negative has an accuracy of 0.9750" in (
        caplog.text
    )
    assert "hardly anything was learned; try another learning rate in a new run, as in" in caplog.text
    assert "--learning_rate=1e-05" in caplog.text
