"""Every setting, defined once: its default, its meaning, its bounds, and whether it may change on resume.

The fields of `Config` are the flags. Precedence: the command line (or its flagfile), then the value stored
with the run, then the default.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from trainer import config_checks, metrics
from trainer.fields import FIXED, FREE, INEXACT, NOT_STORED, define

Settings = Mapping[str, Any]  # some fields of a `Config`, by name

PATHS = ("workdir", "cache_dir", "init_from", "checkpoint", "input", "output")
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
_after = functools.partial(define, "After training", NOT_STORED)


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
        "'sample_reviews' (synthetic, generated here); the name of a TFDS text dataset; or the path of own "
        "reviews: a csv, tsv, jsonl, json or parquet file, compressed or not; a folder with a folder of "
        "texts for each class; or a folder with one of these for each split. A prefix, as in csv:reviews.txt "
        "or folder:reviews, states the kind.",
    )
    text_column: str = _data(
        FIXED,
        "text",
        "Name of the TFDS feature, column or key that holds the texts, or the number of the column, from 1 "
        "on; several, as in title,body, are joined.",
        alias="text_key",
    )
    label_column: str = _data(
        FIXED, "label", "Name or number of the one that holds the labels.", alias="label_key"
    )
    labels: str = _data(
        FIXED,
        "",
        "The labels in the order of their classes, as in neg,pos; or classes with their labels, as in "
        "negative=1,2;positive=4,5. Other reviews are left out. Empty: each label is a class.",
    )
    bad_rows: str = _data(
        FIXED,
        "",
        "What to do with an invalid row of own reviews; empty: stop in training; of --input, skip.",
        choices=("", "stop", "skip"),
    )
    encoding: str = _data(
        FIXED, "", "Encoding of own reviews, as in cp1252; empty: UTF-8, or UTF-16 with a byte order mark."
    )
    delimiter: str = _data(
        FIXED, "", "What separates the columns of a csv or tsv, as in ';' or tab; empty: recognised."
    )
    header: str = _data(
        FIXED,
        "auto",
        "Whether the first row of a csv or tsv names the columns; auto: recognised.",
        choices=("auto", "first_row", "none"),
    )
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
        "For a corpus without a validation or a test split: the share of train held out for each of those "
        "that are named.",
        above=0.0,
        upper=0.4,
    )
    vocab_size: int = _data(FIXED, 1000, "Size of the vocabulary, including '' and '[UNK]'.", lower=3)
    max_length: int = _data(FIXED, 0, "Most tokens read, from the start of a review; 0: all.", lower=0)
    tokens: str = _data(
        FIXED,
        "words",
        "What a text is split into; characters are for scripts without spaces.",
        choices=("words", "characters"),
    )
    strip_html: bool = _data(FIXED, False, "Remove HTML tags and entities from the texts.")

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
    class_weights: str = _training(
        FIXED,
        "",
        "Weight of each class in the training loss: balanced, or as in spam=2.5,ham=1; empty: 1 for all.",
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
