"""Starts the trainer without imports: forks a process that has imported TensorFlow but never used it.

    with ForkServer() as server:
        process = server.popen([*PROGRAM, "--workdir=runs/a"], stderr=subprocess.PIPE)

A fork has only the threads that it creates itself. It runs the same `__main__` block as `python -m
trainer.main`, or the program of `python -c`, and saves seconds of imports. The variables that control how
Python and the libraries are loaded (PYTHON*, KERAS_* and TF_CPP_*) have been read before: to test these,
start a fresh process.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import inspect
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = [sys.executable, "-m", "trainer.main"]
IN_NETWORK = ["ip", "netns", "exec"]  # then the name of a network namespace
_PR_SET_CHILD_SUBREAPER, _CLONE_NEWNET = 36, 0x40000000
_MESSAGE_BYTES = 2**17
_FIRST_MOVED = 100  # no child uses descriptors from here on


class ForkServer:
    """A process to fork from. It starts at the first use, and ends with the block or with this process.

    Args:
      environment: variables that it has when it imports the libraries, beside those of this process.
    """

    def __init__(self, **environment: str) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *why: object) -> None:
        if self._process and self._connection:
            self._connection.close()
            self._process.wait()
        self._process = self._connection = None

    @property
    def pid(self) -> int | None:
        """The id of the process; None if it was not started."""
        return self._process.pid if self._process else None

    def popen(self, arguments: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Like `subprocess.Popen`; the command is `PROGRAM` with flags, possibly after `IN_NETWORK`.

        It may also be `[sys.executable, "-c", program]` with arguments.
        """
        return _Forked(self, list(map(str, arguments)), **kwargs)

    def run(
        self,
        arguments: Sequence[str],
        *,
        input: str | bytes | None = None,
        timeout: float | None = None,
        capture_output: bool = False,
        check: bool = False,
        **kwargs: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Like `subprocess.run`."""
        kwargs |= {"stdin": subprocess.PIPE} if input is not None else {}
        kwargs |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} if capture_output else {}
        with self.popen(arguments, **kwargs) as process:
            try:
                output = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        completed = subprocess.CompletedProcess(arguments, process.returncode, *output)
        if check:
            completed.check_returncode()
        return completed

    def fork(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Forks; returns the id of the new process, which is a child of this one."""
        if self._process is None or self._connection is None:
            # A process whose parent has ended becomes our child, so that we can wait for it.
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
            self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # If a log level is set, the trainer does not silence TensorFlow while it loads.
            quiet = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
            quiet |= self._environment
            command = [sys.executable, __file__, str(theirs.fileno())]
            with theirs:
                self._process = subprocess.Popen(command, env=quiet, pass_fds=[theirs.fileno()])
        socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
        reply = self._connection.recv(100)
        if not int(reply or 0):
            raise OSError(f"No start is possible: {'the fork failed' if reply else 'the server has ended'}.")
        return int(reply)


_start_of_popen = subprocess.Popen._execute_child  # type: ignore[attr-defined]


class _Forked(subprocess.Popen[Any]):
    """A fork with the interface of Popen."""

    def __init__(self, server: ForkServer, arguments: list[str], **kwargs: Any) -> None:
        self._server = server
        super().__init__(arguments, **kwargs)

    def _execute_child(self, *values: Any) -> None:
        names = list(inspect.signature(_start_of_popen).parameters)[1:]
        given = dict(zip(names, values, strict=True))
        command, network = given["args"], None
        if command[: len(IN_NETWORK)] == IN_NETWORK:
            network, *command = command[len(IN_NETWORK) :]
        is_code = command[:2] == [sys.executable, "-c"]
        if not (is_code or command[: len(PROGRAM)] == PROGRAM) or given["preexec_fn"] or given["shell"]:
            raise ValueError(f"A fork can only run {PROGRAM}, but {given['args']} was given.")
        pipes = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [number if pipe == -1 else pipe for number, pipe in enumerate(pipes)]
        kept = list(given["pass_fds"])
        request = {
            "code": command[2] if is_code else None,
            "flags": command[3:],
            "network": network,
            "cwd": str(pathlib.Path(given["cwd"] or ".").absolute()),
            "environment": {
                os.fsdecode(key): os.fsdecode(value) for key, value in (given["env"] or os.environ).items()
            },
            "start_new_session": given["start_new_session"],
            "process_group": given["process_group"],
            "descriptors": [0, 1, 2, *kept],
        }
        self.pid = self._server.fork(request, streams + kept)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            *(given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"))
        )


def serve(connection: socket.socket) -> None:
    """Imports what the trainer imports, and forks for each request until the other side closes."""
    sys.path.insert(0, str(ROOT))
    from trainer.tensorflow_setup import importing_tensorflow

    with importing_tensorflow():
        import tensorboard.summary
        import tensorflow_datasets as tfds

        from trainer import evaluate, export, inspect_run, predict, train

        # Imported for the forks; TensorFlow imports TensorBoard's part when a run first writes to its log.
        assert all((tensorboard.summary, tfds.core, evaluate, export, inspect_run, predict, train))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and for the forks.
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 16)
        if not message:
            return
        reader, writer = os.pipe()
        middle = os.fork()
        if not middle:
            if not os.fork():
                _become(json.loads(message), descriptors, writer)
            os._exit(0)
        os.waitpid(middle, 0)  # From here on the fork is a child of the requesting process.
        for descriptor in (writer, *descriptors):
            os.close(descriptor)
        connection.send(os.read(reader, 100) or b"0")
        os.close(reader)


def _become(request: dict[str, Any], descriptors: list[int], writer: int) -> None:
    # Runs the trainer. Reports its process id once it handles signals like a newly started process.
    code = 1
    try:
        if request["start_new_session"]:
            os.setsid()
        if request["process_group"] not in (None, -1):
            os.setpgid(0, request["process_group"])
        writer, *moved = (
            fcntl.fcntl(descriptor, fcntl.F_DUPFD, _FIRST_MOVED) for descriptor in (writer, *descriptors)
        )
        os.closerange(3, _FIRST_MOVED)
        for descriptor, number in zip(moved, request["descriptors"], strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        if request["network"]:
            _enter_network(request["network"])
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _open_streams()
        os.write(writer, str(os.getpid()).encode())
        os.close(writer)
        code = run_as_main(request["flags"], request["code"])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _enter_network(name: str) -> None:
    # As `ip netns exec` does it.
    with pathlib.Path("/run/netns", name).open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"no process can be moved to the network {name}")


def _open_streams() -> None:
    # Like the interpreter: output to a terminal is written line by line.
    is_unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=is_unbuffered)
    sys.stderr.reconfigure(line_buffering=True, write_through=is_unbuffered)


def run_as_main(flags: Sequence[str], program: str | None = None) -> int:
    """Runs the trainer's `__main__` block, or a program, as the interpreter does; returns the exit code."""
    import trainer.main

    sys.argv = [trainer.main.__file__ if program is None else "-c", *flags]
    code = 0
    try:
        if program is None:
            runpy.run_path(trainer.main.__file__, run_name="__main__")
        else:
            exec(program, {"__name__": "__main__"})
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        return 120
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    return code


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as opened:
        serve(opened)
