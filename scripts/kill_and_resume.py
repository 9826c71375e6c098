"""Kills a run at random instants, resumes it, and compares every bit with an uninterrupted reference run.

    python scripts/kill_and_resume.py [--kills=20] [--seed=0] [--signal=KILL] [-- FLAGS OF THE TRAINER]
    python scripts/kill_and_resume.py --forks                                 # forks, which start faster
    python scripts/kill_and_resume.py --strategy=mirrored [--replicas=2]      # several CPU devices
    python scripts/kill_and_resume.py --strategy=multi_worker [--replicas=2]  # several processes, one killed

Each process is killed at an instant between its start and its expected end; the same command resumes. A
finished run is compared with the reference run (all tensors, files and logged values except rates), and a new
one is started. With --signal=TERM or INT, the output shows how long the trainer takes to stop. With several
workers one is killed, and all must end within 30 seconds.
"""

import argparse
import collections
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from compare_runs import differences, outcome
from fork_server import ForkServer
from local_cluster import SECS_TO_END, Popen, environment, start_workers
from tqdm import tqdm

from trainer.words import plural

SMALL_RUN = [
    *("--train_split=train[:640]", "--validation_split=validation[:512]", "--test_split=test[:512]"),
    *("--batch_size=8", "--epochs=2", "--learning_rate=0.005", "--dropout=0.2", "--patience=3"),
    *("--vocab_size=1000", "--embedding_dim=16", "--lstm_units=16", "--dense_units=16"),
    *("--pooling=last", "--ngrams=0", "--token_dropout=0"),
    *("--eval_every_steps=20", "--checkpoint_every_steps=3", "--log_every_steps=5"),
]

Processes = list[subprocess.Popen[Any]]
Seconds = dict[str, list[float]]  # from each disturbance to the end of all processes, by kind and phase


class Disturbance(NamedTuple):
    """What was done to running processes.

    Attributes:
      kind: the first part of its name in the report.
      codes: the exit codes that it may cause.
      undo: is called when all processes have ended.
    """

    kind: str
    codes: frozenset[int]
    undo: Callable[[], None] = lambda: None


def start(
    workdir: pathlib.Path,
    flags: list[str],
    log: pathlib.Path,
    *,
    workers: int = 0,
    popen: Popen = subprocess.Popen,
) -> Processes:
    """Starts the trainer in one process, or in several workers; its output goes to `log`."""
    flags = [*flags, f"--workdir={workdir}"]
    with log.open("wb") as output:
        if workers:
            return start_workers(workers, flags, popen=popen, stdout=output, stderr=output)
        command = [sys.executable, "-m", "trainer.main", *flags]
        return [popen(command, env=environment(), stdout=output, stderr=output)]


def wait(processes: Processes, secs: float | None = None) -> list[int]:
    """The exit codes; raises subprocess.TimeoutExpired when not all processes have ended within `secs`."""
    deadline = time.monotonic() + secs if secs is not None else None
    return [process.wait(max(0, deadline - time.monotonic()) if deadline else None) for process in processes]


def phase(workdir: pathlib.Path, output: str) -> str:
    """The phase in which a process was killed, judged by its output and by the files that it left."""
    temporary_files = ("*/*_temp", "*/checkpoint.tmp*", "**/.*.tmp")
    if "Ended at step" in output:
        return "final evaluation"
    if "is abandoned" in output:  # logged after a signal; a kill leaves no trace of an evaluation
        return "evaluation"
    if any(path for pattern in temporary_files for path in workdir.glob(pattern)):
        return "save"
    # The first lines that training logs, in a new run and in a resumed one.
    return "training" if "with probability" in output or "Resumed at step" in output else "start-up"


def kill_and_resume(
    *,
    kills: int,
    seed: int,
    signum: int,
    flags: list[str],
    folder: pathlib.Path,
    workers: int = 0,
    popen: Popen = subprocess.Popen,
) -> tuple[Seconds, list[str]]:
    """Kills a run `kills` times at random instants; the rest is as in `disturb_and_resume`."""
    rng = random.Random(seed)
    # The other workers lose a peer, or receive its stop request, which they report as SIGTERM.
    codes = {-signum, 128 + signum} | ({5, 128 + signal.SIGTERM} if workers else set())

    def disturb(processes: Processes) -> Disturbance:
        rng.choice(processes).send_signal(signum)
        return Disturbance("", frozenset(codes))

    return disturb_and_resume(
        times=kills,
        rng=rng,
        start=lambda workdir, log: start(workdir, flags, log, workers=workers, popen=popen),
        disturb=disturb,
        secs_to_end=SECS_TO_END,
        folder=folder,
    )


