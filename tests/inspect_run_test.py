"""What --mode=inspect prints and writes."""

import csv
import json

from fakes import NoStopRequests, tiny

from trainer import inspect_run, inspection, train


def facts(workdir, **given):
    return inspection.facts_of(inspection.look(workdir, {"workdir": str(workdir), **given}))


def test_a_finished_run_is_told_whole(finished, cache_dir, capsys):
    told = facts(finished, cache_dir=cache_dir)
    ending = json.loads((finished / "result.json").read_text())
    assert (told["step"], told["last_step"], told["is_training"]) == (24, 24, False)
    assert told["best"] == {"step": ending["best_step"], "val_loss": ending["best_metric"]}
    assert told["next"].startswith("do nothing: it is finished")
    assert told["starts"] == 1
    assert told["goodput_at_most"] == 1.0
    assert {entry["damage"] for entry in told["checkpoints"]} == {None}
    assert {store["damage"] for store in told["stores"].values()} == {None}
    assert [row["step"] for row in told["history"]] == [5, 10, 15, 20]
    assert [row["step"] for row in told["history"] if row["best"]][-1] == ending["best_step"]
    assert told["config"]["seed"] == 2
    inspect_run.run({"workdir": str(finished)})
    assert "verified" in capsys.readouterr().out


def test_the_answer_is_json(finished, tmp_path):
    inspect_run.run({"workdir": str(finished), "output": str(tmp_path / "facts.json")})
    assert json.loads((tmp_path / "facts.json").read_text())["step"] == 24


def test_the_history_as_csv_is_read_back_as_it_was_told(finished, tmp_path):
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
    for row, told in zip(rows, facts(finished)["history"], strict=True):
        assert {name: float(value) for name, value in row.items()} == {name: told[name] for name in row}


def test_without_validation_the_history_has_what_training_was_judged_by(tmp_path, cache_dir):
    train.run(
        tiny(tmp_path / "run", cache_dir, validation_split="", monitor="loss"), stop_requests=NoStopRequests()
    )
    rows = facts(tmp_path / "run")["history"]
    assert [row["step"] for row in rows][:2] == [5, 10]
    assert {row["val_loss"] for row in rows} == {None}
    inspect_run.run({"workdir": str(tmp_path / "run"), "output": str(tmp_path / "history.csv")})
    assert (tmp_path / "history.csv").read_text().splitlines()[1].startswith("5,0.625,0.")
