"""The workers that TF_CONFIG describes."""

import errno
import json
import os
import socket
import subprocess
import sys

import pytest
from local_cluster import ROOT, free_ports

from trainer.errors import InputError
from trainer.run.cluster import Cluster, read_cluster

WORKERS = ["a:1", "b:2"]


def config(workers=WORKERS, *, cluster=None, task=None):
    return json.dumps(
        {"cluster": cluster or {"worker": workers}, "task": task or {"type": "worker", "index": 1}}
    )


def refusal(monkeypatch, text, **kwargs):
    """The one-line message with which a TF_CONFIG is refused."""
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError) as error:
        read_cluster("multi_worker", **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("strategy", ["one_device", "mirrored", None])
def test_without_tf_config_a_process_is_the_only_worker_and_the_chief(monkeypatch, strategy):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert read_cluster(strategy) == Cluster()
    assert read_cluster(strategy).is_chief


@pytest.mark.parametrize("strategy", ["multi_worker", None])
@pytest.mark.parametrize("index", [0, 1, "1"])
def test_the_first_worker_is_the_chief(monkeypatch, index, strategy):
    workers = [f"localhost:{port}" for port in free_ports(2)]
    monkeypatch.setenv("TF_CONFIG", config(workers, task={"type": "worker", "index": index}))
    cluster = read_cluster(strategy)
    assert cluster == Cluster(tuple(workers), int(index))
    assert cluster.is_chief == (index == 0)


def test_unknown_entries_of_tf_config_are_ignored(monkeypatch):
    more = {"environment": "cloud", "job": {"name": "imdb"}, "rpc_layer": "carrier pigeon"}
    task = {"type": "worker", "index": 0, "trial": "3"}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": WORKERS}, "task": task, **more}))
    assert read_cluster("multi_worker", check_network=False) == Cluster(tuple(WORKERS), 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        '"worker"',
        "[" * 60_000,
        '{"cluster": {"worker": ["a:1"]}, "task": ' * 2000,
        '{"cluster": {"worker": ["a:1"]}}',
        config(cluster={"worker": []}, task={"type": "worker", "index": 0}),
        config(cluster={"worker": "a:1"}, task={"type": "worker", "index": 0}),
        config(cluster={"worker": {"0": "a:1"}}, task={"type": "worker", "index": 0}),
        config(["a:1", 2]),
        config(["a:1", None]),
        config(["a:1", ["b:2"]]),
        config(cluster={"worker": WORKERS, "ps": ["c:3"]}),
        config(cluster={"ps": WORKERS}, task={"type": "ps", "index": 0}),
        config(cluster={"chief": WORKERS}, task={"type": "chief", "index": 0}),
        config(cluster={"chief": WORKERS}, task={"type": "worker", "index": 0}),
        config(cluster=["worker"]),
        config(task={"type": "evaluator", "index": 0}),
        config(task={"type": ["worker"], "index": 0}),
        config(task={"index": 0}),
        config(task={"type": "worker"}),
        config(task=["worker", 0]),
        *(
            config(task={"type": "worker", "index": index})
            for index in (
                2,
                -1,
                "first",
                "",
                "-1",
                "2",
                " 1",
                "1_0",
                "\u0661",
                1.0,
                float("nan"),
                float("inf"),
                True,
                None,
                [0],
                10**20,
                "9" * 5000,
            )
        ),
    ],
)
def test_an_invalid_tf_config_is_refused_in_one_sentence(monkeypatch, text):
    message = refusal(monkeypatch, text)
    assert "needs TF_CONFIG with one list of workers and a task, as in" in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    "worker",
    [
        *(
            "",
            "b",
            "b:",
            ":2",
            "b:abc",
            "b:0",
            "b:65536",
            "b:-1",
            "b:2.0",
            "b:1e3",
            "b: 2",
            "b:2 ",
            "b:2\n",
            "b:\u0662",
            "b:000002",
        ),
        *(
            "::1:2",
            "[::1]",
            "[::1]2",
            "[::1:2",
            "[b]:2",
            "[]:2",
            "[1.2.3.4]:2",
            "[::1]]:2",
            "b c:2",
            "b/c:2",
            "/bns/b:2",
            "grpc://b:2",
        ),
        *(
            "b\u00fc:2",
            "b\x00:2",
            "b\ud800:2",
            "b,c:2",
            "me@b:2",
            "256.1.1.1:2",
            "1.2.3:2",
            "127.1:2",
            "2130706433:2",
            "0x7f000001:2",
            "b" * 10_000,
        ),
    ],
)
def test_an_invalid_address_is_refused_with_its_worker_index(monkeypatch, worker):
    message = refusal(monkeypatch, config(["localhost:1", worker], task={"type": "worker", "index": 0}))
    assert "must give each worker as host:port" in message
    assert f"but worker 1 is {worker[:200]!r}" in message
    message.encode()


