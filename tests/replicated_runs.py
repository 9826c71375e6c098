"""Runs on two replicas, in processes of their own: on two devices of one process, or in two workers."""

import json
import pathlib
import subprocess

from fakes import flags, tiny
from fork_server import PROGRAM
from local_cluster import start_workers
from processes import popen
from reference_runs import SELDOM

DEVICES = {"mirrored": {"logical_devices": 2}, "multi_worker": {}}
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


def settings(workdir, cache_dir, strategy, **more):
    """The settings of a tiny run of a strategy: 16 steps over 2 epochs.

    It evaluates once an epoch, and its sample text is empty: a start that ends within an epoch does not
    compile the evaluation. Its metric is one of all reviews, of which each replica sees some.
    """
    usual = {
        "epochs": 2,
        "eval_every_steps": 0,
        "sample_text": ("",),
        "validation_split": "validation",
        "monitor": "val_f1",
        "strategy": strategy,
        **DEVICES.get(strategy, {}),
    }
    return tiny(workdir, cache_dir, **usual | more)


def start(given, **kwargs):
    """Starts the one process of `mirrored`, or the two of `multi_worker`."""
    if given["strategy"] == "multi_worker":
        return start_workers(2, flags(given), popen=popen, **PIPES, **kwargs)
    return [popen([*PROGRAM, *flags(given)], **PIPES)]


def wait(processes, secs=300):
    """The outputs and the exit codes."""
    outputs = [process.communicate(timeout=secs)[0] for process in processes]
    return outputs, [process.returncode for process in processes]


def undisturbed(build_once, cache_dir, strategy) -> pathlib.Path:
    """The directory of an undisturbed run of a strategy, with few saves; to be read, not written.

    What its processes printed is in `outputs.json` beside it. A run that is compared with it must have ended
    with the same free flags, `SELDOM`.
    """

    def make(folder):
        outputs, codes = wait(start(settings(folder / "run", cache_dir, strategy, **SELDOM)))
        assert set(codes) == {0}, outputs
        (folder / "outputs.json").write_text(json.dumps(outputs))

    return build_once(strategy, make) / "run"
