"""Where a run's reviews are, from any working directory."""

import dataclasses
import pathlib
import shutil

import pytest

from trainer import places
from trainer.config import Config
from trainer.run.records import append_start

NOWHERE = {"cwd": "", "data_dir": "", "tfds_data_dir": ""}


@pytest.fixture
def run(tmp_path):
    """The directory of a run."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def record(run, **folders):
    recorded = {**NOWHERE, **{name: str(folder) for name, folder in folders.items()}}
    facts = {"steps_recomputed_at_least": 0, "steps_per_epoch": 8, "stores": {}}
    append_start(run, step=0, places=recorded, **facts)


def found(run, dataset, **given):
    config = Config(workdir=str(run), dataset=dataset, **given)
    changed = places.where_trained(config, given)
    assert dataclasses.replace(changed, data_dir=config.data_dir) == config
    return changed.data_dir


def make(folder, name="reviews.csv"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("text,label\ngood,1\n")
    return folder


def test_the_folders_of_a_process_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", "~/tfds")
    config = Config(workdir="run", data_dir="data")
    assert places.of_process(config) == {
        "cwd": str(tmp_path),
        "data_dir": str(tmp_path / "data"),
        "tfds_data_dir": str(pathlib.Path("~/tfds").expanduser()),
    }
    monkeypatch.delenv("TFDS_DATA_DIR")
    here = places.of_process(Config(workdir="run", data_dir="gs://bucket/data"))
    assert (here["data_dir"], here["tfds_data_dir"]) == ("gs://bucket/data", "")


def test_a_working_directory_that_was_deleted_is_none(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    assert places.of_process(Config(workdir="/run", data_dir="data"))["cwd"] == ""


@pytest.mark.parametrize("dataset", ["reviews.csv", "csv:reviews.csv"])
def test_own_files_are_where_the_newest_start_that_has_them_found_them(run, tmp_path, dataset):
    record(run, cwd=make(tmp_path / "a"))
    assert found(run, dataset) == str(tmp_path / "a")
    record(run, cwd="/", data_dir=make(tmp_path / "b"))
    assert found(run, dataset) == str(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    assert found(run, dataset) == str(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    assert found(run, dataset) == ""


def test_a_dataset_of_tfds_is_in_the_folder_that_training_named(run, tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    record(run, cwd=make(tmp_path / "a"), tfds_data_dir=tmp_path / "a")
    assert found(run, "imdb_reviews") == str(tmp_path / "a")
    record(run, cwd="/", data_dir=make(tmp_path / "b"), tfds_data_dir=tmp_path / "a")
    assert found(run, "imdb_reviews") == str(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    assert found(run, "imdb_reviews") == str(tmp_path / "a")


def test_a_tfds_data_dir_that_is_set_now_wins(run, tmp_path, monkeypatch):
    record(run, tfds_data_dir=make(tmp_path / "a"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "b"))
    assert found(run, "imdb_reviews") == ""


def test_what_the_command_line_names_stays(run, tmp_path):
    record(run, cwd=make(tmp_path / "a"))
    assert found(run, "reviews.csv") == str(tmp_path / "a")
    assert found(run, "reviews.csv", data_dir="b") == "b"
    config = Config(workdir=str(run), dataset="reviews.csv")
    assert places.where_trained(config, {"dataset": "reviews.csv"}).data_dir == ""


def test_a_run_that_recorded_nothing_is_read_as_the_command_line_says(run):
    assert found(run, "reviews.csv") == ""
    record(run)
    assert found(run, "reviews.csv") == ""
