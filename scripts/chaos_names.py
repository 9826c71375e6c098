"""Runs, reviews, caches and answers with names that are patterns or flags, beside siblings they match."""

import json
import pathlib
import random
import re
import shutil
import signal

from chaos_start import (
    TINY_RUN,
    Answer,
    faults_of,
    outcome_of,
    snapshot,
    start,
    steps_of,
    touched,
    wait_for_step,
)
from kill_and_resume import differences

PRINTABLE = [character for character in map(chr, range(32, 127)) if character != "/"]
ODD = [
    *(
        "imdb [final]",
        "sib*",
        "s?b",
        "back\\slash",
        "{a,b}",
        "%s",
        "%(step)d",
        "$HOME",
        "${HOME}",
        "it's",
        '"quoted"',
        " before",
    ),
    *(
        "after ",
        " ",
        "-dash",
        "--mode=export",
        "-",
        "~",
        "~root",
        "#1",
        "a:b",
        "gs:",
        "csv:x",
        "ckpt-5.index",
        "ckpt-24",
        "checkpoint",
    ),
    *(
        "checkpoints",
        "best",
        "*",
        "**",
        "?",
        "[!a]",
        "[a-z]*",
        "[a",
        "a]",
        "[]]",
        "\\*",
        "\\",
        "a\\",
        "a=b",
        "%2F",
        "`ls`",
        "$(ls)",
    ),
    *(
        "a;b",
        "a|b",
        "a&b",
        "<a>",
        "...",
        ".hidden",
        "e\u0301",
        "\u00e9",
        "\u05e9\u05dc\u05d5\u05dd",
        "\U0001f3ac film",
        "\u0130stanbul",
    ),
    *(
        "new.model.keras",
        "saved_model",
        "ckpt-1_temp",
        "events.out.tfevents.1",
        "train@2",
        "None",
        "nan",
        "0",
        "x" * 200,
    ),
]
SECS = 60
FEW = ["--epochs=1", "--eval_every_steps=0"]


