"""When a run saves, and the lines that it says."""

import types

import pytest
from fakes import tiny

from trainer import progress
from trainer.config import Config


def make_clock(monkeypatch, *, step=0, **settings):
    """A clock, and the list that holds its time."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    given = {"checkpoint_every_steps": 0, "checkpoint_every_secs": 0, **settings}
    return progress.Clock(step, Config(**tiny("run", "cache", **given))), now


def test_a_save_is_due_at_every_so_many_steps_wherever_a_run_goes_on(monkeypatch):
    clock, _ = make_clock(monkeypatch, step=5, checkpoint_every_steps=4)
    assert [step for step in range(6, 20) if clock.is_save_due(step)] == [8, 12, 16]


def test_a_save_is_due_when_the_last_one_is_so_many_seconds_ago(monkeypatch):
    clock, now = make_clock(monkeypatch, checkpoint_every_secs=60.0)
    now[0] += 59.9
    assert not clock.is_save_due(1)
    now[0] += 0.1
    assert clock.is_save_due(2)
    clock.saved(2)
    assert clock.saved_step == 2
    assert not clock.is_save_due(3)


def test_without_either_flag_no_save_is_due(monkeypatch):
    clock, now = make_clock(monkeypatch)
    now[0] += 1e9
    assert not any(clock.is_save_due(step) for step in range(100))


def test_the_rate_is_that_since_the_last_call(monkeypatch):
    clock, now = make_clock(monkeypatch, step=10, batch_size=4)
    now[0] += 2.0
    assert clock.reviews_per_second(15) == 10.0
    now[0] += 1.0
    assert clock.reviews_per_second(16) == 4.0


@pytest.mark.parametrize("last_step", [9, 1890])
def test_the_lines_of_training_and_of_validation_align(caplog, last_step):
    run = types.SimpleNamespace(last_step=last_step, plan=types.SimpleNamespace(steps_per_epoch=63))
    metrics = {"loss": 0.5, "accuracy": 0.25}
    for name, step in (("train", 1), ("validation", last_step), ("test", 5)):
        progress.log_line(run, name, step, metrics, "remark")
    lines = [record.getMessage() for record in caplog.records]
    assert len({tuple(at for at, letter in enumerate(line) if letter == "|") for line in lines}) == 1
    assert all(line.endswith("| loss 0.5000 | accuracy 0.2500 | remark") for line in lines)
