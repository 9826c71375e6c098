"""The entry point, as a user meets it: real processes, real signals."""

import contextlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from typing import NamedTuple

import matplotlib
import pytest
from compare_runs import outcome
from fakes import NoStopRequests, command, tiny
from processes import popen
from processes import run as run_forked
from reference_runs import SELDOM

from trainer import train

MAIN = [sys.executable, "-m", "trainer.main"]
AS_TEXT = {"capture_output": True, "text": True, "timeout": 120}


def run(arguments, **kwargs):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120, **kwargs)


# Run by Python itself at its start; what it prints at the end is not seen by the program.
LIST_IMPORTS = """
import atexit, os, pathlib, sys
atexit.register(lambda: pathlib.Path(os.environ["IMPORTS"]).write_text("\\n".join(sys.modules)))
"""


KERAS_JSON = {"floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first", "backend": "jax"}


class Fresh(NamedTuple):
    """A new run, trained to its end by a fresh process whose user has set up Keras otherwise.

    Attributes:
      given: its settings.
      stderr: what it printed.
      result: its result.json.
      imported: the modules it imported.
      home: the home of its user, which had a keras.json and nothing else.
    """

    given: dict
    stderr: str
    result: dict
    imported: set[str]
    home: pathlib.Path


@pytest.fixture(scope="module")
def first(tmp_path_factory, cache_dir, finished):
    """A run that a fresh process trained; to be read, not written."""
    folder = tmp_path_factory.mktemp("first")
    given, home, hook = tiny(folder / "run", cache_dir), folder / "home", folder / "hook"
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text(json.dumps(KERAS_JSON))
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(LIST_IMPORTS)
    # As a user has it: the tests' own process has set these. Without TF_XLA_FLAGS, it compiles for itself.
    set_by_tests = ("KERAS_", "TF_CPP_", "TF_XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(set_by_tests)}
    path = os.pathsep.join(filter(None, [str(hook), os.environ.get("PYTHONPATH")]))
    environment |= {"HOME": str(home), "PYTHONPATH": path, "IMPORTS": str(folder / "imports")}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # else it collects the fonts of the machine again
    completed = run(command(given), env=environment)
    assert completed.returncode == 0, completed.stderr
    result = json.loads((folder / "run" / "result.json").read_text())
    imported = set((folder / "imports").read_text().splitlines())
    return Fresh(given, completed.stderr, result, imported, home)


@pytest.fixture
def finished_given(first):
    """The settings of a finished run."""
    return first.given


def test_help_answers_with_every_flag():
    answer = run([*MAIN, "--help"])
    assert answer.returncode == 0
    assert "--workdir=" in answer.stdout
    assert answer.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "--workdir"),
        (["--workdir=w", "--epoch=3"], "epoch"),
        (["--workdir=w", "--epochs=some"], "integer"),
        (["--workdir=w", "--epochs=0"], "--epochs=0"),
        (["--workdir=w", "stray"], "stray"),
        (["--flagfile=missing.flags"], "missing.flags"),
        (["--workdir=/proc/no"], "--workdir"),
        (["--workdir=w", "--monitor=val_loss", "--validation_split="], "--validation_split"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(tmp_path, arguments, word):
    answer = run([*MAIN, *arguments], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(pathlib.Path.cwd())})
    assert answer.returncode == 2
    assert word in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "w" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"dataset": "no_such_set"}, "no_such_set"),
        ({"train_split": "trains"}, "trains"),
        ({"test_split": "test[:x]"}, "test"),
    ],
)
def test_an_unknown_dataset_or_split_is_one_sentence(tmp_path, cache_dir, settings, word):
    answer = run_forked(command(tiny(tmp_path / "run", cache_dir, **settings)), **AS_TEXT)
    assert answer.returncode == 2
    assert word in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_model_larger_than_the_memory_is_one_sentence(tmp_path, cache_dir):
    answer = run_forked(command(tiny(tmp_path / "run", cache_dir, lstm_units=1_000_000)), **AS_TEXT)
    assert answer.returncode == 2
    assert "error: The memory must hold a training step" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_run_logs_what_it_does_and_writes_its_result(first):
    for words in (
        "sample_reviews",
        "train      | step  3/24",
        "validation | step  5/24",
        "Ended at step",
        "Best checkpoint",
        "test       |",
    ):
        assert words in first.stderr
    assert "\r" not in first.stderr
    assert first.result["test"]["reviews"] == 20
    assert first.result["sample_texts"][0]["label"] in ("Positive", "Negative")


