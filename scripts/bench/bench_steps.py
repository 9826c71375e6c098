"""Steps, evaluations, starts, saves and memory of all contenders, measured in turns."""

import contextlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from protocol import EXAMPLES, STEPS_PER_EPOCH
from timing import TRAINER, machine, machine_line, seconds_until, spread
from tqdm import tqdm
from turns import Contender, Step, contending

CONTENDERS = ("ours", "fair", "usual")
_WARM_UP = 3  # steps
_FAIR_STEPS = 25  # of a round
_USUAL_STEPS = 50  # of all rounds, at least
_LENGTHS = [0, 150, 250, 400, 700, 10**6]

Rounds = list[list[Step]]


def compare_steps(rounds: int) -> dict:
    """Measures everything and prints a table; returns the figures."""
    with tempfile.TemporaryDirectory() as cache_dir, contextlib.ExitStack() as stack:
        tqdm.write("Each contender reads the corpus and compiles ...", file=sys.stderr)
        contenders = {name: stack.enter_context(contending(name, cache_dir)) for name in CONTENDERS}
        for contender in contenders.values():
            contender.order(f"train {_WARM_UP}")
        taken = _steps_in_turns(contenders, rounds)
        tqdm.write("A whole epoch, evaluation, start, saves, memory ...", file=sys.stderr)
        epoch: list[Step] = contenders["ours"].order(f"repeat {STEPS_PER_EPOCH}")["steps"]
        evaluations = [
            {name: contenders[name].order("evaluate")["seconds"] for name in ("ours", "usual")}
            for _ in range(2)
        ]
        save = contenders["ours"].order("end")["seconds"]
        peak = {name: contender.order("end")["peak_mib"] for name, contender in contenders.items()}
        starts = measure_starts(cache_dir)
    measured_tokens = sum(step["length"] for steps in taken["ours"] for step in steps)
    tokens = measured_tokens * STEPS_PER_EPOCH // (STEPS_PER_EPOCH - _WARM_UP)
    in_loop = _total(epoch, "seconds")
    figures = {
        **machine(),
        "epochs": {name: seconds_per_epoch(steps, tokens) for name, steps in taken.items()},
        "evaluation": {name: [times[name] for times in evaluations] for name in ("ours", "usual")},
        "save": save,
        "peak_mib": peak,
        "starts": starts,
        "not_the_step": 1 - _total(epoch, "in_step") / in_loop,
        "real_to_repeated": in_loop / _total(epoch, "repeated"),
        "by_length": by_length(taken["ours"], taken["fair"]),
    }
    print(table(figures))
    return figures


