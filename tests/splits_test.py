"""Split expressions."""

import numpy as np
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


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [(["train"], {"train"}), (["train[:90%]+test", "train[90%:]"], {"train", "test"}), ([""], set())],
)
def test_expressions_name_splits(expressions, expected):
    assert splits.names(expressions) == expected


@pytest.mark.parametrize(
    "expression", ["train", "train[7:23]", "test+train[-3:]", "test[4:]+test[:2]", "all"]
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_source_selects_what_an_expression_names_in_batches_of_bounded_size(expression, size):
    def read(split, size):
        for start in range(0, SIZES[split], size):
            numbers = np.arange(start, min(start + size, SIZES[split]))
            yield np.array([f"{split} {number}" for number in numbers], object), numbers

    batches = list(splits.Source(SIZES, read).select(expression, size))
    assert all(0 < len(texts) == len(labels) <= size for texts, labels in batches)
    expected = [
        f"{part.split} {number}"
        for part in splits.parts(expression, SIZES)
        for number in range(part.first, part.end)
    ]
    assert [text for texts, _ in batches for text in texts] == expected
