"""The settings: one list, each with its bounds."""

import pytest

from trainer import config
from trainer.config import Config
from trainer.errors import InputError
from trainer.fields import FIXED, FREE, INEXACT, NOT_STORED

NAMES = """
    mode workdir dataset data_dir train_split validation_split test_split vocab_size max_length
    embedding_dim lstm_units dense_units dropout batch_size epochs learning_rate clip_norm seed monitor
    monitor_mode patience min_delta baseline start_from_epoch initial_best eval_every_steps
    validation_steps checkpoint_every_steps checkpoint_every_secs max_to_keep log_every_steps sample_text
    cache_dir allow_inexact_resume on_nan intra_op_threads inter_op_threads checkpoint split input text
    bad_rows output init_from init_optimizer init_best_metric profile_steps text_column label_column
    held_out_fraction strategy logical_devices connect_secs labels encoding delimiter header tokens
    strip_html class_weights input_format keep_columns threshold pooling ngrams ngram_buckets token_dropout
    accumulate schedule schedule_epochs warmup_steps final_learning_rate plateau_patience plateau_factor
    ema_momentum shards
"""
ON_RESUME = {
    FIXED: """
        seed dataset train_split validation_split test_split vocab_size max_length embedding_dim
        lstm_units dense_units batch_size text_column label_column held_out_fraction labels bad_rows
        encoding delimiter header tokens strip_html class_weights pooling ngrams ngram_buckets
        accumulate schedule schedule_epochs warmup_steps final_learning_rate plateau_patience
        plateau_factor ema_momentum
    """,
    INEXACT: """
        dropout learning_rate clip_norm validation_steps monitor monitor_mode initial_best min_delta
        baseline start_from_epoch on_nan intra_op_threads strategy logical_devices token_dropout shards
    """,
    FREE: """
        epochs eval_every_steps patience checkpoint_every_steps checkpoint_every_secs max_to_keep
        log_every_steps sample_text inter_op_threads
    """,
    NOT_STORED: """
        mode workdir allow_inexact_resume data_dir cache_dir checkpoint split input text
        input_format keep_columns threshold output init_from init_optimizer init_best_metric
        profile_steps connect_secs
    """,
}


def test_the_flag_names_are_pinned():
    assert set(config.FIELDS) == set(NAMES.split()), "flags are never renamed; add a new one to this list"


@pytest.mark.parametrize("on_resume", ON_RESUME)
def test_which_flags_may_change_on_resume_is_pinned(on_resume):
    names = [name for name, field in config.FIELDS.items() if field.metadata["on_resume"] is on_resume]
    assert sorted(names) == sorted(ON_RESUME[on_resume].split())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"epochs": 0}, "--epochs must be an integer from 1 to 2147483647, but --epochs=0"),
        ({"batch_size": 0}, "--batch_size"),
        ({"batch_size": 99_999_999_999}, "--batch_size must be an integer from 1 to 65536"),
        ({"intra_op_threads": 257}, "--intra_op_threads"),
        ({"dropout": 1.0}, "--dropout must be a finite number from 0.0 to 0.99"),
        ({"learning_rate": 0.0}, "--learning_rate must be a finite number above 0.0"),
        ({"held_out_fraction": 0.5}, "--held_out_fraction must be a finite number above 0.0, at most 0.4"),
        ({"learning_rate": float("nan")}, "--learning_rate"),
        ({"learning_rate": float("inf")}, "--learning_rate"),
        ({"baseline": float("nan")}, "--baseline"),
        ({"vocab_size": 2}, "--vocab_size"),
        ({"seed": 2**31}, "--seed"),
        (
            {"monitor": "f1"},
            "--monitor must be one of val_loss, .*, val_auc, loss, accuracy, but --monitor=f1",
        ),
        ({"monitor_mode": "up"}, "--monitor_mode"),
        ({"mode": "fly"}, "--mode"),
        ({"workdir": ""}, "--workdir is required"),
        ({"train_split": ""}, "--train_split"),
        ({"validation_split": ""}, "--monitor=val_loss needs validation reviews"),
        (
            {"validation_split": "", "monitor": "loss", "validation_steps": 3},
            "--validation_steps=3 needs validation reviews",
        ),
        (
            {"text": ("good",), "input": "a.txt", "mode": "predict"},
            "Only one of --text and --input can be read",
        ),
        *(
            ({"profile_steps": steps}, "as in 10:20, but")
            for steps in ("10", "20:10", "0:1", "a:b", "-1:2", "1:2:3", "\u0661:\u0662")
        ),
        ({"init_optimizer": True}, r"--init_optimizer .* --init_from names"),
    ],
)
def test_an_out_of_bounds_or_inconsistent_setting_is_refused_by_name(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        Config(**{"workdir": "w", **settings})


def test_every_integer_flag_is_bounded_below_2_to_the_31():
    for name, field in config.FIELDS.items():
        if field.type is int:
            with pytest.raises(InputError, match=f"--{name} must be an integer from"):
                Config(**{"workdir": "w", name: 2**31})


def test_without_validation_the_training_metrics_may_be_monitored():
    assert Config(workdir="w", validation_split="", monitor="accuracy").lower_is_better is False


@pytest.mark.parametrize(
    ("monitor", "mode", "lower"),
    [
        ("val_loss", "auto", True),
        ("val_accuracy", "auto", False),
        ("loss", "max", False),
        ("accuracy", "min", True),
    ],
)
def test_monitor_and_monitor_mode_decide_whether_lower_is_better(monitor, mode, lower):
    assert Config(workdir="w", monitor=monitor, monitor_mode=mode).lower_is_better is lower


@pytest.mark.parametrize("name", ["workdir", "cache_dir", "init_from", "checkpoint", "input", "output"])
def test_a_cloud_storage_path_is_refused_by_name(name):
    modes = {"checkpoint": "evaluate", "input": "evaluate", "output": "evaluate"}
    with pytest.raises(
        InputError, match=rf"--{name} must be a path on this machine, but --{name}=gs://bucket/run"
    ):
        Config(**{"workdir": "w", "mode": modes.get(name, "train"), name: "gs://bucket/run"})


def test_every_command_line_only_string_flag_is_listed_as_a_path_or_not():
    texts = {
        name
        for name, field in config.FIELDS.items()
        if field.type is str and field.metadata["on_resume"] is NOT_STORED and not field.metadata["choices"]
    }
    assert texts - {"split", "profile_steps"} == {*config.PATHS, "data_dir"}


@pytest.mark.parametrize("flag", [{"schedule_epochs": 3}, {"final_learning_rate": 1e-5}])
def test_a_learning_rate_that_is_constant_has_no_end(flag):
    with pytest.raises(InputError, match="is for a learning rate that falls, but --schedule=constant"):
        Config(workdir="run", **flag)
    Config(workdir="run", schedule="linear", **flag)
