"""Files that are whole after a kill, and are read without trust."""

import pytest

from trainer import StorageError, files


def test_a_file_is_replaced_whole_and_nothing_else_stays(tmp_path):
    path = tmp_path / "result.json"
    files.write_atomically(path, b"old")
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"result\.json"):
        files.write_atomically(tmp_path / "missing" / "result.json", b"")


def test_a_line_is_appended_after_whole_lines_only(tmp_path):
    path = tmp_path / "starts.jsonl"
    files.append_line(path, "one")
    with path.open("ab") as file:
        file.write(b"torn by a ki")
    files.append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"


def test_removing_what_is_not_there_is_fine(tmp_path):
    files.remove(tmp_path / "missing" / "folder")
