"""Workers on one machine, started, started again and stopped together."""

import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from fakes import NoSignals, tiny
from kill_and_resume import differences, outcome
from local_cluster import ROOT

from trainer import train


def start(given, *arguments):
    command = [sys.executable, "scripts/local_cluster.py", *arguments, "--", *(f"--{name}={value}" for name, value in given.items())]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def workers_of(process):
    return [int(pid) for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_for_step(workdir, step, process):
    while not (workdir / "checkpoints" / f"ckpt-{step}.index").exists() and process.poll() is None:
        time.sleep(0.01)


def test_when_one_dies_all_are_started_again_and_on_ctrl_c_all_end_with_a_save(tmp_path, cache_dir):
    given = tiny(tmp_path / "run", cache_dir, epochs=1000, patience=0)
    process = start(given, "--workers=2", "--max_restarts=1")
    wait_for_step(tmp_path / "run", 4, process)
    first = workers_of(process)
    subprocess.run(["kill", "-KILL", str(first[1])], check=True)
    while set(first) & set(workers_of(process)) or len(workers_of(process)) < 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    wait_for_step(tmp_path / "run", 12, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert re.search(r"A worker died \(exit codes \[(5, -9|-9, 5)\]\): all are started again; restarts left: 0\.", said), said
    for worker in (0, 1):
        assert f"[{worker}] error: Ended by SIGINT: saved at step " in said
    assert "Traceback" not in said


def test_a_job_that_one_worker_does_is_the_one_of_one_device(tmp_path, cache_dir):
    said = start(tiny(tmp_path / "cluster", cache_dir, epochs=1), "--workers=1").communicate()[0]
    train.run(tiny(tmp_path / "run", cache_dir, epochs=1), signals=NoSignals())
    assert differences(outcome(tmp_path / "run")["state"], outcome(tmp_path / "cluster")["state"]) == [
        "frozen_flags/.ATTRIBUTES/VARIABLE_VALUE"
    ], said


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_a_number_of_workers_that_is_none_is_refused(tmp_path, workers):
    process = start({"workdir": tmp_path / "run"}, f"--workers={workers}")
    said = process.communicate()[0]
    assert process.returncode == 2
    assert "--workers" in said and "Traceback" not in said
