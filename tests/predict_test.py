"""Texts in, label and probability out."""

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
    """The settings that read a trained model."""
    return {"workdir": str(finished), "cache_dir": cache_dir}


def answers(given, tmp_path, **more):
    output = tmp_path / "answers.jsonl"
    predict.run({**given, "output": str(output), **more})
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_the_sample_text_has_the_probability_of_the_ending(trained, tmp_path):
    ending = json.loads((pathlib.Path(trained["workdir"]) / "result.json").read_text())["sample_texts"][0]
    (answer,) = answers(trained, tmp_path, text=(ending["text"],))
    assert answer["probability"] == pytest.approx(ending["probability"], rel=1e-5)
    assert answer["label"] == ending["label"].lower()


def test_people_get_aligned_lines_on_standard_output(trained, capsys):
    predict.run({**trained, "text": ("A wonderful film.", "long " * 100)})
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  A wonderful film.")
    assert second.endswith(" ...")
    assert first.index("A wonderful") == second.index("long")
    assert len(second) <= 80


def test_output_may_be_standard_output(trained, capsys):
    predict.run({**trained, "text": ("good",), "output": "-"})
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
        predict.run({**trained, "text": ("good",), "output": str(tmp_path / "missing" / "a.jsonl")})


@pytest.fixture
def predicting(trained):
    return [sys.executable, "-m", "trainer.main", "--mode=predict", f"--workdir={trained['workdir']}"]


def test_a_pipe_that_closes_ends_it_quietly_before_all_is_read(predicting):
    with (
        subprocess.Popen(["yes", "a good film"], stdout=subprocess.PIPE) as endless,
        popen(
            [*predicting, "--verbosity=-1"],
            stdin=endless.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        endless.stdout.close()
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE
    for word in (b"error:", b"Traceback", b"Exception ignored"):
        assert word not in said


def test_a_standard_input_that_is_closed_is_one_sentence(predicting):
    shell = ["sh", "-c", 'exec "$@" 0<&-', "sh", *predicting, "--verbosity=-1"]
    answer = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].startswith("error: Standard input must be readable")
    assert "Traceback" not in answer.stderr


def test_what_a_poor_encoding_lacks_is_escaped_and_no_text_commands_a_terminal(predicting):
    answer = subprocess.run(
        predicting,
        input="naïve € \x1b[31m\n".encode(),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith(b"  na\xefve \\u20ac \\x1b[31m\n")


def test_a_signal_ends_it_at_once_while_it_waits_for_texts(predicting):
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for signum, process in [(signum, popen(predicting, **pipes)) for signum in signums]:
        with process:
            for line in process.stderr:
                if line.startswith("Model"):
                    break
            process.send_signal(signum)
            assert process.stderr.read() == f"Ended by {signum.name}.\n"
        assert process.returncode == 128 + signum
