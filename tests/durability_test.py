"""Nothing is lost: damaged files, power loss, a full disk, lost permissions, signals, thousands of saves."""

import contextlib
import gc
import json
import os
import pathlib
import pty
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import kill_and_resume
import numpy as np
import pytest
import tensorflow as tf
from compare_runs import outcome, scalars, tensors
from fakes import NoStopRequests, command, flags, make_state, tiny
from processes import SERVER, popen
from processes import run as run_forked
from reference_runs import STEPS, assert_resumes_like, train_to_the_end

from trainer import files, train
from trainer.errors import NonFiniteError, StorageError
from trainer.labels import NEGATIVE_POSITIVE
from trainer.run import checkpoint_cleanup, checkpoint_files, checkpoint_manager, event_files, summaries
from trainer.run.checkpoint_manager import Checkpoints

# Steps of the tiny run that are evaluated: one that is no improvement, and the one that is best in the end.
COMMITTED, BEST = 10, 15


BRIEF = {
    "epochs": 1,
    "test_split": "",
    "sample_text": ("",),
    "checkpoint_every_steps": 0,
    "checkpoint_every_secs": 0.0,
}
"""A run of 8 steps with one evaluation, and one more log line before and after it."""


@pytest.fixture(scope="module")
def brief_outcome(build_once, cache_dir):
    """The outcome of an undisturbed brief run."""

    def make(folder):
        train.run(tiny(folder / "run", cache_dir, **BRIEF), stop_requests=NoStopRequests())

    return outcome(build_once("brief", make) / "run")


class Interrupted(BaseException):
    """Ends a run within this process as a kill would."""


def at_step(monkeypatch, step, action, *, save="save"):
    """Calls `action(save)` in place of the save of `step`."""
    original = getattr(Checkpoints, save)

    def save_or_act(checkpoints):
        if int(checkpoints._state.step) == step:
            return action(lambda: original(checkpoints))
        return original(checkpoints)

    monkeypatch.setattr(Checkpoints, save, save_or_act)


def interrupt(save):
    save()
    raise Interrupted


@pytest.fixture
def run(tmp_path, halfway):
    """A copy of the halfway run."""
    return pathlib.Path(shutil.copytree(halfway, tmp_path / "run"))


# Damaged files.


def cut(length):
    return lambda content: content[: int(length * len(content))]


def flip(bit):
    def flipped(content):
        at = int(bit * len(content))
        return content[:at] + bytes([content[at] ^ 1 << int(bit * 8 * 97) % 8]) + content[at + 1 :]

    return flipped


DAMAGES = {
    "removed": lambda content: None,
    "zeroed": lambda content: bytes(len(content)),
    **{f"cut to {length}": cut(length) for length in (0, 0.01, 0.5, 0.99)},
    **{f"bit flipped at {place}/20": flip(place / 20) for place in range(20)},
}


def damage(path, how):
    content = DAMAGES[how](path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_damaged_newest_checkpoint_is_detected_and_quarantined(run, suffix, how, caplog):
    newest = run / "checkpoints" / f"ckpt-{COMMITTED}"
    best = next((run / "best").glob("*.index"))
    before = tensors(newest)
    damage(newest.with_name(f"{newest.name}.{suffix}"), how)
    found = checkpoint_files.find(run)
    if found.newest == newest:  # a bit that nothing reads
        assert tensors(newest) == before
        return
    assert found.newest == newest.with_name(f"ckpt-{COMMITTED - 1}")
    left = [path.name for path in checkpoint_files.files_of(newest) if path.exists()]
    checkpoint_cleanup.tidy(run, found)
    assert sorted(path.name for path in (run / "quarantine" / "checkpoints").iterdir()) == sorted(left)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(newest) in warning
    assert "recomputing 1 step." in warning
    assert best.exists()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("checkpoints/ckpt-10.index", "removed"),
        ("checkpoints/ckpt-10.data-00000-of-00001", "cut to 0.5"),
        ("checkpoints/checkpoint", "removed"),
        ("checkpoints/checkpoint", "cut to 0"),
        ("checkpoints/checkpoint", "bit flipped at 7/20"),
        ("best/checkpoint", "zeroed"),
        ("config.flags", "zeroed"),
        ("manifest.json", "cut to 0.5"),
        ("vocabulary.txt", "removed"),
        ("starts.jsonl", "cut to 0.5"),
    ],
)
def test_a_run_with_a_damaged_file_resumes_bit_identically(
    run, cache_dir, reference, seldom_saved_outcome, monkeypatch, name, how
):
    damage(run / name, how)
    step = COMMITTED - 1 if name.startswith("checkpoints/ckpt") else COMMITTED
    assert_resumes_like(reference, tiny(run, cache_dir), monkeypatch, from_step=step)
    if name in ("checkpoints/ckpt-10.index", "config.flags"):
        train_to_the_end(tiny(run, cache_dir))
        assert outcome(run) == seldom_saved_outcome


