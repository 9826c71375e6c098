"""Runs, reviews, caches and outputs with names that look like patterns or flags, next to matching files."""

import json
import pathlib
import random
import re
import shutil
import signal
from typing import NamedTuple

from chaos_snapshots import snapshot, touched
from chaos_start import TINY_RUN, Answer, Case, Start, faults_of, outcome_of, start, steps_of, wait_for_step
from compare_runs import differences

PRINTABLE = [character for character in map(chr, range(32, 127)) if character != "/"]
ODD = [
    *("imdb [final]", "sib*", "s?b", "back\\slash", "{a,b}", "%s", "%(step)d", "$HOME"),
    *("${HOME}", "it's", '"quoted"', " before", "after ", " ", "-dash", "--mode=export", "-"),
    *("~", "~root", "#1", "a:b", "gs:", "csv:x", "ckpt-5.index", "ckpt-24", "checkpoint"),
    *("checkpoints", "best", "*", "**", "?", "[!a]", "[a-z]*", "[a", "a]", "[]]", "\\*", "\\"),
    *("a\\", "a=b", "%2F", "`ls`", "$(ls)", "a;b", "a|b", "a&b", "<a>", "...", ".hidden"),
    *("e\u0301", "\xe9", "\u05e9\u05dc\u05d5\u05dd", "\U0001f3ac film", "\u0130stanbul"),
    *("new.model.keras", "saved_model", "ckpt-1_temp", "events.out.tfevents.1", "train@2"),
    *("None", "nan", "0", "x" * 200),
]
SECS = 60
FEW = ["--epochs=1", "--eval_every_steps=0"]


