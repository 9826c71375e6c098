"""Workers on one machine: started, restarted and stopped together."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from compare_runs import differences, outcome
from fakes import NoStopRequests, tiny
from local_cluster import ROOT, held_ports, outcome_of, start_workers

from trainer import train


def start(given, *arguments):
    command = [
        sys.executable,
        "scripts/local_cluster.py",
        *arguments,
        "--",
        *(f"--{name}={value}" for name, value in given.items()),
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


STAND_INS = """
import subprocess, sys
import local_cluster
def start_workers(count, flags, **kwargs):
    return [subprocess.Popen(["sh", "-c", flag], **kwargs) for flag in flags]
local_cluster.start_workers = start_workers
sys.exit(local_cluster.train_together(len(sys.argv) - 1, sys.argv[1:], max_restarts=2))
"""
"""Runs shell scripts as workers, as a trainer cannot be made to exit with a given code on demand."""


def start_stand_ins(*scripts, **kwargs):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **kwargs}
    return subprocess.Popen([sys.executable, "-c", STAND_INS, *scripts], cwd=ROOT / "scripts", **pipes)


def workers_of(process):
    return [
        int(pid)
        for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]


def wait_for_step(workdir, step, process):
    while not (workdir / "checkpoints" / f"ckpt-{step}.index").exists() and process.poll() is None:
        time.sleep(0.01)


def test_when_one_worker_dies_all_are_restarted_and_ctrl_c_saves_and_ends_all(tmp_path, cache_dir):
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
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert re.search(
        r"A worker died \(exit codes \[(5, -9|-9, 5)\]\): all are restarted; restarts left: 0\.", output
    ), output
    for worker in (0, 1):
        assert f"[{worker}] error: Ended by SIGINT: saved at step " in output
    assert "Traceback" not in output


def test_a_job_of_one_worker_equals_a_run_on_one_device(tmp_path, cache_dir):
    output = start(tiny(tmp_path / "cluster", cache_dir, epochs=1), "--workers=1").communicate()[0]
    train.run(tiny(tmp_path / "run", cache_dir, epochs=1), stop_requests=NoStopRequests())
    assert differences(outcome(tmp_path / "run")["state"], outcome(tmp_path / "cluster")["state"]) == [
        "frozen_flags/.ATTRIBUTES/VARIABLE_VALUE"
    ], output


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_an_invalid_number_of_workers_is_refused(tmp_path, workers):
    process = start({"workdir": tmp_path / "run"}, f"--workers={workers}")
    output = process.communicate()[0]
    assert process.returncode == 2
    assert "--workers" in output and "Traceback" not in output


@pytest.mark.parametrize("restarts", ["-1", "many"])
def test_an_invalid_number_of_restarts_is_refused(tmp_path, restarts):
    process = start({"workdir": tmp_path / "run"}, f"--max_restarts={restarts}")
    output = process.communicate()[0]
    assert process.returncode == 2
    assert "--max_restarts" in output and "Traceback" not in output


def test_a_user_error_ends_the_job_at_once(tmp_path, cache_dir):
    (tmp_path / "run").write_text("no directory")
    process = start(tiny(tmp_path / "run", cache_dir, connect_secs=1))
    output = process.communicate()[0]
    assert process.returncode == 2, output
    assert output.count("error: --workdir must be a directory") == 1
    assert "restarted" not in output


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([3, 5], 3),
        ([5, 3], 3),
        ([5, 0], 5),
        ([0, 5], 5),
        ([4, 2], 4),
        ([2, 4], 2),
        ([-9, 5], 137),
        ([5, -9], 5),
        ([-11, 1], 1),
        ([5, -15], 143),
        ([130, -9], 130),
    ],
)
def test_the_exit_code_is_the_first_that_a_restart_cannot_fix(codes, expected):
    assert outcome_of(codes) == expected


@pytest.mark.parametrize("code", [1, 2, 3, 4, 130, 143])
def test_an_error_that_a_restart_cannot_fix_ends_the_job(code):
    process = start_stand_ins("exit 5", f"sleep 0.1; exit {code}", "sleep 0.3; exit 6")
    output = process.communicate()[0]
    assert process.returncode == code, output
    assert output == ""


@pytest.mark.parametrize(
    ("exit_command", "code"),
    [
        ("exit 5", 5),
        *(
            (f"kill -{name} $$", 128 + number)
            for name, number in (("KILL", 9), ("SEGV", 11), ("ABRT", 6), ("BUS", 7))
        ),
    ],
)
def test_a_crash_restarts_all_workers_until_no_restarts_are_left(exit_command, code):
    process = start_stand_ins("exit 0", f"ulimit -c 0; echo here; {exit_command}")
    output = process.communicate()[0]
    assert process.returncode == code, output
    assert output.count("[1] here") == 3
    assert output.count("all are restarted") == 2


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR2", "XCPU", "QUIT"])
def test_a_signal_is_forwarded_to_all_workers_and_ends_the_job(name):
    script = (
        f"trap 'exit {128 + signal.Signals[f'SIG{name}']}' {name}; echo ready; while :; do sleep 0.02; done"
    )
    process = start_stand_ins(script, script)
    for _ in range(2):
        assert process.stdout.readline().endswith("ready\n")
    process.send_signal(signal.Signals[f"SIG{name}"])
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 128 + signal.Signals[f"SIG{name}"], output
    assert output == ""


def test_sigusr1_is_forwarded_to_all_workers_and_does_not_end_the_job():
    script = "trap 'echo saved; exit 5' USR1; echo ready; while :; do sleep 0.02; done"
    process = start_stand_ins(script, script)
    for restarts in (2, 1, 0):
        assert sorted(process.stdout.readline() for _ in range(2)) == ["[0] ready\n", "[1] ready\n"]
        process.send_signal(signal.SIGUSR1)
        assert sorted(process.stdout.readline() for _ in range(2)) == ["[0] saved\n", "[1] saved\n"]
        assert not restarts or "all are restarted" in process.stdout.readline()
    assert process.wait(20) == 5


def test_sighup_stays_ignored_under_nohup():
    command = ["nohup", sys.executable, "-c", STAND_INS, "echo ready; sleep 0.5"]
    process = subprocess.Popen(
        command, cwd=ROOT / "scripts", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "[0] ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 0


@pytest.mark.parametrize("where", ["| head -1", ">/dev/full", ">&-", ">&- 2>&-"])
def test_a_closed_or_full_output_does_not_stop_the_job(tmp_path, where):
    script = "for n in $(seq 3000); do echo line $n; done; echo done > $DONE; exit 4"
    line = f'"$@" {where}; echo ${{PIPESTATUS[0]}} > {tmp_path / "code"}'
    environment = {**os.environ, "DONE": tmp_path / "done"}
    command = ["bash", "-c", line, "bash", sys.executable, "-c", STAND_INS, script]
    completed = subprocess.run(
        command,
        cwd=ROOT / "scripts",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (tmp_path / "code").read_text() == "4\n"
    assert (tmp_path / "done").exists()
    assert completed.stderr == ""
    assert completed.stdout in ("", "[0] line 1\n")


def test_the_port_of_a_worker_is_reserved_until_it_listens():
    (worker,) = start_workers(1, ["--help"], stdout=subprocess.DEVNULL)
    environment = dict(
        item.split("=", 1)
        for item in pathlib.Path(f"/proc/{worker.pid}/environ").read_text().split("\0")
        if "=" in item
    )
    port = int(json.loads(environment["TF_CONFIG"])["cluster"]["worker"][0].rpartition(":")[2])
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("", port))
    assert worker.wait(60) == 0
    with socket.socket() as other:
        other.bind(("", port))


def test_a_reserved_port_can_be_bound_by_its_worker():
    with held_ports(1) as (held,), socket.socket(socket.AF_INET6) as worker:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        worker.bind(("", held.getsockname()[1]))
        worker.listen()
