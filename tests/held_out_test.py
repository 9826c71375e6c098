"""Splits that are drawn from train."""

import re

import numpy as np
import pytest

from trainer.data.held_out import Draw, HeldOut, missing
from trainer.data.splits import Source
from trainer.errors import InputError

BOTH = ("validation", "test")


def source(train=100, **sizes):
    sizes = {"train": train, **sizes}

    def read(split, size):
        for start in range(0, sizes[split], size):
            numbers = np.arange(start, min(start + size, sizes[split]))
            texts = np.array([f"{split} {number}".encode() for number in numbers], object)
            yield texts, numbers % 2

    return Source(sizes, read)


def draw(of, names=BOTH, *, fraction=0.2, seed=0):
    return HeldOut(of, Draw(("train", *names), names, fraction, seed), shown="the corpus").source


def read(of, expression, size=8):
    return [text.decode() for texts, _ in of.select(expression, size) for text in texts]


def test_each_review_of_train_is_in_one_split_in_its_order():
    drawn = draw(source())
    assert drawn.sizes == {"train": 60, "validation": 20, "test": 20}
    parts = {split: read(drawn, split) for split in drawn.sizes}
    assert {split: len(part) for split, part in parts.items()} == drawn.sizes
    assert sorted(text for part in parts.values() for text in part) == sorted(read(source(), "train"))
    for part in parts.values():
        assert part == sorted(part, key=lambda text: int(text.split()[1]))


def test_labels_stay_with_their_texts_and_no_batch_is_empty_or_too_long():
    for texts, labels in draw(source()).read("test", 8):
        assert 0 < len(texts) == len(labels) <= 8
        assert [int(text.split()[1]) % 2 for text in texts] == labels.tolist()


def test_the_seed_alone_decides_whatever_the_size_of_a_batch():
    assert read(draw(source()), "test", 3) == read(draw(source()), "test", 1000)
    assert read(draw(source()), "test") != read(draw(source(), seed=1), "test")


def test_a_split_that_exists_stays_and_slices_are_of_the_resulting_splits():
    drawn = draw(source(test=30), ("validation",))
    assert drawn.sizes == {"train": 80, "validation": 20, "test": 30}
    assert read(drawn, "test") == read(source(test=30), "test")
    assert (
        read(drawn, "train[:50%]+validation[-2:]")
        == read(drawn, "train")[:40] + read(drawn, "validation")[-2:]
    )


@pytest.mark.parametrize(
    ("requested", "available", "expected"),
    [
        (("train", "validation", "test"), ("train",), ["validation", "test"]),
        (("train", "validation", "test"), ("train", "test"), ["validation"]),
        (("train[:50%]", "validation[:10]"), ("train", "test"), ["validation"]),
        (("train[:90%]", "train[90%:]", "test"), ("train", "test"), []),
        (("train", "dev"), ("train",), []),
        (("a", "validation"), ("a",), []),
    ],
)
def test_validation_and_test_are_missing_if_they_are_named_and_train_exists(requested, available, expected):
    assert missing(requested, available) == expected


def test_the_share_is_exact_to_the_review():
    assert draw(source(), ("validation",), fraction=0.29).sizes["validation"] == 29


def test_too_few_reviews_are_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"the corpus has 5, and --held_out_fraction=0\.1 of them are 0"):
        draw(source(5), fraction=0.1)


def test_what_is_drawn_and_why_is_logged(caplog):
    draw(source(), ("validation",))
    assert "validation is drawn from train, 20 of its 100 reviews, because the corpus has none" in caplog.text


def test_runs_that_name_whole_splits_have_the_identity_of_older_versions():
    assert Draw(("train", "validation", "test"), BOTH, 0.1, 7).identity == [
        7,
        0.1,
        ["test", "train", "validation"],
    ]
    assert Draw(("train[:9]", "validation"), ("validation",), 0.1, 7).identity == [
        7,
        0.1,
        ["train", "validation"],
    ]


@pytest.mark.parametrize("count", [3, 4, 5, 7, 9, 50, 99, 150])
@pytest.mark.parametrize("names", [BOTH, ("validation",)])
def test_the_fraction_that_is_offered_for_few_reviews_gives_each_split_one(count, names):
    with pytest.raises(InputError, match=r"--held_out_fraction=0\.001 of them") as error:
        draw(source(count), names, fraction=0.001)
    offered = float(re.findall(r"give --held_out_fraction=([\d.]+) ", str(error.value))[0])
    assert min(draw(source(count), names, fraction=offered).sizes.values()) >= 1
    assert 0 < offered <= 0.4 and (int(count * (offered - 0.01) + 1e-6) < 1)


def test_two_reviews_are_too_few_for_any_fraction():
    with pytest.raises(InputError, match=r"are 0; give more reviews\.$"):
        draw(source(2), fraction=0.4)
