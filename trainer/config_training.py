"""The settings of data, model and training: those that decide what is trained. `config` adds the others."""

import dataclasses
import functools

from trainer.fields import FIXED, FREE, INEXACT, NOT_STORED, POOLINGS, define

_MODES = ("train", "evaluate", "predict", "export", "inspect")
# The sections of --help.
_run = functools.partial(define, "Run")
_data = functools.partial(define, "Data")
_model = functools.partial(define, "Model")
_training = functools.partial(define, "Training")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The first sections of the flags; see `config.Config`."""

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
    vocab_size: int = _data(FIXED, 20_000, "Size of the vocabulary, including '' and '[UNK]'.", lower=3)
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
    pooling: str = _model(
        FIXED,
        "max",
        "What is read of the LSTM's states: the last one, the maximum, the mean, or several of these.",
        choices=POOLINGS,
        before="last",
    )
    dense_units: int = _model(FIXED, 64, "Units of the dense layer before the logit.", lower=1)
    ngrams: int = _model(
        FIXED,
        2,
        "Tokens of the longest n-grams that a linear classifier beside the LSTM reads; 0: there is none.",
        lower=0,
        upper=3,
        before=0,
    )
    ngram_buckets: int = _model(FIXED, 2**20, "Rows of the hashed table of n-grams.", lower=2, upper=2**28)
    dropout: float = _model(
        INEXACT, 0.5, "Share of the LSTM's output dropped in training.", lower=0.0, upper=0.99
    )
    token_dropout: float = _model(
        INEXACT,
        0.3,
        "Share of the tokens that the LSTM reads as [UNK] in training.",
        lower=0.0,
        upper=0.99,
        before=0.0,
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
    accumulate: int = _training(
        FIXED,
        1,
        "Steps whose gradients are averaged for one change of the weights; n-grams change at each step.",
        lower=1,
        upper=2**16,
    )
    learning_rate: float = _training(INEXACT, 1e-3, "Adam's learning rate.", above=0.0)
    schedule: str = _training(
        FIXED,
        "constant",
        "How the learning rate falls to its final value.",
        choices=("constant", "linear", "cosine"),
    )
    schedule_epochs: int = _training(
        FIXED, 0, "Epochs until then; 0: the --epochs of the run's first start.", lower=0
    )
    warmup_steps: int = _training(FIXED, 0, "Steps in which the learning rate first rises from 0.", lower=0)
    final_learning_rate: float = _training(
        FIXED, 0.0, "The learning rate at the end of the schedule.", lower=0.0
    )
    plateau_patience: int = _training(
        FIXED,
        0,
        "Multiply the learning rate by --plateau_factor after this many evaluations in a row without "
        "improvement; 0: never.",
        lower=0,
    )
    plateau_factor: float = _training(FIXED, 0.5, "See --plateau_patience.", above=0.0, upper=1.0)
    ema_momentum: float = _training(
        FIXED,
        0.0,
        "Evaluate, save as best and export an exponential moving average of the weights with this momentum, "
        "as in 0.998; 0: the weights themselves.",
        lower=0.0,
        upper=0.999999,
    )
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
