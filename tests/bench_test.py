"""The contenders of the benchmarks; the figures themselves are not tested."""

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import turns
import variants
from fakes import TINY, tiny
from forked_scripts import forkable
from local_cluster import ROOT
from processes import popen
from reference_runs import train_to_the_end
from timing import running, seconds_until

from trainer import session, steps, train
from trainer.run import event_files
from trainer.settings import resolve

FLAGS = [
    f"--{name}={value}"
    for name, value in TINY.items()
    if name not in ("seed", "eval_every_steps", "checkpoint_every_secs")
]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def running_as_a_fork(command, **kwargs):
    """As `timing.running`, without the import of TensorFlow."""
    with popen(forkable(command), cwd=ROOT, **kwargs) as process:
        try:
            yield process
        finally:
            process.kill()


def test_our_contender_trains_evaluates_and_saves_in_turns(cache_dir, monkeypatch):
    monkeypatch.setattr(turns, "running", running_as_a_fork)
    with turns.contending("ours", cache_dir, *FLAGS) as contender:
        steps = contender.order("train 3")["steps"]
        assert [0 < step["in_step"] <= step["seconds"] for step in steps] == [True] * 3
        assert all(step["length"] > 0 and step["repeated"] is None for step in steps)
        assert contender.order("repeat 2")["steps"][-1]["repeated"] > 0
        assert contender.order("evaluate")["seconds"] > 0
        assert contender.order("end")["seconds"] > 0
        assert contender.order("end")["peak_mib"] > 0


def test_a_contender_does_not_outlive_the_block(cache_dir, tmp_path, monkeypatch):
    deaf = tmp_path / "deaf.py"
    deaf.write_text("print('{}', flush=True)\nwhile True: __import__('signal').pause()")
    monkeypatch.setattr(turns, "PROGRAM", deaf)
    with pytest.raises(KeyboardInterrupt), turns.contending("ours", cache_dir) as contender:
        assert is_running(contender.pid)
        raise KeyboardInterrupt
    assert not is_running(contender.pid)


def test_a_contender_ends_when_the_benchmark_is_killed():
    contender = """
import sys
sys.path[:0] = ["scripts/bench", "scripts"]
from turns import Turns
turns = Turns()
turns.answer()
while True: turns.is_over()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with running([sys.executable, "-c", contender], **pipes) as process:
        assert process.stdout.readline()
        print(f"train {10**12}", file=process.stdin, flush=True)
        process.stdin.close()  # as the kernel does for a process that is gone
        assert process.wait(60) == 128 + signal.SIGPIPE


def test_sigterm_ends_a_benchmark_and_what_it_has_started():
    program = """
import sys
sys.path[:0] = ["scripts/bench", "scripts"]
from timing import exit_on_sigterm, running
exit_on_sigterm()
with running(["sleep", "1000"]) as process:
    print(process.pid, flush=True)
    process.wait()
"""
    benchmark = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(benchmark.stdout.readline())
    assert is_running(pid)
    benchmark.send_signal(signal.SIGTERM)
    assert benchmark.wait(60) == 128 + signal.SIGTERM
    assert not is_running(pid)


def test_a_program_that_ends_before_the_awaited_line_is_an_error():
    with pytest.raises(SystemExit, match="too early"):
        seconds_until([sys.executable, "-c", "import sys; sys.exit('no')"], lambda line: "yes" in line)


def metrics_of(settings, variant):
    """What a variant yields; the steps of Keras' LSTM are its own, the other variants have the trainer's."""
    with pytest.MonkeyPatch.context() as patch:
        if variant != "Keras":
            patch.setattr(steps, "make_train_step", train.make_train_step)
            patch.setattr(steps, "make_eval_step", session.make_eval_step)
        return list(variants.train(resolve(settings, {}), variant))


@pytest.fixture(scope="module")
def metrics_of_ours(tmp_path_factory, cache_dir):
    return metrics_of(tiny(tmp_path_factory.mktemp("ours") / "run", cache_dir), "ours")


def test_the_variant_with_nothing_exchanged_is_the_trainer(tmp_path, cache_dir, metrics_of_ours):
    given = tiny(tmp_path / "run", cache_dir, validation_split="test[:20]", eval_every_steps=0, patience=0)
    train_to_the_end(given)
    curve = event_files.read(tmp_path / "run" / "summaries")["validation", "loss"]
    assert [np.float32(epoch.loss) for epoch in metrics_of_ours] == [loss for _, loss in curve]


@pytest.mark.parametrize("variant", ["Keras", "unsorted"])
def test_a_variant_trains_to_other_metrics(tmp_path, cache_dir, metrics_of_ours, variant):
    ours, other = metrics_of_ours[:2], metrics_of(tiny(tmp_path / "run", cache_dir, epochs=2), variant)
    assert [epoch.reviews for epoch in other] == [epoch.reviews for epoch in ours]
    assert other != ours
    assert [epoch.loss for epoch in other] == pytest.approx([epoch.loss for epoch in ours], rel=0.2)
