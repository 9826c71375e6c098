"""What a run directory holds, told without touching it."""

import csv
import json
import pathlib
import shutil
import signal
import subprocess

import pytest
from fakes import NoSignals, command, tiny
from kill_and_resume import scalars
from processes import popen

from trainer import inspect_run, train
from trainer.run import checkpoint, distribution


def facts(workdir, **given):
    return inspect_run.inspect(workdir, {"workdir": str(workdir), **given})


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
    inspect_run.run({"workdir": str(finished)}, signals=NoSignals())
    assert "verified" in capsys.readouterr().out


def test_it_touches_nothing(finished):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = files()
    facts(finished)
    assert files() == before


def test_the_answer_is_json(finished, tmp_path):
    inspect_run.run({"workdir": str(finished), "output": str(tmp_path / "facts.json")}, signals=NoSignals())
    assert json.loads((tmp_path / "facts.json").read_text())["step"] == 24


def test_the_history_has_a_row_for_each_evaluation_with_what_was_judged(finished):
    state, *_ = (checkpoint.read_values(path) for path in checkpoint.prefixes(finished / "checkpoints") if path.name == "ckpt-24")
    rows = facts(finished)["history"]
    assert [row["epoch"] for row in rows] == [5 / 8, 10 / 8, 15 / 8, 20 / 8]
    validation = {
        step: value for (run, tag, step), (value,) in scalars(finished / "summaries").items() if (run, tag) == ("validation", "loss")
    }
    assert {row["step"]: row["val_loss"] for row in rows} == pytest.approx(validation)
    best, patience = float("inf"), []
    for row in rows:
        assert row["best"] == (row["val_loss"] < best)
        patience.append(0 if row["best"] else patience[-1] + 1)
        best = min(best, row["val_loss"])
        assert 0.0 < row["loss"] < 2.0
        assert row["accuracy"] * 31 * 5 != 0
    assert [row["patience"] for row in rows] == patience
    assert rows[-1]["patience"] == state["waited"]


def test_the_history_as_csv_is_read_back_as_it_was_told(finished, tmp_path):
    inspect_run.run({"workdir": str(finished), "output": str(tmp_path / "history.csv")}, signals=NoSignals())
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "best", "patience"]
    for row, told in zip(rows, facts(finished)["history"], strict=True):
        assert {name: float(value) for name, value in row.items()} == {name: told[name] for name in row}


def test_without_validation_the_history_has_what_training_was_judged_by(tmp_path, cache_dir):
    train.run(tiny(tmp_path / "run", cache_dir, validation_split="", monitor="loss"), signals=NoSignals())
    rows = facts(tmp_path / "run")["history"]
    assert [row["step"] for row in rows][:2] == [5, 10]
    assert {row["val_loss"] for row in rows} == {None}
    inspect_run.run({"workdir": str(tmp_path / "run"), "output": str(tmp_path / "history.csv")}, signals=NoSignals())
    assert (tmp_path / "history.csv").read_text().splitlines()[1].startswith("5,0.625,0.")


def test_a_killed_run_says_where_it_goes_on_and_what_is_done_again(copy):
    for path in (copy / "checkpoints").glob("ckpt-2[34]*"):
        path.unlink()
    told = facts(copy)
    assert told["next"].startswith("resume at step 22")
    assert told["next"].endswith("at least 2 steps are done again")


def test_an_ending_that_is_missing_is_done_again(copy):
    (copy / "result.json").unlink()
    assert facts(copy)["next"].startswith("do the ending")


def test_damage_is_named_and_what_a_start_would_do_about_it(copy):
    data = copy / "checkpoints" / "ckpt-24.data-00000-of-00001"
    data.write_bytes(b"")
    told = facts(copy)
    (damaged,) = (entry for entry in told["checkpoints"] if entry["damage"])
    assert damaged["step"] == 24
    assert "quarantine" in told["next"]
    assert "resume at step 23" in told["next"]
    assert data.exists()


def test_a_checkpoint_that_has_lost_its_index_is_told(copy):
    (copy / "checkpoints" / "ckpt-24.index").unlink()
    told = [entry["damage"] for entry in facts(copy)["checkpoints"] if entry["path"].endswith("checkpoints/ckpt-24")]
    assert told == ["its index file is missing"]


def test_another_machine_is_named(finished, monkeypatch):
    conditions = distribution.conditions
    monkeypatch.setattr(distribution, "conditions", lambda **kwargs: {**conditions(**kwargs), "usable cores": "96"})
    assert "usable cores" in facts(finished)["next"]


def test_a_store_that_is_not_what_was_written_is_named(copy, cache_dir, tmp_path):
    own = shutil.copytree(cache_dir, tmp_path / "cache", ignore=shutil.ignore_patterns("*.tmp", "lock"))
    starts = copy / "starts.jsonl"
    starts.write_text(starts.read_text().replace(cache_dir, str(own)))
    stores = facts(copy, cache_dir=str(own))["stores"]
    assert {store["damage"] for store in stores.values()} == {None}
    path = pathlib.Path(next(iter(stores.values()))["path"]) / "labels.bin"
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    told = facts(copy, cache_dir=str(own))["stores"].values()
    assert "labels.bin is not what was written" in [store["damage"] for store in told]


def test_a_store_that_the_command_line_does_not_lead_to_is_not_read(finished, tmp_path):
    told = facts(finished, cache_dir=str(tmp_path))["stores"].values()
    assert {store["damage"] for store in told} == {"not looked at: it is not in --cache_dir"}


def test_an_empty_directory_begins_at_step_0(tmp_path):
    assert facts(tmp_path)["next"] == "begin at step 0"


def test_a_run_that_trains_is_told_so_and_notices_nothing(tmp_path, cache_dir, finished):
    given = tiny(tmp_path / "run", cache_dir, epochs=1000, patience=0)
    with popen(command(given), stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if line.startswith("validation"))
        try:
            for _ in range(5):
                told = facts(tmp_path / "run")
                assert told["is_training"]
                assert told["next"].startswith("resume at step")
        finally:  # Else a failure would wait for the end of a run that goes on.
            process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 143
    assert "Traceback" not in said
