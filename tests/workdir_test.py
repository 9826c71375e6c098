"""The lock of a run directory: one writer."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from trainer.errors import InputError, StorageError
from trainer.run import workdir

HOLDER = """
import pathlib, sys, time
from trainer.run import workdir
with workdir.hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_new_directory_is_created_and_locked(tmp_path):
    with workdir.hold(tmp_path / "a" / "run"):
        assert json.loads((tmp_path / "a" / "run" / "lock").read_text())["pid"] == os.getpid()


def test_a_second_process_is_refused_with_the_pid_of_the_first(tmp_path, holder):
    with (
        pytest.raises(InputError, match=f"process {holder.pid} on .* does already; wait for it or stop it"),
        workdir.hold(tmp_path / "run"),
    ):
        pass


def test_the_lock_of_a_killed_process_does_not_block(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with workdir.hold(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"\xff\xff" * 500, b"my notes", b"[]", b"[" * 10**5, b'{"host": 1}'])
def test_a_foreign_lock_file_locks_the_run_and_is_not_overwritten(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with workdir.hold(tmp_path):
        assert workdir.is_held(tmp_path)
    assert (tmp_path / "lock").read_bytes() == content


def test_a_directory_with_foreign_files_is_refused_and_unchanged(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"thesis\.tex"), workdir.hold(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_filesystem_that_cannot_lock_is_refused(tmp_path, monkeypatch):
    def cannot_lock(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(workdir.fcntl, "flock", cannot_lock)
    with pytest.raises(InputError, match="can lock files"), workdir.hold(tmp_path / "run"):
        pass


def test_a_file_is_refused_as_a_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--workdir"), workdir.hold(tmp_path / "file"):
        pass


def test_a_directory_that_cannot_be_created_is_refused():
    with pytest.raises(InputError, match="--workdir"), workdir.hold(workdir.pathlib.Path("/proc/run")):
        pass


def test_a_symlinked_lock_is_refused_and_its_target_kept(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="it is a link"), workdir.hold(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_an_error_while_closing_the_lock_does_not_hide_the_original_one(tmp_path, monkeypatch):
    close = os.close

    def fail(descriptor):
        close(descriptor)
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    with pytest.raises(StorageError, match="the first one"), workdir.hold(tmp_path / "run"):
        monkeypatch.setattr(workdir.os, "close", fail)
        raise StorageError("the first one")


def test_the_token_of_the_holder_identifies_its_directory(tmp_path):
    with workdir.hold(tmp_path / "one"), workdir.hold(tmp_path / "two"):
        assert workdir.token(tmp_path / "one") != workdir.token(tmp_path / "two")
        (tmp_path / "link").symlink_to(tmp_path / "one")
        assert workdir.token(tmp_path / "link") == workdir.token(tmp_path / "one")
    assert workdir.token(tmp_path / "three") is None


def test_checking_the_lock_does_not_keep_a_run_from_starting(tmp_path):
    with workdir.hold(tmp_path / "run"):
        pass
    done = threading.Event()

    def check():
        while not done.is_set():
            workdir.is_held(tmp_path / "run")

    thread = threading.Thread(target=check)
    thread.start()
    try:
        for _ in range(20):
            with workdir.hold(tmp_path / "run"):
                pass
    finally:
        done.set()
        thread.join()
