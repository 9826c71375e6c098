"""Folders of texts."""

import os
import pathlib

import pytest

from trainer.data import review_folders
from trainer.errors import InputError


def make(folder, *names):
    """Writes files whose text is their own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def read(folder):
    return [(row.text.decode(), row.label) for row in review_folders.read(folder)]


def test_files_are_in_natural_order_and_neg_is_first_for_equal_names(tmp_path):
    names = ("neg/2.txt", "pos/2.txt", "neg/10_9.txt", "neg/10_10.txt", "pos/0100.txt", "pos/a1.txt")
    assert read(make(tmp_path, *reversed(names))) == [(name, int(name.startswith("pos"))) for name in names]


@pytest.mark.parametrize("reverse", [False, True])
def test_names_with_equal_numbers_have_one_order_on_any_filesystem(tmp_path, monkeypatch, reverse):
    names = ("neg/01.txt", "neg/1.txt", "pos/001.txt", "pos/01.txt", "pos/1.txt")
    make(tmp_path, *names)
    listed = pathlib.Path.iterdir
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda folder: sorted(listed(folder), reverse=reverse))
    assert [name for name, _ in read(tmp_path)] == list(names)


def test_hidden_files_and_files_of_other_types_are_ignored(tmp_path):
    assert (
        len(
            read(
                make(
                    tmp_path,
                    "neg/1.txt",
                    "pos/1.txt",
                    "pos/._1.txt",
                    "pos/.DS_Store",
                    "pos/notes.md",
                    "urls.txt",
                )
            )
        )
        == 2
    )


def test_a_byte_order_mark_is_skipped(tmp_path):
    make(tmp_path, "neg/1.txt", "pos/1.txt")
    (tmp_path / "pos" / "1.txt").write_bytes(b"\xef\xbb\xbfgood\r\nfilm\n")
    assert read(tmp_path)[1] == ("good\r\nfilm\n", 1)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    make(tmp_path, "neg/1.txt", "pos/1.txt")
    os.mkfifo(tmp_path / "pos" / "2.txt")
    with pytest.raises(InputError, match=r"must be a file, but .*2\.txt is not one"):
        read(tmp_path)


def test_a_folder_with_one_class_has_only_that_class(tmp_path):
    assert review_folders.classes_of(make(tmp_path, "pos/1.txt")) == ["pos"]
