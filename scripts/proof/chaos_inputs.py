"""Invalid commands: each must be refused with one sentence and exit code 2, and change nothing."""

import pathlib
import random
import subprocess
import sys

from chaos_start import Case
from local_cluster import ROOT

from trainer.config import FIELDS

SECS = 120
_NUMBERS = [
    *("nan", "inf", "-inf", "1e400", "-1", "-1e-300", "", " ", "ten", "0x10", "1,0", "9" * 5000, "--1"),
    *("None", "[]"),
]
_TEXTS = [
    *("", " ", "nan", "no_such", "train[", "../../etc", "/dev/null", "a\nb", "\x7f\x1b[2J", "é" * 3000),
    *("%s%n", "*", "'; --"),
]
_FLAGFILES = {
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


def one_input(number: int, folder: pathlib.Path) -> Case:
    """Gives the trainer a command that it must refuse."""
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("precious")
    (folder / "loop").symlink_to(folder / "loop")
    command = _mistake(random.Random(number), folder)
    answer = subprocess.run(
        [sys.executable, "-m", "trainer.main", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECS,
        check=False,
    )
    wrong, error = [], answer.stderr
    if answer.returncode != 2:
        wrong.append(f"exit code {answer.returncode}: {error[-500:]}")
    if error.count("error: ") != 1 or not error.endswith("\n"):
        wrong.append(f"not one sentence: {error[-500:]}")
    if "Traceback" in error:
        wrong.append("a traceback")
    if [path.name for path in foreign.iterdir()] != ["thesis.tex"]:
        wrong.append("a foreign folder was touched")
    return {"outcome": f"exit code {answer.returncode}", "cases": 1, "command": command, "wrong": wrong}


def _mistake(rng: random.Random, folder: pathlib.Path) -> list[str]:
    numeric = [name for name, field in FIELDS.items() if field.type in (int, float)]
    texts = ("monitor", "monitor_mode", "mode", "dataset", "on_nan")
    name = rng.choice(numeric)
    run = f"--workdir={folder / 'run'}"
    bad_number = [run, f"--{name}={rng.choice(_NUMBERS)}"]
    flagfile = _write_flagfile(rng, folder / "bad.flags")
    foreign, loop = folder / "foreign", folder / "loop"
    devices = ("/proc/run", "/dev/null", "/dev/null/run")
    places = (foreign, loop, *devices, folder / ("n" * 300), "", foreign / "thesis.tex")
    return rng.choice(
        [
            bad_number,
            [*bad_number, f"--{rng.choice(numeric)}={rng.choice(_NUMBERS)}"],
            [run, f"--{rng.choice(texts)}={rng.choice(_TEXTS)}"],
            [run, f"--{name[:-1]}x={rng.choice(_NUMBERS)}"],
            [run, f"--{name}"],
            [run, rng.choice(_TEXTS) or "stray"],
            [run, "--validation_split=", f"--monitor={rng.choice(('val_loss', 'val_accuracy'))}"],
            [run, "--validation_split=", "--monitor=loss", "--validation_steps=3"],
            [run, "--train_split="],
            [f"--workdir={rng.choice(places)}"],
            [f"--flagfile={flagfile}"],
            [run, f"--flagfile={rng.choice((folder, folder / 'missing', '/dev/null/x', loop))}"],
        ]
    )


def _write_flagfile(rng: random.Random, path: pathlib.Path) -> pathlib.Path:
    kind = rng.choice(sorted(_FLAGFILES))
    path.write_bytes(_FLAGFILES[kind].replace(b"{file}", bytes(path)))
    return path
