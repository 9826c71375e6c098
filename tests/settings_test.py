"""Settings of a command line and of a run: checked, merged, compared."""

import dataclasses

import pytest

from trainer.config import Config
from trainer.errors import InputError
from trainer.fields import FIXED, FREE, INEXACT
from trainer.settings import changes, check_given, resolve


def test_stored_settings_are_used_for_flags_that_are_not_given():
    settings = resolve({"workdir": "w", "patience": 9}, {"epochs": 20, "seed": 7})
    assert (settings.epochs, settings.seed, settings.patience) == (20, 7, 9)


def test_for_an_existing_run_only_the_given_flags_are_checked_at_first():
    check_given({"workdir": "w", "monitor": "val_loss", "validation_split": ""}, is_run=True)
    with pytest.raises(InputError, match="--validation_split"):
        check_given({"workdir": "w", "monitor": "val_loss", "validation_split": ""}, is_run=False)
    with pytest.raises(InputError, match="--epochs"):
        check_given({"workdir": "w", "epochs": 0}, is_run=True)
    with pytest.raises(InputError, match="--workdir is required"):
        check_given({}, is_run=True)


def test_each_changed_setting_is_reported_with_both_values():
    settings = Config(workdir="w", seed=1, learning_rate=0.5)
    stored = dataclasses.asdict(Config(workdir="w"))
    assert changes(stored, settings, FIXED) == ["--seed was 0 and is 1 now"]
    assert changes(stored, settings, INEXACT) == ["--learning_rate was 0.001 and is 0.5 now"]
    assert changes(stored, settings, FREE) == []
