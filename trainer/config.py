"""Every setting once: its default, its meaning, its bounds, and whether a resumed run may change it.

The fields of `Config` are the flags. Precedence: what the command line (or its flagfile) gives, then what the run was begun with, then the
default. This is the only room that knows absl's flags.
"""

import contextlib
import dataclasses
import enum
import hashlib
import io
import math
import re
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence

from absl import flags, logging

from trainer import InputError, files


class OnResume(enum.Enum):
    """What a resumed run makes of another value than the one that it was begun with."""

    FIXED = "fixed"
    INEXACT = "inexact"
    FREE = "free"
    NOT_STORED = "not stored"


FIXED, INEXACT, FREE, NOT_STORED = OnResume

_PATHS = ("workdir", "cache_dir", "init_from", "checkpoint", "input", "output")
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"


def _flag(section, on_resume, default, help, *, lower=None, above=None, upper=None, choices=None, modes=(), alias=None):
    metadata = {"section": section, "on_resume": on_resume, "help": help, "modes": modes, "alias": alias}
    if isinstance(default, int) and not isinstance(default, bool) and upper is None:
        upper = 2**31 - 1
    metadata |= {"lower": lower, "above": above, "upper": upper, "choices": choices}
    return dataclasses.field(default=default, metadata=types.MappingProxyType(metadata))


def _after_training(default, help, *modes, choices=None):
    return _flag("After training", NOT_STORED, default, help, choices=choices, modes=modes)


