"""The long proof: thousands of kills, damaged files, hostile inputs, odd names and surroundings; resumable, appending to a report.

    python scripts/chaos.py --report=FILE [--only=PART] [--names=300] [--strangers=500] [--pipes=100] [--signals=100]
        [--environments=73] [--inputs=500] [--damages=200] [--kills=500]

Each case is derived from its number alone, so a case that failed can be done again: delete its line from the report. A case fails when a
run that was disturbed ends with another bit than its undisturbed twin, starts over in silence, hangs or shows a traceback; when a mistaken
command is answered by anything but one sentence and exit code 2; and when a file is touched that is none of the run's. Most cases start a
fork of this process, some a fresh interpreter; where the process itself is what is tried, all do.
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from kill_and_resume import ROOT, SMALL_RUN, differences, kill_and_resume, outcome, start, wait  # first: it imports TensorFlow quietly

# isort: split
from chaos_environments import CASES, Environments
from chaos_names import Names
from chaos_processes import Pipes, Signals
from chaos_strangers import Strangers
from tqdm import tqdm

KILLS_A_ROUND = 25
SHAPES = [
    [],
    ["--patience=1", "--eval_every_steps=10"],
    ["--max_to_keep=1", "--checkpoint_every_steps=1"],
    ["--validation_split=", "--monitor=loss", "--eval_every_steps=0"],
    ["--checkpoint_every_steps=0", "--checkpoint_every_secs=0.05", "--monitor=val_accuracy", "--clip_norm=1"],
    ["--batch_size=64", "--max_length=40", "--epochs=6", "--test_split="],
]


def kill_round(number: int, folder: pathlib.Path) -> dict:
    """Kills one run a number of times; the shape of the run, its seed and the signal follow from the number."""
    flags = [*SMALL_RUN, *SHAPES[number % len(SHAPES)], f"--seed={number}"]
    signum = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 5]
    seconds, wrong = kill_and_resume(kills=KILLS_A_ROUND, seed=number, signum=signum, flags=flags, folder=folder)
    phases = {name: [len(values), round(max(values), 2)] for name, values in seconds.items()}
    return {"outcome": signum.name, "cases": sum(map(len, seconds.values())), "phases": phases, "wrong": wrong}


def damage(path: pathlib.Path, rng: random.Random) -> str:
    """Damages one file, in ways that keep its size or not; returns how."""
    content = path.read_bytes()
    at = rng.randrange(max(1, len(content)))
    kind = rng.choice(["removed", "emptied", "cut", "lengthened", "replaced by a folder", "zeroed", "flipped"])
    if kind in ("removed", "replaced by a folder"):
        path.unlink()
        if kind != "removed":
            path.mkdir()
        return kind
    flipped = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :] if content else content
    wounds = {"emptied": b"", "cut": content[:at], "zeroed": bytes(len(content)), "flipped": flipped, "lengthened": content + b"\0garbage"}
    path.write_bytes(wounds[kind])
    return f"{kind} at {at}"


class Damages:
    """Damages copies of a run that was killed halfway, and of the encoded corpus, and starts it again."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.flags = [*SMALL_RUN, f"--cache_dir={folder / 'cache'}"]
        if any(wait(start(folder / "twin", self.flags, folder / "log"))):
            raise SystemExit((folder / "log").read_text())
        self.twin = outcome(folder / "twin")
        (process,) = start(folder / "halfway", self.flags, folder / "log")
        # Early enough: on some CPUs patience ends the run at step 80.
        while process.poll() is None and not list((folder / "halfway" / "checkpoints").glob("ckpt-4?.index")):
            time.sleep(0.001)
        process.kill()
        process.wait()
        shutil.copytree(folder / "cache", folder / "whole cache")

    def one(self, number: int, folder: pathlib.Path) -> dict:
        """Damages one file, or two, and runs the same command."""
        rng = random.Random(number)
        workdir = pathlib.Path(shutil.copytree(self.folder / "halfway", folder / "run"))
        shutil.rmtree(self.folder / "cache")
        shutil.copytree(self.folder / "whole cache", self.folder / "cache")
        stores = [path for path in (self.folder / "cache").rglob("*") if path.is_file() and "sample_reviews/1" not in str(path)]
        newest = max((workdir / "checkpoints").glob("*.index"), key=lambda path: int(path.stem.removeprefix("ckpt-"))).stem
        files = [path for path in workdir.rglob("*") if path.is_file()]
        groups = [
            [path for path in files if path.name.startswith(newest)],
            [path for path in files if path.parent.name in ("best", "checkpoints")],
            [path for path in files if path.name == "checkpoint"],
            [path for path in files if path.parent == workdir],
            [path for path in files if "events" in path.name],
            stores,
        ]
        hurt = {rng.choice(rng.choice(groups)) for _ in range(rng.choice((1, 1, 2)))}
        hurt = {path.name: damage(path, rng) for path in sorted(hurt)}
        before = {path.name for path in workdir.rglob(f"{newest}.*")}
        (code,) = wait(start(workdir, self.flags, folder / "log"), 120)
        said = (folder / "log").read_text()
        wrong = ["a traceback"] if "Traceback" in said else []
        if code == 0:
            points_too = not any("events" in name for name in hurt)
            wrong += [name for name in differences(self.twin, outcome(workdir)) if points_too or not name.startswith("points")]
            wrong += [] if "Resumed at step" in said else ["a silent start from nothing"]
        else:
            wrong += [] if code in (2, 3) and said.count("error: ") == 1 else [f"exit code {code}: {said}"]
            wrong += [f"{name} is gone" for name in before - {path.name for path in workdir.rglob("ckpt-*")}]
        return {"outcome": f"exit code {code}", "cases": 1, "hurt": hurt, "wrong": wrong, "said": said.splitlines()[-1] if code else ""}


