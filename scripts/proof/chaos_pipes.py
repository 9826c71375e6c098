"""Standard streams that fail, and signals to the process group: a fresh process stops, a fork resumes."""

import fcntl
import os
import pathlib
import random
import signal
import subprocess
import termios
import time
from collections.abc import Callable

from chaos_processes import WHERE, Processes, default_signals, ended, forgotten, lost
from chaos_start import Case

READERS = {"tee": ["tee", "{log}"], "tee -i": ["tee", "-i", "{log}"], "head": ["head", "-3"], "cat": ["cat"]}
KINDS = [*READERS, "full", "2>&-", ">&-", "0<&-", "all closed", "terminal gone", "hang-up", "nohup", "file"]
_TrainerAndReader = tuple[subprocess.Popen, subprocess.Popen | None]


def _close(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


class Pipes(Processes):
    """Cases of streams that end, are full, closed or of a lost terminal, with signals to the group."""

    name = "pipes"

    def one(self, number: int, folder: pathlib.Path) -> Case:
        """Runs one case: one kind of stream, and one signal to the group, sent up to twice."""
        rng = random.Random(number)
        kind = KINDS[number % len(KINDS)]
        signum = rng.choice((signal.SIGINT, signal.SIGINT, signal.SIGHUP, signal.SIGTERM))
        times = rng.choice((1, 1, 2)) if kind != "hang-up" else 0
        if kind in ("terminal gone", "full", "head", "2>&-") and rng.random() < 0.4:
            times = 0  # without a signal, the stream must make no difference
        workdir, log = folder / "run", folder / "log"
        log.touch()
        process, reader = self._start(kind, workdir, log)
        self.wait_for_instant(process, workdir, rng)
        had_begun, before = workdir.exists(), log.read_text(errors="replace")
        if reader and kind in ("hang-up", "terminal gone"):
            reader.kill()
            reader.wait()
        for count in range(times):
            time.sleep(0.002 if count else 0)
            if process.poll() is None:
                os.killpg(process.pid, signum)
        code, output = ended(process, reader), log.read_text(errors="replace")
        if reader:
            reader.kill()
            reader.wait()
        wrong = [] if code in _codes(kind, signum, times) else [f"exit code {code}: {output[-300:]}"]
        wrong += ["a traceback"] if had_begun and "Traceback" in output else []
        # `tee -i` ignores SIGINT alone.
        log_is_complete = kind in ("file", "nohup", ">&-", "0<&-")
        log_is_complete |= kind == "tee -i" and signum == signal.SIGINT
        wrong += lost(output, workdir) if code and log_is_complete else []
        wrong += forgotten(before, workdir) if code else []
        wrong += self.resumed(workdir, folder)
        details = {"signal": signum.name, "times": times, "code": code}
        return {"outcome": kind, "cases": 1, **details, "wrong": wrong}

    def _start(self, kind: str, workdir: pathlib.Path, log: pathlib.Path) -> _TrainerAndReader:
        command = self.command(workdir)
        if kind in READERS:
            return _start_with_reader(command, kind, log)
        if kind in ("hang-up", "terminal gone"):
            return _start_in_terminal(command, kind, log)
        closed = {"2>&-": (2,), ">&-": (1,), "0<&-": (0,), "all closed": (0, 1, 2)}.get(kind, ())
        close = _close(*closed)

        def prepare() -> None:
            default_signals()
            if kind == "nohup":
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            close()

        with (pathlib.Path("/dev/full") if kind == "full" else log).open("ab") as output:
            process = subprocess.Popen(
                command,
                **WHERE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=prepare,
            )
        return process, None


def _codes(kind: str, signum: int, times: int) -> set[int]:
    # The exit codes that a kind of stream and a signal allow.
    if kind == "nohup" and signum == signal.SIGHUP:
        return {0}
    if kind == "hang-up":
        return {0, 128 + signal.SIGHUP}
    return {0, 128 + signum} if times else {0}


def _start_with_reader(command: list[str], kind: str, log: pathlib.Path) -> _TrainerAndReader:
    # A pipe to another process of the group.
    process = subprocess.Popen(
        command,
        **WHERE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        preexec_fn=default_signals,
    )
    argv = [part.format(log=log) for part in READERS[kind]]
    with (log if kind == "cat" else pathlib.Path(os.devnull)).open("ab") as output:
        reader = subprocess.Popen(argv, stdin=process.stdout, stdout=output, process_group=process.pid)
    process.stdout.close()
    return process, reader


def _start_in_terminal(command: list[str], kind: str, log: pathlib.Path) -> _TrainerAndReader:
    # A pseudo-terminal, which is lost when its reader ends; for a hang-up it is the controlling terminal.
    master, terminal = os.openpty()

    def take_terminal() -> None:
        default_signals()
        os.setsid()
        if kind == "hang-up":
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    process = subprocess.Popen(command, **WHERE, **streams, preexec_fn=take_terminal)
    with log.open("ab") as output:
        reader = subprocess.Popen(["cat"], stdin=master, stdout=output, process_group=0)
    os.close(terminal)
    os.close(master)
    return process, reader
