"""Trains with several workers on this machine, to try what a cluster does.

    python scripts/local_cluster.py --workers=2 [--max_restarts=3] -- --flagfile=trainer/configs/quickstart.flags

Each worker is a process with a TF_CONFIG of its own and --strategy=multi_worker. What they say is printed with their number before it.
When one of them dies or loses another, all are started again, since they train together or not at all; any other failure is for people,
and ends the job with its exit code. Ctrl-C, SIGTERM, SIGHUP, SIGUSR2 and SIGXCPU go to all, and they end with a save; SIGUSR1 asks for a
save alone.
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
from collections.abc import Callable, Sequence

ROOT = pathlib.Path(__file__).parent.parent
SECS_TO_END = 30  # that a worker has after another one has ended
AGAIN = {5, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS}  # what a start may mend: a lost peer, a death
SIGNALS = [signal.Signals[f"SIG{name}"] for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "XCPU")]  # passed on


@contextlib.contextmanager
def held_ports(count: int):
    """Sockets bound to ports of this machine; while one is open, the kernel gives its port to nobody who does not ask for it."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that a worker may bind it too
            held.bind(("", 0))
        yield sockets


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    with held_ports(count) as sockets:
        return [held.getsockname()[1] for held in sockets]


def tf_configs(ports: Sequence[int]) -> list[str]:
    """A TF_CONFIG for each worker on this machine, by its port."""
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    return [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(len(ports))]


def start_workers(
    count: int, flags: list[str], *, unlike: Sequence[str] = (), popen: Callable[..., subprocess.Popen] = subprocess.Popen, **kwargs
) -> list[subprocess.Popen]:
    """Starts the workers, the last one with the flags of `unlike` as well; other arguments are those of `popen`."""
    command = [sys.executable, "-m", "trainer.main", "--strategy=multi_worker", *flags]
    commands = [command] * (count - 1) + [[*command, *unlike]]
    with held_ports(count) as sockets:  # Each worker inherits its own, and so holds the port from here to its end.
        configs = tf_configs([held.getsockname()[1] for held in sockets])
        return [
            popen(command, cwd=ROOT, env={**os.environ, "TF_CONFIG": config}, pass_fds=[held.fileno()], **kwargs)
            for command, config, held in zip(commands, configs, sockets, strict=True)
        ]


def say(text: bytes) -> None:
    """Prints, unbuffered; that nobody reads it, or that it cannot be written, is no reason to stop a job."""
    if sys.stdout:  # It is None when the descriptor was closed, and may then be that of something else.
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), text)


def say_lines(number: int, worker: subprocess.Popen) -> None:
    """Prints what a worker says, line by line."""
    for line in worker.stdout:
        say(b"[%d] %s" % (number, line))


def wait_for_all(workers: list[subprocess.Popen]) -> list[int]:
    """The exit codes, in the order of the ends; whoever is not gone some time after another one has failed is killed."""
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


def outcome_of(codes: list[int]) -> int:
    """The exit code that the first failure gives the job; one that a new start does not mend goes before any that it may mend."""
    failures = [code for code in codes if code]
    code = next((code for code in failures if code not in AGAIN), failures[0] if failures else 0)
    return 128 - code if code < 0 else code


def train_together(workers: int, flags: list[str], max_restarts: int) -> int:
    """Starts the workers, again where that may mend what ended them; returns the job's exit code."""
    running: list[subprocess.Popen] = []
    received: list[int] = []

    def pass_on(signum: int, frame=None) -> None:
        del frame
        if signum != signal.SIGUSR1:
            received.append(signum)
        for worker in running:
            worker.send_signal(signum)

    for signum in SIGNALS:
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # as nohup has it
            signal.signal(signum, pass_on)
    for restarts_left in range(max_restarts, -1, -1):
        # In a session of their own, so that a Ctrl-C reaches each of them once.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
        running[:] = start_workers(workers, flags, **pipes)
        if received:  # while they were started
            pass_on(received[0])
        readers = [threading.Thread(target=say_lines, args=item) for item in enumerate(running)]
        for reader in readers:
            reader.start()
        codes = wait_for_all(running)
        for reader in readers:
            reader.join()
        if received or not AGAIN.issuperset(filter(None, codes)) or not any(codes) or not restarts_left:
            break
        say(f"A worker died (exit codes {codes}): all are started again; restarts left: {restarts_left - 1}.\n".encode())
    return outcome_of(codes)


def main() -> int:
    """Runs the job to its end; returns the exit code that its first failure gives it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max_restarts", type=int, default=3)
    parser.add_argument("flags", nargs="*", help="flags of the trainer, after --")
    given = parser.parse_args()
    for name, lowest in (("workers", 1), ("max_restarts", 0)):
        if getattr(given, name) < lowest:
            parser.error(f"--{name} must be at least {lowest}, but --{name}={getattr(given, name)} was given.")
    return train_together(given.workers, given.flags, given.max_restarts)


if __name__ == "__main__":
    sys.exit(main())
