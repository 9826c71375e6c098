"""The verdict after an evaluation: best metric, patience, stop."""

import math
import types

import keras
import numpy as np
import pytest

from trainer.run.early_stopping import (
    initial,
    initial_plateau,
    plateau_verdict,
    stop_reason,
    verdict,
)


def states_after(values, *, lower_is_better=True, initial_best=None, min_delta=0.0, baseline=None, start=0):
    """The state after each of `values`; the first is that of step 1."""
    states, state = [], initial(lower_is_better=lower_is_better, initial_best=initial_best)
    for evaluation, value in enumerate(values):
        state = verdict(
            state,
            value,
            step=evaluation + 1,
            lower_is_better=lower_is_better,
            min_delta=min_delta,
            baseline=baseline,
            counts_for_patience=evaluation >= start,
        )
        states.append(state)
    return states


def best_so_far(states):
    """For each evaluation, whether it was the best so far."""
    return [state.best_step == step for step, state in enumerate(states, start=1)]


def test_best_requires_strict_improvement():
    states = states_after([0.5, 0.5, 0.4, 0.45])
    assert best_so_far(states) == [True, False, True, False]
    assert (states[-1].best_metric, states[-1].best_step) == (0.4, 3)


def test_higher_is_better_when_lower_is_better_is_false():
    assert best_so_far(states_after([0.5, 0.6, 0.6, 0.7], lower_is_better=False)) == [True, True, False, True]


def test_only_a_metric_better_than_initial_best_is_best():
    assert best_so_far(states_after([0.5, 0.4, 0.39], initial_best=0.4)) == [False, False, True]


def test_a_verdict_does_not_modify_the_previous_state():
    before = initial(lower_is_better=True, initial_best=None)
    expected = before._replace()
    after = verdict(
        before, 0.5, step=1, lower_is_better=True, min_delta=0.0, baseline=None, counts_for_patience=True
    )
    assert before == expected
    assert after == (0.5, 1, 0.5, 0, True)


def test_an_evaluation_before_start_from_epoch_may_be_best_but_does_not_count_for_patience():
    states = states_after([0.5, 0.6, 0.7], start=2)
    assert best_so_far(states) == [True, False, False]
    assert [state.waited for state in states] == [0, 0, 0]
    assert [state.patience_reference for state in states] == [math.inf, math.inf, 0.7]


@pytest.mark.parametrize("lower_is_better", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_nan_and_infinity_are_never_best_and_count_as_no_improvement(lower_is_better, bad, position):
    values = [0.5, 0.5, 0.5]
    values.insert(position, bad)
    states = states_after(values, lower_is_better=lower_is_better)
    assert best_so_far(states).count(True) == 1
    assert not best_so_far(states)[position]
    assert states[-1].best_metric == 0.5
    assert math.isfinite(states[-1].patience_reference)
    assert states[position].waited == (1 if position == 0 else position)


@pytest.mark.parametrize("min_delta", [0.0, 0.05])
@pytest.mark.parametrize("baseline", [None, 0.5])
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("lower_is_better", [True, False])
@pytest.mark.parametrize("patience", [1, 2, 4])
def test_patience_stops_where_keras_stops(min_delta, baseline, start, lower_is_better, patience):
    for seed in range(20):
        values = np.random.default_rng(seed).random(30).tolist()
        keras_stop = _keras_stop_epoch(values, min_delta, baseline, start, lower_is_better, patience)
        states = states_after(
            values, lower_is_better=lower_is_better, min_delta=min_delta, baseline=baseline, start=start
        )
        stops = [
            evaluation for evaluation, state in enumerate(states) if _stops(state, evaluation + 1, patience)
        ]
        assert next(iter(stops), None) == keras_stop


def _stops(state, step, patience):
    counts = {"waited": state.waited, "improved": state.improved}
    return stop_reason(step=step, epochs=100, steps_per_epoch=1, patience=patience, **counts) is not None


def _keras_stop_epoch(values, min_delta, baseline, start, lower_is_better, patience):
    callback = keras.callbacks.EarlyStopping(
        monitor="metric",
        mode="min" if lower_is_better else "max",
        min_delta=min_delta,
        baseline=baseline,
        start_from_epoch=start,
        patience=patience,
    )
    callback.set_model(types.SimpleNamespace(stop_training=False))
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"metric": value})
        if callback.model.stop_training:
            return epoch
    return None


def test_a_run_stops_after_its_epochs_or_its_patience_and_the_reason_says_which():
    kwargs = {"waited": 2, "improved": False, "epochs": 3, "steps_per_epoch": 10}
    assert stop_reason(step=29, patience=0, **kwargs) is None
    assert stop_reason(step=30, patience=0, **kwargs) == "--epochs=3 done"
    assert stop_reason(step=29, patience=3, **kwargs) is None
    reason = "no improvement in 2 evaluations in a row, and --patience=2"
    assert stop_reason(step=29, patience=2, **kwargs) == reason
    reason = "no improvement in 1 evaluation in a row, and --patience=1"
    assert stop_reason(step=29, patience=1, **{**kwargs, "waited": 1}) == reason


class OfKeras(keras.callbacks.ReduceLROnPlateau):
    """Keras' own callback, fed with one metric after the other."""

    def __init__(self, **options):
        super().__init__(monitor="metric", **options)
        self.set_model(types.SimpleNamespace(optimizer=keras.optimizers.SGD(1.0)))
        self.on_train_begin()

    def rate_after(self, metric):
        self.on_epoch_end(0, {"metric": metric})
        return float(self.model.optimizer.learning_rate.value)


@pytest.mark.parametrize("lower_is_better", [True, False])
@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0.0), (2, 0.0), (2, 0.05), (3, 0.1)])
def test_the_learning_rate_is_reduced_when_keras_reduces_it(patience, min_delta, lower_is_better):
    mode = "min" if lower_is_better else "max"
    theirs = OfKeras(factor=0.5, patience=patience, min_delta=min_delta, mode=mode)
    ours = initial_plateau(lower_is_better=lower_is_better)
    for metric in np.random.default_rng(patience).uniform(0, 1, 40).round(2).tolist():
        ours = plateau_verdict(
            ours,
            metric,
            lower_is_better=lower_is_better,
            min_delta=min_delta,
            patience=patience,
            factor=0.5,
        )
        assert ours.scale == pytest.approx(theirs.rate_after(metric))
    assert ours.scale < 1.0


def test_a_metric_that_is_not_finite_is_no_improvement_for_the_learning_rate():
    rules = {"lower_is_better": True, "min_delta": 0.0, "patience": 2, "factor": 0.1}
    plateau = initial_plateau(lower_is_better=True)
    for metric in (1.0, math.nan, -math.inf):
        plateau = plateau_verdict(plateau, metric, **rules)
    assert (plateau.reference, plateau.waited, plateau.scale) == (1.0, 0, 0.1)
