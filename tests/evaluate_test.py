"""All metrics of a trained model."""

import json
import pathlib

import pytest

from trainer import evaluate
from trainer.errors import InputError


@pytest.fixture
def trained(finished, cache_dir):
    """Settings that read a trained model."""
    return {"workdir": str(finished), "cache_dir": cache_dir}


def evaluate_to_json(given, tmp_path):
    evaluate.run({**given, "output": str(tmp_path / "report.json")})
    return json.loads((tmp_path / "report.json").read_text())


def test_the_test_split_has_the_metrics_of_the_final_evaluation(trained, tmp_path, capsys):
    result = json.loads((pathlib.Path(trained["workdir"]) / "result.json").read_text())
    metrics = evaluate_to_json(trained, tmp_path)
    assert metrics["accuracy"] == result["test"]["accuracy"]
    assert metrics["loss"] == pytest.approx(result["test"]["loss"], rel=1e-6)
    assert "predicted positive" in capsys.readouterr().out


def test_another_split_or_a_file_can_be_evaluated(trained, tmp_path):
    assert evaluate_to_json({**trained, "split": "validation[:7]"}, tmp_path)["reviews"] == 7
    file = tmp_path / "own.csv"
    file.write_text("text,label\nA wonderful film.,pos\nDull.,neg\n")
    assert evaluate_to_json({**trained, "input": str(file)}, tmp_path)["reviews"] == 2


def test_an_unknown_split_is_refused_in_one_sentence(trained, tmp_path):
    with pytest.raises(InputError, match="validation"):
        evaluate_to_json({**trained, "split": "tests"}, tmp_path)


def test_a_file_without_reviews_is_refused_in_one_sentence(trained, tmp_path):
    (tmp_path / "own.csv").write_text("text,label\n")
    with pytest.raises(InputError, match="has none"):
        evaluate_to_json({**trained, "input": str(tmp_path / "own.csv")}, tmp_path)
