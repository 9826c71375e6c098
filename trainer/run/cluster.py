"""The processes that train together, as TF_CONFIG tells it; known and checked before TensorFlow is imported."""

import contextlib
import ipaddress
import json
import os
import re
import socket
import threading
from typing import NamedTuple

from trainer import InputError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
_ADDRESS = r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
_NUMERIC = r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?"  # No name ends so: it is meant as an IPv4 address.
_RETRY_SECS = 0.5


class Cluster(NamedTuple):
    """The workers' addresses, and which of them this process is; worker 0 is the chief, who alone writes the run directory."""

    workers: tuple[str, ...] = ("localhost",)
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes."""
        return self.index == 0


def read_cluster(strategy: str | None, *, check_network: bool = True, connect_secs: float = 15) -> Cluster:
    """The cluster that TF_CONFIG describes; a process by itself where there is none.

    Args:
      strategy: the value of --strategy; multi_worker alone goes with TF_CONFIG. None: not known yet, and whether there is a
        TF_CONFIG decides.
      check_network: whether this worker's port has to be free and every host has to be found; not once TensorFlow listens.
      connect_secs: how long a host may take to be found, since a cluster manager may name a worker only when it has started.

    Raises:
      InputError: when TF_CONFIG is there and not asked for, or asked for and not there, or no description of workers, or
        this machine cannot be the worker or cannot find another one.
    """
    text = os.environ.get("TF_CONFIG", "")
    if strategy not in (None, "multi_worker") and text:
        raise InputError(f"TF_CONFIG is for --strategy=multi_worker, but --strategy={strategy}; give that, or unset TF_CONFIG.")
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
    try:
        described = json.loads(text)
        workers, index = described["cluster"]["worker"], described["task"]["index"]
        is_whole = list(described["cluster"]) == ["worker"] == [described["task"]["type"]]
        is_whole &= isinstance(workers, list) and all(isinstance(worker, str) for worker in workers)
        is_whole &= type(index) is int or (isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index) is not None)
        is_whole = is_whole and 0 <= int(index) < len(workers)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        is_whole = False
    if not is_whole:
        shown = repr(text) if len(text) <= 500 else f"{text[:500]!r} and more"
        raise InputError(
            f"--strategy=multi_worker needs TF_CONFIG with one list of workers and a task, as in {_EXAMPLE}, "
            f"but it is {shown}; set it so for each worker, or unset it and give another --strategy."
        )
    return Cluster(tuple(workers), int(index))


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
        f"TF_CONFIG must give each worker as host:port, with a port from 1 to 65535, an IPv6 address in brackets "
        f"and a name in ASCII, but worker {number} is {worker[:200]!r}; correct it in the TF_CONFIG of every worker."
    )


def _check_distinct(workers: tuple[str, ...], addresses: list[tuple[set[str], int]]) -> None:
    # Two machines may have one address in common, as that of a bridge for containers, but none may have no other.
    for second, (mine, port) in enumerate(addresses):
        for first, (others, other_port) in enumerate(addresses[:second]):
            if port == other_port and (mine <= others or others <= mine):
                raise InputError(
                    f"TF_CONFIG must give each worker an address of its own, but worker {first} is "
                    f"{workers[first]!r} and worker {second} is {workers[second]!r}, which is the same; "
                    f"correct it in the TF_CONFIG of every worker."
                )


def _check_port(cluster: Cluster, port: int) -> None:
    # As TensorFlow will, at all addresses of this machine: that of TF_CONFIG may be one that is forwarded to it.
    try:
        with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
            if probe.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except OSError as error:
        raise port_error(cluster, error.strerror) from None


def port_error(cluster: Cluster, reason: str) -> InputError:
    """The error for a worker that cannot listen at its own port."""
    address = cluster.workers[cluster.index]
    return InputError(
        f"TF_CONFIG must give worker {cluster.index} a port at which it can listen, but that of {address!r} is none ({reason}); "
        f"end the process that has it, or give the worker another port in the TF_CONFIG of every worker."
    )


def _resolve(hosts: list[str], secs: float) -> dict[str, set[str]]:
    """The addresses of each host; asked in a thread, since a resolver heeds no limit of time."""
    found: dict[str, set[str]] = {}
    reasons: dict[str, str] = {}
    given_up = threading.Event()

    def ask() -> None:
        while missing := [host for host in hosts if host not in found]:
            for host in missing:
                try:
                    found[host] = {str(info[4][0]) for info in socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM)}
                except OSError as error:
                    reasons[host] = error.strerror
            if len(found) < len(set(hosts)) and given_up.wait(_RETRY_SECS):
                return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(secs)
    given_up.set()
    if not thread.is_alive():
        return found
    missing = sorted({host for host in hosts if host not in found})
    said = ", ".join(f"{host!r} ({reasons.get(host, 'no answer')})" for host in missing[:5])
    said += " and more" * (len(missing) > 5)
    raise InputError(
        f"TF_CONFIG must name hosts that this machine can find, but within {secs:g} s (--connect_secs) "
        f"it did not find {said}; correct the names, or give more --connect_secs where they come up later."
    )
