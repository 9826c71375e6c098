"""Values of --dataset that name the user's own files."""

import json
import pathlib

import pytest

from trainer.data import own_files
from trainer.errors import InputError


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text,label\ngood,1\nbad,0\n")
    return root


def selected(root, *wanted, kind=""):
    """Split -> the paths of its files in `root`."""
    found = own_files.select(own_files.find(kind, root), wanted)
    return {split: [str(path.relative_to(root)) for path in paths] for split, paths in found.items()}


@pytest.mark.parametrize(
    ("name", "has_kind"),
    [
        ("csv:a.csv", True),
        ("parquet:a", True),
        ("folder:a", True),
        ("csv:", True),
        ("xml:a.xml", False),
        ("imdb_reviews", False),
        ("csv", False),
    ],
)
def test_a_dataset_of_own_files_may_start_with_its_kind(name, has_kind):
    assert own_files.has_kind(name) == has_kind


def test_a_path_without_a_kind_is_recognised_if_it_exists(tmp_path):
    make(tmp_path, "reviews.csv", "texts/1.txt")
    for name in ("reviews.csv", "./reviews.csv", "texts", f"{tmp_path}/texts", "gs://bucket/x.csv"):
        assert own_files.is_path(name, str(tmp_path)), name
    for name in ("", "missing.csv", "reviews.csv/x", "reviews\0", "x" * 300):
        assert not own_files.is_path(name, str(tmp_path)), name


def test_a_file_of_nearly_the_same_name_is_found(tmp_path):
    make(tmp_path, "data/reviews.csv")
    assert own_files.nearest("data/reveiws.csv", str(tmp_path)) == "data/reviews.csv"
    for name in ("data/movies.txt", "", "x\0", "nowhere/reviews.csv", "."):
        assert own_files.nearest(name, str(tmp_path)) is None, name


def test_a_relative_path_is_relative_to_data_dir():
    assert own_files.parse_name("csv:a/b.csv", "/data") == ("csv", pathlib.Path("/data/a/b.csv"))
    assert own_files.parse_name("csv:/a/b.csv", "/data") == ("csv", pathlib.Path("/a/b.csv"))
    assert own_files.parse_name("reviews", None) == ("", pathlib.Path("reviews"))


@pytest.mark.parametrize(
    ("name", "data_dir"),
    [("csv:gs://b/x.csv", None), ("s3://b/x.csv", None), ("csv:x.csv", "gs://b"), ("csv:", None)],
)
def test_a_name_without_a_local_path_is_refused(name, data_dir):
    with pytest.raises(InputError, match=r"must name (files on this machine|a path after csv:)"):
        own_files.parse_name(name, data_dir)


def test_a_file_is_the_train_split_and_a_folder_has_a_file_per_split(tmp_path):
    make(tmp_path, "train.csv", "test.csv", "notes.txt", ".hidden.csv")
    assert own_files.find("csv", tmp_path / "test.csv") == ("csv", {"train": [tmp_path / "test.csv"]}, True)
    assert own_files.find("", tmp_path / "test.csv").kind == "csv"
    by_split = {"test": [tmp_path / "test.csv"], "train": [tmp_path / "train.csv"]}
    assert own_files.find("csv", tmp_path) == ("csv", by_split, False)
    assert own_files.find("", tmp_path) == ("", by_split, False)


def test_only_the_splits_that_a_run_names_are_selected(tmp_path):
    make(tmp_path, "train.csv", "test.tsv.gz", "sample_submission.csv", "train (1).csv")
    assert selected(tmp_path, "train") == {"train": ["train.csv"]}
    assert selected(tmp_path, "train", "test") == {"train": ["train.csv"], "test": ["test.tsv.gz"]}
    assert selected(tmp_path, "test") == {"test": ["test.tsv.gz"]}
    assert selected(tmp_path, "validation") == {"train": ["train.csv"]}, "it is drawn from train"
    assert selected(tmp_path).keys() == {"train", "test", "sample_submission"}


@pytest.mark.parametrize("name", ["dev", "valid", "val", "Validation"])
def test_other_names_of_validation_are_known(tmp_path, name):
    make(tmp_path, "Train.jsonl", f"{name}.jsonl", "test.jsonl")
    assert selected(tmp_path, "train", "validation") == {
        "train": ["Train.jsonl"],
        "validation": [f"{name}.jsonl"],
    }
    assert selected(tmp_path, name) == {name: [f"{name}.jsonl"]}


