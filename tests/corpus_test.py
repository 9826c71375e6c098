"""A corpus, whatever its source."""

import dataclasses
import gzip
import re

import numpy as np
import pytest
from tfds_corpus_test import open_from, texts_of

from trainer.data import splits
from trainer.data.corpus import Corpus
from trainer.errors import InputError
from trainer.labels import Classes

LABELS = {
    "train": np.array([0, 1, 1, 0]),
    "unlabelled": np.array([-1, -1]),
    "stars": np.array([1, 5]),
    "none": np.array([], int),
}


def sizes(split):
    parts = splits.parts(split, {name: len(labels) for name, labels in LABELS.items()})
    return [part.end - part.first for part in parts]


def batches(split):
    for label in LABELS[split]:
        yield np.array([b"text"], object), np.array([label])


CORPUS = Corpus(
    name="listed",
    version="1.0.0",
    description="",
    citation="",
    element_spec="",
    split_sizes={name: len(labels) for name, labels in LABELS.items()},
    sources=(),
    sizes=sizes,
    batches=batches,
)


def test_labels_are_uint8():
    labels = [labels for _, labels in CORPUS.reviews("train")]
    assert np.concatenate(labels).tolist() == [0, 1, 1, 0] and labels[0].dtype == np.uint8


@pytest.mark.parametrize("split", ["unlabelled", "stars"])
def test_labels_that_are_no_class_are_refused(split):
    with pytest.raises(InputError, match=f"must have labels, but split {split} has none .*listed"):
        list(CORPUS.reviews(split))


def test_more_classes_have_more_labels():
    stars = dataclasses.replace(CORPUS, classes=Classes(("a", "b", "c"), (("a",), ("b",), ("c",))))
    assert [labels.tolist() for _, labels in stars.reviews("train")] == [[0], [1], [1], [0]]
    with pytest.raises(InputError, match="split stars"):
        list(stars.reviews("stars"))


def test_the_size_of_a_split_expression_is_the_sum_of_its_parts():
    assert (CORPUS.examples("train"), CORPUS.examples("train[:75%]+stars")) == (4, 5)


@pytest.mark.parametrize("split", ["none", "train[:0]", "train[:0]+stars", "nosuch", "train[", ""])
def test_an_empty_or_unknown_split_is_refused_with_the_available_splits(split):
    with pytest.raises(
        InputError, match=r"its splits are train, unlabelled, stars, none, .* as in train\[:90%\]"
    ) as error:
        CORPUS.examples(split)
    assert repr(split) in str(error.value) and "\n" not in str(error.value)


def test_a_dataset_takes_precedence_over_a_folder_of_the_same_name(tmp_path):
    for name in ("pos", "neg"):
        (tmp_path / "tiny_reviews" / name).mkdir(parents=True)
        (tmp_path / "tiny_reviews" / name / "1.txt").write_text(name)
    assert open_from(tmp_path, "tiny_reviews").split_sizes["train"] == 100
    for name in ("tiny_reviews/", "./tiny_reviews", f"{tmp_path}/tiny_reviews"):
        assert texts_of(open_from(tmp_path, name), "train") == [b"neg", b"pos"]


@pytest.mark.parametrize("name", ["reviews.csv", "./reviews.csv", "data/reviews.tsv.gz", "data"])
def test_the_path_alone_is_enough(tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "reviews.csv").write_text("text,label\ngood,yes\nbad,no\n")
    (tmp_path / "data" / "reviews.tsv.gz").write_bytes(gzip.compress(b"text\tlabel\ngood\tyes\nbad\tno\n"))
    corpus = open_from(tmp_path, name, requested_splits=("train",))
    assert texts_of(corpus, "train") == [b"good", b"bad"] and corpus.classes.names == ("no", "yes")
    assert corpus.element_spec == "text: string, label: one of no, yes"


def test_a_misspelt_file_is_refused_with_the_name_of_the_one_that_exists(tmp_path):
    (tmp_path / "reviews.csv").write_text("text,label\ngood,yes\nbad,no\n")
    with pytest.raises(InputError, match=r"there is no 'reveiws\.csv'; did you mean (\S+)\?") as error:
        open_from(tmp_path, "reveiws.csv")
    (remedy,) = re.findall(r"did you mean (\S+)\?", str(error.value))
    assert open_from(tmp_path, remedy).split_sizes == {"train": 2}