@pytest.mark.parametrize("how", ["removed", "cut to 0.5"])
def test_a_damaged_best_is_rewritten_from_the_periodic_checkpoint_of_its_step(
    run, cache_dir, seldom_saved_outcome, how
):
    (best,) = (run / "best").glob("*.index")
    shutil.copy(best, run / "checkpoints" / best.name)
    shutil.copy(best.with_suffix(".data-00000-of-00001"), run / "checkpoints")
    damage(best, how)
    train_to_the_end(tiny(run, cache_dir))
    assert outcome(run) == seldom_saved_outcome


def test_a_damaged_checkpoint_is_a_warning_without_traceback_in_a_real_process(
    tmp_path, killed, cache_dir, reference_outcome
):
    run = pathlib.Path(shutil.copytree(killed / "22", tmp_path / "run"))
    damage(run / "checkpoints" / "ckpt-22.index", "removed")
    answer = run_forked(command(tiny(run, cache_dir)), capture_output=True, text=True, check=False)
    assert answer.returncode == 0
    assert (
        "ckpt-22 is damaged (its index file is missing): moved to quarantine/; recomputing 1 step."
        in answer.stderr
    )
    assert "Resumed at step 21" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert outcome(run) == reference_outcome


@pytest.mark.parametrize("pattern", ["*.index", "*.data*"])
@pytest.mark.parametrize("how", ["removed", "zeroed"])
def test_with_no_readable_checkpoint_a_run_is_never_started_over(run, cache_dir, pattern, how):
    for path in [*(run / "checkpoints").glob(pattern), *(run / "best").glob(pattern)]:
        damage(path, how)
    before = sorted(path for path in run.rglob("*") if path.is_file())
    with pytest.raises(StorageError, match="none can be read"):
        train.run(tiny(run, cache_dir), stop_requests=NoStopRequests())
    assert sorted(path for path in run.rglob("*") if path.is_file()) == before


def test_with_all_checkpoints_gone_a_run_is_never_started_over(run, cache_dir):
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "best")
    with pytest.raises(StorageError, match="no checkpoint"):
        train.run(tiny(run, cache_dir), stop_requests=NoStopRequests())


def test_a_folder_named_like_an_event_file_is_ignored(run, cache_dir):
    (events,) = (run / "summaries" / "train").iterdir()
    events.unlink()
    events.mkdir()
    train.run(tiny(run, cache_dir), stop_requests=NoStopRequests())
    assert min(step for name, _, step in scalars(run / "summaries") if name == "train") > COMMITTED


def test_a_step_damaged_twice_is_quarantined_twice(run):
    for _ in range(2):
        shutil.copytree(run / "checkpoints", run / "copy")
        damage(run / "checkpoints" / f"ckpt-{COMMITTED}.index", "zeroed")
        checkpoint_cleanup.tidy(run, checkpoint_files.find(run))
        shutil.rmtree(run / "checkpoints")
        (run / "copy").rename(run / "checkpoints")
    assert {path.name for path in (run / "quarantine").iterdir()} == {"checkpoints", "checkpoints-2"}


# Hostile reviews.


