"""The run directory at the beginning of training."""

import json
import shutil

import pytest
from fakes import NoStopRequests, tiny

from trainer import train


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
