"""Compiled steps that the runs of one test process share.

Tracing a step takes as long as the 24 steps of a tiny run. What the product's factory has traced for one run
computes the same for any other run of the same settings: the variables are inputs of the compiled graph, and
each run gives it its own. Starts in processes of their own trace their own steps: what only a new trace shows
is shown there, and `main_test` holds that the bits are the same.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer import classes, steps
from trainer.model import classifier, encoder, lstm, lstm_segments, ngrams, pooling

_traced: dict[tuple, tuple[tf.types.experimental.ConcreteFunction, list[int]]] = {}


def shared_train_step(make: Callable) -> Callable:
    """A `make_train_step` that traces one step for all states of a kind."""

    @functools.wraps(make)
    def make_train_step(state, replicas, **options):
        step = make(state, replicas, **options)
        if state.plateau or state.average or state.accumulated or getattr(state.model, "ngrams", None):
            return step  # It depends on more variables than those below.
        optimizer = {
            name: value for name, value in state.optimizer.get_config().items() if name != "learning_rate"
        }
        kind = (
            "train",
            *_kind(state.model, replicas),
            str(sorted(options.items())),
            str(optimizer),
            steps._sums,
        )
        variables = [*state.model.trainable_variables, *state.optimizer.variables]
        return _shared(
            step, kind, [*variables, state.step, state.since_log, state.since_evaluation], replicas
        )

    return make_train_step


def shared_eval_step(make: Callable) -> Callable:
    """A `make_eval_step` that traces one step for all models of a kind."""

    @functools.wraps(make)
    def make_eval_step(model, replicas, **options):
        kind = ("evaluate", *_kind(model, replicas), str(sorted(options.items())))
        step = make(model, replicas, **options)
        if getattr(model, "ngrams", None):
            return step
        return _shared(step, kind, model.trainable_variables, replicas)

    return make_eval_step


def _kind(model: classifier.Classifier, replicas) -> tuple:
    # All that the graph of a step depends on beside the arguments of its factory; some tests patch the code.
    # What begins with _self_ is TensorFlow's own, and counts the restores.
    settings = sorted(
        (name, value)
        for name, value in {**vars(model._encoder), **vars(model)}.items()
        if isinstance(value, int | float) and not name.startswith("_self_")
    )
    shapes = tuple(tuple(variable.shape) for variable in model.trainable_variables)
    code = [
        value
        for place in (type(model), classifier, encoder, lstm, lstm_segments, ngrams, pooling, classes)
        for value in vars(place).values()
        if callable(value) or isinstance(value, int | float)
    ]
    return type(model), tuple(settings), shapes, tuple(code), replicas.count


def _shared(step, kind: tuple, variables: Sequence[keras.Variable | tf.Variable], replicas) -> Callable:
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
