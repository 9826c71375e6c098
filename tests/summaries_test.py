"""Writing summaries, and what TensorBoard shows of them."""

import collections
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from compare_runs import scalars
from saved_runs import write_steps

from trainer.run import event_files, summaries


def test_points_are_on_disk_after_a_commit(tmp_path):
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


def test_a_text_summary_is_a_markdown_table(tmp_path):
    log = summaries.Summaries(tmp_path)
    log.write_tables(
        "train", step=0, tables={"samples": [{"text": "good | bad", "label": 1}, {"text": "bad", "label": 0}]}
    )
    log.commit()
    assert scalars(tmp_path) == {
        ("train", "samples", 0): [b"| text | label |\n| --- | --- |\n| good &#124; bad | 1 |\n| bad | 0 |"]
    }


@pytest.mark.parametrize(
    ("window", "first_step", "profiled"),
    [((2, 3), 1, 1), ((2, 3), 3, 1), ((2, 9), 1, 1), ((2, 3), 4, 0), ((6, 9), 1, 0)],
)
def test_the_steps_of_a_window_are_profiled_and_all_batches_are_yielded(
    tmp_path, window, first_step, profiled
):
    batches = summaries.profiled(
        iter("abcde"[first_step - 1 :]), directory=tmp_path, first_step=first_step, window=window
    )
    assert "".join(batches) == "abcde"[first_step - 1 :]
    assert len(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))) == profiled


def test_a_run_that_stops_within_the_window_can_be_profiled_again(tmp_path):
    for _ in range(2):
        batches = summaries.profiled(iter("abc"), directory=tmp_path, first_step=1, window=(1, 3))
        assert next(batches) == "a"
        batches.close()


@pytest.fixture(scope="module", params=["true", "false"], ids=["data server", "Python loader"])
def tensorboard(tmp_path_factory, request):
    """The log directory of a running TensorBoard, and a function that gets a path of its HTTP API."""
    folder = tmp_path_factory.mktemp("shown")
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        port = unused.getsockname()[1]
    arguments = [
        f"--logdir={folder}",
        f"--port={port}",
        f"--load_fast={request.param}",
        "--reload_interval=1",
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *arguments], stderr=subprocess.DEVNULL
    )

    def get(path):
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/data/{path}") as response:
                return json.load(response)
        except OSError:  # not up yet, or no such curve yet
            return None

    yield folder, get
    server.terminate()
    server.wait()


def points_served(served, run, tag):
    return [[step, value] for _, step, value in served(f"plugin/scalars/scalars?run={run}&tag={tag}") or []]


def wait_until(condition, secs=600):
    until = time.monotonic() + secs
    while not condition() and time.monotonic() < until:
        time.sleep(0.2)
    return condition()


def test_a_tensorboard_that_stays_open_shows_each_step_once(tensorboard):
    folder, served = tensorboard
    expected = [[1, 1.0], [2, 2.0], [3, 3.0], [4, 4.0]]
    write_steps(folder / "steps", [1, 2, 3, 4])
    assert wait_until(lambda: points_served(served, "steps/train", "loss") == expected)
    for restored in (2, 4):
        second = int(time.time())  # Event files are named by the second; a new process takes longer to start.
        wait_until(lambda second=second: int(time.time()) > second)
        event_files.rewind(folder / "steps", step=restored)
        write_steps(folder / "steps", range(restored + 1, restored + 4), offset=0.25)
        expected = expected[:restored] + [[step, step + 0.25] for step in range(restored + 1, restored + 4)]
        seen = wait_until(lambda wanted=expected: points_served(served, "steps/train", "loss") == wanted)
        assert seen, points_served(served, "steps/train", "loss")
    # When a run that was written later is shown, everything has been read again.
    for name in ("first", "second"):
        write_steps(folder / name, [1])
        assert wait_until(lambda name=name: points_served(served, f"{name}/train", "loss") == [[1, 1.0]])
    assert points_served(served, "steps/train", "loss") == expected


def everything_served(served):
    """{(run, tag, step): values} that a TensorBoard serves; for a text, whether it is a table."""
    found = collections.defaultdict(list)
    for run, tags in (served("plugin/scalars/tags") or {}).items():
        for tag in tags if run.startswith("run/") else ():
            for step, value in points_served(served, run, tag):
                found[run.rpartition("/")[2], tag, step].append(value)
    for run, tags in (served("plugin/text/tags") or {}).items():
        for tag in tags if run.startswith("run/") else ():
            for text in served(f"plugin/text/text?run={run}&tag={tag}") or []:
                found[run.rpartition("/")[2], tag, text["step"]].append("<table>" in text["text"])
    return found


def test_tensorboard_serves_every_run_tag_and_point_that_training_wrote(finished, tensorboard):
    folder, served = tensorboard
    shutil.copytree(finished, folder / "run")
    texts = {"configuration", "sample_texts"}
    logged = {
        key: [True] if key[1] in texts else values
        for key, values in scalars(folder / "run" / "summaries").items()
    }
    wait_until(lambda: everything_served(served) == logged)  # it loads one run after another
    assert everything_served(served) == logged
    tags = {
        name: {tag for run, tag, _ in logged if run == name}
        for name in ("train", "validation", "best", "test")
    }
    assert {name for name in served("runs") if name.startswith("run/")} == {
        f"run/summaries/{name}" for name in tags
    }
    assert {"loss", "accuracy"} <= tags["train"] & tags["validation"] & tags["test"]
    assert tags["best"] == {"loss", "best_step", "waited"}
    assert texts <= tags["train"] & tags["test"]
