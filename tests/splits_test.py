"""Split expressions."""

import pytest

from trainer.data import splits

SIZES = {"train": 100, "test": 10}


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("train", [("train", 0, 100)]),
        ("train[:90%]", [("train", 0, 90)]),
        ("train[-3:]", [("train", 97, 100)]),
        ("test[2:5]+train[:1]", [("test", 2, 5), ("train", 0, 1)]),
        ("all", [("train", 0, 100), ("test", 0, 10)]),
    ],
)
def test_an_expression_selects_parts_of_splits(expression, parts):
    assert splits.parts(expression, SIZES) == parts


@pytest.mark.parametrize("expression", ["", "validation", "train[", "train[x:]", "train[101:]"])
def test_a_malformed_expression_is_a_value_error(expression):
    with pytest.raises(ValueError):
        splits.parts(expression, SIZES)


@pytest.mark.parametrize(
    ("name", "is_name"),
    [("train", True), ("my-test_2", True), ("all", False), ("a b", False), ("", False), ("a.b", False)],
)
def test_a_split_name_has_letters_digits_dashes_and_underscores_only(name, is_name):
    assert splits.is_name(name) == is_name
