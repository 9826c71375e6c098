"""Signals, doubled and mixed, and readers that go away: each case a fresh process, resumed by a fork."""

import contextlib
import fcntl
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable

from chaos_start import PLAIN_ENVIRONMENT, crowding, faults_of, outcome_of, start, steps_of
from kill_and_resume import ROOT, SMALL_RUN, differences

# Saved at evaluations alone: what else is saved, a signal has asked for.
SPARSE_RUN = [
    *SMALL_RUN,
    "--checkpoint_every_steps=0",
    "--checkpoint_every_secs=0",
    "--log_every_steps=1",
]
_WHERE = {"cwd": ROOT, "env": PLAIN_ENVIRONMENT}
EVALUATED = range(0, 80, 20)  # it ends at step 80, for want of patience
SECS = 60
TRAINED = re.compile(r"^train +\| step +(\d+)/", re.MULTILINE)
ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGXCPU)
READERS = {"tee": ["tee", "{log}"], "tee -i": ["tee", "-i", "{log}"], "head": ["head", "-3"], "cat": ["cat"]}
KINDS = [*READERS, "full", "2>&-", ">&-", "0<&-", "all closed", "terminal gone", "hang-up", "nohup", "file"]
REASONS = ("is abandoned", "will be done again", "Ended at step", "is finished", "is saved")


class _Processes:
    """What both parts share: a twin, and a process at a random instant of its life."""

    name = ""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.flags = [*SPARSE_RUN, f"--cache_dir={self.folder / 'cache'}"]
        self.lifetime = self.to_train = 0.0
        for name in ("first", "twin"):  # the first makes the cache
            workdir, began = self.folder / name, time.monotonic()
            with (self.folder / "log").open("wb") as log:
                process = subprocess.Popen(self.command(workdir), **_WHERE, stdout=log, stderr=log)
            while 0 not in steps_of(workdir) and process.poll() is None:
                time.sleep(0.002)
            self.to_train = time.monotonic() - began
            if process.wait(SECS * crowding()):
                raise SystemExit((self.folder / "log").read_text())
            self.lifetime = time.monotonic() - began
        self.twin = outcome_of(self.folder / "twin")

    def command(self, workdir: pathlib.Path) -> list[str]:
        """The command line of the run."""
        return [sys.executable, "-m", "trainer.main", *self.flags, f"--workdir={workdir}"]

    def wait_for_instant(self, process: subprocess.Popen, workdir: pathlib.Path, rng: random.Random) -> None:
        """Waits for an instant of the whole life, or, more often, of the training."""
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
        """What the same command makes otherwise than the twin."""
        answer = start([*self.flags, f"--workdir={workdir}"], log=folder / "resumed").wait(2 * SECS)
        try:
            return faults_of(answer, (0,)) or differences(self.twin, outcome_of(workdir))
        except RuntimeError as error:
            return [f"no outcome: {str(error)[-300:]}"]


def lost(said: str, workdir: pathlib.Path) -> list[str]:
    """What a log calls saved and is not there; or that it says neither what is saved nor why nothing is."""
    there = steps_of(workdir)
    if match := re.search(r"saved at step (\d+)", said):
        return [] if int(match.group(1)) in there else [f"{match.group()}, but {there} are there"]
    if TRAINED.search(said) and not any(reason in said for reason in REASONS):
        return [f"stopped in training, neither saved nor explained: {said[-200:]}"]
    return []


def forgotten(said: str, workdir: pathlib.Path) -> list[str]:
    """What a run had done when it was stopped, by its log until then, and has not saved.

    An evaluation may be abandoned, and with it the steps before: so little after one that the next is not under way.
    """
    done = max(map(int, TRAINED.findall(said)), default=0)
    newest = max(steps_of(workdir), default=0)
    sure = 0 < done % EVALUATED.step <= EVALUATED.step // 2 and "Ended at step" not in said
    return [f"step {done} was done, step {newest} is saved"] if sure and newest < done else []


def ended(process: subprocess.Popen, reader: subprocess.Popen | None = None) -> int | None:
    """The exit code as a shell shows it, None when the process had to be killed; kills what is left of its group."""
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


def _defaults() -> None:
    # The chaos may run in the background, where a shell ignores these.
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


