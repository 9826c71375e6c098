"""The long proof: thousands of kills, damaged files, hostile inputs, odd names and environments.

    python scripts/proof/chaos.py --report=FILE [--only=PART] [--names=300] [--strangers=500] [--pipes=100]
        [--signals=100] [--environments=73] [--inputs=500] [--damages=200] [--kills=500]

Each finished case is appended to the report, and a later call runs only the cases that the report lacks. A
case depends only on its number: to repeat it, delete its line from the report. A case fails when a disturbed
run ends with other bits than the reference run, silently starts over, hangs or shows a traceback; when an
invalid command does not end with one sentence and exit code 2; and when a file is touched that does not
belong to the run. The cases of names and strangers start forks of this process, and sometimes a fresh
interpreter; the cases of all other parts start a fresh one.
"""

import argparse
import collections
import json
import pathlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from kill_and_resume import SMALL_RUN, kill_and_resume  # first: it imports TensorFlow quietly

# isort: split
from chaos_damages import Damages
from chaos_environments import ENVIRONMENTS, Environments
from chaos_inputs import one_input
from chaos_names import Names
from chaos_pipes import Pipes
from chaos_processes import Signals
from chaos_start import Case
from chaos_strangers import Strangers
from tqdm import tqdm

KILLS_A_ROUND = 25
_SHAPES = [
    [],
    ["--patience=1", "--eval_every_steps=10"],
    ["--max_to_keep=1", "--checkpoint_every_steps=1"],
    ["--validation_split=", "--monitor=loss", "--eval_every_steps=0"],
    [
        *("--checkpoint_every_steps=0", "--checkpoint_every_secs=0.05"),
        *("--monitor=val_accuracy", "--clip_norm=1"),
    ],
    [
        *("--pooling=last,max,mean", "--ngrams=2", "--ngram_buckets=4096", "--token_dropout=0.3"),
        *("--schedule=cosine", "--warmup_steps=10", "--plateau_patience=1", "--ema_momentum=0.9"),
        "--accumulate=3",
    ],
    ["--batch_size=64", "--max_length=40", "--epochs=6", "--test_split="],
]
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

DoCase = Callable[[int, pathlib.Path], Case]  # (number, an empty folder)


def kill_round(number: int, folder: pathlib.Path) -> Case:
    """Kills one run KILLS_A_ROUND times; flags, seed and signal follow from the number."""
    flags = [*SMALL_RUN, *_SHAPES[number % len(_SHAPES)], f"--seed={number}"]
    signum = _SIGNALS[number % len(_SIGNALS)]
    seconds, wrong = kill_and_resume(
        kills=KILLS_A_ROUND, seed=number, signum=signum, flags=flags, folder=folder
    )
    phases = {name: [len(values), round(max(values), 2)] for name, values in seconds.items()}
    count = sum(map(len, seconds.values()))
    return {"outcome": signum.name, "cases": count, "phases": phases, "wrong": wrong}


# Name -> the default number of cases, and a function that prepares the part in a folder.
PARTS: dict[str, tuple[int, Callable[[pathlib.Path], DoCase]]] = {
    "names": (300, lambda folder: Names(folder).one),
    "strangers": (500, lambda folder: Strangers(folder).one),
    "pipes": (100, lambda folder: Pipes(folder).one),
    "signals": (100, lambda folder: Signals(folder).one),
    "environments": (len(ENVIRONMENTS), lambda folder: Environments(folder).one),
    "inputs": (500, lambda folder: one_input),
    # These use TensorFlow in this process; no fork may come after them.
    "damages": (200, lambda folder: Damages(folder).one),
    "kills": (500, lambda folder: kill_round),
}


def read_report(report: pathlib.Path) -> list[dict]:
    """The finished cases; an incomplete last line, left by a kill, is skipped."""
    lines = report.read_text().splitlines() if report.exists() else []
    cases = []
    for line in lines:
        try:
            cases.append(json.loads(line))
        except ValueError:
            continue
    return cases


def do_part(part: str, numbers: list[int], report: pathlib.Path, place: pathlib.Path) -> None:
    """Runs the cases of these numbers, and appends each to the report."""
    if not numbers:
        return
    _, prepare = PARTS[part]
    do_case = prepare(place)
    for number in tqdm(numbers, unit=part[:-1], disable=None):
        folder = place / f"{part}-{number}"
        folder.mkdir()
        started_at = time.monotonic()
        case = {"part": part, "number": number, **do_case(number, folder)}
        case["seconds"] = round(time.monotonic() - started_at, 1)
        shutil.rmtree(folder)
        with report.open("a") as file:
            file.write(json.dumps(case) + "\n")


def print_table(cases: list[dict]) -> None:
    """Prints how many cases each part has by outcome, and how many failed."""
    table: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0])
    for case in cases:
        row = table[case["part"], case["outcome"]]
        row[0] += case["cases"]
        row[1] += bool(case["wrong"])
    print("| part | outcome | cases | failures |\n| --- | --- | --- | --- |")
    for (part, result), (number, failures) in sorted(table.items()):
        print(f"| {part} | {result} | {number} | {failures} |")


def main() -> int:
    """Runs the cases that the report lacks, and prints all of them as a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=PARTS)
    for part, (count, _) in PARTS.items():
        parser.add_argument(f"--{part}", type=int, default=count)
    given = parser.parse_args()
    # So that no fork outlives this process.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    tqdm.monitor_interval = 0  # otherwise its thread would exist when this process forks
    done = {(case["part"], case["number"]) for case in read_report(given.report)}
    with tempfile.TemporaryDirectory() as place:
        for part in PARTS:
            count = getattr(given, part) if part != "kills" else -(-given.kills // KILLS_A_ROUND)
            is_chosen = given.only in (None, part)
            numbers = [number for number in range(count) if is_chosen and (part, number) not in done]
            do_part(part, numbers, given.report, pathlib.Path(place))
    cases = read_report(given.report)
    print_table(cases)
    return int(any(case["wrong"] for case in cases))


if __name__ == "__main__":
    sys.exit(main())
