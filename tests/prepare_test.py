"""Preparing the run directory before training."""

import json

import pytest
from fakes import resume_one_epoch
from reference_runs import SELDOM

from trainer import train


@pytest.mark.parametrize("name", ["config.flags", "manifest.json", "vocabulary.txt"])
def test_a_missing_readable_copy_is_written_again(one_epoch, copy_of_one_epoch, cache_dir, name):
    (copy_of_one_epoch / name).unlink()
    resume_one_epoch(copy_of_one_epoch, cache_dir, epochs=2, **SELDOM)
    assert (copy_of_one_epoch / name).exists()
    if name != "config.flags":
        assert (copy_of_one_epoch / name).read_bytes() == (one_epoch / name).read_bytes()


def test_each_start_is_recorded(copy_of_one_epoch, cache_dir):
    resume_one_epoch(copy_of_one_epoch, cache_dir, epochs=2, **SELDOM)
    starts = [json.loads(line) for line in (copy_of_one_epoch / "starts.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 8]
    assert [start["steps_recomputed_at_least"] for start in starts] == [0, 0]


def test_continuing_a_finished_run_removes_its_old_result(copy_of_one_epoch, cache_dir, monkeypatch):
    def stop(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_and_evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        resume_one_epoch(copy_of_one_epoch, cache_dir, epochs=2)
    assert not (copy_of_one_epoch / "result.json").exists()
    assert not (copy_of_one_epoch / "summaries" / "test").exists()
