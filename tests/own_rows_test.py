"""Rows of the user's own files."""

import os

import pytest

from trainer.data.own_rows import OwnRows
from trainer.data.tables import Options
from trainer.errors import InputError


def write(path, *rows):
    path.write_text("".join(f"{row}\n" for row in ("text,label", *rows)))
    os.utime(path, (1e9, 1e9))
    return path


def test_files_are_read_one_after_the_other_and_each_row_has_its_place(tmp_path):
    files = [write(tmp_path / "a.csv", "good,1", "bad,0"), write(tmp_path / "b.csv", "fine,1")]
    rows = list(OwnRows("csv", tmp_path, Options()).read(files))
    assert [(place, row.text, row.label) for place, row in rows] == [
        ("in line 2 of a.csv", b"good", "1"),
        ("in line 3 of a.csv", b"bad", "0"),
        ("in line 2 of b.csv", b"fine", "1"),
    ]


def test_facts_change_with_a_file_and_not_with_its_folder(tmp_path):
    def facts(folder, *rows):
        folder.mkdir(exist_ok=True)
        return OwnRows("csv", folder, Options()).facts({"train": [write(folder / "a.csv", *rows)]})

    assert (
        facts(tmp_path / "x", "good,1") == facts(tmp_path / "y", "good,1") != facts(tmp_path / "y", "good,10")
    )


def test_rows_are_counted_once_until_a_file_or_how_it_is_read_changes(tmp_path, monkeypatch):
    path, cache = write(tmp_path / "a.csv", "good,1", "bad,0"), str(tmp_path / "cache")

    def count(**options):
        return OwnRows("csv", path, Options(**options)).count({"train": [path]}, cache)["train"].labels

    assert count() == {"1": 1, "0": 1}
    assert count(delimiter=",") == {"1": 1, "0": 1}
    with monkeypatch.context() as patch:
        patch.setattr(OwnRows, "read", None)
        assert count() == count(delimiter=",") == {"1": 1, "0": 1}
    write(path, "good,1", "bad,0", "bad,0")
    assert count() == {"1": 1, "0": 2}


def test_a_test_file_without_a_label_column_is_told_from_one_that_cannot_be_read(tmp_path):
    rows = OwnRows("csv", tmp_path, Options())
    (tmp_path / "test.csv").write_text("index,text\n1,good\n2,bad\n")
    with pytest.raises(InputError, match=r"split test has none .*--test_split="):
        rows.count({"test": [tmp_path / "test.csv"]}, str(tmp_path))
    with pytest.raises(InputError) as error:
        rows.count({"train": [tmp_path / "test.csv"]}, str(tmp_path))
    assert "--test_split" not in str(error.value)
    (tmp_path / "test.csv").write_bytes(b"text,label\n\xff\xfe\xfa\n")
    with pytest.raises(InputError) as error:
        rows.count({"test": [tmp_path / "test.csv"]}, str(tmp_path))
    assert "--test_split" not in str(error.value)


def test_a_label_column_that_train_lacks_too_is_an_error_of_train(tmp_path):
    files = {}
    for split in ("test", "train"):
        files[split] = [tmp_path / f"{split}.csv"]
        files[split][0].write_text("index,text\n1,good\n2,bad\n")
    with pytest.raises(InputError, match=r"train\.csv") as error:
        OwnRows("csv", tmp_path, Options()).count(files, str(tmp_path))
    assert "--test_split" not in str(error.value)


def test_files_without_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.csv"):
        OwnRows("csv", tmp_path, Options()).count({"train": [write(tmp_path / "a.csv")]}, str(tmp_path))