def _steps_in_turns(contenders: Mapping[str, Contender], rounds: int) -> dict[str, Rounds]:
    # Together, this trainer's steps of all rounds are a whole epoch.
    taken: dict[str, Rounds] = {name: [] for name in contenders}
    left = STEPS_PER_EPOCH - _WARM_UP
    for number in tqdm(range(rounds), unit="round", disable=None):
        counts = {
            "ours": left * (number + 1) // rounds - left * number // rounds,
            "fair": _FAIR_STEPS,
            "usual": max(10, -(-_USUAL_STEPS // rounds)),
        }
        for name, contender in contenders.items():
            taken[name].append(contender.order(f"train {counts[name]}")["steps"])
    return taken


def seconds_per_epoch(rounds: Rounds, tokens: int) -> list[float]:
    """The seconds of an epoch at the speed of each round.

    Args:
      rounds: the steps of each round.
      tokens: the number of tokens of an epoch, with padding. A step of unknown length counts as one of
        average length.
    """
    average = tokens / STEPS_PER_EPOCH
    epochs = []
    for steps in rounds:
        taken = sum(step["length"] or average for step in steps)
        epochs.append(_total(steps, "seconds") / taken * tokens)
    return epochs


def _total(steps: Sequence[Step], name: str) -> float:
    return sum(step[name] for step in steps)


def by_length(ours: Rounds, fair: Rounds) -> dict[str, tuple[float, float]]:
    """Milliseconds per step by longest review of the batch: this trainer, and Keras on the same batches."""
    result = {}
    for low, high in itertools.pairwise(_LENGTHS):
        medians = []
        for rounds in (ours, fair):
            steps = [step for steps in rounds for step in steps if low < step["length"] <= high]
            medians += [1000 * statistics.median(step["seconds"] for step in steps)] if steps else []
        if len(medians) == 2:
            name = f"{low + 1} to {high} tokens" if high < _LENGTHS[-1] else f"over {low} tokens"
            result[name] = (medians[0], medians[1])
    return result


def measure_starts(cache_dir: str) -> dict[str, float]:
    """Seconds from the start of a process to the first step, new and resumed; and of the import alone."""
    starts: dict[str, list[float]] = {"import": [], "new": [], "resumed": []}
    for _ in range(3):
        began = time.perf_counter()
        imports = [sys.executable, "-c", "import tensorflow"]
        subprocess.run(imports, check=True, stderr=subprocess.DEVNULL)
        starts["import"].append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as workdir:
            command = [*TRAINER, f"--workdir={workdir}", f"--cache_dir={cache_dir}", "--log_every_steps=1"]
            for start in ("new", "resumed"):
                taken = seconds_until(command, lambda line: line.startswith("train "))
                starts[start].append(taken)
    return {name: statistics.median(taken) for name, taken in starts.items()}


def table(figures: Mapping) -> str:
    """The figures of `compare_steps` in Markdown."""
    starts, save = figures["starts"], figures["save"]
    lines = [
        f"{machine_line(figures)}; median of the rounds (least-most)",
        "",
        "| | usual Keras script | Keras `fit` on our batches | this trainer | usual / ours | fair / ours |",
        "| --- | --- | --- | --- | --- | --- |",
        *_rows(figures),
        "",
        f"Training time outside the step: {figures['not_the_step']:.1%}. With real batches a step takes "
        f"{figures['real_to_repeated']:.3f} times as long as with the same batch repeated.",
        f"First step {starts['new']:.1f} s after the start of the process, {starts['resumed']:.1f} s when it "
        f"resumes; `import tensorflow` alone takes {starts['import']:.1f} s.",
        f"A save stalls training for {1000 * save:.0f} ms: {save / 60:.2%} of the 60 s between two saves.",
    ]
    return "\n".join(lines)


def _rows(figures: Mapping) -> list[str]:
    epochs, evaluation, peak = figures["epochs"], figures["evaluation"], figures["peak_mib"]

    def ratios(values: Mapping[str, Sequence[float]], name: str) -> str:
        pairs = zip(values[name], values["ours"], strict=True)
        return spread([theirs / ours for theirs, ours in pairs])

    def row(name: str, *cells: str) -> str:
        return f"| {name} | {' | '.join(cells)} |"

    order = ("usual", "fair", "ours")
    per_second = [f"{EXAMPLES / statistics.median(epochs[name]):.0f}" for name in order]
    rows = [
        row(
            "seconds per epoch",
            *(spread(epochs[name]) for name in order),
            *(ratios(epochs, name) for name in ("usual", "fair")),
        ),
        row("reviews per second", *per_second, "", ""),
        row(
            "seconds to evaluate 25,000 reviews",
            spread(evaluation["usual"]),
            "",
            spread(evaluation["ours"]),
            ratios(evaluation, "usual"),
            "",
        ),
        row(
            "peak memory, MiB",
            *(f"{peak[name]:.0f}" for name in order),
            *(f"{peak[name] / peak['ours']:.2f}" for name in ("usual", "fair")),
        ),
    ]
    for name, (ours, fair) in figures["by_length"].items():
        cells = ("", f"{fair:.0f}", f"{ours:.0f}", "", f"{fair / ours:.1f}")
        rows.append(row(f"milliseconds per step, {name}", *cells))
    return rows
