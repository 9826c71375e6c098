"""The flags: one list, checked before anything else happens."""

import dataclasses
import os
import pwd

import pytest
from absl import flags

from trainer import InputError, config
from trainer.config import FIXED, FREE, INEXACT, NOT_STORED, Config

NAMES = (
    "mode workdir dataset data_dir train_split validation_split test_split vocab_size max_length embedding_dim lstm_units dense_units "
    "dropout batch_size epochs learning_rate clip_norm seed monitor monitor_mode patience min_delta baseline start_from_epoch initial_best "
    "eval_every_steps validation_steps checkpoint_every_steps checkpoint_every_secs max_to_keep log_every_steps sample_text cache_dir "
    "allow_inexact_resume on_nan intra_op_threads inter_op_threads checkpoint split input text bad_rows output init_from init_optimizer "
    "init_best_metric profile_steps text_column label_column held_out_fraction strategy logical_devices connect_secs"
)
ON_RESUME = {
    FIXED: "seed dataset train_split validation_split test_split vocab_size max_length embedding_dim lstm_units dense_units batch_size "
    "text_column label_column held_out_fraction",
    INEXACT: "dropout learning_rate clip_norm validation_steps monitor monitor_mode initial_best min_delta baseline start_from_epoch "
    "on_nan intra_op_threads inter_op_threads strategy logical_devices",
    FREE: "epochs eval_every_steps patience checkpoint_every_steps checkpoint_every_secs max_to_keep log_every_steps sample_text",
    NOT_STORED: "mode workdir allow_inexact_resume data_dir cache_dir checkpoint split input text bad_rows output init_from init_optimizer "
    "init_best_metric profile_steps connect_secs",
}

PATHS = ("workdir", "data_dir", "cache_dir", "init_from", "checkpoint", "input", "output")
MODES = dict.fromkeys(("checkpoint", "input", "output"), "evaluate")  # --mode=train does not take these


@pytest.fixture(autouse=True)
def _fresh_flags():
    flags.FLAGS.unparse_flags()
    yield
    flags.FLAGS.unparse_flags()


def parse(*arguments):
    return config.parse(["trainer", *arguments])


def test_the_list_of_flags_is_an_interface():
    assert set(config.FIELDS) == set(NAMES.split()), "flags are never renamed; a new one joins this list"


@pytest.mark.parametrize("on_resume", ON_RESUME)
def test_what_a_resumed_run_may_change_is_an_interface(on_resume):
    names = [name for name, field in config.FIELDS.items() if field.metadata["on_resume"] is on_resume]
    assert sorted(names) == sorted(ON_RESUME[on_resume].split())


def test_only_what_is_given_is_returned():
    assert parse("--workdir=w", "--epochs=3") == {"workdir": "w", "epochs": 3}


def test_a_flagfile_may_be_overruled_after_it(tmp_path):
    flagfile = tmp_path / "some.flags"
    flagfile.write_text("# a comment\n--epochs=3\n--seed=7\n")
    assert parse(f"--flagfile={flagfile}", "--epochs=4") == {"epochs": 4, "seed": 7}


def test_sample_text_may_be_given_several_times():
    assert parse("--sample_text=good", "--sample_text=bad") == {"sample_text": ("good", "bad")}


def test_what_tfds_calls_a_key_is_a_column():
    assert parse("--text_key=sentence", "--label_key=stars") == {"text_column": "sentence", "label_column": "stars"}
    assert "Also --text_key." in config.help_text()


def test_a_bool_flag_needs_no_value():
    assert parse("--allow_inexact_resume") == {"allow_inexact_resume": True}


def test_help_is_asked_for_and_names_every_flag_with_its_default():
    assert parse("--help") is None
    text = config.help_text()
    for name in config.FIELDS:
        assert f"--{name}=" in text
    assert "--epochs=10" in text


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--epoch=3", "Unknown command line flag 'epoch'"),
        ("--epochs=many", "an integer from 1 to 2147483647"),
        ("--epochs=2.5", "an integer from 1 to 2147483647"),
        ("--learning_rate=fast", "a finite number above 0"),
        ("--allow_inexact_resume=perhaps", "allow_inexact_resume"),
        ("--flagfile=missing.flags", "missing.flags"),
        ("--sample_text=two\nlines", "a single line"),
        ("stray", "'stray'"),
    ],
)
def test_what_is_no_flag_is_refused_in_one_sentence(argument, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        parse(argument)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe--epochs=3", "UTF-8"),
        (b"--flagfile={file}", "may not include itself"),
        (b"--flagfile={folder}", "directory"),
        (b"--workdir=a\0b", "a single line of text in UTF-8"),
        (b"a line of prose", "a line of prose"),
    ],
)
def test_a_flagfile_that_is_none_is_refused_in_one_sentence(tmp_path, content, sentence):
    flagfile = tmp_path / "bad.flags"
    flagfile.write_bytes(content.replace(b"{file}", bytes(flagfile)).replace(b"{folder}", bytes(tmp_path)))
    with pytest.raises(InputError, match=sentence) as error:
        parse(f"--flagfile={flagfile}")
    assert "\n" not in str(error.value)


