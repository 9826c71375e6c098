"""How the cost of everything but training grows with the corpus: IMDB as it is, 10 and 100 times over.

    TFDS_DATA_DIR=... python scripts/bench/bench_corpus.py --work=FOLDER [--json=FILE]
        [--sizes=25000,250000,2500000] [--rounds=10]

Needs 5.3 GB of disk for these sizes. FOLDER keeps the corpora and the encoded corpora, so that a second run
is short; figures that are already in FILE are not measured again. Without TFDS_DATA_DIR, the reviews are
those of sample_reviews.

Reading, counting and encoding are measured in a real start with an empty cache. Starts are real processes
with everything cached. Starts and steps of all sizes take turns, so that a machine that slows down affects
all of them. Steps are compared per padded token, because batches differ in length.
"""

import argparse
import contextlib
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from local_cluster import ROOT

sys.path.insert(0, str(ROOT))
from corpora import cache_of, flags_of, make_corpus
from corpus_table import STEPS, table
from timing import TRAINER, exit_on_sigterm, machine, running, seconds
from tqdm import tqdm
from turns import contending

BATCHES = 1000
# Phase -> the start of the line that the trainer logs when it begins.
_PHASES = {
    "count": "Counting ",
    "encode": "Encoding the tokens of .* train",
    "encode_test": "Encoding the tokens of .* test",
    "end": "Batches ",
}


