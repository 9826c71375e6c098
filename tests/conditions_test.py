"""The conditions of exactness."""

import json

from trainer.run.conditions import conditions, differences

NUMERICS = {"kernel": "plain-1"}


def current():
    return conditions(numerics=NUMERICS)


def test_the_same_process_has_the_same_current():
    assert differences(json.dumps(current()), current()) == []


def test_all_that_decides_bits_is_recorded():
    recorded = current()
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
    assert "XLA_FLAGS=--xla_cpu_prefer_vector_width=512" in current()["environment"]


def test_a_difference_is_named_with_both_values():
    before = {**current(), "tensorflow": "2.20.0", "kernel": "plain-0"}
    assert differences(json.dumps(before), current()) == [
        "kernel was 'plain-0' and is 'plain-1' now",
        f"tensorflow was '2.20.0' and is '{current()['tensorflow']}' now",
    ]


def test_an_environment_that_changes_kernels_is_a_difference(monkeypatch):
    before = json.dumps(current())
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    (difference,) = differences(before, current())
    assert "TF_ENABLE_ONEDNN_OPTS=0" in difference


def test_the_log_level_of_tensorflow_is_no_difference(monkeypatch):
    before = json.dumps(current())
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert differences(before, current()) == []


def test_the_number_of_replicas_is_a_condition():
    (difference,) = differences(json.dumps(conditions(numerics=NUMERICS, replicas=2)), current())
    assert difference == "replicas was '2' and is '1' now"


def test_a_condition_that_only_one_side_has_is_a_difference():
    assert differences(json.dumps({"kernel": "plain-1"}), {}) == [
        "kernel was 'plain-1' and is 'not recorded' now"
    ]
    assert differences("{}", {"kernel": "plain-1"}) == ["kernel was 'not recorded' and is 'plain-1' now"]
