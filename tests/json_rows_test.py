"""Objects of JSON."""

import json

import pytest

from trainer.data import json_rows
from trainer.errors import InputError

OBJECTS = [
    {"text": f'a "quoted" [film] {number}, said {{she}}\n', "label": number % 2} for number in range(50)
]


def in_blocks(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


def array(text, size=7):
    return list(json_rows.of_array(in_blocks(text, size), "a.json"))


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_objects_of_an_array_are_read_from_blocks_of_any_size(indent, size):
    assert [record.content for record in array(json.dumps(OBJECTS, indent=indent), size)] == OBJECTS


def test_a_record_has_the_line_on_which_it_begins():
    assert [record.line for record in array('[\n{"a": 1},\n\n{\n"a": 2}\n,{}]\n')] == [2, 4, 6]


def test_an_array_is_not_held_in_memory():
    reader = json_rows.of_array(in_blocks(json.dumps(OBJECTS), 50), "a.json")
    assert next(reader).content == OBJECTS[0]
    endless = (block for number in range(10**9) for block in ("[" * (number == 0), '{"a": 1},'))
    many = json_rows.of_array(endless, "a.json")
    assert [next(many).content for _ in range(5000)] == [{"a": 1}] * 5000


def test_the_one_array_of_objects_within_an_object_is_taken():
    assert [record.content for record in array(json.dumps({"version": 1, "data": OBJECTS}))] == OBJECTS


def test_an_object_without_such_an_array_is_an_input_error_that_lists_its_keys():
    by_column = {"text": {"0": "good"}, "label": {"0": 1}}
    with pytest.raises(InputError, match=r"an object of text, label; .*orient='records', lines=True"):
        array(json.dumps(by_column))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[{"a": 1}', "line 1 .*no ,"),
        ('[{"a": 1},\n{"a": ', "line 2 .*cut short"),
        ('[{"a": 1}\n{"a": 2}]', "line 2 .*no ,"),
        ('[{"a": 1}] {"a": 2}', "more follows the array"),
        ("[{a: 1}]", "not JSON"),
        ("good", r"no \["),
        ("", r"no \["),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_malformed_array_is_an_input_error_with_its_line(text, why):
    with pytest.raises(InputError, match=why):
        array(text, 1000)


def test_values_that_hold_no_review_are_bad_records():
    records = array('[1, "a", null, [2], {"a": 1, "a": 2}, {"a": 3}, 45]', 3)
    assert [record.kind for record in records] == [
        *["it is not an object"] * 4,
        "it has a key twice",
        "",
        "it is not an object",
    ]


def test_lines_hold_an_object_each_and_blank_ones_are_left_out():
    lines = ['{"a": 1}\n', "\n", "  \n", "bad\n", '{"a": 1, "a": 2}\n', "[1]\n", "[" * 100_000, '{"a": 2}']
    found = [(record.line, record.kind) for record in json_rows.of_lines(lines)]
    assert found == [
        (1, ""),
        (4, "it is not JSON"),
        (5, "it has a key twice"),
        (6, "it is not an object"),
        (7, "it is not JSON"),
        (8, ""),
    ]


def test_an_empty_array_has_no_records():
    assert array(" [ ] \n") == []
