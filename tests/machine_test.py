"""Other systems than Linux, and machines with other numbers of cores: the same bits, also after a resume."""

import errno
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from compare_runs import differences, outcome
from durability_test import Interrupted, at_step, interrupt
from fakes import NoStopRequests, command, tiny
from fork_server import PROGRAM
from local_cluster import ROOT
from processes import SERVER
from processes import run as run_forked
from reference_runs import SELDOM

from trainer import files, machine, train
from trainer.data import corpus as corpora
from trainer.data import stored_array
from trainer.errors import InputError
from trainer.run import conditions as run_conditions
from trainer.run import distribution, workdir

EVALUATED = 5  # a step of the first epoch
CPU = {"cpu", "cpu features", "cpu caches"}
FULL_SYNC = 51  # what macOS calls F_FULLFSYNC


def without_affinity(patch, empty):
    patch.delattr(os, "sched_getaffinity")


def without_fadvise(patch, empty):
    patch.delattr(os, "posix_fadvise")
    patch.delattr(os, "POSIX_FADV_WILLNEED")


def without_proc(patch, empty):
    patch.setattr(machine, "PROC", empty)


def without_sys(patch, empty):
    patch.setattr(machine, "SYS", empty)


def without_path_descriptors(patch, empty):
    patch.delattr(os, "O_PATH")


def with_full_sync(patch, empty):
    """As macOS has it; returns the list in which each full sync is noted."""
    synced, real = [], fcntl.fcntl

    def control(descriptor, operation, *argument):
        if operation != FULL_SYNC:
            return real(descriptor, operation, *argument)
        synced.append(os.fstat(descriptor).st_ino)
        return 0

    patch.setattr(fcntl, "F_FULLFSYNC", FULL_SYNC, raising=False)
    patch.setattr(fcntl, "fcntl", control)
    return synced


def without_all(patch, empty):
    for change in DIFFERENCES:
        change(patch, empty)


DIFFERENCES = (
    without_affinity,
    without_fadvise,
    without_proc,
    without_sys,
    without_path_descriptors,
    with_full_sync,
)


def conditions_of(directory):
    return json.loads((directory / "manifest.json").read_text())["conditions"]


def unlike(expected, directory):
    """What differs from a run's outcome, but for the facts about the CPU that are recorded with it."""
    names = differences(expected, outcome(directory))
    return [name for name in names if name != "manifest.json" and "conditions/" not in name]


@pytest.fixture(scope="module")
def outcome_of_one_epoch(one_epoch):
    """For the runs of one epoch to be compared with."""
    return outcome(one_epoch)


@pytest.mark.parametrize("change", [*DIFFERENCES, without_all])
def test_what_linux_alone_has_is_not_needed_to_train_and_to_resume_to_the_same_bits(
    tmp_path, cache_dir, one_epoch, outcome_of_one_epoch, monkeypatch, change
):
    directory, empty = tmp_path / "run", tmp_path / "empty"
    empty.mkdir()
    change(monkeypatch, empty)
    monkeypatch.setattr(stored_array, "IN_MEMORY_BYTES", 0)  # reviews are read from the disk, and read ahead
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, EVALUATED, interrupt)
        train.run(tiny(directory, cache_dir, epochs=1), stop_requests=NoStopRequests())
    train.run(tiny(directory, cache_dir, epochs=1), stop_requests=NoStopRequests())
    assert unlike(outcome_of_one_epoch, directory) == []
    recorded, expected = conditions_of(directory), conditions_of(one_epoch)
    assert recorded.keys() == expected.keys() and recorded["cpu"] and recorded["cpu features"]
    lost = {without_proc: CPU, without_all: CPU, without_sys: {"cpu caches"}}.get(change, set())
    assert {name for name in recorded if recorded[name] != expected[name]} <= lost
    starts = map(json.loads, (directory / "starts.jsonl").read_text().splitlines())
    assert [start["step"] for start in starts] == [0, EVALUATED]


# On Linux, TensorFlow itself needs names of its program, and chooses kernels by cpuinfo; all else is gone.
HIDE = """
cpuinfo=$(cat /proc/cpuinfo)
mount -t tmpfs none /sys && mount -t tmpfs none /proc && mkdir /proc/self || exit
ln -s "$0" /proc/self/exe && printf python > /proc/self/cmdline && echo "$cpuinfo" > /proc/cpuinfo
exec "$@"
"""


