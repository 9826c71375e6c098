"""The compiled training and evaluation steps: only mathematics, on one replica or several."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from trainer import classes, metrics
from trainer.data import input_pipeline
from trainer.data.input_pipeline import Batch, batch_spec
from trainer.metrics import Metrics
from trainer.parallel import on_pairs_of_cores
from trainer.run.distribution import Replicas, sum_over_replicas
from trainer.run.state import Model, Sums, TrainState
from trainer.schedule import Schedule

EVALUATION_BATCH_SIZE = 256  # reviews per replica

_STOP_REQUESTS = 3  # their place in the result of an evaluation step

Slices = tuple[Batch[Any], ...]  # of one batch, one for each replica of this process
TrainStep = Callable[[Slices, float], tf.Tensor]
EvalStep = Callable[[Slices, float], tf.Tensor]


def _signature(rows: int, replicas: Replicas) -> list[object]:
    # For any number of time steps, so that a step is traced once.
    return [(batch_spec(rows),) * len(replicas.local), tf.TensorSpec([], tf.float64)]


class Updates(NamedTuple):
    """How the gradients of a step change the weights.

    Attributes:
      learning_rate: the optimizer's, before any schedule.
      schedule: what it is multiplied by.
      clip_norm: global norm that gradients are clipped to; 0.0: no clipping.
      accumulate: the steps whose gradients are averaged for one change.
      ema_momentum: of the moving average of the weights, if the state has one.
    """

    learning_rate: float = 0.0
    schedule: Schedule = Schedule()
    clip_norm: float = 0.0
    accumulate: int = 1
    ema_momentum: float = 0.0


_PLAIN = Updates()


def make_train_step(
    state: TrainState,
    replicas: Replicas,
    *,
    batch_size: int,
    updates: Updates = _PLAIN,
    class_weights: Sequence[float] = (),
) -> TrainStep:
    """Compiles the step (slices of a batch, stop request) -> float64 [3], which updates the state.

    A stop request is 1.0 if this process wants to stop, else 0.0. The result is for the whole batch: loss,
    global norm of the gradients, and sum of the stop requests. Each review's loss is multiplied by its class'
    weight, if there are any; the metrics are not.
    """
    make = functools.partial(
        _compiled_step,
        state,
        replicas,
        rows=input_pipeline.slice_rows(batch_size, replicas.count),
        updates=updates,
        class_weights=class_weights,
    )
    changing = make(changes_weights=True)
    if updates.accumulate == 1:
        return changing
    accumulating = make(changes_weights=False)

    def step(batches: Slices, stop: float) -> tf.Tensor:
        is_last = (int(state.step) + 1) % updates.accumulate == 0
        return (changing if is_last else accumulating)(batches, stop)

    return step


def _compiled_step(
    state: TrainState,
    replicas: Replicas,
    *,
    rows: int,
    updates: Updates,
    class_weights: Sequence[float],
    changes_weights: bool,
) -> TrainStep:
    # A step that changes the weights, or one that only accumulates its gradients.
    @tf.function(autograph=False, input_signature=_signature(rows, replicas))
    def train_step(batches: Slices, stop: tf.Tensor) -> tf.Tensor:
        factor = _learning_rate_factor(state, updates.schedule)
        if factor is not None:
            state.optimizer.learning_rate.assign(updates.learning_rate * factor)

        def step_of_replica(number: int) -> tuple[Any, ...]:
            batch = batches[number - replicas.local.start]
            results, gradients, of_ngrams = _gradients(state, replicas, number, batch, stop, class_weights)
            if state.accumulated:
                gradients = _with_accumulated(state, gradients, batch.reviews, mean=changes_weights)
            norm = tf.linalg.global_norm(gradients)
            if changes_weights:
                if updates.clip_norm:
                    gradients, _ = tf.clip_by_global_norm(gradients, updates.clip_norm, use_norm=norm)
                state.optimizer.apply(gradients, state.model.trainable_variables)
            *sums, loss, stops = tf.unstack(results)
            returned = tf.stack([loss, tf.cast(norm, tf.float64), stops])
            return tf.stack(sums), returned, of_ngrams, [] if changes_weights else gradients

        sums, returned, of_ngrams, accumulated = replicas.run(step_of_replica)
        if state.model.ngrams is not None:
            state.model.ngrams.descend(of_ngrams, 1.0 if factor is None else factor)
        if state.accumulated:
            _accumulate(state, accumulated, batches[0].reviews)
        if state.average and changes_weights:
            _average(state, updates.ema_momentum)
        state.step.assign_add(1)
        state.add_sums(sums)
        return returned

    return _Traced(train_step)


class _Traced:
    # Calls a function's only trace; the function itself would check each argument first.
    def __init__(self, function: tf.types.experimental.PolymorphicFunction) -> None:
        self.get_concrete_function = functools.cache(function.get_concrete_function)

    def __call__(self, *arguments: Any) -> tf.Tensor:
        return self.get_concrete_function()(*arguments)


def _learning_rate_factor(state: TrainState, schedule: Schedule) -> tf.Tensor | None:
    # What the learning rate is multiplied by in this step; None if nothing changes it.
    scale = state.plateau_scale
    if schedule.is_constant and scale is None:
        return None
    factor = schedule.factor(state.step)
    return factor if scale is None else factor * tf.cast(scale, tf.float32)


def _gradients(
    state: TrainState,
    replicas: Replicas,
    number: int,
    batch: Batch[tf.Tensor],
    stop: tf.Tensor,
    class_weights: Sequence[float],
) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor | tf.IndexedSlices | None]:
    # Of the whole batch, summed over the replicas: `Sums`, the loss and the stop requests, float64; the
    # gradients of the mean loss; the gradient of the n-grams, of the sum of the losses.
    model = state.model
    with tf.GradientTape() as tape:
        position = (number, replicas.count)
        parts = model.parts(batch.token_ids, batch.lengths, training_step=state.step, position=position)
        if parts.ngrams is not None:
            tape.watch(parts.ngrams)
        losses = batch.weights * classes.losses(parts.joined, batch.labels)
        trained = losses
        if parts.ngrams is not None:
            # Each part learns as if it were alone. Together, the n-grams, which learn faster, would leave the
            # LSTM nothing to learn.
            apart = [classes.losses(logits, batch.labels) for logits in (parts.lstm, parts.ngrams)]
            trained = batch.weights * tf.add_n(apart)
        if class_weights:
            trained *= classes.weights_of(batch.labels, class_weights)
        loss = tf.reduce_sum(trained) / batch.reviews
    values = [variable.value for variable in model.trainable_variables]
    gradients, d_ngrams = tape.gradient(loss, (values, [] if parts.ngrams is None else [parts.ngrams]))
    sums = _sums(batch, parts.joined, losses)
    # Dense, because the norm of sparse gradients counts repeated tokens separately.
    gradients = sum_over_replicas([tf.convert_to_tensor(gradient) for gradient in gradients])
    results = sum_over_replicas(tf.stack([tf.cast(value, tf.float64) for value in (*sums, loss, stop)]))
    if parts.ngrams is None or model.ngrams is None:
        return results, gradients, None
    d_logits = tf.reshape(d_ngrams[0], [tf.size(batch.labels), -1]) * batch.reviews
    of_ngrams = model.ngrams.gradient(parts.features, d_logits)
    if replicas.count > 1:
        of_ngrams = sum_over_replicas(tf.convert_to_tensor(of_ngrams))
    return results, gradients, of_ngrams


def _with_accumulated(
    state: TrainState, gradients: Sequence[tf.Tensor], reviews: tf.Tensor, *, mean: bool
) -> list[tf.Tensor]:
    # The sums of the gradients of all reviews since the weights changed, or their mean.
    *sums, counted = state.accumulated
    totals = [sum + reviews * gradient for sum, gradient in zip(sums, gradients, strict=True)]
    return [total / (counted + reviews) for total in totals] if mean else totals


def _accumulate(state: TrainState, sums: Sequence[tf.Tensor], reviews: tf.Tensor) -> None:
    # Keeps the sums for the next step; without any, begins anew.
    *variables, counted = state.accumulated
    for variable, sum in zip(variables, sums or map(tf.zeros_like, variables), strict=True):
        variable.assign(sum)
    counted.assign(counted + reviews if sums else 0.0)


def _average(state: TrainState, momentum: float) -> None:
    # As tf.train.ExponentialMovingAverage with num_updates: the first weights are soon forgotten.
    done = tf.cast(state.step, tf.float32)
    momentum = tf.minimum(momentum, (1.0 + done) / (10.0 + done))
    averages = state.average.trainable_variables if state.average else []
    for average, weight in zip(averages, state.model.trainable_variables, strict=True):
        average.assign(momentum * average.value + (1.0 - momentum) * weight.value)


def _sums(batch: Batch[tf.Tensor], logits: tf.Tensor, losses: tf.Tensor) -> Sums:
    # What a step adds to its metrics; `losses` are weighted, float32 [batch].
    return Sums(
        loss=tf.reduce_sum(tf.cast(losses, tf.float64)),
        correct=tf.reduce_sum(batch.weights * classes.is_correct(logits, batch.labels)),
        reviews=tf.reduce_sum(batch.weights),
        real_tokens=tf.reduce_sum(batch.lengths),
        padded_tokens=tf.size(batch.token_ids),
    )


def make_eval_step(
    model: Model, replicas: Replicas, *, confusion_of: int = 0, with_scores: bool = False
) -> EvalStep:
    """Compiles the step (slices of a batch, stop request) -> float64 [4 + confusion_of**2 (+ 3 * reviews)].

    The result is summed over the whole batch: loss, correct reviews, reviews and stop requests; then, with
    `confusion_of` classes, how many reviews of each true class were predicted as each; then, for two classes
    and `with_scores`, the logit, label and weight of each review.
    """

    @tf.function(autograph=False, input_signature=_signature(EVALUATION_BATCH_SIZE, replicas))
    def eval_step(batches: Slices, stop: tf.Tensor) -> tf.Tensor:
        def step_of_replica(number: int) -> tf.Tensor:
            batch = batches[number - replicas.local.start]
            logits = model(batch.token_ids, batch.lengths)
            values = classes.losses(logits, batch.labels), classes.is_correct(logits, batch.labels), 1.0
            sums = [tf.reduce_sum(tf.cast(value * batch.weights, tf.float64)) for value in values]
            results = [tf.stack([*sums, stop])]
            if confusion_of:
                results.append(classes.confusion(logits, batch.labels, batch.weights, confusion_of))
            if with_scores:
                scores = [tf.cast(value, tf.float64) for value in (logits, batch.labels, batch.weights)]
                # Each replica adds zeros to those of the others, which changes no bit.
                places = [tf.zeros_like(tf.stack(scores, axis=1))] * replicas.count
                places[number] = tf.stack(scores, axis=1)
                results.append(tf.reshape(tf.concat(places, axis=0), [-1]))
            return sum_over_replicas(tf.concat(results, axis=0) if len(results) > 1 else results[0])

        return replicas.run(step_of_replica)

    return eval_step


def evaluate(
    eval_step: EvalStep,
    batches: Iterable[Slices],
    *,
    stop: Callable[[], bool],
    abandon: Callable[[], Exception],
    scored: int = 0,
    replicas: int = 1,
) -> Metrics:
    """Computes the metrics over all batches; sums are divided once, at the end.

    Several batches are evaluated at a time, unless other replicas take part. Results are summed in the order
    of the batches, so that the number of cores changes no bit.

    Args:
      eval_step: the compiled step of the model to evaluate.
      batches: the slices of each batch.
      stop: whether this process wants to stop; called before each batch.
      abandon: makes the error to raise when a process wants to stop.
      scored: how many reviews of a batch the step gives scores of; 0: none.
      replicas: those of all workers.
    """
    sums, scores = np.zeros(1), [np.zeros((0, 3))]
    side_by_side = on_pairs_of_cores if replicas == 1 else map
    for results in side_by_side(lambda batch: eval_step(batch, float(stop())).numpy(), batches):
        if results[_STOP_REQUESTS]:
            raise abandon()
        sums_of_batch, scores_of_batch = np.split(results, [len(results) - 3 * scored])
        sums = sums + sums_of_batch
        scores.append(scores_of_batch.reshape(scored, 3))
    loss, correct, reviews, _, *confusion = sums.tolist()
    size = math.isqrt(len(confusion))
    return Metrics(
        loss=loss / reviews,
        accuracy=correct / reviews,
        reviews=int(reviews),
        f1=metrics.f1(np.reshape(confusion, [size, size]).astype(int).tolist()) if confusion else None,
        auc=classes.auc_of_scored(np.concatenate(scores)) if scored else None,
    )
