"""Which checkpoint is restored at startup: the newest one that verifies."""

import os

import pytest
from saved_runs import names, open_checkpoints, save_steps

from trainer.errors import StorageError
from trainer.run import checkpoint_files


def test_checkpoints_are_listed_oldest_first_by_their_steps(tmp_path):
    save_steps(tmp_path, [8, 9, 10, 100], max_to_keep=9)
    listed = [prefix.name for prefix in checkpoint_files.prefixes(tmp_path / "checkpoints")]
    assert listed == ["ckpt-8", "ckpt-9", "ckpt-10", "ckpt-100"]


def test_a_checkpoint_without_its_data_file_counts_as_damaged(tmp_path):
    save_steps(tmp_path, [1, 2])
    (tmp_path / "checkpoints" / "ckpt-2.data-00000-of-00001").unlink()
    assert int(open_checkpoints(tmp_path)[0].step) == 1


def test_a_run_with_only_damaged_checkpoints_is_not_started_over(tmp_path):
    save_steps(tmp_path, [1, 2])
    for path in (tmp_path / "checkpoints").glob("*.index"):
        os.truncate(path, 10)
    with pytest.raises(StorageError, match="none can be read"):
        checkpoint_files.find(tmp_path)
    assert names(tmp_path / "checkpoints") == ["ckpt-1", "ckpt-2"]


def test_a_damaged_checkpoint_of_step_0_is_not_an_error(tmp_path):
    save_steps(tmp_path, [0])
    os.truncate(tmp_path / "checkpoints" / "ckpt-0.index", 10)
    found = checkpoint_files.find(tmp_path)
    assert found.newest is None
    assert [prefix.name for prefix, _ in found.damaged] == ["ckpt-0"]


def test_the_newest_checkpoint_may_exist_only_in_best(tmp_path):
    save_steps(tmp_path, [1, 2], best=[2])
    os.truncate(tmp_path / "checkpoints" / "ckpt-2.index", 10)
    assert checkpoint_files.find(tmp_path).newest == tmp_path / "best" / "ckpt-2"


def test_a_checkpoint_with_the_wrong_step_or_no_index_is_damaged_with_that_reason(tmp_path):
    save_steps(tmp_path, [1])
    for path in (tmp_path / "checkpoints").glob("ckpt-1.*"):
        path.rename(path.with_name(path.name.replace("ckpt-1", "ckpt-2")))
    assert checkpoint_files.damage(tmp_path / "checkpoints" / "ckpt-2") == "it holds step 1"
    assert checkpoint_files.damage(tmp_path / "checkpoints" / "ckpt-3") == "its index file is missing"
