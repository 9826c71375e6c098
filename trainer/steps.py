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


def make_eval_step(
    model: Model, replicas: Replicas, *, confusion_of: int = 0, with_scores: bool = False
) -> EvalStep:
    """Compiles the step (slices of a batch, stop request) -> float64 [4 + confusion_of**2 (+ 3 * reviews)].

    The result is summed over the whole batch: loss, correct reviews, reviews and stop requests; then, with
    `confusion_of` classes, how many reviews of each true class were predicted as each class; then, with
    `with_scores`, the logit, label and weight of each review, for two classes.
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
) -> Metrics:
    """Computes the metrics over all batches; sums are divided once, at the end.

    Args:
      eval_step: the compiled step of the model to evaluate.
      batches: the slices of each batch.
      stop: whether this process wants to stop; called before each batch.
      abandon: makes the error to raise when a process wants to stop.
      scored: how many reviews of a batch the step gives scores of; 0: none.
    """
    sums, scores = np.zeros(1), [np.zeros((0, 3))]
    for batch in batches:
        results = eval_step(batch, float(stop())).numpy()
        if results[_STOP_REQUESTS]:
            raise abandon()
        sums_of_batch, scores_of_batch = np.split(results, [len(results) - 3 * scored])
        sums = sums + sums_of_batch
        scores.append(scores_of_batch.reshape(scored, 3))
    loss, correct, reviews, _, *confusion = sums.tolist()
    return Metrics(
        loss=loss / reviews,
        accuracy=correct / reviews,
        reviews=int(reviews),
        f1=metrics.f1(_as_matrix(confusion)) if confusion else None,
        auc=_auc(np.concatenate(scores)) if scored else None,
    )


def _auc(scores: np.ndarray) -> float:
    # NaN, which is never best, if all reviews have one label.
    logits, labels, weights = scores.T
    area = classes.area_under_roc(logits[weights > 0], labels[weights > 0] > 0)
    return math.nan if area is None else area


def _as_matrix(counts: Sequence[float]) -> list[list[int]]:
    size = math.isqrt(len(counts))
    return [[int(count) for count in counts[at : at + size]] for at in range(0, len(counts), size)]