NUMBERS = ["nan", "inf", "-inf", "1e400", "-1", "-1e-300", "", " ", "ten", "0x10", "1,0", "9" * 5000, "--1", "None", "[]"]
TEXTS = ["", " ", "nan", "no_such", "train[", "../../etc", "/dev/null", "a\nb", "\x7f\x1b[2J", "é" * 3000, "%s%n", "*", "'; --"]
FLAGFILES = {
    "binary": bytes(range(256)) * 40,
    "latin-1": "--workdir=é".encode("latin-1"),
    "utf-16": "--workdir=x".encode("utf-16"),
    "itself": b"--flagfile={file}\n",
    "no flags": b"hello\nworld\n",
    "unknown flag": b"# all is well\n--epoch=3\n",
    "long line": b"--sample_text=" + b"x" * 10**6 + b"\n--epochs=0\n",
    "NUL": b"--workdir=a\0b\n",
    "half a flag": b"--epochs",
    "a folder inside": b"--flagfile=/\n",
    "a device": b"--workdir=/dev/null\n",
}


def one_input(number: int, folder: pathlib.Path) -> dict:
    """Gives the trainer a command that it must refuse."""
    from trainer.config import FIELDS

    rng = random.Random(number)
    numeric = [name for name, field in FIELDS.items() if field.type in (int, float)]
    texts = ("monitor", "monitor_mode", "mode", "dataset", "on_nan")
    name = rng.choice(numeric)
    run = f"--workdir={folder / 'run'}"
    bad_number = [run, f"--{name}={rng.choice(NUMBERS)}"]
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("precious")
    (folder / "loop").symlink_to(folder / "loop")
    flagfile = folder / "bad.flags"
    kind = rng.choice(sorted(FLAGFILES))
    flagfile.write_bytes(FLAGFILES[kind].replace(b"{file}", bytes(flagfile)))
    places = (foreign, folder / "loop", "/proc/run", "/dev/null", "/dev/null/run", folder / ("n" * 300), "", foreign / "thesis.tex")
    command = rng.choice(
        [
            bad_number,
            [*bad_number, f"--{rng.choice(numeric)}={rng.choice(NUMBERS)}"],
            [run, f"--{rng.choice(texts)}={rng.choice(TEXTS)}"],
            [run, f"--{name[:-1]}x={rng.choice(NUMBERS)}"],
            [run, f"--{name}"],
            [run, rng.choice(TEXTS) or "stray"],
            [run, "--validation_split=", f"--monitor={rng.choice(('val_loss', 'val_accuracy'))}"],
            [run, "--validation_split=", "--monitor=loss", "--validation_steps=3"],
            [run, "--train_split="],
            [f"--workdir={rng.choice(places)}"],
            [f"--flagfile={flagfile}"],
            [run, f"--flagfile={rng.choice((folder, folder / 'missing', '/dev/null/x', folder / 'loop'))}"],
        ]
    )
    program = [sys.executable, "-m", "trainer.main", *command]
    answer = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    wrong = [] if answer.returncode == 2 else [f"exit code {answer.returncode}: {answer.stderr[-500:]}"]
    wrong += [] if answer.stderr.count("error: ") == 1 and answer.stderr.endswith("\n") else [f"not one sentence: {answer.stderr[-500:]}"]
    wrong += ["a traceback"] if "Traceback" in answer.stderr else []
    wrong += [] if [path.name for path in foreign.iterdir()] == ["thesis.tex"] else ["a foreign folder was touched"]
    return {"outcome": f"exit code {answer.returncode}", "cases": 1, "command": command, "wrong": wrong}


