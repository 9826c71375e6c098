"""Reading reviews from the user's own files."""

import json

import pytest

from trainer.data import review_files
from trainer.errors import InputError


def rows(path, **kwargs):
    return list(review_files.read(str(path), **{"labelled": False, "bad_rows": "skip", **kwargs}))


def texts(path, **kwargs):
    return [row.text for row in rows(path, **kwargs)]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_txt_file_has_one_text_per_line(tmp_path, caplog):
    path = write(tmp_path / "a.txt", "good film\r\n\nbad film")
    assert [(row.line, row.text) for row in rows(path)] == [(1, b"good film"), (3, b"bad film")]
    assert "Line 2" in caplog.text


def test_csv_fields_may_quote_commas_quotes_and_newlines(tmp_path):
    path = write(tmp_path / "a.csv", 'id,text,label\n1,"good, they ""said""\nand meant it",1\n2,bad,0\n')
    assert [(row.line, row.text, row.label) for row in rows(path, labelled=True)] == [
        (2, b'good, they "said"\nand meant it', 1),
        (4, b"bad", 0),
    ]


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbftext,label\ngood,1\n")
    assert texts(path) == [b"good"]


def test_a_jsonl_file_has_one_object_per_line(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        json.dumps({"text": "good", "label": "pos"}) + "\n" + json.dumps({"label": 0, "text": "bad"}) + "\n",
    )
    assert [(row.text, row.label) for row in rows(path, labelled=True)] == [(b"good", 1), (b"bad", 0)]


@pytest.mark.parametrize(
    ("name", "row", "why"),
    [
        ("a.csv", "one,two,three", "3 fields"),
        ("a.csv", "good,perhaps", "'perhaps'"),
        ("a.csv", "good,", "its label is ''"),
        ("a.csv", " ,1", "is empty"),
        ("a.jsonl", "{", "not JSON"),
        ("a.jsonl", "[1]", "not an object"),
        ("a.jsonl", '{"label": 1}', 'no "text"'),
        ("a.jsonl", '{"text": 5, "label": 1}', '"text" is not a text'),
        ("a.jsonl", '{"text": "good", "label": 1, "text": "bad"}', "a key twice"),
        ("a.jsonl", '{"text": "good", "label": 2}', "its label is 2"),
        ("a.jsonl", "[" * 10_000, "not JSON"),
    ],
)
def test_a_bad_row_is_reported_and_skipped_or_an_error(tmp_path, caplog, name, row, why):
    good = "good,1" if name == "a.csv" else '{"text": "good", "label": 1}'
    path = write(tmp_path / name, ("text,label\n" if name == "a.csv" else good + "\n") + f"{row}\n{good}\n")
    assert texts(path, labelled=True)[-1] == b"good"
    assert "Line 2" in caplog.text
    assert why in caplog.text
    with pytest.raises(InputError, match="line 2"):
        rows(path, labelled=True, bad_rows="stop")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_bytes_that_are_not_utf8_are_kept(tmp_path, name):
    line = {"a.csv": b"text\nna\xefve\n", "a.jsonl": b'{"text": "na\xefve"}\n', "a.txt": b"na\xefve\n"}[name]
    assert texts(write(tmp_path / name, line)) == [b"na\xefve"]


def test_a_lone_surrogate_in_json_is_replaced(tmp_path):
    assert texts(write(tmp_path / "a.jsonl", '{"text": "\\ud83d good"}\n')) == ["\ufffd good".encode()]


def test_a_review_of_one_megabyte_is_read(tmp_path):
    assert len(texts(write(tmp_path / "a.csv", "text\n" + "good " * 200_000 + "\n"))[0]) == 1_000_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.xlsx", "", r"\.csv or \.tsv or \.jsonl or \.txt"),
        ("a.csv", "review,score\nx,1\n", "must name each column, text"),
        ("a.csv", "", "must name each column"),
        ("missing.csv", None, "No such file"),
        ("folder.csv", "folder", "Is a directory"),
    ],
)
def test_an_unreadable_or_unsupported_file_is_an_input_error(tmp_path, name, content, words):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        write(tmp_path / name, content)
    with pytest.raises(InputError, match=words):
        rows(tmp_path / name)


def test_a_txt_file_cannot_have_labels(tmp_path):
    with pytest.raises(InputError, match=r"\.csv or \.tsv or \.jsonl, but"):
        rows(write(tmp_path / "a.txt", "good"), labelled=True)


def test_a_tsv_is_a_csv_with_tabs_and_columns_can_be_chosen_by_name(tmp_path):
    path = write(tmp_path / "a.tsv", 'Stars\tReview\n1\t"good,\tand quoted"\n0\tbad\n')
    read = rows(path, labelled=True, text_column="review", label_column="stars")
    assert read == [(2, b"good,\tand quoted", 1), (3, b"bad", 0)]


def test_an_unclosed_quote_is_reported_and_does_not_swallow_the_next_rows(tmp_path, caplog):
    path = write(tmp_path / "a.csv", 'text,label\ngood,1\n"bad,0\n' + "good,1\n" * 5)
    assert [row.line for row in rows(path, labelled=True)] == [2]
    assert "Line 3" in caplog.text
    assert "never closes" in caplog.text
