#!/usr/bin/env python
"""Draws loss and accuracy of one or several runs, training against validation, with best and stop marked.

    pip install -r scripts/requirements.txt
    python scripts/plot_history.py runs/imdb [runs/other ...] [--output=history.png]

All of it comes from the event files, but for the stop, which result.json tells.
"""

import argparse
import json
import pathlib
import sys

import matplotlib

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    from trainer.run import event_files
from trainer.run.records import RESULT, read_starts

matplotlib.use("Agg")
from matplotlib import pyplot

METRICS = ("loss", "accuracy")


def plot(workdirs: list[pathlib.Path], output: pathlib.Path) -> None:
    """Writes one picture with a panel for each metric; each run has a colour, its training is thin and its validation thick."""
    figure, panels = pyplot.subplots(1, len(METRICS), figsize=(11, 4.2), layout="constrained")
    for number, workdir in enumerate(workdirs):
        curves, starts = event_files.read(workdir / "summaries"), read_starts(workdir)
        if not curves or not starts:
            raise SystemExit(f"Each argument must be a run directory with an event log, but {workdir} is not.")
        name = f"{workdir.name} " if len(workdirs) > 1 else ""
        for panel, metric in zip(panels, METRICS, strict=True):
            _draw(panel, metric, curves, starts[-1]["steps_per_epoch"], f"C{number}", name)
            _mark(panel, metric, curves, starts[-1]["steps_per_epoch"], f"C{number}", name, workdir)
    for panel, metric in zip(panels, METRICS, strict=True):
        panel.set(xlabel="epoch", title=metric, xlim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    figure.savefig(output, dpi=110)


def _draw(panel, metric: str, curves: event_files.Curves, steps_per_epoch: int, colour: str, name: str) -> None:
    styles = {"train": {"linewidth": 0.8, "alpha": 0.6}, "validation": {"linewidth": 2, "marker": "o", "markersize": 4}}
    for run, style in styles.items():
        points = curves.get((run, metric), [])
        epochs, values = [step / steps_per_epoch for step, _ in points], [value for _, value in points]
        panel.plot(epochs, values, color=colour, label=f"{name}{run}", **style)


def _mark(panel, metric: str, curves: event_files.Curves, steps_per_epoch: int, colour: str, name: str, workdir: pathlib.Path) -> None:
    # Best and stop are the ending's; of a run that goes on, the best so far.
    ending = json.loads((workdir / RESULT).read_text()) if (workdir / RESULT).exists() else {}
    best_steps = curves.get(("best", "best_step"), [])
    best = ending.get("best_step", int(best_steps[-1][1]) if best_steps else -1)
    validation = dict(curves.get(("validation", metric), []))
    if best in validation:
        label = f"{name}best: step {best}, {validation[best]:.4f}"
        style = {"color": colour, "markersize": 15, "markeredgecolor": "black", "linestyle": "", "zorder": 3}
        panel.plot(best / steps_per_epoch, validation[best], marker="*", label=label, **style)
    if ending:
        stop = f"{name}stop: step {ending['stop_step']}"
        panel.axvline(ending["stop_step"] / steps_per_epoch, color=colour, linestyle=":", label=stop)


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("history.png"))
    given = parser.parse_args()
    plot(given.workdirs, given.output)
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
