"""The metadata of a `Config` field: section, default, help, bounds, and whether it may change on resume."""

import dataclasses
import enum
import math
import types
from collections.abc import Mapping
from typing import Any


class OnResume(enum.Enum):
    """Whether a flag may change on resume."""

    FIXED = "fixed"
    INEXACT = "inexact"
    FREE = "free"
    NOT_STORED = "not stored"


FIXED, INEXACT, FREE, NOT_STORED = OnResume

POOLINGS = ("last", "max", "mean", "last,max", "last,mean", "max,mean", "last,max,mean")


def define(
    section: str,
    on_resume: OnResume,
    default: Any,
    help: str,
    *,
    lower: float | None = None,
    above: float | None = None,
    upper: float | None = None,
    choices: tuple[str, ...] | None = None,
    modes: tuple[str, ...] = (),
    alias: str | None = None,
    before: Any = None,
) -> Any:
    """A dataclass field with the metadata that its flag needs.

    Args:
      section: its section in `--help`.
      on_resume: whether it may change on resume.
      default: its default value.
      help: what `--help` prints.
      lower: the smallest allowed value.
      above: a value that it must exceed, instead of `lower`.
      upper: the largest allowed value; None means 2**31 - 1 for integers.
      choices: the allowed values.
      modes: the modes that accept it; empty: all.
      alias: another name of its flag.
      before: its value in runs of versions that did not have it, if not the default.
    """
    if isinstance(default, int) and not isinstance(default, bool) and upper is None:
        upper = 2**31 - 1
    metadata = {"section": section, "on_resume": on_resume, "help": help, "modes": modes, "alias": alias}
    metadata |= {"lower": lower, "above": above, "upper": upper, "choices": choices, "before": before}
    return dataclasses.field(default=default, metadata=types.MappingProxyType(metadata))


def is_within_bounds(value: Any, metadata: Mapping[str, Any]) -> bool:
    """Whether a field with this metadata may have this value."""
    lower, above, upper, choices = (metadata[bound] for bound in ("lower", "above", "upper", "choices"))
    if value is None:  # a value that need not be given
        return True
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if choices is not None:
        return value in choices
    is_large_enough = (lower is None or value >= lower) and (above is None or value > above)
    return is_large_enough and (upper is None or value <= upper)


def requirement(field: dataclasses.Field[Any]) -> str:
    """What a value of a field must be, as in "an integer from 0 to 256"."""
    lower, above, upper, choices = (field.metadata[bound] for bound in ("lower", "above", "upper", "choices"))
    if choices is not None:
        return f"one of {', '.join(choice or 'empty' for choice in choices)}"
    kind = "an integer" if field.type is int else "a finite number"
    if lower is not None and upper is not None:
        return f"{kind} from {lower} to {upper}"
    if above is not None:
        return f"{kind} above {above}" + (f", at most {upper}" if upper is not None else "")
    return f"{kind} of at least {lower}" if lower is not None else kind
