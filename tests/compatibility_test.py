"""Whether a start may resume a run."""

import shutil

import pytest
from fakes import NoStopRequests, tiny

from trainer import train
from trainer.errors import InputError
from trainer.run import conditions


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_dir):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train.run(tiny(workdir, cache_dir, epochs=1), stop_requests=NoStopRequests())
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def go_on(workdir, cache_dir, **settings):
    train.run(tiny(workdir, cache_dir, **{"epochs": 1, **settings}), stop_requests=NoStopRequests())


@pytest.mark.parametrize(
    "setting", [{"seed": 5}, {"vocab_size": 90}, {"lstm_units": 16}, {"batch_size": 8}, {"max_length": 9}]
)
def test_a_fixed_flag_cannot_change_even_with_leave(copy, cache_dir, setting):
    (name,) = setting
    with pytest.raises(InputError, match=f"--{name} was "):
        go_on(copy, cache_dir, allow_inexact_resume=True, **setting)


def test_another_split_is_named_with_its_content(copy, cache_dir):
    with pytest.raises(InputError, match=r"--train_split was train\[:31\] and is train\[:30\] now"):
        go_on(copy, cache_dir, train_split="train[:30]")


def test_an_inexact_flag_changes_with_leave_and_from_then_on_it_is_the_runs_own(copy, cache_dir, caplog):
    with pytest.raises(InputError, match=r"--learning_rate was 0\.03 and is 0\.5 now"):
        go_on(copy, cache_dir, learning_rate=0.5, epochs=2)
    go_on(copy, cache_dir, learning_rate=0.5, epochs=2, allow_inexact_resume=True)
    assert "inexactly" in caplog.text
    train.run({"workdir": str(copy), "cache_dir": cache_dir, "epochs": 3}, stop_requests=NoStopRequests())
    assert "--learning_rate=0.5\n" in (copy / "config.flags").read_text()


def test_another_machine_is_refused_by_name_unless_allowed(copy, cache_dir, monkeypatch, caplog):
    real = conditions.conditions
    monkeypatch.setattr(conditions, "conditions", lambda **kwargs: {**real(**kwargs), "cpu": "Z80"})
    with pytest.raises(InputError, match=r"cpu was '.*' and is 'Z80' now"):
        go_on(copy, cache_dir, epochs=2)
    go_on(copy, cache_dir, epochs=2, allow_inexact_resume=True)
    assert "is 'Z80' now" in caplog.text
