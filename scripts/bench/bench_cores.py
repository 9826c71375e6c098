"""Reviews a second over cores and sizes: this trainer, Keras and, where it is installed, PyTorch.

    python scripts/bench/bench_cores.py [--over cores units] [--cores 1 2 4] [--rounds=3] [--plot=FILE]

Every contender is a process that may use just so many cores, and gets equal batches. This trainer has a shard
for each pair of cores; Keras and PyTorch use all cores, and the batch size, 64 or 256, at which they are
fastest. For numbers of cores that this machine does not have, Amdahl's law predicts this trainer's speed from
a step with that many shards: what of it is within segments of the LSTM is divided among the cores. Units and
vocabulary are varied on all cores of the machine.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from local_cluster import ROOT

sys.path.insert(0, str(ROOT))
import kernels  # first: it imports TensorFlow quietly

# isort: split
import keras
import tensorflow as tf
from bench_kernel import Shape
from timing import machine, machine_line, seconds, spread

from trainer.run import distribution

# The shapes of each curve, reviews x tokens x units x vocabulary as in `bench_kernel`.
CURVES = {
    "cores": ("64x250x64x1000", "256x250x128x20000:max"),  # a curve for each
    "units": ("64x250x64x1000", "64x250x128x1000", "64x250x256x1000"),
    "vocabulary": ("64x250x64x1000", "64x250x64x20000", "64x250x64x100000"),
}
BATCH_SIZES = (64, 256)
_SECONDS = 4.0  # measured of each contender in a round
_PROFILED_STEPS = 5
_NAMES = {"keras": "Keras", "torch": "PyTorch"}


def ours(shape: Shape, shards: int) -> kernels.Call:
    """A step of the trainer."""
    distribution.set_threads(intra_op=1, inter_op=0)
    batch_size, time_steps, units, vocab_size, pooling = shape
    return kernels.train_step(batch_size, time_steps, vocab_size, units=units, pooling=pooling, shards=shards)


def of_keras(shape: Shape) -> kernels.Call:
    """A step of the same model in Keras, as `fit` does it, with TensorFlow's own choice of threads."""
    token_ids = keras.Input([None], dtype="int32")
    embedded = keras.layers.Embedding(shape.vocab_size, kernels.DIM, mask_zero=True)(token_ids)
    has_max = shape.pooling == "max"
    layer = keras.layers.LSTM(shape.units, return_sequences=has_max)
    states = keras.layers.Bidirectional(layer)(embedded)
    pooled = keras.layers.GlobalMaxPooling1D()(states) if has_max else states
    logits = keras.layers.Dense(1)(keras.layers.Dense(64, activation="relu")(pooled))
    model = keras.Model(token_ids, logits)
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    batch = kernels.Example(shape.batch_size, shape.time_steps, shape.vocab_size).batch()
    tokens = tf.where(tf.sequence_mask(batch.lengths, shape.time_steps), batch.token_ids + 1, 0)
    tokens = tf.minimum(tokens, shape.vocab_size - 1)
    return lambda: model.train_on_batch(tokens, batch.labels)