_SAMPLE_TEXT = "The movie was cool. The animation and the graphics were out of this world. I would recommend this movie."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one start; valid by construction.

    Raises:
      InputError: when settings contradict each other; the sentence names the flags.
    """

    mode: str = _flag("Run", NOT_STORED, "train", "What to do with the run.", choices=("train", "evaluate", "predict", "export", "inspect"))
    workdir: str = _flag("Run", NOT_STORED, "", "Run directory; the same command again resumes from it. Required.")
    allow_inexact_resume: bool = _flag(
        "Run", NOT_STORED, False, "Go on although the versions, the machine or inexact flags differ from those that the run was begun with."
    )
    seed: int = _flag("Run", FIXED, 0, "Decides initial weights, order of reviews and dropout.", lower=0)

    dataset: str = _flag(
        "Data",
        FIXED,
        "sample_reviews",
        "'sample_reviews' (synthetic, generated here); the name of a TFDS text dataset; or own reviews: csv:reviews.csv, tsv:, jsonl:, or "
        "folder: with the path of a folder that holds pos/ and neg/, a .txt a review. A folder may hold one of these for each split.",
    )
    text_column: str = _flag("Data", FIXED, "text", "What the texts are called: a feature of TFDS, a column, a key.", alias="text_key")
    label_column: str = _flag("Data", FIXED, "label", "What the labels are called.", alias="label_key")
    data_dir: str = _flag(
        "Data",
        NOT_STORED,
        "",
        "Where TFDS' prepared datasets lie; empty: TFDS' own default, TFDS_DATA_DIR if set. Of own reviews, where a relative path begins.",
    )
    cache_dir: str = _flag("Data", NOT_STORED, "", "Where encoded corpora are kept, shared by runs; empty: the user's cache folder.")
    train_split: str = _flag("Data", FIXED, "train", "Reviews to train on and to count the vocabulary from, in TFDS' split syntax.")
    validation_split: str = _flag("Data", FIXED, "validation", "Reviews that decide best and patience; empty: no evaluation.")
    test_split: str = _flag("Data", FIXED, "test", "Reviews that the best checkpoint is evaluated on at the end; empty: none.")
    held_out_fraction: float = _flag(
        "Data",
        FIXED,
        0.1,
        "Of own reviews that have no splits, where none is given: the share that is drawn for validation, and as much for test.",
        above=0.0,
        upper=0.4,
    )
    vocab_size: int = _flag("Data", FIXED, 1000, "Size of the vocabulary, '' and '[UNK]' included.", lower=3)
    max_length: int = _flag("Data", FIXED, 0, "Tokens of a review that are read, from its start; 0: all.", lower=0)

    embedding_dim: int = _flag("Model", FIXED, 64, "Size of a token's embedding.", lower=1)
    lstm_units: int = _flag("Model", FIXED, 64, "Units of the LSTM, in each direction.", lower=1)
    dense_units: int = _flag("Model", FIXED, 64, "Units of the dense layer before the logit.", lower=1)
    dropout: float = _flag("Model", INEXACT, 0.0, "Share of the recurrent output that is dropped in training.", lower=0.0, upper=0.99)

    init_from: str = _flag(
        "Training", NOT_STORED, "", "Another run, of which the best is taken, or one of its checkpoints: a new run begins with its weights."
    )
    init_optimizer: bool = _flag("Training", NOT_STORED, False, "Of --init_from, take the optimizer as well.")
    init_best_metric: bool = _flag("Training", NOT_STORED, False, "Of --init_from, take the metric that has to be beaten as well.")
    epochs: int = _flag("Training", FREE, 10, "Passes over the training reviews, in all.", lower=1)
    batch_size: int = _flag("Training", FIXED, 64, "Reviews in a training step.", lower=1, upper=2**16)
    learning_rate: float = _flag("Training", INEXACT, 1e-4, "Adam's learning rate, constant.", above=0.0)
    clip_norm: float = _flag("Training", INEXACT, 0.0, "Global norm that gradients are clipped to; 0: not clipped.", lower=0.0)

    on_nan: str = _flag(
        "Training",
        INEXACT,
        "stop",
        "When the loss or a gradient is NaN or infinite: stop, with nothing of that step saved, or continue.",
        choices=("stop", "continue"),
    )

    eval_every_steps: int = _flag("Evaluation", FREE, 0, "Steps between evaluations; 0: once an epoch.", lower=0)
    validation_steps: int = _flag(
        "Evaluation", INEXACT, 0, "k: evaluate the first k x batch_size reviews of the validation split; 0: all.", lower=0
    )
    monitor: str = _flag(
        "Evaluation",
        INEXACT,
        "val_loss",
        "The metric that decides best and patience; 'loss' and 'accuracy' are those of training since the last evaluation.",
        choices=("val_loss", "val_accuracy", "loss", "accuracy"),
    )
    monitor_mode: str = _flag("Evaluation", INEXACT, "auto", "Whether less or more is better.", choices=("auto", "min", "max"))
    initial_best: float | None = _flag("Evaluation", INEXACT, None, "Only a better metric than this is best.")
    patience: int = _flag("Evaluation", FREE, 5, "Stop after this many evaluations in a row without improvement; 0: never.", lower=0)
    min_delta: float = _flag("Evaluation", INEXACT, 0.0, "Least change that patience takes for an improvement.", lower=0.0)
    baseline: float | None = _flag("Evaluation", INEXACT, None, "Patience starts anew only at a metric that is also better than this.")
    start_from_epoch: int = _flag("Evaluation", INEXACT, 0, "Patience ignores the evaluations of this many first epochs.", lower=0)

    checkpoint_every_steps: int = _flag("Saving", FREE, 0, "Steps between checkpoints, beside the one of each evaluation; 0: off.", lower=0)
    checkpoint_every_secs: float = _flag("Saving", FREE, 60.0, "Seconds between checkpoints; 0: off.", lower=0.0)
    max_to_keep: int = _flag("Saving", FREE, 3, "Newest checkpoints that are kept, beside the best.", lower=1)

    intra_op_threads: int = _flag("Speed", INEXACT, 1, "Threads that share one operation; 0: TensorFlow decides.", lower=0, upper=256)
    inter_op_threads: int = _flag(
        "Speed", INEXACT, 2, "Operations at a time: one for each direction of the LSTM; 0: TensorFlow decides.", lower=0, upper=256
    )

    strategy: str = _flag(
        "Devices",
        INEXACT,
        "one_device",
        "Who trains: one device; all GPUs of this machine, or all logical devices of its CPU; or the workers that TF_CONFIG names.",
        choices=("one_device", "mirrored", "multi_worker"),
    )
    logical_devices: int = _flag("Devices", INEXACT, 0, "Devices that the CPU is split into; 0: it is one.", lower=0, upper=1024)
    connect_secs: int = _flag("Devices", NOT_STORED, 15, "Seconds that a worker waits for the others to come.", lower=1)

    log_every_steps: int = _flag("Watching", FREE, 50, "Steps between lines, and between points in TensorBoard.", lower=1)
    profile_steps: str = _flag(
        "Watching", NOT_STORED, "", "Steps that TensorBoard's profiler looks at, the first and the last, as in 10:20; empty: none."
    )
    sample_text: tuple[str, ...] = _flag(
        "Watching", FREE, (_SAMPLE_TEXT,), "A text to classify before the first step and at the end; may be given several times."
    )

    checkpoint: str = _after_training("best", "best, latest, or one as runs/imdb/checkpoints/ckpt-1200.", "evaluate", "predict", "export")
    split: str = _after_training("", "Reviews to evaluate, in TFDS' split syntax; empty: those of --test_split.", "evaluate")
    input: str = _after_training(
        "",
        "Reviews or texts: a .csv, .tsv, .jsonl or .txt; empty: --split, and to predict --text or standard input.",
        "evaluate",
        "predict",
    )
    text: tuple[str, ...] = _after_training((), "A text to predict; may be given several times.", "predict")
    bad_rows: str = _after_training("skip", "At a row of --input that holds no review.", "evaluate", "predict", choices=("skip", "stop"))
    output: str = _after_training(
        "",
        "Where the answer goes as JSON, to predict a line each; -: standard output. To inspect, a .csv takes the history.",
        *("evaluate", "predict", "inspect"),
    )

    def __post_init__(self) -> None:
        check_each({name: getattr(self, name) for name in FIELDS})
        for flag, other in (("text", "input"), ("split", "input")):
            if getattr(self, flag) and getattr(self, other):
                raise InputError(f"--{flag} and --{other} both name what to read, but only one of them can be read at a time; give one.")
        if self.profile_steps and not self.profile_window:
            raise InputError(
                f"--profile_steps must be two steps, the first from 1 on and not after the last, as in 10:20, "
                f"but --profile_steps={self.profile_steps} was given."
            )
        for flag in ("init_optimizer", "init_best_metric"):
            if getattr(self, flag) and not self.init_from:
                raise InputError(f"--{flag} takes something from the run that --init_from names, but it names none.")
        if self.logical_devices > 1 and self.strategy == "one_device":
            raise InputError(
                f"--logical_devices={self.logical_devices} is for several devices, but --strategy=one_device; give --strategy=mirrored."
            )
        if not self.workdir:
            raise InputError("--workdir is required, but none was given; name a directory for the run, as in --workdir=runs/first.")
        if not self.train_split:
            raise InputError(
                "--train_split must name the reviews to train on, but it is empty; give it in TFDS' syntax, as in train[:90%]."
            )
        for flag, given in (("monitor", self.monitor.startswith("val_")), ("validation_steps", self.validation_steps)):
            if given and not self.validation_split:
                raise InputError(
                    f"--{flag}={getattr(self, flag)} needs validation reviews, but --validation_split is empty; "
                    f"name a split, or give --monitor=loss or --monitor=accuracy and no --validation_steps."
                )

    @property
    def profile_window(self) -> tuple[int, int] | None:
        """The first and the last step of --profile_steps."""
        match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", self.profile_steps, re.ASCII)
        first, last = map(int, match.groups()) if match else (0, 0)
        return (first, last) if 0 < first <= last else None

    @property
    def lower_is_better(self) -> bool:
        """Whether the monitored metric improves downwards."""
        return self.monitor.endswith("loss") if self.monitor_mode == "auto" else self.monitor_mode == "min"


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def check_each(settings: Mapping[str, typing.Any]) -> None:
    """Raises InputError at a setting that is out of its bounds, whatever the others are."""
    for name, value in settings.items():
        field = FIELDS[name]
        if not _within_bounds(value, field.metadata):
            raise InputError(f"--{name} must be {_requirement(field)}, but --{name}={value} was given.")
        if name in _PATHS and re.match(_SCHEME, value):
            raise InputError(
                f"--{name} must be a path on this machine, but --{name}={value} was given; mount it as a folder, and give the path of that."
            )


def check(given: Mapping[str, typing.Any], *, is_run: bool) -> None:
    """Raises InputError for what a command line gives that no start could use.

    Args:
      given: the settings that the command line gives.
      is_run: whether they are for a run that was begun before, whose own settings come to them.
    """
    if is_run and given.get("workdir"):
        check_each(given)
    else:
        Config(**given)


def _within_bounds(value, metadata) -> bool:
    lower, above, upper, choices = (metadata[bound] for bound in ("lower", "above", "upper", "choices"))
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if choices is not None:
        return value in choices
    return (lower is None or value >= lower) and (above is None or value > above) and (upper is None or value <= upper)


def _requirement(field: dataclasses.Field) -> str:
    lower, above, upper, choices = (field.metadata[bound] for bound in ("lower", "above", "upper", "choices"))
    if choices is not None:
        return f"one of {', '.join(choices)}"
    kind = "an integer" if field.type is int else "a finite number"
    if lower is not None and upper is not None:
        return f"{kind} from {lower} to {upper}"
    if above is not None:
        return f"{kind} above {above}" + (f", at most {upper}" if upper is not None else "")
    return f"{kind} of at least {lower}" if lower is not None else kind


class _Parser(flags.ArgumentParser):
    """Text to the type of one field; an empty text is None where the field may be None."""

    def __init__(self, field: dataclasses.Field) -> None:
        self.field = field

    def parse(self, argument):
        kind = self.field.type
        if not isinstance(argument, str):
            return argument
        if kind is bool:
            return flags.BooleanParser().parse(argument)
        if kind == float | None and not argument:
            return None
        if kind in (int, float, float | None):
            try:
                return int(argument) if kind is int else float(argument)
            except ValueError:
                raise ValueError(f"it must be {_requirement(self.field)}") from None
        if len(argument.splitlines()) > 1 or "\0" in argument or argument.encode(errors="ignore").decode() != argument:
            raise ValueError("it must be a single line of text in UTF-8")
        return argument


def _as_text(value) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def shown(config: Config, *classes: OnResume) -> list[tuple[str, str]]:
    """The settings of these classes, as (name, value as on the command line)."""
    names = (name for name, field in FIELDS.items() if field.metadata["on_resume"] in classes)
    return [(name, _as_text(getattr(config, name))) for name in names]


def to_text(config: Config, *classes: OnResume) -> str:
    """The settings of these classes as the lines of a flagfile."""
    lines = []
    for name, field in FIELDS.items():
        if field.metadata["on_resume"] in classes:
            value = getattr(config, name)
            lines += [f"--{name}={_as_text(item)}\n" for item in (value if isinstance(value, tuple) else (value,))]
    return "".join(lines)


def from_text(text: str) -> dict[str, typing.Any]:
    """The inverse of `to_text`.

    What is read may be a stranger's, so a flag that is the command line's alone, such as where to write, is refused.

    Raises:
      ValueError: when `text` is not what `to_text` writes.
    """
    values: dict[str, typing.Any] = {}
    for line in text.splitlines():
        name, equals, argument = line.removeprefix("--").partition("=")
        if name not in FIELDS or not equals:
            raise ValueError(f"this version has no {line[:100]!r}")
        field = FIELDS[name]
        if field.metadata["on_resume"] is NOT_STORED:
            raise ValueError(f"{line[:100]!r} is for the command line alone")
        value = _Parser(field).parse(argument)
        values[name] = (*values.get(name, ()), value) if field.type == tuple[str, ...] else value
    try:
        check_each(values)
    except InputError as error:
        raise ValueError(str(error)) from error
    return values


_SEAL = "# Written by the trainer; sha256 of the lines above: "


def to_file(config: Config) -> bytes:
    """The content of `config.flags`: a flagfile whose last line tells whether it is whole, since a line cut short may still be a flag."""
    text = to_text(config, FIXED, INEXACT, FREE)
    return f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def from_file(content: bytes) -> dict[str, typing.Any]:
    """The settings in a `config.flags`; raises ValueError when it is not what this program writes."""
    text, _, digest = content.decode().rpartition(_SEAL)
    if digest != hashlib.sha256(text.encode()).hexdigest() + "\n":
        raise ValueError("its last line is not the sum of the others")
    return from_text(text)


def resolve(given: Mapping[str, typing.Any], stored: Mapping[str, typing.Any]) -> Config:
    """The settings of a start: what the command line gives, else the run's own as its checkpoint has them, else the default."""
    return Config(**{**stored, **given})


