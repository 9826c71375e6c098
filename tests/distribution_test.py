"""Training on several devices and workers."""

import json
import logging
import os
import socket
import sys

import pytest
import tensorflow as tf
from local_cluster import ROOT
from processes import run as run_forked

from trainer import machine
from trainer.config import Config
from trainer.errors import InputError
from trainer.run import distribution


def test_the_thread_counts_are_as_requested():
    threads = (
        tf.config.threading.get_intra_op_parallelism_threads(),
        tf.config.threading.get_inter_op_parallelism_threads(),
    )
    assert threads == (Config.intra_op_threads, max(2, machine.usable_cores()))
    distribution.set_threads(intra_op=Config.intra_op_threads, inter_op=Config.inter_op_threads)


def test_by_default_as_many_operations_run_at_a_time_as_there_are_usable_cores(monkeypatch):
    set_to = []
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    monkeypatch.setattr(tf.config.threading, "set_inter_op_parallelism_threads", set_to.append)
    distribution.set_threads(intra_op=Config.intra_op_threads, inter_op=0)
    distribution.set_threads(intra_op=Config.intra_op_threads, inter_op=3)
    assert set_to == [8, 3]


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        (
            "%s seems down, retrying %d/%d",
            ("/job:worker/replica:0/task:11", 1, 3),
            "Worker 11 does not answer; checking again.",
        ),
        (
            "Cluster check alive failed, %s is down, aborting collectives: %s",
            ("/job:worker/replica:0/task:1", "gRPC"),
            None,
        ),
        ("Something else seems down", (), "Something else seems down"),
    ],
)
def test_tensorflows_log_messages_about_workers_are_reworded(message, arguments, expected):
    record = logging.LogRecord("tensorflow", logging.WARNING, "", 0, message, arguments, None)
    assert (record.getMessage() if distribution._reword(record) else None) == expected


CONNECT = """
from trainer.errors import InputError
from trainer.run import cluster, distribution
try:
    workers = cluster.read_cluster("multi_worker", check_network=False)
    distribution.Replicas("multi_worker", cluster=workers, connect_secs=1)
except InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_port_taken_after_the_check_gives_the_same_message():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        described = {"cluster": {"worker": [address, "localhost:1"]}, "task": {"type": "worker", "index": 0}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(described)}
        command = [sys.executable, "-c", CONNECT]
        completed = run_forked(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert completed.stdout == (
        f"TF_CONFIG must give worker 0 a port that it can listen on, but it can't listen on that of "
        f"{address!r} (TensorFlow found it taken); end the process that uses it, or give the worker another "
        f"port in the TF_CONFIG of every worker.\n"
    )


def test_workers_that_differ_wait_for_each_other_before_they_end(monkeypatch):
    waits = []

    def exchange(self, values):
        waits.append(values)
        raise tf.errors.UnavailableError(None, None, "the other one has ended")

    monkeypatch.setattr(distribution.Replicas, "gather", lambda self, text: [text, '{"--seed": "7"}'])
    monkeypatch.setattr(distribution.Replicas, "_sum", exchange)
    with pytest.raises(InputError, match="--seed is 2 on worker 0 and 7 on worker 1"):
        distribution.Replicas().agree({"--seed": "2"})
    assert len(waits) == 1
