"""The start of a run: compared, restored, put right."""

import json
import shutil

import pytest
from fakes import NoSignals, tiny
from kill_and_resume import outcome

from trainer import InputError, train
from trainer.run import distribution


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_dir):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train.run(tiny(workdir, cache_dir, epochs=1), signals=NoSignals())
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def go_on(workdir, cache_dir, **settings):
    train.run(tiny(workdir, cache_dir, **{"epochs": 1, **settings}), signals=NoSignals())


@pytest.mark.parametrize("setting", [{"seed": 5}, {"vocab_size": 90}, {"lstm_units": 16}, {"batch_size": 8}, {"max_length": 9}])
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
    train.run({"workdir": str(copy), "cache_dir": cache_dir, "epochs": 3}, signals=NoSignals())
    assert "--learning_rate=0.5\n" in (copy / "config.flags").read_text()


def test_another_machine_is_refused_by_name_unless_allowed(copy, cache_dir, monkeypatch, caplog):
    conditions = distribution.conditions
    monkeypatch.setattr(distribution, "conditions", lambda **kwargs: {**conditions(**kwargs), "cpu": "Z80"})
    with pytest.raises(InputError, match=r"cpu was '.*' and is 'Z80' now"):
        go_on(copy, cache_dir, epochs=2)
    go_on(copy, cache_dir, epochs=2, allow_inexact_resume=True)
    assert "is 'Z80' now" in caplog.text


def test_a_run_that_differs_is_not_touched(copy, cache_dir):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(InputError):
        go_on(copy, cache_dir, seed=5, epochs=2)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_moved_run_goes_on_and_ends_like_the_unmoved(finished, tmp_path, cache_dir):
    here = shutil.copytree(finished, tmp_path / "here")
    there = shutil.copytree(finished, tmp_path / "far" / "there")
    for workdir in (here, there):
        go_on(workdir, cache_dir, epochs=2)
    assert outcome(here) == outcome(there)


@pytest.mark.parametrize("name", ["config.flags", "manifest.json", "vocabulary.txt"])
def test_a_readable_copy_that_is_gone_is_written_again(finished, copy, cache_dir, name):
    (copy / name).unlink()
    go_on(copy, cache_dir, epochs=2)
    assert (copy / name).exists()
    if name != "config.flags":
        assert (copy / name).read_bytes() == (finished / name).read_bytes()


def test_each_start_is_on_record(copy, cache_dir):
    go_on(copy, cache_dir, epochs=2)
    starts = [json.loads(line) for line in (copy / "starts.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 8]
    assert [start["steps_recomputed_at_least"] for start in starts] == [0, 0]


def test_continuing_takes_the_old_ending_away(copy, cache_dir, monkeypatch):
    def stop(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_and_evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        go_on(copy, cache_dir, epochs=2)
    assert not (copy / "result.json").exists()
    assert not (copy / "summaries" / "test").exists()
