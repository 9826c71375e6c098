"""The command line: absl's flags, flagfiles and `--help`. The only user of absl.flags."""

import contextlib
import dataclasses
import io
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from trainer import files
from trainer.config import FIELDS, PATHS
from trainer.errors import InputError
from trainer.fields import requirement
from trainer.flagfile import as_text, parse_value

_INTRODUCTION = """\
Train a bidirectional LSTM on labelled reviews. Kill it at any time: the same command again resumes exactly.

    python -m trainer.main --flagfile=trainer/configs/quickstart.flags

Flags can also be in a file, one per line: --flagfile=<path>. --verbosity=-1 is quiet, 1 logs every save.
A path that begins with ~ is in the home folder.
SIGUSR1 saves, and training continues; SIGINT, SIGTERM, SIGHUP, SIGUSR2 and SIGXCPU save and stop.

On resume, a flag that is not given keeps the run's value. A different value is refused for a [fixed] flag,
needs --allow_inexact_resume for an [inexact] one, and is accepted for a [free] or [not stored] one.
"""


class _Parser(flags.ArgumentParser[Any]):
    """Converts text to the type of one field."""

    def __init__(self, field: dataclasses.Field[Any]) -> None:
        self._field = field

    def parse(self, argument: Any) -> Any:
        return parse_value(self._field, argument) if isinstance(argument, str) else argument


def _define_flags() -> None:
    for name, field in FIELDS.items():
        help = field.metadata["help"]
        if field.type is bool:
            flags.DEFINE_bool(name, None, help)
            continue
        define = flags.DEFINE_multi if field.type == tuple[str, ...] else flags.DEFINE
        define(_Parser(field), name=name, default=None, help=help, serializer=flags.ArgumentSerializer())
        if field.metadata["alias"]:
            flags.DEFINE_alias(field.metadata["alias"], name)
    flags.DEFINE_bool("help", False, "Print every flag and exit.", short_name="h")


_define_flags()


def parse(argv: Sequence[str]) -> dict[str, Any] | None:
    """Parses a command line into settings; None when it requests help.

    Raises:
      InputError: for a flag that is unknown, of a wrong type or of another mode, a flagfile that cannot be
        read, or an argument that is not a flag.
    """
    stray = _parse_with_absl(argv)
    if flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.INFO)
    if stray:
        raise InputError(
            f"Only flags are accepted, but {stray[0]!r} was given; write --name=value. --help lists every "
            f"flag."
        )
    if flags.FLAGS.help:
        return None
    given = {name: flags.FLAGS[name].value for name in FIELDS if flags.FLAGS[name].present}
    mode = given.get("mode", FIELDS["mode"].default)
    for name in given:
        modes = FIELDS[name].metadata["modes"]
        if modes and mode not in modes:
            raise InputError(f"--{name} is for --mode={' or '.join(modes)}, but the mode is {mode}.")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return {name: _expand_home(name, value) for name, value in given.items()}


def _expand_home(name: str, value: Any) -> Any:
    # Most shells do not expand a ~ after = or csv:.
    if name not in (*PATHS, "data_dir", "dataset"):
        return value
    kind, path = "", value
    if name == "dataset" and (match := re.fullmatch(r"([a-z]+:)(.*)", value)):
        kind, path = match.groups()
    try:
        return kind + files.expand_home(path)
    except LookupError:
        raise InputError(
            f"--{name} must be in a home folder that is known, but --{name}={value} was given; "
            f"write the whole path, or {kind}./{path} for a name that begins with ~ itself."
        ) from None


def _parse_with_absl(argv: Sequence[str]) -> list[str]:
    # Sets absl's flags; returns the arguments that are not flags.
    try:
        # absl reports a flagfile that includes itself on standard error only.
        with contextlib.redirect_stderr(io.StringIO()) as captured_stderr:
            _, *stray = flags.FLAGS(argv)
    except UnicodeDecodeError as error:
        raise InputError(
            f"A flagfile must be text in UTF-8, but one that was given is not: {error}."
        ) from None
    except (flags.Error, ValueError) as error:
        message = " ".join(str(error).removeprefix("ERROR:: ").split())
        raise InputError(f"{message}; --help lists every flag.") from None
    if warning := captured_stderr.getvalue():
        raise InputError(
            f"A flagfile may not include itself, but {warning.split()[-1]} does, directly or through others."
        )
    return stray


def help_text() -> str:
    """What `--help` prints: every flag with its default, its bounds and whether it may change on resume."""
    lines = _INTRODUCTION.splitlines()
    section = None
    for name, field in FIELDS.items():
        metadata = field.metadata
        if metadata["section"] != section:
            section = metadata["section"]
            lines += ["", section]
        use = f"--mode={' or '.join(metadata['modes'])}" if metadata["modes"] else metadata["on_resume"].value
        is_bounded = field.type not in (str, bool, tuple[str, ...]) or metadata["choices"]
        bounds = f"; {requirement(field)}" if is_bounded else ""
        alias = f" Also --{metadata['alias']}." if metadata["alias"] else ""
        text = f"{metadata['help']}{alias} [{use}{bounds}]"
        indent = " " * 6
        lines += [f"  --{name}={as_text(field.default)}"]
        lines += textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines) + "\n"
