"""Damaged files in a killed run and in the encoded corpus: the run must resume exactly or be refused."""

import pathlib
import random
import shutil
import time

from chaos_start import Case
from compare_runs import differences, newest_checkpoint, outcome
from kill_and_resume import SMALL_RUN, start, wait

SECS = 120
_HALFWAY = "ckpt-4?.index"  # early enough: on some CPUs patience ends the run at step 80


def damage(path: pathlib.Path, rng: random.Random) -> str:
    """Damages one file, with or without a change of its size; returns how."""
    content = path.read_bytes()
    at = rng.randrange(max(1, len(content)))
    kinds = ("removed", "emptied", "cut", "lengthened", "replaced by a folder", "zeroed", "flipped")
    kind = rng.choice(kinds)
    if kind in ("removed", "replaced by a folder"):
        path.unlink()
        if kind != "removed":
            path.mkdir()
        return kind
    bit = 1 << rng.randrange(8) if content else 0
    match kind:
        case "emptied":
            damaged = b""
        case "cut":
            damaged = content[:at]
        case "lengthened":
            damaged = content + b"\0garbage"
        case "zeroed":
            damaged = bytes(len(content))
        case "flipped":
            damaged = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :] if content else content
    path.write_bytes(damaged)
    return f"{kind} at {at}"


class Damages:
    """Damages copies of a run that was killed halfway, and of the encoded corpus, and resumes the run."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.flags = [*SMALL_RUN, f"--cache_dir={folder / 'cache'}"]
        log = folder / "log"
        if any(wait(start(folder / "reference", self.flags, log))):
            raise SystemExit(log.read_text())
        self.reference = outcome(folder / "reference")
        (process,) = start(folder / "halfway", self.flags, log)
        while process.poll() is None and not list((folder / "halfway" / "checkpoints").glob(_HALFWAY)):
            time.sleep(0.001)
        process.kill()
        process.wait()
        shutil.copytree(folder / "cache", folder / "whole cache")

    def one(self, number: int, folder: pathlib.Path) -> Case:
        """Damages one file, or two, and runs the same command."""
        rng = random.Random(number)
        workdir = pathlib.Path(shutil.copytree(self.folder / "halfway", folder / "run"))
        shutil.rmtree(self.folder / "cache")
        shutil.copytree(self.folder / "whole cache", self.folder / "cache")
        groups = self._groups(workdir)
        chosen = {rng.choice(rng.choice(groups)) for _ in range(rng.choice((1, 1, 2)))}
        damaged = {path.name: damage(path, rng) for path in sorted(chosen)}
        newest = newest_checkpoint(self.folder / "halfway").name
        before = {path.name for path in workdir.rglob(f"{newest}.*")}
        (process,) = start(workdir, self.flags, folder / "log")
        try:
            (code,) = wait([process], SECS)
        finally:
            process.kill()
        output = (folder / "log").read_text()
        wrong = ["a traceback"] if "Traceback" in output else []
        if code == 0:
            compares_points = not any("events" in name for name in damaged)
            different = differences(self.reference, outcome(workdir))
            wrong += [name for name in different if compares_points or not name.startswith("points")]
            wrong += [] if "Resumed at step" in output else ["silently started over"]
        else:
            is_error = code in (2, 3) and output.count("error: ") == 1
            wrong += [] if is_error else [f"exit code {code}: {output}"]
            wrong += [f"{name} is gone" for name in before - {path.name for path in workdir.rglob("ckpt-*")}]
        last_line = output.splitlines()[-1] if code else ""
        details = {"damage": damaged, "last_line": last_line}
        return {"outcome": f"exit code {code}", "cases": 1, **details, "wrong": wrong}

    def _groups(self, workdir: pathlib.Path) -> list[list[pathlib.Path]]:
        # The files that may be damaged; each group is as likely as any other.
        newest = newest_checkpoint(workdir).name
        files = [path for path in workdir.rglob("*") if path.is_file()]
        cached = [path for path in (self.folder / "cache").rglob("*") if path.is_file()]
        return [
            [path for path in files if path.name.startswith(newest)],
            [path for path in files if path.parent.name in ("best", "checkpoints")],
            [path for path in files if path.name == "checkpoint"],
            [path for path in files if path.parent == workdir],
            [path for path in files if "events" in path.name],
            [path for path in cached if "sample_reviews/1" not in str(path)],
        ]
