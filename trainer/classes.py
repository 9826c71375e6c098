"""The classes of a text: names, accepted labels, loss, decision and probability.

There are two classes, negative and positive, and one logit: the log-odds of the positive class. What else
assumes that there are two is listed in BUILD.md.
"""

import keras
import numpy as np
import tensorflow as tf

NAMES = ("negative", "positive")
LOGITS = 1  # the width of the model's last layer

_LABELS = (("0", "neg", "negative", "false", "0.0"), ("1", "pos", "positive", "true", "1.0"))
LABELS = {label: number for number, labels in enumerate(_LABELS) for label in labels}


def class_of(label: object) -> int | None:
    """The class number for a label read from a file; None for an unknown label."""
    return LABELS.get(str(label).strip().lower())


def losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The sigmoid cross-entropy of each text, float32 [batch].

    Args:
      logits: float32 [batch].
      labels: float32 [batch], 0.0 or 1.0.
    """
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)


def is_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """1.0 where the predicted class is the label, else 0.0; float32 [batch]. Arguments as in `losses`."""
    return tf.cast(tf.equal(logits > 0.0, labels > 0.5), tf.float32)


def exact_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same as `losses`, computed in float64 without TensorFlow; float64 [texts].

    Args:
      logits: [texts], any float.
      labels: [texts], 0 or 1.
    """
    logits = logits.astype(np.float64)
    return np.logaddexp(0.0, np.where(labels.astype(bool), -logits, logits))


def decide(logits: np.ndarray) -> np.ndarray:
    """The predicted class number for each logit; int64 [texts], 0 or 1."""
    return (logits > 0).astype(np.int64)


def probabilities(logits: np.ndarray) -> list[float]:
    """The probability of the positive class for each logit."""
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).tolist()


def name_of(probability: float) -> str:
    """The name of the class that is predicted at this probability of the positive class."""
    return NAMES[int(probability > 0.5)]


def serving_outputs(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    """The outputs of an exported model for logits float32 [texts, 1]; each has shape [texts]."""
    logit = logits[:, 0]
    return {"logit": logit, "probability": tf.sigmoid(logit), "label": tf.cast(logit > 0.0, tf.int32)}


def keras_loss() -> keras.losses.Loss:
    """The loss of an exported Keras model."""
    return keras.losses.BinaryCrossentropy(from_logits=True)


def keras_metrics() -> list[keras.metrics.Metric]:
    """The metrics of an exported Keras model."""
    return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
