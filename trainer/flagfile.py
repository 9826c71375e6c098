"""Settings as text: the lines of a flagfile, stored in checkpoints and in `config.flags`."""

import dataclasses
import hashlib
from typing import Any

from trainer.config import FIELDS, Config, check_each
from trainer.errors import InputError
from trainer.fields import FIXED, FREE, INEXACT, NOT_STORED, OnResume, requirement

_SEAL = "# Written by the trainer; sha256 of the lines above: "
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def parse_value(field: dataclasses.Field[Any], argument: str) -> Any:
    """Converts a text to the type of a field, or of one item if the field is a tuple.

    An empty text becomes None if the field may be None.

    Raises:
      ValueError: when the text is not of that type; its message says what it must be.
    """
    if field.type is bool:
        if argument.lower() not in _BOOLEANS:
            raise ValueError("it must be true or false")
        return _BOOLEANS[argument.lower()]
    if field.type == float | None and not argument:
        return None
    if field.type in (int, float, float | None):
        try:
            return int(argument) if field.type is int else float(argument)
        except ValueError:
            raise ValueError(f"it must be {requirement(field)}") from None
    is_one_line = len(argument.splitlines()) <= 1 and "\0" not in argument
    if not is_one_line or argument.encode(errors="ignore").decode() != argument:
        raise ValueError("it must be a single line of text in UTF-8")
    return argument


def as_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(value)
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def shown(config: Config, *classes: OnResume) -> list[tuple[str, str]]:
    """The settings of these classes, as (name, value as on the command line)."""
    names = (name for name, field in FIELDS.items() if field.metadata["on_resume"] in classes)
    return [(name, as_text(getattr(config, name))) for name in names]


def to_text(config: Config, *classes: OnResume) -> str:
    """The settings of these classes as the lines of a flagfile."""
    lines = []
    for name, field in FIELDS.items():
        if field.metadata["on_resume"] in classes:
            value = getattr(config, name)
            items = value if isinstance(value, tuple) else (value,)
            lines += [f"--{name}={as_text(item)}\n" for item in items]
    return "".join(lines)


def from_text(text: str) -> dict[str, Any]:
    """The inverse of `to_text`.

    The text is untrusted: a flag that only the command line may give, such as an output path, is refused.

    Raises:
      ValueError: when `text` is not what `to_text` writes.
    """
    values: dict[str, Any] = {}
    for line in text.splitlines():
        name, equals, argument = line.removeprefix("--").partition("=")
        if name not in FIELDS or not equals:
            raise ValueError(f"this version has no {line[:100]!r}")
        field = FIELDS[name]
        if field.metadata["on_resume"] is NOT_STORED:
            raise ValueError(f"{line[:100]!r} may only be given on the command line")
        value = parse_value(field, argument)
        values[name] = (*values.get(name, ()), value) if field.type == tuple[str, ...] else value
    try:
        check_each(values)
    except InputError as error:
        raise ValueError(str(error)) from error
    return values


def to_file(config: Config) -> bytes:
    """The content of `config.flags`: a flagfile and its checksum, as a truncated line may be a valid flag."""
    text = to_text(config, FIXED, INEXACT, FREE)
    return f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def from_file(content: bytes) -> dict[str, Any]:
    """The settings in a `config.flags`; raises ValueError when it is not what this program writes."""
    text, _, digest = content.decode().rpartition(_SEAL)
    if digest != hashlib.sha256(text.encode()).hexdigest() + "\n":
        raise ValueError("its last line is not the checksum of the others")
    return from_text(text)