def odd_name(number: int, rng: random.Random) -> str:
    """A name; over 300 numbers every printable character of ASCII occurs."""
    if number % 2:
        return ODD[number // 2 % len(ODD)]
    must = PRINTABLE[number // 2 % len(PRINTABLE)]
    rest = rng.choices([*PRINTABLE, *"*?[]\\{}"], k=rng.randrange(8))
    rest.insert(rng.randint(0, len(rest)), must)
    name = "".join(rest)
    return f"{name}." + "x" if set(name) == {"."} else name


def matched_by(name: str) -> list[str]:
    """Names of siblings that `name` stands for when it is read as a pattern, and one that any `*` matches."""

    def one_of(match: re.Match) -> str:
        inside = match.group(1)
        return "~" if inside.startswith(("!", "^")) else inside[0]

    glob = re.sub(r"\[(.[^\]]*)\]", one_of, name).replace("?", "y")
    brace = re.search(r"\{([^{},]*),([^{}]*)\}", name)
    names = [name.replace(brace.group(0), part) for part in brace.groups()] if brace else []
    names += [glob.replace("*", "1"), name.replace("\\", ""), glob.replace("*", ""), f"{name}1", name[:-1], "1"]
    names = dict.fromkeys(each[:200] for each in names)
    return [each for each in names if each not in ("", ".", "..", name)][:4]


def relative_name(path: pathlib.Path, base: pathlib.Path) -> str:
    """A path as it is given on a command line in `base`, where a ~ at its beginning would be the home folder."""
    name = str(path.relative_to(base))
    return f"./{name}" if name.startswith("~") else name


class Names:
    """A case is a new run, killed and resumed; a damaged one; one that is read; or one taken from."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "names"
        self.folder.mkdir()
        self.cache = self.folder / "cache"
        self.reviews = self.folder / "reviews.csv"
        words = ["good", "bad", "fine", "dull", "great", "poor", "film", "plot"]
        rows = [f"{' '.join(words[i % 8 :])} {words[i * 3 % 8]},{('neg', 'pos')[i % 2]}\n" for i in range(60)]
        self.reviews.write_text("text,label\n" + "".join(rows))
        self.kept = self._run("kept", "--max_to_keep=100")
        self.twins = {keep: outcome_of(self._run(f"twin{keep}", f"--max_to_keep={keep}")) for keep in (1, 3)}
        self.halfway = self._halfway()
        self.offspring = outcome_of(self._run("offspring", *FEW, f"--init_from={self.kept}"))
        self.own = self._learned(self._run("own", *self._of_own(self.reviews)))
        plain = self.folder / "plain.json"
        _, self.figures = self._evaluate(self.kept, plain, self.reviews, self.folder / "log", self.folder)

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

    def _of_own(self, reviews: pathlib.Path | str) -> list[str]:
        return [
            f"--dataset=csv:{reviews}",
            "--train_split=train",
            "--validation_split=validation",
            "--test_split=test",
            *FEW,
        ]

    def _learned(self, workdir: pathlib.Path) -> dict:
        state = outcome_of(workdir)["state"]
        return {name: value for name, value in state.items() if name.startswith(("model", "optimizer"))}

    def one(self, number: int, folder: pathlib.Path) -> dict:
        """One name, or several at several levels; in every third case relative to the working directory."""
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
        said = (lambda path: relative_name(path, base)) if number % 3 == 0 else (lambda path: path)
        way = (self._new, self._damaged, self._readers, self._users)[number // 2 % 4]
        self.is_fresh = number % 25 == 7
        try:
            wrong = way(rng, base, base / name, said, folder)
        except (RuntimeError, OSError, ValueError) as error:
            wrong = [f"no outcome: {str(error)[-500:]}"]
        ours = (name, f"{name}.cache", f"{name}.csv", f"{name}.json", f"{name}.txt", f"{name}.new")
        after = {
            path: value
            for path, value in snapshot(base).items()
            if path.split("/")[0] not in ours or path.split("/")[0] in (*siblings, "plain file")
        }
        wrong += touched(before, after)
        told = {"name": name, "siblings": siblings, "relative": number % 3 == 0}
        return {"outcome": way.__name__.strip("_"), "cases": 1, **told, "wrong": wrong}

    def _start(self, argv: list[str], base: pathlib.Path, folder: pathlib.Path):
        return start(argv, log=folder / "log", cwd=base, is_fresh=self.is_fresh)

    def _new(self, rng, base, run, said, folder) -> list[str]:
        keep, cache = rng.choice((1, 3)), base / f"{run.name}.cache"
        shutil.copytree(self.cache, cache)
        argv = [*TINY_RUN, f"--max_to_keep={keep}", f"--cache_dir={said(cache)}", f"--workdir={said(run)}"]
        signum = rng.choice((signal.SIGTERM, signal.SIGKILL))
        started = self._start(argv, base, folder)
        wait_for_step(started, run, rng.randrange(1, 20))
        started.send(signum)
        wrong = faults_of(started.wait(SECS), (0, 128 + signum))
        wrong += [] if wrong else faults_of(self._start(argv, base, folder).wait(SECS), (0,))
        return wrong or differences(self.twins[keep], outcome_of(run))

    def _damaged(self, rng, base, run, said, folder) -> list[str]:
        shutil.copytree(self.halfway, run)
        newest, is_hurt = f"ckpt-{steps_of(run)[-1]}", rng.random() < 0.6
        if is_hurt:
            path = run / "checkpoints" / f"{newest}.data-00000-of-00001"
            path.write_bytes(path.read_bytes()[:-40])
        argv = [*TINY_RUN, "--max_to_keep=1", f"--cache_dir={self.cache}", f"--workdir={said(run)}"]
        answer = self._start(argv, base, folder).wait(SECS)
        wrong = faults_of(answer, (0,))
        kept = [path for path in (run / "quarantine").rglob("*") if path.name.startswith(f"{newest}.")]
        if bool(kept) != is_hurt:
            wrong.append("a healthy checkpoint is in quarantine" if kept else "the damaged one is not in quarantine")
        return wrong or differences(self.twins[1], outcome_of(run))

    def _readers(self, rng, base, run, said, folder) -> list[str]:
        shutil.copytree(self.kept, run)
        before = snapshot(run)
        table, texts, output = (base / f"{run.name}.{kind}" for kind in ("csv", "txt", "json"))
        shutil.copy(self.reviews, table)
        texts.write_text("a good film\n")
        answer = self._start(["--mode=inspect", f"--workdir={said(run)}"], base, folder).wait(SECS)
        wrong = faults_of(answer, (0,)) + ["inspect sees damage"] * (answer.out.count("verified") < 24)
        latest = f"--checkpoint={said(run / 'checkpoints' / 'ckpt-24')}"
        which = rng.choice(([latest], ["--checkpoint=best"]))
        if rng.random() < 0.5:
            answer, figures = self._evaluate(said(run), said(output), said(table), folder / "log", base)
            wrong += faults_of(answer, (0,))
            wrong += ["other figures than in a plain place"] * (figures != self.figures)
        else:
            argv = [
                "--mode=predict",
                f"--workdir={said(run)}",
                f"--input={said(texts)}",
                f"--output={said(output)}",
                *which,
            ]
            wrong += faults_of(self._start(argv, base, folder).wait(SECS), (0,))
            wrong += [] if output.exists() else ["no answer was written"]
        return wrong + touched(before, snapshot(run))

    def _evaluate(self, run, output, reviews, log, cwd) -> tuple[Answer, dict]:
        argv = ["--mode=evaluate", f"--workdir={run}", f"--input={reviews}", f"--output={output}"]
        answer = start(argv, log=log, cwd=cwd).wait(SECS)
        path = cwd / output
        figures = json.loads(path.read_text()) if path.exists() else {}
        return answer, {name: value for name, value in figures.items() if isinstance(value, float | int)}

    def _users(self, rng, base, run, said, folder) -> list[str]:
        # What takes a name from elsewhere: export into it, weights of it, reviews in it.
        new, table = base / f"{run.name}.new", base / f"{run.name}.csv"
        way = rng.choice(("export", "init_from", "own reviews"))
        if way == "own reviews":
            shutil.copy(self.reviews, table)
            flags = [*self._of_own(said(table)), f"--workdir={said(new)}"]
        else:
            shutil.copytree(self.kept, run)
            flags = [*FEW, f"--workdir={said(new)}", f"--init_from={said(run)}"]
        argv = [*TINY_RUN, f"--cache_dir={self.cache}", *flags]
        argv = ["--mode=export", f"--workdir={said(run)}"] if way == "export" else argv
        answer = self._start(argv, base, folder).wait(SECS)
        wrong = faults_of(answer, (0,))
        if wrong or way == "export":
            return wrong or ["nothing was exported"] * (not (run / "export" / "model.keras").exists())
        if way == "init_from":
            return differences(self.offspring, outcome_of(new))
        return differences(self.own, self._learned(new))
