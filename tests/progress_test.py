"""What training logs."""

import json
import types

import pytest
from compare_runs import scalars

from trainer import progress


def session(last_step):
    """As much of a session as a log line reads."""
    plan = types.SimpleNamespace(steps_per_epoch=63)
    data = types.SimpleNamespace(plan=plan, class_counts={"test": [5, 5]})
    return types.SimpleNamespace(last_step=last_step, data=data)


@pytest.mark.parametrize("last_step", [9, 1890])
def test_the_lines_of_training_and_of_validation_align(caplog, last_step):
    metrics = {"loss": 0.5, "accuracy": 0.25}
    for name, step in (("train", 1), ("validation", last_step), ("test", 5)):
        progress.log_line(session(last_step), name, "test", step, metrics, "remark")
    lines = [record.getMessage() for record in caplog.records]
    assert len({tuple(at for at, letter in enumerate(line) if letter == "|") for line in lines}) == 1
    assert all(line.endswith("| loss 0.5000 | accuracy 0.2500 | remark") for line in lines)


def test_f1_is_behind_the_columns_that_all_lines_have(caplog):
    metrics = {"loss": 0.5, "accuracy": 0.25, "f1": 0.125}
    progress.log_line(session(9), "validation", "test", 9, metrics, "remark")
    assert caplog.messages[-1].endswith("| loss 0.5000 | accuracy 0.2500 | f1 0.1250 | remark")


def test_of_the_usual_classes_a_sample_text_has_the_probability_of_being_positive(finished):
    (text,) = json.loads((finished / "result.json").read_text())["sample_texts"]
    assert set(text) == {"text", "label", "probability"}
    assert text["label"] == ("Positive" if text["probability"] > 0.5 else "Negative")


def test_of_three_classes_a_sample_text_has_the_probability_of_each(finished_topics):
    (text,) = json.loads((finished_topics / "result.json").read_text())["sample_texts"]
    assert text["probabilities"][text["label"]] == text["probability"] == max(text["probabilities"].values())
    points = scalars(finished_topics / "summaries")
    (tables,) = [values for key, values in points.items() if key[:2] == ("test", "sample_texts")]
    assert b"| probability of sports | probability of Politics & Law | probability of arts |" in tables[0]
