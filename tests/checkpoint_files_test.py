"""Which checkpoint a start restores: the newest one that verifies."""

import os

import pytest
from saved_runs import names, open_checkpoints, save_steps

from trainer.errors import StorageError
from trainer.run import checkpoint_files


def test_a_missing_data_file_is_damage(tmp_path):
    save_steps(tmp_path, [1, 2])
    (tmp_path / "checkpoints" / "ckpt-2.data-00000-of-00001").unlink()
    assert int(open_checkpoints(tmp_path)[0].step) == 1


def test_a_run_whose_checkpoints_all_are_damaged_is_not_started_over(tmp_path):
    save_steps(tmp_path, [1, 2])
    for path in (tmp_path / "checkpoints").glob("*.index"):
        os.truncate(path, 10)
    with pytest.raises(StorageError, match="none can be read"):
        checkpoint_files.find(tmp_path)
    assert names(tmp_path / "checkpoints") == ["ckpt-1", "ckpt-2"]


def test_damage_to_the_checkpoint_of_step_0_loses_nothing(tmp_path):
    save_steps(tmp_path, [0])
    os.truncate(tmp_path / "checkpoints" / "ckpt-0.index", 10)
    found = checkpoint_files.find(tmp_path)
    assert found.newest is None
    assert [prefix.name for prefix, _ in found.damaged] == ["ckpt-0"]


def test_the_newest_checkpoint_may_be_in_best_alone(tmp_path):
    save_steps(tmp_path, [1, 2], best=[2])
    os.truncate(tmp_path / "checkpoints" / "ckpt-2.index", 10)
    assert checkpoint_files.find(tmp_path).newest == tmp_path / "best" / "ckpt-2"


def test_of_a_checkpoint_that_is_complete_but_of_another_step_the_reason_is_named(tmp_path):
    save_steps(tmp_path, [1])
    for path in (tmp_path / "checkpoints").glob("ckpt-1.*"):
        path.rename(path.with_name(path.name.replace("ckpt-1", "ckpt-2")))
    assert checkpoint_files.damage(tmp_path / "checkpoints" / "ckpt-2") == "it holds step 1"
    assert checkpoint_files.damage(tmp_path / "checkpoints" / "ckpt-3") == "its index file is missing"