def read_report(report: pathlib.Path) -> list[dict]:
    """The cases that are done; a line torn by a kill does not count."""
    lines = report.read_text().splitlines() if report.exists() else []
    cases = []
    for line in lines:
        try:
            cases.append(json.loads(line))
        except ValueError:
            continue
    return cases


PARTS = {
    "names": (300, lambda place: Names(place).one),
    "strangers": (500, lambda place: Strangers(place).one),
    "pipes": (100, lambda place: Pipes(place).one),
    "signals": (100, lambda place: Signals(place).one),
    "environments": (len(CASES), lambda place: Environments(place).one),
    "inputs": (500, lambda place: one_input),
    # These use TensorFlow in this process; no fork may come after them.
    "damages": (200, lambda place: Damages(place).one),
    "kills": (500, lambda place: kill_round),
}


def main() -> int:
    """Does what the report lacks, and sums it up as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=pathlib.Path, required=True)
    parser.add_argument("--only", choices=PARTS)
    for part, (count, _) in PARTS.items():
        parser.add_argument(f"--{part}", type=int, default=count)
    given = parser.parse_args()
    tqdm.monitor_interval = 0  # its thread would be there when a fork is made
    done = {(case["part"], case["number"]) for case in read_report(given.report)}
    with tempfile.TemporaryDirectory() as place:
        for part, (_, make) in PARTS.items():
            count = getattr(given, part) if part != "kills" else -(-given.kills // KILLS_A_ROUND)
            left = [number for number in range(count) if (part, number) not in done and given.only in (None, part)]
            do = make(pathlib.Path(place)) if left else None
            for number in tqdm(left, unit=part[:-1], disable=None):
                folder = pathlib.Path(place, f"{part}-{number}")
                folder.mkdir()
                began = time.monotonic()
                case = {"part": part, "number": number, **do(number, folder), "seconds": round(time.monotonic() - began, 1)}
                shutil.rmtree(folder)
                with given.report.open("a") as file:
                    file.write(json.dumps(case) + "\n")
    table = collections.defaultdict(lambda: [0, 0])
    cases = read_report(given.report)
    for case in cases:
        row = table[case["part"], case["outcome"]]
        row[0] += case["cases"]
        row[1] += bool(case["wrong"])
    print("| part | outcome | cases | failures |\n| --- | --- | --- | --- |")
    for (part, result), (number, failures) in sorted(table.items()):
        print(f"| {part} | {result} | {number} | {failures} |")
    return any(case["wrong"] for case in cases)


if __name__ == "__main__":
    sys.exit(main())
