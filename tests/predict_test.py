"""Texts in, label and probability out."""

import io
import json
import pathlib
import subprocess
import sys

import pytest
from fakes import NoSignals

from trainer import InputError, StorageError, predict
from trainer.data.review_files import CHUNK


@pytest.fixture
def trained(finished, cache_dir):
    """The settings that read a trained model."""
    return {"workdir": str(finished), "cache_dir": cache_dir}


def answers(given, tmp_path, **more):
    output = tmp_path / "answers.jsonl"
    predict.run({**given, "output": str(output), **more}, signals=NoSignals())
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_the_sample_text_has_the_probability_of_the_ending(trained, tmp_path):
    ending = json.loads((pathlib.Path(trained["workdir"]) / "result.json").read_text())["sample_texts"][0]
    (answer,) = answers(trained, tmp_path, text=(ending["text"],))
    assert answer["probability"] == pytest.approx(ending["probability"], rel=1e-5)
    assert answer["label"] == ending["label"].lower()


def test_people_get_aligned_lines_on_standard_output(trained, capsys):
    predict.run({**trained, "text": ("A wonderful film.", "long " * 100)}, signals=NoSignals())
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  A wonderful film.")
    assert second.endswith(" ...")
    assert first.index("A wonderful") == second.index("long")
    assert len(second) <= 80


def test_output_may_be_standard_output(trained, capsys):
    predict.run({**trained, "text": ("good",), "output": "-"}, signals=NoSignals())
    assert json.loads(capsys.readouterr().out)["text"] == "good"


def test_a_file_is_classified_in_its_order_with_its_line_numbers(trained, tmp_path):
    file = tmp_path / "reviews.txt"
    texts = [f"{'good ' * (number % 7)}film {number}" for number in range(CHUNK + 5)]
    file.write_text("\n".join([*texts[:3], "", *texts[3:]]))
    result = answers(trained, tmp_path, input=str(file))
    assert [answer["text"] for answer in result] == texts
    assert [answer["line"] for answer in result[:5]] == [1, 2, 3, 5, 6]


def test_a_bad_row_may_end_it(trained, tmp_path):
    file = tmp_path / "reviews.jsonl"
    file.write_text('{"text": "good"}\nbad\n')
    assert len(answers(trained, tmp_path, input=str(file))) == 1
    with pytest.raises(InputError, match="line 2"):
        answers(trained, tmp_path, input=str(file), bad_rows="stop")


def test_standard_input_is_read_when_no_text_is_given(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"good film\nna\xefve film\n")))
    assert [answer["text"] for answer in answers(trained, tmp_path)] == ["good film", "na\ufffdve film"]


def test_an_output_that_cannot_be_written_is_one_sentence(trained, tmp_path):
    with pytest.raises(StorageError, match=r"a\.jsonl could not be written"):
        predict.run({**trained, "text": ("good",), "output": str(tmp_path / "missing" / "a.jsonl")}, signals=NoSignals())


def test_a_pipe_that_closes_ends_without_a_traceback(trained):
    command = [sys.executable, "-m", "trainer.main", "--mode=predict", f"--workdir={trained['workdir']}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        _, said = process.communicate(b"good film\n" * 10_000)
    assert b"Traceback" not in said
