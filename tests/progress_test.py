"""What training logs."""

import json
import types

import pytest
from compare_runs import scalars

from trainer import progress


@pytest.mark.parametrize("last_step", [9, 1890])
def test_the_lines_of_training_and_of_validation_align(caplog, last_step):
    run = types.SimpleNamespace(
        last_step=last_step, data=types.SimpleNamespace(plan=types.SimpleNamespace(steps_per_epoch=63))
    )
    metrics = {"loss": 0.5, "accuracy": 0.25}
    for name, step in (("train", 1), ("validation", last_step), ("test", 5)):
        progress.log_line(run, name, "test", step, metrics, "remark")
    lines = [record.getMessage() for record in caplog.records]
    assert len({tuple(at for at, letter in enumerate(line) if letter == "|") for line in lines}) == 1
    assert all(line.endswith("| loss 0.5000 | accuracy 0.2500 | remark") for line in lines)


def test_f1_is_behind_the_columns_that_all_lines_have(caplog):
    plan = types.SimpleNamespace(steps_per_epoch=63)
    run = types.SimpleNamespace(last_step=9, data=types.SimpleNamespace(plan=plan))
    progress.log_line(
        run, "validation", "validation", 9, {"loss": 0.5, "accuracy": 0.25, "f1": 0.125}, "remark"
    )
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
