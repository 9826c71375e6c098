"""The comparison of two runs."""

import shutil
import subprocess
import sys

import compare_runs
import pytest
from compare_runs import differences, outcome
from local_cluster import ROOT

from trainer import files


def test_a_copy_has_no_differences(finished, copy):
    assert differences(outcome(finished), outcome(copy)) == []


@pytest.mark.parametrize("name", ["result.json", "vocabulary.txt"])
def test_a_changed_file_is_reported(finished, copy, name):
    files.write_atomically(copy / name, b"other")
    assert differences(outcome(finished), outcome(copy)) == [name]


def test_a_different_newest_checkpoint_is_reported_with_its_tensors(finished, copy):
    for path in (copy / "checkpoints").glob("ckpt-24.*"):
        path.unlink()
    found = differences(outcome(finished), outcome(copy))
    assert "newest" in found
    assert any(name.startswith("state step/") for name in found)


def test_a_missing_curve_is_reported(finished, copy):
    shutil.rmtree(copy / "summaries" / "validation")
    found = differences(outcome(finished), outcome(copy))
    assert {name.split()[0] for name in found} == {"points"}
    assert all("validation" in name for name in found)


def test_the_script_prints_each_difference_and_their_number(finished, copy):
    (copy / "result.json").unlink()
    command = [sys.executable, "scripts/compare_runs.py", finished, copy]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout) == (1, "result.json\n1 difference\n")


def test_a_folder_without_a_run_is_refused_in_one_sentence(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare_runs.py", str(finished), str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        compare_runs.main()
    assert end.value.code == 2
    assert "must be a run directory, but it holds no checkpoint" in capsys.readouterr().err
