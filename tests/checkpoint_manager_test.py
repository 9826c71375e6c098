"""Saving and restoring: all or nothing, and a saved step is never overwritten."""

import inspect
import os
import pathlib
import re
import shutil

import keras
import pytest
import tensorflow as tf
from compare_runs import tensors
from fakes import TinyModel, make_state, set_step
from saved_runs import names, open_checkpoints, save_steps

from trainer import files
from trainer.errors import InputError, StorageError
from trainer.run import checkpoint_files
from trainer.run.checkpoint_manager import Checkpoints


def test_a_saved_state_is_restored_bit_for_bit(tmp_path):
    save_steps(tmp_path, [5], best=[5])
    state, checkpoints = open_checkpoints(tmp_path)
    assert int(state.step) == 5
    checkpoints.restore(tmp_path / "best" / "ckpt-5")
    assert tensors(tmp_path / "best" / "ckpt-5") == tensors(tmp_path / "checkpoints" / "ckpt-5")


def test_files_and_directory_are_synced_before_the_state_file_names_them(tmp_path, monkeypatch):
    checkpoints = Checkpoints(run=tmp_path, state=make_state(), max_to_keep=1)
    synced, fsync, directory = [], files.fsync, tmp_path / "checkpoints"

    def note_and_sync(path):
        is_named = '"ckpt-0"' in (directory / "checkpoint").read_text() if synced else False
        synced.append((path.relative_to(tmp_path).as_posix(), is_named))
        fsync(path)

    monkeypatch.setattr(files, "fsync", note_and_sync)
    (directory / "checkpoint").touch()
    checkpoints.save()
    assert synced == [
        ("checkpoints/ckpt-0.index", False),
        ("checkpoints/ckpt-0.data-00000-of-00001", False),
        ("checkpoints", False),
        ("checkpoints/checkpoint", True),
        ("checkpoints", True),
    ]


def test_checkpoints_do_not_depend_on_how_often_the_run_was_saved(tmp_path):
    for name in ("often", "once"):
        (tmp_path / name).mkdir()
    save_steps(tmp_path / "often", [1, 2, 3, 4])
    save_steps(tmp_path / "once", [4])
    assert tensors(tmp_path / "often" / "checkpoints" / "ckpt-4") == tensors(
        tmp_path / "once" / "checkpoints" / "ckpt-4"
    )


def test_only_the_newest_checkpoints_are_kept_not_counting_the_best(tmp_path):
    save_steps(tmp_path, [1, 2, 3, 4, 5], best=[1, 2])
    assert names(tmp_path / "checkpoints") == ["ckpt-3", "ckpt-4", "ckpt-5"]
    assert names(tmp_path / "best") == ["ckpt-2"]


def test_max_to_keep_applies_across_restarts(tmp_path):
    for step in range(1, 8):
        save_steps(tmp_path, [step], max_to_keep=2)
    assert names(tmp_path / "checkpoints") == ["ckpt-6", "ckpt-7"]


def test_a_saved_step_is_never_written_again(tmp_path):
    _, checkpoints = save_steps(tmp_path, [4])
    index = tmp_path / "checkpoints" / "ckpt-4.index"
    before = index.stat()
    checkpoints.save()
    assert index.stat().st_mtime_ns == before.st_mtime_ns
    assert index.stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", [None, b"", b"\x00garbage", b'model_checkpoint_path: "ckpt-99"\n'])
def test_the_state_file_is_rewritten_from_the_checkpoints_that_exist(tmp_path, content):
    save_steps(tmp_path, [1, 2, 3])
    state_file = tmp_path / "checkpoints" / "checkpoint"
    state_file.unlink()
    if content is not None:
        state_file.write_bytes(content)
    state, checkpoints = open_checkpoints(tmp_path)
    set_step(state, 4)
    checkpoints.save()
    assert names(tmp_path / "checkpoints") == ["ckpt-2", "ckpt-3", "ckpt-4"]
    assert tf.train.latest_checkpoint(str(tmp_path / "checkpoints")).endswith("ckpt-4")


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_missing_or_damaged_best_is_rewritten_from_the_checkpoint_of_its_step(tmp_path, how):
    save_steps(tmp_path, [1, 2, 3], best=[2])
    expected = tensors(tmp_path / "best" / "ckpt-2")
    if how == "missing":
        shutil.rmtree(tmp_path / "best")
    else:
        os.truncate(tmp_path / "best" / "ckpt-2.index", 10)
    state, checkpoints = open_checkpoints(tmp_path)
    checkpoints.repair_best()
    assert tensors(tmp_path / "best" / "ckpt-2") == expected
    assert int(state.step) == 3
    assert state.model.layer.kernel.numpy().tolist() == [[3.0] * 3] * 2


