"""The settings of data, model and training are the first flags."""

import dataclasses

from trainer.config import FIELDS
from trainer.config_training import TrainingSettings


def test_they_come_first_in_help_and_in_each_flagfile():
    names = [field.name for field in dataclasses.fields(TrainingSettings)]
    assert list(FIELDS)[: len(names)] == names
    assert {FIELDS[name].metadata["section"] for name in names} == {"Run", "Data", "Model", "Training"}


def test_what_a_new_run_has_and_an_old_one_had_not_says_what_the_old_one_had():
    before = {name: field.metadata["before"] for name, field in FIELDS.items()}
    assert {name: value for name, value in before.items() if value is not None} == {
        "pooling": "last",
        "ngrams": 0,
        "token_dropout": 0.0,
        "shards": 1,
    }
