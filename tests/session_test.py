"""Opening a run."""

import shutil

import pytest
from compare_runs import outcome
from fakes import resume_one_epoch

from trainer.errors import InputError


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
