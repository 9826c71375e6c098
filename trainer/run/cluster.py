"""The processes that train together, as TF_CONFIG tells it; known before TensorFlow is imported."""

import json
import os
from typing import NamedTuple

from trainer import InputError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


class Cluster(NamedTuple):
    """The workers' addresses, and which of them this process is; worker 0 is the chief, who alone writes the run directory."""

    workers: tuple[str, ...] = ("localhost",)
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes."""
        return self.index == 0


def read_cluster(strategy: str | None) -> Cluster:
    """The cluster that TF_CONFIG describes; a process by itself where there is none.

    Args:
      strategy: the value of --strategy; multi_worker alone goes with TF_CONFIG.

    Raises:
      InputError: when TF_CONFIG is there and not asked for, or asked for and not there, or no description of workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    if strategy is None:
        strategy = "multi_worker" if text else "one_device"
    if strategy != "multi_worker":
        if text:
            raise InputError(f"TF_CONFIG is for --strategy=multi_worker, but --strategy={strategy}; give that, or unset TF_CONFIG.")
        return Cluster()
    try:
        described = json.loads(text)
        (workers,) = described["cluster"].values()
        task = described["task"]
        index = int(task["index"])
        is_whole = list(described["cluster"]) == ["worker"] == [task["type"]] and 0 <= index < len(workers)
        is_whole &= (
            isinstance(workers, list)
            and all(isinstance(worker, str) and worker for worker in workers)
            and len(set(workers)) == len(workers)
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise InputError(
            f"--strategy=multi_worker needs TF_CONFIG with one list of workers and a task, as in {_EXAMPLE}, but it is {text!r}."
        )
    return Cluster(tuple(workers), index)