class Signals(_Processes):
    """One signal, two of a kind, or a mixture."""

    name = "signals"

    def one(self, number: int, folder: pathlib.Path) -> dict:
        """Sends what follows from the number at a random instant."""
        rng = random.Random(number)
        ending = list(ENDING)
        sent, gap = (
            ([signal.SIGHUP], 0),
            ([signal.SIGUSR1], 0),
            ([signal.SIGUSR2], 0),
            ([signal.SIGXCPU], 0),
            ([signal.SIGTERM] * 2, 0.002),
            ([signal.SIGTERM] * 2, 0.2),
            ([rng.choice(ending)] * rng.choice((2, 3)), rng.choice((0.0, 0.002, 0.2))),
            (rng.choices([*ending, signal.SIGUSR1], k=rng.choice((2, 3, 4))), rng.uniform(0, 0.1)),
        )[number % 8]
        workdir, log = folder / "run", folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(workdir),
                **_WHERE,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=_defaults,
            )
        self.wait_for_instant(process, workdir, rng)
        was_training = TRAINED.search(log.read_text()) is not None and "Ended at step" not in log.read_text()
        for count, signum in enumerate(sent):
            time.sleep(gap if count else 0)
            process.send_signal(signum)
        had_begun = workdir.exists()
        code, said = ended(process), log.read_text(errors="replace")
        # Before a handler can be there, SIGUSR1 ends a process.
        allowed = {0, *(0 if signum == signal.SIGUSR1 and had_begun else 128 + signum for signum in sent)}
        wrong = [] if code in allowed else [f"exit code {code}: {said[-300:]}"]
        wrong += ["a traceback"] if had_begun and "Traceback" in said else []
        sentences = said.count("Ended by")
        wrong += [f"{sentences} sentences: {said[-200:]}"] if code and had_begun and sentences != 1 else []
        wrong += lost(said, workdir) if code else []
        if sent == [signal.SIGUSR1] and was_training and code == 0:
            is_saved = set(steps_of(workdir)) - {*EVALUATED, 80} or "saved at step" in said.lower()
            wrong += [] if is_saved else ["SIGUSR1 saved nothing"]
        wrong += self.resumed(workdir, folder)
        names = "+".join(signum.name for signum in sent)
        return {
            "outcome": f"exit code {code}",
            "cases": 1,
            "sent": names,
            "gap": gap,
            "training": was_training,
            "wrong": wrong,
        }


def _close(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


class Pipes(_Processes):
    """Standard streams that end, are full, closed or of a terminal that is gone, and Ctrl-C to the whole group."""

    name = "pipes"

    def one(self, number: int, folder: pathlib.Path) -> dict:
        """One kind of stream, and one signal, once or twice, to the group."""
        rng = random.Random(number)
        kind = KINDS[number % len(KINDS)]
        signum = rng.choice((signal.SIGINT, signal.SIGINT, signal.SIGHUP, signal.SIGTERM))
        times = rng.choice((1, 1, 2)) if kind != "hang-up" else 0
        if kind in ("terminal gone", "full", "head", "2>&-") and rng.random() < 0.4:
            times = 0  # the stream alone must not matter
        workdir, log = folder / "run", folder / "log"
        log.touch()
        process, reader = self._begin(kind, workdir, log)
        self.wait_for_instant(process, workdir, rng)
        had_begun, before = workdir.exists(), log.read_text(errors="replace")
        if kind in ("hang-up", "terminal gone"):
            reader.kill()
            reader.wait()
        for count in range(times):
            time.sleep(0.002 if count else 0)
            if process.poll() is None:
                os.killpg(process.pid, signum)
        code, said = ended(process, reader), log.read_text(errors="replace")
        if reader:
            reader.kill()
            reader.wait()
        expected = {0, 129} if kind == "hang-up" else {0, 128 + signum} if times else {0}
        is_ignored = kind == "nohup" and signum == signal.SIGHUP
        wrong = [] if code in ({0} if is_ignored else expected) else [f"exit code {code}: {said[-300:]}"]
        wrong += ["a traceback"] if had_begun and "Traceback" in said else []
        hears_all = kind in ("file", "nohup", ">&-", "0<&-") or (kind == "tee -i" and signum == signal.SIGINT)
        wrong += lost(said, workdir) if code and hears_all else []
        wrong += forgotten(before, workdir) if code else []
        wrong += self.resumed(workdir, folder)
        return {
            "outcome": kind,
            "cases": 1,
            "signal": signum.name,
            "times": times,
            "code": code,
            "wrong": wrong,
        }

    def _begin(self, kind: str, workdir: pathlib.Path, log: pathlib.Path) -> tuple:
        # The trainer and whoever reads what it says, None for a file.
        command, null = self.command(workdir), subprocess.DEVNULL
        to_log = {
            "stdin": null,
            "stdout": (pathlib.Path("/dev/full") if kind == "full" else log).open("ab"),
            "stderr": subprocess.STDOUT,
        }
        if kind in READERS:
            process = subprocess.Popen(
                command,
                **_WHERE,
                stdin=null,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_defaults,
            )
            argv = [part.format(log=log) for part in READERS[kind]]
            reader = subprocess.Popen(
                argv,
                stdin=process.stdout,
                stdout=null if kind != "cat" else to_log["stdout"],
                process_group=process.pid,
            )
            process.stdout.close()
            return process, reader
        if kind in ("hang-up", "terminal gone"):
            master, terminal = os.openpty()

            def take_terminal() -> None:
                _defaults()
                os.setsid()
                if kind == "hang-up":
                    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

            streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
            process = subprocess.Popen(command, **_WHERE, **streams, preexec_fn=take_terminal)
            reader = subprocess.Popen(["cat"], stdin=master, stdout=to_log["stdout"], process_group=0)
            os.close(terminal)
            os.close(master)
            return process, reader
        close = _close(*{"2>&-": (2,), ">&-": (1,), "0<&-": (0,), "all closed": (0, 1, 2)}.get(kind, ()))

        def prepare() -> None:
            _defaults()
            if kind == "nohup":
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            close()

        return subprocess.Popen(command, **_WHERE, **to_log, process_group=0, preexec_fn=prepare), None
