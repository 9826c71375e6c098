"""Features of TFDS datasets."""

import pytest
import tensorflow_datasets as tfds
from tfds_corpus_test import open_from

from trainer.data.tfds_features import LabelNames
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE, Classes


@pytest.mark.parametrize(
    ("text", "label"),
    [("sentence", "label"), ("votes", "is_good"), ("is_good", "sentence"), ("sentence", "sentence")],
)
def test_columns_that_cannot_be_meant_are_refused_with_the_available_ones(tmp_path, text, label):
    with pytest.raises(InputError, match=r"'sentence': Text.*--text_column and --label_column"):
        open_from(tmp_path, "verdicts", text_column=text, label_column=label)


def test_a_dataset_without_texts_is_refused_before_download(tmp_path):
    with pytest.raises(InputError, match='must have a text "text" and a label "label" of 2 classes or more'):
        open_from(tmp_path, "mnist")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [["neg", "pos"], ["Negative", "Positive"], ["0", "1"], ["false", "true"]])
def test_names_of_the_two_usual_classes_are_negative_and_positive(names):
    assert LabelNames.of(tfds.features.ClassLabel(names=names)).classes() == NEGATIVE_POSITIVE
    assert LabelNames.of(tfds.features.ClassLabel(num_classes=2)).classes() == NEGATIVE_POSITIVE


def test_other_names_are_classes_in_the_order_of_the_dataset():
    names = LabelNames.of(tfds.features.ClassLabel(names=["pos", "neg"]))
    assert names.classes() == Classes(("pos", "neg"), (("0", "pos"), ("1", "neg")))
    assert names.numbers(names.classes(), ["0", "1", "-1"]) == {0: 0, 1: 1}


def test_names_that_are_numbers_of_other_labels_are_the_only_values():
    names = LabelNames.of(tfds.features.ClassLabel(names=["1", "2"]))
    assert names.classes() == Classes(("1", "2"), (("1",), ("2",)))
    assert names.numbers(names.classes(), ["0", "1"]) == {0: 0, 1: 1}


def test_given_classes_also_have_the_values_that_were_not_given():
    names = LabelNames(("bad", "fair", "good"))
    given = Classes(("low", "high"), (("0", "fair"), ("2",)))
    assert names.complete(given) == Classes(("low", "high"), (("0", "fair", "bad", "1"), ("2", "good")))


def test_more_classes_than_a_byte_holds_are_refused():
    with pytest.raises(
        InputError, match="at most 256 classes, but the dataset has 300; name some by --labels"
    ):
        LabelNames(tuple(map(str, range(300)))).classes()
