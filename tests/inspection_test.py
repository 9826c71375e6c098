"""What is found in a run directory, without touching it."""

import pathlib
import shutil
import signal
import subprocess

import pytest
from compare_runs import scalars
from fakes import command, tiny
from processes import popen

from trainer import inspection
from trainer.run import checkpoint_reading, conditions


def facts(workdir, **given):
    return inspection.facts_of(inspection.look(workdir, {"workdir": str(workdir), **given}))


def test_it_touches_nothing(finished):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = files()
    facts(finished)
    assert files() == before


def test_the_history_has_a_row_for_each_evaluation_with_what_was_judged(finished):
    state = checkpoint_reading.read_values(finished / "checkpoints" / "ckpt-24")
    rows = facts(finished)["history"]
    assert [row["epoch"] for row in rows] == [5 / 8, 10 / 8, 15 / 8, 20 / 8]
    validation = {
        step: value
        for (run, tag, step), (value,) in scalars(finished / "summaries").items()
        if (run, tag) == ("validation", "loss")
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


def test_a_killed_run_says_where_it_goes_on_and_what_is_done_again(copy):
    for path in (copy / "checkpoints").glob("ckpt-2[34]*"):
        path.unlink()
    told = facts(copy)
    assert told["next"].startswith("resume at step 22")
    assert told["next"].endswith("at least 2 steps to recompute")


def test_an_ending_that_is_missing_is_done_again(copy):
    (copy / "result.json").unlink()
    assert facts(copy)["next"].startswith("do the final evaluation")


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
    told = [
        entry["damage"]
        for entry in facts(copy)["checkpoints"]
        if entry["path"].endswith("checkpoints/ckpt-24")
    ]
    assert told == ["its index file is missing"]


def test_another_machine_is_named(finished, monkeypatch):
    real = conditions.conditions
    monkeypatch.setattr(conditions, "conditions", lambda **kwargs: {**real(**kwargs), "cpu": "Z80"})
    assert "is 'Z80' now" in facts(finished)["next"]


def test_cores_are_named_only_where_tensorflow_decides_the_threads(finished, monkeypatch):
    read = checkpoint_reading.read_texts  # as an older version recorded them
    monkeypatch.setattr(
        checkpoint_reading, "read_texts", lambda *given: {**read(*given), "usable cores": "96"}
    )
    assert facts(finished)["next"].startswith("do nothing: it is finished")
    assert "usable cores was '96'" in facts(finished, intra_op_threads=0)["next"]


def test_a_store_that_is_not_what_was_written_is_named(copy, cache_dir, tmp_path):
    own = shutil.copytree(cache_dir, tmp_path / "cache", ignore=shutil.ignore_patterns("*.tmp", "lock"))
    starts = copy / "starts.jsonl"
    starts.write_text(starts.read_text().replace(cache_dir, str(own)))
    stores = facts(copy, cache_dir=str(own))["stores"]
    assert {store["damage"] for store in stores.values()} == {None}
    path = pathlib.Path(next(iter(stores.values()))["path"]) / "labels.bin"
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    damages = [store["damage"] for store in facts(copy, cache_dir=str(own))["stores"].values()]
    assert "labels.bin differs from what was written" in damages


def test_a_store_that_the_command_line_does_not_lead_to_is_not_read(finished, tmp_path):
    told = facts(finished, cache_dir=str(tmp_path))["stores"].values()
    assert {store["damage"] for store in told} == {"not read: it is not in --cache_dir"}


def test_an_empty_directory_begins_at_step_0(tmp_path):
    assert facts(tmp_path)["next"] == "start at step 0"


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
