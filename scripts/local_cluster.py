"""Trains with several workers on this machine, to see how a cluster behaves.

    python scripts/local_cluster.py --workers=2 [--max_restarts=3] --
    --flagfile=trainer/configs/quickstart.flags

Each worker is a process with its own TF_CONFIG and --strategy=multi_worker; its number precedes its log
lines. When a worker dies or loses another, all are restarted, since they can only train together; any other
failure needs a human and ends the job with its exit code. Ctrl-C, SIGTERM, SIGHUP, SIGUSR2 and SIGXCPU are
passed on to all workers, which save and stop; SIGUSR1 requests a save alone.
"""

import argparse
import contextlib
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

Popen = Callable[..., subprocess.Popen[Any]]
ROOT = pathlib.Path(__file__).parent.parent
SECS_TO_END = 30  # how long a worker may run on after another one has failed
# Exit codes after which a restart may help: a lost peer, or a crash.
RESTARTABLE = {5, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS}
SIGNALS = [  # passed on
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
]


@contextlib.contextmanager
def held_ports(count: int) -> Iterator[list[socket.socket]]:
    """Sockets bound to free ports of this machine.

    While a socket is open, the kernel does not assign its port; only a process that names the port can bind
    it.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that a worker can bind it as well
            held.bind(("", 0))
        yield sockets


def free_ports(count: int) -> list[int]:
    """Free ports of this machine."""
    with held_ports(count) as sockets:
        return [held.getsockname()[1] for held in sockets]


def tf_configs(ports: Sequence[int]) -> list[str]:
    """The TF_CONFIG of each worker on this machine, from the workers' ports."""
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    tasks = [{"type": "worker", "index": index} for index in range(len(ports))]
    return [json.dumps({"cluster": cluster, "task": task}) for task in tasks]


def environment(**variables: str) -> dict[str, str]:
    """The environment of a trainer in any working directory: ours, with the path to the package."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # The safe path, or a package `trainer` in the working directory would be found first.
    own = {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    return {**os.environ, **own, **variables}


def start_workers(
    count: int,
    flags: list[str],
    *,
    unlike: Sequence[str] = (),
    popen: Popen = subprocess.Popen,
    **kwargs: Any,
) -> list[subprocess.Popen[Any]]:
    """Starts workers on this machine.

    Args:
      count: how many.
      flags: flags of the trainer.
      unlike: more flags, for the last worker only.
      popen: starts a process, as `subprocess.Popen` does.
      kwargs: arguments of `popen`.
    """
    command = [sys.executable, "-m", "trainer.main", "--strategy=multi_worker", *flags]
    commands = [command] * (count - 1) + [[*command, *unlike]]
    # Each worker inherits the socket of its port, and so holds the port until it ends.
    with held_ports(count) as sockets:
        configs = tf_configs([held.getsockname()[1] for held in sockets])
        return [
            popen(
                command,
                env=environment(TF_CONFIG=config),
                pass_fds=[held.fileno()],
                **kwargs,
            )
            for command, config, held in zip(commands, configs, sockets, strict=True)
        ]


def write(text: bytes) -> None:
    """Prints without a buffer; a failure to print does not stop the job."""
    # sys.stdout is None if its descriptor was closed; that number may belong to another file by now.
    if sys.stdout:
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), text)


def copy_output(number: int, worker: subprocess.Popen[bytes]) -> None:
    """Prints what a worker prints, with its number before each line."""
    for line in worker.stdout or ():
        write(b"[%d] %s" % (number, line))


def wait_for_all(workers: list[subprocess.Popen[Any]]) -> list[int]:
    """The exit codes, first end first; SECS_TO_END after a failure, workers that still run are killed."""
    ends: queue.SimpleQueue[int] = queue.SimpleQueue()
    for worker in workers:
        threading.Thread(target=lambda worker=worker: ends.put(worker.wait()), daemon=True).start()
    codes: list[int] = []
    deadline = None
    while len(codes) < len(workers):
        try:
            codes.append(ends.get(timeout=max(0, deadline - time.monotonic()) if deadline else None))
        except queue.Empty:
            for worker in workers:
                worker.kill()
            deadline = None
        if deadline is None and codes[-1]:
            deadline = time.monotonic() + SECS_TO_END
    return codes


def outcome_of(codes: Sequence[int]) -> int:
    """The job's exit code: that of the first failure that no restart can fix, else of the first failure."""
    failures = [code for code in codes if code]
    code = next((code for code in failures if code not in RESTARTABLE), failures[0] if failures else 0)
    return 128 - code if code < 0 else code


class _Job:
    # The running workers, and the signals that stop them.

    def __init__(self) -> None:
        self.workers: list[subprocess.Popen[Any]] = []
        self.received: list[int] = []
        for signum in SIGNALS:
            # SIGHUP stays ignored if it was, as under nohup.
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._pass_on)

    def _pass_on(self, signum: int, frame: FrameType | None = None) -> None:
        del frame
        if signum != signal.SIGUSR1:
            self.received.append(signum)
        for worker in self.workers:
            worker.send_signal(signum)

    def run(self, workers: int, flags: list[str]) -> list[int]:
        """Starts the workers and waits for them; returns their exit codes, first end first."""
        # In new sessions, so that a Ctrl-C reaches each worker only once.
        pipes: Mapping[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,
        }
        self.workers[:] = start_workers(workers, flags, **pipes)
        if self.received:  # while they were started
            self._pass_on(self.received[0])
        readers = [threading.Thread(target=copy_output, args=item) for item in enumerate(self.workers)]
        for reader in readers:
            reader.start()
        codes = wait_for_all(self.workers)
        for reader in readers:
            reader.join()
        return codes


def train_together(workers: int, flags: list[str], max_restarts: int) -> int:
    """Starts the workers, and restarts them if that may help; returns the job's exit code."""
    job = _Job()
    for restarts_left in range(max_restarts, -1, -1):
        codes = job.run(workers, flags)
        failures = [code for code in codes if code]
        is_restartable = failures and RESTARTABLE.issuperset(failures) and not job.received
        if not is_restartable or not restarts_left:
            break
        left = restarts_left - 1
        write(f"A worker died (exit codes {codes}): all are restarted; restarts left: {left}.\n".encode())
    return outcome_of(codes)


def main() -> int:
    """Runs the job to its end; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max_restarts", type=int, default=3)
    parser.add_argument("flags", nargs="*", help="flags of the trainer, after --")
    given = parser.parse_args()
    for name, lowest in (("workers", 1), ("max_restarts", 0)):
        if getattr(given, name) < lowest:
            parser.error(
                f"--{name} must be at least {lowest}, but --{name}={getattr(given, name)} was given; "
                f"give a larger number."
            )
    return train_together(given.workers, given.flags, given.max_restarts)


if __name__ == "__main__":
    sys.exit(main())