class HostileCorpus:
    """Texts that no one should write: bytes that are not UTF-8, nothing at all, NUL, a hundred kilobytes.

    They have so many words that the model has the size of the tiny run's, for which XLA has compiled.
    """

    name, version, description, citation, element_spec, sources = "hostile", "1.0.0", "", "", "", ()
    classes = NEGATIVE_POSITIVE
    texts = (
        b"\xff\xfe\xc3 good",
        b"",
        b"\0bad\0",
        b" ".join(b"word%d" % (number % 100) for number in range(15_000)),
        b"bad \xed\xa0\x80 movie",
        b"?!",
        b"good",
        b"<br />",
    )

    def examples(self, split):
        return len(self.texts)

    def reviews(self, split):
        yield np.array(self.texts, object), np.arange(len(self.texts), dtype=np.uint8) % 2

    batches = reviews


@pytest.mark.slow
def test_hostile_texts_do_not_stop_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.corpus.open_corpus", lambda **kwargs: HostileCorpus())
    root = tmp_path / "run"
    train.run(tiny(root, str(tmp_path / "cache"), epochs=1), stop_requests=NoStopRequests())
    assert json.loads((root / "result.json").read_text())["stop_step"] == len(HostileCorpus.texts) // 4


# Power loss.


class Disk:
    """What a directory would hold after a power loss: only what was synced is certain to be there.

    It listens at the one place where the trainer syncs. What TensorFlow writes and renames is seen there as
    it stands.
    """

    def __init__(self, root, links):
        self.root = root
        # A folder of hard links to all files ever synced, so that no inode is used for a second file.
        self.links = links
        self.contents = {}  # inode -> bytes at its last sync
        self.entries = {root: {}}  # directory -> {name: inode} at its last sync
        self.instants = []

    def listen(self, monkeypatch):
        sync, real_fsync = files.fsync, os.fsync

        def sync_and_note(path):
            self.note()
            sync(path)
            self.synced(pathlib.Path(path))
            self.note()

        def fsync_and_note(descriptor):
            real_fsync(descriptor)
            self.synced(pathlib.Path(f"/proc/self/fd/{descriptor}").resolve())

        monkeypatch.setattr(files, "fsync", sync_and_note)
        monkeypatch.setattr(os, "fsync", fsync_and_note)

    def synced(self, path):
        if path.is_dir():
            self.entries[path] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        elif path.exists():
            inode = path.stat().st_ino
            if inode not in self.contents:
                (self.links / str(inode)).hardlink_to(path)
            self.contents[inode] = path.read_bytes()

    def note(self):
        """Records the three worst states in which a power loss now could leave the directory."""
        everything = [path for path in self.root.rglob("*") if path.is_file()]
        unsynced = {path: path.read_bytes() for path in everything}
        self.instants.append(self.durable(self.root))
        for keep in (0.0, 0.5):
            state = {}
            for path, content in unsynced.items():
                known = self.contents.get(path.stat().st_ino)
                state[path.relative_to(self.root)] = (
                    content if known == content else known or content[: int(keep * len(content))]
                )
            self.instants.append(state)

    def durable(self, directory):
        state = {}
        for name, inode in self.entries.get(directory, {}).items():
            path = directory / name
            if path in self.entries or path.is_dir():
                state |= self.durable(path)
            elif inode in self.contents:
                state[path.relative_to(self.root)] = self.contents[inode]
        return state

    @staticmethod
    def restore(state, directory):
        for path, content in state.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)


