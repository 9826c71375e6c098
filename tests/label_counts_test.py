"""Counts of labels and of bad rows."""

import json

import pytest

from trainer.data import label_counts
from trainer.data.label_counts import Counts, Kept
from trainer.data.tables import BadRow, Row
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE


def rows(*labels):
    """Rows with these labels; None makes a bad one."""
    return [
        (
            f"in line {number}",
            Row(number, number, b"text", label) if label else BadRow(number, number, "bad", "why"),
        )
        for number, label in enumerate(labels, start=1)
    ]


def test_labels_are_counted_as_they_are_spelled_and_bad_rows_by_kind():
    counts = label_counts.count(rows("pos", "Pos", None, "pos", None))
    assert counts == Counts({"pos": 2, "Pos": 1}, {"bad": (2, "in line 3: why")})
    assert counts.rows == 5 and counts.size(NEGATIVE_POSITIVE) == 3


def test_a_column_of_texts_is_counted_in_bounded_memory_and_refused():
    counts = label_counts.count_labels(f"{number} {'x' * 1000}" for number in range(12_000))
    assert (len(counts.labels), counts.others, counts.rows) == (10_000, 2000, 12_000)
    for given in ("", "1,2"):
        with pytest.raises(InputError, match="at most 256"):
            label_counts.classes_of({"train": counts}, given)
    assert len(label_counts.spelled("x" * 10**6)) == 200


@pytest.mark.parametrize("split", ["test", "validation", "extra"])
@pytest.mark.parametrize("counts", [Counts({"-1": 3}, {}), Counts({}, {"it has no label": (3, "")})])
def test_a_split_without_labels_is_refused_if_others_have_some(split, counts):
    labelled = Counts({"0": 3, "1": 2}, {})
    with pytest.raises(InputError, match=f"but split {split} has none"):
        label_counts.check_labelled({"train": labelled, split: counts})
    label_counts.check_labelled({"train": labelled, split: Counts({"-1": 3, "1": 2}, {})})
    label_counts.check_labelled({"train": labelled, split: Counts({}, {"it is not JSON": (3, "")})})


def test_one_label_is_not_enough_and_each_split_needs_a_review_of_the_classes():
    with pytest.raises(InputError, match="all reviews have the label 7"):
        label_counts.classes_of({"train": Counts({"7": 3}, {})}, "")
    counts = {"train": Counts({"1": 3, "2": 1}, {}), "test": Counts({"3": 2}, {})}
    with pytest.raises(InputError, match=r"but test has none: its labels are 3 \(2\)"):
        label_counts.classes_of(counts, "1,2")


def test_what_is_left_out_is_counted_over_all_splits():
    counts = [
        Counts({"1": 3, "3": 1}, {"bad": (2, "")}),
        Counts({"3": 2}, {"bad": (1, ""), "worse": (1, "")}),
    ]
    assert label_counts.left_out(counts, NEGATIVE_POSITIVE) == {"3": 3}
    assert label_counts.skipped(counts) == {"bad": 3, "worse": 1}


def test_the_first_bad_row_of_a_kind_is_that_of_the_first_split():
    counts = [Counts({"1": 3}, {"bad": (2, "in line 1: a")}), Counts({}, {"bad": (1, "in line 7: b")})]
    with pytest.raises(InputError, match=r"but 3 of 6 rows of x do not: 3 where bad \(first in line 1: a\)"):
        label_counts.check_rows(counts, "x")
    label_counts.check_rows([Counts({"1": 3}, {})], "x")


def test_labels_are_listed_with_the_most_frequent_first():
    assert label_counts.listed({"a": 1, "b": 3, "c": 1}, 2) == "b (3), a (1) and 1 more"


COUNTS = Counts({"pos": 2}, {"bad": (1, "why")}, 5)


def test_counts_are_kept_in_the_cache(tmp_path):
    kept = Kept(str(tmp_path))
    assert kept.read(["a"]) is None
    kept.write(["a"], COUNTS)
    assert (kept.read(["a"]), kept.read(["b"])) == (COUNTS, None)


@pytest.mark.parametrize("content", ["", "[1]", "null", '{"train": 900}', '{"counts": {"train": 9}}', "\0\0"])
def test_damaged_counts_are_not_used(tmp_path, content):
    kept = Kept(str(tmp_path))
    kept.write(["a"], COUNTS)
    (path,) = (tmp_path / "counts").iterdir()
    path.write_text(content)
    assert kept.read(["a"]) is None


@pytest.mark.parametrize(
    "counts", [{}, [], [{}], [[], {}, 0], [{"pos": 0}, {}, 0], [{"pos": True}, {}, 0], [{"pos": "2"}, {}, 0]]
)
def test_counts_of_another_form_are_not_used(tmp_path, counts):
    kept = Kept(str(tmp_path))
    kept.write(["a"], COUNTS)
    (path,) = (tmp_path / "counts").iterdir()
    path.write_text(json.dumps({"counts": counts, "sha256": label_counts.digest(counts)}))
    assert kept.read(["a"]) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "counts").write_text("")
    Kept(str(tmp_path)).write(["a"], COUNTS)
    assert Kept(str(tmp_path)).read(["a"]) is None
