"""The devices and processes that train together, and what they exchange; the only user of tf.distribute.

A replica is a device that computes its slice of each batch; a worker is a process with one or more replicas.
"""

import contextlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import tensorflow as tf
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
from tensorflow.python.eager import context

from trainer import machine
from trainer.errors import InputError, PeerLostError
from trainer.run.cluster import Cluster, port_error

T = TypeVar("T")

_HEALTH_SECS = 5  # between two checks that the other workers are alive; also the time limit of each check
_EXCHANGE_SECS = 3600  # the time limit of an exchange; a worker that dies during one is noticed at once

# What an exchange raises when a worker is gone, or was replaced by another process.
_EXCHANGE_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


def set_threads(*, intra_op: int, inter_op: int) -> None:
    """Sets the threads of TensorFlow; call it before TensorFlow runs any operation.

    Args:
      intra_op: how many threads share an operation, which can affect bits; 0: TensorFlow decides.
      inter_op: how many operations run at a time, which affects none; 0: one for each usable core, at least
        two.
    """
    tf.config.threading.set_intra_op_parallelism_threads(intra_op)
    tf.config.threading.set_inter_op_parallelism_threads(inter_op or max(2, machine.usable_cores()))


class Replicas:
    """The replicas that train together. Create it before TensorFlow runs any operation.

    Args:
      strategy: one_device, mirrored (all GPUs, or all logical CPUs) or multi_worker.
      logical_devices: how many devices to split the CPU into; 0: it is not split.
      cluster: the workers.
      connect_secs: how long to wait for all workers.

    Attributes:
      count: the replicas of all workers.
      local: the numbers of this process's replicas.
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
            devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            self._strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
        else:
            self._strategy = tf.distribute.get_strategy()
        self.count = self._strategy.num_replicas_in_sync
        here = self.count // len(cluster.workers)
        self.local = range(cluster.index * here, (cluster.index + 1) * here)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory."""
        return self.cluster.is_chief

    def scope(self) -> contextlib.AbstractContextManager[object]:
        """A scope in which new variables get a copy on every replica."""
        return self._strategy.scope()

    def run(self, step: Callable[[int], T]) -> T:
        """Calls `step` with the number of each replica of this process; part of a compiled step.

        Replicas exchange values only by `sum_over_replicas`, so that all calls return the same values.

        Returns:
          What the first call returned, a tensor or a structure of tensors.
        """

        def of_replica() -> T:
            return step(self._number_here())

        results = self._strategy.run(of_replica)
        return tf.nest.map_structure(
            lambda result: self._strategy.experimental_local_results(result)[0], results
        )

    def _number_here(self) -> int:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        known = tf.get_static_value(number)
        return int(number if known is None else known)

    def gather(self, text: str) -> list[str]:
        """The text of each worker, in their order. All workers must call it; they wait for each other."""
        workers, index = len(self.cluster.workers), self.cluster.index
        if workers == 1:
            return [text]
        data = text.encode()
        lengths = self._sum(tf.one_hot(index, workers, len(data), 0, dtype=tf.int64))
        longest = int(lengths.numpy().max())
        # One row for each worker, of its bytes plus 1: 0 is padding.
        own = tf.pad(tf.constant(list(data), tf.int64) + 1, [[0, longest - len(data)]])
        rows = self._sum(tf.one_hot(index, workers, dtype=tf.int64)[:, None] * own)
        return [bytes((row[row > 0] - 1).tolist()).decode() for row in rows.numpy()]

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        # Sums over workers: each contributes once, through its first replica.
        @tf.function(autograph=False)
        def exchange(values: tf.Tensor) -> tf.Tensor:
            return self.run(
                lambda number: sum_over_replicas(
                    values if number == self.local.start else tf.zeros_like(values)
                )
            )

        # A concrete function, because TensorFlow warns about functions that are traced often.
        return exchange.get_concrete_function(values)(values)

    def _wait_for_all(self) -> None:
        # A worker that ended at once could take the last answer with it that another one still waits for.
        with contextlib.suppress(*_EXCHANGE_ERRORS):
            self._sum(tf.constant(0, tf.int64))

    def agree(self, facts: dict[str, str]) -> None:
        """Waits for all workers, and compares their facts with the chief's.

        Raises:
          InputError: on every worker, when they differ; names worker and difference.
        """
        of_chief, *others = [json.loads(text) for text in self.gather(json.dumps(facts))]
        differences = [
            f"{name} is {of_chief.get(name)} on worker 0 and {other.get(name)} on worker {worker}"
            for worker, other in enumerate(others, start=1)
            for name in sorted(of_chief.keys() | other.keys())
            if other.get(name) != of_chief.get(name)
        ]
        if differences:
            self._wait_for_all()
            raise InputError(
                f"All workers must be started alike, but {'; '.join(differences)}; "
                f"start all of them with the same command."
            )

    def share(self, directory: pathlib.Path, token: str | None) -> None:
        """Waits for all workers, and checks that they share the chief's run directory.

        Args:
          directory: where this worker looks for it; the path may differ between machines.
          token: what the chief wrote there at its start, as this worker reads it.

        Raises:
          InputError: on every worker, when one does not see it.
        """
        seen = [json.loads(text) for text in self.gather(json.dumps([str(directory), token]))]
        path_of_chief, token_of_chief = seen[0]
        missing = [
            f"worker {worker} does not see it in {path}"
            for worker, (path, token_read) in enumerate(seen)
            if token_read != token_of_chief
        ]
        if missing:
            self._wait_for_all()
            raise InputError(
                f"All workers must share the run directory of worker 0, {path_of_chief}, "
                f"but {', and '.join(missing)}; "
                f"give each a --workdir that is this directory, on a filesystem that their machines share."
            )

    @contextlib.contextmanager
    def peers(self) -> Iterator[None]:
        """Turns the errors of a lost or missing worker into a PeerLostError."""
        try:
            yield
        except _EXCHANGE_ERRORS as error:
            if len(self.cluster.workers) == 1:
                raise
            raise PeerLostError(
                f"All {len(self.cluster.workers)} workers must train together, but one is gone "
                f"({type(error).__name__}); restart all of them with the same command."
            ) from error