TWO_STARTS = """
import sys
from trainer import main
sys.exit(main.main([*sys.argv, "--epochs=1"]) or main.main(sys.argv))
"""
"""The second one resumes; in one process, because its imports take as long as the training."""


def test_a_process_that_sees_hardly_anything_of_proc_and_sys_ends_with_the_same_bits(
    tmp_path, finished, seldom_saved_outcome
):
    hide = ["unshare", "--mount", "sh", "-c", HIDE, sys.executable]
    answer = subprocess.run([*hide, "true"], check=False, capture_output=True, text=True)
    if answer.returncode:
        pytest.skip(f"needs permission to mount a tmpfs: {answer.stderr.strip()}")
    # With a cache of its own, so that the corpus is prepared there too.
    given = tiny(tmp_path / "run", str(tmp_path / "cache"), **SELDOM)
    starts = [*hide, sys.executable, "-c", TWO_STARTS, *command(given)[3:]]
    completed = subprocess.run(starts, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    assert unlike(seldom_saved_outcome, tmp_path / "run") == []
    recorded, expected = conditions_of(tmp_path / "run"), conditions_of(finished)
    assert recorded == {**expected, "cpu caches": ""}


def train_on_one_core(given, monkeypatch):
    """In a process that may use only one; a fork has the cores of the process from which it was forked."""
    run_forked([*PROGRAM, "--help"], check=True, stdout=subprocess.DEVNULL)  # starts the server
    usable = os.sched_getaffinity(SERVER.pid)
    os.sched_setaffinity(SERVER.pid, {min(usable)})
    try:
        completed = run_forked(command(given), capture_output=True, text=True)
    finally:
        os.sched_setaffinity(SERVER.pid, usable)
    assert completed.returncode == 0, completed.stderr


def train_as_if_on_four_cores(given, monkeypatch):
    """Many small batches are encoded by as many threads, whether there are as many cores or not."""
    monkeypatch.setattr(distribution, "set_threads", lambda **threads: None)  # once in a process
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    monkeypatch.setattr(corpora, "READ_BATCH", 2)
    train.run(given, stop_requests=NoStopRequests())


@pytest.mark.parametrize("train_on", [train_on_one_core, train_as_if_on_four_cores])
def test_the_number_of_usable_cores_changes_no_bit_and_is_no_condition(
    tmp_path, cache_dir, outcome_of_one_epoch, monkeypatch, train_on
):
    # The corpus is encoded anew, by as many threads.
    own_cache = shutil.copytree(cache_dir, tmp_path / "cache", ignore=shutil.ignore_patterns("*-1.0.0-*"))
    train_on(tiny(tmp_path / "run", str(own_cache), epochs=1), monkeypatch)
    assert differences(outcome_of_one_epoch, outcome(tmp_path / "run")) == []


def test_a_run_that_an_older_version_began_on_other_cores_resumes(
    tmp_path, cache_dir, outcome_of_one_epoch, monkeypatch
):
    directory, conditions = tmp_path / "run", run_conditions.conditions
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(
            run_conditions, "conditions", lambda **rest: {**conditions(**rest), "usable cores": "96"}
        )
        at_step(patch, EVALUATED - 1, interrupt)  # the best is saved by the newer version
        train.run(tiny(directory, cache_dir, epochs=1), stop_requests=NoStopRequests())
    assert conditions_of(directory)["usable cores"] == "96"
    train.run(tiny(directory, cache_dir, epochs=1), stop_requests=NoStopRequests())
    assert differences(outcome_of_one_epoch, outcome(directory)) == []


# Each thing by itself.


def test_without_affinity_all_cores_are_usable(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.usable_cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1


def test_a_sync_is_a_full_one_where_the_system_has_it(tmp_path, monkeypatch):
    synced, plain = with_full_sync(monkeypatch, None), []
    monkeypatch.setattr(os, "fsync", plain.append)
    files.write_atomically(tmp_path / "file", b"content")
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]
    with workdir.hold(tmp_path / "run"):
        assert (tmp_path / "run" / "lock").stat().st_ino in synced
    assert plain == []


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.EINVAL, errno.ENOTTY])
def test_a_filesystem_without_a_full_sync_is_synced_as_it_can_be(tmp_path, monkeypatch, code):
    def control(descriptor, operation):
        raise OSError(code, os.strerror(code))

    plain, sync = [], os.fsync
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL_SYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (plain.append(descriptor), sync(descriptor)))
    files.fsync(tmp_path)
    assert len(plain) == 1