def test_a_flag_of_another_mode_is_refused():
    with pytest.raises(InputError, match="--text is for --mode=predict, but the mode is train"):
        parse("--workdir=w", "--text=good")


def test_a_flag_of_other_modes_is_refused_with_all_of_them():
    with pytest.raises(InputError, match="--output is for --mode=evaluate or predict or inspect, but the mode is export"):
        parse("--workdir=w", "--mode=export", "--output=-")


def test_a_flag_of_the_mode_may_stand_before_it():
    assert parse("--text=good", "--mode=predict") == {"mode": "predict", "text": ("good",)}


def test_a_text_that_is_not_utf8_is_refused():
    with pytest.raises(InputError, match="UTF-8"):
        parse("--sample_text=\udcff")


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
        ({"monitor": "f1"}, "--monitor must be one of val_loss, val_accuracy, loss, accuracy, but --monitor=f1"),
        ({"monitor_mode": "up"}, "--monitor_mode"),
        ({"mode": "fly"}, "--mode"),
        ({"workdir": ""}, "--workdir is required"),
        ({"train_split": ""}, "--train_split"),
        ({"validation_split": ""}, "--monitor=val_loss needs validation reviews"),
        ({"validation_split": "", "monitor": "loss", "validation_steps": 3}, "--validation_steps=3 needs validation reviews"),
        ({"text": ("good",), "input": "a.txt", "mode": "predict"}, r"--text and --input both"),
        *(({"profile_steps": steps}, "as in 10:20, but") for steps in ("10", "20:10", "0:1", "a:b", "-1:2", "1:2:3", "\u0661:\u0662")),
        ({"init_optimizer": True}, r"--init_optimizer .* --init_from names"),
    ],
)
def test_a_setting_out_of_bounds_or_at_odds_with_another_is_refused_by_name(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        Config(**{"workdir": "w", **settings})


def test_every_integer_has_bounds_that_the_libraries_below_can_count_to():
    for name, field in config.FIELDS.items():
        if field.type is int:
            with pytest.raises(InputError, match=f"--{name} must be an integer from"):
                Config(**{"workdir": "w", name: 2**31})


def test_without_validation_the_training_metrics_may_be_monitored():
    assert Config(workdir="w", validation_split="", monitor="accuracy").lower_is_better is False


@pytest.mark.parametrize(
    ("monitor", "mode", "lower"),
    [("val_loss", "auto", True), ("val_accuracy", "auto", False), ("loss", "max", False), ("accuracy", "min", True)],
)
def test_the_direction_of_the_monitor_follows_its_mode(monitor, mode, lower):
    assert Config(workdir="w", monitor=monitor, monitor_mode=mode).lower_is_better is lower


def test_the_text_of_a_config_is_a_flagfile_that_gives_the_same_config(tmp_path):
    settings = Config(workdir="w", baseline=0.25, learning_rate=1e-3, sample_text=("one", "two = 2"), train_split="train[:90%]", seed=3)
    flagfile = tmp_path / "config.flags"
    flagfile.write_bytes(config.to_file(settings))
    assert Config(workdir="w", **config.from_text(config.to_text(settings, FIXED, INEXACT, FREE))) == settings
    assert Config(workdir="w", **config.from_file(flagfile.read_bytes())) == settings
    assert Config(workdir="w", **parse(f"--flagfile={flagfile}")) == settings


@pytest.mark.parametrize(
    "line",
    ["rm -rf", "--weight_decay=0.0", "--output=/etc/passwd", "--mode=export", "--workdir=w", "--cache_dir=c", "--epochs=0", "--seed=x"],
)
def test_a_text_with_anything_but_settings_of_a_run_is_refused_by_name(line):
    with pytest.raises(ValueError, match=line.partition("=")[0] if "=x" not in line else "integer"):
        config.from_text(f"--epochs=3\n{line}\n")


def test_the_runs_own_values_hold_where_nothing_is_given():
    settings = config.resolve({"workdir": "w", "patience": 9}, {"epochs": 20, "seed": 7})
    assert (settings.epochs, settings.seed, settings.patience) == (20, 7, 9)


def test_a_damaged_copy_is_refused_wherever_it_is_cut_and_whatever_bit_is_flipped():
    whole = config.to_file(Config(workdir="w", epochs=20))
    flips = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(len(whole))]
    for content in [b"\xff\x00 garbage", *(whole[:size] for size in range(len(whole))), *flips]:
        with pytest.raises(ValueError):
            config.from_file(content)


