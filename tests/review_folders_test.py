"""Folders of texts."""

import gzip
import os
import pathlib

import pytest

from trainer.data import review_folders
from trainer.data.tables import BadRow
from trainer.errors import InputError


def make(folder, *names):
    """Writes files whose text is their own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def read(folder, encoding=""):
    rows = review_folders.read(review_folders.texts_of(folder), encoding)
    return [(row.text.decode(), row.label) for _, row in rows]


def test_files_are_in_natural_order_and_the_first_class_is_first_for_equal_names(tmp_path):
    names = ("neg/2.txt", "pos/2.txt", "neg/10_9.txt", "neg/10_10.txt", "pos/0100.txt", "pos/a1.txt")
    assert read(make(tmp_path, *reversed(names))) == [(name, name[:3]) for name in names]


@pytest.mark.parametrize("reverse", [False, True])
def test_names_with_equal_numbers_have_one_order_on_any_filesystem(tmp_path, monkeypatch, reverse):
    names = ("neg/01.txt", "neg/1.txt", "pos/001.txt", "pos/01.txt", "pos/1.txt")
    make(tmp_path, *names)
    listed = pathlib.Path.iterdir
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda folder: sorted(listed(folder), reverse=reverse))
    assert [name for name, _ in read(tmp_path)] == list(names)


def test_classes_are_the_folders_that_hold_texts(tmp_path):
    make(
        tmp_path,
        "10/1.txt",
        "2/1.txt.gz",
        "empty/notes.md",
        "unsup/1.txt",
        "train/1.txt",
        ".git/1.txt",
        "1.txt",
    )
    assert review_folders.classes_of(tmp_path) == ["2", "10"]
    assert review_folders.classes_of(tmp_path / "1.txt") == []


def test_hidden_files_and_files_of_other_types_are_ignored(tmp_path):
    names = ("neg/1.txt", "pos/1.txt", "pos/._1.txt", "pos/.DS_Store", "pos/notes.md", "urls.txt")
    assert len(read(make(tmp_path, *names))) == 2


def test_a_byte_order_mark_is_skipped_and_a_compressed_text_is_read(tmp_path):
    make(tmp_path, "neg/1.txt", "pos/1.txt")
    (tmp_path / "pos" / "1.txt").write_bytes(b"\xef\xbb\xbfgood\r\nfilm\n")
    (tmp_path / "pos" / "2.txt.gz").write_bytes(gzip.compress(b"fine"))
    assert read(tmp_path)[1:] == [("good\r\nfilm\n", "pos"), ("fine", "pos")]


def test_texts_have_the_encoding_that_is_given(tmp_path):
    make(tmp_path, "neg/1.txt", "pos/1.txt")
    (tmp_path / "pos" / "1.txt").write_bytes("naïve".encode("cp1252"))
    with pytest.raises(InputError, match=r"pos/1\.txt.*--encoding="):
        read(tmp_path)
    assert read(tmp_path, "cp1252")[1] == ("naïve", "pos")


def test_an_empty_text_is_a_bad_row_that_names_its_file(tmp_path):
    make(tmp_path, "neg/1.txt", "pos/1.txt")
    (tmp_path / "neg" / "1.txt").write_text(" \n")
    (place, row), _ = review_folders.read(review_folders.texts_of(tmp_path), "")
    assert isinstance(row, BadRow) and place == str(tmp_path / "neg" / "1.txt")


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path):
    make(tmp_path, "neg/1.txt", "pos/1.txt")
    os.mkfifo(tmp_path / "pos" / "2.txt")
    with pytest.raises(InputError, match=r"must be a file, but .*2\.txt is not one"):
        read(tmp_path)


def test_all_texts_below_a_folder_are_in_the_natural_order_of_their_paths(tmp_path):
    names = ["1.txt", "2/10.txt.gz", "10/2.txt", "10/10.txt", "a.txt"]
    make(tmp_path, *names, ".hidden/1.txt", "2/.1.txt", "2/note.md")
    found = [str(path.relative_to(tmp_path)) for path in review_folders.texts_below(tmp_path)]
    assert found == names
    with pytest.raises(InputError, match="missing is not: No such file"):
        review_folders.texts_below(tmp_path / "missing")


def test_a_text_that_is_not_all_utf8_is_a_bad_row(tmp_path):
    path = tmp_path / "1.txt"
    path.write_bytes("très naïve ".encode() * 10 + b"caf\xe9")
    row = review_folders.row_of(1, review_folders.open_text(path), "")
    assert (row.line, row.kind) == (1, "it is not all UTF-8")


def test_upper_case_suffixes_count(tmp_path):
    names = ["neg/1.TXT", "pos/2.txt"]
    assert [name for name, _ in read(make(tmp_path, *names))] == names


def test_names_without_a_suffix_or_with_a_number_or_a_digest_are_texts_where_there_is_no_txt(tmp_path):
    names = ["ham/0001.ea7e79d3153e7469", "spam/0002.15", "spam/49960"]
    make(tmp_path, *names, "ham/.hidden", "ham/a.html", "ham/main.c", "ham/folder/1", "other/a.md")
    assert [name for name, _ in read(tmp_path)] == names
    assert review_folders.plain_classes_of(tmp_path) == ["ham", "spam"]
    assert [path.name for path in review_folders.unread_of(tmp_path)] == ["a.html", "main.c"]
    make(tmp_path, "spam/1.txt")
    assert read(tmp_path) == [("spam/1.txt", "spam")]
    assert review_folders.plain_classes_of(tmp_path) == []
