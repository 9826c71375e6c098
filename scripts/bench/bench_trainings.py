"""Whole trainings: their quality after each epoch, and the time to the same quality."""

import itertools
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

from protocol import TARGET, VARIANTS, is_reached
from timing import TRAINER, machine, machine_line, running, seconds_until

T = TypeVar("T")

EPOCHS = 5
_FOLDER = pathlib.Path(__file__).parent


def compare_trainings(seeds: int, report: pathlib.Path | None) -> dict:
    """Trains all variants and contenders; figures that are already in `report` are not measured again."""
    figures: dict = {**machine(), "to_target": {}, "quality": {}}
    if report and report.exists():
        figures = json.loads(report.read_text())

    def measured(part: str, name: str, measure: Callable[[], T]) -> T:
        if name not in figures[part]:
            figures[part][name] = measure()
            if report:
                report.write_text(json.dumps(figures, indent=2) + "\n")
        return figures[part][name]

    print(f"{machine_line(figures)}\n")
    print("Loss and accuracy on the 25,000 test reviews after each epoch of this trainer\n")
    epochs = " | ".join(str(epoch) for epoch in range(1, EPOCHS + 1))
    print(f"| seed | variant | {epochs} |\n" + "| --- " * (EPOCHS + 2) + "|", flush=True)
    with tempfile.TemporaryDirectory() as cache_dir:
        for variant, seed in itertools.product(VARIANTS, range(seeds)):
            measure = _quality_of(seed, variant, cache_dir)
            metrics = measured("quality", f"{seed} {variant}", measure)
            cells = " | ".join(f"{epoch['val_loss']:.3f} {epoch['val_accuracy']:.3f}" for epoch in metrics)
            print(f"| {seed} | {variant} | {cells} |", flush=True)
    target = " and ".join(f"{name} {value}" for name, value in TARGET.items())
    print(f"\nSeconds from the start of the process, with nothing cached, to {target}\n")
    print("| seed | usual Keras script | this trainer | ratio |\n| --- | --- | --- | --- |", flush=True)
    for seed in range(seeds):
        usual, ours = measured("to_target", str(seed), lambda seed=seed: times_to_target(seed))
        print(f"| {seed} | {usual:.0f} | {ours:.0f} | {usual / ours:.1f} |", flush=True)
    return figures


def times_to_target(seed: int) -> tuple[float, float]:
    """Seconds that the usual script and this trainer take to the target, with nothing cached."""
    began = time.perf_counter()
    program = [sys.executable, str(_FOLDER / "contenders.py"), f"--seed={seed}", "usual_until_target"]
    with running(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        if process.wait():
            raise SystemExit(f"The usual script has failed; see: {' '.join(program)}")
    usual = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        directories = [f"--workdir={folder}/run", f"--cache_dir={folder}/cache"]
        command = [*TRAINER, *directories, f"--seed={seed}", "--epochs=30"]
        return usual, seconds_until(command, _reaches_target)


def _reaches_target(line: str) -> bool:
    # Whether a line of the trainer's log shows validation metrics that reach the target.
    match = re.match(r"validation .*loss ([\d.]+) \| accuracy ([\d.]+)", line)
    return match is not None and is_reached({"val_loss": float(match[1]), "val_accuracy": float(match[2])})


def _quality_of(seed: int, variant: str, cache_dir: str) -> Callable[[], list[dict[str, float]]]:
    # Measures the test metrics after each epoch of a variant.
    flags = [f"--epochs={EPOCHS}", f"--seed={seed}", "--workdir=none", f"--cache_dir={cache_dir}"]
    command = [sys.executable, str(_FOLDER / "variants.py"), variant, *TRAINER[3:], *flags]

    def measure() -> list[dict[str, float]]:
        with running(command, stdout=subprocess.PIPE, text=True) as process:
            metrics = [json.loads(line) for line in process.stdout]
            if process.wait():
                raise SystemExit(f"A variant has failed; see: {' '.join(command)}")
        return [{"val_loss": epoch["loss"], "val_accuracy": epoch["accuracy"]} for epoch in metrics]

    return measure
