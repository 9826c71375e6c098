"""Reviews for evaluate and predict."""

import gzip
import io
import json
import pathlib
import sys

import pyarrow
import pyarrow.parquet
import pytest

from trainer.data import review_files
from trainer.data.review_files import BadRow, Row, Style
from trainer.data.tables import Options
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE

GOOD = "text,label\ngood,1\n"


def opened(path, *, bad_rows="", keep=(), classes=None, kind="", usual=None, **given):
    style = Style(Options(**given), Options(**{**(usual or {}), **given}), kind)
    return review_files.open_input(str(path), style, classes=classes, bad_rows=bad_rows, keep=keep)


def rows(path, **given):
    return list(opened(path, **given).rows())


def labelled(path, **given):
    return rows(path, classes=NEGATIVE_POSITIVE, **given)


def texts(path, **given):
    return [row.text.decode() if isinstance(row, Row) else row.kind for row in rows(path, **given)]


def write(path, content):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def pipe(monkeypatch):
    """Gives bytes on standard input."""
    return lambda content: monkeypatch.setattr(
        sys,
        "stdin",
        io.TextIOWrapper(io.BytesIO(content if isinstance(content, bytes) else content.encode())),
    )


def parquet(names):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(names), file)
    return file.getvalue()


def test_rows_have_number_line_text_and_label_as_spelled(tmp_path):
    path = write(tmp_path / "a.csv", 'id,text,label\n1,"good, they ""said""\nand meant it",Pos\n2,bad,0.0\n')
    assert [row[:4] for row in labelled(path)] == [
        (1, 2, b'good, they "said"\nand meant it', "Pos"),
        (2, 4, b"bad", "0.0"),
    ]
    assert [row.label for row in rows(path)] == [None, None]


def test_bad_rows_are_in_their_place_and_counted_in_one_warning(tmp_path, caplog):
    path = write(tmp_path / "a.csv", GOOD + ",1\nfine,0\nso so,3\n" + "bad\n" * 5)
    found = labelled(path)
    assert [row.number for row in found] == list(range(1, 10))
    assert [row.number for row in found if isinstance(row, Row)] == [1, 3]
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert record.getMessage() == (
        f"Of 9 rows in {path}, 7 could not be evaluated: "
        '1 row because its text is empty (first in line 3: its "text" is empty), '
        "1 row because its label means no class of the run (first in line 5: its label is '3'), "
        "5 rows because it has fewer fields than columns (first in line 6: it has 1 field, but the first row "
        "has 2)."
    )


def test_stop_names_the_first_bad_row_and_counts_them_all(tmp_path):
    path = write(tmp_path / "a.csv", GOOD + ",1\nfine,0\n" + "bad\n" * 5)
    with pytest.raises(
        InputError,
        match=r"line 3 of .* does not: .* is empty; in all, 6 rows can't be used: 1 row .*, 5 rows",
    ):
        labelled(path, bad_rows="stop")


