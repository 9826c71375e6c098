"""The conditions of exactness."""

import json
import logging
import os
import socket
import subprocess
import sys

import pytest
import tensorflow as tf
from local_cluster import ROOT

from trainer.config import Config
from trainer.run import distribution


def conditions():
    return distribution.conditions(numerics={"kernel": "plain-1"})


def test_the_same_process_has_the_same_conditions():
    assert distribution.differences(json.dumps(conditions()), conditions()) == []


def test_what_decides_bits_is_recorded():
    recorded = conditions()
    for name in (
        "tensorflow",
        "keras",
        "numpy",
        "cpu",
        "cpu features",
        "cpu caches",
        "usable cores",
        "devices",
        "kernel",
    ):
        assert recorded[name]


def test_what_main_sets_before_tensorflow_is_imported_is_recorded():
    assert "XLA_FLAGS=--xla_cpu_prefer_vector_width=512" in conditions()["environment"]


def test_threads_are_those_that_are_asked_for():
    threads = (tf.config.threading.get_intra_op_parallelism_threads(), tf.config.threading.get_inter_op_parallelism_threads())
    assert threads == (Config.intra_op_threads, Config.inter_op_threads)
    distribution.set_threads(intra_op=Config.intra_op_threads, inter_op=Config.inter_op_threads)


def test_a_difference_is_named_with_both_values():
    before = {**conditions(), "tensorflow": "2.20.0", "kernel": "plain-0"}
    assert distribution.differences(json.dumps(before), conditions()) == [
        "kernel was 'plain-0' and is 'plain-1' now",
        f"tensorflow was '2.20.0' and is '{conditions()['tensorflow']}' now",
    ]


def test_an_environment_that_changes_kernels_is_a_difference(monkeypatch):
    before = json.dumps(conditions())
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    (difference,) = distribution.differences(before, conditions())
    assert "TF_ENABLE_ONEDNN_OPTS=0" in difference


def test_how_much_tensorflow_logs_is_no_difference(monkeypatch):
    before = json.dumps(conditions())
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert distribution.differences(before, conditions()) == []


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        ("%s seems down, retrying %d/%d", ("/job:worker/replica:0/task:11", 1, 3), "Worker 11 does not answer; it is asked again."),
        ("Cluster check alive failed, %s is down, aborting collectives: %s", ("/job:worker/replica:0/task:1", "gRPC"), None),
        ("Something else seems down", (), "Something else seems down"),
    ],
)
def test_what_tensorflow_says_of_a_worker_is_said_in_our_words(message, arguments, expected):
    record = logging.LogRecord("tensorflow", logging.WARNING, "", 0, message, arguments, None)
    assert (record.getMessage() if distribution._reword(record) else None) == expected


CONNECT = """
from trainer import InputError
from trainer.run import cluster, distribution
try:
    distribution.Replicas("multi_worker", cluster=cluster.read_cluster("multi_worker", check_network=False), connect_secs=1)
except InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_port_that_is_taken_after_it_was_looked_at_is_the_same_mistake():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        described = {"cluster": {"worker": [address, "localhost:1"]}, "task": {"type": "worker", "index": 0}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(described), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", CONNECT]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == (
        f"TF_CONFIG must give worker 0 a port at which it can listen, but that of {address!r} is none (TensorFlow found it taken); "
        f"end the process that has it, or give the worker another port in the TF_CONFIG of every worker.\n"
    )
