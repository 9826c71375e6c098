"""Every setting, defined once: its default, its meaning, its bounds, and whether it may change on resume.

The fields of `Config` are the flags. Precedence: the command line (or its flagfile), then the value stored
with the run, then the default.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

from trainer import metrics
from trainer.errors import InputError
from trainer.fields import FIXED, FREE, INEXACT, NOT_STORED, define, is_within_bounds, requirement

Settings = Mapping[str, Any]  # some fields of a `Config`, by name

PATHS = ("workdir", "cache_dir", "init_from", "checkpoint", "input", "output")
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_MODES = ("train", "evaluate", "predict", "export", "inspect")
_SAMPLE_TEXT = (
    "The movie was cool. The animation and the graphics were out of this world. I would recommend this movie."
)
# The sections of --help.
_run = functools.partial(define, "Run")
_data = functools.partial(define, "Data")
_model = functools.partial(define, "Model")
_training = functools.partial(define, "Training")
_evaluation = functools.partial(define, "Evaluation")
_saving = functools.partial(define, "Saving")
_speed = functools.partial(define, "Speed")
_devices = functools.partial(define, "Devices")
_logging = functools.partial(define, "Logging")
_after_training = functools.partial(define, "After training", NOT_STORED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one start; valid by construction.

    Raises:
      InputError: when settings contradict each other; the message names the flags.
    """

    mode: str = _run(NOT_STORED, "train", "What to do with the run.", choices=_MODES)
    workdir: str = _run(NOT_STORED, "", "Run directory; the same command again resumes from it. Required.")
    allow_inexact_resume: bool = _run(
        NOT_STORED, False, "Resume even if versions, machine or inexact flags differ from the run's."
    )
    seed: int = _run(FIXED, 0, "Determines initial weights, order of reviews and dropout.", lower=0)

    dataset: str = _data(
        FIXED,
        "sample_reviews",
        "'sample_reviews' (synthetic, generated here); the name of a TFDS text dataset; or own reviews: "
        "csv:reviews.csv, tsv:, jsonl:, or folder: with a folder that holds pos/ and neg/, one .txt per "
        "review. A folder may hold one of these for each split.",
    )
    text_column: str = _data(
        FIXED, "text", "Name of the TFDS feature, column or key that holds the texts.", alias="text_key"
    )
    label_column: str = _data(FIXED, "label", "Name of the one that holds the labels.", alias="label_key")
    data_dir: str = _data(
        NOT_STORED,
        "",
        "Folder of TFDS' prepared datasets; empty: TFDS' own default, or TFDS_DATA_DIR if set. For own "
        "reviews, the folder that relative paths start from.",
    )
    cache_dir: str = _data(
        NOT_STORED, "", "Folder of encoded corpora, shared by runs; empty: the user's cache folder."
    )
    train_split: str = _data(
        FIXED, "train", "Reviews to train on and to build the vocabulary from, in TFDS' split syntax."
    )
    validation_split: str = _data(
        FIXED, "validation", "Reviews that decide best and patience; empty: no evaluation."
    )
    test_split: str = _data(
        FIXED, "test", "Reviews that the best checkpoint is evaluated on at the end; empty: none."
    )
    held_out_fraction: float = _data(
        FIXED,
        0.1,
        "For own reviews without splits, if no split flag is given: the share held out for validation, and "
        "the same share for test.",
        above=0.0,
        upper=0.4,
    )
    vocab_size: int = _data(FIXED, 1000, "Size of the vocabulary, including '' and '[UNK]'.", lower=3)
    max_length: int = _data(FIXED, 0, "Most tokens read, from the start of a review; 0: all.", lower=0)

    embedding_dim: int = _model(FIXED, 64, "Size of a token's embedding.", lower=1)
    lstm_units: int = _model(FIXED, 64, "Units of the LSTM in each direction.", lower=1)
    dense_units: int = _model(FIXED, 64, "Units of the dense layer before the logit.", lower=1)
    dropout: float = _model(
        INEXACT, 0.0, "Share of the LSTM's output dropped in training.", lower=0.0, upper=0.99
    )

    init_from: str = _training(
        NOT_STORED,
        "",
        "Another run, whose best checkpoint is used, or a checkpoint: a new run starts with its weights.",
    )
    init_optimizer: bool = _training(NOT_STORED, False, "Also copy the optimizer of --init_from.")
    init_best_metric: bool = _training(
        NOT_STORED, False, "Also use the best metric of --init_from, as --initial_best."
    )
    epochs: int = _training(FREE, 10, "Passes over the training reviews, in total.", lower=1)
    batch_size: int = _training(FIXED, 64, "Reviews per training step.", lower=1, upper=2**16)
    learning_rate: float = _training(INEXACT, 1e-4, "Adam's learning rate, constant.", above=0.0)
    clip_norm: float = _training(
        INEXACT, 0.0, "Global norm that gradients are clipped to; 0: no clipping.", lower=0.0
    )
    on_nan: str = _training(
        INEXACT,
        "stop",
        "If the loss or a gradient is NaN or infinite: stop without saving that step, or continue.",
        choices=("stop", "continue"),
    )

    eval_every_steps: int = _evaluation(FREE, 0, "Steps between evaluations; 0: once an epoch.", lower=0)
    validation_steps: int = _evaluation(
        INEXACT, 0, "k: evaluate the first k x batch_size reviews of the validation split; 0: all.", lower=0
    )
    monitor: str = _evaluation(
        INEXACT,
        "val_loss",
        "Metric for the best checkpoint and patience; 'loss' and 'accuracy' are training metrics since the "
        "last evaluation.",
        choices=metrics.MONITORS,
    )
    monitor_mode: str = _evaluation(
        INEXACT, "auto", "Whether a lower or a higher metric is better.", choices=("auto", "min", "max")
    )
    initial_best: float | None = _evaluation(INEXACT, None, "The first best checkpoint must beat this.")
    patience: int = _evaluation(
        FREE, 5, "Stop after this many evaluations in a row without improvement; 0: never.", lower=0
    )
    min_delta: float = _evaluation(
        INEXACT, 0.0, "Smallest change that patience counts as an improvement.", lower=0.0
    )
    baseline: float | None = _evaluation(
        INEXACT, None, "Patience restarts only at a metric that is also better than this."
    )
    start_from_epoch: int = _evaluation(
        INEXACT, 0, "Number of first epochs whose evaluations patience ignores.", lower=0
    )

    checkpoint_every_steps: int = _saving(
        FREE, 0, "Steps between checkpoints, besides the one at each evaluation; 0: off.", lower=0
    )
    checkpoint_every_secs: float = _saving(FREE, 60.0, "Seconds between checkpoints; 0: off.", lower=0.0)
    max_to_keep: int = _saving(FREE, 3, "Number of newest checkpoints kept, besides the best.", lower=1)

    intra_op_threads: int = _speed(
        INEXACT, 1, "Threads that share one operation; 0: TensorFlow decides.", lower=0, upper=256
    )
    inter_op_threads: int = _speed(
        INEXACT,
        2,
        "Operations run in parallel, one for each direction of the LSTM; 0: TensorFlow decides.",
        lower=0,
        upper=256,
    )

    strategy: str = _devices(
        INEXACT,
        "one_device",
        "Where to train: one device; all GPUs of this machine, or all logical devices of its CPU; or the "
        "workers that TF_CONFIG names.",
        choices=("one_device", "mirrored", "multi_worker"),
    )
    logical_devices: int = _devices(
        INEXACT, 0, "Devices to split the CPU into; 0: it is not split.", lower=0, upper=1024
    )
    connect_secs: int = _devices(
        NOT_STORED, 15, "Seconds that a worker waits for the others to connect.", lower=1
    )

    log_every_steps: int = _logging(
        FREE, 50, "Steps between log lines, and between points in TensorBoard.", lower=1
    )
    profile_steps: str = _logging(
        NOT_STORED, "", "First and last step for TensorBoard's profiler, as in 10:20; empty: none."
    )
    sample_text: tuple[str, ...] = _logging(
        FREE,
        (_SAMPLE_TEXT,),
        "A text to classify before the first step and at the end; may be given several times.",
    )

    checkpoint: str = _after_training(
        "best",
        "Checkpoint to use: best, latest, or a path as in runs/imdb/checkpoints/ckpt-1200.",
        modes=("evaluate", "predict", "export"),
    )
    split: str = _after_training(
        "", "Reviews to evaluate, in TFDS' split syntax; empty: those of --test_split.", modes=("evaluate",)
    )
    input: str = _after_training(
        "",
        "File of reviews or texts: a .csv, .tsv, .jsonl or .txt; empty: evaluate reads --split, predict "
        "reads --text or standard input.",
        modes=("evaluate", "predict"),
    )
    text: tuple[str, ...] = _after_training(
        (), "A text to predict; may be given several times.", modes=("predict",)
    )
    bad_rows: str = _after_training(
        "skip",
        "What to do with an invalid row of --input.",
        modes=("evaluate", "predict"),
        choices=("skip", "stop"),
    )
    output: str = _after_training(
        "",
        "File for the result as JSON, for predict one object per line; -: standard output. If it is a .csv, "
        "inspect writes the history.",
        modes=("evaluate", "predict", "inspect"),
    )

    def __post_init__(self) -> None:
        check_each({name: getattr(self, name) for name in FIELDS})
        self._check_required()
        self._check_combinations()

    def _check_required(self) -> None:
        if not self.workdir:
            raise InputError(
                "--workdir is required, but none was given; "
                "name a directory for the run, as in --workdir=runs/first."
            )
        if not self.train_split:
            raise InputError(
                "--train_split must name the reviews to train on, but it is empty; "
                "give it in TFDS' syntax, as in train[:90%]."
            )

    def _check_combinations(self) -> None:
        for flag, other in (("text", "input"), ("split", "input")):
            if getattr(self, flag) and getattr(self, other):
                raise InputError(
                    f"Only one of --{flag} and --{other} can be read at a time, but both were; give one."
                )
        if self.profile_steps and not self.profile_window:
            raise InputError(
                f"--profile_steps must be a first step from 1 on and a last one not before it, as in 10:20, "
                f"but --profile_steps={self.profile_steps} was given."
            )
        for flag in ("init_optimizer", "init_best_metric"):
            if getattr(self, flag) and not self.init_from:
                raise InputError(
                    f"--{flag} needs the run that --init_from names, but --init_from is empty; give both."
                )
        if self.logical_devices > 1 and self.strategy == "one_device":
            raise InputError(
                f"--logical_devices={self.logical_devices} is for several devices, but "
                f"--strategy=one_device; "
                f"give --strategy=mirrored."
            )
        monitors_validation = metrics.is_of_validation(self.monitor)
        for flag, needs_it in (("monitor", monitors_validation), ("validation_steps", self.validation_steps)):
            if needs_it and not self.validation_split:
                raise InputError(
                    f"--{flag}={getattr(self, flag)} needs validation reviews, but --validation_split is "
                    f"empty; name a split, or give --monitor=loss or --monitor=accuracy and no "
                    f"--validation_steps."
                )

    @property
    def profile_window(self) -> tuple[int, int] | None:
        """The first and the last step of --profile_steps."""
        match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", self.profile_steps, re.ASCII)
        first, last = map(int, match.groups()) if match else (0, 0)
        return (first, last) if 0 < first <= last else None

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of the monitored metric is better."""
        if self.monitor_mode == "auto":
            return metrics.lower_is_better(self.monitor)
        return self.monitor_mode == "min"


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def check_each(settings: Settings) -> None:
    """Raises InputError for a setting that is out of bounds; each is checked alone."""
    for name, value in settings.items():
        field = FIELDS[name]
        if not is_within_bounds(value, field.metadata):
            raise InputError(f"--{name} must be {requirement(field)}, but --{name}={value} was given.")
        if name in PATHS and re.match(_SCHEME, value):
            raise InputError(
                f"--{name} must be a path on this machine, but --{name}={value} was given; "
                f"mount it as a folder and give that path."
            )
