"""Computes the logits of texts with a trained model."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.data.vocabulary import Texts, Vocabulary
from trainer.model.classifier import Classifier

BATCH_SIZE = 256

PredictStep = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def make_predict_step(model: Classifier) -> PredictStep:
    """Compiles (token_ids int32 [256, time], lengths int32 [256]) -> logits, float32, 256 rows."""
    signature = [tf.TensorSpec([BATCH_SIZE, None], tf.int32), tf.TensorSpec([BATCH_SIZE], tf.int32)]
    return tf.function(
        lambda token_ids, lengths: model(token_ids, lengths), input_signature=signature, autograph=False
    )


def logits_of(
    predict_step: PredictStep,
    vocabulary: Vocabulary,
    texts: Texts,
    *,
    max_length: int,
) -> np.ndarray:
    """The logits of each text, computed in batches sorted by length so that there is little padding.

    Args:
      predict_step: a classifier, or its compiled step from `make_predict_step`, which is faster for more than
        a few texts.
      vocabulary: the one that the classifier was trained with.
      texts: [texts] string, encoded all at once in memory.
      max_length: most tokens read, from the start of a text; 0: all.

    Returns:
      float32, [texts] or [texts, classes] as the classifier has one logit or more; [0] without texts.
    """
    token_ids = vocabulary.encode(tf.constant(texts, tf.string))
    if max_length:
        token_ids = token_ids[:, :max_length]
    order = np.argsort(token_ids.row_lengths().numpy(), kind="stable")
    by_length = []
    for start in range(0, len(order), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        batch = tf.gather(token_ids, rows)
        lengths = tf.pad(tf.cast(batch.row_lengths(), tf.int32), [[0, BATCH_SIZE - len(rows)]])
        padded = batch.to_tensor(shape=[BATCH_SIZE, tf.maximum(tf.reduce_max(lengths), 1)])
        by_length.append(predict_step(padded, lengths)[: len(rows)].numpy())
    if not by_length:
        return np.zeros(0, np.float32)
    return np.concatenate(by_length)[np.argsort(order)]
