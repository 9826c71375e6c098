"""Every setting, defined once: its default, its meaning, its bounds, and whether it may change on resume.

The fields of `Config` are the flags; those of data, model and training are in `config_training`.
Precedence: the command line (or its flagfile), then the value stored with the run, then the default.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from trainer import config_checks, metrics
from trainer.config_training import TrainingSettings
from trainer.fields import FREE, INEXACT, NOT_STORED, define

Settings = Mapping[str, Any]  # some fields of a `Config`, by name

PATHS = ("workdir", "cache_dir", "init_from", "checkpoint", "input", "output")
_SAMPLE_TEXT = (
    "The movie was cool. The animation and the graphics were out of this world. I would recommend this movie."
)
# The sections of --help.
_evaluation = functools.partial(define, "Evaluation")
_saving = functools.partial(define, "Saving")
_speed = functools.partial(define, "Speed")
_devices = functools.partial(define, "Devices")
_logging = functools.partial(define, "Logging")
_after = functools.partial(define, "After training", NOT_STORED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainingSettings):
    """The settings of one start; valid by construction.

    Raises:
      InputError: when settings contradict each other; the message names the flags.
    """

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
        FREE, 0, "Operations run in parallel; 0: one for each usable core, at least two.", lower=0, upper=256
    )
    shards: int = _speed(
        INEXACT,
        0,
        "Groups of a batch's reviews that are computed side by side, on two cores each; 0: half the usable "
        "cores of the run's first start.",
        lower=0,
        upper=256,
        before=1,
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

    checkpoint: str = _after(
        "best",
        "Checkpoint to use: best, latest, or a path as in runs/imdb/checkpoints/ckpt-1200.",
        modes=("evaluate", "predict", "export"),
    )
    split: str = _after(
        "", "Reviews to evaluate, in TFDS' split syntax; empty: those of --test_split.", modes=("evaluate",)
    )
    input: str = _after(
        "",
        "Reviews or texts of any kind that --dataset takes, or a .txt with a text per line; -: standard "
        "input. Empty: evaluate reads --split, predict reads --text or standard input.",
        modes=("evaluate", "predict"),
    )
    input_format: str = _after(
        "",
        "Kind of --input; empty: by its name and content.",
        modes=("evaluate", "predict"),
        choices=("", "csv", "tsv", "jsonl", "json", "parquet", "arrow", "txt", "folder"),
    )
    text: tuple[str, ...] = _after((), "A text to predict; may be given several times.", modes=("predict",))
    output: str = _after(
        "",
        "File for the result as JSON, for predict an object per line; if its name ends with .csv, predict "
        "and inspect write a table; -: standard output.",
        modes=("evaluate", "predict", "inspect"),
    )
    keep_columns: tuple[str, ...] = _after(
        (),
        "Columns of --input to copy to --output, as in date,author; id is there in any case. One with the "
        "name of another column there gets the prefix input_.",
        modes=("predict",),
    )
    threshold: float | None = _after(
        None,
        "With two classes: the positive one is predicted above this probability; empty: 0.5.",
        modes=("evaluate", "predict"),
        lower=0.0,
        upper=1.0,
    )

    def __post_init__(self) -> None:
        check_each({name: getattr(self, name) for name in FIELDS})
        config_checks.check_combinations(vars(self))

    @property
    def profile_window(self) -> tuple[int, int] | None:
        """The first and the last step of --profile_steps."""
        return config_checks.window(self.profile_steps)

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of the monitored metric is better."""
        if self.monitor_mode == "auto":
            return metrics.lower_is_better(self.monitor)
        return self.monitor_mode == "min"


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def check_each(settings: Settings) -> None:
    """Raises InputError for a setting that is out of bounds; each is checked alone."""
    config_checks.check_each(FIELDS, PATHS, settings)
