"""The cache folder: regular files alone are read, what is ours alone is removed."""

import os

import pytest

from trainer.data.regular_files import holds_only, locked, move_aside, open_regular, read_regular


def test_a_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        assert read_regular(tmp_path / name, limit=7) == b"content"
    with pytest.raises(ValueError, match="more than 6 bytes"):
        read_regular(tmp_path / "file", limit=6)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "dangling", "missing"])
def test_what_is_no_file_is_neither_read_nor_waited_for(tmp_path, kind):
    path = tmp_path / "path"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "nothing")
    with pytest.raises(ValueError, match="path is not"):
        open_regular(path)


def test_a_lock_behind_a_link_is_not_taken(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "other").exists()


def test_a_lock_that_is_held_is_waited_for_or_not(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pass
    with locked(tmp_path / "lock", wait=False):
        pass


def test_a_folder_with_anything_but_our_files_is_not_ours(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "labels.bin").write_bytes(b"")

    def is_ours(name):
        return name == "labels.bin"

    assert holds_only(folder, is_ours)
    (tmp_path / "link").symlink_to(folder)
    assert not holds_only(tmp_path / "link", is_ours)
    (folder / "thesis.tex").write_text("precious")
    assert not holds_only(folder, is_ours)
    (folder / "thesis.tex").unlink()
    (folder / "inside").symlink_to(tmp_path)
    assert not holds_only(folder, is_ours)


def test_what_is_not_ours_is_moved_aside_and_kept(tmp_path, caplog):
    (tmp_path / "train").write_text("precious")
    move_aside(tmp_path / "train")
    (kept,) = tmp_path.glob("train.*.aside")
    assert kept.read_text() == "precious"
    assert kept.name in caplog.text
