"""The conditions of exactness."""

import json

import tensorflow as tf

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
