"""The conditions of exactness."""

import pytest

from trainer import machine
from trainer.config import Config
from trainer.run.conditions import conditions, differences

NUMERICS = {"kernel": "plain-1"}


THREADS = {"intra_op_threads": Config.intra_op_threads, "inter_op_threads": Config.inter_op_threads}


def current(**changed):
    return conditions(numerics=NUMERICS, **{**THREADS, **changed})


def test_the_same_process_has_the_same_current():
    assert differences(current(), current()) == []


def test_all_that_decides_bits_is_recorded():
    recorded = current()
    for name in (
        "tensorflow",
        "keras",
        "numpy",
        "cpu",
        "cpu features",
        "cpu caches",
        "devices",
        "kernel",
    ):
        assert recorded[name]


def test_what_main_sets_before_tensorflow_is_imported_is_recorded():
    assert "XLA_FLAGS=--xla_cpu_prefer_vector_width=512" in current()["environment"]


def test_a_difference_is_named_with_both_values():
    before = {**current(), "tensorflow": "2.20.0", "kernel": "plain-0"}
    assert differences(before, current()) == [
        "kernel was 'plain-0' and is 'plain-1' now",
        f"tensorflow was '2.20.0' and is '{current()['tensorflow']}' now",
    ]


def test_an_environment_that_changes_kernels_is_a_difference(monkeypatch):
    before = current()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    (difference,) = differences(before, current())
    assert "TF_ENABLE_ONEDNN_OPTS=0" in difference


def test_the_log_level_of_tensorflow_is_no_difference(monkeypatch):
    before = current()
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert differences(before, current()) == []


def test_the_number_of_replicas_is_a_condition():
    (difference,) = differences(current(replicas=2), current())
    assert difference == "replicas was '2' and is '1' now"


def test_a_condition_that_only_one_side_has_is_a_difference():
    assert differences({"kernel": "plain-1"}, {}) == ["kernel was 'plain-1' and is 'not recorded' now"]
    assert differences({}, {"kernel": "plain-1"}) == ["kernel was 'not recorded' and is 'plain-1' now"]


@pytest.mark.parametrize("unset", ["intra_op_threads", "inter_op_threads"])
def test_usable_cores_are_a_condition_only_where_tensorflow_decides_the_threads(monkeypatch, unset):
    assert "usable cores" not in current()
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    before = current(**{unset: 0})
    assert before["usable cores"] == "3"
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    (difference,) = differences(before, current(**{unset: 0}))
    assert difference == "usable cores was '3' and is '4' now"


def test_cores_that_an_older_version_recorded_are_no_difference():
    assert differences({**current(), "usable cores": "96"}, current()) == []
