"""Opening a run."""

import shutil

import pytest
import tensorflow as tf
from compare_runs import differences, outcome
from fakes import NoStopRequests, resume_one_epoch, tiny

from trainer import machine, session, train
from trainer.errors import InputError
from trainer.run import checkpoint_files
from trainer.trained_model import settings_of


def test_a_refused_resume_changes_no_files(copy_of_one_epoch, cache_dir):
    before = {path: path.read_bytes() for path in copy_of_one_epoch.rglob("*") if path.is_file()}
    with pytest.raises(InputError):
        resume_one_epoch(copy_of_one_epoch, cache_dir, seed=5, epochs=2)
    assert {path: path.read_bytes() for path in copy_of_one_epoch.rglob("*") if path.is_file()} == before


def test_a_moved_run_resumes_bit_identically(one_epoch, tmp_path, cache_dir):
    here = shutil.copytree(one_epoch, tmp_path / "here")
    there = shutil.copytree(one_epoch, tmp_path / "far" / "there")
    for workdir in (here, there):
        resume_one_epoch(workdir, cache_dir, epochs=2)
    assert outcome(here) == outcome(there)


@pytest.fixture
def on_cores(monkeypatch):
    """Makes a start believe that it may use so many cores; its threads stay as they are."""
    threads = tf.config.threading.get_inter_op_parallelism_threads()

    def use(cores):
        monkeypatch.setattr(machine, "usable_cores", lambda: cores)
        return {"inter_op_threads": threads}

    return use


@pytest.mark.parametrize(
    ("cores", "batch_size", "shards"),
    [(1, 64, 1), (2, 64, 1), (3, 64, 1), (8, 64, 4), (64, 64, 8), (8, 4, 1)],
)
def test_a_new_run_has_a_shard_for_each_pair_of_cores_but_no_tiny_ones(
    tmp_path, cache_dir, on_cores, cores, batch_size, shards
):
    given = tiny(tmp_path / "run", cache_dir, **on_cores(cores), batch_size=batch_size, epochs=1)
    assert session.open_session(given, stop_requests=NoStopRequests()).config.shards == shards


@pytest.mark.slow
def test_a_run_keeps_its_shards_on_other_cores(tmp_path, cache_dir, on_cores, caplog):
    there, here = tmp_path / "there", tmp_path / "here"
    given = {"batch_size": 16, "epochs": 2, "patience": 0}
    on_four = {**given, **on_cores(4)}
    train.run(tiny(there, cache_dir, **on_four), stop_requests=NoStopRequests())
    train.run(tiny(here, cache_dir, **on_four | {"epochs": 1}), stop_requests=NoStopRequests())
    assert "of 16 reviews in 2 shards" in caplog.text
    train.run(tiny(here, cache_dir, **{**given, **on_cores(1), "shards": 0}), stop_requests=NoStopRequests())
    assert settings_of(checkpoint_files.find(here).newest)["shards"] == 2
    assert differences(outcome(there), outcome(here)) == []


@pytest.mark.slow
def test_other_shards_are_refused_unless_inexact_resume_is_allowed(copy_of_one_epoch, cache_dir):
    with pytest.raises(InputError, match="--shards was 1 and is 2 now"):
        resume_one_epoch(copy_of_one_epoch, cache_dir, shards=2, epochs=2)
    resume_one_epoch(copy_of_one_epoch, cache_dir, shards=2, epochs=2, allow_inexact_resume=True)
