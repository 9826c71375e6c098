"""How many reviews of a split have which label; counted once and kept in the cache."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from absl import logging

from trainer import files
from trainer.data.tables import BadRow, Row
from trainer.errors import InputError
from trainer.labels import Classes, find_classes, normalised
from trainer.words import plural

MOST_LABELS = 10_000  # a column with more different values holds no labels

_FORMAT = 3
_LONGEST_LABEL = 200  # characters; what follows does not count
_LONGEST_REASON = 300
_NO_LABEL = "it has no label"  # the kind of such rows


@dataclasses.dataclass(frozen=True)
class Counts:
    """The rows of a split.

    Attributes:
      labels: each label, as it is spelled -> its number of reviews.
      bad: each kind of invalid row -> how many there are, and where and what the first one is.
      others: the reviews with a label that came after the first 10,000 different ones.
    """

    labels: Mapping[str, int]
    bad: Mapping[str, tuple[int, str]]
    others: int = 0

    @property
    def rows(self) -> int:
        """The number of rows, invalid ones included."""
        return sum(self.labels.values()) + self.others + sum(count for count, _ in self.bad.values())

    def size(self, classes: Classes) -> int:
        """The number of reviews whose label means one of these classes."""
        return sum(count for label, count in self.labels.items() if classes.number_of(label) is not None)

    @property
    def has_none(self) -> bool:
        """Whether all rows are invalid."""
        return bool(self.bad) and not self.labels and not self.others

    @property
    def is_unlabelled(self) -> bool:
        """Whether all labels are missing, or -1, as in the test splits of public benchmarks."""
        is_bad_otherwise = bool(self.bad.keys() - {_NO_LABEL})
        return {normalised(label) for label in self.labels} <= {"-1"} and not is_bad_otherwise


def count(rows: Iterable[tuple[str, Row | BadRow]]) -> Counts:
    """Counts rows, each with the place that messages name; memory holds one at a time."""
    bad: dict[str, tuple[int, str]] = {}

    def labels() -> Iterator[str]:
        for place, row in rows:
            if isinstance(row, Row):
                yield spelled(row.label)
                continue
            so_far, first = bad.get(row.kind, (0, f"{place}: {row.why}"[:_LONGEST_REASON]))
            bad[row.kind] = so_far + 1, first

    return dataclasses.replace(count_labels(labels()), bad=bad)


def count_labels(labels: Iterable[str]) -> Counts:
    """Counts labels; memory holds at most 10,000 different ones."""
    counts: Counter[str] = Counter()
    others = 0
    for label in labels:
        if label in counts or len(counts) < MOST_LABELS:
            counts[label] += 1
        else:
            others += 1
    return Counts(counts, {}, others)


def spelled(label: str | None) -> str:
    """A label as it is counted: a wrong column may hold whole texts, of which only the start is kept."""
    return (label or "")[:_LONGEST_LABEL]


def check_labelled(counts: Mapping[str, Counts]) -> None:
    """Raises InputError for a split without labels, if others have some.

    Args:
      counts: of each split that a run names.
    """
    if all(of_split.is_unlabelled for of_split in counts.values()):
        return
    for split, of_split in counts.items():
        if of_split.is_unlabelled:
            raise unlabelled(split, "all of its labels are missing or -1")


def classes_of(counts: Mapping[str, Counts], given: str) -> Classes:
    """The classes of a corpus.

    Args:
      counts: of each split that a run names.
      given: `--labels`.

    Raises:
      InputError: when the labels are no classes, or a split has none of the classes.
    """
    too_many = any(of_split.others for of_split in counts.values())
    classes = find_classes(total(counts.values()), "" if too_many else given)
    if len(classes) < 2:
        raise InputError(
            f"Labels must be of two classes or more, but all reviews have the label {classes.names[0]}; give "
            f"reviews of other classes, or name another --label_column."
        )
    for split, of_split in counts.items():
        if not of_split.size(classes):
            raise InputError(
                f"Each split must hold reviews with a label of {', '.join(classes.names)}, but {split} has "
                f"none: its labels are {listed(of_split.labels) or 'missing'}; name another split, or others "
                f"by --labels."
            )
    return classes


def unlabelled(split: str, why: str) -> InputError:
    """The error for a split that a run names and whose reviews have no labels."""
    remedy = (
        f"give --{split}_split= to do without it"
        if split == "test"
        else "name a labelled split by --validation_split, as in --validation_split=train[90%:] with "
        "--train_split=train[:90%]"
        if split == "validation"
        else "name another split"
    )
    return InputError(
        f"Each split that is named must have labels, but split {split} has none ({why}); {remedy}."
    )


def total(counts: Iterable[Counts]) -> dict[str, int]:
    """Each label of several splits, as it is spelled -> its number of reviews."""
    found: Counter[str] = Counter()
    for of_split in counts:
        found.update(of_split.labels)
    return dict(found)


def left_out(counts: Iterable[Counts], classes: Classes) -> dict[str, int]:
    """Each label that means no class -> its number of reviews."""
    return {label: n for label, n in total(counts).items() if classes.number_of(label) is None}


def skipped(counts: Iterable[Counts]) -> dict[str, int]:
    """Each kind of invalid row -> their number."""
    found: Counter[str] = Counter()
    for of_split in counts:
        found.update({kind: n for kind, (n, _) in of_split.bad.items()})
    return dict(found)


def check_rows(counts: Iterable[Counts], shown: str) -> None:
    """Raises InputError if there are invalid rows: how many of each kind, and the first one of each."""
    of_splits = list(counts)
    if not (kinds := skipped(of_splits)):
        return
    first = {kind: what for of_split in reversed(of_splits) for kind, (_, what) in of_split.bad.items()}
    found = ", ".join(f"{n} where {kind} (first {first[kind]})" for kind, n in kinds.items())
    rows = sum(of_split.rows for of_split in of_splits)
    remedy = "fix or remove them, or give --bad_rows=skip"
    if without := [of_split for of_split in of_splits if of_split.has_none]:
        remedy = _remedy(skipped(without))
    raise InputError(
        f"Each row must hold a review with its label, but {sum(kinds.values())} of "
        f"{plural(rows, 'row')} of {shown} do not: {found}; {remedy}."
    )


def _remedy(kinds: Mapping[str, int]) -> str:
    """What to do where no row of a split is valid, by the most frequent kind."""
    most = max(kinds, key=lambda kind: kinds[kind])
    for word in ("text", "label"):
        if most.startswith(("it has no " + word, f"its {word} is")):
            return f"name the right --{word}_column, or fix the rows: a split must have a valid one"
    return "fix the file: a split must have a valid row"


def log_left_out(rows: int, left_out: Mapping[str, int], skipped: Mapping[str, int]) -> None:
    """Logs how many of all rows are not read, and why.

    Args:
      rows: the number of all rows.
      left_out: as `left_out` returns it.
      skipped: as `skipped` returns it.
    """
    for why, counts in (
        ("have a label that --labels does not name", left_out),
        ("are invalid (--bad_rows=skip)", skipped),
    ):
        if counts:
            logging.info(
                "Left out  %d of %d rows, which %s: %s.", sum(counts.values()), rows, why, listed(counts)
            )


def listed(counts: Mapping[str, int], most: int = 8) -> str:
    """Labels or reasons with their numbers, the most frequent ones first: 3 (400), 1 (7)."""
    in_order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name[:60]} ({n})" for name, n in in_order[:most]]
    return ", ".join(shown) + (f" and {len(counts) - most} more" if len(counts) > most else "")


class Kept:
    """The counts of files in the cache.

    Args:
      cache_dir: the folder of the cache.
    """

    def __init__(self, cache_dir: str) -> None:
        self._folder = pathlib.Path(cache_dir) / "counts"

    def read(self, key: object) -> Counts | None:
        """The counts of the files that `key` describes; None if they are missing or damaged."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            content = json.loads(files.read(self._path(key), follow_links=True))
            counts = content["counts"]
            if content["sha256"] == digest(counts):
                labels, bad, others = counts
                counted = Counts(labels, {kind: (n, first) for kind, (n, first) in bad.items()}, others)
                numbers = [*labels.values(), *(n for n, _ in bad.values())]
                if counted.rows > 0 and all(type(n) is int and n > 0 for n in numbers):
                    return counted
        return None

    def write(self, key: object, counts: Counts) -> None:
        """Keeps the counts of the files that `key` describes."""
        # Several runs may write here at once, so the temporary file has a random name, unlike that of
        # `files.write_atomically`. Nothing is synced and a failure is ignored: missing or damaged counts are
        # just counted again.
        content = [counts.labels, counts.bad, counts.others]
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
            with temporary.open("x") as file:
                file.write(json.dumps({"counts": content, "sha256": digest(content)}))
            temporary.replace(path)

    def _path(self, key: object) -> pathlib.Path:
        return self._folder / f"{digest([_FORMAT, key])}.json"


def digest(value: object) -> str:
    """The hexadecimal sha256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value).encode(errors="surrogateescape")).hexdigest()