def test_a_start_by_a_fork_is_that_of_a_fresh_process(tmp_path, cache_dir, first, reference_outcome):
    answer = run_forked(command(tiny(tmp_path / "run", cache_dir)), **AS_TEXT)
    assert answer.returncode == 0

    def lines(text, workdir):
        return re.sub(r"\d+ reviews/s", "", text.replace(str(workdir), "")).splitlines()

    assert lines(answer.stderr, tmp_path / "run") == lines(first.stderr, first.given["workdir"])
    forked, fresh = outcome(tmp_path / "run"), outcome(pathlib.Path(first.given["workdir"]))
    assert (
        json.loads(forked["manifest.json"])["conditions"] == json.loads(fresh["manifest.json"])["conditions"]
    )
    assert forked == fresh
    assert reference_outcome == fresh, (
        "what the tests train within their own process, with compiled steps that they share"
    )


def test_tensorflow_is_imported_without_a_word(first):
    assert first.stderr.startswith("Dataset ")


def test_a_start_imports_nothing_that_training_does_not_need(first):
    assert {"tensorflow", "keras", "trainer.train"} <= first.imported
    assert not first.imported & {f"trainer.{name}" for name in ("predict", "export", "inspect_run")}
    # Not in the list: matplotlib, which Keras imports where it is installed, as the tests' own tools have it.
    assert not first.imported & {"pandas", "scipy", "sklearn", "IPython", "torch", "jax"}


def test_the_users_keras_json_decides_nothing_and_is_left_alone(first, reference_outcome):
    assert outcome(pathlib.Path(first.given["workdir"])) == reference_outcome
    assert [path.name for path in (first.home / ".keras").iterdir()] == ["keras.json"]
    assert json.loads((first.home / ".keras" / "keras.json").read_text()) == KERAS_JSON


