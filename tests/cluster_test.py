"""The workers, as TF_CONFIG tells of them."""

import json

import pytest

from trainer import InputError
from trainer.run.cluster import Cluster, read_cluster

WORKERS = ["a:1", "b:2"]


def config(*, cluster=None, task=None):
    return json.dumps({"cluster": cluster or {"worker": WORKERS}, "task": task or {"type": "worker", "index": 1}})


def test_without_a_cluster_a_process_is_by_itself_and_the_chief(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for strategy in ("one_device", "mirrored"):
        assert read_cluster(strategy) == Cluster()
        assert read_cluster(strategy).is_chief


@pytest.mark.parametrize("index", [0, 1, "1"])
def test_the_first_worker_is_the_chief(monkeypatch, index):
    monkeypatch.setenv("TF_CONFIG", config(task={"type": "worker", "index": index}))
    cluster = read_cluster("multi_worker")
    assert cluster == (tuple(WORKERS), int(index))
    assert cluster.is_chief == (index == 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',
        config(cluster={"worker": []}, task={"type": "worker", "index": 0}),
        config(cluster={"worker": "a:1"}, task={"type": "worker", "index": 0}),
        config(cluster={"worker": ["a:1", "a:1"]}),
        config(cluster={"worker": ["a:1", ""]}),
        config(cluster={"worker": ["a:1", 2]}),
        config(cluster={"worker": WORKERS, "ps": ["c:3"]}),
        config(cluster={"ps": WORKERS}, task={"type": "ps", "index": 0}),
        config(cluster={"chief": WORKERS}, task={"type": "worker", "index": 0}),
        config(task={"type": "worker", "index": 2}),
        config(task={"type": "worker", "index": -1}),
        config(task={"type": "worker", "index": "first"}),
        config(task={"type": "evaluator", "index": 0}),
        config(task=["worker", 0]),
    ],
)
def test_what_does_not_describe_workers_is_refused_in_one_sentence(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="needs TF_CONFIG with one list of workers and a task, as in") as error:
        read_cluster("multi_worker")
    assert "\n" not in str(error.value)


def test_a_cluster_that_is_not_asked_for_is_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config())
    with pytest.raises(InputError, match="TF_CONFIG is for --strategy=multi_worker, but --strategy=mirrored"):
        read_cluster("mirrored")
