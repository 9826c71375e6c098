"""What a start opens."""

import shutil

import pytest
from compare_runs import outcome
from fakes import NoStopRequests, tiny

from trainer import train
from trainer.errors import InputError


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
