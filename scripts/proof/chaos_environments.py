"""Fresh processes in unusual environments: the exit code and bits of a plain environment, or a refusal."""

import os
import pathlib
import resource
import shutil
import types
from collections.abc import Callable, Mapping
from typing import NamedTuple

from chaos_snapshots import Snapshot, snapshot, touched
from chaos_start import TINY_RUN, Case, faults_of, outcome_of, start
from compare_runs import differences
from local_cluster import ROOT

SECS = 60
UNKNOWN_USER = 54321  # a user id that is not in the passwd file


class Environment(NamedTuple):
    """How an environment differs from a plain one, and the exit codes it allows."""

    name: str
    variables: Mapping[str, str | None] = types.MappingProxyType({})
    prepare: Callable[[], object] = lambda: None
    keras_json: str = ""
    flags: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)
    has_cache_dir: bool = True


def _variables(**values: str | None) -> Environment:
    name = " ".join(f"{name}={value}" for name, value in values.items())
    return Environment(name, values, has_cache_dir=values.keys().isdisjoint(("HOME", "XDG_CACHE_HOME")))


def _close(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


def _limit_files(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def _become_unknown_user() -> None:
    # Keeps the effective user: only that user may be able to read the virtual environment.
    os.setreuid(UNKNOWN_USER, os.geteuid())


_KERAS = '{"floatx": "%s", "epsilon": 1e-7, "backend": "%s", "image_data_format": "channels_last"}'
_CLUSTER = '{"cluster": {"worker": ["%s"]}, "task": {"type": "worker", "index": %s}}'
_LOCAL = "127.0.0.1:29999"
_HOMELESS = {"HOME": None, "XDG_CACHE_HOME": None}
_TF_CONFIGS = (
    *("", "{}", "[]", "{", "null", '{"cluster": {}}'),
    '{"cluster": {"worker": "a"}, "task": {"type": "worker", "index": 0}}',
    *(_CLUSTER % (address, 0) for address in ("127.0.0.1", "127.0.0.1:abc")),
    *(_CLUSTER % (_LOCAL, index) for index in ("5", "-1", '"x"')),
    *(_CLUSTER % (address, 0) for address in ("127.0.0.1:0", "127.0.0.1:99999", "")),
    _CLUSTER % (_LOCAL, "null"),
)
ENVIRONMENTS = [
    *(_variables(KERAS_BACKEND=value) for value in ("jax", "torch", "", "no_such", "tensorflow")),
    *(
        Environment(f"keras.json {each}", keras_json=_KERAS % (each, "tensorflow"))
        for each in ("float64", "bfloat16")
    ),
    Environment("keras.json float16", keras_json=_KERAS % ("float16", "tensorflow")),
    Environment("keras.json of another backend", keras_json=_KERAS % ("float32", "jax")),
    Environment(
        "keras.json of channels_first",
        keras_json=(_KERAS % ("float32", "tensorflow")).replace("last", "first"),
    ),
    *(_variables(XDG_CACHE_HOME=value) for value in ("", "relative", None)),
    *(_variables(HOME=value) for value in ("{folder}/missing", "relative")),
    Environment("an unknown user without a HOME", _HOMELESS, _become_unknown_user),
    Environment(
        "an unknown user without a HOME or a --cache_dir",
        _HOMELESS,
        _become_unknown_user,
        codes=(0, 2),
        has_cache_dir=False,
    ),
    Environment("an unknown user with a HOME", {}, _become_unknown_user),
    *(_variables(LC_ALL=value, LANG=value) for value in ("en_US", "C", "POSIX", "no_such")),
    *(_variables(PYTHONIOENCODING=value) for value in ("ascii", "latin-1", "utf-16")),
    *(_variables(PYTHONOPTIMIZE=value) for value in ("1", "2")),
    *(_variables(TMPDIR=value) for value in ("{folder}/missing", "", "relative")),
    *(
        Environment(f"closed {closed}", prepare=_close(*closed))
        for closed in ((0,), (1,), (2,), (1, 2), (0, 1, 2))
    ),
    *(Environment(f"umask {mask:03o}", prepare=lambda mask=mask: os.umask(mask)) for mask in (0o077, 0o000)),
    *(Environment(f"ulimit -n {count}", prepare=_limit_files(count)) for count in (64, 32)),
    *(
        Environment(f"TF_CONFIG={text}", {"TF_CONFIG": text}, flags=("--strategy=multi_worker",), codes=(2,))
        for text in _TF_CONFIGS
    ),
    Environment("TF_CONFIG=garbage", {"TF_CONFIG": "garbage"}, codes=(2,)),
    *(_variables(PYTHONWARNINGS=value) for value in ("error", "default")),
    *(_variables(NO_COLOR=value) for value in ("1", "")),
    *(_variables(COLUMNS=value, LINES=value) for value in ("0", "garbage", "-1")),
    *(_variables(TERM=value) for value in ("dumb", None)),
    *(
        Environment(f"--workdir={scheme}://b/run", flags=(f"--workdir={scheme}://b/run",), codes=(2,))
        for scheme in ("gs", "s3", "hdfs", "file", "ram", "https")
    ),
    *(_variables(PYTHONUNBUFFERED="1", PYTHONHASHSEED=value) for value in ("0", "7")),
]


def _sources() -> Snapshot:
    return {path: value for path, value in snapshot(ROOT / "trainer").items() if "__pycache__" not in path}


class Environments:
    """Trains in each environment, and compares with a run in a plain environment."""

    def __init__(self, folder: pathlib.Path) -> None:
        folder.chmod(0o755)  # TensorFlow checks what the real user can read
        self.folder = folder / "environments"
        self.folder.mkdir()
        self.cache = self.folder / "cache"
        flags = [f"--workdir={self.folder / 'reference'}", f"--cache_dir={self.cache}"]
        answer = start([*TINY_RUN, *flags], log=self.folder / "log", is_fresh=True).wait(2 * SECS)
        if answer.code:
            raise SystemExit(answer.err)
        self.reference = outcome_of(self.folder / "reference")

    def one(self, number: int, folder: pathlib.Path) -> Case:
        """Trains in one environment, in a new home folder."""
        case = ENVIRONMENTS[number % len(ENVIRONMENTS)]
        if case.prepare is _become_unknown_user and os.getuid():
            return {"outcome": "skipped: only root can become another user", "cases": 0, "wrong": []}
        cache = [f"--cache_dir={folder / 'cache'}"] if case.has_cache_dir else []
        self._make_folders(folder, case.keras_json)
        environment = {"HOME": str(folder / "home"), **case.variables}
        environment = {
            name: value and value.replace("{folder}", str(folder)) for name, value in environment.items()
        }
        before = _sources()
        answer = start(
            [*TINY_RUN, f"--workdir={folder / 'run'}", *cache, *case.flags],
            log=folder / "log",
            cwd=folder / "cwd",
            environment=environment,
            is_fresh=True,
            prepare=case.prepare,
        ).wait(SECS)
        wrong = faults_of(answer, case.codes)
        wrong += touched(before, _sources())
        if not wrong and answer.code == 0:
            wrong = self._differences(folder / "run")
        if "relative" not in environment.values():
            wrong += [f"{path} was made in the working directory" for path in snapshot(folder / "cwd")]
        run = folder / "run"
        if answer.code == 2 and run.exists() and {path.name for path in run.iterdir()} - {"lock"}:
            wrong.append("run was made")
        return {"outcome": f"exit code {answer.code}", "cases": 1, "environment": case.name, "wrong": wrong}

    def _make_folders(self, folder: pathlib.Path, keras_json: str) -> None:
        (folder / "home" / ".keras").mkdir(parents=True)
        (folder / "cwd").mkdir()
        if keras_json:
            (folder / "home" / ".keras" / "keras.json").write_text(keras_json)
        shutil.copytree(self.cache, folder / "cache")
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)

    def _differences(self, workdir: pathlib.Path) -> list[str]:
        try:
            return differences(self.reference, outcome_of(workdir))
        except (RuntimeError, OSError) as error:
            return [f"no outcome: {str(error)[-300:]}"]