@pytest.mark.parametrize(("step", "last_save"), [(0, "save"), (COMMITTED, "save"), (BEST, "save_best")])
def test_a_power_loss_at_any_sync_of_a_start_or_a_save_loses_nothing(
    tmp_path, cache_dir, seldom_saved_outcome, reference, step, last_save, monkeypatch
):
    root = tmp_path / "run"
    disk = Disk(root, tmp_path / "links")

    def forget_what_was(save):
        disk.instants.clear()
        save()

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        root.mkdir()
        disk.links.mkdir()
        disk.listen(patch)
        if step:  # else what the start writes before its first save is watched too
            at_step(patch, step, forget_what_was)
        at_step(patch, step, interrupt, save=last_save)
        train.run(tiny(root, cache_dir), stop_requests=NoStopRequests())
    states = {repr(sorted(state.items())): state for state in disk.instants}
    assert len(states) > 5
    for number, state in enumerate(states.values()):
        again = tmp_path / f"again-{number}"
        again.mkdir()
        disk.restore(state, again)
        if number in (0, len(states) // 2):  # equal states have equal futures
            train_to_the_end(tiny(again, cache_dir))
            assert outcome(again) == seldom_saved_outcome
        else:
            newest = checkpoint_files.find(again).newest
            resumed = checkpoint_files.step_of(newest) if newest else 0
            assert_resumes_like(reference, tiny(again, cache_dir), monkeypatch, from_step=resumed)
        shutil.rmtree(again)


# A full disk, lost permissions, a directory that goes.


@pytest.fixture
def no_retry_pauses(monkeypatch):
    """Saves are tried again at once."""
    monkeypatch.setattr(checkpoint_manager, "RETRY_SECS", (0,))


def megabytes(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 2**20


@pytest.mark.parametrize("share", [0.02, 0.15, 0.3, 0.45, 0.6, 0.8, 0.95])
def test_after_a_full_disk_a_resume_with_space_is_bit_identical(
    small_disk, cache_dir, reference, seldom_saved_outcome, halfway, no_retry_pauses, monkeypatch, share
):
    folder = small_disk(share * megabytes(halfway))
    with pytest.raises(StorageError, match=rf"{folder}/.* MiB free in {folder}"):
        train.run(tiny(folder / "run", cache_dir), stop_requests=NoStopRequests())
    committed = checkpoint_files.find(folder / "run").newest
    small_disk(64)
    step = checkpoint_files.step_of(committed) if committed else 0
    assert_resumes_like(reference, tiny(folder / "run", cache_dir), monkeypatch, from_step=step)
    if share in (0.3, 0.95):
        train_to_the_end(tiny(folder / "run", cache_dir))
        assert outcome(folder / "run") == seldom_saved_outcome


def test_a_save_succeeds_when_space_appears_between_retries(
    small_disk, cache_dir, reference_outcome, halfway, monkeypatch, caplog
):
    folder = small_disk(0.6 * megabytes(halfway))
    monkeypatch.setattr(checkpoint_manager, "RETRY_SECS", (1, 1))
    monkeypatch.setattr(Checkpoints, "_pause", lambda checkpoints, secs: small_disk(64))
    train.run(tiny(folder / "run", cache_dir), stop_requests=NoStopRequests())
    assert "Trying again in 1 s." in caplog.text
    assert outcome(folder / "run") == reference_outcome


def test_a_full_disk_under_the_token_store_is_reported_and_leaves_nothing_half_written(
    tmp_path, small_disk, cache_dir
):
    folder = small_disk(0.02)
    shutil.copytree(pathlib.Path(cache_dir) / "sample_reviews", tmp_path / "sample_reviews")
    (folder / "sample_reviews").symlink_to(tmp_path / "sample_reviews")
    sizes = {"train_split": "train[:300]", **BRIEF, "validation_split": "", "monitor": "loss"}
    given = tiny(tmp_path / "run", str(folder), **sizes)
    with pytest.raises(StorageError, match=str(folder)):
        train.run(given, stop_requests=NoStopRequests())
    small_disk(64)
    train.run(given, stop_requests=NoStopRequests())


def test_a_full_disk_ends_a_real_process_with_exit_code_3(small_disk, cache_dir, halfway):
    folder = small_disk(0.5 * megabytes(halfway))
    program = "import sys; from trainer import main; from trainer.run import checkpoint_manager as manager"
    program += "; manager.RETRY_SECS = (0, 0, 0, 0)"
    program = [
        sys.executable,
        "-c",
        f"{program}; sys.exit(main.main(sys.argv))",
        *flags(tiny(folder / "run", cache_dir)),
    ]
    answer = run_forked(program, capture_output=True, text=True, check=False)
    assert answer.returncode == 3
    assert "No space left on device" in answer.stderr
    assert answer.stderr.count("Trying again in 0 s.") == 4
    assert checkpoint_manager.RETRY_SECS == (1, 2, 5, 10)
    assert "Traceback" not in answer.stderr


def test_a_directory_removed_during_training_ends_the_run_with_one_sentence(
    tmp_path, cache_dir, no_retry_pauses, monkeypatch
):
    root = tmp_path / "run"
    at_step(monkeypatch, COMMITTED, lambda save: [shutil.rmtree(root), save()])
    with pytest.raises(StorageError, match=str(root)):
        train.run(tiny(root, cache_dir), stop_requests=NoStopRequests())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to lose its permissions")
def test_permissions_lost_during_training_end_the_run_and_keep_what_was_committed(
    tmp_path, cache_dir, seldom_saved_outcome, no_retry_pauses, monkeypatch
):
    root = tmp_path / "run"

    def as_nobody(save):
        os.seteuid(65534)
        try:
            save()
        finally:
            os.seteuid(0)

    with monkeypatch.context() as patch, pytest.raises(StorageError, match=r"[Pp]ermission denied"):
        at_step(patch, COMMITTED, as_nobody)
        train.run(tiny(root, cache_dir), stop_requests=NoStopRequests())
    assert checkpoint_files.find(root).newest.name == f"ckpt-{COMMITTED - 1}"
    train_to_the_end(tiny(root, cache_dir))
    assert outcome(root) == seldom_saved_outcome


def test_a_read_only_filesystem_is_reported_in_one_sentence(small_disk, run, cache_dir):
    folder = small_disk(64)
    shutil.copytree(run, folder / "run")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    answer = run_forked(command(tiny(folder / "run", cache_dir)), capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "Read-only file system" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


# Signals.


@pytest.mark.parametrize(
    ("words", "committed"),
    [
        ("Dataset", None),  # start-up
        ("Batches", None),  # building
        ("Negative, with|Positive, with", 0),  # the first trace
        ("train .* step  3/24", 3),
        ("validation .* step  5/24", 5),
        ("Ended at step", STEPS),
    ],
)
def test_a_signal_stops_any_phase_and_the_resumed_run_is_bit_identical(
    tmp_path, cache_dir, killed, reference, reference_outcome, monkeypatch, words, committed
):
    root = tmp_path / "run"
    if committed == STEPS:
        shutil.copytree(killed / str(STEPS - 2), root)
    process = popen(command(tiny(root, cache_dir)), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if re.match(words, line):
            break
    process.send_signal(signal.SIGTERM)
    log = process.stderr.read()
    assert process.wait() == 143
    assert log.splitlines()[-1].removeprefix("error: ").startswith("Ended by SIGTERM")
    newest = checkpoint_files.find(root).newest
    assert (newest is None) == (committed is None)
    step = checkpoint_files.step_of(newest) if newest else 0
    assert committed is None or step >= committed
    if step < STEPS:
        assert_resumes_like(reference, tiny(root, cache_dir), monkeypatch, from_step=step)
    else:
        train.run(tiny(root, cache_dir), stop_requests=NoStopRequests())
        assert outcome(root) == reference_outcome


LONG = {
    "epochs": 40,
    "eval_every_steps": 240,
    "checkpoint_every_steps": 0,
    "checkpoint_every_secs": 0.0,
    "patience": 0,
    "sample_text": ("",),
}


def long(root, cache_dir, **more):
    """A run of 320 steps that saves only where it evaluates, so that the save of a signal is recognised."""
    return tiny(root, cache_dir, **{**LONG, "log_every_steps": 20, **more})


@pytest.fixture(scope="module")
def long_outcome(build_once, cache_dir):
    """The outcome of an undisturbed long run."""
    return outcome(
        build_once(
            "long", lambda folder: train.run(long(folder / "run", cache_dir), stop_requests=NoStopRequests())
        )
        / "run"
    )


def wait_for_step(lines, step):
    """Reads lines until training has come to a step; returns what was read."""
    read = []
    for line in lines:
        read.append(line)
        if (match := re.match(r"train +\| step +(\d+)/", line)) and int(match[1]) >= step:
            return read
    raise AssertionError("".join(read))


def assert_saved_where_it_stopped(root, cache_dir, expected, names=None):
    """There is one checkpoint besides that of step 0; resumed from there, the outcome is the expected one.

    Args:
      root: the run directory.
      cache_dir: the folder of stores.
      expected: the outcome of an undisturbed run.
      names: the parts of the outcome to compare; None: all.
    """
    (newest,) = {path.stem for path in (root / "checkpoints").glob("*.index")} - {"ckpt-0"}
    assert 20 <= int(newest.removeprefix("ckpt-")) < 240
    train.run(long(root, cache_dir), stop_requests=NoStopRequests())
    ended = outcome(root)
    for name in names or expected:
        assert ended[name] == expected[name]


STOP_SIGNALS = (("HUP",), ("USR2",), ("XCPU", "XCPU"), ("TERM", "TERM"), ("INT", "TERM"))


def test_each_stop_signal_saves_the_current_step_even_when_sent_twice(tmp_path, cache_dir, long_outcome):
    root, step = tmp_path / "run", 0
    for names in STOP_SIGNALS:
        process = popen(command(long(root, cache_dir)), stderr=subprocess.PIPE, text=True)
        wait_for_step(process.stderr, step)
        for name in names:
            process.send_signal(signal.Signals[f"SIG{name}"])
            time.sleep(0.002)
        log = process.stderr.read()
        assert process.wait() in {128 + signal.Signals[f"SIG{name}"] for name in names}, log
        newest = checkpoint_files.step_of(checkpoint_files.find(root).newest)
        assert "; the same command continues." in log
        assert newest > step, names
        step = newest
    train.run(long(root, cache_dir), stop_requests=NoStopRequests())
    assert outcome(root) == long_outcome


def test_sigusr1_saves_and_training_continues(tmp_path, cache_dir, long_outcome):
    root = tmp_path / "run"
    process = popen(command(long(root, cache_dir)), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("Batches"):
            break
    process.send_signal(signal.SIGUSR1)  # before the first step
    first = wait_for_step(process.stderr, 20)
    process.send_signal(signal.SIGUSR1)
    rest = process.stderr.readlines()
    assert process.wait() == 0
    assert "Saved at step 1, as SIGUSR1 requested.\n" in first
    (saved,) = [line for line in rest if line.startswith("Saved at step")]
    assert 20 <= int(saved.split()[3].rstrip(",")) < 240
    assert outcome(root) == long_outcome


def test_ctrl_c_to_a_pipeline_with_tee_saves(tmp_path, cache_dir, long_outcome):
    root, log = tmp_path / "run", tmp_path / "log"
    given = long(root, cache_dir, log_every_steps=1)
    process = popen(command(given), stderr=subprocess.PIPE, process_group=0)
    tee = subprocess.Popen(
        ["tee", log], stdin=process.stderr, stdout=subprocess.PIPE, text=True, process_group=process.pid
    )
    process.stderr.close()
    wait_for_step(tee.stdout, 20)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    assert tee.wait() == -signal.SIGINT
    tee.stdout.close()
    # Up to there it logged each step, so its curves are others.
    assert_saved_where_it_stopped(root, cache_dir, long_outcome, names=("newest", "state", "best"))


ON_ITS_TERMINAL = """
import fcntl, os, signal, sys, termios
from trainer import main
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
"""
"""Makes standard input the terminal of the process, as it is of one that a shell starts."""


@pytest.mark.parametrize("is_ignored", [False, True], ids=["", "under nohup"])
def test_a_closed_terminal_saves_and_stops_a_run_except_under_nohup(
    tmp_path, cache_dir, long_outcome, is_ignored
):
    root = tmp_path / "run"
    ours, theirs = pty.openpty()
    program = ON_ITS_TERMINAL + ("signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" if is_ignored else "")
    start = [sys.executable, "-c", f"{program}sys.exit(main.main(sys.argv))", *flags(long(root, cache_dir))]
    process = popen(start, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = ""
    while not re.search(r"train +\| step +20/", written):
        written += os.read(ours, 65536).decode(errors="replace")
    os.close(ours)
    assert process.wait() == (0 if is_ignored else 128 + signal.SIGHUP)
    if is_ignored:
        assert outcome(root) == long_outcome
    else:
        assert_saved_where_it_stopped(root, cache_dir, long_outcome)


def test_a_log_on_a_full_device_changes_no_bit(tmp_path, cache_dir, brief_outcome):
    with pathlib.Path("/dev/full").open("wb") as full:
        completed = run_forked(command(tiny(tmp_path / "run", cache_dir, **BRIEF)), stderr=full, check=False)
    assert completed.returncode == 0
    assert outcome(tmp_path / "run") == brief_outcome


def test_a_log_whose_reader_leaves_after_three_lines_changes_no_bit(tmp_path, cache_dir, brief_outcome):
    process = popen(command(tiny(tmp_path / "run", cache_dir, **BRIEF)), stderr=subprocess.PIPE)
    for _ in range(3):
        process.stderr.readline()
    process.stderr.close()
    assert process.wait() == 0
    assert outcome(tmp_path / "run") == brief_outcome


def test_a_start_without_standard_streams_trains_to_the_same_bits(tmp_path, cache_dir, brief_outcome):
    closed = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"]
    assert (
        subprocess.run(
            [*closed, *command(tiny(tmp_path / "run", cache_dir, **BRIEF))], check=False
        ).returncode
        == 0
    )
    assert outcome(tmp_path / "run") == brief_outcome


# Kills.


def test_resume_after_kills_at_random_instants_is_bit_identical(cache_dir, finished, monkeypatch, capsys):
    # `finished` has compiled for these shapes: so the reference run takes as long as those that are killed.
    given = tiny("", cache_dir, epochs=2)  # evaluations: best, worse, best
    settings = [flag for flag in flags(given) if not flag.startswith("--workdir=")]
    seed = random.SystemRandom().randrange(10**6)
    program = ["kill_and_resume.py", "--forks", "--kills=25", f"--seed={seed}", "--", *settings]
    monkeypatch.setattr(sys, "argv", program)
    monkeypatch.setattr(kill_and_resume, "ForkServer", lambda: contextlib.nullcontext(SERVER))
    code, said = kill_and_resume.main(), capsys.readouterr().out
    print(" ".join(program), said, sep="\n")
    assert code == 0
    assert "25 kills, 0 differences" in said


# NaN and infinity.


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(tmp_path, cache_dir):
    root = tmp_path / "run"
    for _ in range(2):  # the same command arrives at the same step
        with pytest.raises(
            NonFiniteError, match=r"at step 2 .* nan; resume from step 1, which is saved.*--learning_rate"
        ):
            train.run(tiny(root, cache_dir, learning_rate=1e38), stop_requests=NoStopRequests())
        assert checkpoint_files.find(root).newest.name == "ckpt-1"
    assert NonFiniteError.exit_code == 4


def test_with_on_nan_continue_training_continues_and_nan_is_no_improvement(tmp_path, cache_dir, monkeypatch):
    root = tmp_path / "run"
    make_train_step = train.make_train_step

    def make_breaking_step(state, *args, **kwargs):
        train_step = make_train_step(state, *args, **kwargs)

        def breaking_step(batch, stop):
            if (
                int(state.step) == 6
            ):  # After the first evaluation; how high a learning rate would do it depends on the CPU.
                for weight in state.model.trainable_variables:
                    weight.assign(tf.fill(weight.shape, np.nan))
            return train_step(batch, stop)

        return breaking_step

    monkeypatch.setattr(train, "make_train_step", make_breaking_step)
    train.run(tiny(root, cache_dir, on_nan="continue", patience=2), stop_requests=NoStopRequests())
    ending = json.loads((root / "result.json").read_text())
    assert (ending["best_step"], ending["stop_step"]) == (5, 15)
    assert "no improvement in 2 evaluations" in ending["reason"]


@pytest.mark.parametrize("step", [1, COMMITTED, 24])
@pytest.mark.parametrize("position", [0, 1], ids=["loss", "gradient norm"])
def test_nothing_is_saved_at_a_step_whose_loss_or_gradient_is_not_finite(
    tmp_path, cache_dir, killed, reference, monkeypatch, step, position
):
    root = tmp_path / "run"
    if step > 1:
        shutil.copytree(killed / str(step - 2), root)
    make_train_step = train.make_train_step

    def make_failing_step(state, *args, **kwargs):
        train_step = make_train_step(state, *args, **kwargs)

        def failing_step(batch, stop):
            values = train_step(batch, stop).numpy()
            values[position] = np.nan if int(state.step) == step else values[position]
            return tf.constant(values)

        return failing_step

    with (
        monkeypatch.context() as patch,
        pytest.raises(NonFiniteError, match=f"at step {step} .*step {step - 1}, which is saved"),
    ):
        patch.setattr(train, "make_train_step", make_failing_step)
        train.run(tiny(root, cache_dir), stop_requests=NoStopRequests())
    assert checkpoint_files.find(root).newest.name == f"ckpt-{step - 1}"
    assert_resumes_like(reference, tiny(root, cache_dir), monkeypatch, from_step=step - 1)


# Bounds.


class SmallState(tf.Module):
    """What a save needs of a state, in three variables: half the time of a save goes by their number."""

    def __init__(self):
        super().__init__()
        self.step = tf.Variable(0, dtype=tf.int64)
        self.best_step = tf.Variable(-1, dtype=tf.int64)
        self.free_flags = tf.Variable("--log_every_steps=1\n")


@pytest.mark.slow
def test_a_thousand_saves_and_three_hundred_restarts_leak_neither_files_nor_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # Ten thousand would take minutes.
    saving, restarting = tmp_path / "saving", tmp_path / "restarting"
    saving.mkdir()
    restarting.mkdir()

    def restart():
        state = make_state()
        found = checkpoint_files.find(restarting)
        checkpoint_cleanup.tidy(restarting, found)
        checkpoints = Checkpoints(run=restarting, state=state, max_to_keep=3)
        if found.newest:
            checkpoints.restore(found.newest)
            checkpoints.repair_best()
            checkpoints.prune()
        event_files.rewind(restarting / "summaries", step=int(state.step))
        return state, checkpoints, summaries.Summaries(restarting / "summaries")

    def train_on(state, checkpoints, events, steps):
        for _ in range(steps):
            state.step.assign_add(1)
            if int(state.step) % 20 == 0:
                state.best_step.assign(state.step)
                events.write("validation", step=int(state.step), scalars={"loss": 1.0})
            events.commit()
            checkpoints.save()
            if int(state.step) % 20 == 0:
                checkpoints.save_best()

    def sizes(run):
        gc.collect()
        files = [path for path in run.rglob("*") if path.is_file() and path.parent.parent.name != "summaries"]
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        return len(files), sum(path.stat().st_size for path in files), pages * resource.getpagesize() / 2**20

    state = SmallState()
    saved = (
        state,
        Checkpoints(run=saving, state=state, max_to_keep=3),
        summaries.Summaries(saving / "summaries"),
    )
    train_on(*saved, steps=100)
    warm_saves = sizes(saving)
    train_on(*saved, steps=900)
    saves = sizes(saving)
    for _ in range(32):
        train_on(*restart(), steps=1)
    warm_restarts = sizes(restarting)
    for _ in range(270):
        train_on(*restart(), steps=1)
    restarts = sizes(restarting)
    for before, after in ((warm_saves, saves), (warm_restarts, restarts)):
        assert before[0] == after[0]
        assert after[1] < before[1] * 1.05
        assert after[2] - before[2] < 30
    assert saves[0] == restarts[0]
    assert len(list((restarting / "summaries" / "validation").iterdir())) <= 2
