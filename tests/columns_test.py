"""Which columns hold texts and labels, and whether the first row names them."""

import re
import shlex

import pytest

from trainer.data import columns
from trainer.data.columns import Table
from trainer.data.review_rows import Columns, Options
from trainer.errors import InputError

DEFAULT, UNLABELLED = Options(), Options(label_column=None)
TEXTS = [f"This is film number {number}, which I saw." for number in range(40)]
LABELS = [str(number % 2) for number in range(40)]
SENTIMENT_140 = [["0", str(10**9 + n), "Mon Apr 06", "NO_QUERY", f"user{n}", TEXTS[n]] for n in range(40)]
YELP = [[str(n % 2 + 1), TEXTS[n]] for n in range(40)]
AMAZON = [[str(n % 2 + 1), f"Title {n}", TEXTS[n]] for n in range(40)]
UNNAMED = {"Sentiment140": SENTIMENT_140, "Yelp": YELP, "Amazon": AMAZON}


def table(names, rows, **kwargs):
    return Table("a.csv", names, rows, **kwargs)


def positions(names, options=DEFAULT, rows=()):
    selected, _ = columns.select(table(names, rows), options)
    label = selected.label[1] if selected.label else None
    return list(selected.text.values()), label


def unnamed(rows, options=DEFAULT):
    return columns.select(table([str(n + 1) for n in range(len(rows[0]))], rows, has_names=False), options)


@pytest.mark.parametrize("source", UNNAMED)
def test_a_first_row_like_the_others_is_no_header(source):
    first, *others = UNNAMED[source]
    assert not columns.has_header(first, others, DEFAULT)
    assert not columns.has_header(first, others, UNLABELLED)


@pytest.mark.parametrize(
    "header",
    [["text", "label"], ["label", " Text "], ["review", "sentiment"], ["blurb", "verdict"], ["", "x"]],
)
def test_a_row_of_names_is_a_header(header):
    assert columns.has_header(header, [list(row) for row in zip(TEXTS, LABELS, strict=True)], DEFAULT)


def test_the_flag_decides_whether_there_is_a_header():
    assert columns.has_header(["1", "2"], [["3", "4"]], Options(header="first_row"))
    assert not columns.has_header(["text", "label"], [], Options(header="none"))


def test_columns_by_number_do_not_hide_a_header():
    options = Options(text_column="1", label_column="2")
    rows = [list(row) for row in zip(TEXTS, LABELS, strict=True)]
    assert columns.has_header(["blurb", "verdict"], rows, options)
    assert not columns.has_header(rows[0], rows[1:], options)


def test_names_are_compared_without_case_and_outer_spaces_and_numbers_count_from_one():
    assert positions(["id", " Review", "STARS "], Options("review ", "Stars")) == ([1], 2)
    assert positions(["id", "review", "stars"], Options("2", "3")) == ([1], 2)
    assert positions(["2", "a", "3"], Options("2", "3")) == ([0], 2), "a name comes before a number"


def test_several_text_columns_are_joined_unless_one_is_called_so():
    assert positions(["label", "title", "body"], Options("body, Title")) == ([2, 1], 0)
    assert positions(["label", "title", "title,body"], Options("title,body")) == ([2], 0)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["review", "sentiment"], ([0], 1)),
        (["v1", "v2", "", ""], ([1], 0)),
        (["sentence", "label"], ([0], 1)),
        (["", "text", "label"], ([1], 2)),
        (["id", "text", "stars"], ([1], 2)),
        (["text", "review", "rating"], ([0], 2)),
    ],
)
def test_well_known_names_are_taken_and_noted(names, expected):
    assert positions(names) == expected
    _, note = columns.select(table(names, []), DEFAULT)
    assert bool(note) != ({"text", "label"} <= set(names))


@pytest.mark.parametrize(
    "names",
    [["review", "comment", "label"], ["text", "stars", "rating"], ["blurb", "label"], ["text", "verdict"]],
)
def test_names_that_are_not_unique_or_not_known_are_an_error(names):
    with pytest.raises(InputError, match=r"columns text and label, but those of a\.csv are"):
        positions(names)


def test_without_names_the_one_of_two_columns_with_few_short_values_is_the_label():
    selected, note = unnamed(YELP)
    assert selected == Columns({"2": 1}, ("1", 0), {})
    assert note == "the text is column 2, the label is column 1"
    short = [["1", "good"], ["0", "bad"]]
    assert unnamed(short)[0].label == ("1", 0)
    assert unnamed(YELP, UNLABELLED)[0] == Columns({"2": 1}, None, {})
    assert unnamed([[text] for text in TEXTS], UNLABELLED)[0] == Columns({"1": 0}, None, {})


