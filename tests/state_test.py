"""The verdict after an evaluation: best, patience, stop."""

import math
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.run.state import Sums, TrainState, stop_reason


class OneWeight(tf.Module):
    """The smallest thing that can be trained."""

    def __init__(self):
        self.weight = keras.Variable(0.0)

    @property
    def trainable_variables(self):
        return [self.weight]


def make_state(**kwargs):
    defaults = {"lower_is_better": True, "initial_best": None, "frozen_flags": "", "fingerprints": "", "conditions": ""}
    return TrainState(model=OneWeight(), optimizer=keras.optimizers.Adam(), **{**defaults, **kwargs})


def judge(state, values, *, lower_is_better=True, min_delta=0.0, baseline=None, start=0):
    """The values that are best, with the state's count after each."""
    verdicts = []
    for evaluation, value in enumerate(values):
        state.step.assign_add(1)
        best = state.record_evaluation(
            value, lower_is_better=lower_is_better, min_delta=min_delta, baseline=baseline, counts_for_patience=evaluation >= start
        )
        verdicts.append((best, int(state.waited)))
    return verdicts


def test_best_follows_strict_improvement():
    state = make_state()
    assert [best for best, _ in judge(state, [0.5, 0.5, 0.4, 0.45])] == [True, False, True, False]
    assert (float(state.best_metric), int(state.best_step)) == (0.4, 3)


def test_more_is_better_where_the_mode_says_so():
    state = make_state(lower_is_better=False)
    assert [best for best, _ in judge(state, [0.5, 0.6, 0.6, 0.7], lower_is_better=False)] == [True, True, False, True]


def test_only_better_than_initial_best_is_best():
    state = make_state(initial_best=0.4)
    assert [best for best, _ in judge(state, [0.5, 0.4, 0.39])] == [False, False, True]


@pytest.mark.parametrize("lower_is_better", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_nan_and_infinity_are_never_best_and_count_as_no_improvement(lower_is_better, bad, position):
    values = [0.5, 0.5, 0.5]
    values.insert(position, bad)
    state = make_state(lower_is_better=lower_is_better)
    verdicts = judge(state, values, lower_is_better=lower_is_better)
    assert [best for best, _ in verdicts].count(True) == 1
    assert not verdicts[position][0]
    assert float(state.best_metric) == 0.5
    assert math.isfinite(float(state.patience_reference))
    assert verdicts[position][1] == (1 if position == 0 else position)


def test_the_sums_since_the_last_evaluation_start_anew_with_the_verdict():
    state = make_state()
    state.add_sums(Sums(loss=2.0, correct=1.0, reviews=3.0, real_tokens=4.0, padded_tokens=5.0))
    judge(state, [0.5])
    assert state.since_evaluation.numpy().tolist() == [0.0] * 5
    assert state.since_log.numpy().tolist() == [2.0, 1.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("min_delta", [0.0, 0.05])
@pytest.mark.parametrize("baseline", [None, 0.5])
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("lower_is_better", [True, False])
@pytest.mark.parametrize("patience", [1, 2, 4])
def test_patience_stops_where_keras_stops(min_delta, baseline, start, lower_is_better, patience):
    for seed in range(20):
        values = np.random.default_rng(seed).random(30).tolist()
        keras_stop = _stop_of_keras(values, min_delta, baseline, start, lower_is_better, patience)
        state = make_state(lower_is_better=lower_is_better)
        ours = None
        for evaluation, value in enumerate(values):
            state.record_evaluation(
                value,
                lower_is_better=lower_is_better,
                min_delta=min_delta,
                baseline=baseline,
                counts_for_patience=evaluation >= start,
            )
            reason = stop_reason(
                step=evaluation + 1,
                waited=int(state.waited),
                improved=bool(state.improved),
                epochs=100,
                steps_per_epoch=1,
                patience=patience,
            )
            if reason:
                ours = evaluation
                break
        assert ours == keras_stop


def _stop_of_keras(values, min_delta, baseline, start, lower_is_better, patience):
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


def test_a_run_ends_with_its_epochs_or_its_patience_and_says_which():
    kwargs = {"waited": 2, "improved": False, "epochs": 3, "steps_per_epoch": 10}
    assert stop_reason(step=29, patience=0, **kwargs) is None
    assert "--epochs=3" in stop_reason(step=30, patience=0, **kwargs)
    assert stop_reason(step=29, patience=3, **kwargs) is None
    assert "--patience=2" in stop_reason(step=29, patience=2, **kwargs)