def test_labels_that_all_mean_no_class_are_an_error_whose_remedy_is_named(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\ngood,5\nbad,3\n")
    with pytest.raises(
        InputError, match=r"of 2 rows of .*a\.csv none does: .*--labels='negative=0;positive=1'"
    ):
        labelled(path)


def test_an_empty_text_is_bad_in_every_kind(tmp_path):
    for name, content in (
        ("a.csv", GOOD + ",1\n"),
        ("a.txt", "good\n\n"),
        ("a.json", '[{"text": "good"}, {"text": " "}]'),
        ("a.parquet", parquet({"text": ["good", ""]})),
    ):
        assert texts(write(tmp_path / name, content)) == ["good", "its text is empty"]


def test_each_option_is_passed_on(tmp_path):
    path = write(tmp_path / "a.txt", "1:naïve\n0:bad\n".encode("cp1252"))
    options = {"text_column": "2", "label_column": "1", "encoding": "cp1252", "delimiter": ":"}
    read = labelled(path, kind="csv", header="none", **options)
    assert [(row.text.decode(), row.label) for row in read] == [("naïve", "1"), ("bad", "0")]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_bytes_that_are_not_utf8_are_an_error_whose_remedy_works(tmp_path, name):
    line = {"a.csv": b"text\nna\xefve\n", "a.jsonl": b'{"text": "na\xefve"}\n', "a.txt": b"na\xefve\n"}[name]
    path = write(tmp_path / name, line)
    with pytest.raises(InputError, match="give --encoding=cp1252, in which all of it can be read"):
        rows(path)
    assert texts(path, encoding="cp1252") == ["naïve"]


class TestStyle:
    """What the run was trained with holds where the reviews fit; what the user states holds in any case."""

    USUAL = {"text_column": "review", "label_column": "sentiment", "delimiter": ";"}  # noqa: RUF012

    @pytest.mark.parametrize(
        "content",
        [
            "text;review;sentiment\nbad;good;1\n",
            "text,review,sentiment\nbad,good,1\n",
            "text,label\ngood,1\n",
            "label\ttext\n1\tgood\n",
            '{"label": 1, "text": "good"}\n',
            '{"sentiment": 1, "review": "good", "text": "bad"}\n',
            parquet({"text": ["good"], "label": [1]}),
        ],
    )
    def test_columns_are_those_of_the_run_or_recognised(self, tmp_path, content):
        path = write(tmp_path / "a", content)
        assert [(row.text, row.label) for row in labelled(path, usual=self.USUAL)] == [(b"good", "1")]
        assert texts(path, usual=self.USUAL) == ["good"]

    def test_a_stated_column_is_not_replaced(self, tmp_path):
        path = write(tmp_path / "a.csv", "text,review\nbad,good\n")
        assert texts(path, usual=self.USUAL, text_column="text") == ["bad"]
        with pytest.raises(InputError, match="must have the columns body"):
            texts(path, usual=self.USUAL, text_column="body")

    def test_if_nothing_fits_the_columns_of_the_run_are_named(self, tmp_path):
        with pytest.raises(InputError, match=r"must have the columns review, .*--text_column=blurb"):
            rows(write(tmp_path / "a.csv", "blurb,verdict\nfine film,1\n"), usual=self.USUAL)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    @pytest.mark.parametrize("is_piped", [False, True])
    def test_an_encoding_of_the_run_does_not_hold_for_what_is_recognised(
        self, tmp_path, pipe, encoding, is_piped
    ):
        content = "text\nnaïve\n".encode(encoding)
        path = "-" if is_piped else write(tmp_path / "a.csv", content)
        pipe(content)
        assert texts(path, usual={"encoding": "cp1252"}) == ["naïve"]

    def test_a_late_byte_decides_the_encoding_of_a_file(self, tmp_path):
        path = write(tmp_path / "a.txt", ("good\n" * 300_000 + "naïve\n").encode("cp1252"))
        assert texts(path, usual={"encoding": "cp1252"})[-1] == "naïve"

    @pytest.mark.parametrize("encoding", ["utf-16-le", "iso2022_jp"])
    def test_encodings_that_look_like_utf8_hold(self, tmp_path, encoding):
        path = write(tmp_path / "a.txt", "映画\ngood\n".encode(encoding))
        assert texts(path, usual={"encoding": encoding}) == ["映画", "good"]


class TestStandardInput:
    """What comes from a pipe is recognised by its content."""

    @pytest.mark.parametrize(
        "content",
        [
            "text,label\ngood,1\nbad,0\n",
            "label;Review\n1;good\n0;bad\n",
            "text\ngood\nbad\n",
            '{"text": "good"}\n{"text": "bad"}\n',
            '[{"text": "good"},\n {"text": "bad"}]',
            "good\nbad\n",
            gzip.compress(b"label\ttext\n1\tgood\n0\tbad\n", mtime=0),
            parquet({"text": ["good", "bad"]}),
        ],
    )
    def test_its_kind_is_noticed(self, pipe, content):
        pipe(content)
        assert texts("-", usual={"text_column": "body"}) == ["good", "bad"]

    def test_a_text_that_merely_names_a_column_is_no_table(self, pipe):
        pipe("Text, and more of it\nreview of a text\n")
        assert len(texts("-")) == 2
        pipe("content, review\nof one cell\nof another\n")
        assert len(texts("-")) == 3

    def test_a_kind_that_is_stated_is_not_recognised(self, pipe):
        pipe(GOOD)
        assert texts("-", kind="txt") == ["text,label", "good,1"]

    def test_it_is_called_so(self, pipe):
        pipe(b"na\xefve")
        with pytest.raises(InputError, match="line 1 of standard input is not"):
            rows("-")


class TestColumnsToKeep:
    """Columns go along with the texts, so that answers can be joined with what was read."""

    def test_an_identifier_is_kept_unasked(self, tmp_path):
        path = write(tmp_path / "a.csv", "ID,text,stars\nx1,good,5\nx2,,1\n")
        reviews = opened(path, keep=("stars",))
        assert reviews.kept == ("id", "stars")
        assert [row.kept for row in reviews.rows()] == [
            {"id": "x1", "stars": "5"},
            {"id": "x2", "stars": "1"},
        ]
        assert opened(path, keep=("Id", "stars", "stars")).kept == ("Id", "stars")

    def test_they_come_from_objects_as_well(self, tmp_path):
        path = write(tmp_path / "a.jsonl", json.dumps({"id": 7, "text": "good", "stars": None}) + "\n{\n")
        good, bad = rows(path, keep=("stars",))
        assert (good.kept, bad.kept) == ({"id": "7", "stars": ""}, {})

    def test_an_unknown_one_is_an_error_that_lists_the_others(self, tmp_path):
        path = write(tmp_path / "a.csv", GOOD)
        with pytest.raises(InputError, match=r"--keep_columns=stars was given; .* are text \(good\), label"):
            opened(path, keep=("stars",), usual={"text_column": "review"})

    def test_lines_and_folders_of_texts_have_none(self, tmp_path):
        for path, what in (
            (write(tmp_path / "a.txt", "good\n"), "text in lines"),
            (write(tmp_path / "b" / "1.txt", "good").parent, "a folder of texts"),
        ):
            with pytest.raises(InputError, match=f"--keep_columns=stars was given, and .* is {what}"):
                opened(path, keep=("stars",))


class TestFolders:
    """Folders of texts, and folders with a table."""

    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("pos/10.txt", "pos/9.txt", "neg/2.txt", "meh/1.txt", "loose.txt", ".hidden/1.txt"):
            write(tmp_path / "in" / name, name if name != "pos/10.txt" else " \n")
        write(tmp_path / "in" / "note.pdf", "%PDF")
        return tmp_path / "in"

    def test_all_texts_are_read_in_natural_order_and_named(self, folder, caplog):
        reviews = opened(folder)
        found = list(reviews.rows())
        assert [row.kept["file"] for row in found] == [
            "loose.txt",
            "meh/1.txt",
            "neg/2.txt",
            "pos/9.txt",
            "pos/10.txt",
        ]
        assert [row.number for row in found] == [1, 2, 3, 4, 5]
        assert [reviews.place_of(row) for row in found if isinstance(row, BadRow)] == ["pos/10.txt"]
        assert (reviews.kept, reviews.has_lines) == (("file",), False)
        assert "1 row because the text is empty (first in pos/10.txt: it is empty)" in caplog.text

    def test_the_folders_of_classes_are_their_labels(self, folder, caplog):
        found = [row for row in labelled(folder) if isinstance(row, Row)]
        assert {(row.text, row.label) for row in found} == {(b"neg/2.txt", "neg"), (b"pos/9.txt", "pos")}
        assert "its label means no class of the run (first in meh/1.txt: its label is 'meh')" in caplog.text

    def test_texts_of_another_encoding_are_recognised_one_by_one(self, tmp_path):
        write(tmp_path / "in" / "1.txt", "naïve".encode("cp1252"))
        write(tmp_path / "in" / "2.txt.gz", gzip.compress("naïve".encode()))
        assert texts(tmp_path / "in", usual={"encoding": "cp1252"}) == ["naïve", "naïve"]

    def test_a_table_in_a_folder_is_read_whatever_its_parts(self, tmp_path):
        for part in range(2):
            name = f"data/train-0000{part}-of-00002.parquet"
            write(tmp_path / "in" / name, parquet({"id": [part], "text": [f"good {part}"], "label": [1]}))
        reviews = opened(tmp_path / "in", classes=NEGATIVE_POSITIVE)
        assert reviews.kept == ("file", "id")
        assert [(row.number, row.line, row.kept["id"]) for row in reviews.rows()] == [
            (1, 1, "0"),
            (2, 1, "1"),
        ]

    def test_what_is_not_clear_is_an_error_whose_remedy_works(self, tmp_path):
        folder = tmp_path / "in"
        for name in ("train/pos/1.txt", "train/neg/1.txt", "test/pos/1.txt", "test/neg/1.txt"):
            write(folder / name, "good")
        with pytest.raises(
            InputError, match=r"single table or folder .* test, train; name one, as in"
        ) as error:
            labelled(folder)
        path = str(error.value).rpartition("--input=")[2].removesuffix(".")
        assert len(labelled(pathlib.Path(path))) == 2

    def test_texts_beside_a_table_are_not_guessed(self, tmp_path):
        table = write(tmp_path / "in" / "a.csv", GOOD)
        write(tmp_path / "in" / "README.txt", "read me")
        with pytest.raises(InputError, match=rf"both \.txt files and a\.csv; .* --input={table}, or give"):
            rows(tmp_path / "in")
        assert texts(tmp_path / "in", kind="folder") == ["read me"]
        assert texts(tmp_path / "in", kind="csv") == ["good"]

    def test_a_folder_that_is_none_or_without_texts_is_refused(self, tmp_path):
        (tmp_path / "in").mkdir()
        for path, words in (
            (write(tmp_path / "a.csv", GOOD), "--input_format=folder needs a folder, but"),
            (tmp_path / "in", r"a folder of \.txt files, but .*in holds none"),
        ):
            with pytest.raises(InputError, match=words):
                rows(path, kind="folder")
        with pytest.raises(InputError, match="holds neither"):
            rows(tmp_path / "in")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "blurb,verdict\nx,1\n", "must have the columns text"),
        ("a.csv", "", "must name each column"),
        ("missing.csv", None, "No such file"),
        ("a.csv", "text\nfine film\n", "must have the columns text and label"),
    ],
)
def test_an_unreadable_file_or_one_without_labels_is_an_input_error(tmp_path, name, content, words):
    if content is not None:
        write(tmp_path / name, content)
    with pytest.raises(InputError, match=words):
        labelled(tmp_path / name) if "label" in words else rows(tmp_path / name)


def test_a_review_of_one_megabyte_is_read(tmp_path):
    path = write(tmp_path / "a.csv", "text\n" + "good " * 200_000 + "\n")
    assert len(rows(path)[0].text) == 1_000_000
