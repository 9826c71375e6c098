"""What startup moves to quarantine/ and what it removes."""

import os

import pytest
from saved_runs import names, open_checkpoints, save_steps

from trainer import files
from trainer.run import checkpoint_cleanup


def flip_a_bit(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("how", ["empty", "half", "flipped"])
def test_a_damaged_newest_checkpoint_is_quarantined_and_the_previous_one_restored(
    tmp_path, suffix, how, caplog
):
    save_steps(tmp_path, [1, 2])
    path = tmp_path / "checkpoints" / f"ckpt-2.{suffix}"
    if how == "flipped":
        flip_a_bit(path, path.stat().st_size // 3)
    else:
        os.truncate(path, 0 if how == "empty" else path.stat().st_size // 2)
    state, _ = open_checkpoints(tmp_path)
    assert int(state.step) == 1
    assert names(tmp_path / "checkpoints") == ["ckpt-1"]
    assert (tmp_path / "quarantine" / "checkpoints" / f"ckpt-2.{suffix}").exists()
    assert "ckpt-2 is damaged (" in caplog.text
    assert "): moved to quarantine/; recomputing 1 step.\n" in caplog.text
    (kept,) = (path.name for path in checkpoint_cleanup.quarantined(tmp_path))
    assert kept == "ckpt-2.index"


def test_a_checkpoint_that_is_quarantined_is_synced_where_it_was_and_where_it_is(tmp_path, monkeypatch):
    save_steps(tmp_path, [1])
    synced = {}
    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync", lambda path: synced.update({path: names(path)}))
        checkpoint_cleanup.quarantine(tmp_path, tmp_path / "checkpoints" / "ckpt-1")
    assert synced[tmp_path / "checkpoints"] == []
    assert synced[tmp_path / "quarantine" / "checkpoints"] == ["ckpt-1"]


def test_leftovers_of_killed_saves_are_removed_without_a_warning(tmp_path, caplog):
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


def test_a_complete_checkpoint_of_a_killed_save_is_used(tmp_path):
    save_steps(tmp_path, [1, 2])
    (tmp_path / "checkpoints" / "ckpt-2_temp").mkdir()
    assert int(open_checkpoints(tmp_path)[0].step) == 2


def test_the_warning_counts_the_steps_to_recompute(tmp_path, caplog):
    save_steps(tmp_path, [1, 3])
    os.truncate(tmp_path / "checkpoints" / "ckpt-3.index", 10)
    open_checkpoints(tmp_path)
    assert "recomputing 2 steps." in caplog.text


def test_a_damaged_checkpoint_in_a_symlinked_directory_is_left_in_place(tmp_path, caplog):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    save_steps(run, [1, 2], best=[2])
    (run / "best").rename(elsewhere)
    (run / "best").symlink_to(elsewhere)
    for path in (elsewhere / "ckpt-2.index", run / "checkpoints" / "ckpt-2.index"):
        os.truncate(path, 10)
    before = sorted(path.name for path in elsewhere.iterdir())
    state, _ = open_checkpoints(run)
    assert int(state.step) == 1
    assert "best/ckpt-2 is damaged" in caplog.text
    assert "left in place, in a linked directory" in caplog.text
    kept = [path for path in before if path != "checkpoint"]  # the state file is rewritten
    assert sorted(path.name for path in elsewhere.iterdir() if path.name != "checkpoint") == kept
    assert [path.parent.name for path in checkpoint_cleanup.quarantined(run)] == ["checkpoints"]


def test_a_checkpoint_is_removed_index_first(tmp_path, monkeypatch):
    save_steps(tmp_path, [1])
    removed, remove = [], files.remove
    monkeypatch.setattr(files, "remove", lambda path: [removed.append(path.suffix), remove(path)])
    checkpoint_cleanup.remove_checkpoint(tmp_path / "checkpoints" / "ckpt-1")
    assert removed == [".index", ".data-00000-of-00001"]
    assert names(tmp_path / "checkpoints") == []
