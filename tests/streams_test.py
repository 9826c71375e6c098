"""The standard streams, as a process finds them: closed, full, gone, in a poor encoding."""

import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys

import pytest

from trainer import streams

HELP = [sys.executable, "-m", "trainer.main", "--help"]


def guarded(code, *, redirect="", **environment):
    """The answer of a process that guards its streams, then runs `code`; `redirect` is the shell's."""
    program = f"import os, sys; from trainer import streams; streams.guard(); {code}"
    shell = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", program]
    return subprocess.run(
        shell, capture_output=True, check=False, env={**os.environ, **environment}, timeout=60
    )


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "2</dev/null"])
def test_a_word_that_cannot_be_written_is_lost_and_nothing_else(redirect):
    said = "print('word', file=sys.stderr); import warnings; warnings.warn('word'); sys.stderr.flush()"
    answer = guarded(f"{said}; print('answer')", redirect=redirect)
    assert (answer.returncode, answer.stdout) == (0, b"answer\n")


def test_words_come_back_when_the_disk_has_room_again():
    code = (
        "full = os.open('/dev/full', os.O_WRONLY); kept = os.dup(2); os.dup2(full, 2); print('lost', "
        "file=sys.stderr); "
        "os.dup2(kept, 2); print('heard', file=sys.stderr)"
    )
    assert guarded(code).stderr == b"heard\n"


def test_no_file_takes_the_number_of_a_closed_stream():
    code = "file = open('/dev/null'); sys.exit(100 + file.fileno())"
    assert guarded(code, redirect="0<&- 1>&- 2>&-").returncode == 103


def test_a_closed_stream_fails_when_it_is_used_and_is_there():
    code = (
        "import errno; told = []\n"
        "try: sys.stdin.buffer.read()\n"
        "except OSError as error: told.append(error.errno)\n"
        "try: print('answer')\n"
        "except streams.StorageError as error: told.append(str(error))\n"
        "sys.stderr.write(repr(told))"
    )
    told = guarded(code, redirect="0<&- 1>&-").stderr.decode()
    assert told.startswith("[9, ")
    assert "Standard output must accept the result" in told


def test_a_reader_that_has_had_enough_ends_the_program_quietly():
    read, write = os.pipe()
    os.close(read)
    answer = subprocess.run(HELP, stdout=write, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(write)
    assert (answer.returncode, answer.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("redirect", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_an_answer_that_cannot_be_written_is_one_sentence(redirect, why):
    shell = ["sh", "-c", f'exec "$@" {redirect}', "sh", *HELP]
    answer = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert answer.returncode == 3
    assert why in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_pipe_that_does_not_block_gets_all_of_an_answer():
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
def test_what_an_encoding_lacks_is_escaped(encoding, expected):
    text = "'na\\u00efve \\u20ac \\udc9b'"
    answer = guarded(f"print({text}); print({text}, file=sys.stderr)", PYTHONIOENCODING=encoding)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, expected + b"\n", expected + b"\n")


def test_no_answer_commands_a_terminal():
    assert (
        guarded(r"print('\x1b[2J\x9b31m\rnaïve\ttext')").stdout.decode() == "\\x1b[2J\\x9b31m\\rnaïve\ttext\n"
    )


def test_printable_keeps_text_and_lines_and_escapes_what_turns_a_text_around():
    assert streams.printable("Größe, 映画 🎬,\ta line\n") == "Größe, 映画 🎬,\ta line\n"
    assert streams.printable("\0\x7f\x85\u202e\u2066") == r"\x00\x7f\x85\u202e\u2066"


def test_a_signal_handler_neither_waits_nor_fails():
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write, bytes(65536)):
            pass
    os.set_blocking(write, True)
    streams.write_at_once(write, "word")
    os.close(read)
    streams.write_at_once(write, "word")
    os.close(write)
    streams.write_at_once(write, "word")


def test_a_signal_handler_is_heard(tmp_path):
    with (tmp_path / "said").open("wb") as file:
        streams.write_at_once(file.fileno(), "wörd \udc9b")
    assert pathlib.Path(file.name).read_bytes() == "wörd \\udc9b".encode()
