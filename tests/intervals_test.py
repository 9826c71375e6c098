"""When a checkpoint is due, and the throughput of training."""

import pytest
from fakes import tiny

from trainer import intervals
from trainer.config import Config


@pytest.fixture
def now(monkeypatch):
    """A list of one item: the current time, in seconds."""
    now = [100.0]
    monkeypatch.setattr(intervals.time, "monotonic", lambda: now[0])
    return now


def make_interval(*, step=0, **settings):
    given = {"checkpoint_every_steps": 0, "checkpoint_every_secs": 0, **settings}
    return intervals.SaveInterval(step, Config(**tiny("run", "cache", **given)))


def test_a_save_is_due_at_multiples_of_checkpoint_every_steps_after_any_resume(now):
    saves = make_interval(step=5, checkpoint_every_steps=4)
    assert [step for step in range(6, 20) if saves.is_due(step)] == [8, 12, 16]


def test_a_save_is_due_checkpoint_every_secs_after_the_last_one(now):
    saves = make_interval(checkpoint_every_secs=60.0)
    now[0] += 59.9
    assert not saves.is_due(1)
    now[0] += 0.1
    assert saves.is_due(2)
    saves.saved(2)
    assert saves.saved_step == 2
    assert not saves.is_due(3)


def test_without_either_flag_no_save_is_due(now):
    saves = make_interval()
    now[0] += 1e9
    assert not any(saves.is_due(step) for step in range(100))


def test_throughput_is_measured_since_the_last_call(now):
    throughput = intervals.Throughput(10, batch_size=4)
    now[0] += 2.0
    assert throughput.reviews_per_second(15) == 10.0
    now[0] += 1.0
    assert throughput.reviews_per_second(16) == 4.0