def test_old_checkpoints_left_by_a_kill_after_a_save_are_removed(tmp_path):
    save_steps(tmp_path, [1, 2, 3, 4], best=[2], max_to_keep=9)
    shutil.copytree(tmp_path / "best", tmp_path / "old best")
    save_steps(tmp_path, [5], best=[5], max_to_keep=9)
    for path in (tmp_path / "old best").glob("ckpt-*"):
        shutil.copy(path, tmp_path / "best")
    _, checkpoints = open_checkpoints(tmp_path, max_to_keep=2)
    checkpoints.prune()
    assert names(tmp_path / "checkpoints") == ["ckpt-4", "ckpt-5"]
    assert names(tmp_path / "best") == ["ckpt-5"]


def test_a_lost_best_checkpoint_without_a_copy_is_an_error_that_names_it(tmp_path):
    save_steps(tmp_path, [1, 2, 3, 4, 5], best=[2])
    shutil.rmtree(tmp_path / "best")
    _, checkpoints = open_checkpoints(tmp_path)
    with pytest.raises(StorageError, match="ckpt-2"):
        checkpoints.repair_best()


class WiderModel(TinyModel):
    """Has a different shape than TinyModel."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(4)
        self.layer.build((None, 2))


class DeeperModel(TinyModel):
    """Has one layer more than TinyModel."""

    def __init__(self):
        super().__init__()
        self.second = keras.layers.Dense(3)
        self.second.build((None, 3))

    @property
    def trainable_variables(self):
        return [*self.layer.trainable_variables, *self.second.trainable_variables]


@pytest.mark.parametrize("model", [WiderModel, DeeperModel])
def test_a_checkpoint_of_a_different_model_is_refused(tmp_path, model):
    save_steps(tmp_path, [1])
    with pytest.raises(InputError, match="fit the model"):
        open_checkpoints(tmp_path, state=make_state(model=model()))


class GrowingModel(TinyModel):
    """Gains a weight after the optimizer was built, where TensorFlow's object tracking does not find it."""

    def __init__(self):
        super().__init__()
        self.late_variables = lambda: []

    @property
    def trainable_variables(self):
        return [*self.layer.trainable_variables, *self.late_variables()]


def test_weights_missing_from_the_checkpoint_are_reported(tmp_path):
    state = make_state(model=GrowingModel())
    checkpoints = Checkpoints(run=tmp_path, state=state, max_to_keep=1)
    assert checkpoints.untracked() == []
    late = keras.layers.Dense(3, name="late")
    late.build((None, 3))
    state.model.late_variables = lambda: late.trainable_variables
    assert checkpoints.untracked() == ["late/kernel", "late/bias"]


def test_the_second_asynchronous_save_still_fails_with_keras_variables(tmp_path):
    state = make_state()
    set_step(state, 1)
    checkpoints = tf.train.Checkpoint(root=state)
    options = tf.train.CheckpointOptions(enable_async=True)
    checkpoints.save(str(tmp_path / "ckpt"), options=options)
    checkpoints.sync()
    assert checkpoint_files.damage(tmp_path / "ckpt-1") is None
    # If this ever works, revise what BUILD.md says about CheckpointOptions.
    with pytest.raises(ValueError, match="singleton"):
        checkpoints.save(str(tmp_path / "ckpt"), options=options)


def test_build_lists_every_checkpoint_option_as_used_or_not_used():
    build = (pathlib.Path(__file__).parent.parent / "BUILD.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| (?:not )?used: ", build, re.MULTILINE)
    listed = [option for row in rows for option in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(inspect.signature(tf.train.CheckpointOptions).parameters)
