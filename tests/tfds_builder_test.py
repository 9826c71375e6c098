"""TFDS builders: names, features and folders."""

import os
import pathlib
import socket

import pytest
from tfds_corpus_test import open_from

from trainer.data import tfds_builder
from trainer.errors import InputError


@pytest.mark.parametrize(
    "name", ["nosuch", "imdb", "", "two words", "../tiny_reviews", "huggingface:imdb", "tiny_reviews/x=1,y=2"]
)
def test_an_unknown_dataset_is_named_and_only_the_data_folder_is_read(tmp_path, name, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", None)
    (tmp_path / "tiny_reviews").mkdir()
    os.mkfifo(tmp_path / "tiny_reviews" / "pipe.json")
    with pytest.raises(InputError, match="there is no") as error:
        open_from(tmp_path / "data", name)
    assert repr(name) in str(error.value)


def test_a_misspelt_dataset_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(InputError, match=r"did you mean imdb_reviews\?"):
        open_from(tmp_path, "imdb_review")


@pytest.mark.parametrize("name", ["tiny_reviews:7.7.7", "imdb_reviews/no_such_config"])
def test_an_unknown_version_or_config_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"--dataset={name}"):
        open_from(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "is_name", "is_known"),
    [
        ("imdb_reviews", True, True),
        ("imdb_reviews/plain_text:1.0.0", True, True),
        ("sample_reviews", True, True),
        ("nosuch", True, False),
        ("../imdb_reviews", False, False),
        ("imdb_reviews/", False, False),
        ("huggingface:imdb", False, False),
    ],
)
def test_a_name_of_tfds_is_distinguished_from_a_path(name, is_name, is_known):
    assert (tfds_builder.is_name(name), tfds_builder.is_known(name)) == (is_name, is_known)


@pytest.mark.parametrize("name", ["[x]*", "gs:"])
def test_the_plain_name_of_a_folder_is_valid_even_after_a_rename(tmp_path, name):
    path = tmp_path / name
    path.mkdir()
    (path / "file").touch()
    folder = tfds_builder.Folder(str(path))
    path.rename(tmp_path / "moved")
    assert [path.name for path in pathlib.Path(folder.name).iterdir()] == ["file"] and not set("[*:") & set(
        folder.name
    )
    assert folder.shown(f"{folder.name}/file is damaged") == f"{path}/file is damaged"


def test_the_plain_name_of_a_missing_folder_does_not_exist(tmp_path):
    folder = tfds_builder.Folder(str(tmp_path / "later"))
    (tmp_path / "later").mkdir()
    assert not pathlib.Path(folder.name).exists()


def test_errors_are_shortened_to_their_first_line_and_200_characters():
    assert tfds_builder.short(ValueError("one\ntwo")) == "one"
    assert tfds_builder.short(ValueError()) == "ValueError"
    assert len(tfds_builder.short("word " * 100)) <= 200
