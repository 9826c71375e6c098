"""Standard streams that are closed, full or broken, or have a limited encoding."""

import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys

import pytest

from trainer import streams

HELP = [sys.executable, "-m", "trainer.main", "--help"]


def run_guarded(code, *, redirect="", **environment):
    """Runs `code` in a process that guards its streams; `redirect` is shell syntax."""
    program = f"import os, sys; from trainer import streams; streams.guard(); {code}"
    shell = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", program]
    return subprocess.run(
        shell, capture_output=True, check=False, env={**os.environ, **environment}, timeout=60
    )


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "2</dev/null"])
def test_only_the_messages_are_lost_when_standard_error_is_unwritable(redirect):
    messages = (
        "print('message', file=sys.stderr); import warnings; warnings.warn('message'); sys.stderr.flush()"
    )
    completed = run_guarded(f"{messages}; print('result')", redirect=redirect)
    assert (completed.returncode, completed.stdout) == (0, b"result\n")


def test_messages_are_written_again_when_the_disk_has_space_again():
    code = (
        "full = os.open('/dev/full', os.O_WRONLY); kept = os.dup(2); os.dup2(full, 2); print('lost', "
        "file=sys.stderr); "
        "os.dup2(kept, 2); print('written', file=sys.stderr)"
    )
    assert run_guarded(code).stderr == b"written\n"


def test_no_file_gets_the_descriptor_of_a_closed_stream():
    code = "file = open('/dev/null'); sys.exit(100 + file.fileno())"
    assert run_guarded(code, redirect="0<&- 1>&- 2>&-").returncode == 103


def test_a_closed_stream_exists_and_fails_only_when_it_is_used():
    code = (
        "import errno; errors = []\n"
        "try: sys.stdin.buffer.read()\n"
        "except OSError as error: errors.append(error.errno)\n"
        "try: print('result')\n"
        "except streams.StorageError as error: errors.append(str(error))\n"
        "sys.stderr.write(repr(errors))"
    )
    errors = run_guarded(code, redirect="0<&- 1>&-").stderr.decode()
    assert errors.startswith("[9, ")
    assert "Standard output must accept the result" in errors


def test_a_closed_output_pipe_ends_the_program_quietly():
    read, write = os.pipe()
    os.close(read)
    completed = subprocess.run(HELP, stdout=write, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(write)
    assert (completed.returncode, completed.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("redirect", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_an_unwritable_result_is_reported_in_one_sentence(redirect, why):
    shell = ["sh", "-c", f'exec "$@" {redirect}', "sh", *HELP]
    completed = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert completed.returncode == 3
    assert why in completed.stderr
    assert len(completed.stderr.splitlines()) == 1


def test_a_non_blocking_pipe_receives_the_whole_result():
    expected = subprocess.run(HELP, capture_output=True, check=True, timeout=60).stdout
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    with subprocess.Popen(HELP, stdout=write) as process:
        os.close(write)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.7)
        received = b"".join(iter(lambda: os.read(read, 1000), b""))
    os.close(read)
    assert process.returncode == 0
    assert len(expected) > 4096
    assert received == expected


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("ascii", rb"na\xefve \u20ac \udc9b"), ("latin-1", b"na\xefve \\u20ac \\udc9b")],
)
def test_unencodable_characters_are_escaped(encoding, expected):
    text = "'na\\u00efve \\u20ac \\udc9b'"
    completed = run_guarded(f"print({text}); print({text}, file=sys.stderr)", PYTHONIOENCODING=encoding)
    assert (completed.returncode, completed.stdout, completed.stderr) == (
        0,
        expected + b"\n",
        expected + b"\n",
    )


def test_terminal_control_characters_are_escaped():
    assert (
        run_guarded(r"print('\x1b[2J\x9b31m\rnaïve\ttext')").stdout.decode()
        == "\\x1b[2J\\x9b31m\\rnaïve\ttext\n"
    )


def test_printable_keeps_text_and_newlines_and_escapes_control_and_bidi_characters():
    assert streams.printable("Größe, 映画 🎬,\ta line\n") == "Größe, 映画 🎬,\ta line\n"
    assert streams.printable("\0\x7f\x85\u202e\u2066") == r"\x00\x7f\x85\u202e\u2066"


def test_write_at_once_neither_waits_nor_fails():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write, bytes(65536)):
            pass
    os.set_blocking(write, True)
    streams.write_at_once(write, "message")
    os.close(read)
    streams.write_at_once(write, "message")
    os.close(write)
    streams.write_at_once(write, "message")


def test_write_at_once_writes_its_message(tmp_path):
    with (tmp_path / "messages").open("wb") as file:
        streams.write_at_once(file.fileno(), "wörd \udc9b")
    assert pathlib.Path(file.name).read_bytes() == "wörd \\udc9b".encode()
