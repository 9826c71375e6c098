"""The metrics of training and evaluation: their names, which direction is better, and where they are shown.

To add a metric, change this module, `steps.py` (its sums) and `run/state.py` (`Sums`, which a checkpoint
holds).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric: its TensorBoard tag, whether a lower value is better, whether training has it too.

    A metric that training lacks is not evaluated in each run: see `needs_confusion` and `needs_scores`.
    """

    name: str
    lower_is_better: bool
    in_training: bool = True


METRICS = (
    Metric("loss", lower_is_better=True),
    Metric("accuracy", lower_is_better=False),
    Metric("f1", lower_is_better=False, in_training=False),
    Metric("auc", lower_is_better=False, in_training=False),
)
NAMES = tuple(metric.name for metric in METRICS if metric.in_training)

# What --monitor may name: a metric of the validation split, or of training since the last evaluation.
MONITORS = (*(f"val_{metric.name}" for metric in METRICS), *NAMES)


class Metrics(NamedTuple):
    """Metrics of reviews, each counted once; `f1` and `auc` are None where they were not evaluated."""

    loss: float
    accuracy: float
    reviews: int
    f1: float | None = None
    auc: float | None = None

    def values(self) -> dict[str, float]:
        """The value of each metric that was evaluated, by name."""
        values = {metric.name: getattr(self, metric.name) for metric in METRICS}
        return {name: value for name, value in values.items() if value is not None}


class OfClass(NamedTuple):
    """The metrics of one class. A ratio with a zero denominator is 0."""

    precision: float
    recall: float
    f1: float
    reviews: int
    predicted: int


Confusion = Sequence[Sequence[int]]
"""How many reviews of each true class (the outer one) were predicted as each class."""


def of_classes(confusion: Confusion) -> list[OfClass]:
    """The metrics of each class."""
    found = []
    for number, row in enumerate(confusion):
        correct, reviews, predicted = row[number], sum(row), sum(other[number] for other in confusion)
        found.append(
            OfClass(
                precision=correct / max(1, predicted),
                recall=correct / max(1, reviews),
                f1=2 * correct / max(1, reviews + predicted),
                reviews=reviews,
                predicted=predicted,
            )
        )
    return found


def macro_f1(confusion: Confusion) -> float:
    """The mean of the classes' F1; as in scikit-learn, without those that no review has or is given."""
    occurring = [of_class.f1 for of_class in of_classes(confusion) if of_class.reviews or of_class.predicted]
    return sum(occurring) / max(1, len(occurring))


def f1(confusion: Confusion) -> float:
    """The metric `f1`: of the second class if there are two, else the macro mean."""
    return of_classes(confusion)[1].f1 if len(confusion) == 2 else macro_f1(confusion)


def needs_confusion(monitor: str, classes: int) -> bool:
    """Whether evaluations of a run sum the confusion matrix, and thus have `f1`.

    With two classes only if it is monitored: the other runs keep the curves, and the bits, of older versions.
    """
    return classes > 2 or monitor == "val_f1"


def needs_scores(monitor: str) -> bool:
    """Whether evaluations of a run keep the logit of each review, and thus have `auc`."""
    return monitor == "val_auc"


def lower_is_better(monitor: str) -> bool:
    """Whether a lower value of the monitored metric is better."""
    return {metric.name: metric.lower_is_better for metric in METRICS}[monitor.removeprefix("val_")]


def is_of_validation(monitor: str) -> bool:
    """Whether --monitor names a metric of the validation split."""
    return monitor.startswith("val_")


def curve_of(monitor: str) -> str:
    """The TensorBoard tag for the best value of the monitored metric."""
    return monitor.removeprefix("val_")


def since_evaluation(name: str) -> str:
    """The TensorBoard tag of a training metric since the previous evaluation."""
    return f"{name}_since_evaluation"


# The history of a run has one row for each evaluation. Column -> the curve, (run, tag), that it is read from.
# The columns of `SOMETIMES` are left out of a run that does not evaluate their metric.
HISTORY = {
    **{name: ("train", since_evaluation(name)) for name in NAMES},
    **{f"val_{metric.name}": ("validation", metric.name) for metric in METRICS},
    "best": ("best", "best_step"),
    "patience": ("best", "waited"),
}
SOMETIMES = tuple(f"val_{metric.name}" for metric in METRICS if not metric.in_training)
