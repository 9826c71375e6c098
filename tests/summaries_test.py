"""The event log: continuous over kills."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from kill_and_resume import scalars
from tensorboard.backend.event_processing import event_accumulator

from trainer.run import summaries


def write_steps(directory, steps, *, offset=0.0):
    log = summaries.Summaries(directory)
    for step in steps:
        log.write("train", step=step, scalars={"loss": step + offset, "accuracy": 0.5})
        log.write("validation", step=step, scalars={"loss": 2 * step + offset})
    log.commit()


def test_a_point_is_on_disk_when_the_log_is_committed(tmp_path):
    write_steps(tmp_path, [1, 2])
    assert scalars(tmp_path) == {
        ("train", "loss", 1): [1.0],
        ("train", "accuracy", 1): [0.5],
        ("train", "loss", 2): [2.0],
        ("train", "accuracy", 2): [0.5],
        ("validation", "loss", 1): [2.0],
        ("validation", "loss", 2): [4.0],
    }


def test_a_run_without_points_leaves_no_file(tmp_path):
    summaries.Summaries(tmp_path / "summaries").commit()
    assert not (tmp_path / "summaries").exists()


def test_what_came_after_the_restored_step_is_dropped(tmp_path):
    write_steps(tmp_path, [1, 2, 3])
    assert summaries.rewind(tmp_path, step=2) == 3
    assert {step for _, _, step in scalars(tmp_path)} == {1, 2}


def test_after_many_kills_each_step_has_one_value_and_a_run_one_old_file(tmp_path):
    write_steps(tmp_path, [1, 2, 3])
    for restored in (2, 3, 4):
        summaries.rewind(tmp_path, step=restored)
        assert len(list((tmp_path / "train").iterdir())) == 1
        write_steps(tmp_path, range(restored + 1, restored + 3), offset=0.25)
    points = scalars(tmp_path)
    assert all(len(values) == 1 for values in points.values())
    assert [points["train", "loss", step][0] for step in range(1, 7)] == [1.0, 2.0, 3.25, 4.25, 5.25, 6.25]


def test_tensorboards_own_reader_sees_each_step_once(tmp_path):
    write_steps(tmp_path, [1, 2, 3])
    summaries.rewind(tmp_path, step=2)
    write_steps(tmp_path, [3, 4])
    reader = event_accumulator.EventAccumulator(str(tmp_path / "train"), size_guidance={event_accumulator.TENSORS: 0})
    reader.Reload()
    assert [event.step for event in reader.Tensors("loss")] == [1, 2, 3, 4]


def test_without_a_checkpoint_nothing_is_left(tmp_path):
    write_steps(tmp_path, [1, 2])
    summaries.rewind(tmp_path, step=0)
    assert scalars(tmp_path) == {}


def test_a_torn_tail_is_dropped(tmp_path):
    write_steps(tmp_path, [1, 2])
    (file,) = (tmp_path / "train").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    summaries.rewind(tmp_path, step=2)
    assert [step for run, tag, step in scalars(tmp_path) if (run, tag) == ("train", "loss")] == [1, 2]
    assert ("train", "accuracy", 2) not in scalars(tmp_path)


def test_a_rewind_killed_before_the_old_file_went_is_healed(tmp_path):
    write_steps(tmp_path, [1, 2])
    (file,) = (tmp_path / "train").iterdir()
    content = file.read_bytes()
    summaries.rewind(tmp_path, step=2)
    file.write_bytes(content)
    summaries.rewind(tmp_path, step=2)
    assert all(len(values) == 1 for values in scalars(tmp_path).values())


@pytest.fixture(params=["true", "false"], ids=["data server", "Python loader"])
def served(tmp_path, request):
    """A TensorBoard on `tmp_path`; called, it tells the points of a curve as it serves them, as [step, value]."""
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        port = unused.getsockname()[1]
    arguments = [f"--logdir={tmp_path}", f"--port={port}", f"--load_fast={request.param}", "--reload_interval=1"]
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *arguments], stderr=subprocess.DEVNULL)

    def points(run, tag):
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/data/plugin/scalars/scalars?run={run}&tag={tag}") as answer:
                return [[step, value] for _, step, value in json.load(answer)]
        except OSError:  # not up yet, or no such curve yet
            return None

    yield points
    server.terminate()
    server.wait()


def wait_until(condition, secs=60):
    until = time.monotonic() + secs
    while not condition() and time.monotonic() < until:
        time.sleep(0.2)
    return condition()


def test_a_tensorboard_that_stays_open_shows_each_step_once(tmp_path, served):
    expected = [[1, 1.0], [2, 2.0], [3, 3.0], [4, 4.0]]
    write_steps(tmp_path, [1, 2, 3, 4])
    assert wait_until(lambda: served("train", "loss") == expected)
    for restored in (2, 4):
        time.sleep(1)  # files are named by the second, and a process takes longer than that to start
        summaries.rewind(tmp_path, step=restored)
        write_steps(tmp_path, range(restored + 1, restored + 4), offset=0.25)
        expected = expected[:restored] + [[step, step + 0.25] for step in range(restored + 1, restored + 4)]
        assert wait_until(lambda wanted=expected: served("train", "loss") == wanted), served("train", "loss")
    time.sleep(3)
    assert served("train", "loss") == expected
