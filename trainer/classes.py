"""The classes of a text: their names, the labels that stand for them, loss, decision and probability.

There are two, negative and positive, and one logit: the log-odds of the positive class. Everything that
depends on this is here; a model with more classes changes this module, and the width of the model's last
layer.
"""

import keras
import numpy as np
import tensorflow as tf

NAMES = ("negative", "positive")
LOGITS = 1  # the width of the model's last layer

_LABELS = (("0", "neg", "negative", "false", "0.0"), ("1", "pos", "positive", "true", "1.0"))
LABELS = {label: number for number, labels in enumerate(_LABELS) for label in labels}


def class_of(label: object) -> int | None:
    """The number of the class that a label of a file stands for; None where it stands for none."""
    return LABELS.get(str(label).strip().lower())


def losses(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The sigmoid cross-entropy of each text, float32 [batch].

    Args:
      logits: float32 [batch].
      labels: float32 [batch], 0.0 or 1.0.
    """
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)


def is_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Whether each decision agrees with its label, float32 [batch] of 0.0 and 1.0; arguments as `losses`."""
    return tf.cast(tf.equal(logits > 0.0, labels > 0.5), tf.float32)


def exact_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """As `losses`, in float64 and without TensorFlow.

    Args:
      logits: [texts], any float.
      labels: [texts], 0 or 1.
    """
    logits = logits.astype(np.float64)
    return np.logaddexp(0.0, np.where(labels.astype(bool), -logits, logits))


def decide(logits: np.ndarray) -> np.ndarray:
    """The number of the class that each logit predicts, [texts] of 0 and 1."""
    return (logits > 0).astype(np.int64)


def probabilities(logits: np.ndarray) -> list[float]:
    """The probability of the positive class of each logit."""
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).tolist()


def name_of(probability: float) -> str:
    """The name of the class that is predicted at this probability of the positive one."""
    return NAMES[int(probability > 0.5)]


def serving_outputs(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    """What an exported model returns for logits, float32 [texts, 1]; each value is [texts]."""
    logit = logits[:, 0]
    return {"logit": logit, "probability": tf.sigmoid(logit), "label": tf.cast(logit > 0.0, tf.int32)}


def keras_loss() -> keras.losses.Loss:
    """The loss of an exported Keras model."""
    return keras.losses.BinaryCrossentropy(from_logits=True)


def keras_metrics() -> list[keras.metrics.Metric]:
    """The metrics of an exported Keras model."""
    return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
