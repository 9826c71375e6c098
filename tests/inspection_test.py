"""What inspection finds in a run directory, without changing it."""

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


def test_inspection_changes_no_files(finished):
    def files():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}

    before = files()
    facts(finished)
    assert files() == before


def test_the_history_has_a_row_per_evaluation_with_its_metrics_and_verdict(finished):
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


def test_a_killed_run_shows_its_resume_step_and_the_steps_to_recompute(copy):
    for path in (copy / "checkpoints").glob("ckpt-2[34]*"):
        path.unlink()
    found = facts(copy)
    assert found["next"].startswith("resume at step 22")
    assert found["next"].endswith("at least 2 steps to recompute")


def test_without_a_result_the_final_evaluation_is_next(copy):
    (copy / "result.json").unlink()
    assert facts(copy)["next"].startswith("do the final evaluation")


def test_damage_is_reported_with_what_a_restart_would_do(copy):
    data = copy / "checkpoints" / "ckpt-24.data-00000-of-00001"
    data.write_bytes(b"")
    found = facts(copy)
    (damaged,) = (entry for entry in found["checkpoints"] if entry["damage"])
    assert damaged["step"] == 24
    assert "quarantine" in found["next"]
    assert "resume at step 23" in found["next"]
    assert data.exists()


def test_a_checkpoint_without_its_index_file_is_reported(copy):
    (copy / "checkpoints" / "ckpt-24.index").unlink()
    found = [
        entry["damage"]
        for entry in facts(copy)["checkpoints"]
        if entry["path"].endswith("checkpoints/ckpt-24")
    ]
    assert found == ["its index file is missing"]


def test_a_different_machine_is_reported(finished, monkeypatch):
    real = conditions.conditions
    monkeypatch.setattr(conditions, "conditions", lambda **kwargs: {**real(**kwargs), "cpu": "Z80"})
    assert "is 'Z80' now" in facts(finished)["next"]


def test_usable_cores_are_compared_only_when_tensorflow_chooses_the_threads(finished, monkeypatch):
    read = checkpoint_reading.read_texts  # as an older version recorded them
    monkeypatch.setattr(
        checkpoint_reading, "read_texts", lambda *given: {**read(*given), "usable cores": "96"}
    )
    assert facts(finished)["next"].startswith("do nothing: it is finished")
    assert "usable cores was '96'" in facts(finished, intra_op_threads=0)["next"]


def test_a_damaged_store_is_reported(copy, cache_dir, tmp_path):
    cache = shutil.copytree(cache_dir, tmp_path / "cache", ignore=shutil.ignore_patterns("*.tmp", "lock"))
    starts = copy / "starts.jsonl"
    starts.write_text(starts.read_text().replace(cache_dir, str(cache)))
    stores = facts(copy, cache_dir=str(cache))["stores"]
    assert {store["damage"] for store in stores.values()} == {None}
    path = pathlib.Path(next(iter(stores.values()))["path"]) / "labels.bin"
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    damages = [store["damage"] for store in facts(copy, cache_dir=str(cache))["stores"].values()]
    assert "labels.bin differs from what was written" in damages


def test_a_store_outside_cache_dir_is_not_read(finished, tmp_path):
    found = facts(finished, cache_dir=str(tmp_path))["stores"].values()
    assert {store["damage"] for store in found} == {"not read: it is not in --cache_dir"}


def test_an_empty_directory_starts_at_step_0(tmp_path):
    assert facts(tmp_path)["next"] == "start at step 0"


def test_a_running_training_is_reported_as_such_and_not_disturbed(tmp_path, cache_dir, halfway):
    run = shutil.copytree(halfway, tmp_path / "run")
    given = tiny(run, cache_dir, epochs=1000, patience=0)
    with popen(command(given), stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stderr if line.startswith("train "))
        try:
            for _ in range(5):
                found = facts(tmp_path / "run")
                assert found["is_training"]
                assert found["next"].startswith("resume at step")
        finally:  # Otherwise a failed assertion would wait for the run to finish.
            process.send_signal(signal.SIGTERM)
        stderr = process.stderr.read()
    assert process.returncode == 143
    assert "Traceback" not in stderr
