"""Trains on damaged files: no traceback, no hang, and no row is lost without a word.

    python scripts/proof/fuzzed_files.py [--files=200] [--seed=0] [--work=FOLDER]

Each file is a csv, tsv or jsonl of single-line rows that is cut, spliced, re-encoded or compressed, or has
quotes put anywhere. The trainer reads it with --bad_rows=skip. It must end with 0, or with one sentence and
2; with 0, the rows that it trained on and those that it reports must be the lines of the file.
"""

import argparse
import bz2
import collections
import gzip
import json
import lzma
import pathlib
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from fork_server import PROGRAM, ForkServer

WORDS = [
    '"',
    'said "so"',
    '42"',
    "a,b",
    "x;y",
    "café",
    "the",
    "film",
    "was",
    "good",
    "bad",
    "plot",
    "\\n",
    "1",
]
ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252", "gb18030")
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
SMALL = [
    *("--embedding_dim=4", "--lstm_units=4", "--dense_units=4", "--vocab_size=100", "--batch_size=64"),
    "--ngram_buckets=1000",
    *("--validation_split=", "--test_split=", "--monitor=loss", "--epochs=1", "--bad_rows=skip"),
]
SECS = 120


def make(chance: random.Random, folder: pathlib.Path, number: int) -> tuple[pathlib.Path, str]:
    """Writes a file; returns its path and its text."""
    kind, encoding = chance.choice(("csv", "tsv", "jsonl")), chance.choice(ENCODINGS)
    rows = [
        (" ".join(chance.choices(WORDS, k=chance.randint(3, 12))), str(chance.randrange(2)))
        for _ in range(chance.randint(20, 60))
    ]
    if kind == "jsonl":
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
    elif kind == "tsv":
        lines = ["text\tlabel", *("\t".join(row) for row in rows)]
    else:
        quoted = [('"' + text.replace('"', '""') + '"', label) for text, label in rows]
        lines = ["text,label", *(",".join(row) for row in quoted)]
    for _ in range(chance.randrange(5)):
        at, damage = chance.randrange(1, len(lines)), chance.choice(("cut", "quote", "splice", "blank"))
        line = lines[at]
        place = chance.randrange(len(line) + 1)
        lines[at] = {
            "cut": line[:place],
            "quote": line[:place] + '"' + line[place:],
            "splice": line[:place] + chance.choice(lines[1:])[place:],
            "blank": "",
        }[damage]
    text = "\n".join(lines) + chance.choice(("\n", ""))
    suffix = chance.choice(tuple(COMPRESSIONS)) if chance.random() < 0.3 else ""
    content = COMPRESSIONS[suffix](text.encode(encoding))
    if chance.random() < 0.1:
        content = content[: chance.randrange(len(content))]
        text = ""  # what a cut leaves is only known to the reader
    path = folder / f"{number}.{kind}{suffix}"
    path.write_bytes(content)
    return path, text


def check(path: pathlib.Path, text: str, answer: subprocess.CompletedProcess) -> tuple[str, str]:
    """What came of a file, and what is wrong with that; empty: nothing."""
    if "Traceback" in answer.stderr or answer.returncode not in (0, 2):
        return "failed", answer.stderr[-500:]
    if answer.returncode == 2:
        errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
        return "refused", "" if len(errors) == 1 else answer.stderr[-500:]
    (trained,) = re.findall(r"^Reviews   (\d+) to train", answer.stderr, re.MULTILINE)
    skipped = sum(map(int, re.findall(r"^Left out  (\d+) of", answer.stderr, re.MULTILINE)))
    lines = [line for line in text.split("\n") if line.strip()]
    expected = len(lines) - (".jsonl" not in path.name)
    if text and int(trained) + skipped != expected:
        return (
            "lost rows",
            f"{expected} lines, {trained} trained and {skipped} reported: {answer.stderr[:800]}",
        )
    return "trained", ""


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=pathlib.Path)
    arguments = parser.parse_args()
    chance, outcomes = random.Random(arguments.seed), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as temporary, ForkServer() as server:
        folder = arguments.work or pathlib.Path(temporary)
        folder.mkdir(exist_ok=True)
        for number in range(arguments.files):
            path, text = make(chance, folder, number)
            command = [*PROGRAM, f"--workdir={folder}/run{number}", f"--dataset={path}", *SMALL]
            command.append(f"--cache_dir={folder}/cache")
            answer = server.run(command, capture_output=True, text=True, timeout=SECS)
            outcome, wrong = check(path, text, answer)
            outcomes[outcome] += 1
            if wrong:
                outcomes["wrong"] += 1
                print(f"{path.name}: {outcome}: {wrong}", flush=True)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    print(f"{arguments.files} files with --seed={arguments.seed}: {counts}")
    return int(outcomes["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
