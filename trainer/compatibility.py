"""Checks whether a start may resume a run: compares settings, data and conditions with the run's own."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

from absl import logging

from trainer import files, flagfile
from trainer.config import Config, Settings
from trainer.data import input_pipeline
from trainer.errors import InputError
from trainer.fields import FIXED, FREE, INEXACT
from trainer.labels import NEGATIVE_POSITIVE, Classes
from trainer.model import encoder, ngrams
from trainer.run import checkpoint_reading, conditions
from trainer.run.state import TrainState
from trainer.settings import changes

# The ids of those parts of our code that affect the bits of a result.
NUMERICS = {"kernel": encoder.NUMERICS_ID, "batch order": input_pipeline.BATCH_ORDER_ID}
_OF_NGRAMS = {"n-grams": ngrams.NUMERICS_ID}

CLASSES = "classes"  # the fingerprint that holds the classes; one that lacks it has NEGATIVE_POSITIVE


@dataclasses.dataclass(frozen=True)
class Differences:
    """How a start differs from its run; each difference is one phrase.

    Attributes:
      fixed: differences of settings that are never accepted.
      reviews: differences of vocabulary and splits, which are never accepted either.
      inexact: differences that --allow_inexact_resume accepts.
    """

    fixed: list[str]
    reviews: list[str]
    inexact: list[str]


def compare(
    stored: Settings,
    settings: Config,
    *,
    recorded_conditions: Mapping[str, str],
    current_conditions: Mapping[str, str],
    recorded_fingerprints: Mapping[str, str] | None = None,
    current_fingerprints: Mapping[str, str] | None = None,
) -> Differences:
    """Compares a start with its run.

    Args:
      stored: the run's own settings.
      settings: the settings of the start.
      recorded_conditions: the conditions of exactness recorded with the run.
      current_conditions: the conditions of this process.
      recorded_fingerprints: the fingerprints of the run's vocabulary, splits and classes.
      current_fingerprints: the same of what is open now; None if nothing is.
    """
    fixed = changes(stored, settings, FIXED)
    recorded = recorded_fingerprints or {}
    current = current_fingerprints or {}
    changed = [name for name in current if name != CLASSES and recorded.get(name) != current[name]]
    reviews = [f"the {name} has changed" for name in changed]
    if current_fingerprints is not None:
        reviews += _changed_classes(recorded.get(CLASSES), current.get(CLASSES))
    inexact = changes(stored, settings, INEXACT)
    inexact += conditions.differences(recorded_conditions, current_conditions)
    return Differences(fixed, reviews, inexact)


def numerics_of(settings: Config) -> dict[str, str]:
    """The ids of those parts of our code that affect the bits of a run with these settings."""
    return NUMERICS | (_OF_NGRAMS if settings.ngrams else {})


def fingerprint_of(classes: Classes) -> dict[str, str]:
    """The fingerprint of the classes; older versions knew the usual two alone, and did not record them."""
    return {} if classes == NEGATIVE_POSITIVE else {CLASSES: classes.to_json()}


def recorded_classes(newest: pathlib.Path) -> Classes | None:
    """The usual two, if a run recorded no classes; else None."""
    return None if CLASSES in checkpoint_reading.read_texts(newest, "fingerprints") else NEGATIVE_POSITIVE


def _changed_classes(recorded: str | None, current: str | None) -> list[str]:
    if recorded == current:
        return []
    usual = NEGATIVE_POSITIVE.to_json()
    return [f"the classes were {_shown(recorded or usual)} and are {_shown(current or usual)} now"]


def _shown(classes: str) -> str:
    # Untrusted text of a checkpoint; as --labels would write it.
    try:
        known = Classes.from_json(classes)
    except (ValueError, TypeError, RecursionError):
        return repr(classes[:100])
    named = zip(known.names, known.values, strict=True)
    return "; ".join(f"{name}={','.join(values)}" for name, values in named)


def check_compatible(
    settings: Config, newest: pathlib.Path, stored: Settings, texts: Mapping[str, str]
) -> None:
    """Raises InputError when this start may not resume the run, naming every difference.

    Args:
      settings: the settings of the start.
      newest: the checkpoint to resume from.
      stored: the run's own settings.
      texts: the string variables of the state, as this start would write them.
    """
    differences = compare(
        stored,
        settings,
        recorded_conditions=checkpoint_reading.read_texts(newest, "conditions"),
        current_conditions=json.loads(texts["conditions"]),
        recorded_fingerprints=checkpoint_reading.read_texts(newest, "fingerprints"),
        current_fingerprints=json.loads(texts["fingerprints"]),
    )
    if differences.fixed:
        raise InputError(
            f"{settings.workdir} must be resumed as it was started, "
            f"but {'; '.join(differences.fixed + differences.reviews + differences.inexact)}; "
            f"give the run's own values, or start a new run in another --workdir."
        )
    if differences.reviews:
        raise InputError(
            f"{settings.workdir} must be resumed with the reviews that it was started with, but those "
            f"of {settings.dataset} are others now ({'; '.join(differences.reviews)}); put a copy of the old "
            f"ones there, or start a new run in another --workdir with --init_from={settings.workdir}."
        )
    inexact = "; ".join(differences.inexact)
    if inexact and not settings.allow_inexact_resume:
        raise InputError(
            f"{settings.workdir} must be resumed as it was started to end with the same bits, but {inexact}; "
            f"give the run's own values, or --allow_inexact_resume to continue with others."
        )
    if inexact:
        logging.warning("Resuming inexactly: %s.", inexact)


def check_copy(settings: Config, stored: Settings) -> None:
    """Warns when the copy `config.flags` holds neither the run's settings nor those of this start."""
    path = pathlib.Path(settings.workdir) / "config.flags"
    try:
        copy = flagfile.from_file(files.read(path))
    except FileNotFoundError:
        reason = "it is missing"
    except OSError as error:
        reason = files.reason(error)
    except ValueError as error:
        reason = str(error)
    else:
        if all(copy[name] == getattr(settings, name) for name in copy):
            return
        differing = [name for name, value in stored.items() if copy.get(name) != value]
        reason = "; ".join(f"--{name} is {copy.get(name)} there" for name in differing)
    if reason:
        logging.warning(
            "%s does not have the run's settings (%s); it has no effect and will be rewritten.",
            path,
            reason,
        )


def facts_of(settings: Config, texts: Mapping[str, str], newest: pathlib.Path | None) -> dict[str, str]:
    """Everything that must be equal on all workers, by name."""
    facts = {f"--{name}": value for name, value in flagfile.shown(settings, FIXED, INEXACT, FREE)}
    for text in ("fingerprints", "conditions"):
        facts |= {f"the {name}": value for name, value in json.loads(texts[text]).items()}
    return facts | {"the checkpoint to resume from": str(newest.name if newest else None)}


def apply_overrides(settings: Config, state: TrainState, texts: Mapping[str, str]) -> None:
    """Overwrites those values of a restored state that this start may change."""
    state.frozen_flags.assign(texts["frozen_flags"])
    state.free_flags.assign(texts["free_flags"])
    state.conditions.assign(texts["conditions"])
    state.optimizer.learning_rate.assign(settings.learning_rate)
    if int(state.best_step) < 0 and settings.initial_best is not None:
        state.best_metric.assign(settings.initial_best)
