"""Best metric, patience and early stopping: plain values and pure functions."""

import math
from typing import NamedTuple

from trainer.words import plural


class MonitorState(NamedTuple):
    """What the evaluations so far say about the monitored metric.

    Attributes:
      best_metric: the best value; before the first, the value to beat.
      best_step: the step of `best_metric`; -1 before the first.
      patience_reference: the value that patience compares with.
      waited: evaluations since the last one that improved `patience_reference` and beat the baseline.
      improved: whether the last evaluation improved `patience_reference`.
    """

    best_metric: float
    best_step: int
    patience_reference: float
    waited: int
    improved: bool


class Plateau(NamedTuple):
    """When the learning rate is reduced, as by keras.callbacks.ReduceLROnPlateau.

    Attributes:
      reference: the value of the monitored metric that the next ones are compared with.
      waited: evaluations since one improved it, or since the last reduction.
      scale: what the learning rate is multiplied by.
    """

    reference: float
    waited: int
    scale: float


def initial_plateau(*, lower_is_better: bool) -> Plateau:
    """The state before the first evaluation."""
    return Plateau(math.inf if lower_is_better else -math.inf, 0, 1.0)


def plateau_verdict(
    before: Plateau, metric: float, *, lower_is_better: bool, min_delta: float, patience: int, factor: float
) -> Plateau:
    """The state after an evaluation; NaN and infinity never improve anything.

    Args:
      before: the state after the previous evaluation.
      metric: the monitored value.
      lower_is_better: whether a lower metric is better.
      min_delta: the smallest change that counts as an improvement.
      patience: how many evaluations in a row without improvement reduce the learning rate.
      factor: what it is multiplied by then.
    """
    sign = -1.0 if lower_is_better else 1.0
    if math.isfinite(metric) and sign * metric - min_delta > sign * before.reference:
        return before._replace(reference=metric, waited=0)
    if before.waited + 1 < patience:
        return before._replace(waited=before.waited + 1)
    return before._replace(waited=0, scale=before.scale * factor)


def initial(*, lower_is_better: bool, initial_best: float | None) -> MonitorState:
    """The state before the first evaluation; `initial_best` is the value that the first best must beat."""
    worst = math.inf if lower_is_better else -math.inf
    return MonitorState(
        best_metric=worst if initial_best is None else initial_best,
        best_step=-1,
        patience_reference=worst,
        waited=0,
        improved=False,
    )


def verdict(
    before: MonitorState,
    metric: float,
    *,
    step: int,
    lower_is_better: bool,
    min_delta: float,
    baseline: float | None,
    counts_for_patience: bool,
) -> MonitorState:
    """The state after an evaluation; the evaluation is the best so far when `best_step` is `step`.

    Best follows strict improvement. Patience has its own reference, as in keras.callbacks.EarlyStopping: a
    change below `min_delta` is no improvement, and `waited` restarts only at a value that also beats
    `baseline`. NaN and infinity never improve anything.

    Args:
      before: the state after the previous evaluation.
      metric: the monitored value.
      step: the training step of the evaluation.
      lower_is_better: whether a lower metric is better.
      min_delta: the smallest change that patience counts as an improvement.
      baseline: a value that must be beaten for `waited` to restart; None: no such value.
      counts_for_patience: whether this evaluation counts; one before `start_from_epoch` does not.
    """
    sign = -1.0 if lower_is_better else 1.0
    finite = math.isfinite(metric)
    after = before
    if finite and sign * metric > sign * before.best_metric:
        after = after._replace(best_metric=metric, best_step=step)
    if counts_for_patience:
        threshold = sign * metric - min_delta
        improved = finite and threshold > sign * before.patience_reference
        beats_baseline = improved and (baseline is None or threshold > sign * baseline)
        after = after._replace(
            patience_reference=metric if improved else before.patience_reference,
            waited=0 if beats_baseline else before.waited + 1,
            improved=improved,
        )
    return after


def stop_reason(
    *, step: int, waited: int, improved: bool, epochs: int, steps_per_epoch: int, patience: int
) -> str | None:
    """Why a run ends at this step, or None when it continues; derived, never stored."""
    if patience and waited >= patience and not improved:
        return f"no improvement in {plural(waited, 'evaluation')} in a row, and --patience={patience}"
    if step >= epochs * steps_per_epoch:
        return f"--epochs={epochs} done"
    return None
