"""The metrics of an evaluation: computed from logits, as facts for JSON, as a table for people."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from trainer import classes, metrics
from trainer.labels import Classes
from trainer.metrics import OfClass
from trainer.words import shortened

_LONGEST_NAME = 20  # columns for the name of a class
_LARGEST_MATRIX = 20  # classes; that of more has too many columns for a terminal


@dataclasses.dataclass(frozen=True)
class Report:
    """The metrics of a set of reviews.

    Attributes:
      names: the names of the classes.
      loss: the mean loss.
      confusion: how many reviews of each true class (the outer list) were predicted as each class.
      auc: with two classes the area under the ROC curve, None if all reviews have one label; else None.
    """

    names: Sequence[str]
    loss: float
    confusion: list[list[int]]
    auc: float | None

    @property
    def reviews(self) -> int:
        """The number of reviews."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of reviews whose class was predicted."""
        return sum(row[number] for number, row in enumerate(self.confusion)) / self.reviews

    @property
    def macro_f1(self) -> float:
        """The mean of the classes' F1."""
        return metrics.macro_f1(self.confusion)

    def facts(self) -> dict[str, object]:
        """All metrics, as values that JSON can hold."""
        return {
            "reviews": self.reviews,
            "loss": self.loss,
            "accuracy": self.accuracy,
            **self._of_two_classes(),
            "macro_f1": self.macro_f1,
            "classes": [
                {
                    "name": name,
                    "precision": of_class.precision,
                    "recall": of_class.recall,
                    "f1": of_class.f1,
                    "reviews": of_class.reviews,
                }
                for name, of_class in zip(self.names, metrics.of_classes(self.confusion), strict=True)
            ],
            "confusion": self.confusion,
        }

    def _of_two_classes(self) -> dict[str, object]:
        # What is said of a positive class, the second one of two.
        if len(self.names) > 2:
            return {}
        (true_negatives, false_positives), (false_negatives, true_positives) = self.confusion
        positive = metrics.of_classes(self.confusion)[1]
        return {
            "auc": self.auc,
            "precision": positive.precision,
            "recall": positive.recall,
            "f1": positive.f1,
            "true_positives": true_positives,
            "false_positives": false_positives,
            "true_negatives": true_negatives,
            "false_negatives": false_negatives,
        }


def make_report(
    chunks: Iterable[tuple[np.ndarray, np.ndarray]], of: Classes, threshold: float | None = None
) -> Report | None:
    """The metrics of reviews, which are kept in memory without their logits; None if there are none.

    Args:
      chunks: the logits of some reviews, float32 [reviews] or [reviews, classes], and their labels, the
        numbers of their classes, [reviews].
      of: the classes.
      threshold: with two classes, the probability above which the second one is predicted; None: 0.5.
    """
    size = len(of)
    confusion = np.zeros((size, size), np.int64)
    losses, scores, positive = [], [], []
    for logits, labels in chunks:
        labels = labels.astype(np.int64)
        pairs = size * labels + classes.decide(logits, threshold)
        confusion += np.bincount(pairs, minlength=size * size).reshape(size, size)
        losses.append(classes.exact_losses(logits, labels))
        if size == 2:
            scores.append(logits.astype(np.float64))
            positive.append(labels.astype(bool))
    if not confusion.sum():
        return None
    auc = classes.area_under_roc(np.concatenate(scores), np.concatenate(positive)) if size == 2 else None
    return Report(of.names, float(np.mean(np.concatenate(losses))), confusion.tolist(), auc)


def table(report: Report) -> str:
    """The metrics and the confusion matrix as text."""
    facts = report.facts()
    if len(report.names) == 2:
        shown, parts = "reviews loss accuracy auc precision recall f1", [_matrix_of_two(report)]
    else:
        shown, parts = "reviews loss accuracy macro_f1", [_of_classes(report), _matrix(report)]
    lines = [f"{name:<10} {_cell(facts[name]):>9}" for name in shown.split()]
    return "\n\n".join("\n".join(part) for part in [lines, *parts])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _matrix_of_two(report: Report) -> list[str]:
    # The positive class first.
    negative, positive = (shortened(name, _LONGEST_NAME) for name in report.names)
    (true_negatives, false_positives), (false_negatives, true_positives) = report.confusion
    rows = [
        ("", f"predicted {positive}", f"predicted {negative}"),
        (positive, f"{true_positives:,}", f"{false_negatives:,}"),
        (negative, f"{false_positives:,}", f"{true_negatives:,}"),
    ]
    first, *others = (max(len(row[column]) for row in rows) for column in range(3))
    widths = (max(10, first), *(max(19, width) for width in others))
    return [f"{row[0]:<{widths[0]}} {row[1]:>{widths[1]}} {row[2]:>{widths[2]}}" for row in rows]


def _numbered(names: Sequence[str]) -> list[str]:
    # The heads of the rows: number and name, all of one width.
    shown = [
        f"{number:>{len(str(len(names)))}} {shortened(name, _LONGEST_NAME)}"
        for number, name in enumerate(names, start=1)
    ]
    width = max(map(len, shown))
    return [f"{text:<{width}}" for text in shown]


def _of_classes(report: Report) -> list[str]:
    heads = _numbered(report.names)
    columns = ("precision", "recall", "f1", "reviews")

    def line(head: str, cells: Iterable[str]) -> str:
        return f"{head:<{len(heads[0])}}{''.join(f'{cell:>11}' for cell in cells)}"

    def cells(of_class: OfClass) -> list[str]:
        return [_cell(getattr(of_class, column)) for column in columns]

    found = zip(heads, metrics.of_classes(report.confusion), strict=True)
    return [line("", columns), *(line(head, cells(of_class)) for head, of_class in found)]


def _matrix(report: Report) -> list[str]:
    size = len(report.names)
    if size > _LARGEST_MATRIX:
        return [f"The confusion matrix of {size} classes is in the JSON of --output."]
    heads = _numbered(report.names)
    width = 2 + max(len(str(count)) for row in [*report.confusion, [size]] for count in row)

    def line(head: str, cells: Iterable[object]) -> str:
        return f"{head:<{len(heads[0])}}{''.join(f'{cell!s:>{width}}' for cell in cells)}"

    rows = zip(heads, report.confusion, strict=True)
    # A dot for 0, so that the mistakes stand out.
    return [
        "True classes, and as which class their reviews were predicted:",
        line("", range(1, size + 1)),
        *(line(head, (count or "." for count in row)) for head, row in rows),
    ]
