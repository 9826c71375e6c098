"""The state that a checkpoint holds."""

import math

import numpy as np
import pytest
import tensorflow as tf
from fakes import make_state

from trainer.run.early_stopping import MonitorState, initial
from trainer.run.state import Sums

VARIABLES = {
    "step": (tf.int64, []),
    "best_metric": (tf.float64, []),
    "best_step": (tf.int64, []),
    "patience_reference": (tf.float64, []),
    "waited": (tf.int64, []),
    "improved": (tf.bool, []),
    "since_log": (tf.float64, [5]),
    "since_evaluation": (tf.float64, [5]),
    "frozen_flags": (tf.string, []),
    "fingerprints": (tf.string, []),
    "conditions": (tf.string, []),
    "free_flags": (tf.string, []),
}


def test_names_dtypes_and_shapes_in_a_checkpoint_are_pinned(tmp_path):
    reader = tf.train.load_checkpoint(tf.train.Checkpoint(root=make_state()).write(str(tmp_path / "ckpt")))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    saved = {
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): (dtypes[name], shapes[name]) for name in shapes
    }
    parts = ("model/", "optimizer/", "save_counter", "_CHECKPOINTABLE_OBJECT_GRAPH")
    assert {name: saved[name] for name in saved if not name.startswith(parts)} == VARIABLES


@pytest.mark.parametrize("lower_is_better", [True, False])
@pytest.mark.parametrize("initial_best", [None, 0.4])
def test_a_new_state_holds_the_initial_monitor_state(lower_is_better, initial_best):
    rules = {"lower_is_better": lower_is_better, "initial_best": initial_best}
    assert make_state(**rules).monitor_state == initial(**rules)


@pytest.mark.parametrize(
    "value",
    [
        MonitorState(best_metric=0.1, best_step=2**40, patience_reference=1 / 3, waited=7, improved=True),
        MonitorState(
            best_metric=-math.inf, best_step=-1, patience_reference=math.inf, waited=0, improved=False
        ),
    ],
)
def test_a_monitor_state_is_read_back_as_assigned(value):
    state = make_state()
    state.assign_monitor_state(value)
    assert state.monitor_state == value
    assert [type(field) for field in state.monitor_state] == [float, int, float, int, bool]
    held = [getattr(state, name).numpy() for name in MonitorState._fields]
    assert held == list(value)
    assert [field.dtype for field in held] == [np.float64, np.int64, np.float64, np.int64, np.bool]


def test_reset_since_evaluation_keeps_the_sums_since_the_last_log():
    state = make_state()
    state.add_sums(Sums(loss=2.0, correct=1.0, reviews=3.0, real_tokens=4.0, padded_tokens=5.0))
    assert state.since_evaluation.numpy().tolist() == [2.0, 1.0, 3.0, 4.0, 5.0]
    state.reset_since_evaluation()
    assert state.since_evaluation.numpy().tolist() == [0.0] * 5
    assert state.since_log.numpy().tolist() == [2.0, 1.0, 3.0, 4.0, 5.0]