@pytest.mark.parametrize("name", ["workdir", "cache_dir", "init_from", "checkpoint", "input", "output"])
def test_a_path_in_a_cloud_is_refused_by_name(name):
    with pytest.raises(InputError, match=rf"--{name} must be a path on this machine, but --{name}=gs://bucket/run"):
        Config(**{"workdir": "w", "mode": MODES.get(name, "train"), name: "gs://bucket/run"})


def test_each_flag_of_the_command_line_alone_is_known_to_be_a_path_or_not():
    texts = {
        name
        for name, field in config.FIELDS.items()
        if field.type is str and field.metadata["on_resume"] is NOT_STORED and not field.metadata["choices"]
    }
    assert texts - {"split", "profile_steps"} == set(PATHS)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [("~/a b/~x", "/home/me/a b/~x"), ("~", "/home/me"), ("~root/x", "{root}/x")],
)
def test_a_path_that_begins_with_a_tilde_is_in_the_home_folder(monkeypatch, name, given, expected):
    monkeypatch.setenv("HOME", "/home/me/")
    parsed = parse(f"--mode={MODES.get(name, 'train')}", f"--{name}={given}")
    assert parsed[name] == expected.format(root=pwd.getpwnam("root").pw_dir)


@pytest.mark.parametrize("kind", ["csv:", "tsv:", "jsonl:", "folder:", ""])
def test_the_path_of_own_reviews_may_begin_with_a_tilde(monkeypatch, kind):
    monkeypatch.setenv("HOME", "/home/me")
    assert parse(f"--dataset={kind}~/reviews.csv") == {"dataset": f"{kind}/home/me/reviews.csv"}


def test_a_tilde_in_a_flagfile_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "some.flags").write_text("--workdir=~/run\n")
    assert parse("--flagfile=~/some.flags") == {"workdir": f"{tmp_path}/run"}


@pytest.mark.parametrize(
    "argument",
    [
        *("--workdir=./~/x", "--workdir=a~", "--data_dir=gs://bucket/~/x", "--sample_text=~/x"),
        *("--dataset=imdb_reviews", "--dataset=csv:./~x.csv", "--dataset=glue/sst2:~", "--train_split=~/x"),
    ],
)
def test_any_other_tilde_stays(argument):
    name, _, value = argument.removeprefix("--").partition("=")
    assert parse(argument) == {name: (value,) if name == "sample_text" else value}


@pytest.mark.parametrize("name", [*PATHS, "dataset"])
def test_a_home_that_is_not_known_is_refused_in_one_sentence(name):
    kind = "csv:" * (name == "dataset")
    with pytest.raises(InputError) as error:
        parse(f"--mode={MODES.get(name, 'train')}", f"--{name}={kind}~nobody-at-all/x")
    assert str(error.value) == (
        f"--{name} must be in a home folder that is known, but --{name}={kind}~nobody-at-all/x was given; "
        f"write the whole path; a name that begins with ~ itself is written as {kind}./~nobody-at-all/x."
    )


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_where_no_home_is_set_it_is_that_of_the_user(monkeypatch, home):
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    assert parse("--workdir=~/x") == {"workdir": f"{pwd.getpwuid(os.getuid()).pw_dir}/x"}


def test_of_a_run_that_is_there_only_what_is_given_is_checked_before_its_own_settings_are_known():
    config.check({"workdir": "w", "monitor": "val_loss", "validation_split": ""}, is_run=True)
    with pytest.raises(InputError, match="--validation_split"):
        config.check({"workdir": "w", "monitor": "val_loss", "validation_split": ""}, is_run=False)
    with pytest.raises(InputError, match="--epochs"):
        config.check({"workdir": "w", "epochs": 0}, is_run=True)
    with pytest.raises(InputError, match="--workdir is required"):
        config.check({}, is_run=True)


def test_each_changed_setting_is_named_with_both_values():
    settings = Config(workdir="w", seed=1, learning_rate=0.5)
    stored = dataclasses.asdict(Config(workdir="w"))
    assert config.changes(stored, settings, FIXED) == ["--seed was 0 and is 1 now"]
    assert config.changes(stored, settings, INEXACT) == ["--learning_rate was 0.0001 and is 0.5 now"]
    assert config.changes(stored, settings, FREE) == []
