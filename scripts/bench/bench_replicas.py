"""What it costs that a step can train on many devices: on one device nothing, on several what they exchange.

    python scripts/bench_replicas.py [--times=50,250,1000] [--rounds=100] [--workers=2,4,8]

First the trainer's step on one device against the same mathematics in a `tf.function` that knows of no strategy, nor of a wish to stop:
three copies of each, since two copies of one step differ by up to 1%, take turns in random order on the same batch. Then workers on this
machine exchange what a step exchanges, and nothing else: its gradients and its sums. They share the cores, so that the time tells more of
the number of messages than of a network.
"""

import argparse
import functools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from bench import ROOT, machine, spread
from local_cluster import free_ports, tf_configs

from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    import tensorflow as tf
    from bench_kernel import Example

from trainer import start, train
from trainer.config import Config
from trainer.data.input_pipeline import Batch
from trainer.data.input_pipeline import batch_spec
from trainer.model import classifier
from trainer.run import cluster, distribution
from trainer.run.state import Sums, TrainState

BATCH_SIZE, VOCAB_SIZE, EXCHANGES, WARM_UP, COPIES = 64, 1000, 100, 5, 3
TEXTS = dict.fromkeys(("frozen_flags", "fingerprints", "conditions"), "")


def bare_step(state: TrainState) -> Callable[[Batch], tf.Tensor]:
    """The step as it would be written for one device alone."""
    variables = state.model.trainable_variables

    @tf.function(autograph=False, input_signature=[batch_spec(BATCH_SIZE)])
    def step(batch: Batch) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = state.model(batch.token_ids, batch.lengths, training_step=state.step)
            losses = batch.weights * classifier.losses(logits, batch.labels)
            loss = tf.reduce_sum(losses) / batch.reviews
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, [variable.value for variable in variables])]
        state.optimizer.apply(gradients, variables)
        state.step.assign_add(1)
        sums = train.sums_of(batch, logits, losses)
        state.add_sums(tf.stack([tf.cast(value, tf.float64) for value in sums]))
        return tf.stack([loss, tf.linalg.global_norm(gradients)])

    return step


def seconds(call: Callable[[], tf.Tensor]) -> float:
    """How long a call takes until its values are there."""
    began = time.perf_counter()
    call().numpy()
    return time.perf_counter() - began


def compare(times: list[int], rounds: int) -> None:
    """Prints the one-device step over the bare one, for batches of each length."""
    config, replicas = Config(workdir="none", batch_size=BATCH_SIZE), distribution.Replicas()
    steps: dict[str, list[Callable]] = {"bare": [], "one_device": []}
    for _ in range(COPIES):
        states = [build.make_state(config, VOCAB_SIZE, TEXTS, replicas) for _ in range(2)]
        ours = steps.make_train_step(states[1], replicas, batch_size=BATCH_SIZE, clip_norm=config.clip_norm)
        steps["bare"].append(bare_step(states[0]))
        steps["one_device"].append(lambda batch, ours=ours: ours((batch,), 0.0))
    print("| batch x time | bare, ms | one_device, ms | ratio |\n| --- | --- | --- | --- |")
    for length in times:
        example = Example(BATCH_SIZE, length, VOCAB_SIZE)
        batch = Batch(example.token_ids, example.lengths, tf.zeros(BATCH_SIZE), tf.ones(BATCH_SIZE), tf.constant(float(BATCH_SIZE)))
        taken: dict[str, list[float]] = {name: [] for name in steps}
        calls = [(name, functools.partial(step, batch)) for name, copies in steps.items() for step in copies]
        for number in range(rounds + WARM_UP):
            for name, call in random.sample(calls, len(calls)):
                took = seconds(call)
                if number >= WARM_UP:
                    taken[name].append(took)
        bare, ours = (1000 * statistics.median(values) for values in taken.values())
        print(f"| {BATCH_SIZE} x {length} | {bare:.2f} | {ours:.2f} | {ours / bare:.3f} |", flush=True)


def exchange() -> None:
    """A worker's side: exchanges what a step exchanges, again and again; the chief prints how long it took."""
    replicas = distribution.Replicas("multi_worker", cluster=cluster.read_cluster("multi_worker"), connect_secs=120)
    state = build.make_state(Config(workdir="none"), VOCAB_SIZE, TEXTS, replicas)
    shapes = [variable.shape for variable in state.model.trainable_variables]

    @tf.function(autograph=False)
    def step(scale: tf.Tensor) -> tf.Tensor:
        def of_replica(_: int) -> tf.Tensor:
            gradients = distribution.sum_over_replicas([tf.fill(shape, scale) for shape in shapes])
            values = distribution.sum_over_replicas(tf.fill([len(Sums._fields) + 2], tf.cast(scale, tf.float64)))
            return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients]) + tf.cast(tf.reduce_sum(values), tf.float32)

        return replicas.run(of_replica)

    graph = step.get_concrete_function(tf.TensorSpec([])).graph
    collectives = [operation for operation in graph.get_operations() if operation.type.startswith("Collective")]
    scale = tf.constant(1.0)
    milliseconds = [1000 * seconds(lambda: step(scale)) for _ in range(EXCHANGES + WARM_UP)][WARM_UP:]
    if replicas.is_chief:
        kinds = sorted({operation.type for operation in collectives if "Reduce" in operation.type})
        sizes = [
            operation.inputs[0].shape.num_elements() * operation.inputs[0].dtype.size
            for operation in collectives
            if operation.type in kinds
        ]
        print(json.dumps({"milliseconds": milliseconds, "bytes": sizes}), flush=True)


def compare_workers(counts: list[int]) -> None:
    """Prints what an exchange costs among so many workers on this machine."""
    print("\n| workers | exchanges a step, bytes each | ms, on these cores |\n| --- | --- | --- |")
    command = [sys.executable, str(pathlib.Path(__file__)), "--exchange"]
    for count in counts:
        environments = [{**os.environ, "TF_CONFIG": config} for config in tf_configs(free_ports(count))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "cwd": ROOT}
        workers = [subprocess.Popen(command, env=environment, **pipes) for environment in environments]
        chief, *_ = [worker.communicate()[0] for worker in workers]
        said = json.loads(chief)
        print(f"| {count} | {', '.join(map(str, said['bytes']))} | {spread(said['milliseconds'])} |", flush=True)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"type": lambda text: [int(number) for number in text.split(",")]}
    parser.add_argument("--times", default=[50, 250, 1000], **numbers)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--workers", default=[2, 4, 8], **numbers)
    parser.add_argument("--exchange", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    distribution.set_threads(intra_op=Config.intra_op_threads, inter_op=Config.inter_op_threads)
    if given.exchange:
        exchange()
        return
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, {here['date']}\n")
    compare(given.times, given.rounds)
    compare_workers(given.workers)


if __name__ == "__main__":
    main()
