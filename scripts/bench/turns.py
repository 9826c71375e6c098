"""Contenders that take turns: each in a separate process, which computes only on an order.

The benchmark sends orders, one per line, "<name> [<number of steps>]"; a contender answers each with a line
of JSON. It ends when the benchmark does.
"""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import TypedDict

from timing import running

PROGRAM = pathlib.Path(__file__).with_name("contenders.py")


class Step(TypedDict):
    """The figures of one training step.

    Attributes:
      seconds: from its start to the start of the next.
      length: the number of time steps of its batch; None if unknown.
      in_step: the seconds in the compiled step alone.
      repeated: the seconds of a second compiled step on the same batch.
    """

    seconds: float
    length: int | None
    in_step: float | None
    repeated: float | None


class Turns:
    """A contender's side."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print must not be read as an answer
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read_orders, daemon=True).start()
        self._steps_left = 0
        self.steps: list[Step] = []
        self.order = ""

    def _read_orders(self) -> None:
        # Unbuffered: a buffer's lock, held by this thread, would disturb the shutdown of the interpreter.
        with open(0, "rb", buffering=0, closefd=False) as orders:
            while order := orders.readline():
                self._orders.put(order.decode().strip())
        os._exit(128 + signal.SIGPIPE)  # the benchmark has ended

    def answer(self, **values: object) -> None:
        """Answers an order and waits for the next one."""
        print(json.dumps(values), file=self._answers, flush=True)
        self.order, _, steps = self._orders.get().partition(" ")
        self._steps_left = int(steps or 0)

    def is_over(self) -> bool:
        """Whether training ends; call it before each step. Waits for an order when the last one is done."""
        if not self._steps_left:
            steps, self.steps = self.steps, []
            self.answer(steps=steps)
        self._steps_left -= 1
        return self.order not in ("train", "repeat")


class Contender:
    """The benchmark's side; made by `contending`.

    Attributes:
      pid: the contender's process.
    """

    def __init__(self, process: subprocess.Popen, log: pathlib.Path) -> None:
        self._process, self._log = process, log
        self.pid = process.pid

    def read(self) -> dict:
        """Waits for an answer."""
        line = self._process.stdout.readline()
        if not line:
            output = self._log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"A contender has ended: {' '.join(self._process.args)}\n{output}")
        return json.loads(line)

    def order(self, order: str) -> dict:
        """Sends an order and waits for the answer."""
        print(order, file=self._process.stdin, flush=True)
        return self.read()


@contextlib.contextmanager
def contending(name: str, cache_dir: str | pathlib.Path, *flags: str) -> Iterator[Contender]:
    """Starts a contender, ready for its first order; neither it nor its files outlive the block.

    Args:
      name: a function of `contenders`.
      cache_dir: where the encoded reviews are.
      flags: more flags of the trainer.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "log")
        options = [f"--cache_dir={cache_dir}", f"--folder={folder}"]
        program = [sys.executable, str(PROGRAM), *options, "--", name, *flags]
        with (
            log.open("wb") as output,
            running(
                program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            ) as process,
        ):
            contender = Contender(process, log)
            contender.read()
            yield contender