def changes(stored: Mapping[str, typing.Any], config: Config, on_resume: OnResume) -> list[str]:
    """Each setting of this class that `config` has otherwise than the run: its name, the run's value and the new one."""
    return [
        f"--{name} was {stored[name]} and is {getattr(config, name)} now"
        for name, field in FIELDS.items()
        if field.metadata["on_resume"] is on_resume and name in stored and stored[name] != getattr(config, name)
    ]


def _define_flags() -> None:
    for name, field in FIELDS.items():
        if field.type is bool:
            flags.DEFINE_bool(name, None, field.metadata["help"])
            continue
        define = flags.DEFINE_multi if field.type == tuple[str, ...] else flags.DEFINE
        define(_Parser(field), name=name, default=None, help=field.metadata["help"], serializer=flags.ArgumentSerializer())
        if field.metadata["alias"]:
            flags.DEFINE_alias(field.metadata["alias"], name)
    flags.DEFINE_bool("help", False, "Print every flag and exit.", short_name="h")


_define_flags()


def parse(argv: Sequence[str]) -> dict[str, typing.Any] | None:
    """The settings that a command line gives, without those it leaves open; None when it asks for help.

    Raises:
      InputError: for a flag that is unknown or of a wrong type, a flagfile that cannot be read, an argument that is no flag, or a flag
        of another mode.
    """
    try:
        # absl only mutters on standard error when a flagfile includes itself.
        with contextlib.redirect_stderr(io.StringIO()) as muttered:
            _, *stray = flags.FLAGS(argv)
    except UnicodeDecodeError as error:
        raise InputError(f"A flagfile must be text in UTF-8, but one that was given is not: {error}.") from None
    except (flags.Error, ValueError) as error:
        raise InputError(f"{' '.join(str(error).removeprefix('ERROR:: ').split())}; --help lists every flag.") from None
    if muttered.getvalue():
        raise InputError(f"A flagfile may not include itself, but {muttered.getvalue().split()[-1]} does, directly or by others.")
    if flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.INFO)
    if stray:
        raise InputError(f"Only flags are taken, but {stray[0]!r} was given; write --name=value, and --help lists every flag.")
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


