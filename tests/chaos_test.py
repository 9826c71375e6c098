"""The long proof itself: that its parts run, and that what must not be is seen."""

import json
import os
import pathlib
import random
import shutil
import signal
import sys

import chaos
import chaos_attacks
import pytest
from chaos_names import PRINTABLE, matched_by, odd_name, relative_name
from chaos_processes import forgotten, lost
from chaos_snapshots import snapshot, touched
from chaos_start import Answer, faults_of, start
from compare_runs import tensors
from forked_scripts import forkable
from local_cluster import ROOT
from processes import run

PARTS = ("names", "strangers", "pipes", "signals", "environments", "inputs", "damages", "kills")


def test_a_case_is_done_once_and_summed_up(tmp_path, monkeypatch, capsys):
    report = tmp_path / "report"
    # The cases that the report has already are not run; the one that it lacks runs `--mode=inspect`.
    done = [
        {"part": "strangers", "number": number, "outcome": "done", "cases": 1, "wrong": []}
        for number in range(5)
    ]
    report.write_text("".join(f"{json.dumps(case)}\n" for case in done))
    counts = [f"--{part}={({'strangers': 6, 'inputs': 1}).get(part, 0)}" for part in PARTS]
    command = [sys.executable, "scripts/proof/chaos.py", f"--report={report}", *counts]
    said = run(forkable(command), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert report.read_text().startswith("".join(f"{json.dumps(case)}\n" for case in done))
    cases = chaos.read_report(report)[len(done) :]
    assert [(case["part"], case["number"]) for case in cases] == [("strangers", 5), ("inputs", 0)], said
    assert said.returncode == any(case["wrong"] for case in cases), said
    with report.open("a") as file:
        file.write('{"part": "strangers", "torn')
    monkeypatch.setattr(sys, "argv", command[1:])
    assert chaos.main() == said.returncode
    assert capsys.readouterr().out == said.stdout
    for row in ("| strangers | done | 5 | 0 |", "| strangers | inspect: ", "| inputs | "):
        assert row in said.stdout


def test_every_printable_character_is_part_of_some_name():
    names = {odd_name(number, random.Random(number)) for number in range(300)}
    assert set("".join(names)) >= set(PRINTABLE)
    assert names.isdisjoint(("", ".", ".."))
    assert not any("/" in name or "\0" in name or len(os.fsencode(name)) > 255 for name in names)


@pytest.mark.parametrize(
    "name, sibling",
    [
        ("sib*", "sib1"),
        ("s?b", "syb"),
        ("imdb [final]", "imdb f"),
        ("back\\slash", "backslash"),
        ("{a,b}", "b"),
        ("[!a]", "~"),
    ],
)
def test_a_name_has_a_sibling_that_it_matches_as_a_pattern(name, sibling):
    assert sibling in matched_by(name)


def test_a_relative_name_is_never_the_home_folder(tmp_path):
    for name, given in (("~", "./~"), ("~root", "./~root"), ("a~", "a~")):
        assert relative_name(tmp_path / name, tmp_path) == given


def test_whatever_changes_in_a_folder_is_seen(tmp_path):
    for name in ("kept", "changed", "gone", "as long", "mode"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "linked").mkdir()
    before = snapshot(tmp_path)
    assert touched(before, snapshot(tmp_path)) == []
    (tmp_path / "changed").write_text("precious no more")
    (tmp_path / "as long").write_text("PRECIOUS")
    (tmp_path / "mode").chmod(0o600)
    (tmp_path / "gone").unlink()
    for name in ("new", "linked/new"):
        (tmp_path / name).touch()
    assert sorted(touched(before, snapshot(tmp_path), may_grow=["linked"])) == [
        "as long was changed",
        "changed was changed",
        "gone is gone",
        "mode was changed",
        "new was made",
    ]


@pytest.mark.parametrize(
    "answer, fault",
    [
        (Answer(None, "", "", 20.0), "killed after 20.0 s"),
        (Answer(1, "", "", 1.0), "exit code 1"),
        (Answer(2, "", "Traceback (most recent call last)\nerror: no", 1.0), "a traceback"),
        (Answer(2, "", "", 1.0), "not one sentence"),
        (Answer(2, "", "error: a\nerror: b\n", 1.0), "not one sentence"),
        (Answer(0, "", "error: all is well\n", 1.0), "not one sentence"),
        (Answer(0, "", "", 1.0, left_behind=True), "a process was left behind"),
    ],
)
def test_an_end_that_is_not_as_promised_is_seen(answer, fault):
    (wrong,) = faults_of(answer, (0, 2))
    assert wrong.startswith(fault)
    assert (
        faults_of(Answer(2, "", "error: no\n", 1.0), (0, 2))
        == faults_of(Answer(0, "", "", 1.0), (0, 2))
        == []
    )


def test_a_save_that_was_promised_and_is_not_there_is_seen(tmp_path):
    trained = "train      | step  5/24 | loss 0.7\n"
    assert lost(f"{trained}error: Ended by SIGTERM: saved at step 5; the same command continues.\n", tmp_path)
    assert lost(f"{trained}Ended by SIGTERM; the same command continues.\n", tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-5.index").touch()
    assert not lost(
        f"{trained}error: Ended by SIGTERM: saved at step 5; the same command continues.\n", tmp_path
    )
    assert not lost("Ended by SIGTERM; the same command continues.\n", tmp_path)


def test_a_save_that_a_dead_log_could_not_promise_is_missed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-20.index").touch()
    said = "train      | step  {}/160 | loss 0.7\n"
    assert forgotten(said.format(20) + said.format(25), tmp_path) == ["step 25 was done, step 20 is saved"]
    assert (
        forgotten(said.format(38), tmp_path) == []
    )  # by now the evaluation of step 40 may have been abandoned
    (tmp_path / "checkpoints" / "ckpt-26.index").touch()
    assert forgotten(said.format(25), tmp_path) == []


def test_a_start_is_a_process_of_its_own_that_can_be_killed(tmp_path):
    answer = start(["--no_such"], log=tmp_path / "log", is_fresh=True).wait(60)
    assert faults_of(answer, (2,)) == []
    started = start(["--workdir=run", "--epochs=1000"], log=tmp_path / "log", cwd=tmp_path, is_fresh=True)
    assert started.wait(0.05).code is None
    assert started.code == 128 + signal.SIGKILL


@pytest.mark.parametrize("attack", sorted(set(chaos_attacks.ATTACKS), key=lambda attack: attack.__name__))
def test_an_attack_changes_the_run_and_nothing_else(attack, copy, finished, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    (outside / "serving").mkdir(parents=True)
    (outside / "precious.txt").write_text("precious")
    shutil.copytree(finished, outside / "run")
    before, there = snapshot(outside), snapshot(copy)
    monkeypatch.setattr(chaos_attacks, "in_fork", lambda function, *arguments: function(*arguments))
    said = attack(chaos_attacks.Place(copy, outside), random.Random(1))
    assert said
    assert touched(before, snapshot(outside)) == []
    assert touched(there, snapshot(copy)) != [], said


def test_a_hostile_checkpoint_still_verifies(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(chaos_attacks, "in_fork", lambda function, *arguments: function(*arguments))
    before = tensors(finished / "checkpoints" / "ckpt-24")
    for number in range(10):
        run = shutil.copytree(finished, tmp_path / str(number))
        chaos_attacks.checkpoints(chaos_attacks.Place(run, pathlib.Path("/outside")), random.Random(number))
        assert tensors(run / "checkpoints" / "ckpt-24") != before
