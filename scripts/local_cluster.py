"""Trains with several workers on this machine, to try what a cluster does.

    python scripts/local_cluster.py --workers=2 [--max_restarts=3] -- --flagfile=trainer/configs/quickstart.flags

Each worker is a process with a TF_CONFIG of its own and --strategy=multi_worker. What they say is printed with their number before it. When
one of them dies, all are started again, since they train together or not at all; Ctrl-C and SIGTERM go to all, and they end with a save.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parent.parent
SECS_TO_END = 30  # that a worker has after another one has ended
AGAIN = {5, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS}  # what a start may mend: a lost peer, a death


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for unused in sockets:
            unused.bind(("localhost", 0))
        return [unused.getsockname()[1] for unused in sockets]


def tf_configs(count: int) -> list[str]:
    """A TF_CONFIG for each of `count` workers on this machine."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(count)]}
    return [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(count)]


def start_workers(count: int, flags: list[str], *, unlike: Sequence[str] = (), **kwargs) -> list[subprocess.Popen]:
    """Starts the workers, the last one with more flags where `unlike` has any; other keyword arguments are those of Popen."""
    command = [sys.executable, "-m", "trainer.main", "--strategy=multi_worker", *flags]
    commands = [command] * (count - 1) + [[*command, *unlike]]
    return [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TF_CONFIG": config}, **kwargs)
        for command, config in zip(commands, tf_configs(count), strict=True)
    ]


def say(number: int, process: subprocess.Popen) -> None:
    """Prints what a worker says, line by line."""
    for line in process.stdout:
        print(f"[{number}] {line}", end="", flush=True)


def wait_for_all(workers: list[subprocess.Popen]) -> list[int]:
    """The exit codes; whoever is not gone some time after another one has failed is killed."""
    deadline = None
    while any(worker.poll() is None for worker in workers):
        if deadline is None and any(worker.poll() for worker in workers):
            deadline = time.monotonic() + SECS_TO_END
        if deadline and time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
    return [worker.returncode for worker in workers]


def main() -> int:
    """Runs the job to its end; returns the worst exit code of its last start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max_restarts", type=int, default=3)
    parser.add_argument("flags", nargs="*", help="flags of the trainer, after --")
    given = parser.parse_args()
    if given.workers < 1:
        parser.error(f"--workers must be at least 1, but --workers={given.workers} was given.")
    workers: list[subprocess.Popen] = []
    stopped = threading.Event()

    def pass_on(signum: int, frame) -> None:
        del frame
        stopped.set()
        for worker in workers:
            worker.send_signal(signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, pass_on)
    for restarts_left in range(given.max_restarts, -1, -1):
        # In a session of their own, so that a Ctrl-C reaches each of them once.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        workers[:] = start_workers(given.workers, given.flags, **pipes)
        readers = [threading.Thread(target=say, args=item) for item in enumerate(workers)]
        for reader in readers:
            reader.start()
        codes = wait_for_all(workers)
        for reader in readers:
            reader.join()
        if stopped.is_set() or AGAIN.isdisjoint(codes) or not restarts_left:
            break
        print(f"A worker died (exit codes {codes}): all are started again; restarts left: {restarts_left - 1}.", flush=True)
    return max(128 - code if code < 0 else code for code in codes)


if __name__ == "__main__":
    sys.exit(main())
