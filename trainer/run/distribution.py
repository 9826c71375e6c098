"""Where a run trains: the devices and processes, what they tell each other, and the conditions under which bits repeat.

The only user of tf.distribute. A replica is a device that computes its slice of each batch; a worker is a process with one replica or more.
"""

import contextlib
import importlib.metadata
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
from tensorflow.python.eager import context

from trainer import InputError, PeerLostError, machine
from trainer.run.cluster import Cluster, port_error

# What TensorFlow, XLA and their kernels read from the environment to choose how to compute; not what they log or where they look.
_ENVIRONMENT = (
    *("TF_XLA_", "TF_ENABLE_", "TF_DISABLE_", "TF_NUM_", "TF_CPU_", "TF_GPU_", "TF_CUDNN_", "TF_USE_", "TF_DETERMINISTIC", "TF_OVERRIDE_"),
    *("XLA_", "OMP_", "KMP_", "DNNL_", "ONEDNN_", "CUDNN_", "NVIDIA_TF32"),
)
_CORES = "usable cores"  # a condition where TensorFlow decides the number of threads
_HEALTH_SECS = 5  # between two looks at whether the others live, of which each may take as long
_EXCHANGE_SECS = 3600  # that it waits for them in an exchange, where one that dies is noticed at once

_EXCHANGE_ERRORS = (
    *(tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.FailedPreconditionError, tf.errors.InternalError, tf.errors.UnknownError),
)  # that an exchange ends with when a worker is gone, or another has come in its place


def set_threads(*, intra_op: int, inter_op: int) -> None:
    """Sets how many threads share an operation and how many operations run at a time, before TensorFlow runs any; 0: it decides."""
    tf.config.threading.set_intra_op_parallelism_threads(intra_op)
    tf.config.threading.set_inter_op_parallelism_threads(inter_op)


class Replicas:
    """The replicas that train together. Make it before TensorFlow runs any operation.

    Args:
      strategy: one_device, mirrored (all GPUs, or all logical CPUs) or multi_worker.
      logical_devices: into how many devices the CPU is split; 0: it is one.
      cluster: the workers.
      connect_secs: how long to wait for all of them.

    Attributes:
      count: replicas in all.
      local: the replicas of this process.
    """

    def __init__(
        self,
        strategy: str = "one_device",
        *,
        logical_devices: int = 0,
        cluster: Cluster = Cluster(),  # noqa: B008
        connect_secs: int = 15,
    ) -> None:
        if logical_devices:
            _split_cpu(logical_devices)
        self.cluster = cluster
        if strategy == "multi_worker":
            with self.peers():
                self._strategy = _connect(cluster, connect_secs)
        elif strategy == "mirrored":
            devices = [device.name for device in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
            self._strategy = tf.distribute.MirroredStrategy(devices)
        else:
            self._strategy = tf.distribute.get_strategy()
        self.count = self._strategy.num_replicas_in_sync
        here = self.count // len(cluster.workers)
        self.local = range(cluster.index * here, (cluster.index + 1) * here)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory."""
        return self.cluster.is_chief

    def scope(self) -> contextlib.AbstractContextManager:
        """Within it variables are made that every replica has a copy of."""
        return self._strategy.scope()

    def run(self, step: Callable[[int], Any]) -> Any:
        """Part of a compiled step: calls `step` with the number of each replica of this process; what the first one gives is returned.

        What a replica is to learn of the others, it gets by `sum_over_replicas`, so that all give the same.
        """

        def of_replica() -> Any:
            return step(self._number_here())

        results = self._strategy.run(of_replica)
        return tf.nest.map_structure(lambda result: self._strategy.experimental_local_results(result)[0], results)

    def _number_here(self) -> int:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        known = tf.get_static_value(number)
        return int(number if known is None else known)

    def gather(self, text: str) -> list[str]:
        """The text of each worker, in their order; all of them must call it, and wait for each other."""
        if len(self.cluster.workers) == 1:
            return [text]
        data = text.encode()
        longest = int(self._sum(tf.one_hot(self.cluster.index, len(self.cluster.workers), len(data), 0, dtype=tf.int64)).numpy().max())
        mine = tf.pad(tf.constant(list(data), tf.int64) + 1, [[0, longest - len(data)]])
        rows = tf.one_hot(self.cluster.index, len(self.cluster.workers), dtype=tf.int64)[:, None] * mine
        return [bytes((row[row > 0] - 1).tolist()).decode() for row in self._sum(rows).numpy()]

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        # Of all workers: each counts once, by its first replica.
        @tf.function(autograph=False)
        def exchange(values):
            return self.run(lambda number: sum_over_replicas(values if number == self.local.start else tf.zeros_like(values)))

        return exchange.get_concrete_function(values)(values)  # TensorFlow warns of one that is often traced in a call.

    def agree(self, facts: dict[str, str]) -> None:
        """Waits for all workers; raises InputError on each of them, naming worker and difference, when their facts are not the chief's."""
        said = [json.loads(text) for text in self.gather(json.dumps(facts))]
        differences = [
            f"{name} is {said[0].get(name)} on worker 0 and {other.get(name)} on worker {worker}"
            for worker, other in enumerate(said)
            for name in sorted(said[0].keys() | other.keys())
            if other.get(name) != said[0].get(name)
        ]
        if differences:
            raise InputError(f"All workers must be started alike, but {'; '.join(differences)}.")

    def share(self, directory: pathlib.Path, token: str | None) -> None:
        """Waits for all workers; raises InputError on each of them when not all see the chief's run directory.

        Args:
          directory: where this worker looks for it; the path may be another one on each machine.
          token: what the chief wrote there at its start, as this worker reads it.
        """
        said = [json.loads(text) for text in self.gather(json.dumps([str(directory), token]))]
        strangers = [f"worker {number} does not see it in {path}" for number, (path, read) in enumerate(said) if read != said[0][1]]
        if strangers:
            raise InputError(
                f"All workers must share the run directory of worker 0, {said[0][0]}, but {', and '.join(strangers)}; "
                f"give each of them a --workdir that is this directory, on a filesystem that their machines share."
            )

    @contextlib.contextmanager
    def peers(self) -> Iterator[None]:
        """Within it a worker that is gone, or does not come, is a PeerLostError."""
        try:
            yield
        except _EXCHANGE_ERRORS as error:
            if len(self.cluster.workers) == 1:
                raise
            raise PeerLostError(
                f"All {len(self.cluster.workers)} workers must train together, but one is gone ({type(error).__name__}); "
                f"start all of them again by the same command."
            ) from error


def sum_over_replicas(values: Any) -> Any:
    """The sum over all replicas of each tensor of a structure, on every replica; part of a compiled step."""
    here = tf.nest.map_structure(tf.identity, values)  # TensorFlow asks on which device a value is, and one from outside is on none.
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)


