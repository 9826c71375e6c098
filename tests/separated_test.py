"""Tables whose columns are separated by a character."""

import csv
import io
import random
import re

import pytest

from trainer.data import separated
from trainer.data.separated import Layout, RowTest
from trainer.errors import InputError


def lines_of(text):
    return re.findall("[^\n]*\n|[^\n]+", text)


ANY = RowTest([], [])
LABEL_LAST = RowTest([["a", "0"], ["b", "1"]] * 5, ignored=[0])
LABEL_FIRST = RowTest([["0", "a"], ["1", "b"]] * 5, ignored=[1])


def read(text, delimiter=",", width=2, test=ANY):
    layout = Layout(delimiter, width, test)
    return [record.kind or record.cells for record in separated.records(lines_of(text), layout)]


OPEN, MORE = (
    "its quote never closes",
    "more follows its closing quote, and a quote within quotes is written twice",
)


@pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
def test_what_the_csv_module_writes_is_read_back(delimiter):
    chance = random.Random(0)
    words = ["good", '"', '""', ",", ";", "|", "\n", "\n\n", "é", "'", " "]
    rows = [["".join(chance.choices(words, k=9)) + "x", str(n % 2)] for n in range(300)]
    if delimiter == "\t":
        # A cell of a tsv that is not quoted as a whole keeps its quotes.
        rows = [[text.replace("\t", " "), label] for text, label in rows]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows(rows)
    assert read(file.getvalue(), delimiter) == rows


def test_records_have_the_line_on_which_they_begin_and_blank_lines_are_left_out():
    text = 'a,1\n\n"b\nb",0\r\n\nc,1'
    assert [record.line for record in separated.records(lines_of(text), Layout(",", 2))] == [1, 3, 6]


def test_after_a_bad_row_reading_goes_on_at_the_next_line():
    assert read('"good" film,1\nb,0\n', test=LABEL_LAST) == [MORE, ["b", "0"]]
    assert read('"bad,0\nb,0\n"c",1\n', test=LABEL_LAST) == [OPEN, ["b", "0"], ["c", "1"]]
    assert read('a,1\n"bad,0\n') == [["a", "1"], OPEN]
    assert read("a\nb,0,1\nc,1\n") == [
        "it has fewer fields than columns",
        "it has more fields than columns",
        ["c", "1"],
    ]


@pytest.mark.parametrize(
    ("text", "test", "rows"),
    [
        ('"bad,0\na,1\nTV of 42",1\n', LABEL_LAST, [OPEN, ["a", "1"], ['TV of 42"', "1"]]),
        ('"bad,0\nTV of 42",1\n', LABEL_LAST, [OPEN, ['TV of 42"', "1"]]),
        ('1,"bad\n0,TV of 42"\n', LABEL_FIRST, [OPEN, ["0", 'TV of 42"']]),
        ('1,"bad\n0,""so, fine"\n', LABEL_FIRST, [OPEN, MORE]),
        ('"1,bad\n0,""so, fine"\n', LABEL_FIRST, [OPEN, MORE]),
        ('1,"bad\n0,fine\n0,TV of 42"\n', LABEL_FIRST, [OPEN, ["0", "fine"], ["0", 'TV of 42"']]),
    ],
)
def test_a_quote_that_swallows_whole_rows_is_named_and_they_are_read(text, test, rows):
    assert read(text, test=test) == rows


@pytest.mark.parametrize(
    ("text", "test", "rows"),
    [
        ('"Well, hello\nthere",1\n', LABEL_LAST, [["Well, hello\nthere", "1"]]),
        (
            '"Roses are red,\nviolets are, too,\n\nblue",1\n',
            LABEL_LAST,
            [["Roses are red,\nviolets are, too,\n\nblue", "1"]],
        ),
        ('1,"Well, hello\nthere"\n', LABEL_FIRST, [["1", "Well, hello\nthere"]]),
        ('1,"a\nx, y"\n', LABEL_FIRST, [["1", "a\nx, y"]]),
    ],
)
def test_line_breaks_in_quotes_are_legal(text, test, rows):
    assert read(text, test=test) == rows


def test_a_quote_that_never_closes_does_not_read_the_whole_file_for_each_row(monkeypatch):
    monkeypatch.setattr(separated, "_MOST_LINES", 10)
    assert read('"a\n' + "b,1\n" * 100) == [OPEN] + [["b", "1"]] * 100


@pytest.mark.parametrize("text", ['TV of 42",1\n', 'the "best" film,1\n', 'it\'s "" so,1\n', "a\rb,1\n"])
def test_a_quote_within_an_unquoted_cell_is_text(text):
    assert read(text) == [text.rstrip("\n").split(",")]


