"""The trainer as a contender of the benchmarks; the figures themselves are no matter of a test."""

import bench
from fakes import TINY


def test_our_contender_trains_evaluates_and_saves_in_turns(cache_dir):
    flags = [f"--{name}={value}" for name, value in TINY.items() if name not in ("seed", "eval_every_steps", "checkpoint_every_secs")]
    contender = bench.Contender("ours", cache_dir, *flags)
    assert [step["length"] > 0 for step in contender.order("train 3")["steps"]] == [True] * 3
    assert contender.order("repeat 2")["steps"][-1]["repeated"] > 0
    assert contender.order("evaluate")["seconds"] > 0
    assert contender.order("end")["seconds"] > 0
    contender.order("end")
    contender._process.kill()
    contender._process.communicate()
