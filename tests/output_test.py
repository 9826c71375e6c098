"""Writing results to --output."""

import csv
import json

import pytest

from trainer import output
from trainer.errors import InputError, StorageError

RECORDS = [
    {"number": 1, "text": 'good, "fine"\r\nfilm \ud83d'},
    {"number": 2, "label": None, "why": {"a": 1}},
]


def write(path):
    with output.records(str(path), ["number", "label", "text"]) as write_record:
        for record in RECORDS:
            write_record(record)


def test_a_result_goes_to_a_file_or_to_standard_output(tmp_path, capsys):
    output.write_json("", {"a": 1})
    assert capsys.readouterr().out == ""
    output.write_json("-", {"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    output.write_json(str(tmp_path / "result.json"), {"a": 1})
    assert json.loads((tmp_path / "result.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a", "-"])
def test_records_are_lines_of_json(tmp_path, capsys, name):
    write(name if name == "-" else tmp_path / name)
    written = capsys.readouterr().out if name == "-" else (tmp_path / name).read_text()
    assert [json.loads(line) for line in written.splitlines()] == RECORDS


@pytest.mark.parametrize("name", ["a.csv", "a.CSV"])
def test_records_are_rows_of_a_csv(tmp_path, name):
    write(tmp_path / name)
    with (tmp_path / name).open(newline="", encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    assert header == ["number", "label", "text"]
    assert first == ["1", "", 'good, "fine"\r\nfilm \\ud83d']
    assert second == ["2", "", ""]


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"a\.csv could not be written"):
        write(tmp_path / "missing" / "a.csv")


def test_an_input_is_not_overwritten(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\n")
    (tmp_path / "link.csv").symlink_to(path)
    with pytest.raises(InputError, match="--output must be another file than --input"):
        output.check_is_not_input(str(tmp_path / "link.csv"), str(path))
    for one, other in (("-", "-"), ("", ""), (str(tmp_path / "b.csv"), str(path)), (str(path), "-")):
        output.check_is_not_input(one, other)
