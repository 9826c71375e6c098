"""Cache entries: complete or absent; only what a builder created is removed."""

import errno
import os
import pathlib
import pwd

import pytest

from trainer import files
from trainer.data import cache_entry
from trainer.data.cache_entry import clear_place, holds_only, locked, move_aside, publish, temporary_folder
from trainer.errors import InputError


def test_a_symlinked_lock_file_is_refused(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "other").exists()


def test_a_held_lock_is_not_waited_for_when_wait_is_false(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pass
    with locked(tmp_path / "lock", wait=False):
        pass


def is_ours(name):
    return name in ("labels.bin", "lock")


def test_a_folder_with_unexpected_files_was_not_created_by_a_builder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "labels.bin").write_bytes(b"")
    assert holds_only(folder, is_ours)
    (tmp_path / "link").symlink_to(folder)
    assert not holds_only(tmp_path / "link", is_ours)
    (folder / "thesis.tex").write_text("precious")
    assert not holds_only(folder, is_ours)
    (folder / "thesis.tex").unlink()
    (folder / "inside").symlink_to(tmp_path)
    assert not holds_only(folder, is_ours)


def test_a_file_in_place_of_an_entry_is_moved_aside_and_kept(tmp_path, caplog):
    (tmp_path / "train").write_text("precious")
    move_aside(tmp_path / "train")
    (kept,) = tmp_path.glob("train.*.aside")
    assert kept.read_text() == "precious"
    assert kept.name in caplog.text


def test_a_temporary_folder_is_locked_and_removed_on_exit(tmp_path):
    with temporary_folder(tmp_path / "cache", is_ours=is_ours) as temporary:
        assert temporary.parent == tmp_path / "cache" and temporary.suffix == ".tmp"
        with pytest.raises(BlockingIOError), locked(temporary / "lock", wait=False):
            pass
        (temporary / "labels.bin").touch()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


@pytest.mark.parametrize("names", [[], ["lock"], ["lock", "labels.bin"]])
def test_the_temporary_folder_of_a_killed_builder_is_removed(tmp_path, names):
    (tmp_path / "killed.tmp").mkdir()
    for name in names:
        (tmp_path / "killed.tmp" / name).touch()
    with temporary_folder(tmp_path, is_ours=is_ours):
        assert not (tmp_path / "killed.tmp").exists()


def test_folders_of_running_builders_and_foreign_folders_are_kept(tmp_path):
    for name in ("notes.tmp", "unlocked.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.tmp" / "notes.txt").touch()
    (tmp_path / "unlocked.tmp" / "labels.bin").touch()
    with temporary_folder(tmp_path, is_ours=is_ours) as first, temporary_folder(tmp_path, is_ours=is_ours):
        assert first.is_dir()
        assert (tmp_path / "notes.tmp" / "notes.txt").exists() and (tmp_path / "unlocked.tmp").is_dir()


def test_an_entry_is_synced_before_it_appears_and_its_parent_folder_after(tmp_path, monkeypatch):
    built = tmp_path / "x.tmp" / "train"
    built.mkdir(parents=True)
    for name in ("labels.bin", "manifest.json"):
        (built / name).write_text(name)
    events = []
    monkeypatch.setattr(
        files, "fsync", lambda path: events.append((path.name, (tmp_path / "train").exists()))
    )
    publish(built, tmp_path)
    assert sorted(events[:2]) == [("labels.bin", False), ("manifest.json", False)]
    assert events[2:] == [("train", False), (tmp_path.name, True)]
    assert (tmp_path / "train" / "labels.bin").read_text() == "labels.bin"


def test_when_two_builders_publish_the_first_entry_is_kept(tmp_path):
    for builder in ("first", "second"):
        (tmp_path / builder / "train").mkdir(parents=True)
        (tmp_path / builder / "train" / "labels.bin").write_text(builder)
        publish(tmp_path / builder / "train", tmp_path)
    assert (tmp_path / "train" / "labels.bin").read_text() == "first"


def test_a_failed_publish_raises(tmp_path, monkeypatch):
    def fail(path, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "train").write_text("")
    monkeypatch.setattr("pathlib.Path.rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        publish(tmp_path / "train", tmp_path / "cache")


def test_a_damaged_entry_moves_to_the_temporary_folder_and_anything_else_aside(tmp_path):
    with temporary_folder(tmp_path, is_ours=is_ours) as temporary:
        (tmp_path / "train").mkdir()
        (tmp_path / "train" / "labels.bin").touch()
        clear_place(tmp_path / "train", temporary, is_ours=is_ours)
        assert (temporary / "train.torn" / "labels.bin").exists()
        (tmp_path / "train").write_text("precious")
        clear_place(tmp_path / "train", temporary, is_ours=is_ours)
    (aside,) = tmp_path.glob("train.*.aside")
    assert aside.read_text() == "precious"


def test_without_cache_dir_the_users_cache_folder_is_used(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for unset in ("", "relative/cache", "."):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_entry.folder_of("") == "/home/me/.cache/trainer"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_entry.folder_of("") == "/caches/trainer"
    assert (cache_entry.folder_of("here"), cache_entry.folder_of("~/c")) == ("here", "/home/me/c")
    monkeypatch.delenv("XDG_CACHE_HOME")
    home = pwd.getpwuid(os.getuid()).pw_dir
    for unset in ("", "relative"):
        monkeypatch.setenv("HOME", unset)
        assert cache_entry.folder_of("") == f"{home}/.cache/trainer"
    with pytest.raises(
        InputError, match=r"~nobody-at-all/c is in the home of an unknown user; .*--cache_dir"
    ):
        cache_entry.folder_of("~nobody-at-all/c")


@pytest.mark.parametrize("link", ["", "linked"])
def test_is_inside_resolves_symlinks(tmp_path, link):
    (tmp_path / "cache" / "a").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "cache")
    (tmp_path / "cache" / "out").symlink_to("/etc")
    cache = str(tmp_path / (link or "cache"))
    inside = [tmp_path / "cache" / "a", tmp_path / "linked" / "a", tmp_path / "cache" / "gone"]
    outside = [
        tmp_path,
        tmp_path / "cache" / "..",
        tmp_path / "cache" / "out",
        tmp_path / "cachet",
        pathlib.Path("a\0b"),
    ]
    assert [cache_entry.is_inside(path, cache) for path in inside] == [True] * 3
    assert [cache_entry.is_inside(path, cache) for path in outside] == [False] * 5
