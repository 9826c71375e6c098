"""What --mode=inspect prints and writes."""

import csv
import json

from fakes import NoStopRequests, tiny

from trainer import inspect_run, inspection, train


def facts(workdir, **given):
    return inspection.facts_of(inspection.look(workdir, {"workdir": str(workdir), **given}))


def test_a_finished_run_is_reported_in_full(finished, cache_dir, capsys):
    reported = facts(finished, cache_dir=cache_dir)
    result = json.loads((finished / "result.json").read_text())
    assert (reported["step"], reported["last_step"], reported["is_training"]) == (24, 24, False)
    assert reported["best"] == {"step": result["best_step"], "val_loss": result["best_metric"]}
    assert reported["next"].startswith("do nothing: it is finished")
    assert reported["starts"] == 1
    assert reported["goodput_at_most"] == 1.0
    assert {entry["damage"] for entry in reported["checkpoints"]} == {None}
    assert {store["damage"] for store in reported["stores"].values()} == {None}
    assert [row["step"] for row in reported["history"]] == [5, 10, 15, 20]
    assert [row["step"] for row in reported["history"] if row["best"]][-1] == result["best_step"]
    assert reported["config"]["seed"] == 2
    inspect_run.run({"workdir": str(finished)})
    assert "verified" in capsys.readouterr().out


def test_a_json_output_is_written(finished, tmp_path):
    inspect_run.run({"workdir": str(finished), "output": str(tmp_path / "facts.json")})
    assert json.loads((tmp_path / "facts.json").read_text())["step"] == 24


def test_the_csv_history_equals_the_reported_history(finished, tmp_path):
    inspect_run.run({"workdir": str(finished), "output": str(tmp_path / "history.csv")})
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "step",
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "best",
        "patience",
    ]
    for row, expected in zip(rows, facts(finished)["history"], strict=True):
        assert {name: float(value) for name, value in row.items()} == {name: expected[name] for name in row}


def test_without_validation_the_history_has_the_training_metrics(tmp_path, cache_dir):
    train.run(
        tiny(tmp_path / "run", cache_dir, validation_split="", monitor="loss"), stop_requests=NoStopRequests()
    )
    rows = facts(tmp_path / "run")["history"]
    assert [row["step"] for row in rows][:2] == [5, 10]
    assert {row["val_loss"] for row in rows} == {None}
    inspect_run.run({"workdir": str(tmp_path / "run"), "output": str(tmp_path / "history.csv")})
    assert (tmp_path / "history.csv").read_text().splitlines()[1].startswith("5,0.625,0.")


def test_f1_is_in_the_history_of_a_run_that_evaluates_it(finished, finished_topics, tmp_path, capsys):
    for workdir, is_there in ((finished, False), (finished_topics, True)):
        assert ("val_f1" in facts(workdir)["history"][0]) is is_there
        inspect_run.run({"workdir": str(workdir), "output": str(tmp_path / "history.csv")})
        assert ("val_f1" in (tmp_path / "history.csv").read_text().splitlines()[0]) is is_there
        assert ("val_f1" in capsys.readouterr().out.partition("history ")[2].splitlines()[0]) is is_there
