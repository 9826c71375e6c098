"""Computes the logits of texts with a trained model."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.data.vocabulary import Texts, Vocabulary
from trainer.model.classifier import Classifier
from trainer.parallel import on_all_cores, on_pairs_of_cores

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

    All cores encode texts, and each pair of cores computes a batch.

    Args:
      predict_step: a classifier, or its compiled step from `make_predict_step`, which is faster for more than
        a few texts.
      vocabulary: the one that the classifier was trained with.
      texts: [texts] string, whose token ids are in memory all at once.
      max_length: most tokens read, from the start of a text; 0: all.

    Returns:
      float32, [texts] or [texts, classes] as the classifier has one logit or more; [0] without texts.
    """

    def encode(start: int) -> tf.RaggedTensor:
        return vocabulary.encode(tf.constant(texts[start : start + BATCH_SIZE], tf.string))

    starts = range(0, len(texts), BATCH_SIZE)
    if not starts:
        return np.zeros(0, np.float32)
    token_ids = tf.concat(list(on_all_cores(encode, starts)), axis=0)
    if max_length:
        token_ids = token_ids[:, :max_length]
    order = np.argsort(token_ids.row_lengths().numpy(), kind="stable")

    def compute(start: int) -> np.ndarray:
        rows = order[start : start + BATCH_SIZE]
        batch = tf.gather(token_ids, rows)
        lengths = tf.pad(tf.cast(batch.row_lengths(), tf.int32), [[0, BATCH_SIZE - len(rows)]])
        padded = batch.to_tensor(shape=[BATCH_SIZE, tf.maximum(tf.reduce_max(lengths), 1)])
        return predict_step(padded, lengths)[: len(rows)].numpy()

    return np.concatenate(list(on_pairs_of_cores(compute, starts)))[np.argsort(order)]