def _connect(cluster: Cluster, secs: int) -> tf.distribute.Strategy:
    """The strategy of these workers; raises PeerLostError when not all have come within `secs`.

    Left alone, TensorFlow starts a coordination service, whose wait for workers heeds neither a limit of time nor a signal, and which takes
    SIGTERM for itself. Without it the strategy waits in an exchange, then looks after its peers in a thread. No public name tells it so.
    """
    context.context().configure_coordination_service(service_type="")
    logging.getLogger("tensorflow").addFilter(_reword)
    CollectiveAllReduceExtended._check_health_initial_timeout = secs
    CollectiveAllReduceExtended._check_health_interval = CollectiveAllReduceExtended._check_health_timeout = _HEALTH_SECS
    # Of TF_CONFIG it takes what was checked alone: the workers, and nothing else that may stand there.
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver("worker", cluster.index, rpc_layer="grpc")
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_EXCHANGE_SECS)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except tf.errors.UnknownError as error:
        if "Could not start gRPC server" not in str(error):
            raise
        raise port_error(cluster, "TensorFlow found it taken") from error
    except RuntimeError as error:
        raise PeerLostError(
            f"All {len(cluster.workers)} workers must train together, but not all have come within {secs} s "
            f"(--connect_secs); start all of them by the same command."
        ) from error


def _reword(record: logging.LogRecord) -> bool:
    # What TensorFlow's look after the others says; it names them by their devices, and repeats what gRPC said.
    message = str(record.msg)
    if message.startswith("Cluster check alive failed"):
        return False  # The exchange that waits for the worker ends now, which is our own error; where none does, nothing is lost.
    if "seems down" in message and isinstance(record.args, tuple) and record.args:
        record.msg, record.args = "Worker %s does not answer; it is asked again.", (str(record.args[0]).rpartition(":")[2],)
    return True


def _split_cpu(count: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def conditions(
    *,
    numerics: dict[str, str],
    intra_op: int,
    inter_op: int,
    replicas: Replicas | None = None,
) -> dict[str, str]:
    """What has to be equal for a resumed run to have the bits of an uninterrupted one.

    Args:
      numerics: the ids of our own code that decides bits, by name.
      intra_op: the threads that share an operation, as for `set_threads`.
      inter_op: the operations at a time, as for `set_threads`.
      replicas: who trains together; None: one device.
    """
    devices = sorted({device.device_type for device in tf.config.list_logical_devices()})
    environment = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_ENVIRONMENT)]
    # Cores decide bits only through the number of threads, which is theirs where TensorFlow decides it.
    cores = {} if intra_op and inter_op else {_CORES: str(machine.usable_cores())}
    return {
        **{package: importlib.metadata.version(package) for package in ("tensorflow", "keras", "numpy")},
        **machine.cpu(),
        **cores,
        "devices": " ".join(devices),
        "replicas": str(replicas.count if replicas else 1),
        "environment": " ".join(environment),
        **numerics,
    }


def differences(stored: str, now: dict[str, str]) -> list[str]:
    """Each condition that is not what the run was begun under: its name, the run's value and today's."""
    before = json.loads(stored)
    names = before.keys() | now.keys()
    if _CORES not in now:  # Older versions recorded it whatever the threads were.
        names -= {_CORES}
    return [
        f"{name} was {before.get(name, 'not recorded')!r} and is {now.get(name, 'not recorded')!r} now"
        for name in sorted(names)
        if before.get(name) != now.get(name)
    ]