def odd_name(number: int, rng: random.Random) -> str:
    """A name; over 300 numbers every printable ASCII character occurs."""
    if number % 2:
        return ODD[number // 2 % len(ODD)]
    must = PRINTABLE[number // 2 % len(PRINTABLE)]
    rest = rng.choices([*PRINTABLE, *"*?[]\\{}"], k=rng.randrange(8))
    rest.insert(rng.randint(0, len(rest)), must)
    name = "".join(rest)
    return f"{name}." + "x" if set(name) == {"."} else name


def matched_by(name: str) -> list[str]:
    """Names that `name` matches if it is read as a pattern, and a name for `*` alone."""

    def one_of(match: re.Match) -> str:
        inside = match.group(1)
        return "~" if inside.startswith(("!", "^")) else inside[0]

    glob = re.sub(r"\[(.[^\]]*)\]", one_of, name).replace("?", "y")
    brace = re.search(r"\{([^{},]*),([^{}]*)\}", name)
    names = [name.replace(brace.group(0), part) for part in brace.groups()] if brace else []
    names += [
        glob.replace("*", "1"),
        name.replace("\\", ""),
        glob.replace("*", ""),
        f"{name}1",
        name[:-1],
        "1",
    ]
    names = dict.fromkeys(each[:200] for each in names)
    return [each for each in names if each not in ("", ".", "..", name)][:4]


def relative_name(path: pathlib.Path, base: pathlib.Path) -> str:
    """A path relative to `base`, for a command line; ./ precedes a ~, which would mean the home folder."""
    name = str(path.relative_to(base))
    return f"./{name}" if name.startswith("~") else name


class _Place(NamedTuple):
    # The paths of a case, and how it starts the trainer.
    rng: random.Random
    base: pathlib.Path  # the working directory
    run: pathlib.Path  # the run directory, in `base`
    log: pathlib.Path
    is_relative: bool  # whether flags give paths relative to `base`
    is_fresh: bool  # whether the trainer is started in a new interpreter

    def given(self, path: pathlib.Path) -> str:
        """The path as it is written in a flag."""
        return relative_name(path, self.base) if self.is_relative else str(path)

    def beside(self, suffix: str) -> pathlib.Path:
        """A path next to the run directory."""
        return self.base / f"{self.run.name}.{suffix}"

    def start(self, argv: list[str]) -> Start:
        """Starts the trainer in `base`."""
        return start(argv, log=self.log, cwd=self.base, is_fresh=self.is_fresh)


class Names:
    """Cases of a new run, killed and resumed; a damaged run; a run that is read; or used by another."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "names"
        self.folder.mkdir()
        self.cache = self.folder / "cache"
        self.reviews = self.folder / "reviews.csv"
        words = ["good", "bad", "fine", "dull", "great", "poor", "film", "plot"]
        rows = [f"{' '.join(words[i % 8 :])} {words[i * 3 % 8]},{('neg', 'pos')[i % 2]}\n" for i in range(60)]
        self.reviews.write_text("text,label\n" + "".join(rows))
        self.kept = self._run("kept", "--max_to_keep=100")
        references = {keep: self._run(f"reference{keep}", f"--max_to_keep={keep}") for keep in (1, 3)}
        self.references = {keep: outcome_of(run) for keep, run in references.items()}
        self.halfway = self._halfway()
        self.warm_started = outcome_of(self._run("warm-start", *FEW, f"--init_from={self.kept}"))
        self.own = self._learned(self._run("own", *self._own_dataset(self.reviews)))
        _, self.figures = self._evaluate(
            self.kept, self.folder / "plain.json", self.reviews, self.folder / "log", self.folder
        )

    def _run(self, name: str, *flags: str) -> pathlib.Path:
        workdir = self.folder / name
        argv = [*TINY_RUN, f"--cache_dir={self.cache}", f"--workdir={workdir}", *flags]
        answer = start(argv, log=self.folder / name).wait(SECS)
        if answer.code:
            raise SystemExit(answer.err)
        return workdir

    def _halfway(self) -> pathlib.Path:
        workdir = self.folder / "halfway"
        argv = [*TINY_RUN, f"--cache_dir={self.cache}", f"--workdir={workdir}"]
        started = start(argv, log=self.folder / "log")
        wait_for_step(started, workdir, 8)
        started.send(signal.SIGKILL)
        started.wait(SECS)
        return workdir

    def _own_dataset(self, reviews: str) -> list[str]:
        splits = [f"--{use}_split={use}" for use in ("train", "validation", "test")]
        return [f"--dataset=csv:{reviews}", *splits, *FEW]

    def _learned(self, workdir: pathlib.Path) -> dict[str, object]:
        state = outcome_of(workdir)["state"]
        return {name: value for name, value in state.items() if name.startswith(("model", "optimizer"))}

    def one(self, number: int, folder: pathlib.Path) -> Case:
        """Runs one case, with one or more odd names in the path; every third path is relative."""
        rng = random.Random(number)
        name = odd_name(number, rng)
        above = [odd_name(rng.randrange(10**4), rng)[:60] for _ in range(rng.choice((0, 0, 1, 2)))]
        base = folder.joinpath("place", *above)
        base.mkdir(parents=True)
        siblings = matched_by(name)
        for sibling in siblings:
            shutil.copytree(self.kept, base / sibling)
        (base / "plain file").write_text("precious")
        before = snapshot(base)
        place = _Place(rng, base, base / name, folder / "log", number % 3 == 0, number % 25 == 7)
        way = (self._new, self._damaged, self._readers, self._users)[number // 2 % 4]
        try:
            wrong = way(place)
        except (RuntimeError, OSError, ValueError) as error:
            wrong = [f"no outcome: {str(error)[-500:]}"]
        suffixes = ("", ".cache", ".csv", ".json", ".txt", ".new")
        ours = {f"{name}{suffix}" for suffix in suffixes} - {*siblings, "plain file"}
        after = {path: value for path, value in snapshot(base).items() if path.split("/")[0] not in ours}
        wrong += touched(before, after)
        details = {"name": name, "siblings": siblings, "relative": place.is_relative}
        return {"outcome": way.__name__.strip("_"), "cases": 1, **details, "wrong": wrong}

    def _new(self, place: _Place) -> list[str]:
        # A new run, killed once and resumed.
        keep, cache = place.rng.choice((1, 3)), place.beside("cache")
        shutil.copytree(self.cache, cache)
        directories = [f"--cache_dir={place.given(cache)}", f"--workdir={place.given(place.run)}"]
        argv = [*TINY_RUN, f"--max_to_keep={keep}", *directories]
        signum = place.rng.choice((signal.SIGTERM, signal.SIGKILL))
        started = place.start(argv)
        wait_for_step(started, place.run, place.rng.randrange(1, 20))
        started.send(signum)
        wrong = faults_of(started.wait(SECS), (0, 128 + signum))
        wrong += [] if wrong else faults_of(place.start(argv).wait(SECS), (0,))
        return wrong or differences(self.references[keep], outcome_of(place.run))

    def _damaged(self, place: _Place) -> list[str]:
        # A run whose newest checkpoint may be damaged: if so it must be moved to quarantine/, else used.
        shutil.copytree(self.halfway, place.run)
        newest, is_damaged = f"ckpt-{steps_of(place.run)[-1]}", place.rng.random() < 0.6
        if is_damaged:
            path = place.run / "checkpoints" / f"{newest}.data-00000-of-00001"
            path.write_bytes(path.read_bytes()[:-40])
        directories = [f"--cache_dir={self.cache}", f"--workdir={place.given(place.run)}"]
        answer = place.start([*TINY_RUN, "--max_to_keep=1", *directories]).wait(SECS)
        wrong = faults_of(answer, (0,))
        quarantined = (place.run / "quarantine").rglob("*")
        kept = [path for path in quarantined if path.name.startswith(f"{newest}.")]
        if bool(kept) != is_damaged:
            wrong.append(
                "a valid checkpoint is in quarantine" if kept else "the damaged one is not in quarantine"
            )
        return wrong or differences(self.references[1], outcome_of(place.run))

    def _readers(self, place: _Place) -> list[str]:
        # Modes that read a run: inspect, and evaluate or predict.
        shutil.copytree(self.kept, place.run)
        before = snapshot(place.run)
        table, texts, output = (place.beside(kind) for kind in ("csv", "txt", "json"))
        shutil.copy(self.reviews, table)
        texts.write_text("a good film\n")
        run, output_name = place.given(place.run), place.given(output)
        answer = place.start(["--mode=inspect", f"--workdir={run}"]).wait(SECS)
        wrong = faults_of(answer, (0,)) + ["inspect reports damage"] * (answer.out.count("verified") < 24)
        latest = f"--checkpoint={place.given(place.run / 'checkpoints' / 'ckpt-24')}"
        which = place.rng.choice((latest, "--checkpoint=best"))
        if place.rng.random() < 0.5:
            answer, figures = self._evaluate(run, output_name, place.given(table), place.log, place.base)
            wrong += faults_of(answer, (0,))
            wrong += ["other figures than in a plain place"] * (figures != self.figures)
        else:
            paths = [f"--workdir={run}", f"--input={place.given(texts)}", f"--output={output_name}"]
            wrong += faults_of(place.start(["--mode=predict", *paths, which]).wait(SECS), (0,))
            wrong += [] if output.exists() else ["no output was written"]
        return wrong + touched(before, snapshot(place.run))

    def _evaluate(
        self,
        run: pathlib.Path,
        output: pathlib.Path,
        reviews: pathlib.Path,
        log: pathlib.Path,
        cwd: pathlib.Path,
    ) -> tuple[Answer, dict[str, float]]:
        argv = ["--mode=evaluate", f"--workdir={run}", f"--input={reviews}", f"--output={output}"]
        answer = start(argv, log=log, cwd=cwd).wait(SECS)
        path = cwd / output
        figures = json.loads(path.read_text()) if path.exists() else {}
        return answer, {name: value for name, value in figures.items() if isinstance(value, float | int)}

    def _users(self, place: _Place) -> list[str]:
        # Uses of such a name by other commands: an export, a warm start, training on reviews with that name.
        new, table = place.beside("new"), place.beside("csv")
        way = place.rng.choice(("export", "init_from", "own reviews"))
        if way == "own reviews":
            shutil.copy(self.reviews, table)
            flags = self._own_dataset(place.given(table))
        else:
            shutil.copytree(self.kept, place.run)
            flags = [*FEW, f"--init_from={place.given(place.run)}"]
        argv = [*TINY_RUN, f"--cache_dir={self.cache}", *flags, f"--workdir={place.given(new)}"]
        argv = ["--mode=export", f"--workdir={place.given(place.run)}"] if way == "export" else argv
        wrong = faults_of(place.start(argv).wait(SECS), (0,))
        if wrong or way == "export":
            is_exported = (place.run / "export" / "model.keras").exists()
            return wrong or ["nothing was exported"] * (not is_exported)
        if way == "init_from":
            return differences(self.warm_started, outcome_of(new))
        return differences(self.own, self._learned(new))
