"""What is built from a config: model, state, corpus."""

import numpy as np
import tensorflow as tf
from fakes import tiny

from trainer import build
from trainer.config import Config
from trainer.data.tables import Options
from trainer.labels import NEGATIVE_POSITIVE, Classes
from trainer.model import lstm
from trainer.model.classifier import count_weights
from trainer.run.distribution import Replicas

TEXTS = {"frozen_flags": "", "fingerprints": "{}", "conditions": "{}"}


def test_the_model_has_the_dimensions_of_the_config(cache_dir):
    config = Config(**tiny("run", cache_dir))
    dimensions = build.dimensions_of(config, 77, NEGATIVE_POSITIVE)
    model = build.make_model(config, 77, NEGATIVE_POSITIVE)
    assert model.embedding.embeddings.shape == (77, config.embedding_dim)
    assert count_weights(dimensions) == sum(
        int(np.prod(weight.shape)) for weight in model.trainable_variables
    )


def test_more_than_two_classes_have_a_logit_each(cache_dir):
    config, classes = Config(**tiny("run", cache_dir)), Classes(tuple("abc"), (("a",), ("b",), ("c",)))
    model = build.make_model(config, 77, classes)
    assert model.logit.kernel.shape == (config.dense_units, 3)
    assert count_weights(build.dimensions_of(config, 77, classes)) == sum(
        int(np.prod(weight.shape)) for weight in model.trainable_variables
    )


def test_a_new_state_is_at_step_0_with_all_optimizer_slots_built(cache_dir):
    config = Config(**tiny("run", cache_dir, initial_best=0.25))
    state = build.make_state(config, 77, NEGATIVE_POSITIVE, TEXTS, Replicas())
    assert (int(state.step), int(state.best_step), float(state.best_metric)) == (0, -1, 0.25)
    assert float(state.optimizer.learning_rate.numpy()) == np.float32(config.learning_rate)
    assert len(state.optimizer.variables) == 2 + 2 * len(state.model.trainable_variables)


def test_the_corpus_of_the_config_is_opened(cache_dir):
    corpus = build.open_corpus(Config(**tiny("run", cache_dir)))
    assert corpus.name == "sample_reviews"
    assert corpus.examples("train[:31]") == 31


def test_an_input_is_read_as_stated_and_else_as_the_run():
    stored = {"text_column": "review", "encoding": "cp1252", "delimiter": ";"}
    given = {"workdir": "run", "delimiter": "tab", "input_format": "csv"}
    style = build.style_of(Config(**{**stored, **given}), given)
    assert style.given == Options(delimiter="tab")
    assert style.usual == Options(text_column="review", encoding="cp1252", delimiter="tab")
    assert style.kind == "csv"


def test_the_model_reads_in_the_shards_of_the_config_only_when_it_trains(monkeypatch):
    read_in = []
    monkeypatch.setattr(
        lstm, "bidirectional_lstm", lambda **given: read_in.append(given["shards"]) or tf.zeros([4, 128])
    )
    model = build.make_model(Config(workdir="none", shards=3, ngrams=0), 77, NEGATIVE_POSITIVE)
    model(tf.ones([4, 5], tf.int32), tf.fill([4], 5), training_step=tf.constant(0, tf.int64))
    model(tf.ones([4, 5], tf.int32), tf.fill([4], 5))
    assert read_in == [3, 1]
