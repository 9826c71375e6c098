"""The metrics of training and evaluation: their names, which direction is better, and where they are shown.

To add a metric, change this module, `steps.py` (its sums) and `run/state.py` (`Sums`, which a checkpoint
holds).
"""

import dataclasses
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric: its TensorBoard tag, and whether a lower value is better."""

    name: str
    lower_is_better: bool


METRICS = (Metric("loss", lower_is_better=True), Metric("accuracy", lower_is_better=False))
NAMES = tuple(metric.name for metric in METRICS)

# What --monitor may name: a metric of the validation split, or of training since the last evaluation.
MONITORS = (*(f"val_{name}" for name in NAMES), *NAMES)


class Metrics(NamedTuple):
    """Means over reviews, each counted once."""

    loss: float
    accuracy: float
    reviews: int


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
HISTORY = {
    **{name: ("train", since_evaluation(name)) for name in NAMES},
    **{f"val_{name}": ("validation", name) for name in NAMES},
    "best": ("best", "best_step"),
    "patience": ("best", "waited"),
}
