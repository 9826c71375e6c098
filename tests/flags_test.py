"""The command line: every flag and flagfile is checked before anything else happens."""

import os
import pwd

import pytest

from trainer import config, flags
from trainer.errors import InputError


def test_only_given_flags_are_returned(parse):
    assert parse("--workdir=w", "--epochs=3") == {"workdir": "w", "epochs": 3}


def test_later_flags_override_a_flagfile(tmp_path, parse):
    flagfile = tmp_path / "some.flags"
    flagfile.write_text("# a comment\n--epochs=3\n--seed=7\n")
    assert parse(f"--flagfile={flagfile}", "--epochs=4") == {"epochs": 4, "seed": 7}


def test_sample_text_can_be_given_several_times(parse):
    assert parse("--sample_text=good", "--sample_text=bad") == {"sample_text": ("good", "bad")}


def test_text_key_and_label_key_are_aliases_of_the_column_flags(parse):
    assert parse("--text_key=sentence", "--label_key=stars") == {
        "text_column": "sentence",
        "label_column": "stars",
    }
    assert "Also --text_key." in flags.help_text()


def test_a_bool_flag_needs_no_value(parse):
    assert parse("--allow_inexact_resume") == {"allow_inexact_resume": True}


def test_help_lists_every_flag_with_its_default(parse):
    assert parse("--help") is None
    text = flags.help_text()
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
def test_an_invalid_argument_is_refused_in_one_sentence(argument, sentence, parse):
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
def test_an_invalid_flagfile_is_refused_in_one_sentence(tmp_path, content, sentence, parse):
    flagfile = tmp_path / "bad.flags"
    flagfile.write_bytes(content.replace(b"{file}", bytes(flagfile)).replace(b"{folder}", bytes(tmp_path)))
    with pytest.raises(InputError, match=sentence) as error:
        parse(f"--flagfile={flagfile}")
    assert "\n" not in str(error.value)


def test_a_flag_of_another_mode_is_refused(parse):
    with pytest.raises(InputError, match="--text is for --mode=predict, but the mode is train"):
        parse("--workdir=w", "--text=good")


def test_a_flag_of_several_other_modes_is_refused_with_their_names(parse):
    with pytest.raises(
        InputError, match="--output is for --mode=evaluate or predict or inspect, but the mode is export"
    ):
        parse("--workdir=w", "--mode=export", "--output=-")


def test_a_flag_may_precede_its_mode(parse):
    assert parse("--text=good", "--mode=predict") == {"mode": "predict", "text": ("good",)}


def test_a_text_that_is_not_utf8_is_refused(parse):
    with pytest.raises(InputError, match="UTF-8"):
        parse("--sample_text=\udcff")


PATHS = ("workdir", "data_dir", "cache_dir", "init_from", "checkpoint", "input", "output")
MODES = dict.fromkeys(("checkpoint", "input", "output"), "evaluate")  # --mode=train does not take these


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("given", "expected"),
    [("~/a b/~x", "/home/me/a b/~x"), ("~", "/home/me"), ("~root/x", "{root}/x")],
)
def test_a_leading_tilde_in_a_path_is_expanded(monkeypatch, name, given, expected, parse):
    monkeypatch.setenv("HOME", "/home/me/")
    parsed = parse(f"--mode={MODES.get(name, 'train')}", f"--{name}={given}")
    assert parsed[name] == expected.format(root=pwd.getpwnam("root").pw_dir)


@pytest.mark.parametrize("kind", ["csv:", "tsv:", "jsonl:", "folder:", ""])
def test_a_leading_tilde_in_the_path_of_a_dataset_is_expanded(monkeypatch, kind, parse):
    monkeypatch.setenv("HOME", "/home/me")
    assert parse(f"--dataset={kind}~/reviews.csv") == {"dataset": f"{kind}/home/me/reviews.csv"}


def test_a_leading_tilde_in_a_flagfile_is_expanded(monkeypatch, tmp_path, parse):
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
def test_any_other_tilde_is_kept(argument, parse):
    name, _, value = argument.removeprefix("--").partition("=")
    assert parse(argument) == {name: (value,) if name == "sample_text" else value}


@pytest.mark.parametrize("name", [*PATHS, "dataset"])
def test_an_unknown_home_folder_is_refused_in_one_sentence(name, parse):
    kind = "csv:" * (name == "dataset")
    with pytest.raises(InputError) as error:
        parse(f"--mode={MODES.get(name, 'train')}", f"--{name}={kind}~nobody-at-all/x")
    assert str(error.value) == (
        f"--{name} must be in a home folder that is known, but --{name}={kind}~nobody-at-all/x was given; "
        f"write the whole path, or {kind}./~nobody-at-all/x for a name that begins with ~ itself."
    )


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_a_valid_home_variable_the_users_home_folder_is_used(monkeypatch, home, parse):
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    assert parse("--workdir=~/x") == {"workdir": f"{pwd.getpwuid(os.getuid()).pw_dir}/x"}
