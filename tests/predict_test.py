"""Texts in, label and probability out."""

import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from processes import popen

from trainer import predict
from trainer.data.review_files import CHUNK
from trainer.errors import InputError, StorageError


@pytest.fixture
def trained(finished, cache_dir):
    """Settings that read a trained model."""
    return {"workdir": str(finished), "cache_dir": cache_dir}


def predictions_of(given, tmp_path, **more):
    output = tmp_path / "predictions.jsonl"
    predict.run({**given, "output": str(output), **more})
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_the_sample_text_has_the_probability_of_the_final_evaluation(trained, tmp_path):
    sample = json.loads((pathlib.Path(trained["workdir"]) / "result.json").read_text())["sample_texts"][0]
    (prediction,) = predictions_of(trained, tmp_path, text=(sample["text"],))
    assert prediction["probability"] == pytest.approx(sample["probability"], rel=1e-5)
    assert prediction["label"] == sample["label"].lower()


def test_standard_output_has_aligned_lines_for_people(trained, capsys):
    predict.run({**trained, "text": ("A wonderful film.", "long " * 100)})
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  A wonderful film.")
    assert second.endswith(" ...")
    assert first.index("A wonderful") == second.index("long")
    assert len(second) <= 80


def test_output_dash_writes_json_to_standard_output(trained, capsys, caplog):
    predict.run({**trained, "text": ("good",), "output": "-"})
    assert json.loads(capsys.readouterr().out)["text"] == "good"
    assert "Classified 1 text in" in caplog.text


def test_a_file_is_classified_in_order_with_line_numbers(trained, tmp_path):
    file = tmp_path / "reviews.txt"
    texts = [f"{'good ' * (number % 7)}film {number}" for number in range(CHUNK + 5)]
    file.write_text("\n".join([*texts[:3], "", *texts[3:]]))
    predictions = predictions_of(trained, tmp_path, input=str(file))
    assert [prediction["text"] for prediction in predictions] == [*texts[:3], None, *texts[3:]]
    assert [prediction["line"] for prediction in predictions] == list(range(1, CHUNK + 7))


def test_a_bad_row_has_an_answer_in_its_place_or_is_an_error(trained, tmp_path, capsys, caplog):
    file = tmp_path / "reviews.jsonl"
    file.write_text('{"text": "good"}\n{"text": ""}\n{"text": "bad"}\n')
    answers = predictions_of(trained, tmp_path, input=str(file))
    assert [answer["number"] for answer in answers] == [1, 2, 3]
    assert answers[1] == {
        **{"number": 2, "line": 2, "label": None, "probability": None, "text": None},
        "error": 'its "text" is empty',
    }
    assert "error" not in answers[0]
    assert "Of 3 rows in" in caplog.text
    predict.run({**trained, "input": str(file)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == '-         -       line 2: its "text" is empty'
    assert [line.index(text) for line, text in zip(lines, ("good", "line 2", "bad"), strict=True)] == [18] * 3
    with pytest.raises(InputError, match="line 2"):
        predictions_of(trained, tmp_path, input=str(file), bad_rows="stop")


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_answers_can_be_joined_with_the_input_by_its_columns(trained, tmp_path):
    """A column that is called like one of an answer gets a prefix."""
    file = tmp_path / "reviews.csv"
    file.write_text('ID,Review,label,stars\nx1,"good, fine",pos,5\nx2,,neg,1\nx3,bad\n')
    given = {"input": str(file), "keep_columns": ("label, stars",)}
    answers = predictions_of(trained, tmp_path, **given)
    predict.run({**trained, **given, "output": str(tmp_path / "answers.csv")})
    assert [(answer["id"], answer["input_label"], answer["stars"]) for answer in answers] == [
        ("x1", "pos", "5"),
        ("x2", "neg", "1"),
        (None, None, None),
    ]
    columns = ["number", "line", "id", "input_label", "stars", "label", "probability", "text", "error"]
    rows = read_csv(tmp_path / "answers.csv")
    assert list(rows[0]) == columns
    for row, answer in zip(rows, answers, strict=True):
        assert row == {name: "" if answer.get(name) is None else str(answer[name]) for name in columns}


def test_a_csv_has_a_column_for_each_of_three_classes(finished_topics, tmp_path):
    given = {"workdir": str(finished_topics), "text": ("word5 word5", "word6")}
    answers = predictions_of(given, tmp_path)
    predict.run({**given, "output": str(tmp_path / "answers.csv")})
    for row, answer in zip(read_csv(tmp_path / "answers.csv"), answers, strict=True):
        named = {name: float(row[f"probability of {name}"]) for name in answer["probabilities"]}
        assert named == answer["probabilities"]


def test_a_folder_of_texts_is_classified_with_the_names_of_its_files(trained, tmp_path, capsys):
    (tmp_path / "in" / "more").mkdir(parents=True)
    for name, text in (("10.txt", "good film"), ("9.txt", " "), ("more/a.txt", "bad film")):
        (tmp_path / "in" / name).write_text(text)
    answers = predictions_of(trained, tmp_path, input=str(tmp_path / "in"))
    assert [(answer["file"], answer["text"]) for answer in answers] == [
        ("9.txt", None),
        ("10.txt", "good film"),
        ("more/a.txt", "bad film"),
    ]
    assert "line" not in answers[0]
    predict.run({**trained, "input": str(tmp_path / "in")})
    assert capsys.readouterr().out.splitlines()[0].endswith("  9.txt: it is empty")


def test_a_csv_on_standard_input_is_noticed(trained, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"id,text\n7,good film\n8,bad film\n")))
    answers = predictions_of(trained, tmp_path, input="-")
    assert [(answer["id"], answer["text"]) for answer in answers] == [("7", "good film"), ("8", "bad film")]
    assert "standard input: csv" in caplog.text


