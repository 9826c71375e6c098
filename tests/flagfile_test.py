"""Settings as text, in a checkpoint and in config.flags."""

import pytest

from trainer import flagfile
from trainer.config import Config
from trainer.fields import FIXED, FREE, INEXACT


def test_a_config_written_as_a_flagfile_parses_to_the_same_config(tmp_path, parse):
    settings = Config(
        workdir="w",
        baseline=0.25,
        learning_rate=1e-3,
        sample_text=("one", "two = 2"),
        train_split="train[:90%]",
        seed=3,
    )
    path = tmp_path / "config.flags"
    path.write_bytes(flagfile.to_file(settings))
    assert (
        Config(workdir="w", **flagfile.from_text(flagfile.to_text(settings, FIXED, INEXACT, FREE)))
        == settings
    )
    assert Config(workdir="w", **flagfile.from_file(path.read_bytes())) == settings
    assert Config(workdir="w", **parse(f"--flagfile={path}")) == settings


@pytest.mark.parametrize(
    "line",
    [
        "rm -rf",
        "--weight_decay=0.0",
        "--output=/etc/passwd",
        "--mode=export",
        "--workdir=w",
        "--cache_dir=c",
        "--epochs=0",
        "--seed=x",
    ],
)
def test_a_line_that_is_not_a_stored_setting_is_refused_by_name(line):
    with pytest.raises(ValueError, match=line.partition("=")[0] if "=x" not in line else "integer"):
        flagfile.from_text(f"--epochs=3\n{line}\n")


def test_a_truncated_or_bit_flipped_copy_is_refused():
    whole = flagfile.to_file(Config(workdir="w", epochs=20))
    flips = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(len(whole))]
    for content in [b"\xff\x00 garbage", *(whole[:size] for size in range(len(whole))), *flips]:
        with pytest.raises(ValueError):
            flagfile.from_file(content)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (None, ""), (("a", "b"), "a b"), (0.001, "0.001"), (1e-07, "1e-07")],
)
def test_a_value_has_the_text_that_runs_have_stored_from_the_beginning(value, text):
    assert flagfile.as_text(value) == text
