"""Values of --dataset that name the user's own files."""

import pathlib

import pytest

from trainer.data import own_files
from trainer.errors import InputError


@pytest.mark.parametrize(
    ("name", "has_kind"),
    [
        ("csv:a.csv", True),
        ("folder:a", True),
        ("csv:", True),
        ("xml:a.xml", False),
        ("imdb_reviews", False),
        ("csv", False),
    ],
)
def test_a_dataset_of_own_files_starts_with_its_kind(name, has_kind):
    assert own_files.has_kind(name) == has_kind


def test_a_relative_path_is_relative_to_data_dir():
    assert own_files.parse_name("csv:a/b.csv", "/data") == ("csv", pathlib.Path("/data/a/b.csv"))
    assert own_files.parse_name("csv:/a/b.csv", "/data") == ("csv", pathlib.Path("/a/b.csv"))
    assert own_files.parse_name("reviews", None) == ("folder", pathlib.Path("reviews"))


@pytest.mark.parametrize(
    ("name", "data_dir"), [("csv:gs://b/x.csv", None), ("csv:x.csv", "gs://b"), ("csv:", None)]
)
def test_a_name_without_a_local_path_is_refused(name, data_dir):
    with pytest.raises(InputError, match=r"must name (files on this machine|a path after csv:)"):
        own_files.parse_name(name, data_dir)


def test_a_file_is_the_train_split_and_a_folder_has_a_file_per_split(tmp_path):
    for name in ("train.csv", "test.csv", "notes.txt", ".hidden.csv"):
        (tmp_path / name).touch()
    assert own_files.find("csv", tmp_path / "test.csv") == ({"train": tmp_path / "test.csv"}, True)
    by_split = {"test": tmp_path / "test.csv", "train": tmp_path / "train.csv"}
    assert own_files.find("csv", tmp_path) == (by_split, False)


def test_a_folder_of_texts_is_recognised_by_pos_and_neg(tmp_path):
    assert not own_files.is_folder("reviews", str(tmp_path))
    (tmp_path / "reviews" / "pos").mkdir(parents=True)
    assert not own_files.is_folder("reviews", str(tmp_path))
    (tmp_path / "reviews" / "neg").mkdir()
    assert own_files.is_folder("reviews", str(tmp_path)) and own_files.is_folder(f"{tmp_path}/reviews", None)
    assert not own_files.is_folder("reviews\0", str(tmp_path))
