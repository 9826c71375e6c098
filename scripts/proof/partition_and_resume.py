"""Cuts the network between workers again and again, heals it, resumes, and compares every bit with a run that was left alone.

    python scripts/partition_and_resume.py [--cuts=20] [--seed=0] [--workers=2] [-- FLAGS OF THE TRAINER]

Each worker is in a network namespace of its own, and a bridge in one more joins them; all traffic stays there. Needs root and `ip`
(Debian's iproute2). At a random instant of a run one worker is cut off: its frames vanish in both directions or in one, or its link
is down. All workers have to end within a bounded time, with 5, or with 0 where the work was done. The same command resumes on the
healed network.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from kill_and_resume import ROOT, SMALL_RUN, differences, outcome, phase, wait
from tqdm import tqdm

CUTS = ("both", "to", "from", "down")  # what is lost: all frames of a worker, those to it, those from it; or the link is down
CONNECT_SECS = 15
SECS_TO_END = CONNECT_SECS + 30  # after a cut; TensorFlow asks three times for a peer
_NOBODY = "02:00:00:00:00:99"
_numbers = itertools.count()


def ip(*arguments: str) -> str:
    """Runs `ip`; returns what it said, or raises OSError with what it said when it fails."""
    answer = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {answer.stderr.strip()}")
    return answer.stdout


class Network:
    """Workers that reach each other over a bridge and nothing else; made by `network`."""

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
            ip("-n", self.bridge, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", self.bridge, "link", "set", f"port{number}", "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{self._address(number)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        """Removes the namespaces that there are, and ends who still trains in them."""
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
        ip(
            "-n",
            self.workers[sender],
            "neighbour",
            "replace",
            self._address(receiver),
            "lladdr",
            _NOBODY,
            "dev",
            "eth0",
            "nud",
            "permanent",
        )

    def heal(self) -> None:
        """Undoes every cut."""
        for number, name in enumerate(self.workers):
            ip("-n", self.bridge, "link", "set", f"port{number}", "master", "bridge")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "neighbour", "flush", "dev", "eth0", "nud", "permanent")

    def start(self, flags: list[str], **kwargs) -> list[subprocess.Popen]:
        """Starts the trainer on each worker; keyword arguments are those of Popen."""
        cluster = {"worker": [f"{self._address(number)}:2222" for number in range(len(self.workers))]}
        command = [sys.executable, "-m", "trainer.main", "--strategy=multi_worker", *flags]
        return [
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command],
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})},
                **kwargs,
            )
            for index, name in enumerate(self.workers)
        ]


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """Makes the network of so many workers, and removes it however the work within ends; raises OSError where it cannot be made."""
    made = Network(count)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def partition_and_resume(*, cuts: int, seed: int, flags: list[str], joined: Network, folder: pathlib.Path) -> tuple[dict, list[str]]:
    """Cuts `cuts` times; returns the seconds from each cut to the end of all processes, by kind and phase, and what went wrong."""
    rng = random.Random(seed)
    log, workdir = folder / "run.log", folder / "run"

    def start(directory: pathlib.Path) -> list[subprocess.Popen]:
        with log.open("wb") as output:
            return joined.start([*flags, f"--workdir={directory}", f"--connect_secs={CONNECT_SECS}"], stdout=output, stderr=output)

    began = time.monotonic()
    if any(wait(start(folder / "twin"))):
        raise SystemExit(log.read_text())
    lifetime = time.monotonic() - began
    twin = outcome(folder / "twin")
    seconds = collections.defaultdict(list)
    for number in tqdm(range(cuts + 1), unit="cut", disable=None):
        processes, kind = start(workdir), rng.choice(CUTS)
        try:
            codes = wait(processes, 1.1 * lifetime * rng.random() if number < cuts else None)
        except subprocess.TimeoutExpired:
            joined.cut(rng.randrange(len(processes)), kind)
            cut = time.monotonic()
            try:
                codes = wait(processes, SECS_TO_END)
            except subprocess.TimeoutExpired:
                return seconds, [f"{SECS_TO_END} s after the cut ({kind}) not all have ended: {log.read_text()}"]
            finally:
                for process in processes:
                    process.kill()
            seconds[f"{kind:<4} {phase(workdir, log.read_text())}"].append(time.monotonic() - cut)
            joined.heal()
        if not {0, 5}.issuperset(codes) or "Traceback" in log.read_text():
            return seconds, [f"exit codes {codes} ({kind}): {log.read_text()}"]
        if not any(codes):
            wrong = differences(twin, outcome(workdir))
            if wrong:
                return seconds, wrong
            shutil.rmtree(workdir)
    return seconds, []


def main() -> int:
    """Prints how many cuts fell into which phase, and whether anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("flags", nargs="*", help="flags of the trainer, after --; without: a small run on sample_reviews")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # so that the namespaces are removed
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, network(given.workers) as joined:
        seconds, wrong = partition_and_resume(
            cuts=given.cuts, seed=given.seed, flags=given.flags or SMALL_RUN, joined=joined, folder=pathlib.Path(folder)
        )
    for name in sorted(seconds):
        print(f"{name:<16} {len(seconds[name]):>4} cuts, each ended within {max(seconds[name]):.2f} s")
    print(*wrong, f"{sum(map(len, seconds.values()))} cuts, {len(wrong)} differences", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
