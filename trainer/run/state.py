"""The state of a run: everything that determines its future."""

from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

from trainer.run import early_stopping
from trainer.run.early_stopping import MonitorState


class Sums(NamedTuple):
    """Exact sums over reviews; each field a float64 scalar."""

    loss: float = 0.0
    correct: float = 0.0
    reviews: float = 0.0
    real_tokens: float = 0.0
    padded_tokens: float = 0.0


class Adam(keras.optimizers.Adam):
    """Keras' Adam for gradients that are already summed over the replicas; Keras would sum them again."""

    def _all_reduce_sum_gradients(
        self, grads_and_vars: list[tuple[tf.Tensor, keras.Variable]]
    ) -> list[tuple[tf.Tensor, keras.Variable]]:
        return grads_and_vars


class Model(Protocol):
    """A trackable model: token_ids int32 [batch, time], lengths int32 [batch] -> logits float32."""

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The weights, always in the same order."""

    def __call__(
        self,
        token_ids: tf.Tensor,
        lengths: tf.Tensor,
        *,
        training_step: tf.Tensor | None = None,
        position: tuple[int, int] = (0, 1),
    ) -> tf.Tensor:
        """The logits, [batch] or [batch, classes].

        In training, those of slice `position` = (slice, slices) of the step's batch.
        """


class TrainState(tf.Module):
    """What one checkpoint holds; two runs with equal states continue identically.

    Attributes:
      model: the classifier.
      optimizer: a Keras optimizer, built here so that its slots exist before they are restored.
      step: int64 scalar, the number of training steps done.
      best_metric, patience_reference: float64 scalars; best_step, waited: int64 scalars; improved: bool
        scalar; the variables of `monitor_state`.
      since_log, since_evaluation: float64 [5], training `Sums` since the last log and the last evaluation.
      frozen_flags, fingerprints, conditions: string scalars, what the run was started with.
      free_flags: string scalar, the settings that each start may change; empty in best checkpoints, because
        they do not influence which state is best.
    """

    def __init__(
        self,
        *,
        model: Model,
        optimizer: keras.optimizers.Optimizer,
        lower_is_better: bool,
        initial_best: float | None,
        frozen_flags: str,
        fingerprints: str,
        conditions: str,
        free_flags: str = "",
    ) -> None:
        super().__init__()
        optimizer.build(model.trainable_variables)
        monitor = early_stopping.initial(lower_is_better=lower_is_better, initial_best=initial_best)
        self.model = model
        self.optimizer = optimizer
        self.step = tf.Variable(0, dtype=tf.int64)
        self.best_metric = tf.Variable(monitor.best_metric, dtype=tf.float64)
        self.best_step = tf.Variable(monitor.best_step, dtype=tf.int64)
        self.patience_reference = tf.Variable(monitor.patience_reference, dtype=tf.float64)
        self.waited = tf.Variable(monitor.waited, dtype=tf.int64)
        self.improved = tf.Variable(monitor.improved)
        self.since_log = tf.Variable(tf.zeros(len(Sums._fields), tf.float64))
        self.since_evaluation = tf.Variable(tf.zeros(len(Sums._fields), tf.float64))
        self.frozen_flags = tf.Variable(frozen_flags)
        self.fingerprints = tf.Variable(fingerprints)
        self.conditions = tf.Variable(conditions)
        self.free_flags = tf.Variable(free_flags)

    @property
    def monitor_state(self) -> MonitorState:
        """The best metric and patience, read from the variables."""
        return MonitorState(
            best_metric=float(self.best_metric),
            best_step=int(self.best_step),
            patience_reference=float(self.patience_reference),
            waited=int(self.waited),
            improved=bool(self.improved),
        )

    def assign_monitor_state(self, value: MonitorState) -> None:
        """Writes the best metric and patience into the variables, to be saved."""
        for name, field in value._asdict().items():
            getattr(self, name).assign(field)

    def add_sums(self, values: tf.Tensor) -> None:
        """Adds a training step's `Sums`, float64 [5]; part of the compiled step."""
        self.since_log.assign_add(values)
        self.since_evaluation.assign_add(values)

    def reset_since_evaluation(self) -> None:
        """Sets the sums since the last evaluation to zero, at an evaluation."""
        self.since_evaluation.assign(tf.zeros_like(self.since_evaluation))
