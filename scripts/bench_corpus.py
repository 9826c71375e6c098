"""How the cost of everything but training grows with the corpus: IMDB as it is, 10 and 100 times over.

    TFDS_DATA_DIR=... python scripts/bench_corpus.py --work=FOLDER [--json=FILE] [--sizes=25000,250000,2500000] [--rounds=10]

Half an hour and 9 GB. FOLDER keeps the corpora and what is encoded of them, so that a second run is short; the figures that FILE holds
already are not measured again. Without IMDB, the reviews are those of sample_reviews.

Reading, counting and encoding are those of a real start on nothing but the corpus; starts are real processes with everything cached. Starts
and steps of all sizes take turns, so that a machine that slows down slows all of them. Steps are compared by padded token, because
batches differ in length.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from bench import PROGRAM, ROOT, Contender, machine, spread
from tqdm import tqdm

STEPS = 50  # of a turn
BATCHES = 1000


def make_corpus(size: int, work: pathlib.Path) -> str:
    """Makes a dataset of `size` training reviews or some more, by copying the files of another; returns its name."""
    name = f"reviews_{size}"
    if (work / name).exists():
        return name
    from trainer.main import importing_tensorflow

    with importing_tensorflow():
        from trainer.data import tfds_builder
        from trainer.data.corpus import open_corpus

    source = "imdb_reviews" if os.environ.get("TFDS_DATA_DIR") else tfds_builder.SAMPLE_REVIEWS
    open_corpus(name=source, data_dir=None, cache_dir=str(work))  # prepares it
    prepared = tfds_builder.Folder(tfds_builder.path_of_prepared(source, None, str(work)))
    builder = tfds_builder.make_builder(source, prepared)
    copies = {"train": -(-size // builder.info.splits["train"].num_examples), "test": 1}
    folder = work / f"{name}.tmp" / str(builder.version)
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(pathlib.Path(builder.data_dir) / "features.json", folder)
    info = json.loads((pathlib.Path(builder.data_dir) / "dataset_info.json").read_text())
    info = {key: info[key] for key in ("citation", "description", "fileFormat", "version", "splits")} | {"name": name}
    info["splits"] = [split for split in info["splits"] if split["name"] in copies]
    for split in info["splits"]:
        shards = [pathlib.Path(path) for path in builder.info.splits[split["name"]].filepaths] * copies[split["name"]]
        split["shardLengths"] *= copies[split["name"]]
        split["numBytes"] = str(int(split["numBytes"]) * copies[split["name"]])
        for number, shard in enumerate(tqdm(shards, desc=f"{name} {split['name']}", disable=None, leave=False)):
            shutil.copyfile(shard, folder / f"{name}-{split['name']}.tfrecord-{number:05}-of-{len(shards):05}")
    (folder / "dataset_info.json").write_text(json.dumps(info))
    folder.parent.rename(work / name)
    return name


def flags_of(size: int, work: pathlib.Path) -> list[str]:
    """The flags that train on the corpus of a size."""
    splits = [f"--train_split=train[:{size}]", "--validation_split=test", "--test_split=test", "--validation_steps=30"]
    return [f"--dataset={make_corpus(size, work)}", f"--data_dir={work}", *splits]


def cache_of(size: int, work: pathlib.Path) -> pathlib.Path:
    """Where the encoded corpus of a size lies."""
    return work / f"cache_{size}"


def encode(size: int, work: pathlib.Path) -> dict:
    """Starts on a corpus that is not encoded: how fast it is counted and encoded, in how much memory, and what lies on the disk then."""
    cache, run = cache_of(size, work), work / "run"
    flags = flags_of(size, work)
    shutil.rmtree(cache, ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)
    at, peak = {}, {}
    said = {
        "count": "Counting ",
        "encode": "Encoding the tokens of .* train",
        "encode_test": "Encoding the tokens of .* test",
        "end": "Batches ",
    }
    command = [*PROGRAM, *flags, f"--workdir={run}", f"--cache_dir={cache}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            for name, words in said.items():
                if re.match(words, line):
                    at[name], peak[name] = time.perf_counter(), memory_mib(process.pid)["VmHWM"]
            if "end" in at:
                break
        process.kill()
    store = next(cache.glob(f"*/train*{size}*"))
    return {
        "counted_per_second": size / (at["encode"] - at["count"]),
        "encoded_per_second": size / (at["encode_test"] - at["encode"]),
        "peak_mib_before": peak["count"],
        "peak_mib_counting": peak["encode"],
        "peak_mib_encoding": peak["encode_test"],
        "store_bytes": sum(path.stat().st_size for path in store.iterdir()),
        "text_bytes": sum(path.stat().st_size for path in (work / f"reviews_{size}").rglob("*-train.*")),
        "manifest": json.loads((store / "manifest.json").read_text()),
    }


def memory_mib(pid: int) -> dict[str, float]:
    """What the kernel says of a process' memory, in MiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {name: int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024 for name in ("VmHWM", "RssAnon", "RssFile")}


