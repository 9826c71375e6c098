"""Starts of scripts that import TensorFlow, as forks of a process that has imported it."""

import sys
from collections.abc import Sequence

_PROGRAM = """
import pathlib, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def forkable(command: Sequence[str]) -> list[str]:
    """A command `[sys.executable, script, ...]` as one for `processes.popen` and `processes.run`."""
    return [sys.executable, "-c", _PROGRAM, *command[1:]]
