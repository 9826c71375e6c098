"""Fresh processes in odd surroundings: exit code and bits are the plain ones', or the command is refused."""

import os
import pathlib
import resource
import shutil
import types
from collections.abc import Callable, Mapping
from typing import NamedTuple

from chaos_start import TINY_RUN, faults_of, outcome_of, snapshot, start, touched
from kill_and_resume import ROOT, differences

SECS = 60
STRANGER = 54321  # a user that no passwd file knows


class Case(NamedTuple):
    """Surroundings that differ from the plain ones."""

    name: str
    environment: Mapping[str, str | None] = types.MappingProxyType({})
    prepare: Callable[[], None] = lambda: None
    keras_json: str = ""
    flags: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)
    has_cache_dir: bool = True


def _variables(**values: str | None) -> Case:
    name = " ".join(f"{name}={value}" for name, value in values.items())
    return Case(name, values, has_cache_dir=values.keys().isdisjoint(("HOME", "XDG_CACHE_HOME")))


def _close(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


def _limit_files(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def _become_a_stranger() -> None:
    # The effective user stays: a virtual environment may lie where nobody else can read.
    os.setreuid(STRANGER, os.geteuid())


_KERAS = '{"floatx": "%s", "epsilon": 1e-7, "backend": "%s", "image_data_format": "channels_last"}'
_CLUSTER = '{"cluster": {"worker": ["%s"]}, "task": {"type": "worker", "index": %s}}'
_LOCAL = "127.0.0.1:29999"
_HOMELESS = {"HOME": None, "XDG_CACHE_HOME": None}
CASES = [
    *(_variables(KERAS_BACKEND=value) for value in ("jax", "torch", "", "no_such", "tensorflow")),
    *(Case(f"keras.json {each}", keras_json=_KERAS % (each, "tensorflow")) for each in ("float64", "bfloat16")),
    Case("keras.json float16", keras_json=_KERAS % ("float16", "tensorflow")),
    Case("keras.json of another backend", keras_json=_KERAS % ("float32", "jax")),
    Case(
        "keras.json of channels_first",
        keras_json=(_KERAS % ("float32", "tensorflow")).replace("last", "first"),
    ),
    *(_variables(XDG_CACHE_HOME=value) for value in ("", "relative", None)),
    *(_variables(HOME=value) for value in ("{folder}/missing", "relative")),
    Case("an unknown user without a HOME", _HOMELESS, _become_a_stranger),
    Case("nor a --cache_dir", _HOMELESS, _become_a_stranger, codes=(0, 2), has_cache_dir=False),
    Case("an unknown user with a HOME", {}, _become_a_stranger),
    *(_variables(LC_ALL=value, LANG=value) for value in ("en_US", "C", "POSIX", "no_such")),
    *(_variables(PYTHONIOENCODING=value) for value in ("ascii", "latin-1", "utf-16")),
    *(_variables(PYTHONOPTIMIZE=value) for value in ("1", "2")),
    *(_variables(TMPDIR=value) for value in ("{folder}/missing", "", "relative")),
    *(Case(f"closed {closed}", prepare=_close(*closed)) for closed in ((0,), (1,), (2,), (1, 2), (0, 1, 2))),
    *(Case(f"umask {mask:03o}", prepare=lambda mask=mask: os.umask(mask)) for mask in (0o077, 0o000)),
    *(Case(f"ulimit -n {count}", prepare=_limit_files(count)) for count in (64, 32)),
    *(
        Case(f"TF_CONFIG={text}", {"TF_CONFIG": text}, flags=("--strategy=multi_worker",), codes=(2,))
        for text in (
            *(
                "",
                "{}",
                "[]",
                "{",
                "null",
                '{"cluster": {}}',
                '{"cluster": {"worker": "a"}, "task": {"type": "worker", "index": 0}}',
            ),
            *(
                _CLUSTER % values
                for values in (
                    ("127.0.0.1", 0),
                    ("127.0.0.1:abc", 0),
                    (_LOCAL, 5),
                    (_LOCAL, -1),
                    (_LOCAL, '"x"'),
                )
            ),
            *(_CLUSTER % (address, 0) for address in ("127.0.0.1:0", "127.0.0.1:99999", "")),
            _CLUSTER % (_LOCAL, "null"),
        )
    ),
    _variables(TF_CONFIG="garbage"),
    *(_variables(PYTHONWARNINGS=value) for value in ("error", "default")),
    *(_variables(NO_COLOR=value) for value in ("1", "")),
    *(_variables(COLUMNS=value, LINES=value) for value in ("0", "garbage", "-1")),
    *(_variables(TERM=value) for value in ("dumb", None)),
    *(
        Case(f"--workdir={scheme}://b/run", flags=(f"--workdir={scheme}://b/run",), codes=(2,))
        for scheme in ("gs", "s3", "hdfs", "file", "ram", "https")
    ),
    *(_variables(PYTHONUNBUFFERED="1", PYTHONHASHSEED=value) for value in ("0", "7")),
]


def _sources() -> dict[str, tuple]:
    return {path: value for path, value in snapshot(ROOT / "trainer").items() if "__pycache__" not in path}


class Environments:
    """Trains in each of the surroundings, and compares with a run in the plain ones."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.chmod(0o755)  # TensorFlow asks what the real user may read
        self.folder = folder / "environments"
        self.folder.mkdir()
        self.cache = self.folder / "cache"
        flags = [f"--workdir={self.folder / 'twin'}", f"--cache_dir={self.cache}"]
        answer = start([*TINY_RUN, *flags], log=self.folder / "log", is_fresh=True).wait(2 * SECS)
        if answer.code:
            raise SystemExit(answer.err)
        self.twin = outcome_of(self.folder / "twin")

    def one(self, number: int, folder: pathlib.Path) -> dict:
        """One of the surroundings; the cache is where the user's lies by default."""
        case = CASES[number % len(CASES)]
        home, workdir = folder / "home", folder / "run"
        (home / ".keras").mkdir(parents=True)
        (folder / "cwd").mkdir()
        if case.keras_json:
            (home / ".keras" / "keras.json").write_text(case.keras_json)
        copy = shutil.copytree(self.cache, folder / "cache")
        cache = [f"--cache_dir={copy}"] if case.has_cache_dir else []
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)
        if "stranger" in getattr(case.prepare, "__name__", "") and os.getuid():
            return {"outcome": "skipped: only root can become another user", "cases": 0, "wrong": []}
        environment = {"HOME": str(home), **case.environment}
        environment = {name: value and value.replace("{folder}", str(folder)) for name, value in environment.items()}
        before = _sources()
        answer = start(
            [*TINY_RUN, f"--workdir={workdir}", *cache, *case.flags],
            log=folder / "log",
            cwd=folder / "cwd",
            environment=environment,
            is_fresh=True,
            prepare=case.prepare,
        ).wait(SECS)
        wrong = faults_of(answer, case.codes)
        wrong += touched(before, _sources())
        if not wrong and answer.code == 0:
            try:
                wrong = differences(self.twin, outcome_of(workdir))
            except (RuntimeError, OSError) as error:
                wrong = [f"no outcome: {str(error)[-300:]}"]
        if "relative" not in environment.values():
            wrong += [f"{path} was made where it was started" for path in snapshot(folder / "cwd")]
        if answer.code == 2:
            wrong += [f"{workdir.name} was made"] * workdir.exists()
        return {"outcome": f"exit code {answer.code}", "cases": 1, "surroundings": case.name, "wrong": wrong}
