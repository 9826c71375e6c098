"""Describes the data of a new run before it trains, and warns of what would make a worthless model."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence

from absl import logging

from trainer.config import Config
from trainer.data.statistics import MOST, Statistics, describe, shared_texts
from trainer.data.token_store import TokenStore
from trainer.data.vocabulary import Vocabulary
from trainer.labels import Classes, listed
from trainer.words import plural

# Shares from which on a warning is given.
_RARE_CLASS = 0.05
_SHORT = 0.5
_UNKNOWN = 0.3
_SHARED = 0.05
_MARKUP = 0.01
_REPEATED = 0.5
_FEW = 3  # reviews of a class

# IMDB's own line breaks are left out: the tutorial's vocabulary has them too.
_TAG = re.compile(rb"</?(?!br\b)[a-z][a-z0-9]*(\s[^<>]*)?/?>|&(#\d+|#x[0-9a-f]+|[a-z]{2,8});", re.IGNORECASE)
_ESCAPED_NEWLINE = re.compile(rb"\\n")


def report(
    config: Config,
    classes: Classes,
    vocabulary: Vocabulary,
    stores: Mapping[str, TokenStore],
    sample: Sequence[bytes],
) -> None:
    """Logs a line for each split, and warnings with a remedy.

    Args:
      config: the settings of the run.
      classes: its classes.
      vocabulary: its vocabulary.
      stores: the encoded reviews of each split.
      sample: some texts of the train split.
    """
    figures = {split: describe(store, len(classes)) for split, store in stores.items()}
    for split, of_split in figures.items():
        counts = ", ".join(
            f"{name}: {count:,}" for name, count in zip(classes.names, of_split.class_counts, strict=True)
        )
        logging.info(
            "Split     %s: %s (%s), median %s, %.1f%% unknown",
            split,
            plural(of_split.reviews, "review"),
            counts,
            plural(of_split.median_tokens, "token"),
            100 * of_split.unknown_share,
        )
    for warning in (
        *_of_classes(config, classes, figures),
        *_of_texts(config, vocabulary, figures),
        *_of_sample(config, sample),
        *_of_shared_texts(config, stores),
    ):
        logging.warning("%s", warning)


def constant_accuracy(class_counts: Sequence[int]) -> float | None:
    """What the best constant answer scores if a class is rare; None if none is."""
    rarest = min(class_counts) / sum(class_counts)
    is_rare = rarest < min(_RARE_CLASS, 0.5 / len(class_counts))
    return max(class_counts) / sum(class_counts) if is_rare else None


def constant_loss(train: Sequence[int], evaluated: Sequence[int]) -> float:
    """The loss on some reviews of always answering with the shares that the classes have in training.

    Args:
      train: the number of training reviews of each class.
      evaluated: that of the reviews to answer.
    """
    # As if each class had one review more, so that a class that training lacks has a finite loss.
    shares = [(count + 1) / (sum(train) + len(train)) for count in train]
    losses = (-count * math.log(share) for count, share in zip(evaluated, shares, strict=True))
    return sum(losses) / sum(evaluated)


def _of_classes(config: Config, classes: Classes, figures: Mapping[str, Statistics]) -> list[str]:
    warnings = []
    train = figures[config.train_split]
    few = [name for name, count in zip(classes.names, train.class_counts, strict=True) if 0 < count < _FEW]
    if few and len(few) < len(classes) - 1 and train.reviews > 10 * _FEW * len(few):
        others = ",".join(name for name in classes.names if name not in few)
        warnings.append(
            f"Fewer than {_FEW} of the {train.reviews} reviews of {config.train_split} are {listed(few)}; if "
            f"that is a mistake in the files, leave it out by --labels='{others}' in a new run."
        )
    elif accuracy := constant_accuracy(train.class_counts):
        count, name = min(zip(train.class_counts, classes.names, strict=True))
        warnings.append(
            f"Only {100 * count / train.reviews:.1f}% of {config.train_split} are {name}: always answering "
            f"{classes.names[train.class_counts.index(max(train.class_counts))]} has an accuracy of "
            f"{accuracy:.4f}, so compare with that; in a new run, --class_weights=balanced and "
            f"--monitor=val_f1 make rare classes count."
        )
    for split, of_split in figures.items():
        missing = [
            name for name, count in zip(classes.names, of_split.class_counts, strict=True) if not count
        ]
        if missing:
            # Parts of a file that is sorted by label have one class each.
            remedy = (
                "if the reviews are sorted by label, leave out the flags of splits: then validation and test "
                "are drawn at random"
                if "[" in split
                else "give it reviews of each class; if it is drawn, a larger --held_out_fraction draws more"
            )
            warnings.append(
                f"{split} has no review of {', '.join(missing)}, so its figures leave that out; {remedy}."
            )
    return warnings


def _of_texts(config: Config, vocabulary: Vocabulary, figures: Mapping[str, Statistics]) -> list[str]:
    train = figures[config.train_split]
    if train.short_share > _SHORT and config.tokens == "words":
        return [
            f"{100 * train.short_share:.0f}% of the reviews of {config.train_split} are a single token or "
            f"none; if their script has no spaces, --tokens=characters in a new run splits at each character."
        ]
    split = config.validation_split or config.train_split
    share = figures[split].unknown_share
    if share <= _UNKNOWN:
        return []
    is_full = len(vocabulary) >= config.vocab_size
    remedy = (
        f"give a larger vocabulary, as in --vocab_size={10 * config.vocab_size}, in a new run"
        if is_full
        else f"check that its reviews are of the same kind as those of {config.train_split}"
    )
    return [f"{100 * share:.0f}% of the tokens of {split} are unknown to the vocabulary; {remedy}."]


def _of_sample(config: Config, sample: Sequence[bytes]) -> list[str]:
    warnings = []
    repeated = len(sample) - len(set(sample))
    if repeated > _REPEATED * len(sample):
        warnings.append(
            f"{repeated} of the first {len(sample)} reviews repeat others; if that is a mistake, check "
            f"that --text_column names the texts, or remove repeated rows from the files."
        )
    for pattern, what, remedy in (
        (_TAG, "HTML tags or entities", "--strip_html in a new run removes them"),
        (
            _ESCAPED_NEWLINE,
            "a line break as the two characters \\n",
            _replacement(config.dataset),
        ),
    ):
        found = [text for text in sample if pattern.search(text)]
        if len(found) > _MARKUP * len(sample):
            match = pattern.search(found[0])
            assert match
            shown = match.group().decode(errors="replace")[:40]
            warnings.append(
                f"{len(found)} of the first {len(sample)} reviews hold {what}, such as {shown}, which become "
                f"part of tokens; {remedy}."
            )
    return warnings


def _replacement(dataset: str) -> str:
    # In JSON these two characters are written as three, of which sed would leave one.
    path = dataset.removeprefix("csv:").removeprefix("tsv:")
    if path.endswith((".csv", ".tsv")):
        source, mended = shlex.quote(path), shlex.quote(f"{path[:-4]}_mended{path[-4:]}")
        return f"replace these by spaces, as in: sed 's/\\\\n/ /g' {source} > {mended}"
    return "replace these by spaces in the texts"


def _of_shared_texts(config: Config, stores: Mapping[str, TokenStore]) -> list[str]:
    warnings = []
    for split in (config.validation_split, config.test_split):
        if not split or split == config.train_split:
            continue
        shared, read = shared_texts(stores[config.train_split], stores[split]), min(len(stores[split]), MOST)
        if shared > _SHARED * read:
            warnings.append(
                f"{shared} of the {read} reviews of {split} are in {config.train_split} too, "
                f"so their figures flatter the model; remove repeated texts from the files."
            )
    return warnings
