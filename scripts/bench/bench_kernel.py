"""Times the recurrent kernel, forward and backward, against Keras', BlockLSTM and the sum of its parts.

    python scripts/bench/bench_kernel.py [--batch_sizes=64,256] [--times=50,250,1000] [--rounds=5]

Each round times every kernel in turn, so that a machine that slows down affects all of them. The table has
the medians, and the medians of the rounds' ratios. The floor of a train step is the time of its parts when
each runs alone, in cache. For each time step these are: three matrix products, the activations, the products
of the backward pass, the look-ups and their sum. Once per step: the product of embeddings and input kernel
with its gradients, and the update of the weights.
"""

import argparse
import itertools
import pathlib
import statistics
import sys
from collections.abc import Mapping

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from local_cluster import ROOT

sys.path.insert(0, str(ROOT))
import kernels  # first: it imports TensorFlow quietly

# isort: split
import tensorflow as tf
from kernel_floor import SEGMENTS, STEPS, parts
from timing import machine, machine_line, seconds

from trainer.config import Config
from trainer.run import distribution

COLUMNS = ("train step", "floor", "train step / floor", "ours", "forward")
RATIOS = ("keras_lstm / ours", "block_lstm / ours")
_CALLS_A_ROUND = 3
_PROFILED_STEPS = 20


def milliseconds(call: kernels.Call, repeats: int) -> float:
    """The median time of several calls."""
    return 1000 * statistics.median(seconds(call) for _ in range(repeats))


def compare(batch_size: int, time_steps: int, vocab_size: int, rounds: int) -> dict:
    """Measures all kernels in turns, for one shape.

    Returns:
      Medians of the rounds in milliseconds, and of the rounds' ratios, by COLUMNS and RATIOS; "each time
      step" and "once": microseconds of each part of the floor.
    """
    example = kernels.Example(batch_size, time_steps, vocab_size)
    of_step = parts(batch_size, vocab_size)
    calls = {
        "train step": kernels.train_step(batch_size, time_steps, vocab_size),
        "forward": kernels.forward(kernels.ours, example),
        "ours": kernels.forward_and_backward(kernels.ours, example),
        "keras_lstm": kernels.forward_and_backward(kernels.keras_lstm, example),
        "block_lstm": kernels.forward_and_backward(kernels.block_lstm, example),
        **of_step.calls(),
    }
    for call in calls.values():
        call()
    times = []
    for _ in range(rounds):
        row = {name: milliseconds(call, _CALLS_A_ROUND) for name, call in calls.items()}
        row["floor"] = of_step.floor(row, time_steps)
        row["train step / floor"] = row["train step"] / row["floor"]
        row |= {f"{name} / ours": row[name] / row["ours"] for name in ("keras_lstm", "block_lstm")}
        times.append(row)
    result: dict = {name: statistics.median(row[name] for row in times) for name in times[0]}
    result["each time step"] = {name: 1000 * result[name] / STEPS for name in of_step.each_time_step}
    result["once"] = {name: 1000 * result[name] / SEGMENTS for name in of_step.once}
    return result


def profile(logdir: str, batch_size: int, time_steps: int, vocab_size: int) -> None:
    """Writes a profile of some steps, for TensorBoard's profiler."""
    call = kernels.train_step(batch_size, time_steps, vocab_size)
    call()
    with tf.profiler.experimental.Profile(logdir):
        for number in range(_PROFILED_STEPS):
            with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
                call()


def row_of(name: str, result: Mapping[str, float]) -> str:
    """A row of the table."""
    cells = [f"{result[column]:.2f}" if "/" in column else f"{result[column]:.1f}" for column in COLUMNS]
    ratios = [f"{result[column]:.2f}" for column in RATIOS]
    return f"| {name} | {' | '.join([*cells, *ratios])} |"


def costs_of(parts: Mapping[str, float]) -> str:
    """The cost of each part."""
    return ", ".join(f"{name} {cost:.1f}" for name, cost in parts.items())


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = {"type": lambda text: [int(number) for number in text.split(",")]}
    parser.add_argument("--batch_sizes", default=[64, 256], **numbers)
    parser.add_argument("--times", default=[50, 250, 1000], **numbers)
    parser.add_argument("--vocab_size", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", metavar="LOGDIR", help="write a profile of 20 steps of the first shape")
    parser.add_argument("--intra_op_threads", type=int, default=Config.intra_op_threads)
    parser.add_argument("--inter_op_threads", type=int, default=Config.inter_op_threads)
    given = parser.parse_args()
    distribution.set_threads(intra_op=given.intra_op_threads, inter_op=given.inter_op_threads)
    if given.profile:
        profile(given.profile, given.batch_sizes[0], given.times[0], given.vocab_size)
        return
    columns = (*COLUMNS, *RATIOS)
    print(f"{machine_line(machine())}; milliseconds, {kernels.UNITS} units in each direction\n")
    print(f"| batch x time | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    shares = {}
    for batch_size, time_steps in itertools.product(given.batch_sizes, given.times):
        result = compare(batch_size, time_steps, given.vocab_size, given.rounds)
        print(row_of(f"{batch_size} x {time_steps}", result), flush=True)
        shares[batch_size] = (
            f"each time step {costs_of(result['each time step'])}; once per step {costs_of(result['once'])}"
        )
    for batch_size, costs in shares.items():
        print(f"\nThe floor of batch {batch_size} in microseconds: {costs}.")


if __name__ == "__main__":
    main()