def on_a_terminal(arguments, **environment):
    """What a process writes when its standard error is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    # A log level in the environment makes TensorFlow log while it loads; the tests' own process has set one.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | {
        "TERM": "xterm",
        **environment,
    }
    with popen(arguments, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # how Linux reports that the other side has closed
            while data := os.read(ours, 65536):
                written += data
    os.close(ours)
    assert process.returncode == 0
    return written.decode()


@pytest.fixture(scope="module")
def verbose(tmp_path_factory, cache_dir):
    """The directory of a verbose run, and what it wrote to a terminal."""
    workdir = tmp_path_factory.mktemp("verbose") / "run"
    given = {**tiny(workdir, cache_dir, log_every_steps=1), "verbosity": 1}
    return workdir, on_a_terminal(command(given), NO_COLOR="")


def test_on_a_terminal_the_best_is_green_and_each_epoch_has_a_bar(verbose):
    _, written = verbose
    assert "\x1b[32mvalidation |" in written
    for epoch in ("epoch 1/3", "epoch 2/3", "epoch 3/3"):
        assert epoch in written
    assert "/8 [" in written


def test_a_verbose_run_logs_each_save(verbose):
    workdir, written = verbose
    for step in range(1, 25):
        assert f"Saved {workdir}/checkpoints/ckpt-{step}, " in written


def test_with_no_color_nothing_is_coloured(copy, cache_dir):
    start = command({"workdir": copy, "cache_dir": cache_dir})
    written = {}
    for no_color in ("", "1"):
        (copy / "config.flags").unlink()
        written[no_color] = on_a_terminal(start, NO_COLOR=no_color)
        assert "warning: " in written[no_color]
    assert "\x1b[33mwarning: " in written[""]
    assert "\x1b[3" not in written["1"]


def test_a_quiet_run_writes_nothing_and_shows_no_bar(tmp_path):
    # With few unknown tokens, and without a test of what it has learned: it is not worth a warning.
    settings = {"epochs": 1, "vocab_size": 1000, "test_split": "", "verbosity": -1}
    given = tiny(tmp_path / "run", str(tmp_path / "cache"), **settings)
    assert on_a_terminal(command(given)) == ""


def test_a_finished_run_logs_that_it_is_and_changes_nothing(finished_given):
    workdir = finished_given["workdir"]
    before = {path: path.stat().st_mtime_ns for path in _files(workdir)}
    answer = run_forked(
        [*MAIN, f"--workdir={workdir}", f"--cache_dir={finished_given['cache_dir']}"], **AS_TEXT
    )
    assert answer.returncode == 0
    assert "is finished" in answer.stderr
    assert {path: path.stat().st_mtime_ns for path in _files(workdir)} == before


def _files(workdir):
    """All but the lock, which names the process that held it last, and the state files, which are rebuilt."""
    return [
        path
        for path in pathlib.Path(workdir).rglob("*")
        if path.is_file() and path.name not in ("lock", "checkpoint")
    ]


def test_frozen_flags_that_differ_are_each_named(finished_given):
    answer = run_forked([*command(finished_given), "--seed=1", "--batch_size=8"], **AS_TEXT)
    assert answer.returncode == 2
    assert "--seed was 2 and is 1 now" in answer.stderr
    assert "--batch_size was 4 and is 8 now" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_inexact_change_is_refused_without_allow_inexact_resume(finished_given):
    refused = run_forked([*command(finished_given), "--learning_rate=0.02"], **AS_TEXT)
    assert refused.returncode == 2
    assert "--learning_rate was 0.03 and is 0.02 now" in refused.stderr
    assert "--allow_inexact_resume" in refused.stderr


def test_a_tilde_is_the_home_folder_and_the_command_that_is_printed_fits_a_shell(tmp_path, cache_dir):
    home = tmp_path / "the user's home"
    home.mkdir()
    # So many words that the model has the size of the tiny run's, for which XLA has compiled.
    rows = "".join(f"{'good' if number % 2 else 'bad'} film {number},{number % 2}\n" for number in range(100))
    (home / "reviews.csv").write_text(f"text,label\n{rows}")
    splits = {"train_split": "train", "validation_split": "", "monitor": "loss", "test_split": ""}
    given = tiny("~/my runs/first", cache_dir, dataset="csv:~/reviews.csv", epochs=1, **splits)
    given |= {**SELDOM, "sample_text": ()}
    answer = run_forked(command(given), env={**os.environ, "HOME": str(home)}, **AS_TEXT)
    assert answer.returncode == 0, answer.stderr
    assert not pathlib.Path("~").exists()
    assert f"--dataset=csv:{home}/reviews.csv\n" in (home / "my runs" / "first" / "config.flags").read_text()
    (printed,) = (line for line in answer.stderr.splitlines() if line.startswith("View metrics: "))
    words = run(["sh", "-c", f"printf '%s\\n' {printed.removeprefix('View metrics: ')}"]).stdout.splitlines()
    assert words == ["tensorboard", "--logdir", f"{home}/my runs/first/summaries"]


@pytest.mark.parametrize(("signum", "start"), [(signal.SIGINT, 0), (signal.SIGTERM, 16)])
def test_a_signal_saves_and_the_same_command_ends_with_the_same_bits(
    tmp_path, cache_dir, killed, finished_given, signum, start
):
    workdir = tmp_path / "run"
    if start:  # a run that is resumed; it is not evaluated before the signal
        shutil.copytree(killed / str(start), workdir)
    process = popen(command(tiny(workdir, cache_dir)), stderr=subprocess.PIPE, text=True)
    while not (workdir / "checkpoints" / f"ckpt-{start + 1}.index").exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "the same command continues" in errors or "to redo" in errors
    assert "Traceback" not in errors
    train.run(tiny(workdir, cache_dir), stop_requests=NoStopRequests())
    assert outcome(workdir) == outcome(pathlib.Path(finished_given["workdir"]))


def test_a_log_line_does_not_command_a_terminal(tmp_path):
    answer = run(
        [*MAIN, "--workdir=w", "--epo\x1b[2Jch\x9b=3"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path.cwd())},
    )
    assert answer.returncode == 2
    assert r"epo\x1b[2Jch" in answer.stderr
    assert not {"\x1b", "\x9b"} & set(answer.stderr)


def test_a_signal_while_tensorflow_is_imported_is_reported_in_one_line(tmp_path, cache_dir):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    process = subprocess.Popen(
        command(tiny(tmp_path / "run", cache_dir)), stderr=subprocess.PIPE, text=True, env=environment
    )
    while "libtensorflow" not in pathlib.Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors == "Ended by SIGTERM; the same command continues.\n"


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path, cache_dir):
    workdir = tmp_path / "run"
    first = popen(command(tiny(workdir, cache_dir, epochs=10_000, patience=0)), stderr=subprocess.DEVNULL)
    while not (workdir / "checkpoints").exists() and first.poll() is None:
        time.sleep(0.01)
    second = run_forked(command(tiny(workdir, cache_dir)), **AS_TEXT)
    first.kill()
    first.wait()
    assert second.returncode == 2
    assert f"process {first.pid} on " in second.stderr
