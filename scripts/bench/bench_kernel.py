"""Times the train step over a grid of sizes, against the sum of its parts, Keras' LSTM and BlockLSTM.

    python scripts/bench/bench_kernel.py [--shapes 64x250x64x1000 64x250x64x20000:max] [--against]

A shape is reviews x tokens x units x vocabulary, and a pooling if it is not the last state. Each round times
everything in turn, so that a machine that slows down affects all of it. The table has the medians, and the
medians of the rounds' ratios with the least and the greatest. The floor of a train step is the time of its
parts when each runs alone, in cache. For each time step these are: three matrix products, the activations,
the products of the backward pass, the look-ups and their sum. Once per step: the product of embeddings and
input kernel with its gradients, and the update of the weights.
"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from local_cluster import ROOT

sys.path.insert(0, str(ROOT))
import kernels  # first: it imports TensorFlow quietly

# isort: split
import tensorflow as tf
from kernel_floor import SEGMENTS, STEPS, parts
from timing import machine, machine_line, seconds, spread

from trainer.config import Config
from trainer.run import distribution

GRID = (
    *("32x250x64x1000", "64x50x64x1000", "64x250x64x1000", "64x1000x64x1000"),
    *("256x50x64x1000", "256x250x64x1000", "64x250x128x1000", "64x250x256x1000", "256x250x128x1000"),
    *("64x250x64x20000", "64x250x64x100000", "256x250x128x20000"),
    *("64x250x64x1000:max", "64x250x64x20000:max", "256x250x128x20000:max"),
)
_CALLS_A_ROUND = 3
_PROFILED_STEPS = 20
_OTHERS = {"keras": kernels.keras_lstm, "BlockLSTM": kernels.block_lstm}


class Shape(NamedTuple):
    """What a step computes."""

    batch_size: int
    time_steps: int
    units: int
    vocab_size: int
    pooling: str = "last"

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """The shape that a command line names, as in 64x250x64x1000:max."""
        sizes, _, pooling = text.partition(":")
        return cls(*map(int, sizes.split("x")), pooling or "last")


def milliseconds(call: kernels.Call, repeats: int) -> float:
    """The median time of several calls."""
    return 1000 * statistics.median(seconds(call) for _ in range(repeats))


def compare(shape: Shape, rounds: int, against: bool) -> dict:
    """Measures one shape.

    Returns:
      The rounds' milliseconds of each part, "train step" and "floor", and of the others by their names with
      "kernel" for ours; and the shape's `Parts`.
    """
    batch_size, time_steps, units, vocab_size, pooling = shape
    of_step = parts(batch_size, time_steps, vocab_size, units)
    step = kernels.train_step(batch_size, time_steps, vocab_size, units=units, pooling=pooling)
    calls = {"train step": step, **of_step.calls()}
    if against:
        example = kernels.Example(batch_size, time_steps, vocab_size, units)
        for name, kernel in {"kernel": kernels.ours, **_OTHERS}.items():
            calls[name] = kernels.forward_and_backward(kernel, example)
    for call in calls.values():
        call()
    taken = [
        {name: milliseconds(call, _CALLS_A_ROUND) for name, call in calls.items()} for _ in range(rounds)
    ]
    for row in taken:
        row["floor"] = of_step.floor(row, time_steps)
    return {"parts": of_step, **{name: [row[name] for row in taken] for name in taken[0]}}


def profile(logdir: str, shape: Shape) -> None:
    """Writes a profile of some steps, for TensorBoard's profiler."""
    batch_size, time_steps, units, vocab_size, pooling = shape
    call = kernels.train_step(batch_size, time_steps, vocab_size, units=units, pooling=pooling)
    call()
    with tf.profiler.experimental.Profile(logdir):
        for number in range(_PROFILED_STEPS):
            with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
                call()


def row_of(shape: Shape, taken: Mapping[str, Sequence[float]], against: bool) -> str:
    """A row of the table."""

    def ratio(name: str, other: str) -> str:
        return spread([one / two for one, two in zip(taken[name], taken[other], strict=True)], digits=2)

    cells = [f"{shape.batch_size} x {shape.time_steps}", *map(str, shape[2:])]
    cells += [f"{statistics.median(taken[name]):.1f}" for name in ("train step", "floor")]
    cells.append(ratio("train step", "floor"))
    cells += [ratio(name, "kernel") for name in _OTHERS] if against else []
    return f"| {' | '.join(cells)} |"


def costs_of(taken: Mapping[str, Any]) -> str:
    """The microseconds of each part of the floor."""
    of_step = taken["parts"]

    def listed(names: Iterable[str], times: int) -> str:
        medians = {name: 1000 * statistics.median(taken[name]) / times for name in names}
        return ", ".join(f"{name} {cost:.1f}" for name, cost in medians.items())

    each, once = listed(of_step.each_time_step, STEPS), listed(of_step.once, SEGMENTS)
    return f"each time step {each}; once per step {once}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=GRID, type=str, metavar="SHAPE")
    parser.add_argument("--against", action="store_true", help="also time the kernels of others")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", metavar="LOGDIR", help="write a profile of 20 steps of the first shape")
    parser.add_argument("--intra_op_threads", type=int, default=Config.intra_op_threads)
    parser.add_argument("--inter_op_threads", type=int, default=Config.inter_op_threads)
    given = parser.parse_args()
    distribution.set_threads(intra_op=given.intra_op_threads, inter_op=given.inter_op_threads)
    shapes = [Shape.parse(text) for text in given.shapes]
    if given.profile:
        profile(given.profile, shapes[0])
        return
    others = [f"{name} / our kernel" for name in _OTHERS] if given.against else []
    columns = (
        *("batch x time", "units", "vocabulary", "pooling", "train step", "floor", "step / floor"),
        *others,
    )
    print(f"{machine_line(machine())}; milliseconds; medians, least and most in brackets\n")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for shape in shapes:
        taken = compare(shape, given.rounds, given.against)
        print(row_of(shape, taken, given.against), flush=True)
    print(f"\nThe floor of the last shape in microseconds: {costs_of(taken)}.")


if __name__ == "__main__":
    main()
