"""Trains with one part of the trainer replaced, to measure what it does to the quality.

    python scripts/bench/variants.py VARIANT [FLAGS OF THE TRAINER]

    ours      nothing is replaced: the weights are those of the trainer itself, bit for bit
    Keras     Keras' LSTM instead of our kernel
    unsorted  batches in random order: sorted by length in windows of one batch

Prints the metrics on the test split after each epoch, as one line of JSON.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from local_cluster import ROOT

sys.path.insert(0, str(ROOT))
from protocol import VARIANTS

from trainer.settings import resolve
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    import tensorflow as tf

from trainer import build, flags, steps
from trainer.config import Config
from trainer.data import cache_entry, input_pipeline, token_store
from trainer.data.input_pipeline import BatchPlan
from trainer.labels import NEGATIVE_POSITIVE
from trainer.metrics import Metrics
from trainer.model.classifier import Classifier
from trainer.model.encoder import Encoder
from trainer.run.adam import Adam
from trainer.run.distribution import Replicas, set_threads
from trainer.run.state import TrainState


class KerasEncoder(Encoder):
    """The encoder with the layers' own computation instead of our kernel."""

    def __call__(self, token_ids: tf.Tensor, lengths: tf.Tensor, *, training: bool) -> tf.Tensor:
        """Encodes a batch, as `Encoder` does."""
        mask = tf.sequence_mask(lengths, tf.shape(token_ids)[1])
        return self.bidirectional(self.embedding(token_ids), mask=mask)


def make_state(settings: Config, vocab_size: int, variant: str) -> TrainState:
    """The initial state of a variant."""
    dimensions = build.dimensions_of(settings, vocab_size, NEGATIVE_POSITIVE)
    encoder = None
    if variant == "Keras":
        encoder = KerasEncoder(
            vocab_size=vocab_size,
            embedding_dim=dimensions.embedding_dim,
            lstm_units=dimensions.lstm_units,
            seed=settings.seed,
        )
    model = Classifier(dimensions, dropout=settings.dropout, seed=settings.seed, encoder=encoder)
    return TrainState(
        model=model,
        optimizer=Adam(settings.learning_rate, name="adam"),
        lower_is_better=settings.lower_is_better,
        initial_best=settings.initial_best,
        **dict.fromkeys(("frozen_flags", "fingerprints", "conditions"), ""),
    )


def train(settings: Config, variant: str) -> Iterator[Metrics]:
    """Trains on one device; yields the metrics on the test split after each epoch."""
    replicas = Replicas()
    vocabulary, stores = token_store.prepare(
        corpus=build.open_corpus(settings),
        splits=[settings.train_split, settings.test_split],
        vocab_size=settings.vocab_size,
        cache_dir=cache_entry.folder_of(settings.cache_dir),
    )
    train_store, test_store = stores[settings.train_split], stores[settings.test_split]
    plan = BatchPlan(
        lengths=train_store.lengths,
        batch_size=settings.batch_size,
        seed=settings.seed,
        max_length=settings.max_length,
        window_batches=1 if variant == "unsorted" else input_pipeline.WINDOW_BATCHES,
    )
    state = make_state(settings, len(vocabulary), variant)
    train_step = steps.make_train_step(state, replicas, batch_size=settings.batch_size)
    eval_step = steps.make_eval_step(state.model, replicas)
    for epoch in range(settings.epochs):
        batches = input_pipeline.train_batches(
            store=train_store,
            plan=plan,
            max_length=settings.max_length,
            first_step=epoch * plan.steps_per_epoch,
            last_step=(epoch + 1) * plan.steps_per_epoch,
        )
        for batch in batches:
            train_step(batch, 0.0)
        test_batches = input_pipeline.evaluation_batches(
            store=test_store,
            batch_size=steps.EVALUATION_BATCH_SIZE,
            max_length=settings.max_length,
            examples=len(test_store),
        )
        yield steps.evaluate(eval_step, test_batches, stop=lambda: False, abandon=AssertionError)


def main() -> None:
    """Trains the variant that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variant", choices=VARIANTS)
    given, rest = parser.parse_known_args()
    settings = resolve(flags.parse([sys.argv[0], *rest]), {})
    set_threads(intra_op=settings.intra_op_threads, inter_op=settings.inter_op_threads)
    for metrics in train(settings, given.variant):
        print(json.dumps(metrics._asdict()), flush=True)


if __name__ == "__main__":
    main()