def _expand_home(name: str, value: typing.Any) -> typing.Any:
    # Most shells leave a ~ behind = or csv: as it is.
    if name not in (*_PATHS, "data_dir", "dataset"):
        return value
    kind, path = re.fullmatch("((?:[a-z]+:)?)(.*)" if name == "dataset" else "()(.*)", value).groups()
    try:
        return kind + files.expand_home(path)
    except LookupError:
        raise InputError(
            f"--{name} must be in a home folder that is known, but --{name}={value} was given; "
            f"write the whole path; a name that begins with ~ itself is written as {kind}./{path}."
        ) from None


def help_text() -> str:
    """What `--help` prints: every flag by section, with its default, its bounds and what a resumed run makes of another value."""
    lines = ["Train a bidirectional LSTM on labelled reviews. Kill it at any time: the same command again resumes exactly.", ""]
    lines += ["    python -m trainer.main --flagfile=trainer/configs/quickstart.flags", ""]
    lines += ["Flags may stand one a line in a file: --flagfile=<path>. Quiet: --verbosity=-1; every save: 1."]
    lines += ["A path that begins with ~ is in the home folder."]
    lines += ["SIGUSR1 saves and training goes on; SIGINT, SIGTERM, SIGHUP, SIGUSR2 and SIGXCPU save and end.", ""]
    lines += ["On resume a flag that is not given keeps the run's own value. Another value than the run's is refused where a flag is"]
    lines += ["[fixed], needs --allow_inexact_resume where it is [inexact], and is taken where it is [free] or [not stored]."]
    section = None
    for name, field in FIELDS.items():
        metadata = field.metadata
        if metadata["section"] != section:
            section = metadata["section"]
            lines += ["", section]
        kind = f"; {_requirement(field)}" if field.type not in (str, bool, tuple[str, ...]) or metadata["choices"] else ""
        use = f"--mode={' or '.join(metadata['modes'])}" if metadata["modes"] else metadata["on_resume"].value
        alias = f" Also --{metadata['alias']}." if metadata["alias"] else ""
        text = f"{metadata['help']}{alias} [{use}{kind}]"
        lines += [f"  --{name}={_as_text(field.default)}", *textwrap.wrap(text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines) + "\n"
