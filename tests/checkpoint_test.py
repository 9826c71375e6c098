"""Checkpoints: whole or not there, verified, never written over."""

import inspect
import os
import pathlib
import re
import shutil

import keras
import pytest
import tensorflow as tf
from fakes import TinyModel, make_state, set_step
from kill_and_resume import tensors

from trainer import InputError, StorageError
from trainer.run import checkpoint
from trainer.run.checkpoint import Checkpoints


def open_checkpoints(run, *, state=None, max_to_keep=3):
    state = state or make_state()
    found = checkpoint.find(run)
    checkpoint.tidy(run, found)
    checkpoints = Checkpoints(run=run, state=state, max_to_keep=max_to_keep)
    if found.newest:
        checkpoints.restore(found.newest)
    return state, checkpoints


def save_steps(run, steps, *, best=(), max_to_keep=3):
    state, checkpoints = open_checkpoints(run, max_to_keep=max_to_keep)
    for step in steps:
        set_step(state, step)
        if step in best:
            state.best_step.assign(step)
        checkpoints.save()
        if step in best:
            checkpoints.save_best()
    return state, checkpoints


def names(directory):
    return [prefix.name for prefix in checkpoint.prefixes(directory)]


def flip_a_bit(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_what_is_saved_is_restored_bit_for_bit(tmp_path):
    save_steps(tmp_path, [5], best=[5])
    state, checkpoints = open_checkpoints(tmp_path)
    assert int(state.step) == 5
    checkpoints.restore(tmp_path / "best" / "ckpt-5")
    assert tensors(tmp_path / "best" / "ckpt-5") == tensors(tmp_path / "checkpoints" / "ckpt-5")


def test_how_often_a_run_was_saved_leaves_no_trace(tmp_path):
    for name in ("often", "once"):
        (tmp_path / name).mkdir()
    save_steps(tmp_path / "often", [1, 2, 3, 4])
    save_steps(tmp_path / "once", [4])
    assert tensors(tmp_path / "often" / "checkpoints" / "ckpt-4") == tensors(tmp_path / "once" / "checkpoints" / "ckpt-4")


def test_only_the_newest_are_kept_and_the_best_is_not_among_them(tmp_path):
    save_steps(tmp_path, [1, 2, 3, 4, 5], best=[1, 2])
    assert names(tmp_path / "checkpoints") == ["ckpt-3", "ckpt-4", "ckpt-5"]
    assert names(tmp_path / "best") == ["ckpt-2"]


def test_old_checkpoints_are_kept_in_number_over_restarts(tmp_path):
    for step in range(1, 8):
        save_steps(tmp_path, [step], max_to_keep=2)
    assert names(tmp_path / "checkpoints") == ["ckpt-6", "ckpt-7"]


def test_a_step_that_is_saved_is_never_written_again(tmp_path):
    _, checkpoints = save_steps(tmp_path, [4])
    index = tmp_path / "checkpoints" / "ckpt-4.index"
    before = index.stat()
    checkpoints.save()
    assert index.stat().st_mtime_ns == before.st_mtime_ns
    assert index.stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", [None, b"", b"\x00garbage", b'model_checkpoint_path: "ckpt-99"\n'])
def test_the_state_file_is_written_anew_from_the_files(tmp_path, content):
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


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("wound", ["empty", "half", "flipped"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_and_is_kept_aside(tmp_path, suffix, wound, caplog):
    save_steps(tmp_path, [1, 2])
    path = tmp_path / "checkpoints" / f"ckpt-2.{suffix}"
    if wound == "flipped":
        flip_a_bit(path, path.stat().st_size // 3)
    else:
        os.truncate(path, 0 if wound == "empty" else path.stat().st_size // 2)
    state, _ = open_checkpoints(tmp_path)
    assert int(state.step) == 1
    assert names(tmp_path / "checkpoints") == ["ckpt-1"]
    assert (tmp_path / "quarantine" / "checkpoints" / f"ckpt-2.{suffix}").exists()
    assert "ckpt-2" in caplog.text
    assert "1 steps" in caplog.text


def test_a_missing_data_file_is_damage(tmp_path):
    save_steps(tmp_path, [1, 2])
    (tmp_path / "checkpoints" / "ckpt-2.data-00000-of-00001").unlink()
    assert int(open_checkpoints(tmp_path)[0].step) == 1


def test_when_no_checkpoint_verifies_the_run_is_not_started_over(tmp_path):
    save_steps(tmp_path, [1, 2])
    for path in (tmp_path / "checkpoints").glob("*.index"):
        os.truncate(path, 10)
    with pytest.raises(StorageError, match="none can be read"):
        checkpoint.find(tmp_path)
    assert names(tmp_path / "checkpoints") == ["ckpt-1", "ckpt-2"]


def test_a_first_checkpoint_that_is_damaged_costs_nothing(tmp_path):
    save_steps(tmp_path, [0])
    os.truncate(tmp_path / "checkpoints" / "ckpt-0.index", 10)
    found = checkpoint.find(tmp_path)
    assert found.newest is None
    assert [prefix.name for prefix, _ in found.damaged] == ["ckpt-0"]


def test_the_newest_may_lie_in_best_alone(tmp_path):
    save_steps(tmp_path, [1, 2], best=[2])
    os.truncate(tmp_path / "checkpoints" / "ckpt-2.index", 10)
    assert checkpoint.find(tmp_path).newest == tmp_path / "best" / "ckpt-2"


def test_what_a_killed_save_leaves_is_swept_without_a_warning(tmp_path, caplog):
    save_steps(tmp_path, [1])
    directory = tmp_path / "checkpoints"
    (directory / "ckpt-2_temp").mkdir()
    (directory / "ckpt-2_temp" / "part-00000-of-00001.data-00000-of-00001.tempstate123").write_bytes(b"x")
    (directory / "ckpt-2.data-00000-of-00001").write_bytes(b"x")
    (directory / "ckpt-2.index").write_bytes(b"")
    (directory / "ckpt-3_temp").mkdir()
    (directory / "ckpt-3.data-00000-of-00001").write_bytes(b"x")
    (directory / "ckpt-0.data-00000-of-00001").write_bytes(b"x")
    (directory / "checkpoint.tmpabc").write_bytes(b"x")
    before = sorted(path.name for path in directory.iterdir() if path.name.startswith("ckpt-1"))
    state, _ = open_checkpoints(tmp_path)
    assert int(state.step) == 1
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoint", *before]
    assert not (tmp_path / "quarantine").exists()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_whole_checkpoint_of_a_killed_save_is_used(tmp_path):
    save_steps(tmp_path, [1, 2])
    (tmp_path / "checkpoints" / "ckpt-2_temp").mkdir()
    assert int(open_checkpoints(tmp_path)[0].step) == 2


@pytest.mark.parametrize("wound", ["missing", "damaged"])
def test_a_best_that_a_kill_or_damage_took_is_written_anew(tmp_path, wound):
    save_steps(tmp_path, [1, 2, 3], best=[2])
    expected = tensors(tmp_path / "best" / "ckpt-2")
    if wound == "missing":
        shutil.rmtree(tmp_path / "best")
    else:
        os.truncate(tmp_path / "best" / "ckpt-2.index", 10)
    state, checkpoints = open_checkpoints(tmp_path)
    checkpoints.heal_best()
    assert tensors(tmp_path / "best" / "ckpt-2") == expected
    assert int(state.step) == 3
    assert state.model.layer.kernel.numpy().tolist() == [[3.0] * 3] * 2


def test_what_a_kill_after_a_save_left_of_the_old_ones_is_removed(tmp_path):
    save_steps(tmp_path, [1, 2, 3, 4], best=[2], max_to_keep=9)
    shutil.copytree(tmp_path / "best", tmp_path / "old best")
    save_steps(tmp_path, [5], best=[5], max_to_keep=9)
    for path in (tmp_path / "old best").glob("ckpt-*"):
        shutil.copy(path, tmp_path / "best")
    _, checkpoints = open_checkpoints(tmp_path, max_to_keep=2)
    checkpoints.prune()
    assert names(tmp_path / "checkpoints") == ["ckpt-4", "ckpt-5"]
    assert names(tmp_path / "best") == ["ckpt-5"]


def test_a_best_that_nothing_can_bring_back_is_named(tmp_path):
    save_steps(tmp_path, [1, 2, 3, 4, 5], best=[2])
    shutil.rmtree(tmp_path / "best")
    _, checkpoints = open_checkpoints(tmp_path)
    with pytest.raises(StorageError, match="ckpt-2"):
        checkpoints.heal_best()


def test_a_foreign_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / "checkpoints" / "ckpt-1"))
    with pytest.raises(InputError, match="ckpt-1"):
        checkpoint.read_text(tmp_path / "checkpoints" / "ckpt-1", "frozen_flags")


def test_a_text_of_the_state_is_read_without_a_model(tmp_path):
    save_steps(tmp_path, [1])
    assert checkpoint.read_text(tmp_path / "checkpoints" / "ckpt-1", "frozen_flags") == "--seed=0\n"


class WiderModel(TinyModel):
    """Another shape than TinyModel's."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(4)
        self.layer.build((None, 2))


class DeeperModel(TinyModel):
    """One layer more than TinyModel."""

    def __init__(self):
        super().__init__()
        self.second = keras.layers.Dense(3)
        self.second.build((None, 3))

    @property
    def trainable_variables(self):
        return [*self.layer.trainable_variables, *self.second.trainable_variables]


@pytest.mark.parametrize("model", [WiderModel, DeeperModel])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, model):
    save_steps(tmp_path, [1])
    with pytest.raises(InputError, match="fit the model"):
        open_checkpoints(tmp_path, state=make_state(model=model()))


class GrowingModel(TinyModel):
    """Gains a weight after the optimizer was built, in a place where TensorFlow's tracking does not look."""

    def __init__(self):
        super().__init__()
        self.late_variables = lambda: []

    @property
    def trainable_variables(self):
        return [*self.layer.trainable_variables, *self.late_variables()]


def test_a_weight_that_no_checkpoint_would_hold_is_noticed(tmp_path):
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
    assert checkpoint.damage(tmp_path / "ckpt-1") is None
    with pytest.raises(ValueError, match="singleton"):  # When this saves: read again of CheckpointOptions in BUILD.
        checkpoints.save(str(tmp_path / "ckpt"), options=options)


def test_build_says_of_each_checkpoint_option_whether_it_is_used():
    build = (pathlib.Path(__file__).parent.parent / "BUILD.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| (?:not )?used: ", build, re.MULTILINE)
    told = [option for row in rows for option in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(inspect.signature(tf.train.CheckpointOptions).parameters)