def start(size: int, work: pathlib.Path) -> dict:
    """Seconds from a process' start to its first step, of a new run and of one that resumes, and how large its checkpoint is."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [*PROGRAM, *flags_of(size, work), f"--workdir={run}", f"--cache_dir={cache_of(size, work)}", "--log_every_steps=1"]
    seconds = {}
    for kind in ("new", "resumed"):
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            next(line for line in process.stderr if line.startswith("train "))
            seconds[kind] = time.perf_counter() - began
            process.send_signal(signal.SIGTERM)
            process.communicate()
    newest = max((run / "checkpoints").glob("ckpt-*.index"), key=lambda path: path.stat().st_mtime)
    return {**seconds, "save_bytes": sum(path.stat().st_size for path in newest.parent.glob(f"{newest.stem}.*"))}


def take_steps(sizes: Sequence[int], work: pathlib.Path, rounds: int) -> dict[str, dict]:
    """Steps of all sizes in turns, the memory after each turn, and saves."""
    contenders = {size: Contender("ours", str(cache_of(size, work)), *flags_of(size, work)) for size in sizes}
    for contender in contenders.values():
        contender.order(f"train {STEPS}")
    taken: dict[int, list] = {size: [] for size in sizes}
    for number in tqdm(range(rounds), desc="Steps", disable=None):
        for size in list(sizes)[:: (-1) ** number]:
            steps = contenders[size].order(f"train {STEPS}")["steps"]
            tokens = sum(step["length"] for step in steps)
            seconds = sum(step["seconds"] for step in steps)
            taken[size].append({"seconds": seconds, "tokens": tokens, **memory_mib(contenders[size].pid)})
    figures = {}
    for size, contender in contenders.items():
        figures[str(size)] = {"rounds": taken[size], "save_seconds": contender.order("end")["seconds"]}
        contender.order("end")
    return figures


def make_batches(sizes: Sequence[int], work: pathlib.Path) -> dict[str, float]:
    """Seconds, on average, in which a batch is made: all of a step that can depend on the size of the corpus. The sizes take turns."""
    from trainer.main import importing_tensorflow

    with importing_tensorflow():
        from trainer.data import input_pipeline, token_store
        from trainer.data.corpus import open_corpus

    batches, seconds = {}, dict.fromkeys(sizes, 0.0)
    for size in sizes:
        corpus = open_corpus(name=make_corpus(size, work), data_dir=str(work), cache_dir=str(cache_of(size, work)))
        split, folder = f"train[:{size}]", token_store.folder_of(str(cache_of(size, work)))
        _, stores = token_store.prepare(corpus=corpus, splits=[split], vocab_size=1000, cache_dir=folder)
        plan = input_pipeline.BatchPlan(lengths=stores[split].lengths, batch_size=64, seed=0)
        batches[size] = input_pipeline.train_batches(store=stores[split], plan=plan, max_length=0, first_step=0, last_step=BATCHES)
    for _ in range(BATCHES):
        for size in sizes:
            began = time.perf_counter()
            next(batches[size])
            seconds[size] += time.perf_counter() - began
    return {str(size): total / BATCHES for size, total in seconds.items()}


def relative_steps(steps: dict[str, dict], size: int, base: int) -> list[float]:
    """Round by round, how long a step per padded token takes, over that of the smallest corpus in the same round."""
    paces = [[turn["seconds"] / turn["tokens"] for turn in steps[str(of)]["rounds"]] for of in (size, base)]
    return [one / other for one, other in zip(*paces, strict=True)]


def table(figures: dict, sizes: Sequence[int]) -> str:
    """The figures in Markdown."""
    encoded, starts, steps = (figures[part] for part in ("encode", "start", "steps"))

    def row(name: str, cell: Callable[[int], str]) -> str:
        return f"| {name} | {' | '.join(cell(size) for size in sizes)} |"

    def of_start(name: str) -> Callable[[int], str]:
        return lambda size: spread([start[name] for start in starts[str(size)]])

    def ratio(size: int) -> str:
        values = relative_steps(steps, size, sizes[0])
        return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"

    def pace(size: int) -> float:
        return 1000 * sum(turn["seconds"] for turn in steps[str(size)]["rounds"]) / STEPS / len(steps[str(size)]["rounds"])

    def of_turns(name: str) -> Callable[[int], str]:
        return lambda size: spread([turn[name] for turn in steps[str(size)]["rounds"]])

    def of_encode(form: str) -> Callable[[int], str]:
        return lambda size: form.format(**encoded[str(size)])

    rows = [
        row("counted, reviews a second", of_encode("{counted_per_second:,.0f}")),
        row("encoded, reviews a second", of_encode("{encoded_per_second:,.0f}")),
        row(
            "peak memory: before, counting, encoding, MiB",
            of_encode("{peak_mib_before:.0f}, {peak_mib_counting:.0f}, {peak_mib_encoding:.0f}"),
        ),
        row("text on disk, MB", lambda size: f"{encoded[str(size)]['text_bytes'] / 1e6:,.0f}"),
        row("store on disk, MB", lambda size: f"{encoded[str(size)]['store_bytes'] / 1e6:,.1f}"),
        row("store, bytes a review", lambda size: f"{encoded[str(size)]['store_bytes'] / size:.0f}"),
        row("start to first step, s", of_start("new")),
        row("resumed to first step, s", of_start("resumed")),
        row("a step, ms", lambda size: f"{pace(size):.1f}"),
        row("steps a second", lambda size: f"{1000 / pace(size):.1f}"),
        row("a batch is made in, ms", lambda size: f"{1000 * figures['batches'][str(size)]:.2f}"),
        row(f"a step by padded token, over that of {sizes[0]:,}", ratio),
        row("resident memory, anonymous, MiB", of_turns("RssAnon")),
        row("resident memory, of files, MiB", of_turns("RssFile")),
        row("a save, ms", lambda size: f"{1000 * steps[str(size)]['save_seconds']:.0f}"),
        row("a save, bytes", lambda size: f"{starts[str(size)][0]['save_bytes']:,}"),
    ]
    head = [f"{figures['cpu']}, {figures['cores']} cores, {figures['date']}; median (least-most)", ""]
    return "\n".join([*head, row("reviews", lambda size: f"{size:,}"), "| --- " * (len(sizes) + 1) + "|", *rows])


def main() -> int:
    """Measures what is not measured yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="a folder for corpora and caches; they are kept")
    parser.add_argument("--json", type=pathlib.Path, help="where the figures are written, and read by a run that goes on")
    parser.add_argument("--sizes", default="25000,250000,2500000")
    parser.add_argument("--rounds", type=int, default=10, help="turns of 50 steps of each size; half as many starts")
    given = parser.parse_args()
    sizes = sorted(int(size) for size in given.sizes.split(","))
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    figures = {**machine(), "encode": {}, "start": {}, "steps": {}}
    if given.json and given.json.exists():
        figures = json.loads(given.json.read_text())

    def keep() -> None:
        if given.json:
            given.json.write_text(json.dumps(figures, indent=2) + "\n")

    for size in sizes:
        if str(size) not in figures["encode"] or not cache_of(size, work).exists():
            figures["encode"][str(size)] = encode(size, work)
            keep()
    for number in range(-(-given.rounds // 2)):
        for size in sizes:
            if len(figures["start"].setdefault(str(size), [])) <= number:
                figures["start"][str(size)].append(start(size, work))
                keep()
    if set(map(str, sizes)) - set(figures["steps"]):
        figures["steps"] = take_steps(sizes, work, given.rounds)
        keep()
    if "batches" not in figures:
        figures["batches"] = make_batches(sizes, work)
        keep()
    print(table(figures, sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
