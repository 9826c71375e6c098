"""The data of a training start."""

import pytest
from fakes import corpus_of, tiny

from trainer import build, training_data
from trainer.config import Config
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE


def open_data(cache_dir, **settings):
    return training_data.open_data(Config(**tiny("run", cache_dir, **settings)), is_new=True)


def test_data_holds_classes_batches_and_a_store_for_each_split(cache_dir, caplog):
    data = open_data(cache_dir, validation_split="", monitor="loss")
    assert data.classes == NEGATIVE_POSITIVE
    assert data.class_weights == ()
    assert {split: len(store) for split, store in data.stores.items()} == {"train[:31]": 31, "test[:20]": 20}
    assert data.plan.steps_per_epoch == 8
    assert "31 to train (train[:31]), 20 to test (test[:20])" in caplog.text


def test_balanced_weights_are_of_the_training_reviews(cache_dir, topics):
    data = open_data(cache_dir, class_weights="balanced")
    assert data.classes.names == topics
    assert data.class_weights == pytest.approx((31 / 33, 31 / 30, 31 / 30))


def test_weights_that_do_not_fit_are_refused_before_the_reviews_are_encoded(tmp_path, topics):
    with pytest.raises(InputError, match="sports, Politics & Law, arts"):
        open_data(str(tmp_path / "cache"), class_weights="spam=2")
    assert not (tmp_path / "cache").exists()


def test_training_reviews_of_a_single_class_are_refused(cache_dir, monkeypatch):
    monkeypatch.setattr(build, "open_corpus", lambda config: corpus_of("a", "b", "c"))
    with pytest.raises(InputError, match=r"all 1 of train\[:1\] are a"):
        open_data(cache_dir, train_split="train[:1]")


def test_auc_is_refused_for_three_classes_before_the_reviews_are_encoded(tmp_path, topics):
    with pytest.raises(InputError, match=r"--monitor=val_auc needs two classes, .* give --monitor=val_f1"):
        open_data(str(tmp_path / "cache"), monitor="val_auc")
    assert not (tmp_path / "cache").exists()


def test_only_a_new_run_describes_its_data(cache_dir, caplog):
    training_data.open_data(Config(**tiny("run", cache_dir)), is_new=False)
    assert "median" not in caplog.text
    open_data(cache_dir)
    assert "Split     train[:31]: 31 reviews (negative: 15, positive: 16), median" in caplog.text
