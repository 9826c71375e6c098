"""Starts of the trainer for the long proof, in fresh processes and in forks, and checks of how they end.

TensorFlow is imported here once and never used in this process, so that a fork that trains has only the
threads that it starts itself. A fork starts seconds faster than a fresh process, and runs the same `__main__`
block.
"""

import atexit
import os
import pathlib
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, ParamSpec, TypeVar

from compare_runs import outcome
from fork_server import run_as_main
from local_cluster import ROOT

from trainer import evaluate, export, inspect_run, predict, train

P = ParamSpec("P")
R = TypeVar("R")

assert all((evaluate, export, inspect_run, predict, train))  # imported for the forks
TINY_RUN = [
    *("--train_split=train[:31]", "--validation_split=validation[:20]", "--test_split=test[:20]"),
    *("--vocab_size=100", "--embedding_dim=8", "--lstm_units=8", "--dense_units=8", "--dropout=0.25"),
    *("--seed=2", "--batch_size=4", "--learning_rate=0.03", "--epochs=3", "--patience=2"),
    *("--eval_every_steps=5", "--checkpoint_every_steps=1", "--log_every_steps=3"),
]
# The environment of this process before its imports changed it.
_ENTRIES = pathlib.Path("/proc/self/environ").read_text().split("\0")
PLAIN_ENVIRONMENT = dict(entry.split("=", 1) for entry in _ENTRIES if "=" in entry)
MEMORY = 8 * 2**30  # bytes
FILE_SIZE = 2 * 2**30  # bytes

Case = dict[str, object]  # a line of the report: outcome, cases, wrong, and details


