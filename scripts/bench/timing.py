"""Times calls and processes, and describes the machine."""

import contextlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from local_cluster import ROOT

TRAINER = [sys.executable, "-m", "trainer.main", f"--flagfile={ROOT / 'trainer/configs/tutorial.flags'}"]


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


@contextlib.contextmanager
def running(command: Sequence[str], **kwargs: object) -> Iterator[subprocess.Popen]:
    """Starts a process that does not outlive the block; keyword arguments are those of Popen."""
    with subprocess.Popen(command, cwd=ROOT, **kwargs) as process:
        try:
            yield process
        finally:
            process.kill()


def exit_on_sigterm() -> None:
    """Turns SIGTERM into SystemExit, so that all blocks are left and no child process outlives this one."""

    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)


def seconds_until(command: Sequence[str], is_match: Callable[[str], bool]) -> float:
    """Runs the trainer until it logs a matching line, and stops it; returns the seconds until that line."""
    began, last = time.perf_counter(), ""
    with running(command, stderr=subprocess.PIPE, text=True) as process:
        for last in process.stderr:
            if is_match(last):
                taken = time.perf_counter() - began
                process.send_signal(signal.SIGTERM)
                process.communicate()
                return taken
    raise SystemExit(f"The trainer has ended too early ({last.strip()}); see: {' '.join(command)}")


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median, with the least and the largest value in brackets."""
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def machine() -> dict[str, str | int]:
    """The machine and the date of the figures."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else os.uname().machine
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "date": time.strftime("%Y-%m-%d")}


def machine_line(figures: dict) -> str:
    """`machine` as the first line of a report."""
    return f"{figures['cpu']}, {figures['cores']} cores, {figures['date']}"
