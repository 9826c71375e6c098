"""Reviews for evaluate and predict."""

import io
import sys

import pytest

from trainer.data import review_files
from trainer.errors import InputError

GOOD = "text,label\ngood,1\n"


def rows(path, **kwargs):
    return list(review_files.read(str(path), **{"labelled": False, "bad_rows": "", **kwargs}))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_have_line_text_and_label_as_spelled(tmp_path):
    path = write(tmp_path / "a.csv", 'id,text,label\n1,"good, they ""said""\nand meant it",Pos\n2,bad,0.0\n')
    assert [(row.line, row.text, row.label) for row in rows(path, labelled=True)] == [
        (2, b'good, they "said"\nand meant it', "Pos"),
        (4, b"bad", "0.0"),
    ]
    assert [row.label for row in rows(path)] == [None, None]


def test_skipped_rows_are_summarised_in_one_warning(tmp_path, caplog):
    path = write(tmp_path / "a.csv", GOOD + ",1\nfine,0\n" + "bad\n" * 5)
    assert [row.text for row in rows(path, labelled=True)] == [b"good", b"fine"]
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert record.getMessage() == (
        f'Of {path}, 6 rows skipped: 1 row because its text is empty (first in line 3: its "text" is empty), '
        "5 rows because it has fewer fields than columns (first in line 5: it has 1 field, but the first row "
        "has 2)."
    )


def test_stop_names_the_first_bad_row_and_counts_them_all(tmp_path):
    path = write(tmp_path / "a.csv", GOOD + ",1\nfine,0\n" + "bad\n" * 5)
    with pytest.raises(
        InputError, match=r"line 3 of .* does not: .* is empty; in all there are 6 bad rows: 1 row .*, 5 rows"
    ):
        rows(path, labelled=True, bad_rows="stop")


def test_an_empty_text_is_classified_but_not_evaluated(tmp_path):
    path = write(tmp_path / "a.csv", GOOD + ",1\n")
    assert [row.text for row in rows(path)] == [b"good", b""]
    assert [row.text for row in rows(path, labelled=True)] == [b"good"]


def test_each_option_is_passed_on(tmp_path):
    path = write(tmp_path / "a.txt", "1:naïve\n0:bad\n".encode("cp1252"))
    read = rows(
        path,
        labelled=True,
        kind="csv",
        text_column="2",
        label_column="1",
        encoding="cp1252",
        delimiter=":",
        header="none",
    )
    assert [(row.text.decode(), row.label) for row in read] == [("naïve", "1"), ("bad", "0")]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_bytes_that_are_not_utf8_are_an_error_whose_remedy_works(tmp_path, name):
    line = {"a.csv": b"text\nna\xefve\n", "a.jsonl": b'{"text": "na\xefve"}\n', "a.txt": b"na\xefve\n"}[name]
    path = write(tmp_path / name, line)
    with pytest.raises(InputError, match="give --encoding=cp1252, in which all of it can be read"):
        rows(path)
    assert [row.text for row in rows(path, encoding="cp1252")] == ["naïve".encode()]


def test_standard_input_is_called_so(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good\n\nbad")))
    assert [(row.line, row.text) for row in rows("-")] == [(1, b"good"), (3, b"bad")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"na\xefve")))
    with pytest.raises(InputError, match="line 1 of standard input is not"):
        rows("-")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "blurb,verdict\nx,1\n", "must have the columns text"),
        ("a.csv", "", "must name each column"),
        ("missing.csv", None, "No such file"),
        ("folder.csv", "folder", "Is a directory"),
    ],
)
def test_an_unreadable_file_is_an_input_error(tmp_path, name, content, words):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        write(tmp_path / name, content)
    with pytest.raises(InputError, match=words):
        rows(tmp_path / name)


def test_a_review_of_one_megabyte_is_read(tmp_path):
    path = write(tmp_path / "a.csv", "text\n" + "good " * 200_000 + "\n")
    assert len(rows(path)[0].text) == 1_000_000