def disturb_and_resume(
    *,
    times: int,
    rng: random.Random,
    start: Callable[[pathlib.Path, pathlib.Path], Processes],
    disturb: Callable[[Processes], Disturbance],
    secs_to_end: float,
    folder: pathlib.Path,
) -> tuple[Seconds, list[str]]:
    """Disturbs a run `times` times at random instants, and resumes it; the last start is not disturbed.

    Each finished run is compared with the reference run, then a new one is started.

    Args:
      times: number of disturbances.
      rng: chooses the instants.
      start: (run directory, log file) -> the started processes.
      disturb: disturbs running processes.
      secs_to_end: the time in which all processes must end after it.
      folder: an empty directory for the runs and their logs.

    Returns:
      The seconds until the processes ended, and what went wrong: the differences of a run, or one message.
    """
    lifetime, reference = _reference_run(start, folder)
    # Of the last starts of new and of resumed runs that ended undisturbed: the machine may become busier.
    lifetimes = {is_resumed: collections.deque([lifetime], maxlen=3) for is_resumed in (False, True)}
    workdir, log = folder / "run", folder / "run.log"
    seconds: Seconds = collections.defaultdict(list)
    is_last = False
    with tqdm(total=times, disable=None) as bar:
        while not is_last:
            is_last = sum(map(len, seconds.values())) == times
            is_resumed = workdir.exists()
            instant = None if is_last else statistics.fmean(lifetimes[is_resumed]) * rng.random()
            end = _disturb_at(instant, start(workdir, log), disturb, secs_to_end)
            output = log.read_text(errors="replace")
            if end.disturbance:
                seconds[f"{end.disturbance.kind} {phase(workdir, output)}".strip()].append(end.seconds)
                end.disturbance.undo()
                bar.update()
            else:
                lifetimes[is_resumed].append(end.seconds)
            if wrong := _faults(end, output) or _compare_if_finished(end, reference, workdir):
                return seconds, wrong
    return seconds, []


def _reference_run(
    start: Callable[[pathlib.Path, pathlib.Path], Processes], folder: pathlib.Path
) -> tuple[float, Mapping[str, object]]:
    # Returns how many seconds an undisturbed run takes, and its outcome.
    log, started_at = folder / "reference.log", time.monotonic()
    if any(wait(start(folder / "reference", log))):
        raise SystemExit(log.read_text())
    return time.monotonic() - started_at, outcome(folder / "reference")


class _End(NamedTuple):
    # How a start ended: its exit codes (None if it had to be killed), what disturbed it, and the seconds to
    # the end from there, or else from the start.
    codes: list[int] | None
    disturbance: Disturbance | None = None
    seconds: float = 0.0


def _disturb_at(
    instant: float | None,
    processes: Processes,
    disturb: Callable[[Processes], Disturbance],
    secs_to_end: float,
) -> _End:
    # Disturbs processes that still run after `instant` seconds; all have ended when this returns.
    started_at = time.monotonic()
    try:
        try:
            return _End(wait(processes, instant), seconds=time.monotonic() - started_at)
        except subprocess.TimeoutExpired:
            disturbance, disturbed_at = disturb(processes), time.monotonic()
        try:
            codes = wait(processes, secs_to_end)
        except subprocess.TimeoutExpired:
            codes = None
        return _End(codes, disturbance, time.monotonic() - disturbed_at)
    finally:
        for process in processes:
            process.kill()


def _faults(end: _End, output: str) -> list[str]:
    kind = f" ({end.disturbance.kind.strip()})" if end.disturbance and end.disturbance.kind else ""
    if end.codes is None:
        return [f"{end.seconds:.0f} s after the disturbance{kind} not all processes had ended: {output}"]
    allowed = {0} | (end.disturbance.codes if end.disturbance else set())
    if not allowed.issuperset(end.codes) or "Traceback" in output:
        return [f"exit codes {end.codes}{kind}: {output}"]
    return []


def _compare_if_finished(end: _End, reference: Mapping[str, object], workdir: pathlib.Path) -> list[str]:
    # Returns the differences of a finished run, and removes it.
    if end.codes is None or any(end.codes):
        return []
    wrong = differences(reference, outcome(workdir))
    shutil.rmtree(workdir)
    return wrong


def report(seconds: Seconds, wrong: list[str], noun: str) -> int:
    """Prints the result of `disturb_and_resume`; returns the exit code.

    Args:
      seconds: its first part.
      wrong: its second part.
      noun: what a disturbance is, for example "kill".
    """
    for name in sorted(seconds):
        longest = f"the longest took {max(seconds[name]):.2f} s to end"
        print(f"{name:<22} {plural(len(seconds[name]), noun):>9}, {longest}")
    count = sum(map(len, seconds.values()))
    print(*wrong, f"{plural(count, noun)}, {plural(len(wrong), 'difference')}", sep="\n")
    return int(bool(wrong))


def main() -> int:
    """Prints how many kills fell into which phase, and whether anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="determines the instants")
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--forks", action="store_true", help="fork a process that has imported TensorFlow")
    parser.add_argument(
        "--strategy", choices=("one_device", "mirrored", "multi_worker"), default="one_device"
    )
    parser.add_argument(
        "--replicas", type=int, default=2, help="devices for mirrored, workers for multi_worker"
    )
    parser.add_argument(
        "flags", nargs="*", help="flags of the trainer, after --; default: a small run on sample_reviews"
    )
    given = parser.parse_args()
    flags = [*(given.flags or SMALL_RUN), f"--strategy={given.strategy}"]
    flags += [f"--logical_devices={given.replicas}"] if given.strategy == "mirrored" else []
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, ForkServer() as server:
        if given.forks:  # Else the first run, which tells how long one takes, would wait for the imports.
            server.run([sys.executable, "-c", ""])
        seconds, wrong = kill_and_resume(
            kills=given.kills,
            seed=given.seed,
            signum=signal.Signals[f"SIG{given.signal}"],
            flags=flags,
            workers=given.replicas if given.strategy == "multi_worker" else 0,
            folder=pathlib.Path(folder),
            popen=server.popen if given.forks else subprocess.Popen,
        )
    return report(seconds, wrong, "kill")


if __name__ == "__main__":
    sys.exit(main())
