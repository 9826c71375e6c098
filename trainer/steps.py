"""The compiled training and evaluation steps: only mathematics, on one replica or several."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import classes, metrics
from trainer.data import input_pipeline
from trainer.data.input_pipeline import Batch, batch_spec
from trainer.metrics import Metrics
from trainer.run.distribution import Replicas, sum_over_replicas
from trainer.run.state import Model, Sums, TrainState

EVALUATION_BATCH_SIZE = 256  # reviews per replica

_STOP_REQUESTS = 3  # their place in the result of an evaluation step

Slices = tuple[Batch[Any], ...]  # of one batch, one for each replica of this process
TrainStep = Callable[[Slices, float], tf.Tensor]
EvalStep = Callable[[Slices, float], tf.Tensor]


def _signature(rows: int, replicas: Replicas) -> list[object]:
    # For any number of time steps, so that a step is traced once.
    return [(batch_spec(rows),) * len(replicas.local), tf.TensorSpec([], tf.float64)]


def make_train_step(
    state: TrainState,
    replicas: Replicas,
    *,
    batch_size: int,
    clip_norm: float,
    class_weights: Sequence[float] = (),
) -> TrainStep:
    """Compiles the step (slices of a batch, stop request) -> float64 [3], which updates the state.

    A stop request is 1.0 if this process wants to stop, else 0.0. The result is for the whole batch: loss,
    global norm of the gradients, and sum of the stop requests. Each review's loss is multiplied by its class'
    weight, if there are any; the metrics are not.
    """
    model, optimizer = state.model, state.optimizer
    variables = model.trainable_variables
    rows = input_pipeline.slice_rows(batch_size, replicas.count)

    @tf.function(autograph=False, input_signature=_signature(rows, replicas))
    def train_step(batches: Slices, stop: tf.Tensor) -> tf.Tensor:
        def step_of_replica(number: int) -> tuple[tf.Tensor, tf.Tensor]:
            batch = batches[number - replicas.local.start]
            position = (number, replicas.count)
            with tf.GradientTape() as tape:
                logits = model(batch.token_ids, batch.lengths, training_step=state.step, position=position)
                losses = batch.weights * classes.losses(logits, batch.labels)
                weighted = (
                    losses * classes.weights_of(batch.labels, class_weights) if class_weights else losses
                )
                loss = tf.reduce_sum(weighted) / batch.reviews
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            sums = _sums(batch, logits, losses)
            # Dense, because the norm of sparse gradients counts repeated tokens separately.
            gradients = sum_over_replicas([tf.convert_to_tensor(gradient) for gradient in gradients])
            values = [tf.cast(value, tf.float64) for value in (*sums, loss, stop)]
            *total_sums, total_loss, total_stop = tf.unstack(sum_over_replicas(tf.stack(values)))
            norm = tf.linalg.global_norm(gradients)
            if clip_norm:
                gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
            optimizer.apply(gradients, variables)
            return tf.stack(total_sums), tf.stack([total_loss, tf.cast(norm, tf.float64), total_stop])

        sums, returned = replicas.run(step_of_replica)
        state.step.assign_add(1)
        state.add_sums(sums)
        return returned

    return train_step


def _sums(batch: Batch[tf.Tensor], logits: tf.Tensor, losses: tf.Tensor) -> Sums:
    # What a step adds to its metrics; `losses` are weighted, float32 [batch].
    return Sums(
        loss=tf.reduce_sum(tf.cast(losses, tf.float64)),
        correct=tf.reduce_sum(batch.weights * classes.is_correct(logits, batch.labels)),
        reviews=tf.reduce_sum(batch.weights),
        real_tokens=tf.reduce_sum(batch.lengths),
        padded_tokens=tf.size(batch.token_ids),
    )


def make_eval_step(model: Model, replicas: Replicas, *, confusion_of: int = 0) -> EvalStep:
    """Compiles the step (slices of a batch, stop request) -> float64 [4 + confusion_of**2].

    The result is summed over the whole batch: loss, correct reviews, reviews and stop requests; then, with
    `confusion_of` classes, how many reviews of each true class were predicted as each class.
    """

    @tf.function(autograph=False, input_signature=_signature(EVALUATION_BATCH_SIZE, replicas))
    def eval_step(batches: Slices, stop: tf.Tensor) -> tf.Tensor:
        def step_of_replica(number: int) -> tf.Tensor:
            batch = batches[number - replicas.local.start]
            logits = model(batch.token_ids, batch.lengths)
            losses = classes.losses(logits, batch.labels)
            correct = classes.is_correct(logits, batch.labels)
            values = (losses, correct, tf.ones_like(losses))
            sums = [tf.reduce_sum(tf.cast(value * batch.weights, tf.float64)) for value in values]
            means = tf.stack([*sums, stop])
            if not confusion_of:
                return sum_over_replicas(means)
            confusion = classes.confusion(logits, batch.labels, batch.weights, confusion_of)
            return sum_over_replicas(tf.concat([means, confusion], axis=0))

        return replicas.run(step_of_replica)

    return eval_step


def evaluate(
    eval_step: EvalStep,
    batches: Iterable[Slices],
    *,
    stop: Callable[[], bool],
    abandon: Callable[[], Exception],
) -> Metrics:
    """Computes the metrics over all batches; sums are divided once, at the end.

    Args:
      eval_step: the compiled step of the model to evaluate.
      batches: the slices of each batch.
      stop: whether this process wants to stop; called before each batch.
      abandon: makes the error to raise when a process wants to stop.
    """
    sums = np.zeros(1)
    for batch in batches:
        sums_of_batch = eval_step(batch, float(stop())).numpy()
        if sums_of_batch[_STOP_REQUESTS]:
            raise abandon()
        sums = sums + sums_of_batch
    loss, correct, reviews, _, *confusion = sums.tolist()
    return Metrics(
        loss=loss / reviews,
        accuracy=correct / reviews,
        reviews=int(reviews),
        f1=metrics.f1(_as_matrix(confusion)) if confusion else None,
    )


def _as_matrix(counts: Sequence[float]) -> list[list[int]]:
    size = math.isqrt(len(counts))
    return [[int(count) for count in counts[at : at + size]] for at in range(0, len(counts), size)]
