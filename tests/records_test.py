"""Records of a run: its starts, and whether its result is final."""

import json
import os
import pathlib
import socket

import pytest

from trainer.run.records import RESULT, append_start, is_result_of, read_starts

PLACES = {"cwd": "/home/me/ü", "data_dir": "", "tfds_data_dir": "/tfds"}


def append(directory, step, **facts):
    given = {
        "steps_recomputed_at_least": 0,
        "steps_per_epoch": 8,
        "stores": {},
        "places": PLACES,
        **facts,
    }
    append_start(directory, step=step, **given)


def test_starts_are_read_back_as_appended_oldest_first(tmp_path):
    append(tmp_path, 0)
    append(tmp_path, 8, steps_recomputed_at_least=3, stores={"train[:5]": pathlib.Path("/cache/ü")})
    expected = {"steps_per_epoch": 8, "steps_recomputed_at_least": 3, "stores": {"train[:5]": "/cache/ü"}}
    assert [start["step"] for start in read_starts(tmp_path)] == [0, 8]
    assert read_starts(tmp_path)[1] == {"step": 8, **expected, "places": PLACES}


def test_a_start_of_an_older_version_has_no_places(tmp_path):
    append(tmp_path, 4)
    path = tmp_path / "starts.jsonl"
    older = json.loads(path.read_text())
    del older["places"]
    path.write_text(json.dumps(older) + "\n")
    (start,) = read_starts(tmp_path)
    assert start["places"] == dict.fromkeys(PLACES, "")


def test_a_start_records_its_time_host_and_process(tmp_path):
    append(tmp_path, 4)
    (line,) = (tmp_path / "starts.jsonl").read_text().splitlines()
    start = json.loads(line)
    assert (start["host"], start["pid"], start["time"][-6:]) == (socket.gethostname(), os.getpid(), "+00:00")
    names = [
        "time",
        "host",
        "pid",
        "step",
        "steps_recomputed_at_least",
        "steps_per_epoch",
        "stores",
        "places",
    ]
    assert list(start) == names


def test_a_run_without_a_starts_file_has_no_starts(tmp_path):
    assert read_starts(tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"[" * 10**5,
        b'{"step": 1}',
        b'{"step": -1, "steps_recomputed_at_least": 0, "steps_per_epoch": 8, "stores": {}}',
        b'{"step": 1, "steps_recomputed_at_least": 0, "steps_per_epoch": 0, "stores": {}}',
        b'{"step": 1e400, "steps_recomputed_at_least": 0, "steps_per_epoch": 8, "stores": {}}',
        b'{"step": 1, "steps_recomputed_at_least": 0, "steps_per_epoch": 8, "stores": []}',
        b'{"step": 1, "steps_recomputed_at_least": 0, "steps_per_epoch": 8, "stores": {}, "places": []}',
    ],
)
def test_a_malformed_line_is_skipped(tmp_path, line):
    append(tmp_path, 3)
    with (tmp_path / "starts.jsonl").open("ab") as file:
        file.write(line + b"\n")
    append(tmp_path, 5)
    assert [start["step"] for start in read_starts(tmp_path)] == [3, 5]


def test_a_result_belongs_to_one_stop_step_and_one_best_step(tmp_path):
    (tmp_path / RESULT).write_text('{"stop_step": 24, "best_step": 15, "reason": "--epochs=3 done"}')
    assert is_result_of(tmp_path, 24, 15)
    assert not is_result_of(tmp_path, 24, 5)
    assert not is_result_of(tmp_path, 16, 15)


def test_a_missing_or_malformed_result_does_not_count(tmp_path):
    assert not is_result_of(tmp_path, 24, 15)
    for content in (b"{", b"[" * 10**6, b'{"stop_step": Infinity, "best_step": 1e400}', b"[1]", b"{}"):
        (tmp_path / RESULT).write_bytes(content)
        assert not is_result_of(tmp_path, 24, 15)
