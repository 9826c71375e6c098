"""The trainer as a contender: a real session and its loop, with a train step that waits for its turns."""

import contextlib
import pathlib
import signal
import statistics
import time
from collections.abc import Sequence

from timing import TRAINER, seconds
from turns import Step, Turns

from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    import tensorflow as tf

from trainer import flags, train
from trainer.errors import InterruptedBySignalError
from trainer.prepare import prepare_directory
from trainer.session import Session, open_session
from trainer.steps import Slices, TrainStep, make_train_step

SAVES = 10


class NoStopRequests:
    """A `trainer.signals.StopRequests` that receives no signals: the step stops the loop."""

    defer_to_loop = False
    received = False

    def take_save_request(self) -> bool:
        """Always False."""
        return False

    def stopped(self, message: str) -> InterruptedBySignalError:
        """The error that ends the loop after a step has returned a stop request."""
        return InterruptedBySignalError(signal.SIGTERM, message)


class PacedStep:
    """A `TrainStep` that waits for its turns, and records how long each step takes.

    When the contender is ordered to do something else, the step returns a stop request, which ends the loop.
    """

    def __init__(self, step: TrainStep, turns: Turns) -> None:
        self._step, self._turns = step, turns
        self._slices: Slices | None = None
        self._began = self._in_step = 0.0

    def __call__(self, slices: Slices, stop: float) -> tf.Tensor:
        """Takes one step; the time until the next call is the time of the step in the loop."""
        if self._slices is not None:
            self._record(self._slices)
        if self._turns.is_over():
            stop = 1.0
        self._slices, self._began = slices, time.perf_counter()
        result = self._step(slices, stop)
        self._in_step = time.perf_counter() - self._began
        return result

    def _record(self, slices: Slices) -> None:
        taken = time.perf_counter() - self._began
        repeated = None
        if self._turns.order == "repeat":
            repeated = seconds(lambda: self._step(slices, 0.0))
        length = slices[0].token_ids.shape[1]
        self._turns.steps.append(Step(seconds=taken, length=length, in_step=self._in_step, repeated=repeated))


def open_benchmark_session(*more: str) -> Session:
    """A session of `tutorial.flags` with more flags, whose directory is prepared."""
    given = flags.parse([*TRAINER[2:], *more])
    session = open_session(given, stop_requests=NoStopRequests())
    prepare_directory(session)
    return session


def save(session: Session) -> None:
    """Saves as the loop does."""
    session.events.commit()
    session.checkpoints.save()


def ours(turns: Turns, *, cache_dir: str, folder: pathlib.Path, flags: Sequence[str]) -> None:
    """Trains, then evaluates the test split as often as ordered, then saves; `flags` are more flags.

    Turns of training contain no saves and evaluations, which would fall into them at random.
    """
    no_interruptions = ["--checkpoint_every_secs=0", "--eval_every_steps=100000"]
    session = open_benchmark_session(
        f"--workdir={folder / 'run'}", f"--cache_dir={cache_dir}", *no_interruptions, *flags
    )
    config = session.config
    step = make_train_step(session.state, session.replicas, batch_size=config.batch_size)
    with contextlib.suppress(InterruptedBySignalError):
        train.train_and_evaluate(session, train_step=PacedStep(step, turns))
    train.evaluate_split(session, config.test_split, 1, "")
    while turns.order == "evaluate":
        turns.answer(seconds=seconds(lambda: train.evaluate_split(session, config.test_split, 0, "")))
    taken = []
    for _ in range(SAVES):
        session.state.step.assign_add(1)
        taken.append(seconds(lambda: save(session)))
    turns.answer(seconds=statistics.median(taken))
