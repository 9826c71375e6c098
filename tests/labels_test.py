"""The classes that labels have."""

import pytest

from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE, Classes, find_classes


def classes_of(*labels, given=""):
    return find_classes({label: labels.count(label) for label in labels}, given)


@pytest.mark.parametrize(
    "labels",
    [("0", "1"), ("neg", "pos"), ("Positive", "NEGATIVE", " pos"), ("0.0", "1.0"), ("True", "False"), ("1",)],
)
def test_labels_that_mean_negative_and_positive_are_these_classes(labels):
    assert classes_of(*labels) == NEGATIVE_POSITIVE


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("10", "9", "2"), ("2", "9", "10")),
        (("1", "-1"), ("-1", "1")),
        (("4", "0"), ("0", "4")),
        (("yes", "no"), ("no", "yes")),
        (("good", "bad"), ("bad", "good")),
        (("+", "-"), ("-", "+")),
        (("fresh", "rotten"), ("rotten", "fresh")),
        (("LABEL_10", "LABEL_2", "LABEL_1"), ("LABEL_1", "LABEL_2", "LABEL_10")),
        (("Sports", "sports", "Sports", "World"), ("Sports", "World")),
        (("neg", "neu", "pos"), ("neg", "neu", "pos")),
    ],
)
def test_other_labels_are_a_class_each_in_natural_order(labels, names):
    assert classes_of(*labels).names == names


def test_two_classes_have_one_logit_and_more_have_one_each():
    assert classes_of("a", "b").logits == 1
    assert classes_of("a", "b", "c").logits == 3


@pytest.mark.parametrize(
    ("label", "number"),
    [("neg", 0), (" Positive ", 1), (0, 0), (1, 1), (True, 1), ("0.0", 0), ("maybe", None)],
)
def test_a_label_means_its_class_or_none(label, number):
    assert NEGATIVE_POSITIVE.number_of(label) == number


def test_given_labels_decide_the_order():
    assert classes_of("pos", "neg", given="pos,neg").names == ("pos", "neg")


def test_given_labels_merge_values_and_leave_others_out():
    classes = classes_of(*"12345", given="negative=1,2;positive=4,5")
    assert classes.names == ("negative", "positive")
    assert [classes.number_of(value) for value in ("1", 2, "3", "4.0", "5")] == [0, 0, None, 1, 1]


@pytest.mark.parametrize(
    "given",
    ["neg", "neg,neg", "a=0;b=", "=0;b=1", "a=0;a=1", "a=0;b=0", ",", "neg,maybe", "negative=0;other=7"],
)
def test_given_labels_that_are_malformed_or_absent_are_refused(given):
    with pytest.raises(InputError, match="--labels must name"):
        classes_of("0", "1", "neg", given=given)


def test_free_text_as_labels_is_refused():
    with pytest.raises(InputError, match="30 different ones, such as answer 0, answer 1"):
        classes_of(*(f"answer {number}" for number in range(30)))
    with pytest.raises(InputError, match="at most 256, but 1000 reviews have 300"):
        classes_of(*(str(number % 300) for number in range(1000)))


def test_classes_written_as_json_are_read_as_the_same():
    for classes in (NEGATIVE_POSITIVE, classes_of(*"31425", given="low=1,2;high=5")):
        assert Classes.from_json(classes.to_json()) == classes


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"a": ["0"]}'])
def test_malformed_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        Classes.from_json(text)
