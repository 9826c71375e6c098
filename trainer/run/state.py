"""Everything that decides the future of a run, and the verdict after an evaluation."""

import math
from typing import NamedTuple

import keras
import tensorflow as tf


class Sums(NamedTuple):
    """Exact sums over reviews; each field a float64 scalar."""

    loss: float = 0.0
    correct: float = 0.0
    reviews: float = 0.0
    real_tokens: float = 0.0
    padded_tokens: float = 0.0


class Adam(keras.optimizers.Adam):
    """Keras' Adam for gradients that are summed over the replicas before they are clipped; Keras would sum them once more."""

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


class TrainState(tf.Module):
    """What one checkpoint holds; two runs with equal states have equal futures.

    Attributes:
      model: the classifier.
      optimizer: a Keras optimizer, built here so that its slots exist before they are restored.
      step: int64 scalar, training steps done.
      best_metric: float64 scalar, the best monitored value; before the first, what it has to beat.
      best_step: int64 scalar, the step of `best_metric`; -1 before the first.
      patience_reference: float64 scalar, the value that patience compares with.
      waited: int64 scalar, evaluations since `patience_reference` improved (beyond the baseline, where there is one).
      improved: bool scalar, whether the last evaluation improved `patience_reference`.
      since_log, since_evaluation: float64 [5], training `Sums` since the last log and the last evaluation.
      frozen_flags, fingerprints, conditions: string scalars, what the run was begun with.
      free_flags: string scalar, the settings that each start may change; empty in best checkpoints, of which they
        decide nothing.
    """

    def __init__(
        self,
        *,
        model: tf.Module,
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
        worst = math.inf if lower_is_better else -math.inf
        self.model = model
        self.optimizer = optimizer
        self.step = tf.Variable(0, dtype=tf.int64)
        self.best_metric = tf.Variable(worst if initial_best is None else initial_best, dtype=tf.float64)
        self.best_step = tf.Variable(-1, dtype=tf.int64)
        self.patience_reference = tf.Variable(worst, dtype=tf.float64)
        self.waited = tf.Variable(0, dtype=tf.int64)
        self.improved = tf.Variable(False)
        self.since_log = tf.Variable(tf.zeros(len(Sums._fields), tf.float64))
        self.since_evaluation = tf.Variable(tf.zeros(len(Sums._fields), tf.float64))
        self.frozen_flags = tf.Variable(frozen_flags)
        self.fingerprints = tf.Variable(fingerprints)
        self.conditions = tf.Variable(conditions)
        self.free_flags = tf.Variable(free_flags)

    def add_sums(self, values: tf.Tensor) -> None:
        """Counts a training step's `Sums`, float64 [5]; part of the compiled step."""
        self.since_log.assign_add(values)
        self.since_evaluation.assign_add(values)

    def record_evaluation(
        self, metric: float, *, lower_is_better: bool, min_delta: float, baseline: float | None, counts_for_patience: bool
    ) -> bool:
        """Takes the verdict on a monitored value into the state; returns whether it is the best so far.

        Best follows strict improvement. Patience has its own reference, as in keras.callbacks.EarlyStopping: a change below
        `min_delta` is no improvement, and `waited` starts anew only at a value that is better than `baseline` too. NaN and infinity
        never improve anything.
        """
        sign = -1.0 if lower_is_better else 1.0
        finite = math.isfinite(metric)
        is_best = finite and sign * metric > sign * float(self.best_metric)
        if is_best:
            self.best_metric.assign(metric)
            self.best_step.assign(self.step)
        if counts_for_patience:
            threshold = sign * metric - min_delta
            improved = finite and threshold > sign * float(self.patience_reference)
            if improved:
                self.patience_reference.assign(metric)
            beats_baseline = improved and (baseline is None or threshold > sign * baseline)
            self.waited.assign(0 if beats_baseline else self.waited + 1)
            self.improved.assign(improved)
        self.since_evaluation.assign(tf.zeros_like(self.since_evaluation))
        return is_best


def stop_reason(*, step: int, waited: int, improved: bool, epochs: int, steps_per_epoch: int, patience: int) -> str | None:
    """Why a run ends at this step, or None when it goes on; derived, never stored."""
    if patience and waited >= patience and not improved:
        return f"no improvement in {waited} evaluations in a row, and --patience={patience}"
    if step >= epochs * steps_per_epoch:
        return f"--epochs={epochs} done"
    return None