def encode(size: int, work: pathlib.Path) -> dict:
    """Starts the trainer on a corpus that is not encoded; returns speed, memory and sizes on disk."""
    cache, run = cache_of(size, work), work / "run"
    for folder in (cache, run):
        shutil.rmtree(folder, ignore_errors=True)
    command = [*TRAINER, *flags_of(size, work), f"--workdir={run}", f"--cache_dir={cache}"]
    at: dict[str, float] = {}
    peak: dict[str, float] = {}
    with running(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            for phase, start in _PHASES.items():
                if re.match(start, line):
                    at[phase], peak[phase] = time.perf_counter(), memory_mib(process.pid)["VmHWM"]
            if "end" in at:
                break
    store = next(cache.glob(f"*/train*{size}*"))
    texts = (work / f"reviews_{size}").rglob("*-train.*")
    return {
        "counted_per_second": size / (at["encode"] - at["count"]),
        "encoded_per_second": size / (at["encode_test"] - at["encode"]),
        "peak_mib_before": peak["count"],
        "peak_mib_counting": peak["encode"],
        "peak_mib_encoding": peak["encode_test"],
        "store_bytes": sum(path.stat().st_size for path in store.iterdir()),
        "text_bytes": sum(path.stat().st_size for path in texts),
        "manifest": json.loads((store / "manifest.json").read_text()),
    }


def memory_mib(pid: int) -> dict[str, float]:
    """The memory of a process, by the kernel's names, in MiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    names = ("VmHWM", "RssAnon", "RssFile")
    kib = {name: re.search(rf"{name}:\s+(\d+)", status) for name in names}
    return {name: int(match[1]) / 1024 for name, match in kib.items() if match}


def start(size: int, work: pathlib.Path) -> dict[str, float]:
    """Seconds from process start to first step, for a new and a resumed run; and the size of a save."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    directories = [f"--workdir={run}", f"--cache_dir={cache_of(size, work)}"]
    command = [*TRAINER, *flags_of(size, work), *directories, "--log_every_steps=1"]
    taken = {}
    for kind in ("new", "resumed"):
        began = time.perf_counter()
        with running(command, stderr=subprocess.PIPE, text=True) as process:
            next(line for line in process.stderr if line.startswith("train "))
            taken[kind] = time.perf_counter() - began
            process.send_signal(signal.SIGTERM)
            process.communicate()
    newest = max((run / "checkpoints").glob("ckpt-*.index"), key=lambda path: path.stat().st_mtime)
    files = newest.parent.glob(f"{newest.stem}.*")
    return {**taken, "save_bytes": sum(path.stat().st_size for path in files)}


def take_steps(sizes: Sequence[int], work: pathlib.Path, rounds: int) -> dict[str, dict]:
    """Steps of all sizes in turns, the memory after each turn, and saves."""
    with contextlib.ExitStack() as stack:
        contenders = {
            size: stack.enter_context(contending("ours", cache_of(size, work), *flags_of(size, work)))
            for size in sizes
        }
        for contender in contenders.values():
            contender.order(f"train {STEPS}")
        taken: dict[int, list[dict]] = {size: [] for size in sizes}
        for number in tqdm(range(rounds), desc="Steps", disable=None):
            for size in list(sizes)[:: (-1) ** number]:
                steps = contenders[size].order(f"train {STEPS}")["steps"]
                turn = {
                    "seconds": sum(step["seconds"] for step in steps),
                    "tokens": sum(step["length"] for step in steps),
                }
                taken[size].append({**turn, **memory_mib(contenders[size].pid)})
        figures = {}
        for size, contender in contenders.items():
            figures[str(size)] = {"rounds": taken[size], "save_seconds": contender.order("end")["seconds"]}
            contender.order("end")
    return figures


def make_batches(sizes: Sequence[int], work: pathlib.Path) -> dict[str, float]:
    """Mean seconds to make a batch, for each size; the sizes take turns.

    No other part of a step can depend on the size of the corpus.
    """
    from trainer.tensorflow_setup import importing_tensorflow

    with importing_tensorflow():
        from trainer.data import cache_entry, corpus, input_pipeline, token_store

    batches, taken = {}, dict.fromkeys(sizes, 0.0)
    for size in sizes:
        cache_dir = str(cache_of(size, work))
        opened = corpus.open_corpus(name=make_corpus(size, work), data_dir=str(work), cache_dir=cache_dir)
        split, folder = f"train[:{size}]", cache_entry.folder_of(cache_dir)
        _, stores = token_store.prepare(corpus=opened, splits=[split], vocab_size=1000, cache_dir=folder)
        plan = input_pipeline.BatchPlan(lengths=stores[split].lengths, batch_size=64, seed=0)
        batches[size] = input_pipeline.train_batches(
            store=stores[split], plan=plan, max_length=0, first_step=0, last_step=BATCHES
        )
    for _ in range(BATCHES):
        for size in sizes:
            taken[size] += seconds(lambda size=size: next(batches[size]))
    return {str(size): total / BATCHES for size, total in taken.items()}


class _Figures:
    # The measured figures; written to a file if one is given.

    def __init__(self, path: pathlib.Path | None) -> None:
        self._path = path
        self.values: dict = {**machine(), "encode": {}, "start": {}, "steps": {}}
        if path and path.exists():
            self.values = json.loads(path.read_text())

    def keep(self) -> None:
        """Writes the figures so far."""
        if self._path:
            self._path.write_text(json.dumps(self.values, indent=2) + "\n")


def measure(figures: _Figures, sizes: Sequence[int], work: pathlib.Path, rounds: int) -> None:
    """Measures the figures that are missing."""
    values = figures.values
    for size in sizes:
        if str(size) not in values["encode"] or not cache_of(size, work).exists():
            values["encode"][str(size)] = encode(size, work)
            figures.keep()
    for number in range(-(-rounds // 2)):
        for size in sizes:
            if len(values["start"].setdefault(str(size), [])) <= number:
                values["start"][str(size)].append(start(size, work))
                figures.keep()
    if set(map(str, sizes)) - set(values["steps"]):
        values["steps"] = take_steps(sizes, work, rounds)
        figures.keep()
    if "batches" not in values:
        values["batches"] = make_batches(sizes, work)
        figures.keep()


def main() -> int:
    """Measures the figures that are missing, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=pathlib.Path, required=True, help="a folder for corpora and caches")
    parser.add_argument("--json", type=pathlib.Path, help="file for the figures; a second run adds to it")
    parser.add_argument("--sizes", default="25000,250000,2500000", help="training reviews")
    parser.add_argument("--rounds", type=int, default=10, help="turns of 50 steps; half as many starts")
    given = parser.parse_args()
    exit_on_sigterm()
    sizes = sorted(int(size) for size in given.sizes.split(","))
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    figures = _Figures(given.json)
    measure(figures, sizes, work, given.rounds)
    print(table(figures.values, sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