def sum_over_replicas(values: T) -> T:
    """The sum over all replicas of each tensor of a structure, on every replica; part of a compiled step."""
    # TensorFlow needs the device of each value, and a value from outside the step has none.
    here = tf.nest.map_structure(tf.identity, values)
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, here)


def _connect(cluster: Cluster, secs: int) -> tf.distribute.Strategy:
    """The strategy of these workers; raises PeerLostError when not all of them connect within `secs`.

    By default TensorFlow starts a coordination service. It waits for workers without respecting time limits
    or signals, and it takes over SIGTERM. Without it the strategy waits in an exchange, then checks its peers
    in a thread. No public API turns it off.
    """
    context.context().configure_coordination_service(service_type="")
    logging.getLogger("tensorflow").addFilter(_reword)
    CollectiveAllReduceExtended._check_health_initial_timeout = secs
    CollectiveAllReduceExtended._check_health_interval = _HEALTH_SECS
    CollectiveAllReduceExtended._check_health_timeout = _HEALTH_SECS
    # It uses only the part of TF_CONFIG that was checked: the list of workers.
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver(
        "worker", cluster.index, rpc_layer="grpc"
    )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_EXCHANGE_SECS)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except tf.errors.UnknownError as error:
        if "Could not start gRPC server" not in str(error):
            raise
        raise port_error(cluster, "TensorFlow found it taken") from error
    except RuntimeError as error:
        raise PeerLostError(
            f"All {len(cluster.workers)} workers must train together, but not all have connected "
            f"within {secs} s (--connect_secs); start all of them with the same command."
        ) from error


def _reword(record: logging.LogRecord) -> bool:
    # Rewords what TensorFlow logs about its checks: it names workers by their devices, and repeats gRPC
    # errors.
    message = str(record.msg)
    if message.startswith("Cluster check alive failed"):
        return False  # If this worker waits for it in an exchange, that raises, and we report it.
    if "seems down" in message and isinstance(record.args, tuple) and record.args:
        worker = str(record.args[0]).rpartition(":")[2]
        record.msg, record.args = "Worker %s does not answer; checking again.", (worker,)
    return True


def _split_cpu(count: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