def test_the_texts_of_the_command_line_have_no_columns(trained, tmp_path):
    with pytest.raises(InputError, match="--keep_columns=id is for an --input with columns"):
        predictions_of(trained, tmp_path, text=("good",), keep_columns=("id",))


def test_an_output_is_neither_the_input_nor_begun_before_the_input_is_known_to_be_readable(trained, tmp_path):
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"text": "good"}\n')
    with pytest.raises(InputError, match="--output must be another file"):
        predictions_of(trained, tmp_path, input=str(file))
    with pytest.raises(InputError, match="No such file"):
        predictions_of(trained, tmp_path, input=str(tmp_path / "missing.csv"))
    assert file.read_text() == '{"text": "good"}\n'


def test_standard_input_is_read_when_neither_text_nor_input_is_given(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("good film\nnaïve film\n".encode())))
    assert [prediction["text"] for prediction in predictions_of(trained, tmp_path)] == [
        "good film",
        "naïve film",
    ]


def test_an_unwritable_output_is_reported_in_one_sentence(trained, tmp_path):
    with pytest.raises(StorageError, match=r"a\.jsonl could not be written"):
        predict.run({**trained, "text": ("good",), "output": str(tmp_path / "missing" / "a.jsonl")})


@pytest.fixture
def predict_command(trained):
    return [sys.executable, "-m", "trainer.main", "--mode=predict", f"--workdir={trained['workdir']}"]


def test_a_closed_output_pipe_ends_predict_quietly_before_all_input_is_read(predict_command):
    with (
        subprocess.Popen(["yes", "a good film"], stdout=subprocess.PIPE) as endless,
        popen(
            [*predict_command, "--verbosity=-1"],
            stdin=endless.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        endless.stdout.close()
        process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE
    for word in (b"error:", b"Traceback", b"Exception ignored"):
        assert word not in stderr


def test_a_closed_standard_input_is_reported_in_one_sentence(predict_command):
    shell = ["sh", "-c", 'exec "$@" 0<&-', "sh", *predict_command, "--verbosity=-1"]
    completed = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    assert completed.stderr.splitlines()[-1].startswith("error: Standard input must be readable")
    assert "Traceback" not in completed.stderr


def test_unencodable_and_terminal_control_characters_are_escaped(predict_command):
    completed = subprocess.run(
        predict_command,
        input="naïve € \x1b[31m\n".encode(),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.endswith(b"  na\xefve \\u20ac \\x1b[31m\n")


def test_a_signal_ends_predict_at_once_while_it_waits_for_texts(predict_command):
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for signum, process in [(signum, popen(predict_command, **pipes)) for signum in signums]:
        with process:
            for line in process.stderr:
                if line.startswith("Model"):
                    break
            process.send_signal(signum)
            assert process.stderr.read() == f"Ended by {signum.name}.\n"
        assert process.returncode == 128 + signum


def test_a_threshold_decides_between_two_classes_and_keeps_the_probability(trained, tmp_path):
    (usual,) = predictions_of(trained, tmp_path, text=("good",))
    probability = usual["probability"]
    (low,) = predictions_of(trained, tmp_path, text=("good",), threshold=probability - 1e-3)
    (high,) = predictions_of(trained, tmp_path, text=("good",), threshold=probability + 1e-3)
    assert (low["label"], high["label"]) == ("positive", "negative")
    assert low["probability"] == high["probability"] == probability
    assert set(usual) == {"number", "line", "label", "probability", "text"}


def test_of_three_classes_the_most_probable_one_and_all_probabilities_are_given(
    finished_topics, tmp_path, capsys
):
    given, texts = {"workdir": str(finished_topics)}, tuple(f"word{word} " * 5 for word in (5, 6, 7))
    answers = predictions_of(given, tmp_path, text=texts)
    for answer in answers:
        assert set(answer["probabilities"]) == {"sports", "Politics & Law", "arts"}
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0)
        assert answer["probability"] == max(answer["probabilities"].values())
        assert answer["probabilities"][answer["label"]] == answer["probability"]
    predict.run({**given, "text": texts})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  word")[0] for line in lines] == [
        f"{answer['label']:<14}  {answer['probability']:.4f}" for answer in answers
    ]
    with pytest.raises(InputError, match="--threshold"):
        predict.run({**given, "text": texts, "threshold": 0.5})
