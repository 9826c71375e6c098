"""A corpus, whatever its source."""

import numpy as np
import pytest
from tfds_corpus_test import open_from, texts_of

from trainer.data import splits
from trainer.data.corpus import Corpus
from trainer.errors import InputError

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
def test_labels_other_than_0_and_1_are_refused(split):
    with pytest.raises(
        InputError, match=f"Labels must be 0 or 1, but split '{split}' of listed has other labels"
    ):
        list(CORPUS.reviews(split))


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
