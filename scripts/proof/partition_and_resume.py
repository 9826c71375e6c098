"""Cuts the network between workers at random instants, heals it, resumes, and compares every bit.

    python scripts/proof/partition_and_resume.py [--cuts=20] [--seed=0] [--workers=2] [-- FLAGS OF THE
    TRAINER]

Each worker runs in its own network namespace, and a bridge in another one joins them; all traffic stays
there. Needs root and `ip` (Debian's iproute2). At a random instant of a run one worker is cut off: its frames
are lost in both directions or in one, or its link is down. All workers must end within a bounded time, with
exit code 5, or 0 if the work was done. The same command resumes on the repaired network, and a finished run
is compared with an uninterrupted reference run.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from kill_and_resume import SMALL_RUN, Disturbance, Processes, Seconds, disturb_and_resume, report
from local_cluster import Popen, environment

# What is lost: all frames of a worker, those to it, those from it; or its link is down.
CUTS = ("both", "to", "from", "down")
CONNECT_SECS = 15
SECS_TO_END = CONNECT_SECS + 30  # after a cut; TensorFlow tries three times to reach a peer
_NO_HOST = "02:00:00:00:00:99"
_numbers = itertools.count()


def ip(*arguments: str) -> str:
    """Runs `ip` and returns its output; raises OSError with its message when it fails."""
    answer = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {answer.stderr.strip()}")
    return answer.stdout


class Network:
    """Workers that can reach each other only over a bridge; made by `network`."""

    def __init__(self, count: int) -> None:
        name = f"workers-{os.getpid()}-{next(_numbers)}"
        self.bridge = f"{name}-bridge"
        self.workers = [f"{name}-{number}" for number in range(count)]

    def make(self) -> None:
        """Makes the namespaces and joins them."""
        ip("netns", "add", self.bridge)
        ip("-n", self.bridge, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.bridge, "link", "set", "bridge", "up")
        for number, name in enumerate(self.workers):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip(
                "-n",
                self.bridge,
                "link",
                "add",
                f"port{number}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                name,
            )
            ip("-n", self.bridge, "link", "set", f"port{number}", "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{self._address(number)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        """Removes the namespaces that exist, and kills the processes in them."""
        for name in (self.bridge, *self.workers):
            with contextlib.suppress(OSError):
                for pid in ip("netns", "pids", name).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                ip("netns", "delete", name)

    def _address(self, number: int) -> str:
        return f"10.77.0.{number + 1}"

    def cut(self, worker: int, kind: str) -> None:
        """Cuts one worker off; `kind` is one of CUTS."""
        others = [number for number in range(len(self.workers)) if number != worker]
        match kind:
            case "both":
                ip("-n", self.bridge, "link", "set", f"port{worker}", "nomaster")
            case "to":
                for other in others:
                    self._misdirect(other, worker)
            case "from":
                for other in others:
                    self._misdirect(worker, other)
            case "down":
                ip("-n", self.workers[worker], "link", "set", "eth0", "down")

    def _misdirect(self, sender: int, receiver: int) -> None:
        neighbour = (
            "replace",
            self._address(receiver),
            "lladdr",
            _NO_HOST,
            "dev",
            "eth0",
            "nud",
            "permanent",
        )
        ip("-n", self.workers[sender], "neighbour", *neighbour)

    def heal(self) -> None:
        """Undoes every cut."""
        for number, name in enumerate(self.workers):
            ip("-n", self.bridge, "link", "set", f"port{number}", "master", "bridge")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "neighbour", "flush", "dev", "eth0", "nud", "permanent")

    def start(self, flags: list[str], *, popen: Popen = subprocess.Popen, **kwargs: object) -> Processes:
        """Starts the trainer on each worker by `popen`; the other keyword arguments are those of Popen."""
        cluster = {"worker": [f"{self._address(number)}:2222" for number in range(len(self.workers))]}
        command = [sys.executable, "-m", "trainer.main", "--strategy=multi_worker", *flags]
        processes = []
        for index, name in enumerate(self.workers):
            tf_config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            in_namespace = ["ip", "netns", "exec", name, *command]
            processes.append(popen(in_namespace, env=environment(TF_CONFIG=tf_config), **kwargs))
        return processes


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """Makes a network of `count` workers, and removes it afterwards; raises OSError when it can't be made."""
    made = Network(count)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def partition_and_resume(
    *, cuts: int, seed: int, flags: list[str], joined: Network, folder: pathlib.Path
) -> tuple[Seconds, list[str]]:
    """Cuts one worker off `cuts` times at random instants; the rest is as in `disturb_and_resume`."""
    rng = random.Random(seed)

    def start(workdir: pathlib.Path, log: pathlib.Path) -> Processes:
        more = [f"--workdir={workdir}", f"--connect_secs={CONNECT_SECS}"]
        with log.open("wb") as output:
            return joined.start([*flags, *more], stdout=output, stderr=output)

    def disturb(processes: Processes) -> Disturbance:
        kind = rng.choice(CUTS)
        joined.cut(rng.randrange(len(processes)), kind)
        return Disturbance(f"{kind:<4}", frozenset({5}), undo=joined.heal)

    return disturb_and_resume(
        times=cuts, rng=rng, start=start, disturb=disturb, secs_to_end=SECS_TO_END, folder=folder
    )


def main() -> int:
    """Prints how many cuts fell into which phase, and whether anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, default=0, help="determines the instants and the kinds of the cuts"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "flags", nargs="*", help="flags of the trainer, after --; default: a small run on sample_reviews"
    )
    given = parser.parse_args()
    # So that the namespaces are removed.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, network(given.workers) as joined:
        seconds, wrong = partition_and_resume(
            cuts=given.cuts,
            seed=given.seed,
            flags=given.flags or SMALL_RUN,
            joined=joined,
            folder=pathlib.Path(folder),
        )
    return report(seconds, wrong, "cut")


if __name__ == "__main__":
    sys.exit(main())
