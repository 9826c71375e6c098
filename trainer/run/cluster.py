"""The workers that TF_CONFIG describes; read and checked before TensorFlow is imported."""

import contextlib
import dataclasses
import ipaddress
import json
import os
import re
import socket
import threading

from trainer import files
from trainer.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
_ADDRESS = r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
_NUMERIC = r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?"  # meant as an IPv4 address; no host name ends like it
_RETRY_SECS = 0.5
_MAX_SHOWN = 500  # characters of TF_CONFIG in a message


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers, and which of them this process is.

    Attributes:
      workers: the address of each, as host:port.
      index: which worker this process is; 0 is the chief, the only one that writes the run directory.
    """

    workers: tuple[str, ...] = ("localhost",)
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory."""
        return self.index == 0


def read_cluster(strategy: str | None, *, check_network: bool = True, connect_secs: float = 15) -> Cluster:
    """The cluster that TF_CONFIG describes; without TF_CONFIG, one of this process alone.

    Args:
      strategy: the value of --strategy; only multi_worker allows TF_CONFIG. None: not known yet, so TF_CONFIG
        decides.
      check_network: whether to check that this worker's port is free and every host is found; False once
        TensorFlow listens.
      connect_secs: how long to look for a host: a cluster manager may publish a name only once the worker has
        started.

    Raises:
      InputError: when TF_CONFIG and --strategy contradict each other, when TF_CONFIG does not describe
        workers, or when this machine can't be the worker or can't find another one.
    """
    text = os.environ.get("TF_CONFIG", "")
    if strategy not in (None, "multi_worker") and text:
        raise InputError(
            f"TF_CONFIG requires --strategy=multi_worker, but --strategy is {strategy}; "
            f"give --strategy=multi_worker, or unset TF_CONFIG."
        )
    if strategy != "multi_worker" and not text:
        return Cluster()
    cluster = _parse(text)
    addresses = [_address(number, worker) for number, worker in enumerate(cluster.workers)]
    if check_network:
        _check_port(cluster, addresses[cluster.index][1])
        found = _resolve([host for host, _ in addresses], connect_secs)
        _check_distinct(cluster.workers, [(found[host], port) for host, port in addresses])
    return cluster


def _parse(text: str) -> Cluster:
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        described = json.loads(text)
        workers, index = described["cluster"]["worker"], described["task"]["index"]
        has_workers_only = list(described["cluster"]) == ["worker"] == [described["task"]["type"]]
        is_list = isinstance(workers, list) and all(isinstance(worker, str) for worker in workers)
        is_text_index = isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index) is not None
        is_index = type(index) is int or is_text_index
        if has_workers_only and is_list and is_index and 0 <= int(index) < len(workers):
            return Cluster(tuple(workers), int(index))
    shown = repr(text) if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]!r} and more"
    raise InputError(
        f"--strategy=multi_worker needs TF_CONFIG with one list of workers and a task, as in {_EXAMPLE}, "
        f"but it is {shown}; set it like this for each worker, or unset it and give another --strategy."
    )


def _address(number: int, worker: str) -> tuple[str, int]:
    """Host, without brackets, and port of a worker."""
    match = re.fullmatch(_ADDRESS, worker)
    with contextlib.suppress(ValueError):
        if match and 1 <= int(match["port"]) <= 65535:
            if match["ipv6"]:
                ipaddress.IPv6Address(match["ipv6"])
            elif re.fullmatch(_NUMERIC, match["host"]):
                ipaddress.IPv4Address(match["host"])
            return match["ipv6"] or match["host"], int(match["port"])
    raise InputError(
        f"TF_CONFIG must give each worker as host:port, with a port from 1 to 65535, an IPv6 address in "
        f"brackets and a name in ASCII, but worker {number} is {worker[:200]!r}; "
        f"correct it in the TF_CONFIG of every worker."
    )


def _check_distinct(workers: tuple[str, ...], addresses: list[tuple[set[str], int]]) -> None:
    # Two machines may share an address, such as that of a container bridge, but each must also have a
    # different one.
    for second, (of_second, port) in enumerate(addresses):
        for first, (of_first, port_of_first) in enumerate(addresses[:second]):
            if port == port_of_first and (of_second <= of_first or of_first <= of_second):
                raise InputError(
                    f"TF_CONFIG must give each worker a different address, but worker {first} is "
                    f"{workers[first]!r} and worker {second} is {workers[second]!r}, which is the same "
                    f"address; correct it in the TF_CONFIG of every worker."
                )


def _check_port(cluster: Cluster, port: int) -> None:
    # At all addresses of this machine, as TensorFlow will do: the one in TF_CONFIG may be forwarded to this
    # machine.
    try:
        with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
            if probe.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except OSError as error:
        raise port_error(cluster, files.reason(error)) from None


def port_error(cluster: Cluster, reason: str) -> InputError:
    """The error for a worker that can't listen on its own port."""
    address = cluster.workers[cluster.index]
    return InputError(
        f"TF_CONFIG must give worker {cluster.index} a port that it can listen on, "
        f"but it can't listen on that of {address!r} ({reason}); "
        f"end the process that uses it, or give the worker another port in the TF_CONFIG of every worker."
    )


def _resolve(hosts: list[str], secs: float) -> dict[str, set[str]]:
    """The addresses of each host; resolved in a thread, because the resolver has no time limit."""
    found: dict[str, set[str]] = {}
    reasons: dict[str, str] = {}
    given_up = threading.Event()

    def resolve() -> None:
        while missing := [host for host in hosts if host not in found]:
            for host in missing:
                try:
                    resolved = socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM)
                except OSError as error:
                    reasons[host] = files.reason(error)
                else:
                    found[host] = {str(address[0]) for *_, address in resolved}
            if len(found) < len(set(hosts)) and given_up.wait(_RETRY_SECS):
                return

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(secs)
    given_up.set()
    if not thread.is_alive():
        return found
    missing = sorted({host for host in hosts if host not in found})
    named = ", ".join(f"{host!r} ({reasons.get(host, 'no answer')})" for host in missing[:5])
    named += " and more" if len(missing) > 5 else ""
    raise InputError(
        f"TF_CONFIG must name hosts that this machine can find, but within {secs:g} s (--connect_secs) it "
        f"did not find {named}; correct the names, or give more --connect_secs if the hosts come up later."
    )
