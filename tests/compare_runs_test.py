"""The comparison of two runs."""

import shutil
import subprocess
import sys

import pytest
from compare_runs import differences, outcome
from kill_and_resume import ROOT

from trainer import files


def test_a_copy_is_the_same(finished, copy):
    assert differences(outcome(finished), outcome(copy)) == []


@pytest.mark.parametrize("name", ["result.json", "vocabulary.txt"])
def test_another_file_is_named(finished, copy, name):
    files.write_atomically(copy / name, b"other")
    assert differences(outcome(finished), outcome(copy)) == [name]


def test_another_newest_checkpoint_is_named_with_its_tensors(finished, copy):
    for path in (copy / "checkpoints").glob("ckpt-24.*"):
        path.unlink()
    found = differences(outcome(finished), outcome(copy))
    assert "newest" in found
    assert any(name.startswith("state step/") for name in found)


def test_a_missing_curve_is_named(finished, copy):
    shutil.rmtree(copy / "summaries" / "validation")
    found = differences(outcome(finished), outcome(copy))
    assert {name.split()[0] for name in found} == {"points"}
    assert all("validation" in name for name in found)


def test_the_command_prints_each_difference_and_how_many(finished, copy):
    (copy / "result.json").unlink()
    command = [sys.executable, "scripts/compare_runs.py", finished, copy]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, "result.json\n1 difference\n")


def test_what_is_no_run_is_one_sentence(finished, tmp_path):
    command = [sys.executable, "scripts/compare_runs.py", finished, tmp_path]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "must be a run directory, but it holds no checkpoint" in answer.stderr