def test_a_full_sync_that_fails_is_not_taken_for_one_that_is_missing(tmp_path, monkeypatch):
    def control(descriptor, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", FULL_SYNC, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        files.fsync(tmp_path)


def test_without_proc_a_directory_has_its_own_name_and_one_with_a_pattern_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    held = files.HeldDirectory(pathlib.Path("run"))
    assert held.plain == tmp_path / "run"
    held.check()
    (tmp_path / "a[b]" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a[b]")
    with pytest.raises(InputError, match=r"must hold none of \* \? \[ \] \\, but .*a\[b\]/c does; rename it"):
        files.HeldDirectory(pathlib.Path("c"))


def test_a_run_that_is_held_is_known_to_be_without_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path / "none")
    with workdir.hold(tmp_path / "run"):
        assert workdir.is_held(tmp_path / "run")
    assert not workdir.is_held(tmp_path / "run")


LINUX = """processor : 0
model name\t: Some CPU @ 2.10GHz
flags\t\t: fpu vme avx512f
processor : 1
model name\t: Another CPU
"""


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """A machine whose /proc and /sys hold no more than this."""
    caches = tmp_path / "sys" / "devices/system/cpu/cpu0/cache"
    for index, size in enumerate(("32K", "1024K")):
        (caches / f"index{index}").mkdir(parents=True)
        (caches / f"index{index}" / "size").write_text(f"{size}\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(LINUX)
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "SYS", tmp_path / "sys")
    return tmp_path


def test_the_cpu_of_linux_is_described_as_older_versions_recorded_it(linux):
    described = {"cpu": "Some CPU @ 2.10GHz", "cpu features": "92da9b4c4adf", "cpu caches": "32K 1024K"}
    assert machine.cpu() == described
    shutil.rmtree(linux / "sys")
    assert machine.cpu() == {**described, "cpu caches": ""}
    (linux / "proc" / "cpuinfo").write_text("processor : 0\nFeatures : fp asimd\nCPU implementer : 0x41\n")
    assert machine.cpu() == {"cpu": os.uname().machine, "cpu features": "d07759d36740", "cpu caches": ""}


INTEL = {
    "machdep.cpu.brand_string": "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz",
    "hw.optional.avx2_0": "1",
    "machdep.cpu.features": "FPU VME AVX1.0",
    "machdep.cpu.leaf7_features": "AVX2",
    "hw.l1icachesize": "32768",
    "hw.l1dcachesize": "32768",
    "hw.l2cachesize": "262144",
    "hw.l3cachesize": "12582912",
}
APPLE = {
    "machdep.cpu.brand_string": "Apple M2",
    "hw.optional.neon": "1",
    "hw.optional.arm.FEAT_BF16": "1",
    "hw.l1icachesize": "131072",
    "hw.l1dcachesize": "65536",
    "hw.l2cachesize": "4194304",
}


@pytest.fixture
def sysctl(tmp_path, monkeypatch):
    """Without /proc, puts a program in the place of macOS' sysctl that knows these values and no other."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "none")

    def put(values):
        program = tmp_path / "sysctl"
        lines = "\n".join(f"{name}: {value}" for name, value in values.items())
        unknown = "echo 'sysctl: unknown oid' >&2; exit 1"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n{unknown}\n")
        program.chmod(0o755)
        monkeypatch.setattr(machine, "_SYSCTL", str(program))

    return put


@pytest.mark.parametrize("values", [INTEL, APPLE])
def test_without_proc_the_cpu_is_described_by_sysctl(sysctl, values):
    sysctl(values)
    described = machine.cpu()
    assert described["cpu"] == values["machdep.cpu.brand_string"]
    assert described["cpu caches"] == " ".join(values[name] for name in values if name.endswith("cachesize"))
    feature = next(name for name in values if name.startswith("hw.optional."))
    others = {name: value for name, value in values.items() if name != feature}
    for changed in ({**values, feature: "0"}, others):
        sysctl(changed)
        assert machine.cpu()["cpu features"] != described["cpu features"]


def test_a_cpu_that_nothing_describes_is_recorded_as_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path / "none")
    monkeypatch.setattr(machine, "_SYSCTL", str(tmp_path / "none"))
    assert machine.cpu() == {"cpu": os.uname().machine, "cpu features": "unknown", "cpu caches": "unknown"}
