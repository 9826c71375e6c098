"""Workers on one machine: started, restarted and stopped together."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import kill_and_resume
import pytest
from compare_runs import differences, outcome
from fakes import NoStopRequests, flags, tiny
from local_cluster import ROOT, held_ports, outcome_of, start_workers
from replicated_runs import PIPES, settings, wait

from trainer import train


def start(given, *arguments):
    command = [sys.executable, "scripts/local_cluster.py", *arguments, "--", *flags(given)]
    return subprocess.Popen(command, cwd=ROOT, **PIPES)


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
    command = [sys.executable, "-c", STAND_INS, *scripts]
    return subprocess.Popen(command, cwd=ROOT / "scripts", **{**PIPES, **kwargs})


FORKS = """
import sys
import local_cluster
from fork_server import ForkServer
start = local_cluster.start_workers
def start_workers(*arguments, **kwargs):
    workers = start(*arguments, popen=server.popen, **kwargs)
    print(*(worker.pid for worker in workers), flush=True)
    return workers
local_cluster.start_workers = start_workers
with ForkServer() as server:
    sys.exit(local_cluster.train_together(2, sys.argv[1:], max_restarts=1))
"""
"""Runs two real workers as forks, and prints their process ids at each start."""


def test_when_one_worker_dies_all_are_restarted_and_ctrl_c_saves_and_ends_all(tmp_path, cache_dir):
    given = settings(tmp_path / "run", cache_dir, "multi_worker", epochs=1000, eval_every_steps=10**6)
    command = [sys.executable, "-c", FORKS, *flags(given)]
    process = subprocess.Popen(command, cwd=ROOT / "scripts", **PIPES)
    logged = []

    def wait_for_line(pattern):
        while not re.match(pattern, line := process.stdout.readline()):
            assert line, logged
            logged.append(line)
        return line

    first = wait_for_line(r"\d+ \d+$").split()
    wait_for_line(r"\[0\] train +\| step +3/")
    os.kill(int(first[1]), signal.SIGKILL)
    wait_for_line(r"A worker died \(exit codes \[(5, -9|-9, 5)\]\): all are restarted; restarts left: 0\.$")
    assert not set(first) & set(wait_for_line(r"\d+ \d+$").split())
    wait_for_line(r"\[0\] Resumed at step ")
    wait_for_line(r"\[0\] train +\| step")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    for worker in (0, 1):
        assert f"[{worker}] error: Ended by SIGINT: saved at step " in output
    assert "Traceback" not in "".join(logged) + output


def test_a_job_of_one_worker_equals_a_run_on_one_device(tmp_path, cache_dir):
    without_evaluations = {"validation_split": "", "test_split": "", "monitor": "loss", "epochs": 1}
    one, other = (
        settings(tmp_path / strategy, cache_dir, strategy, **without_evaluations)
        for strategy in ("multi_worker", "one_device")
    )
    output = start(one, "--workers=1").communicate()[0]
    train.run(other, stop_requests=NoStopRequests())
    states = [outcome(tmp_path / name)["state"] for name in ("one_device", "multi_worker")]
    assert differences(*states) == ["frozen_flags/.ATTRIBUTES/VARIABLE_VALUE"], output


def test_a_relative_workdir_lies_in_the_working_directory_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "run").write_text("no directory")
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "__init__.py").write_text("raise AssertionError('not our package')")
    monkeypatch.chdir(tmp_path)
    (worker,) = start_workers(1, ["--workdir=run"], **PIPES)
    outputs, codes = wait([worker])
    log = pathlib.Path("log")
    codes += kill_and_resume.wait(kill_and_resume.start(pathlib.Path("run"), [], log))
    assert codes == [2, 2]
    for output in (*outputs, log.read_text()):
        assert "error: --workdir must be a directory" in output


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
    configs = []

    def popen(command, *, env, **kwargs):
        configs.append(json.loads(env["TF_CONFIG"]))
        return subprocess.Popen(command, env=env, **kwargs)

    (worker,) = start_workers(1, ["--help"], popen=popen, stdout=subprocess.DEVNULL)
    port = int(configs[0]["cluster"]["worker"][0].rpartition(":")[2])
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
