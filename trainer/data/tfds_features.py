"""Which features of a TFDS dataset are the text and the label, and which classes its labels have."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from trainer.data.tfds_builder import Columns, short
from trainer.errors import InputError
from trainer.labels import MOST_CLASSES, NEGATIVE_POSITIVE, Classes, normalised

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def find_columns(name: str, builder: "tfds.core.DatasetBuilder", columns: Columns) -> Columns:
    """The features that these names mean: if there is none of a name, the only one that can be meant.

    Raises:
      InputError: when there is no such text or label.
    """
    import tensorflow_datasets as tfds

    features = builder.info.features
    named = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    labels = [key for key, feature in named.items() if isinstance(feature, tfds.features.ClassLabel)]
    texts = [key for key, feature in named.items() if _is_text(feature)]
    found = Columns(
        _choose(columns.text, "text", named, texts, _is_text),
        _choose(columns.label, "label", named, labels, _may_be_label),
    )
    if not found.text or not found.label:
        raise InputError(
            f'--dataset must have a text "{columns.text}" and a label "{columns.label}" of 2 classes or '
            f"more, but {name} has {short(named or features)}; name others by --text_column and "
            f"--label_column."
        )
    for flag, given, taken in zip(("text_column", "label_column"), columns, found, strict=True):
        if given != taken:
            logging.info("Columns   --%s=%s is taken, because %s has no %s.", flag, taken, name, given)
    return found


def _choose(given: str, default: str, named: Mapping[str, Any], candidates: list[str], fits: Any) -> str:
    if given in named:
        return given if fits(named[given]) else ""
    return candidates[0] if given == default and len(candidates) == 1 else ""


def _is_text(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Text):
        return True
    is_plain = type(feature) in (tfds.features.Scalar, tfds.features.Tensor)
    return is_plain and feature.shape == () and feature.np_dtype == np.object_


def _may_be_label(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    if (classes := getattr(feature, "num_classes", None)) is not None:
        return classes >= 2
    # A plain number may be a label as well.
    if type(feature) not in (tfds.features.Scalar, tfds.features.Tensor):
        return False
    return feature.shape == () and feature.np_dtype != np.object_ and np.dtype(feature.np_dtype).kind in "biu"


@dataclasses.dataclass(frozen=True)
class LabelNames:
    """The names of the numbers that a dataset holds as labels.

    Attributes:
      names: the name of each number from 0 on; empty if they have none.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, feature: Any) -> "LabelNames":
        """The names of a feature's labels."""
        return cls(tuple(getattr(feature, "names", None) or ()))

    def values(self, number: int) -> tuple[str, ...]:
        """What a label may be called: its number and its name, unless numbers are names of other labels."""
        if not 0 <= number < len(self.names):
            return (str(number),)
        name = normalised(self.names[number])
        numbers = {str(other) for other in range(len(self.names))}
        if numbers & {normalised(other) for other in self.names}:
            return (name,)
        return str(number), name

    def classes(self) -> Classes:
        """One class for each name, in the order of the dataset; InputError if there are too many."""
        if len(self.names) > MOST_CLASSES:
            raise InputError(
                f"Labels must be of at most {MOST_CLASSES} classes, but the dataset has {len(self.names)}; "
                f"name some by --labels."
            )
        values = tuple(self.values(number) for number in range(len(self.names)))
        numbers = [{NEGATIVE_POSITIVE.number_of(value) for value in of_class} for of_class in values]
        if numbers == [{0}, {1}]:
            return NEGATIVE_POSITIVE
        return Classes(self.names, values)

    def counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Counts of numbers, written as texts, as counts of all that these may be called."""
        return {value: n for number, n in counts.items() for value in self.values(int(number))}

    def numbers(self, classes: Classes, labels: Iterable[str]) -> dict[int, int]:
        """The number of the class that each label means; those that mean none are absent."""
        meant = {int(label): map(classes.number_of, self.values(int(label))) for label in labels}
        found = {
            label: [number for number in numbers if number is not None] for label, numbers in meant.items()
        }
        return {label: numbers[0] for label, numbers in found.items() if numbers}

    def complete(self, classes: Classes) -> Classes:
        """The same classes with all that their labels may be called, although only one of it was given."""
        numbers = self.numbers(classes, map(str, range(len(self.names))))
        values = [dict.fromkeys(of_class) for of_class in classes.values]
        for label, number in numbers.items():
            values[number] |= dict.fromkeys(self.values(label))
        return Classes(classes.names, tuple(map(tuple, values)))
