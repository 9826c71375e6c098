"""Files are complete after a kill, and untrusted when they are read."""

import errno
import os
import pathlib
import stat
import tracemalloc

import pytest

from trainer import files, machine
from trainer.errors import StorageError


def test_a_file_is_replaced_without_leaving_a_temporary_file(tmp_path):
    path = tmp_path / "result.json"
    files.write_atomically(path, b"old")
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_an_atomic_write_syncs_the_content_before_the_rename_and_the_directory_after_it(
    tmp_path, monkeypatch
):
    target, synced, sync = tmp_path / "a", [], machine.sync

    def note_and_sync(descriptor):
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(("directory" if is_directory else "content", target.exists()))
        sync(descriptor)

    monkeypatch.setattr(machine, "sync", note_and_sync)
    files.write_atomically(target, b"content")
    assert synced == [("content", False), ("directory", True)]


def test_an_unwritable_file_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"result\.json"):
        files.write_atomically(tmp_path / "missing" / "result.json", b"")


def test_appending_a_line_drops_an_incomplete_last_line(tmp_path):
    path = tmp_path / "starts.jsonl"
    files.append_line(path, "one")
    with path.open("ab") as file:
        file.write(b"torn by a ki")
    files.append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"


def test_directory_entries_are_sorted_and_empty_for_a_missing_directory(tmp_path):
    for name in ("b", "c", "a"):
        (tmp_path / name).write_bytes(b"")
    assert files.entries(tmp_path) == [tmp_path / name for name in ("a", "b", "c")]
    assert files.entries(tmp_path / "missing") == []
    assert files.entries(tmp_path / "a") == []


def test_an_unreadable_directory_is_named(tmp_path, monkeypatch):
    def fail(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "iterdir", fail)
    with pytest.raises(StorageError, match=rf"{tmp_path} could not be read \(Permission denied\)"):
        files.entries(tmp_path)


def test_removing_a_missing_path_is_not_an_error(tmp_path):
    files.remove(tmp_path / "missing" / "folder")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_reading_anything_but_a_file_fails(tmp_path, kind):
    path, precious = tmp_path / "path", tmp_path / "precious"
    precious.write_bytes(b"precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(precious if kind == "link" else "/dev/zero")
    with pytest.raises(OSError, match=r"link|regular"):
        files.read(path)
    assert not files.is_regular(path)


def test_a_symlinked_file_is_read_when_follow_links_is_true(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        assert files.read(tmp_path / name, limit=7, follow_links=True) == b"content"
    with pytest.raises(files.UnexpectedFileError, match="at most 6 are read"):
        files.read(tmp_path / "link", limit=6, follow_links=True)


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "dangling", "loop", "missing", "below a file"])
def test_anything_but_a_file_counts_as_absent_and_does_not_block(tmp_path, kind, follow_links, monkeypatch):
    path = tmp_path / "path"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "below a file":
        path.write_text("")
        path /= "path"
    elif kind != "missing":
        path.symlink_to({"device": "/dev/zero", "dangling": tmp_path / "nothing", "loop": path}[kind])
    if follow_links:
        monkeypatch.setattr(os, "open", None)  # opening some devices has side effects
    with pytest.raises(files.ABSENT):
        files.open_regular(path, follow_links=follow_links)


def test_an_unreadable_file_does_not_count_as_absent(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(os, "open", refuse)
    for follow_links in (False, True):
        with pytest.raises(PermissionError) as error:
            files.open_regular(tmp_path / "file", follow_links=follow_links)
        assert not isinstance(error.value, files.ABSENT)


@pytest.mark.parametrize(
    ("path", "is_uri"),
    [("gs://b/x.csv", True), ("s3://b", True), ("/a", False), ("a:b", False), ("a/b://c", False)],
)
def test_a_uri_is_distinguished_from_a_path(path, is_uri):
    assert files.is_uri(path) == is_uri


def test_a_file_larger_than_the_limit_is_not_read(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="at most 100 are read"):
        files.read(path, limit=100)


def test_reading_a_small_file_takes_little_memory_whatever_the_limit(tmp_path):
    (tmp_path / "small").write_bytes(b"content")
    tracemalloc.start()
    assert files.read(tmp_path / "small", limit=2**30) == b"content"
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", [os.symlink, os.link])
def test_a_link_with_the_name_of_the_temporary_file_is_not_written_through(tmp_path, kind):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    kind(precious, tmp_path / ".result.json.tmp")
    files.write_atomically(tmp_path / "result.json", b"{}")
    assert precious.read_text() == "precious"
    assert (tmp_path / "result.json").read_bytes() == b"{}"


def test_removing_a_symlink_keeps_its_target(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    files.remove(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").exists()


def test_a_held_directory_detects_that_it_was_moved_or_replaced(tmp_path):
    path = tmp_path / "a [b]*"
    path.mkdir()
    held = files.HeldDirectory(path)
    held.check()
    (held.plain / "file").write_text("here")
    path.rename(tmp_path / "moved")
    with pytest.raises(StorageError, match="can't be found any more"):
        held.check()
    path.mkdir()
    with pytest.raises(StorageError, match="another one is there now"):
        held.check()
    assert (tmp_path / "moved" / "file").exists()
    assert not any(char in str(held.plain) for char in "*[]")


def test_a_plain_name_is_valid_within_its_context(tmp_path):
    folder = tmp_path / "x[y]"
    folder.mkdir()
    (folder / "file").write_text("here")
    with files.plain_name(folder / "file") as name:
        assert pathlib.Path(name).read_text() == "here"
