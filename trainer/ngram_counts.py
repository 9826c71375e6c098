"""Counts the n-grams of the training reviews, for the naive Bayes weights of a new run."""

import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from trainer.config import Config
from trainer.data import input_pipeline
from trainer.data.input_pipeline import Batch
from trainer.data.token_store import TokenStore
from trainer.model import ngrams
from trainer.parallel import on_all_cores
from trainer.run.state import Model
from trainer.training_data import Data
from trainer.words import plural

_ROWS = 256  # reviews counted at a time


def set_counts(model: Model, config: Config, data: Data) -> None:
    """Sets the log-count ratios of a model's n-grams from the training reviews, if it has none."""
    if model.ngrams is None or model.ngrams.has_counts:
        return
    store = data.stores[config.train_split]
    counts = count(
        store,
        classes=len(data.classes),
        orders=config.ngrams,
        buckets=config.ngram_buckets,
        max_length=config.max_length,
    )
    model.ngrams.set_counts(counts)
    used = np.count_nonzero(counts.sum(axis=0))
    logging.info(
        "N-grams   of up to %s; they use %.0f%% of %s buckets",
        plural(config.ngrams, "token"),
        100 * used / config.ngram_buckets,
        f"{config.ngram_buckets:,}",
    )


def count(store: TokenStore, *, classes: int, orders: int, buckets: int, max_length: int) -> np.ndarray:
    """In how many reviews of each class each bucket occurs; int64 [classes, buckets].

    Args:
      store: the reviews.
      classes: the number of classes.
      orders: the longest n-grams.
      buckets: the number of buckets.
      max_length: most tokens read of a review; 0: all.
    """
    totals = np.zeros(classes * buckets, np.int64)

    @tf.function(autograph=False, input_signature=[input_pipeline.batch_spec(_ROWS)])
    def numbers_of(batch: Batch[tf.Tensor]) -> tf.Tensor:
        # class * buckets + bucket, for each bucket of each review.
        rows, found = ngrams.distinct_buckets(batch.token_ids, batch.lengths, orders=orders, buckets=buckets)
        return tf.gather(tf.cast(batch.labels, tf.int64), rows) * buckets + found

    batches = input_pipeline.evaluation_batches(
        store=store, batch_size=_ROWS, max_length=max_length, examples=len(store)
    )
    shown = tqdm(
        batches,
        desc="counting n-grams",
        total=-(-len(store) // _ROWS),
        unit="batch",
        disable=None if logging.level_info() else True,  # None: hidden unless there is a terminal
        leave=False,
    )
    for numbers in on_all_cores(lambda slices: numbers_of(slices[0]).numpy(), shown):
        np.add.at(totals, numbers, 1)
    return totals.reshape(classes, buckets)