def test_shards_of_a_split_are_read_in_their_order(tmp_path):
    shards = [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    make(
        tmp_path,
        *(f"data/{name}" for name in reversed(shards)),
        "data/test-00000-of-00001.parquet",
        "README.md",
    )
    assert selected(tmp_path, "train", "test") == {
        "train": [f"data/{name}" for name in shards],
        "test": ["data/test-00000-of-00001.parquet"],
    }


def test_the_only_file_of_a_folder_is_its_train_split_whatever_its_name(tmp_path):
    make(tmp_path / "a", "IMDB Dataset.csv", "README.md")
    make(tmp_path / "b", "reviews.csv")
    assert selected(tmp_path / "a", "train", "test") == {"train": ["IMDB Dataset.csv"]}
    assert selected(tmp_path / "b", "train", "test") == {"train": ["reviews.csv"]}
    assert selected(tmp_path / "b", "reviews") == {"reviews": ["reviews.csv"]}


def test_two_files_of_one_split_are_refused_unless_the_kind_is_stated(tmp_path):
    make(tmp_path, "train.csv", "train.jsonl", "dev.csv", "val.csv")
    with pytest.raises(InputError, match=r"train\.csv and train\.jsonl .*--dataset=csv:"):
        selected(tmp_path, "train")
    assert selected(tmp_path, "train", kind="csv") == {"train": ["train.csv"]}
    with pytest.raises(InputError, match=r"dev\.csv and val\.csv"):
        selected(tmp_path, "train", "validation", kind="csv")


def test_splits_that_do_not_exist_are_refused_with_those_that_do(tmp_path):
    make(tmp_path, "a.csv", "b.csv")
    with pytest.raises(InputError, match=r"no train among a, b; name others, as in --train_split=a\."):
        selected(tmp_path, "train")
    assert selected(tmp_path, "a") == {"a": ["a.csv"]}


@pytest.mark.parametrize(
    "classes", [("neg", "pos"), ("positive", "negative"), ("spam", "ham"), ("1", "2", "5")]
)
def test_folders_of_texts_are_classes_of_any_name(tmp_path, classes):
    make(tmp_path, *(f"all/{name}/1.txt" for name in classes), "all/urls.txt", "all/unsup/1.txt")
    assert own_files.find("", tmp_path / "all") == ("folder", {"train": [tmp_path / "all"]}, True)
    make(tmp_path, *(f"split/{split}/{name}/1.txt.gz" for split in ("train", "test") for name in classes))
    by_split = {split: [tmp_path / "split" / split] for split in ("test", "train")}
    assert own_files.find("folder", tmp_path / "split") == ("folder", by_split, False)


def test_a_folder_that_hugging_face_saved_has_the_files_that_it_lists(tmp_path):
    for split in ("train", "test"):
        make(tmp_path / split, "data-00000-of-00002.arrow", "data-00001-of-00002.arrow", "cache-1.arrow")
        listed = [{"filename": f"data-0000{number}-of-00002.arrow"} for number in range(2)]
        (tmp_path / split / "state.json").write_text(json.dumps({"_data_files": listed}))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    found = own_files.find("", tmp_path)
    assert found.kind == "arrow" and not found.is_single
    assert selected(tmp_path, "test") == {"test": [f"test/{file['filename']}" for file in listed]}
    single = own_files.find("", tmp_path / "train")
    assert single.is_single and len(single.by_split["train"]) == 2
    (tmp_path / "train" / "state.json").write_text("[]")
    with pytest.raises(InputError, match=r"state\.json must list the files"):
        own_files.find("", tmp_path)


def test_files_exist_in_a_folder_whether_their_kind_is_stated_or_not(tmp_path):
    make(tmp_path, "reviews.csv")
    for name, expected in (("reviews.csv", True), ("csv:reviews.csv", True), ("csv:other.csv", False)):
        assert own_files.exists(name, str(tmp_path)) == expected


def test_a_word_of_a_name_says_its_split_if_no_name_is_that_of_train(tmp_path):
    make(tmp_path / "a", "my_train.csv", "spam-test2.csv", "dev.csv", "notes.csv")
    expected = {"train": ["my_train.csv"], "validation": ["dev.csv"], "test": ["spam-test2.csv"]}
    assert selected(tmp_path / "a", "train", "validation", "test") == expected
    make(tmp_path / "b", "train.csv", "my_train.csv", "my_test.csv")
    assert selected(tmp_path / "b", "train", "test") == {"train": ["train.csv"]}, "test is drawn, as before"
    make(tmp_path / "c", "my_test.csv")
    assert selected(tmp_path / "c", "train", "test") == {"train": ["my_test.csv"]}
    make(tmp_path / "d", "a_train-00000-of-00002.csv", "a_train-00001-of-00002.csv", "a_test.csv")
    assert len(selected(tmp_path / "d", "train", "test")["train"]) == 2


@pytest.mark.parametrize("names", [("a_train", "b_train", "a_test"), ("train_test", "x"), ("strained", "x")])
def test_a_word_that_does_not_say_one_split_of_one_file_decides_nothing(tmp_path, names):
    make(tmp_path, *(f"{name}.csv" for name in names))
    with pytest.raises(InputError, match=r"no test or train among .*--train_split=\w*train"):
        selected(tmp_path, "train", "test")


def test_texts_without_a_suffix_are_read_where_there_is_neither_a_txt_nor_a_table(tmp_path):
    for split in ("train", "test"):
        make(tmp_path / "20news", *(f"20news-bydate-{split}/{name}/49960" for name in ("alt.a", "sci.b")))
    folders = {split: [f"20news-bydate-{split}"] for split in ("train", "test")}
    for kind in ("", "folder"):
        assert selected(tmp_path / "20news", "train", "test", kind=kind) == folders
    make(tmp_path / "table", "train.csv", "a/LICENSE", "b/LICENSE")
    assert selected(tmp_path / "table", "train") == {"train": ["train.csv"]}