@pytest.mark.parametrize(
    "same",
    [
        ["localhost:{}", "localhost:{}"],
        ["localhost:{}", "LOCALHOST:{}"],
        ["127.0.0.1:{}", "localhost:{}"],
        ["[::1]:{}", "[0:0:0:0:0:0:0:1]:{}"],
    ],
)
def test_two_workers_with_the_same_address_are_refused_in_any_spelling(monkeypatch, same):
    (port,) = free_ports(1)
    workers = [address.format(port) for address in same]
    message = refusal(monkeypatch, config([f"localhost:{free_ports(1)[0]}", *workers]))
    assert f"worker 1 is {workers[0]!r} and worker 2 is {workers[1]!r}, which is the same" in message


def test_one_host_with_two_ports_counts_as_two_workers(monkeypatch):
    first, second = free_ports(2)
    monkeypatch.setenv("TF_CONFIG", config([f"localhost:{first}", f"127.0.0.1:{second}"]))
    assert read_cluster("multi_worker").index == 1


def test_hosts_not_found_within_connect_secs_are_named(monkeypatch):
    workers = [f"localhost:{free_ports(1)[0]}", "nobody.invalid:2222", "a..b:2222"]
    message = refusal(monkeypatch, config(workers, task={"type": "worker", "index": 0}), connect_secs=0.2)
    assert "within 0.2 s (--connect_secs) it did not find 'a..b' (" in message
    assert "'nobody.invalid' (" in message
    assert "localhost" not in message


def test_a_host_that_resolves_late_is_found(monkeypatch):
    answers = [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.getaddrinfo("127.0.0.1", None),
    ]

    def resolve(host, *args, **kwargs):
        if host != b"later":
            return getaddrinfo(host, *args, **kwargs)
        result = answers.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    first, second = free_ports(2)
    monkeypatch.setenv("TF_CONFIG", config([f"localhost:{first}", f"later:{second}"]))
    assert read_cluster("multi_worker").index == 1
    assert not answers


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::1")]
)
def test_a_port_in_use_is_refused_before_tensorflow_is_imported(tmp_path, family, address):
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    with socket.socket(family) as taken:
        taken.bind((address, 0))
        taken.listen()
        text = config(
            [f"localhost:{taken.getsockname()[1]}", f"localhost:{free_ports(1)[0]}"],
            task={"type": "worker", "index": 0},
        )
        command = [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "trainer.main",
            "--strategy=multi_worker",
            f"--workdir={tmp_path / 'run'}",
        ]
        completed = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "TF_CONFIG": text},
            capture_output=True,
            text=True,
            check=False,
        )
    *imported, message = completed.stderr.splitlines()
    assert completed.returncode == 2
    assert message.startswith(
        "error: TF_CONFIG must give worker 0 a port that it can listen on, but it can't listen on that of"
    )
    assert os.strerror(errno.EADDRINUSE) in message
    assert not any(line.split()[-1].partition(".")[0] == "tensorflow" for line in imported)
    assert not (tmp_path / "run").exists()


def test_tf_config_without_strategy_multi_worker_is_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config())
    with pytest.raises(
        InputError, match="TF_CONFIG requires --strategy=multi_worker, but --strategy is mirrored; give"
    ):
        read_cluster("mirrored")
