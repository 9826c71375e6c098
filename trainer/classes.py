"""What a model's logits say about the classes: loss, decision, probabilities, and what an export returns.

With two classes a text has one logit, the log-odds of the second class: logits have the shape [batch], and
sigmoid and sigmoid cross-entropy apply. With more it has one for each class: logits have the shape
[batch, classes], and softmax applies. This module alone knows the difference.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from trainer.errors import InputError
from trainer.labels import Classes, listed


class Prediction(NamedTuple):
    """What is predicted for a text.

    Attributes:
      label: the name of the predicted class.
      probability: with two classes that of the second one, else that of the predicted one.
      probabilities: with more than two classes name -> probability; else empty.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


def _is_one_logit(logits: tf.Tensor | np.ndarray) -> bool:
    # Whether there is one for each text.
    return len(logits.shape) == 1


def losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The cross-entropy of each text, float32 [batch].

    Args:
      logits: float32, [batch] or [batch, classes].
      labels: float32 [batch], the numbers of the classes.
    """
    if _is_one_logit(logits):
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int32), logits=logits)


def _predicted(logits: tf.Tensor) -> tf.Tensor:
    # The number of the predicted class, int32 [batch].
    if _is_one_logit(logits):
        return tf.cast(logits > 0.0, tf.int32)
    return tf.argmax(logits, axis=1, output_type=tf.int32)


def is_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """1.0 where the predicted class is the label, else 0.0; float32 [batch]. Arguments as in `losses`."""
    if _is_one_logit(logits):
        return tf.cast(tf.equal(logits > 0.0, labels > 0.5), tf.float32)
    return tf.cast(tf.equal(_predicted(logits), tf.cast(labels, tf.int32)), tf.float32)


def confusion(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, count: int) -> tf.Tensor:
    """The texts of each true and predicted class, float64 [count * count]; exact up to 2**53.

    Args:
      logits: as in `losses`.
      labels: as in `losses`.
      weights: float32 [batch], 0.0 for a text that does not count, else 1.0.
      count: how many classes there are.
    """
    true = tf.one_hot(tf.cast(labels, tf.int32), count, dtype=tf.float64)
    predicted = tf.one_hot(_predicted(logits), count, dtype=tf.float64)
    counted = true * tf.cast(weights, tf.float64)[:, None]
    return tf.reshape(tf.matmul(counted, predicted, transpose_a=True), [count * count])


def exact_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same as `losses`, computed in float64 without TensorFlow; float64 [texts].

    Args:
      logits: any float, [texts] or [texts, classes].
      labels: [texts], the numbers of the classes.
    """
    logits = logits.astype(np.float64)
    if _is_one_logit(logits):
        return np.logaddexp(0.0, np.where(labels.astype(bool), -logits, logits))
    of_label = np.take_along_axis(logits, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    return np.logaddexp.reduce(logits, axis=1) - of_label


def decide(logits: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """The number of the predicted class of each text; int64 [texts].

    Args:
      logits: any float, [texts] or [texts, classes].
      threshold: for one logit, the probability above which the second class is predicted; None: 0.5.
    """
    if not _is_one_logit(logits):
        return np.argmax(logits, axis=1)
    with np.errstate(divide="ignore"):  # at 0 and 1 it is infinite, as it should be
        least = 0.0 if threshold is None else np.log(threshold) - np.log1p(-threshold)
    return (logits > least).astype(np.int64)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """For one logit the probability of the second class, [texts]; else those of all, [texts, classes].

    They are float64.
    """
    logits = logits.astype(np.float64)
    if _is_one_logit(logits):
        return 1.0 / (1.0 + np.exp(-logits))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def predictions(logits: np.ndarray, names: Sequence[str], threshold: float | None = None) -> list[Prediction]:
    """What is predicted for each text; `names` are those of the classes, the others as in `decide`."""
    numbers, values = decide(logits, threshold).tolist(), probabilities(logits).tolist()
    if _is_one_logit(logits):
        return [Prediction(names[number], value, {}) for number, value in zip(numbers, values, strict=True)]
    return [
        Prediction(names[number], of_text[number], dict(zip(names, of_text, strict=True)))
        for number, of_text in zip(numbers, values, strict=True)
    ]


def area_under_roc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """The area under the ROC curve; None if all reviews have one label.

    It is Mann and Whitney's U over the number of pairs: the share of pairs of a positive and a negative
    review that are ranked correctly, ties counted half.

    Args:
      scores: [reviews] float64, higher for what is more likely positive.
      positive: [reviews] bool.
    """
    _, of_review, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[of_review]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    u = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(u / (positives * negatives))


def auc_of_scored(scores: np.ndarray) -> float:
    """The area under the ROC curve of reviews whose weight is not zero; NaN if all have one label.

    Args:
      scores: [reviews, 3] float64: logit, label and weight.
    """
    logits, labels, weights = scores.T
    area = area_under_roc(logits[weights > 0], labels[weights > 0] > 0)
    return math.nan if area is None else area


def training_weights(given: str, classes: Classes, counts: Sequence[int]) -> tuple[float, ...]:
    """The weight of each class in the training loss, as `--class_weights` names it.

    Args:
      given: empty; balanced, by which all classes weigh the same in total and a text 1 on average; or
        weights by class, as in spam=2.5,ham=1, with 1 for the others.
      classes: the classes.
      counts: how many texts of each class there are to train on.

    Returns:
      A weight for each class; nothing if `given` is empty.

    Raises:
      InputError: when `given` is malformed, names no class or a weight that is not positive.
    """
    if given.strip() == "balanced":
        return tuple(sum(counts) / (len(counts) * max(1, count)) for count in counts)
    weights: dict[str, float] = {}
    parts = given.split(";" if ";" in given else ",")
    for name, equals, value in (part.rpartition("=") for part in parts if part.strip()):
        weight = _positive_number(value)
        if not equals or weight is None or name.strip() not in classes.names or name.strip() in weights:
            raise InputError(
                f"--class_weights must be balanced, or give classes a positive weight once, but "
                f"--class_weights={given} was given; the classes are {listed(classes.names)}, and weights "
                f"are written as in --class_weights='{classes.names[0]}=1;{classes.names[1]}=2.5'."
            )
        weights[name.strip()] = weight
    return tuple(weights.get(name, 1.0) for name in classes.names) if weights else ()


def _positive_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    limits = np.finfo(np.float32)
    return number if limits.tiny <= number <= limits.max else None


def weights_of(labels: tf.Tensor, weights: Sequence[float]) -> tf.Tensor:
    """The weight of each text's class, float32 [batch]; labels as in `losses`."""
    return tf.gather(tf.constant(weights, tf.float32), tf.cast(labels, tf.int32))


def serving_outputs(logits: tf.Tensor, names: Sequence[str]) -> dict[str, tf.Tensor]:
    """The outputs of an exported model for its logits, float32 [texts, 1] or [texts, classes].

    Returns:
      For one logit `logit`, `probability`, `label` and `class_name`, each [texts]; else `logits` and
      `probabilities`, [texts, classes], `label` and `class_name`, [texts].
    """
    if logits.shape[1] == 1:
        logits = logits[:, 0]
        outputs = {"logit": logits, "probability": tf.sigmoid(logits)}
    else:
        outputs = {"logits": logits, "probabilities": tf.nn.softmax(logits)}
    label = _predicted(logits)
    return {**outputs, "label": label, "class_name": tf.gather(tf.constant(list(names)), label)}


def keras_loss(logits: int) -> keras.losses.Loss:
    """The loss of an exported Keras model with this number of logits."""
    if logits == 1:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def keras_metrics(logits: int) -> list[keras.metrics.Metric]:
    """The metrics of an exported Keras model with this number of logits."""
    if logits == 1:
        return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