UNBALANCED = (
    '"Great film, loved it\t1\nAwful\t0\nMy TV is 42"\t1\n"Wow" she said\t1\n"quoted"\t0\n"a ""b"""\t1\n'
)


def test_no_cell_of_a_tsv_swallows_a_line_end():
    assert read(UNBALANCED, "\t") == [
        ['"Great film, loved it', "1"],
        ["Awful", "0"],
        ['My TV is 42"', "1"],
        ['"Wow" she said', "1"],
        ["quoted", "0"],
        ['a "b"', "1"],
    ]


def test_no_line_of_an_unquoted_tsv_is_lost():
    chance = random.Random(0)
    words = ["good", '"', '""', '42"', '"Wow"', ",", " "]
    for label_first in (False, True):
        rows = [["".join(chance.choices(words, k=4)) + "x", str(n % 2)] for n in range(400)]
        rows = [row[::-1] if label_first else row for row in rows]
        assert read("".join("\t".join(row) + "\n" for row in rows), "\t") == rows


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_tsv_may_hold_line_breaks_and_tabs_in_quotes_as_pandas_writes_them(order):
    texts = ["a\n\tb", "a\nb", "c\n\nd, said\nshe", "e\tf", '"g"\n"h"', "i"]
    rows = [[text, str(number % 2)] for number, text in enumerate(texts)]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter="\t").writerows(row[order] for row in rows)
    test = LABEL_LAST if order == slice(None) else LABEL_FIRST
    assert read(file.getvalue(), "\t", test=test) == [row[order] for row in rows]
    assert read(file.getvalue(), "\t")[-5:] == [row[order] for row in rows[1:]]


def test_a_tsv_with_too_few_cells_in_a_line_loses_no_other_line():
    few = "it has fewer fields than columns"
    assert read('"a\nb\t1\nc\t0\n"d"\t1\n', "\t", 2) == [few, ["b", "1"], ["c", "0"], ["d", "1"]]
    assert read('"a\t1\n"b\nc\t0\n', "\t", 2) == [['"a', "1"], few, ["c", "0"]]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("text,label\na;b;c,1\n", "csv", (",", 0)),
        ("text;label\na, b;1\nc;0\n", "csv", (";", 0)),
        ("text|label\na, b|1\n", "csv", ("|", 0)),
        ("text\tlabel\na, b\t1\n", "csv", ("\t", 0)),
        ("text,label\na,1\n", "tsv", (",", 0)),
        ("id;blurb;stars\n1;so, so;1\n2;a, b, c;2\n", "csv", (";", 0)),
        ("1;so, so\n2;a, b, c\n", "csv", (";", 0)),
        ("sep=;\ntext;label\n", "csv", (";", 1)),
        ('"sep=|"\ntext|label\n', "csv", ("|", 1)),
        ("sep=\t\ntext\tlabel\n", "csv", ("\t", 1)),
        ("text\na, b\nc\n", "csv", (",", 0)),
        ("", "csv", (",", 0)),
        ("", "tsv", ("\t", 0)),
        ('text;label\n"a\nb";1\n', "csv", (";", 0)),
    ],
)
def test_the_delimiter_is_recognised(text, kind, expected):
    assert separated.find_delimiter(lines_of(text), {"text", "label"}, given="", kind=kind) == expected


@pytest.mark.parametrize(
    ("given", "delimiter"), [(";", ";"), ("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), ("^", "^")]
)
def test_a_given_delimiter_decides(given, delimiter):
    assert separated.find_delimiter(["a,b\n"], (), given=given, kind="csv") == (delimiter, 0)


@pytest.mark.parametrize("given", [",,", '"', "\n", "comma"])
def test_a_delimiter_must_be_one_character(given):
    with pytest.raises(InputError, match="--delimiter must be one character"):
        separated.find_delimiter([], (), given=given, kind="csv")


def test_a_row_is_known_by_its_columns_of_few_values_and_of_numbers():
    rows = [[str(n), f"film {n}", ("neg", "pos")[n % 2]] for n in range(30)]
    test = RowTest(rows, ignored=[1])
    assert test.is_row(["77", "anything", " pos"], 0) and test.is_row(["77", "anything", " pos"], 2)
    assert not test.is_row(["77", "anything", "perhaps"], 0)
    assert not test.is_row(["x", "anything", "pos"], 0)
    assert not test.is_row(["77", "pos"], 0)
    assert not test.is_row(["77", "anything", "pos"], 3)
    assert not RowTest(rows, ignored=[1, 2]).is_row(["77", "Well", " hello"], 2), "no column tells"
    assert not RowTest([], []).is_row([], 0)
