"""What settings must be, each alone and all together."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainer import metrics
from trainer.errors import InputError
from trainer.fields import is_within_bounds, requirement

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"


def check_each(
    fields: Mapping[str, dataclasses.Field[Any]], paths: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Raises InputError for a setting that is out of bounds.

    Args:
      fields: name -> field, of all settings.
      paths: the names of those that are paths.
      settings: the values to check, by name.
    """
    for name, value in settings.items():
        field = fields[name]
        if not is_within_bounds(value, field.metadata):
            raise InputError(f"--{name} must be {requirement(field)}, but --{name}={value} was given.")
        if name in paths and re.match(_SCHEME, value):
            raise InputError(
                f"--{name} must be a path on this machine, but --{name}={value} was given; "
                f"mount it as a folder and give that path."
            )


def check_combinations(settings: Mapping[str, Any]) -> None:
    """Raises InputError when the settings, all of them by name, contradict each other."""
    _check_required(settings)
    _check_each_other(settings)


def _check_required(settings: Mapping[str, Any]) -> None:
    if not settings["workdir"]:
        raise InputError(
            "--workdir is required, but none was given; "
            "name a directory for the run, as in --workdir=runs/first."
        )
    if not settings["train_split"]:
        raise InputError(
            "--train_split must name the reviews to train on, but it is empty; "
            "give it in TFDS' syntax, as in train[:90%]."
        )


def _check_each_other(settings: Mapping[str, Any]) -> None:
    for flag, other in (("text", "input"), ("split", "input")):
        if settings[flag] and settings[other]:
            raise InputError(
                f"Only one of --{flag} and --{other} can be read at a time, but both were; give one."
            )
    if settings["profile_steps"] and not window(settings["profile_steps"]):
        raise InputError(
            f"--profile_steps must be a first step from 1 on and a last one not before it, as in 10:20, "
            f"but --profile_steps={settings['profile_steps']} was given."
        )
    for flag in ("init_optimizer", "init_best_metric"):
        if settings[flag] and not settings["init_from"]:
            raise InputError(
                f"--{flag} needs the run that --init_from names, but --init_from is empty; give both."
            )
    if settings["logical_devices"] > 1 and settings["strategy"] == "one_device":
        raise InputError(
            f"--logical_devices={settings['logical_devices']} is for several devices, but "
            f"--strategy=one_device; "
            f"give --strategy=mirrored."
        )
    for flag in ("schedule_epochs", "final_learning_rate"):
        if settings[flag] and settings["schedule"] == "constant":
            raise InputError(
                f"--{flag}={settings[flag]} is for a learning rate that falls, but --schedule=constant; "
                f"give --schedule=cosine or --schedule=linear."
            )
    monitors_validation = metrics.is_of_validation(settings["monitor"])
    for flag, needs_it in (
        ("monitor", monitors_validation),
        ("validation_steps", settings["validation_steps"]),
    ):
        if needs_it and not settings["validation_split"]:
            raise InputError(
                f"--{flag}={settings[flag]} needs validation reviews, but --validation_split is "
                f"empty; name a split, or give --monitor=loss or --monitor=accuracy and no "
                f"--validation_steps."
            )


def window(steps: str) -> tuple[int, int] | None:
    """The first and the last step of a --profile_steps; None when it names none."""
    match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", steps, re.ASCII)
    first, last = map(int, match.groups()) if match else (0, 0)
    return (first, last) if 0 < first <= last else None
