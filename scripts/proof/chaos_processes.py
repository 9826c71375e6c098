"""Signals, repeated and mixed, at a random instant. A fresh process receives them, a fork resumes."""

import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from chaos_start import PLAIN_ENVIRONMENT, Case, crowding, faults_of, outcome_of, start, steps_of
from compare_runs import differences
from kill_and_resume import SMALL_RUN
from local_cluster import ROOT

# Saves at evaluations alone; any other save was requested by a signal.
SPARSE_RUN = [*SMALL_RUN, *("--checkpoint_every_steps=0", "--checkpoint_every_secs=0", "--log_every_steps=1")]
WHERE = {"cwd": ROOT, "env": PLAIN_ENVIRONMENT}
EVALUATED = range(0, 80, 20)  # patience ends the run at step 80
SECS = 60
TRAINED = re.compile(r"^train +\| step +(\d+)/", re.MULTILINE)
ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGXCPU)
# Texts in the log that explain why nothing was saved.
REASONS = ("is abandoned", "will be done again", "Ended at step", "is finished", "is saved")


class Processes:
    """The base of Signals and Pipes: a reference run, and waiting for a random instant of a run."""

    name = ""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.flags = [*SPARSE_RUN, f"--cache_dir={self.folder / 'cache'}"]
        self.lifetime = self.to_train = 0.0
        for name in ("first", "reference"):  # the first one creates the cache
            workdir, began = self.folder / name, time.monotonic()
            with (self.folder / "log").open("wb") as log:
                process = subprocess.Popen(self.command(workdir), **WHERE, stdout=log, stderr=log)
            while 0 not in steps_of(workdir) and process.poll() is None:
                time.sleep(0.002)
            self.to_train = time.monotonic() - began
            if process.wait(SECS * crowding()):
                raise SystemExit((self.folder / "log").read_text())
            self.lifetime = time.monotonic() - began
        self.reference = outcome_of(self.folder / "reference")

    def command(self, workdir: pathlib.Path) -> list[str]:
        """The command line of the run."""
        return [sys.executable, "-m", "trainer.main", *self.flags, f"--workdir={workdir}"]

    def wait_for_instant(self, process: subprocess.Popen, workdir: pathlib.Path, rng: random.Random) -> None:
        """Waits for a random instant of the whole run or, more often, of its training."""
        if rng.random() < 0.3:
            self._sleep(process, rng.uniform(0.0, 1.05 * self.lifetime))
            return
        step, deadline = rng.choice(EVALUATED), time.monotonic() + SECS * crowding()
        while step not in steps_of(workdir) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        self._sleep(process, rng.uniform(0.0, (self.lifetime - self.to_train) / len(EVALUATED)))

    @staticmethod
    def _sleep(process: subprocess.Popen, secs: float) -> None:
        deadline = time.monotonic() + secs
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(min(0.01, secs))

    def resumed(self, workdir: pathlib.Path, folder: pathlib.Path) -> list[str]:
        """Resumes the run by the same command; returns what went wrong or differs from the reference run."""
        answer = start([*self.flags, f"--workdir={workdir}"], log=folder / "resumed").wait(2 * SECS)
        try:
            return faults_of(answer, (0,)) or differences(self.reference, outcome_of(workdir))
        except RuntimeError as error:
            return [f"no outcome: {str(error)[-300:]}"]


def lost(log: str, workdir: pathlib.Path) -> list[str]:
    """Reports a save that is in the log but missing on disk, and a stop without a save or an explanation."""
    saved = steps_of(workdir)
    if match := re.search(r"saved at step (\d+)", log):
        return [] if int(match.group(1)) in saved else [f"{match.group()}, but the saved steps are {saved}"]
    if TRAINED.search(log) and not any(reason in log for reason in REASONS):
        return [f"stopped in training, neither saved nor explained: {log[-200:]}"]
    return []


