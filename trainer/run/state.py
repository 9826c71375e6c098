"""The state of a run: everything that determines its future."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from trainer.run import early_stopping
from trainer.run.early_stopping import MonitorState, Plateau


class Sums(NamedTuple):
    """Exact sums over reviews; each field a float64 scalar."""

    loss: float = 0.0
    correct: float = 0.0
    reviews: float = 0.0
    real_tokens: float = 0.0
    padded_tokens: float = 0.0


class Parts(Protocol):
    """The logits of the parts of a model, each [batch] or [batch, classes]; None without n-grams."""

    lstm: tf.Tensor
    ngrams: tf.Tensor | None
    features: Any

    @property
    def joined(self) -> tf.Tensor:
        """The logits of the model."""


class NGrams(Protocol):
    """A part of a model that is trained by gradient descent of its own."""

    @property
    def has_counts(self) -> bool:
        """Whether it knows the training texts."""

    def is_like(self, other: Any) -> bool:
        """Whether it could take over what another one has learned."""

    def copy(self, other: Any) -> None:
        """Takes it over."""

    def set_counts(self, counts: np.ndarray) -> None:
        """Makes it know them; int [classes, buckets]."""

    def gradient(self, features: Any, d_logits: tf.Tensor) -> tf.IndexedSlices:
        """The gradient of its weights, from that of its logits."""

    def descend(self, gradient: tf.Tensor | tf.IndexedSlices, factor: float | tf.Tensor) -> None:
        """Updates its weights."""


class Model(Protocol):
    """A trackable model: token_ids int32 [batch, time], lengths int32 [batch] -> logits float32."""

    ngrams: NGrams | None

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

    def parts(
        self,
        token_ids: tf.Tensor,
        lengths: tf.Tensor,
        *,
        training_step: tf.Tensor | None = None,
        position: tuple[int, int] = (0, 1),
    ) -> Parts:
        """The logits of each part."""


class TrainState(tf.Module):
    """What one checkpoint holds; two runs with equal states continue identically.

    Attributes:
      model: the classifier.
      optimizer: a Keras optimizer, built here so that its slots exist before they are restored.
      average: a model whose weights are a moving average of those of `model`; None without.
      accumulated: sums of gradients since the weights changed, and the number of their reviews; empty if they
        change at each step.
      step: int64 scalar, the number of training steps done.
      best_metric, patience_reference: float64; best_step, waited: int64; improved: bool
        scalar; the variables of `monitor_state`.
      plateau_reference, learning_rate_scale: float64 scalars; plateau_waited: int64 scalar; the variables of
        `plateau`, if the learning rate is reduced.
      since_log, since_evaluation: float64 [5], training `Sums` since the last log and the last evaluation.
      frozen_flags, fingerprints, conditions: string scalars, what the run was started with.
      free_flags: string scalar, the settings that each start may change; empty in best checkpoints, because
        they do not influence which state is best.
    """

    # Not set if there is none: an empty list would be in the checkpoint.
    accumulated: Sequence[tf.Variable] = ()

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
        average: Model | None = None,
        accumulates: bool = False,
        has_plateau: bool = False,
    ) -> None:
        super().__init__()
        optimizer.build(model.trainable_variables)
        monitor = early_stopping.initial(lower_is_better=lower_is_better, initial_best=initial_best)
        self.model = model
        self.optimizer = optimizer
        self.average = average
        if accumulates:
            sums = [tf.Variable(tf.zeros(weight.shape)) for weight in model.trainable_variables]
            self.accumulated = [*sums, tf.Variable(0.0)]
        self.step = tf.Variable(0, dtype=tf.int64)
        self.best_metric = tf.Variable(monitor.best_metric, dtype=tf.float64)
        self.best_step = tf.Variable(monitor.best_step, dtype=tf.int64)
        self.patience_reference = tf.Variable(monitor.patience_reference, dtype=tf.float64)
        self.waited = tf.Variable(monitor.waited, dtype=tf.int64)
        self.improved = tf.Variable(monitor.improved)
        self._has_plateau = has_plateau
        if has_plateau:
            plateau = early_stopping.initial_plateau(lower_is_better=lower_is_better)
            self.plateau_reference = tf.Variable(plateau.reference, dtype=tf.float64)
            self.plateau_waited = tf.Variable(plateau.waited, dtype=tf.int64)
            self.learning_rate_scale = tf.Variable(plateau.scale, dtype=tf.float64)
        self.since_log = tf.Variable(tf.zeros(len(Sums._fields), tf.float64))
        self.since_evaluation = tf.Variable(tf.zeros(len(Sums._fields), tf.float64))
        self.frozen_flags = tf.Variable(frozen_flags)
        self.fingerprints = tf.Variable(fingerprints)
        self.conditions = tf.Variable(conditions)
        self.free_flags = tf.Variable(free_flags)

    @property
    def evaluated(self) -> Model:
        """The model that is evaluated: the average, if there is one."""
        return self.average or self.model

    @property
    def plateau(self) -> Plateau | None:
        """What `--plateau_patience` has done so far, read from the variables; None without."""
        if not self._has_plateau:
            return None
        return Plateau(
            reference=float(self.plateau_reference),
            waited=int(self.plateau_waited),
            scale=float(self.learning_rate_scale),
        )

    @property
    def plateau_scale(self) -> tf.Variable | None:
        """The variable that the learning rate is multiplied by; None without."""
        return self.learning_rate_scale if self._has_plateau else None

    def assign_plateau(self, value: Plateau) -> None:
        """Writes it into the variables, to be saved."""
        self.plateau_reference.assign(value.reference)
        self.plateau_waited.assign(value.waited)
        self.learning_rate_scale.assign(value.scale)

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