def crowding() -> float:
    """Runnable processes per core, at least 1: the factor by which to extend time limits."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Answer(NamedTuple):
    """How a start ended; `code` is as a shell shows it, or None if the process had to be killed."""

    code: int | None
    out: str
    err: str
    seconds: float
    left_behind: bool = False


class Start:
    """A running trainer, in a new session; its output is written to two files."""

    def __init__(self, pid: int, log: pathlib.Path) -> None:
        self.pid, self.log, self.began = pid, log, time.monotonic()
        self.code: int | None = None
        _running.add(self)

    def is_over(self) -> bool:
        """Whether the process has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code
                _running.discard(self)
        return self.code is not None

    def send(self, *signums: int, gap: float = 0.0) -> None:
        """Sends signals to the process, `gap` seconds apart."""
        for number, signum in enumerate(signums):
            time.sleep(gap if number else 0.0)
            if not self.is_over():
                os.kill(self.pid, signum)

    def wait(self, secs: float) -> Answer:
        """Waits for the end, at most `secs` times `crowding()`; then kills the process and its children."""
        deadline = time.monotonic() + secs * crowding()
        while not self.is_over() and time.monotonic() < deadline:
            time.sleep(0.005)
        seconds, code = time.monotonic() - self.began, self.code
        left_behind = self.kill() and code is not None
        return Answer(code, read(self.log, "out"), read(self.log, "err"), round(seconds, 2), left_behind)

    def kill(self) -> bool:
        """Kills whatever is left of the process group; returns whether anything was."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        while not self.is_over():
            time.sleep(0.002)
        return True


_running: set[Start] = set()


@atexit.register
def _kill_running() -> None:
    # A fork is in a different session, and would outlive this process.
    for started in list(_running):
        started.kill()


def read(log: pathlib.Path, name: str) -> str:
    """The end of what a start wrote to its standard output ("out") or standard error ("err")."""
    path = log.with_name(f"{log.name}.{name}")
    return path.read_bytes()[-(10**6) :].decode(errors="replace") if path.exists() else ""


def start(
    argv: Iterable[object],
    *,
    log: pathlib.Path,
    cwd: pathlib.Path = ROOT,
    environment: Mapping[str, str | None] | None = None,
    is_fresh: bool = False,
    prepare: Callable[[], object] = lambda: None,
) -> Start:
    """Starts the trainer.

    Args:
      argv: its flags.
      log: where its output is written, with .out and .err appended.
      cwd: its working directory.
      environment: changes to the environment of this process; None removes a variable.
      is_fresh: whether to start a new interpreter, as `python -m trainer.main`, instead of a fork.
      prepare: is called last in the child, for example to close a descriptor.
    """
    flags = [str(argument) for argument in argv]
    pid = os.fork()
    if pid:
        return Start(pid, log)
    code = 1
    try:
        _detach()
        _set_environment({"PYTHONPATH": str(ROOT), **(environment or {})}, is_fresh)
        _redirect(log)
        os.chdir(cwd)
        prepare()
        if is_fresh:
            os.execv(sys.executable, [sys.executable, "-m", "trainer.main", *flags])
        code = run_as_main(flags)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _detach() -> None:
    # Moves to a new session, with the exit handlers and signal handlers of a new process.
    atexit._clear()
    os.setsid()
    for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_IGN if signum == signal.SIGPIPE else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _set_environment(changes: Mapping[str, str | None], is_fresh: bool) -> None:
    if is_fresh:
        os.environ.clear()
        os.environ.update(PLAIN_ENVIRONMENT)
    for name, value in changes.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    tempfile.tempdir = None


def _redirect(log: pathlib.Path) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        path = log.with_name(f"{log.name}.{name}")
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    os.closerange(3, 256)


def limit_memory() -> None:
    """Limits the child, so that reading an endless file does not exhaust the memory of the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def in_fork(function: Callable[P, R], *arguments: P.args, **more: P.kwargs) -> R:
    """Calls a function that uses TensorFlow in a fork; raises RuntimeError with its traceback if it fails."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            result = (True, function(*arguments, **more))
        except BaseException:
            result = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as file:
            pickle.dump(result, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        is_done, result = pickle.loads(file.read() or pickle.dumps((False, "the fork died")))
    os.waitpid(pid, 0)
    if not is_done:
        raise RuntimeError(result)
    return result


def outcome_of(workdir: pathlib.Path) -> dict[str, object]:
    """The outcome of a run, read from a copy with a plain name: TensorFlow reads some names as patterns."""
    with tempfile.TemporaryDirectory() as folder:
        return in_fork(outcome, pathlib.Path(shutil.copytree(workdir, pathlib.Path(folder, "run"))))


def steps_of(workdir: pathlib.Path, name: str = "checkpoints") -> list[int]:
    """The steps of the checkpoints in a folder of a run, oldest first."""
    folder = workdir / name
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    matches = [re.fullmatch(r"ckpt-(\d+)\.index", name) for name in names]
    return sorted(int(match.group(1)) for match in matches if match)


def wait_for_step(started: Start, workdir: pathlib.Path, step: int, secs: float = 60.0) -> None:
    """Waits until a run has saved a step, its process has ended, or `secs` have passed."""
    deadline = time.monotonic() + secs
    while not started.is_over() and time.monotonic() < deadline and max(steps_of(workdir), default=-1) < step:
        time.sleep(0.002)


def faults_of(answer: Answer, allowed: Iterable[int]) -> list[str]:
    """What is wrong with how a start ended: hang, exit code, traceback, number of errors, surviving child."""
    if answer.code is None:
        return [f"killed after {answer.seconds} s: {answer.err[-300:]}"]
    wrong = [f"exit code {answer.code}: {answer.err[-500:]}"] if answer.code not in allowed else []
    wrong += [f"a traceback: {answer.err[-300:]}"] if "Traceback" in answer.err + answer.out else []
    expected = {1}
    if answer.code == 0:
        expected = {0}
    elif answer.code > 128:
        expected = {0, 1}  # a signal may come before anything can be logged
    errors = sum(line.startswith("error: ") for line in answer.err.splitlines())
    wrong += [f"not one sentence: {answer.err[-500:]}"] if errors not in expected and not wrong else []
    return wrong + (["a process was left behind"] if answer.left_behind else [])