def forgotten(log: str, workdir: pathlib.Path) -> list[str]:
    """Reports if the last step that a run had logged before it was stopped was not saved.

    A run that is stopped in an evaluation need not save the steps before it. So this checks only runs whose
    last logged step is soon after an evaluation, when the next one can't have begun.
    """
    done = max(map(int, TRAINED.findall(log)), default=0)
    newest = max(steps_of(workdir), default=0)
    must_save = 0 < done % EVALUATED.step <= EVALUATED.step // 2 and "Ended at step" not in log
    return [f"step {done} was done, step {newest} is saved"] if must_save and newest < done else []


def ended(process: subprocess.Popen, reader: subprocess.Popen | None = None) -> int | None:
    """The exit code as a shell shows it, None if the process had to be killed; kills its whole group."""
    code = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = process.wait(SECS * crowding())
    if reader and code is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            reader.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return 128 - code if code is not None and code < 0 else code


def default_signals() -> None:
    """Resets signals in the child: a shell ignores them for a program that runs in the background."""
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


class _Sent(NamedTuple):
    # Signals, and the seconds between them.
    signums: list[signal.Signals]
    gap: float = 0.0


def _choose(number: int, rng: random.Random) -> _Sent:
    kinds = (
        _Sent([signal.SIGHUP]),
        _Sent([signal.SIGUSR1]),
        _Sent([signal.SIGUSR2]),
        _Sent([signal.SIGXCPU]),
        _Sent([signal.SIGTERM] * 2, 0.002),
        _Sent([signal.SIGTERM] * 2, 0.2),
        _Sent([rng.choice(ENDING)] * rng.choice((2, 3)), rng.choice((0.0, 0.002, 0.2))),
        _Sent(rng.choices([*ENDING, signal.SIGUSR1], k=rng.choice((2, 3, 4))), rng.uniform(0, 0.1)),
    )
    return kinds[number % len(kinds)]


class Signals(Processes):
    """Cases of one signal, of two equal ones, or of a mixture."""

    name = "signals"

    def one(self, number: int, folder: pathlib.Path) -> Case:
        """Sends the signals of this number at a random instant."""
        rng = random.Random(number)
        sent = _choose(number, rng)
        workdir, log = folder / "run", folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(workdir),
                **WHERE,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=default_signals,
            )
        self.wait_for_instant(process, workdir, rng)
        before = log.read_text()
        was_training = TRAINED.search(before) is not None and "Ended at step" not in before
        for count, signum in enumerate(sent.signums):
            time.sleep(sent.gap if count else 0)
            process.send_signal(signum)
        had_begun = workdir.exists()
        code, output = ended(process), log.read_text(errors="replace")
        wrong = _faults(sent.signums, code, output, had_begun)
        wrong += lost(output, workdir) if code else []
        if sent.signums == [signal.SIGUSR1] and was_training and code == 0:
            is_saved = set(steps_of(workdir)) - {*EVALUATED, 80} or "saved at step" in output.lower()
            wrong += [] if is_saved else ["SIGUSR1 saved nothing"]
        wrong += self.resumed(workdir, folder)
        return {
            "outcome": f"exit code {code}",
            "cases": 1,
            "sent": "+".join(signum.name for signum in sent.signums),
            "gap": sent.gap,
            "training": was_training,
            "wrong": wrong,
        }


def _faults(sent: list[signal.Signals], code: int | None, output: str, had_begun: bool) -> list[str]:
    # Before its handler is installed, SIGUSR1 ends a process.
    requests_save = [signum == signal.SIGUSR1 and had_begun for signum in sent]
    allowed = {0} | {128 + signum for signum, saves in zip(sent, requests_save, strict=True) if not saves}
    wrong = [] if code in allowed else [f"exit code {code}: {output[-300:]}"]
    wrong += ["a traceback"] if had_begun and "Traceback" in output else []
    messages = output.count("Ended by")
    if code and had_begun and messages != 1:
        wrong.append(f"{messages} messages: {output[-200:]}")
    return wrong
