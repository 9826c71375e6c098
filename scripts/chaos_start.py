"""Starts of the trainer for the long proof, in fresh processes and in forks, and what they may not touch.

TensorFlow is imported here once and never used in this process: a fork that trains has the threads that it
makes itself, and no others. A fork costs seconds less than a fresh process, and runs the same `__main__` block.
"""

import atexit
import hashlib
import os
import pathlib
import pickle
import re
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from fork_server import run_as_main
from kill_and_resume import ROOT, outcome

from trainer import evaluate, export, inspect_run, predict, train

assert all((evaluate, export, inspect_run, predict, train))  # imported for the forks
TINY_RUN = [
    *(
        "--train_split=train[:31]",
        "--validation_split=validation[:20]",
        "--test_split=test[:20]",
        "--vocab_size=100",
        "--seed=2",
    ),
    *(
        "--embedding_dim=8",
        "--lstm_units=8",
        "--dense_units=8",
        "--dropout=0.25",
        "--batch_size=4",
        "--learning_rate=0.03",
    ),
    *(
        "--epochs=3",
        "--eval_every_steps=5",
        "--patience=2",
        "--checkpoint_every_steps=1",
        "--log_every_steps=3",
    ),
]
# That of this process before its imports changed it.
_ENTRIES = pathlib.Path("/proc/self/environ").read_text().split("\0")
PLAIN_ENVIRONMENT = dict(entry.split("=", 1) for entry in _ENTRIES if "=" in entry)
MEMORY = 8 * 2**30
FILE_SIZE = 2 * 2**30


def crowding() -> float:
    """How many processes want each core, at least 1: what takes a second on a quiet machine takes as many."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Answer(NamedTuple):
    """How a start ended; `code` is as a shell shows it, None when it had to be killed."""

    code: int | None
    out: str
    err: str
    seconds: float
    left_behind: bool = False


class Start:
    """A start of the trainer, in a session of its own; what it writes goes to two files."""

    def __init__(self, pid: int, log: pathlib.Path) -> None:
        self.pid, self.log, self.began = pid, log, time.monotonic()
        self.code: int | None = None

    def is_over(self) -> bool:
        """Whether the process has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code
        return self.code is not None

    def send(self, *signums: int, gap: float = 0.0) -> None:
        """Sends signals to the process, `gap` seconds apart."""
        for number, signum in enumerate(signums):
            time.sleep(gap if number else 0.0)
            if not self.is_over():
                os.kill(self.pid, signum)

    def wait(self, secs: float) -> Answer:
        """Waits for the end, at most `secs` of a quiet machine; then kills it, and in any case what it has left."""
        deadline = time.monotonic() + secs * crowding()
        while not self.is_over() and time.monotonic() < deadline:
            time.sleep(0.005)
        seconds, code = time.monotonic() - self.began, self.code
        left_behind = self.end() and code is not None
        return Answer(code, read(self.log, "out"), read(self.log, "err"), round(seconds, 2), left_behind)

    def end(self) -> bool:
        """Kills whatever is left of the group; returns whether anything was."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        while not self.is_over():
            time.sleep(0.002)
        return True


def read(log: pathlib.Path, name: str) -> str:
    """What a start wrote to its standard output ("out") or standard error ("err")."""
    path = log.with_name(f"{log.name}.{name}")
    return path.read_bytes()[-(10**6) :].decode(errors="replace") if path.exists() else ""


def start(
    argv: Iterable[str],
    *,
    log: pathlib.Path,
    cwd: pathlib.Path = ROOT,
    environment: Mapping[str, str | None] | None = None,
    is_fresh: bool = False,
    prepare: Callable[[], None] = lambda: None,
) -> Start:
    """Starts the trainer.

    Args:
      argv: its flags.
      log: where its output goes, with .out and .err appended.
      cwd: where it runs.
      environment: what differs from the environment of this process; None removes a variable.
      is_fresh: a new interpreter, as `python -m trainer.main`, in the place of a fork.
      prepare: called in the child last of all, as to close a descriptor.
    """
    argv = [str(argument) for argument in argv]
    pid = os.fork()
    if pid:
        return Start(pid, log)
    code = 1
    try:
        atexit._clear()  # what this process has registered is not the child's to do
        os.setsid()
        for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_IGN if signum == signal.SIGPIPE else signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if is_fresh:
            os.environ.clear()
            os.environ.update(PLAIN_ENVIRONMENT)
        for name, value in {"PYTHONPATH": str(ROOT), **(environment or {})}.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        tempfile.tempdir = None
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(
                os.open(log.with_name(f"{log.name}.{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                descriptor,
            )
        os.closerange(3, 256)
        os.chdir(cwd)
        prepare()
        if is_fresh:
            os.execv(sys.executable, [sys.executable, "-m", "trainer.main", *argv])
        code = run_as_main(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def limit_memory() -> None:
    """For the child: a start that reads what has no end fails, before the machine does."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def in_fork(function: Callable, *arguments: Any) -> Any:
    """The result of a function that uses TensorFlow; raises RuntimeError with its traceback when it fails."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            result = (True, function(*arguments))
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


def outcome_of(workdir: pathlib.Path) -> dict:
    """What a run leaves, read from a copy that has a plain name: TensorFlow takes some names for patterns."""
    with tempfile.TemporaryDirectory() as folder:
        return in_fork(outcome, pathlib.Path(shutil.copytree(workdir, pathlib.Path(folder, "run"))))


def steps_of(workdir: pathlib.Path, name: str = "checkpoints") -> list[int]:
    """The steps of the checkpoints in a folder of a run, oldest first."""
    folder = workdir / name
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    matches = [re.fullmatch(r"ckpt-(\d+)\.index", name) for name in names]
    return sorted(int(match.group(1)) for match in matches if match)


def wait_for_step(started: Start, workdir: pathlib.Path, step: int, secs: float = 60.0) -> None:
    """Waits until a run has saved a step, or its process has ended."""
    deadline = time.monotonic() + secs
    while not started.is_over() and time.monotonic() < deadline and max(steps_of(workdir), default=-1) < step:
        time.sleep(0.002)


def snapshot(folder: pathlib.Path) -> dict[str, tuple]:
    """What is below a folder, links not followed: relative path -> kind and mode, size, time and content."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = pathlib.Path(parent, name)
            status = path.lstat()
            found[str(path.relative_to(folder))] = (status.st_mode, *_content(path, status))
    return found


