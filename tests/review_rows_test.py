"""What a row of a table holds."""

import pytest

from trainer.data import review_rows
from trainer.data.review_rows import BadRow, BadRows, Columns, Row, make_row

LABELLED = Columns({"review": "t"}, ("stars", "l"), {"id": "i"})
UNLABELLED = LABELLED._replace(label=None)


def row_of(text, label="1", columns=LABELLED):
    return make_row(3, 7, {"t": text, "l": label, "i": 12}.get, columns)


def test_a_row_has_its_text_in_utf8_its_label_as_spelled_and_the_columns_to_keep():
    assert row_of(" naïve ", " Pos ") == Row(3, 7, " naïve ".encode(), "Pos", {"id": "12"})
    assert row_of("good", columns=UNLABELLED) == Row(3, 7, b"good", None, {"id": "12"})


@pytest.mark.parametrize(
    ("given", "label"),
    [(1, "1"), (1.0, "1.0"), (True, "true"), (False, "false"), ("1.0", "1.0"), (["pos"], "pos"), (0, "0")],
)
def test_a_label_is_written_as_text(given, label):
    assert row_of("good", given).label == label


@pytest.mark.parametrize(
    ("text", "label", "kind", "why"),
    [
        (None, 1, "it has no text", 'it has no "review"'),
        (5, 1, "its text is not a text", 'its "review" is not a text'),
        (" \n", 1, "its text is empty", 'its "review" is empty'),
        ("good", None, "it has no label", 'it has no "stars"'),
        ("good", " ", "it has no label", "its stars is ' '"),
        ("good", float("nan"), "it has no label", "its stars is nan"),
        ("good", "NA", "it has no label", "its stars is 'NA'"),
        ("good", " NaN ", "it has no label", "its stars is ' NaN '"),
        ("good", [1, 2], "its label is not one value", "its stars is [1, 2]"),
        ("good", {"a": 1}, "its label is not one value", "its stars is {'a': 1}"),
        ("good", [], "its label is not one value", "its stars is []"),
    ],
)
def test_a_bad_row_has_its_kind_its_reason_and_the_columns_to_keep(text, label, kind, why):
    assert row_of(text, label) == BadRow(3, 7, kind, why, {"id": "12"})


def test_an_empty_text_is_bad_where_no_label_is_needed_too():
    assert row_of(" ", columns=UNLABELLED).kind == "its text is empty"


def test_several_parts_of_a_text_are_joined_by_a_space():
    columns = Columns({"title": "a", "body": "b"}, None, {})
    assert make_row(1, 1, {"a": "Fine", "b": "film"}.get, columns).text == b"Fine film"
    assert make_row(1, 1, {"a": None, "b": "film"}.get, columns).text == b" film"
    assert make_row(1, 1, {}.get, columns).kind == "it has no text"


def test_a_lone_surrogate_is_replaced():
    assert review_rows.encoded("\ud83d good") == "\ufffd good".encode()


def test_bad_rows_are_counted_by_kind_with_the_first_of_each():
    bad = BadRows()
    assert len(bad) == 0
    for line, kind in ((4, "it is not JSON"), (5, "it has no label"), (9, "it is not JSON")):
        bad.add(BadRow(line - 1, line, kind, f'{kind} "a"' if "label" in kind else kind))
    assert len(bad) == 3
    assert bad.summary() == (
        "2 rows because it is not JSON (first in line 4), "
        '1 row because it has no label (first in line 5: it has no label "a")'
    )


def test_rows_come_in_chunks():
    assert list(review_rows.chunks(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]


def test_control_characters_are_escaped_for_messages():
    assert review_rows.printable("a\n\x1b[2J é") == "a\\n\\x1b[2J é"
