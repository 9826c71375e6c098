"""The cost of training on several devices: the exchange between them, and the overhead on one device.

    python scripts/bench/bench_replicas.py [--times=50,250,1000] [--rounds=100] [--workers=2,4,8]

First the trainer's step on one device is compared with the same mathematics in a `tf.function` without a
strategy and without stop requests. Three copies of each, since two copies of one step differ by up to 1%,
take turns in random order on the same batch. Then workers on this machine only exchange what a step
exchanges: gradients and sums. They share the cores, so the times reflect the number of messages rather than a
network.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import TypedDict

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from local_cluster import ROOT, free_ports, tf_configs

sys.path.insert(0, str(ROOT))
from kernels import TEXTS, TUTORIAL, Example  # first: it imports TensorFlow quietly

# isort: split
import tensorflow as tf
from timing import exit_on_sigterm, machine, machine_line, running, seconds, spread

from trainer import build, classes, steps
from trainer.config import Config
from trainer.data.input_pipeline import Batch, batch_spec
from trainer.labels import NEGATIVE_POSITIVE
from trainer.run import cluster, distribution
from trainer.run.state import Sums, TrainState

BATCH_SIZE, VOCAB_SIZE, EXCHANGES, WARM_UP, COPIES = 64, 1000, 100, 5, 3


def bare_step(state: TrainState) -> Callable[[Batch], tf.Tensor]:
    """The step as it would be written for one device alone."""
    variables = state.model.trainable_variables

    @tf.function(autograph=False, input_signature=[batch_spec(BATCH_SIZE)])
    def step(batch: Batch) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = state.model(batch.token_ids, batch.lengths, training_step=state.step)
            losses = batch.weights * classes.losses(logits, batch.labels)
            loss = tf.reduce_sum(losses) / batch.reviews
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        state.optimizer.apply(gradients, variables)
        state.step.assign_add(1)
        sums = Sums(
            loss=tf.reduce_sum(tf.cast(losses, tf.float64)),
            correct=tf.reduce_sum(batch.weights * classes.is_correct(logits, batch.labels)),
            reviews=tf.reduce_sum(batch.weights),
            real_tokens=tf.reduce_sum(batch.lengths),
            padded_tokens=tf.size(batch.token_ids),
        )
        state.add_sums(tf.stack([tf.cast(value, tf.float64) for value in sums]))
        return tf.stack([loss, tf.linalg.global_norm(gradients)])

    return step


def make_steps() -> dict[str, list[Callable[[Batch], tf.Tensor]]]:
    """COPIES copies of each step, by name."""
    config, replicas = Config(**TUTORIAL, batch_size=BATCH_SIZE), distribution.Replicas()
    made: dict[str, list[Callable[[Batch], tf.Tensor]]] = {"bare": [], "one_device": []}
    for _ in range(COPIES):
        bare_state, state = (
            build.make_state(config, VOCAB_SIZE, NEGATIVE_POSITIVE, TEXTS, replicas) for _ in range(2)
        )
        step = steps.make_train_step(state, replicas, batch_size=BATCH_SIZE)
        made["bare"].append(bare_step(bare_state))
        made["one_device"].append(lambda batch, step=step: step((batch,), 0.0))
    return made


def compare(times: list[int], rounds: int) -> None:
    """Prints the time of the one-device step relative to the bare one, for batches of each length."""
    made = make_steps()
    print("| batch x time | bare, ms | one_device, ms | ratio |\n| --- | --- | --- | --- |")
    for length in times:
        batch = Example(BATCH_SIZE, length, VOCAB_SIZE).batch()
        taken: dict[str, list[float]] = {name: [] for name in made}
        calls = [(name, functools.partial(step, batch)) for name, copies in made.items() for step in copies]
        for number in range(rounds + WARM_UP):
            for name, call in random.sample(calls, len(calls)):
                took = seconds(lambda call=call: call().numpy())
                if number >= WARM_UP:
                    taken[name].append(took)
        bare, ours = (1000 * statistics.median(values) for values in taken.values())
        print(f"| {BATCH_SIZE} x {length} | {bare:.2f} | {ours:.2f} | {ours / bare:.3f} |", flush=True)


class _Exchange(TypedDict):
    # What the chief measures.
    milliseconds: list[float]
    bytes: list[int]


def exchange() -> None:
    """A worker's side: exchanges what a step exchanges; the chief prints how long it takes."""
    replicas = distribution.Replicas(
        "multi_worker", cluster=cluster.read_cluster("multi_worker"), connect_secs=120
    )
    state = build.make_state(Config(**TUTORIAL), VOCAB_SIZE, NEGATIVE_POSITIVE, TEXTS, replicas)
    shapes = [variable.shape for variable in state.model.trainable_variables]

    @tf.function(autograph=False)
    def step(scale: tf.Tensor) -> tf.Tensor:
        def of_replica(_: int) -> tf.Tensor:
            gradients = distribution.sum_over_replicas([tf.fill(shape, scale) for shape in shapes])
            values = tf.fill([len(Sums._fields) + 2], tf.cast(scale, tf.float64))
            values = distribution.sum_over_replicas(values)
            sums = [tf.reduce_sum(gradient) for gradient in gradients]
            return tf.add_n(sums) + tf.cast(tf.reduce_sum(values), tf.float32)

        return replicas.run(of_replica)

    scale = tf.constant(1.0)
    milliseconds = [1000 * seconds(lambda: step(scale).numpy()) for _ in range(EXCHANGES + WARM_UP)]
    if replicas.is_chief:
        graph = step.get_concrete_function(tf.TensorSpec([])).graph
        result = _Exchange(milliseconds=milliseconds[WARM_UP:], bytes=_exchanged_bytes(graph))
        print(json.dumps(result), flush=True)


def _exchanged_bytes(graph: tf.Graph) -> list[int]:
    # Returns the bytes of each reduction.
    operations = [operation for operation in graph.get_operations() if _is_reduction(operation.type)]
    tensors = [operation.inputs[0] for operation in operations]
    return [tensor.shape.num_elements() * tensor.dtype.size for tensor in tensors]


def _is_reduction(kind: str) -> bool:
    return kind.startswith("Collective") and "Reduce" in kind


def compare_workers(counts: list[int]) -> None:
    """Prints the time of an exchange for each number of workers on this machine."""
    print("\n| workers | exchanges per step, bytes each | ms, on these cores |\n| --- | --- | --- |")
    for count in counts:
        measured = _exchange_among(count)
        sizes = ", ".join(map(str, measured["bytes"]))
        print(f"| {count} | {sizes} | {spread(measured['milliseconds'])} |", flush=True)


def _exchange_among(count: int) -> _Exchange:
    command = [sys.executable, str(pathlib.Path(__file__)), "--exchange"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with contextlib.ExitStack() as stack:
        workers = []
        for tf_config in tf_configs(free_ports(count)):
            environment = {**os.environ, "TF_CONFIG": tf_config}
            workers.append(stack.enter_context(running(command, env=environment, **pipes)))
        output, *_ = [worker.communicate()[0] for worker in workers]
    return json.loads(output)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = {"type": lambda text: [int(number) for number in text.split(",")]}
    parser.add_argument("--times", default=[50, 250, 1000], **numbers)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--workers", default=[2, 4, 8], **numbers)
    parser.add_argument("--exchange", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    exit_on_sigterm()
    distribution.set_threads(intra_op=Config.intra_op_threads, inter_op=Config.inter_op_threads)
    if given.exchange:
        exchange()
        return
    print(f"{machine_line(machine())}\n")
    compare(given.times, given.rounds)
    compare_workers(given.workers)


if __name__ == "__main__":
    main()