def _content(path: pathlib.Path, status: os.stat_result) -> tuple:
    if stat.S_ISLNK(status.st_mode):
        return (str(path.readlink()),)
    if not stat.S_ISREG(status.st_mode):
        return ()
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if status.st_size < 2**26 else ""
    return (status.st_size, status.st_mtime_ns, digest)


def touched(before: Mapping, after: Mapping, *, may_grow: Iterable[str] = ()) -> list[str]:
    """What was changed, removed or made between two snapshots; below `may_grow`, files may be made."""
    wrong = [f"{path} is gone" for path in before if path not in after]
    wrong += [f"{path} was changed" for path in before if path in after and before[path] != after[path]]
    growing = tuple(f"{folder}/" for folder in may_grow)
    new = [path for path in after if path not in before and not path.startswith(growing)]
    return wrong + [f"{path} was made" for path in new]


def faults_of(answer: Answer, allowed: Iterable[int]) -> list[str]:
    """What is wrong with an end: a hang, its exit code, a traceback, not one sentence, a process left behind."""
    if answer.code is None:
        return [f"killed after {answer.seconds} s: {answer.err[-300:]}"]
    wrong = [f"exit code {answer.code}: {answer.err[-500:]}"] if answer.code not in allowed else []
    wrong += [f"a traceback: {answer.err[-300:]}"] if "Traceback" in answer.err + answer.out else []
    expected = {0} if answer.code == 0 else {0, 1} if answer.code > 128 else {1}  # a signal may come before all words
    sentences = sum(line.startswith("error: ") for line in answer.err.splitlines())
    wrong += [f"not one sentence: {answer.err[-500:]}"] if sentences not in expected and not wrong else []
    return wrong + (["a process was left behind"] if answer.left_behind else [])
