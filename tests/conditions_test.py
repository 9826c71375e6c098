"""The conditions for exact resume."""

from trainer import machine
from trainer.config import Config
from trainer.run.conditions import conditions, differences

NUMERICS = {"kernel": "plain-1"}


THREADS = {"intra_op_threads": Config.intra_op_threads}


def current(**changed):
    return conditions(numerics=NUMERICS, **{**THREADS, **changed})


def test_conditions_of_one_process_are_equal():
    assert differences(current(), current()) == []


def test_everything_that_affects_the_bits_is_recorded():
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


def test_environment_variables_set_before_importing_tensorflow_are_recorded():
    assert "XLA_FLAGS=--xla_cpu_prefer_vector_width=512" in current()["environment"]


def test_a_difference_is_reported_with_both_values():
    before = {**current(), "tensorflow": "2.20.0", "kernel": "plain-0"}
    assert differences(before, current()) == [
        "kernel was 'plain-0' and is 'plain-1' now",
        f"tensorflow was '2.20.0' and is '{current()['tensorflow']}' now",
    ]


def test_environment_variables_that_change_kernels_are_compared(monkeypatch):
    before = current()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    (difference,) = differences(before, current())
    assert "TF_ENABLE_ONEDNN_OPTS=0" in difference


def test_tensorflows_log_level_is_not_compared(monkeypatch):
    before = current()
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert differences(before, current()) == []


def test_where_xla_keeps_what_it_compiled_is_not_compared(monkeypatch):
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    before = current()
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/tmp/a")
    assert differences(before, current()) == []
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/tmp/a --tf_xla_auto_jit=2")
    (difference,) = differences(before, current())
    assert "--tf_xla_auto_jit=2" in difference
    monkeypatch.setenv(
        "TF_XLA_FLAGS",
        "--tf_xla_persistent_cache_directory=ram://a --tf_xla_persistent_cache_device_types=CPU",
    )
    assert differences(before, current()) == []
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/tmp/a --tf_xla_auto_jit=2")
    elsewhere = "--tf_xla_auto_jit=2 --tf_xla_persistent_cache_directory=/tmp/b"
    recorded = current()
    monkeypatch.setenv("TF_XLA_FLAGS", elsewhere)
    assert differences(recorded, current()) == []
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/tmp/b")
    assert differences(current(), before) == [], "a run whose folder was recorded"


def test_what_scikit_learn_sets_in_the_environment_is_not_compared(monkeypatch):
    before = current()
    monkeypatch.setenv("KMP_DUPLICATE_LIB_OK", "True")
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")
    assert differences(before, current()) == differences(current(), before) == []
    monkeypatch.setenv("KMP_BLOCKTIME", "0")
    assert len(differences(before, current())) == 1


def test_the_number_of_replicas_is_compared():
    (difference,) = differences(current(replicas=2), current())
    assert difference == "replicas was '2' and is '1' now"


def test_a_condition_recorded_on_one_side_only_is_a_difference():
    assert differences({"kernel": "plain-1"}, {}) == ["kernel was 'plain-1' and is 'not recorded' now"]
    assert differences({}, {"kernel": "plain-1"}) == ["kernel was 'not recorded' and is 'plain-1' now"]


def test_usable_cores_are_compared_only_when_tensorflow_chooses_the_threads_of_an_operation(monkeypatch):
    assert "usable cores" not in current()
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    before = current(**{"intra_op_threads": 0})
    assert before["usable cores"] == "3"
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    (difference,) = differences(before, current(**{"intra_op_threads": 0}))
    assert difference == "usable cores was '3' and is '4' now"


def test_usable_cores_recorded_by_an_older_version_are_not_compared():
    assert differences({**current(), "usable cores": "96"}, current()) == []
