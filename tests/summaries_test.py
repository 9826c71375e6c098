"""The event log: continuous over kills."""

import collections
import json
import shutil
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
    assert summaries.rewind(tmp_path, step=2).last_step == 3
    assert {step for _, _, step in scalars(tmp_path)} == {1, 2}


def test_an_event_log_that_is_not_that_of_a_state_is_told_by_its_last_points(tmp_path):
    write_steps(tmp_path, [1, 2, 3])
    ends = summaries.rewind(tmp_path, step=2).ends
    assert ends["train", "loss"] == (2, 2.0)
    assert summaries.differences(ends, {("train", "loss"): (2, 2.0), ("best", "waited"): (0, None)}) == []
    wrong = {("train", "loss"): (2, 2.5), ("best", "waited"): (2, None)}
    assert summaries.differences(ends, wrong) == [
        "train/loss is 2 at step 2 and not 2.5",
        "best/waited ends at step 0 and not at 2",
    ]
    assert summaries.differences(ends, {("train", "loss"): (1, None)}) == ["train/loss ends at step 2 and not at 1"]


def test_behind_a_link_nothing_is_rewound_and_that_is_said(tmp_path, caplog):
    write_steps(tmp_path / "elsewhere", [1, 2, 3])
    (tmp_path / "summaries").symlink_to(tmp_path / "elsewhere")
    before = scalars(tmp_path / "elsewhere")
    assert summaries.rewind(tmp_path / "summaries", step=2).last_step == 3
    assert scalars(tmp_path / "elsewhere") == before
    assert "is a link, and stays as it is" in caplog.text


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


def test_a_text_is_a_table_of_its_rows(tmp_path):
    log = summaries.Summaries(tmp_path)
    log.write_tables("train", step=0, tables={"samples": [{"text": "good | bad", "label": 1}, {"text": "bad", "label": 0}]})
    log.commit()
    assert scalars(tmp_path) == {("train", "samples", 0): [b"| text | label |\n| --- | --- |\n| good &#124; bad | 1 |\n| bad | 0 |"]}


def test_curves_are_read_without_the_texts_between_them(tmp_path):
    summaries.Summaries(tmp_path).write_tables("train", step=0, tables={"samples": [{"text": "good"}]})
    write_steps(tmp_path, [1, 2], offset=0.1)
    curves = summaries.read(tmp_path)
    assert set(curves) == {("train", "loss"), ("train", "accuracy"), ("validation", "loss")}
    assert curves["train", "loss"] == [(1, 1.1), (2, 2.1)]


def test_of_step_0_nothing_stays_for_whoever_starts_there_writes_it_anew(tmp_path):
    log = summaries.Summaries(tmp_path)
    log.write_tables("train", step=0, tables={"samples": [{"text": "good"}]})
    log.write("train", step=1, scalars={"loss": 1.0})
    log.commit()
    summaries.rewind(tmp_path, step=1)
    assert len(scalars(tmp_path)) == 2
    summaries.rewind(tmp_path, step=0)
    assert scalars(tmp_path) == {}


@pytest.mark.parametrize(
    ("window", "first_step", "profiled"), [((2, 3), 1, 1), ((2, 3), 3, 1), ((2, 9), 1, 1), ((2, 3), 4, 0), ((6, 9), 1, 0)]
)
def test_the_steps_of_a_window_are_profiled_and_every_batch_is_passed_on(tmp_path, window, first_step, profiled):
    batches = summaries.profiled(iter("abcde"[first_step - 1 :]), directory=tmp_path, first_step=first_step, window=window)
    assert "".join(batches) == "abcde"[first_step - 1 :]
    assert len(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))) == profiled


def test_a_training_that_is_left_within_the_window_can_be_profiled_again(tmp_path):
    for _ in range(2):
        batches = summaries.profiled(iter("abc"), directory=tmp_path, first_step=1, window=(1, 3))
        assert next(batches) == "a"
        batches.close()


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


@pytest.fixture(scope="module", params=["true", "false"], ids=["data server", "Python loader"])
def tensorboard(tmp_path_factory, request):
    """The folder that a TensorBoard shows, and a function from a path of its HTTP API to the answer, or None."""
    folder = tmp_path_factory.mktemp("shown")
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        port = unused.getsockname()[1]
    arguments = [f"--logdir={folder}", f"--port={port}", f"--load_fast={request.param}", "--reload_interval=1"]
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *arguments], stderr=subprocess.DEVNULL)

    def answer(path):
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/data/{path}") as answer:
                return json.load(answer)
        except OSError:  # not up yet, or no such curve yet
            return None

    yield folder, answer
    server.terminate()
    server.wait()


def points_served(served, run, tag):
    return [[step, value] for _, step, value in served(f"plugin/scalars/scalars?run={run}&tag={tag}") or []]


def wait_until(condition, secs=60):
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
        second = int(time.time())  # Files are named by it, and a process takes longer than that to start.
        wait_until(lambda second=second: int(time.time()) > second)
        summaries.rewind(folder / "steps", step=restored)
        write_steps(folder / "steps", range(restored + 1, restored + 4), offset=0.25)
        expected = expected[:restored] + [[step, step + 0.25] for step in range(restored + 1, restored + 4)]
        seen = wait_until(lambda wanted=expected: points_served(served, "steps/train", "loss") == wanted)
        assert seen, points_served(served, "steps/train", "loss")
    for name in ("first", "second"):  # A run that is shown later than it was written tells that all was read again.
        write_steps(folder / name, [1])
        assert wait_until(lambda name=name: points_served(served, f"{name}/train", "loss") == [[1, 1.0]])
    assert points_served(served, "steps/train", "loss") == expected


def everything_served(served):
    """{(run, tag, step): values} that a TensorBoard serves of a training; of a text, whether it is a table."""
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


def test_tensorboard_serves_every_run_tag_and_point_of_a_training(finished, tensorboard):
    folder, served = tensorboard
    shutil.copytree(finished, folder / "run")
    texts = {"configuration", "sample_texts"}
    logged = {key: [True] if key[1] in texts else values for key, values in scalars(folder / "run" / "summaries").items()}
    wait_until(lambda: everything_served(served) == logged)  # it loads one run after another
    assert everything_served(served) == logged
    tags = {name: {tag for run, tag, _ in logged if run == name} for name in ("train", "validation", "best", "test")}
    assert {name for name in served("runs") if name.startswith("run/")} == {f"run/summaries/{name}" for name in tags}
    assert {"loss", "accuracy"} <= tags["train"] & tags["validation"] & tags["test"]
    assert tags["best"] == {"loss", "best_step", "waited"}
    assert texts <= tags["train"] & tags["test"]