def flags_of(error):
    command = re.search("; give (.*?)(, or --header|\\.$)", str(error))[1]
    return dict(part.removeprefix("--").split("=") for part in shlex.split(command))


@pytest.mark.parametrize(("source", "text", "label"), [("Sentiment140", "6", "1"), ("Amazon", "3", "1")])
def test_the_error_for_unnamed_columns_lists_them_and_prints_flags_that_work(source, text, label):
    with pytest.raises(InputError, match=r"are 1 \([012]\), 2 \(") as error:
        unnamed(UNNAMED[source])
    flags = flags_of(error.value)
    assert flags == {"header": "none", "text_column": text, "label_column": label}
    assert unnamed(UNNAMED[source], Options(**flags))[0].label == (label, 0)


@pytest.mark.parametrize("names", [["blurb", "my verdict"], ["a,b", "-"], ["te\nxt", "--x"], ["id", "x"]])
def test_the_error_for_other_names_lists_them_and_prints_flags_that_work(names):
    found = table(names, list(zip(TEXTS, LABELS, strict=True)), may_lack_names=True)
    with pytest.raises(InputError, match=r"\(This is film number 0, which.*\(0\)") as error:
        columns.select(found, DEFAULT)
    assert str(error.value).isprintable()
    selected, _ = columns.select(found, Options(**flags_of(error.value)))
    assert list(selected.text.values()) == [0] and selected.label[1] == 1


def test_a_table_without_labels_is_not_offered_its_index_as_the_label():
    rows = [[str(n), text] for n, text in enumerate(TEXTS)]
    with pytest.raises(InputError, match="name the right ones by --text_column and --label_column"):
        positions(["index", "sentence"], rows=rows)
    assert positions(["index", "sentence"], UNLABELLED, rows) == ([1], None)


def test_nested_values_are_called_so():
    rows = [["1", "[...]", "{...}"]] * 5
    with pytest.raises(InputError, match="its values are nested: write an object for each review"):
        positions(["id", "annotations", "data"], rows=rows)


def test_a_name_that_is_there_twice_is_an_error():
    with pytest.raises(InputError, match=r"text is there 2 times in a\.csv"):
        positions(["text", "Text", "label"])


def test_columns_to_keep_must_be_there():
    selected, _ = columns.select(table(["ID", "text", "label"], []), Options(keep=("id", "3")))
    assert selected.keep == {"id": 0, "3": 2}
    with pytest.raises(InputError, match=r"--keep_columns=user was given; the columns of a\.csv are text"):
        columns.select(table(["text", "label"], []), Options(keep=("user",)))


@pytest.mark.parametrize("number", ["0", "3", "-1", "1.5", "²"])
def test_a_number_without_a_column_is_an_error(number):
    with pytest.raises(InputError, match="are text"):
        positions(["text", "label"], Options(number, "label"))


def rows_of(**columns_of):
    """The names and the rows of columns given by their values."""
    return list(columns_of), [list(row) for row in zip(*columns_of.values(), strict=True)]


@pytest.mark.parametrize(
    "values",
    [
        [str(10**9 + number) for number in range(40)],
        [f"https://t.co/{number}" for number in range(40)],
        ["the same"] * 40,
    ],
)
def test_a_column_with_a_usual_name_must_hold_texts_to_be_taken(values):
    names, rows = rows_of(tweet=values, full_text=TEXTS, sentiment=LABELS)
    with pytest.raises(InputError, match=r"give --text_column=full_text --label_column=sentiment"):
        columns.select(table(names, rows), DEFAULT)


def test_a_column_of_many_values_is_not_taken_as_the_label_for_its_name():
    votes = [str(number * 7) for number in range(40)]
    names, rows = rows_of(body=TEXTS, score=votes, mood=LABELS)
    with pytest.raises(InputError, match=r"give --text_column=body --label_column=mood"):
        columns.select(table(names, rows), DEFAULT)


def test_what_is_given_is_kept_and_the_other_column_is_found_by_its_usual_name():
    names, rows = rows_of(rating=LABELS, sentiment=LABELS, review=TEXTS)
    assert positions(names, Options(label_column="sentiment"), rows) == ([2], 1)
    names, rows = rows_of(rating=LABELS, what=TEXTS, why=TEXTS)
    assert positions(names, Options(text_column="why"), rows) == ([2], 0)


def test_with_a_single_column_the_delimiter_is_asked_for():
    with pytest.raises(InputError, match=r"name that by --delimiter, as in --delimiter='~'"):
        columns.select(table(["text~label"], [[f"{text}~1"] for text in TEXTS]), DEFAULT)
