"""Commands on run directories that another user has changed: none may harm other files, hang or crash."""

import os
import pathlib
import random
import shutil
import signal

from chaos_attacks import ATTACKS, Place, linked, replaced
from chaos_snapshots import Snapshot, snapshot, touched
from chaos_start import TINY_RUN, Answer, Case, Start, crowding, faults_of, limit_memory, start, wait_for_step

SECS, MORE_SECS, FRESH_SECS = 20.0, 5.0, 10.0
FLAGS = {
    "train": [*TINY_RUN, "--epochs=1", "--eval_every_steps=0"],
    "inspect": ["--mode=inspect"],
    "evaluate": ["--mode=evaluate"],
    "predict": ["--mode=predict", "--text=good"],
    "export": ["--mode=export"],
}
MODES = ["train"] * 5 + ["inspect"] * 6 + ["evaluate"] * 2 + ["predict"] * 3 + ["export"]
# This message is allowed only if an attack changed a size of the run: a long file must not exhaust the
# memory.
BLAMES_MEMORY = "The memory must hold"
SIZES = ("lstm_units", "batch_size", "embedding_dim", "vocab_size", "logical_devices", "10 GB")
OURS = ("run", "cache", "outside", "homes", "log.out", "log.err")
OTHER_LIBRARIES = ("HOME/.keras", "HOME/.config", "XDG_CACHE_HOME/matplotlib")


class Strangers:
    """Cases of attacks on copies of a finished run and of a killed one, each followed by a command."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "strangers"
        self.folder.mkdir()
        self.cache = self.folder / "cache"
        for name in ("finished", "halfway"):
            started = self._start("train", self.folder / name, self.cache, self.folder / "log")
            if name == "halfway":
                wait_for_step(started, self.folder / name, 4)
                started.send(signal.SIGKILL)
            answer = started.wait(3 * SECS)
            if answer.code not in (0, 128 + signal.SIGKILL):
                raise SystemExit(answer.err)
        exported = shutil.copytree(self.folder / "finished", self.folder / "exported")
        (exported / "export" / "saved_model" / "8").mkdir(parents=True)
        for name in ("saved_model/8/saved_model.pb", "model.keras"):
            (exported / "export" / name).write_text("an export")
        self._usual: dict[str, float] = {}

    def usual(self, mode: str) -> float:
        """The seconds that a mode takes on a run that was not attacked."""
        if mode not in self._usual:
            kind = "halfway" if mode == "train" else "finished"
            run = shutil.copytree(self.folder / kind, self.folder / mode)
            self._usual[mode] = self._start(mode, run, self.cache, self.folder / "log").wait(3 * SECS).seconds
        return self._usual[mode]

    def _start(
        self, mode: str, run: pathlib.Path, cache: pathlib.Path, log: pathlib.Path, **kwargs: object
    ) -> Start:
        argv = [*FLAGS[mode], f"--workdir={run}", *([f"--cache_dir={cache}"] if mode != "inspect" else [])]
        return start(argv, log=log, prepare=limit_memory, **kwargs)

    def _outside(self, folder: pathlib.Path) -> pathlib.Path:
        # Makes files outside the run: a text, another run, a cache, models in use, and an empty folder.
        outside = folder / "outside"
        for model in ("1", "15", "not a number"):
            (outside / "serving" / model).mkdir(parents=True)
            (outside / "serving" / model / "saved_model.pb").write_text("precious")
        (outside / "empty").mkdir()
        names = ("ckpt-1.index", "checkpoint.txt", ".x.tmp", "ckpt-9_temp")
        for path in (outside / "precious.txt", *(outside / "serving" / name for name in names)):
            path.write_text("text,label\nprecious,1\n")
        os.mkfifo(outside / "fifo")
        shutil.copytree(self.folder / "exported", outside / "run")
        shutil.copytree(self.cache, outside / "cache")
        return outside

    def one(self, number: int, folder: pathlib.Path) -> Case:
        """One or two attacks, then one command."""
        rng = random.Random(number)
        kind = rng.choice(("finished", "halfway", "exported"))
        run = pathlib.Path(shutil.copytree(self.folder / kind, folder / "run"))
        cache = pathlib.Path(shutil.copytree(self.cache, folder / "cache"))
        homes, place = folder / "homes", Place(run, self._outside(folder))
        for name in ("HOME/.keras", "TMPDIR", "XDG_CACHE_HOME", "cwd"):
            (homes / name).mkdir(parents=True)
        attacks = _attack(place, rng)
        mode, is_fresh = rng.choice(MODES), number % 40 == 3
        before, before_homes, links = snapshot(place.outside), _homes(homes), _links(place)
        environment = {name: str(homes / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
        where = {"environment": environment, "cwd": homes / "cwd", "is_fresh": is_fresh}
        answer = self._start(mode, run, cache, folder / "log", **where).wait(SECS)
        wrong = self._faults(answer, mode, " ".join(attacks), is_fresh=is_fresh)
        after = snapshot(place.outside)
        wrong += [f"outside: {change}" for change in _touched_outside(before, after, links)]
        wrong += touched(before_homes, _homes(homes))
        beside = [path.name for path in folder.iterdir() if path.name not in OURS]
        wrong += [f"{name} was made beside the run" for name in beside]
        last_line = answer.err.splitlines()[-1:]
        details = {"mode": mode, "attacks": attacks, "last_line": last_line, "took": answer.seconds}
        return {"outcome": f"{mode}: exit code {answer.code}", "cases": 1, **details, "wrong": wrong}

    def _faults(self, answer: Answer, mode: str, attacks: str, *, is_fresh: bool) -> list[str]:
        wrong = faults_of(answer, (0, 2, 3))
        usual = self.usual(mode) + FRESH_SECS * is_fresh
        slow = answer.code is not None and answer.seconds > (usual + MORE_SECS) * crowding()
        wrong += [f"{answer.seconds} s, usually {usual}"] if slow else []
        is_size = any(name in attacks for name in SIZES)
        return wrong + ["the memory is blamed"] * (BLAMES_MEMORY in answer.err and not is_size)


def _attack(place: Place, rng: random.Random) -> list[str]:
    # Returns what was done. Attacks that replace files come last, because the others read them.
    done = []
    attacks = rng.sample(ATTACKS, rng.choice((1, 1, 1, 2)))
    for attack in sorted(attacks, key=lambda attack: attack in (linked, replaced)):
        try:
            done.append(attack(place, rng))
        except (OSError, IndexError, ValueError, RuntimeError):
            continue  # the attack before has left nothing to attack
    return done


def _homes(homes: pathlib.Path) -> Snapshot:
    return {path: value for path, value in snapshot(homes).items() if not path.startswith(OTHER_LIBRARIES)}


def _links(place: Place) -> list[str]:
    # Returns the outside folders that the run links to: a user who makes such a link wants files there.
    links = [path for path in place.run.rglob("*") if path.is_symlink() and path.is_dir()]
    targets = [link.readlink() for link in links]
    inside = [target for target in targets if target.is_relative_to(place.outside)]
    return [str(target.relative_to(place.outside)) for target in inside]


def _touched_outside(before: Snapshot, after: Snapshot, links: list[str]) -> list[str]:
    # A linked folder may get new files, and TensorFlow's state file in it belongs to the run.
    state_files = tuple(f"{link}/checkpoint {what}" for link in links for what in ("was changed", "is gone"))
    return [what for what in touched(before, after, may_grow=links) if not what.startswith(state_files)]
