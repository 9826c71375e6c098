#!/usr/bin/env python
"""Draws loss and accuracy of one or several runs, training against validation, with best and stop marked.

    pip install -r scripts/requirements.txt
    python scripts/plot_history.py runs/imdb [runs/other ...] [--output=history.png]

Everything is read from the event files, except the stop, which is read from result.json.
"""

import argparse
import json
import pathlib
import sys
from typing import Any, NamedTuple

import matplotlib

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    from trainer.run import event_files
from trainer.run.records import RESULT, read_starts

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

METRICS = ("loss", "accuracy")
_STYLES: dict[str, dict[str, Any]] = {
    "train": {"linewidth": 0.8, "alpha": 0.6},
    "validation": {"linewidth": 2, "marker": "o", "markersize": 4},
}


class _Run(NamedTuple):
    # What is drawn for a run. Best and stop are from the result; without a result, best is the best so far.
    curves: event_files.Curves
    steps_per_epoch: int
    best_step: int  # -1: none
    stop_step: int | None
    colour: str
    prefix: str  # of its labels


def plot(workdirs: list[pathlib.Path], output: pathlib.Path) -> None:
    """Writes a picture with a panel for each metric; each run has one colour, and a bold validation line."""
    figure, panels = pyplot.subplots(1, len(METRICS), figsize=(11, 4.2), layout="constrained")
    for number, workdir in enumerate(workdirs):
        run = _read(workdir, f"C{number}", f"{workdir.name} " if len(workdirs) > 1 else "")
        for panel, metric in zip(panels, METRICS, strict=True):
            _draw_curves(panel, metric, run)
            _mark_best(panel, metric, run)
            _mark_stop(panel, run)
    for panel, metric in zip(panels, METRICS, strict=True):
        panel.set(xlabel="epoch", title=metric, xlim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    figure.savefig(output, dpi=110)


def _read(workdir: pathlib.Path, colour: str, prefix: str) -> _Run:
    curves, starts = event_files.read(workdir / "summaries"), read_starts(workdir)
    if not curves or not starts:
        raise SystemExit(
            f"Each argument must be a run directory with an event log, but {workdir} is not; name another."
        )
    best_steps = curves.get(("best", "best_step"), [])
    best_so_far = int(best_steps[-1][1]) if best_steps else -1
    result = json.loads((workdir / RESULT).read_text()) if (workdir / RESULT).exists() else {}
    return _Run(
        curves=curves,
        steps_per_epoch=starts[-1]["steps_per_epoch"],
        best_step=result.get("best_step", best_so_far),
        stop_step=result.get("stop_step"),
        colour=colour,
        prefix=prefix,
    )


def _draw_curves(panel: Axes, metric: str, run: _Run) -> None:
    for name, style in _STYLES.items():
        points = run.curves.get((name, metric), [])
        epochs = [step / run.steps_per_epoch for step, _ in points]
        values = [value for _, value in points]
        panel.plot(epochs, values, color=run.colour, label=f"{run.prefix}{name}", **style)


def _mark_best(panel: Axes, metric: str, run: _Run) -> None:
    value = dict(run.curves.get(("validation", metric), [])).get(run.best_step)
    if value is None:
        return
    panel.plot(
        run.best_step / run.steps_per_epoch,
        value,
        color=run.colour,
        marker="*",
        markersize=15,
        markeredgecolor="black",
        linestyle="",
        zorder=3,
        label=f"{run.prefix}best: step {run.best_step}, {value:.4f}",
    )


def _mark_stop(panel: Axes, run: _Run) -> None:
    if run.stop_step is not None:
        label = f"{run.prefix}stop: step {run.stop_step}"
        panel.axvline(run.stop_step / run.steps_per_epoch, color=run.colour, linestyle=":", label=label)


def main() -> int:
    """Draws the runs that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("history.png"))
    given = parser.parse_args()
    plot(given.workdirs, given.output)
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
