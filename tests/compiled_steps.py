"""Compiled steps that the runs and the models of one test process share.

Tracing a step takes as long as the 24 steps of a tiny run. What the product's factory has traced for one run
computes the same for any other run of the same settings: the variables are inputs of the compiled graph, and
each run gives it its own. Starts in processes of their own trace their own steps: what only a new trace shows
is shown there, and `main_test` holds that the bits are the same.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import pytest
import tensorflow as tf

from trainer import classes, steps
from trainer.model import classifier, encoder, lstm, lstm_segments, ngrams, pooling
from trainer.run.distribution import Replicas
from trainer.run.state import TrainState

_traced: dict[tuple, tuple[tf.types.experimental.ConcreteFunction, list[int]]] = {}

Variables = Sequence[keras.Variable | tf.Variable]


def shared_train_step(make: Callable) -> Callable:
    """A `make_train_step` that traces one step for all states of a kind."""

    @functools.wraps(make)
    def make_train_step(state, replicas, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps, "_compiled_step", _shared_compiled_step(steps._compiled_step))
            return make(state, replicas, **options)

    return make_train_step


def _shared_compiled_step(compile_step: Callable) -> Callable:
    code = _values(vars(steps))

    def compiled_step(state, replicas, **options):
        step = compile_step(state, replicas, **options)
        kept = _kept_segments(state.model, options["rows"])
        kind = "train", *_kind(state.model, replicas), str(sorted(options.items())), *_kind_of(state)
        kind = *kind, kept, code
        return _shared(step, kind, _variables_of(state), replicas)

    return compiled_step


def shared_eval_step(make: Callable) -> Callable:
    """A `make_eval_step` that traces one step for all models of a kind."""

    @functools.wraps(make)
    def make_eval_step(model, replicas, **options):
        kind = ("evaluate", *_kind(model, replicas), str(sorted(options.items())))
        return _shared(make(model, replicas, **options), kind, _weights_of(model), replicas)

    return make_eval_step


def shared_predict_step(make: Callable) -> Callable:
    """A `make_predict_step` that traces one step for all models of a kind."""

    @functools.wraps(make)
    def make_predict_step(model):
        replicas = Replicas()
        return _shared(make(model), ("predict", *_kind(model, replicas)), _weights_of(model), replicas)

    return make_predict_step


def _weights_of(model: classifier.Classifier) -> Variables:
    tables = getattr(model, "ngrams", None)
    return [*model.trainable_variables, *([tables.log_ratios, tables.weights] if tables else [])]


def _variables_of(state: TrainState) -> Variables:
    # All that a step reads or writes.
    averages = state.average.trainable_variables if state.average else []
    scales = [] if state.plateau_scale is None else [state.plateau_scale]
    variables = [*_weights_of(state.model), *state.optimizer.variables, *averages, *state.accumulated]
    return [*variables, *scales, state.step, state.since_log, state.since_evaluation]


def _kind_of(state: TrainState) -> tuple:
    # What the graph of a training step depends on, beside its model.
    optimizer = {
        name: value for name, value in state.optimizer.get_config().items() if name != "learning_rate"
    }
    parts = state.average is not None, len(state.accumulated), state.plateau_scale is not None
    return type(state.optimizer), str(optimizer), parts


def _kept_segments(model: classifier.Classifier, rows: int) -> tuple:
    # What the graph of a training step depends on of the longest text: for a shard of any size.
    longest = model._encoder._longest
    return tuple(lstm._kept_segments(rows_of_shard, longest) for rows_of_shard in range(1, rows + 1))


def _kind(model: classifier.Classifier, replicas) -> tuple:
    # All that the graph of a step depends on beside the arguments of its factory; some tests patch the code.
    # What begins with _self_ is TensorFlow's own, and counts the restores.
    parts = [part for part in (model, model._encoder, getattr(model, "ngrams", None)) if part is not None]
    settings = [
        (name, str(value))
        for part in parts
        for name, value in sorted(vars(part).items())
        if isinstance(value, int | float | str | tuple) and not name.startswith(("_self_", "_longest"))
    ]
    shapes = tuple(tuple(variable.shape) for variable in _weights_of(model))
    places = (type(model), classifier, encoder, lstm, lstm_segments, ngrams, pooling, classes)
    return (
        type(model),
        tuple(settings),
        shapes,
        tuple(_values(vars(place)) for place in places),
        replicas.count,
    )


def _values(names: dict) -> tuple:
    return tuple(value for value in names.values() if callable(value) or isinstance(value, int | float))


def _shared(step, kind: tuple, variables: Variables, replicas) -> Callable:
    if replicas.count > 1:
        return step  # Of a variable on several devices each copy is an input of its own.
    handles = [
        (variable.value if isinstance(variable, keras.Variable) else variable).handle
        for variable in variables
    ]
    if kind not in _traced:
        concrete = step.get_concrete_function()
        order = {id(handle): number for number, handle in enumerate(handles)}
        # A KeyError here is a step that depends on something beside these variables, and can't be shared.
        _traced[kind] = concrete, [order[id(captured)] for captured in concrete.captured_inputs]
    concrete, numbers = _traced[kind]
    captures = [handles[number] for number in numbers]

    def call(*arguments: Any) -> tf.Tensor:
        concrete.set_external_captures(captures)
        return concrete(*arguments)

    return call
