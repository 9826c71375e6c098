"""The classes of a corpus: their names, their order, and which values of a label mean each of them."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Mapping

from trainer.errors import InputError

MOST_CLASSES = 256  # a label is stored in a byte

_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d*)?")
# Pairs whose natural order is not negative before positive.
_PAIRS = (("-", "+"), ("rotten", "fresh"))


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a corpus, numbered from 0.

    Attributes:
      names: the name of each class; with two classes, the second one is the positive one.
      values: the values of each class, as `normalised` writes them.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def logits(self) -> int:
        """The width of the model's last layer: one for two classes, else one for each class."""
        return 1 if len(self) == 2 else len(self)

    def number_of(self, label: object) -> int | None:
        """The number of the class that a label means; None for one that means no class."""
        return self._numbers.get(normalised(label))

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {value: number for number, values in enumerate(self.values) for value in values}

    def to_json(self) -> str:
        """The classes as an object: name -> values, in their order."""
        return json.dumps(dict(zip(self.names, self.values, strict=True)))

    @classmethod
    def from_json(cls, text: str) -> "Classes":
        """The inverse of `to_json`; raises ValueError when the text is malformed."""
        content = json.loads(text)
        if not isinstance(content, dict) or len(content) < 2:
            raise ValueError("it names no classes")
        return cls(tuple(content), tuple(tuple(map(str, values)) for values in content.values()))


# What a corpus without other labels has; older versions knew these alone, and did not record them.
NEGATIVE_POSITIVE = Classes(
    ("negative", "positive"),
    (("0", "neg", "negative", "false"), ("1", "pos", "positive", "true")),
)


def normalised(label: object) -> str:
    """A label as it is compared with others: without outer spaces, in lower case, 1.0 as 1."""
    text = str(label).strip().lower()
    if not _NUMBER.fullmatch(text):
        return text
    number = float(text)
    return str(int(number)) if number.is_integer() else str(number)


def find_classes(counts: Mapping[str, int], given: str = "") -> Classes:
    """The classes of labels.

    Without `given`: negative and positive if all values mean these, else one class for each value, in the
    order of numbers, else in natural order.

    Args:
      counts: each label, as it is spelled in the files -> how many there are.
      given: `--labels`: the values in the order of their classes, as in neg,pos; or names with the values
        that they stand for, as in negative=1,2;positive=4,5. Other values are left out.

    Raises:
      InputError: when there are too many values or too few, or `given` is malformed or names others.
    """
    spellings: dict[str, dict[str, int]] = {}
    for label, count in counts.items():
        spellings.setdefault(normalised(label), {})[str(label).strip()] = count
    names = {value: min(same, key=lambda text: (-same[text], text)) for value, same in spellings.items()}
    if given:
        classes = parse_labels(given)
        _check_present(classes, names)
        return classes
    if names.keys() <= NEGATIVE_POSITIVE._numbers.keys():
        return NEGATIVE_POSITIVE
    total = sum(counts.values())
    if len(names) > MOST_CLASSES or (len(names) > 20 and len(names) > total / 2):
        raise InputError(
            f"Labels must be classes, at most {MOST_CLASSES}, but {total} reviews have {len(names)} "
            f"different ones, such as {listed(names.values(), 3)}; name another --label_column, or merge "
            f"some by --labels."
        )
    values = _in_order(list(names))
    return Classes(tuple(names[value] for value in values), tuple((value,) for value in values))


def _in_order(values: list[str]) -> list[str]:
    for pair in _PAIRS:
        if set(values) == set(pair):
            return list(pair)
    if all(_NUMBER.fullmatch(value) for value in values):
        return sorted(values, key=float)
    return sorted(values, key=lambda value: (natural_key(value), value))


def natural_key(text: str) -> list[int | str]:
    """A sort key by which label_2 comes before label_10."""
    # Every other part is a number.
    parts = re.split("([0-9]+)", text)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def parse_labels(given: str) -> Classes:
    """The classes that `--labels` names, without a look at any reviews; raises InputError if malformed."""
    if "=" in given:
        pairs = [part.partition("=") for part in given.split(";") if part.strip()]
        parsed = [(name.strip(), values.split(",")) for name, _, values in pairs]
    else:
        parsed = [(value.strip(), [value]) for value in re.split("[,;]", given)]
    classes = [(name, tuple(normalised(value) for value in values)) for name, values in parsed]
    values = [value for _, of_class in classes for value in of_class]
    is_complete = all(name and all(of_class) for name, of_class in classes)
    is_distinct = len(set(values)) == len(values) and len({name for name, _ in classes}) == len(classes)
    if not is_complete or not is_distinct or not 2 <= len(classes) <= MOST_CLASSES:
        raise InputError(
            f"--labels must name two classes or more, each value once, but --labels={given} was given; "
            f"write neg,pos or 'negative=1,2;positive=4,5'."
        )
    return Classes(tuple(name for name, _ in classes), tuple(of_class for _, of_class in classes))


def _check_present(classes: Classes, names: Mapping[str, str]) -> None:
    # `names`: each value of the corpus -> its most frequent spelling.
    named = zip(classes.names, classes.values, strict=True)
    absent = [name for name, of_class in named if not names.keys() & set(of_class)]
    if absent:
        raise InputError(
            f"--labels must name labels of the reviews, but none has a label of {listed(absent)}; "
            f"their labels are {listed(names[value] for value in _in_order(list(names)))}."
        )


def listed(values: Iterable[str], most: int = 10) -> str:
    """The first values, as a message names them, and how many more there are."""
    shown = [repr(value)[1:-1][:40] for value in values]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
