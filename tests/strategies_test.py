"""Several devices and several processes: the same training, as exactly resumable."""

import re
import signal
import subprocess
import time

import pytest
from compare_runs import outcome, scalars
from fakes import NoStopRequests, command, tiny
from local_cluster import SECS_TO_END, start_workers
from processes import popen

from trainer import train
from trainer.errors import InputError

DEVICES = {"mirrored": {"logical_devices": 2}, "multi_worker": {}}


def flags(given):
    return [f"--{name}={value}" for name, value in given.items()]


def start(given, **kwargs):
    """The processes of a training on two replicas: one that has two devices, or two workers."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    if given["strategy"] == "multi_worker":
        return start_workers(2, flags(given), popen=popen, **pipes, **kwargs)
    return [popen(command(given), **pipes)]


def wait(processes, secs=300):
    """What the processes said, and their exit codes."""
    said = [process.communicate(timeout=secs)[0] for process in processes]
    return said, [process.returncode for process in processes]


def settings(workdir, cache_dir, strategy, **more):
    return tiny(workdir, cache_dir, strategy=strategy, **DEVICES[strategy], **more)


@pytest.fixture(scope="module", params=DEVICES)
def pair(request, build_once, cache_dir):
    """A strategy, and the outcome of a run under it that was left alone."""

    def make(folder):
        said, codes = wait(start(settings(folder / "run", cache_dir, request.param)))
        assert set(codes) == {0}, said

    return request.param, outcome(build_once(request.param, make) / "run")


def wait_for_step(workdir, step):
    until = time.monotonic() + 300
    while not (workdir / "checkpoints" / f"ckpt-{step}.index").exists():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_killed_and_started_again_nothing_tells(tmp_path, cache_dir, pair):
    strategy, expected = pair
    given = settings(tmp_path / "run", cache_dir, strategy)
    for step, victim in ((3, -1), (10, 0)):  # of two workers the second, then the chief
        processes = start(given)
        wait_for_step(tmp_path / "run", step)
        processes[victim].kill()
        said, codes = wait(processes, SECS_TO_END)
        assert codes.pop(victim) == -signal.SIGKILL
        assert set(codes) <= {5}, said
    said, codes = wait(start(given))
    assert set(codes) == {0}, said
    assert outcome(tmp_path / "run") == expected


def test_a_signal_to_one_worker_ends_all_at_one_step(tmp_path, cache_dir, pair):
    strategy, expected = pair
    given = settings(tmp_path / "run", cache_dir, strategy)
    processes = start(given)
    wait_for_step(tmp_path / "run", 6)
    processes[-1].terminate()
    said, codes = wait(processes, SECS_TO_END)
    assert set(codes) == {143}
    ends = {text.strip().splitlines()[-1].rpartition(": ")[2] for text in said}
    assert len(ends) == 1, said
    wait(start(given))
    assert outcome(tmp_path / "run") == expected


@pytest.mark.parametrize("strategy", DEVICES)
def test_one_device_has_the_losses_of_two_and_goes_on_with_leave_where_they_ended(
    tmp_path, cache_dir, caplog, strategy
):
    more = {"learning_rate": 1e-3, "patience": 0}
    train.run(tiny(tmp_path / "one", cache_dir, epochs=2, **more), stop_requests=NoStopRequests())
    said, codes = wait(start(settings(tmp_path / "two", cache_dir, strategy, epochs=1, **more)))
    assert set(codes) == {0}, said
    on_one = tiny(tmp_path / "two", cache_dir, epochs=2, strategy="one_device", logical_devices=0, **more)
    with pytest.raises(InputError, match="replicas was '2' and is '1' now"):
        train.run(on_one, stop_requests=NoStopRequests())
    train.run({**on_one, "allow_inexact_resume": True}, stop_requests=NoStopRequests())
    assert "Resuming inexactly: --strategy was " in caplog.text
    one, two = (scalars(tmp_path / name / "summaries") for name in ("one", "two"))
    steps = [key for key in one if key[1] == "loss" and key[0] != "best"]
    assert {key[2] for key in steps} >= {3, 5, 6, 9, 10, 12, 15}
    for key in steps:
        assert two[key] == pytest.approx(one[key], abs=1e-5)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_whose_peer_does_not_come_waits_no_longer_than_it_was_told(tmp_path, cache_dir, victim):
    given = settings(tmp_path / "run", cache_dir, "multi_worker", connect_secs=2)
    processes = start(given)
    processes[victim].kill()
    said, codes = wait(processes, SECS_TO_END)
    assert codes[1 - victim] == 5, said
    assert "not all have connected within 2 s (--connect_secs)" in said[1 - victim]
    assert "Traceback" not in said[1 - victim]


@pytest.mark.parametrize("words", ["Dataset", "Batches", "validation .* step  5/24"])
def test_a_worker_whose_peer_dies_ends_with_a_sentence_in_any_phase(tmp_path, cache_dir, words):
    chief, worker = start(settings(tmp_path / "run", cache_dir, "multi_worker"))
    for line in chief.stdout:
        if re.match(words, line):
            break
    worker.kill()
    said, codes = wait([chief, worker], SECS_TO_END)
    assert codes == [5, -signal.SIGKILL], said
    assert "but one is gone" in said[0].splitlines()[-1]
    assert "Traceback" not in said[0]


def test_workers_that_are_started_unlike_are_told_how(tmp_path, cache_dir):
    given = settings(tmp_path / "run", cache_dir, "multi_worker")
    (tmp_path / "mounted").symlink_to(tmp_path)  # A path of its own to the same directory is no difference.
    said, codes = wait(start(given, unlike=["--seed=7", f"--workdir={tmp_path / 'mounted' / 'run'}"]))
    assert codes == [2, 2], said
    for text in said:
        assert "--seed is 2 on worker 0 and 7 on worker 1" in text
        assert "Traceback" not in text


def test_workers_that_do_not_share_the_run_directory_are_refused_before_anything_is_trained(
    tmp_path, cache_dir
):
    given = settings(tmp_path / "run", cache_dir, "multi_worker")
    said, codes = wait(start(given, unlike=[f"--workdir={tmp_path / 'other'}"]))
    assert codes == [2, 2], said
    for text in said:
        assert f"worker 1 does not see it in {tmp_path / 'other'}" in text.splitlines()[-1]
        assert "Traceback" not in text
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"lock"}
    assert not (tmp_path / "other").exists()