def of_torch(shape: Shape) -> kernels.Call:
    """A step of the same model in PyTorch, on batches without padding."""
    import torch

    torch.set_flush_denormal(True)  # as TensorFlow does; else vanishing gradients take ten times as long
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    batch = kernels.Example(shape.batch_size, shape.time_steps, shape.vocab_size)
    token_ids = torch.from_numpy(batch.token_ids.numpy()).long()
    embedding = torch.nn.Embedding(shape.vocab_size, kernels.DIM)
    lstm = torch.nn.LSTM(kernels.DIM, shape.units, batch_first=True, bidirectional=True)
    head = torch.nn.Sequential(torch.nn.Linear(2 * shape.units, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    weights = [weight for part in (embedding, lstm, head) for weight in part.parameters()]
    optimizer, labels = torch.optim.Adam(weights), torch.arange(shape.batch_size)[:, None] % 2.0

    def step() -> float:
        optimizer.zero_grad()
        states, (last, _) = lstm(embedding(token_ids))
        pooled = states.amax(1) if shape.pooling == "max" else torch.cat([last[0], last[1]], 1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(pooled), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def milliseconds_of_step(call: kernels.Call) -> float:
    """The median time of the steps that fit in some seconds."""
    for _ in range(3):
        call()
    first = seconds(call)
    return 1000 * statistics.median(seconds(call) for _ in range(max(3, int(_SECONDS / first))))


def share_outside_segments(call: kernels.Call) -> tuple[float, float]:
    """Of some steps, by TensorFlow's profiler.

    Returns:
      The share of the time in which no segment of the LSTM runs, and how many run at a time in the rest.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    call()
    with tempfile.TemporaryDirectory() as logdir:
        with tf.profiler.experimental.Profile(logdir):
            taken = sum(seconds(call) for _ in range(_PROFILED_STEPS))
        (path,) = pathlib.Path(logdir).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    changes = []
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                if plane.event_metadata[event.metadata_id].name.startswith("CpuExecutable::Execute"):
                    start = line.timestamp_ns / 1e9 + event.offset_ps / 1e12
                    changes += [(start, 1), (start + event.duration_ps / 1e12, -1)]
    running, busy, work, last = 0, 0.0, 0.0, 0.0
    for at, change in sorted(changes):
        busy += (at - last) * (running > 0)
        work += (at - last) * running
        running, last = running + change, at
    return 1 - busy / taken, work / busy


def work(contender: str, shape: Shape, shards: int) -> dict[str, float]:
    """Measures one contender in this process."""
    if contender == "ours":
        call = ours(shape, shards)
        serial, at_a_time = share_outside_segments(call)
        return {"ms": milliseconds_of_step(call), "serial": serial, "at_a_time": at_a_time}
    make = {"keras": of_keras, "torch": of_torch}[contender]
    return {"ms": milliseconds_of_step(make(shape))}


def measure(contender: str, shape: str, cores: int, shards: int = 0) -> dict[str, float]:
    """Measures one contender in a process that may use so many cores."""
    usable = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, __file__, f"--work={contender}", f"--shards={shards}", f"--shape={shape}"]
    completed = subprocess.run(
        command,
        preexec_fn=functools.partial(os.sched_setaffinity, 0, usable),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(completed.stdout.splitlines()[-1])


def predicted(taken: dict[str, float], cores: int) -> float:
    """Milliseconds of a step on so many cores, from one with enough shards on fewer (Amdahl 1967)."""
    serial = taken["ms"] * taken["serial"]
    return serial + (taken["ms"] - serial) * taken["at_a_time"] / cores


def others(contender: str, shape: Shape, cores: int) -> float:
    """The most reviews a second of Keras or PyTorch over the batch sizes."""
    return max(
        1000 * size / measure(contender, shape_text(shape._replace(batch_size=size)), cores)["ms"]
        for size in BATCH_SIZES
    )


def shape_text(shape: Shape) -> str:
    """The shape as `Shape.parse` takes it."""
    return f"{'x'.join(map(str, shape[:4]))}:{shape.pooling}"


class Speeds(NamedTuple):
    """Reviews a second: ours of each round, and those of others by name (none: ours are predicted)."""

    shape: str
    cores: int
    shards: int
    outside_segments: float
    ours: list[float]
    others: dict[str, float]

    def row(self, contenders: Sequence[str]) -> str:
        """Its row of the table."""
        cells = [self.shape, f"{self.cores}{'' if self.others else ' (predicted)'}", str(self.shards)]
        cells += [spread(self.ours, digits=0), f"{self.outside_segments:.1%}"]
        cells += [f"{self.others[name]:.0f}" if self.others else "" for name in contenders]
        return f"| {' | '.join(cells)} |"


def speeds_of(text: str, cores: int, rounds: int, contenders: Sequence[str]) -> Speeds:
    """Measures one shape, or predicts it if there are fewer cores."""
    shape, usable = Shape.parse(text), len(os.sched_getaffinity(0))
    shards = max(1, cores // 2)
    here = [measure("ours", text, min(cores, usable), shards) for _ in range(rounds)]
    taken = [each["ms"] if cores <= usable else predicted(each, cores) for each in here]
    return Speeds(
        text,
        cores,
        shards,
        statistics.median(each["serial"] for each in here),
        [1000 * shape.batch_size / milliseconds for milliseconds in taken],
        {name: others(name, shape, cores) for name in contenders} if cores <= usable else {},
    )


def curves(over: str, wanted: Sequence[int]) -> dict[str, list[tuple[str, int]]]:
    """The points of each curve over cores, units or vocabulary, by its title: shapes and numbers of cores."""
    first = Shape.parse(CURVES[over][0])
    if over != "cores":
        fixed = f"{first.vocab_size:,} tokens" if over == "units" else f"{first.units} units"
        usable = len(os.sched_getaffinity(0))
        title = f"{first.batch_size} reviews, {fixed}, {usable} cores"
        return {title: [(text, usable) for text in CURVES[over]]}
    titles = (
        f"{shape.batch_size} reviews, {shape.units} units, {shape.vocab_size:,} tokens"
        for shape in map(Shape.parse, CURVES[over])
    )
    shapes = zip(titles, CURVES[over], strict=True)
    return {title: [(text, cores) for cores in wanted] for title, text in shapes}


def plot(path: str, measured: Mapping[tuple[str, str], Sequence[Speeds]], contenders: Sequence[str]) -> None:
    """Draws the curves, by what they are over and their titles: predictions dashed."""
    from matplotlib import pyplot

    columns = min(2, len(measured))
    rows = -(-len(measured) // columns)
    _, axes = pyplot.subplots(rows, columns, figsize=(4.5 * columns, 3.0 * rows), squeeze=False)
    for ((over, title), points), axis in zip(measured.items(), axes.flat, strict=False):
        shapes = [Shape.parse(point.shape) for point in points]
        at = {
            "cores": [point.cores for point in points],
            "units": [shape.units for shape in shapes],
            "vocabulary": [shape.vocab_size for shape in shapes],
        }[over]
        medians = [statistics.median(point.ours) for point in points]
        known = sum(bool(point.others) for point in points)
        axis.plot(at[:known], medians[:known], "oC0-", label="this trainer")
        if known < len(points):
            axis.plot(at[known - 1 :], medians[known - 1 :], "oC0--", label="this trainer, predicted")
        for number, name in enumerate(contenders, start=1):
            values = [point.others[name] for point in points[:known]]
            axis.plot(at[:known], values, f"sC{number}-", label=_NAMES[name])
        axis.set(title=title, xlabel=over, ylabel="reviews / s", xscale="log", ylim=(0, None))
        axis.title.set_fontsize(10)
        axis.set_xticks(at, [f"{value:,}" for value in at])
        axis.minorticks_off()
        axis.legend(fontsize=8)
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=110)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--over", nargs="+", choices=CURVES, default=list(CURVES))
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", metavar="FILE", help="also draw the curves")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        print(json.dumps(work(given.work, Shape.parse(given.shape), given.shards)))
        return
    has_torch = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False)
    contenders = ["keras"] + ([] if has_torch.returncode else ["torch"])
    columns = (
        *("batch x tokens x units x vocabulary", "cores", "shards", "reviews/s", "outside segments"),
        *(_NAMES[name] for name in contenders),
    )
    print(f"{machine_line(machine())}; medians, least and most in brackets\n")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    measured: dict[tuple[str, str], list[Speeds]] = {}
    known: dict[tuple[str, int], Speeds] = {}
    for over in given.over:
        for title, points in curves(over, given.cores).items():
            for text, cores in points:
                if (text, cores) not in known:
                    known[text, cores] = speeds_of(text, cores, given.rounds, contenders)
                    print(known[text, cores].row(contenders), flush=True)
            measured[over, title] = [known[point] for point in points]
    if given.plot:
        plot(given.plot, measured, contenders)


if __name__ == "__main__":
    main()
