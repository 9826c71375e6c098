"""What XLA has compiled, kept between processes: no damage, disk or kill changes a bit or ends a run."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from compare_runs import differences, outcome
from fakes import NoStopRequests, command, tiny
from fork_server import ForkServer
from processes import popen

from trainer import compiled_cache, train
from trainer.compiled_cache import CompiledCache
from trainer.config import Config
from trainer.tensorflow_setup import COMPILED

A, B = "xla_compile_cache__1__2__XLA_CPU_JIT.pb", "xla_compile_cache__3__4__XLA_CPU_JIT.pb"


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """Makes this process use the cache; its files in memory are empty before and after."""
    monkeypatch.setenv("TF_XLA_FLAGS", f"--tf_xla_persistent_cache_directory={COMPILED}")
    yield
    if tf.io.gfile.isdir(COMPILED):
        empty_memory()


def empty_memory():
    for name in in_memory():
        tf.io.gfile.remove(f"{COMPILED}/{name}")


def in_memory():
    contents = {}
    for name in tf.io.gfile.listdir(COMPILED):
        with tf.io.gfile.GFile(f"{COMPILED}/{name}", "rb") as file:
            contents[name] = file.read()
    return contents


def opened(folder, **settings):
    return CompiledCache(Config(workdir="run", cache_dir=str(folder), **settings))


def compile_(name, content):
    tf.io.gfile.makedirs(COMPILED)
    with tf.io.gfile.GFile(f"{COMPILED}/{name}", "wb") as file:
        file.write(content)


def entries(folder):
    return sorted(pathlib.Path(folder).glob("compiled/*/*.pb"))


@pytest.fixture
def kept(tmp_path):
    """The file of entry A, which an earlier process has kept."""
    cache = opened(tmp_path)
    compile_(A, b"machine code")
    cache.keep()
    empty_memory()
    (path,) = entries(tmp_path)
    return path


def test_what_a_process_compiled_is_in_the_memory_of_the_next(tmp_path, kept):
    opened(tmp_path)
    assert in_memory() == {A: b"machine code"}


def test_a_second_run_in_a_process_leaves_the_entries_in_memory_as_they_are(tmp_path, kept):
    for _ in range(2):
        opened(tmp_path)
    assert in_memory() == {A: b"machine code"}


def test_only_what_is_new_is_written(tmp_path, kept):
    before = kept.stat().st_ino
    cache = opened(tmp_path)
    compile_(B, b"more")
    cache.keep()
    assert [path.name for path in entries(tmp_path)] == [A, B]
    assert kept.stat().st_ino == before


def test_what_tensorflow_is_still_writing_is_left_alone(tmp_path):
    cache = opened(tmp_path)
    compile_(f"{A}12_34.tmp", b"half")
    cache.keep()
    assert entries(tmp_path) == []


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def another_name(path):
    path.rename(path.with_name(B))


def another_key(path):
    shutil.copy(path, path.with_name("original"))
    path.with_name(A).write_bytes(compiled_cache._digest("another key", A, b"machine code") + b"machine code")


def a_link(path):
    path.rename(path.with_name("target"))
    path.symlink_to("target")


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        another_name,
        another_key,
        a_link,
        a_pipe,
        a_folder,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:10]),
        lambda path: path.write_bytes(path.read_bytes() + b" "),
        lambda path: path.write_text("a foreign file"),
        lambda path: path.chmod(0o666),
    ],
)
def test_what_is_not_as_it_was_written_is_not_used_and_is_replaced(tmp_path, kept, damage):
    damage(kept)
    cache = opened(tmp_path)
    assert not tf.io.gfile.isdir(COMPILED) or in_memory() == {}
    compile_(A, b"machine code")
    cache.keep()
    empty_memory()
    if not kept.is_dir():
        opened(tmp_path)
        assert in_memory() == {A: b"machine code"}


def test_other_conditions_have_other_entries(tmp_path, kept, monkeypatch):
    opened(tmp_path, intra_op_threads=7)
    assert in_memory() == {}
    with monkeypatch.context() as patch:
        patch.setattr(compiled_cache.conditions.machine, "cpu", lambda: {"cpu": "another"})
        opened(tmp_path)
        assert in_memory() == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    opened(tmp_path)
    assert in_memory() == {}
    assert [path.name for path in (tmp_path / "compiled").iterdir()] == [kept.parent.name]


def test_a_folder_that_the_user_names_to_tensorflow_is_left_to_it(tmp_path, kept, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=/elsewhere")
    cache = opened(tmp_path)
    compile_(B, b"more")
    cache.keep()
    assert entries(tmp_path) == [kept] and A not in in_memory()


def test_without_a_usable_folder_nothing_is_kept_and_nothing_fails(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", "/proc/no", "~nobody-of-this-name/cache"):
        cache = opened(folder)
        compile_(A, b"machine code")
        cache.keep()
    assert (tmp_path / "file").read_text() == ""


def test_a_full_disk_keeps_nothing_and_fails_nothing(small_disk):
    folder = small_disk(1)
    cache = opened(folder)
    compile_(A, bytes(2**21))
    cache.keep()
    compile_(B, b"small")
    cache.keep()
    assert [path.name for path in entries(folder)] == [B]
    assert [path.name for path in entries(folder)[0].parent.iterdir() if path.suffix == ".tmp"] == []


def test_the_oldest_entries_are_removed_when_all_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_cache, "MOST_BYTES", 1000)
    for threads in range(1, 6):
        cache = opened(tmp_path, intra_op_threads=threads)
        compile_(A, bytes(300))
        cache.keep()
        empty_memory()
        time.sleep(0.02)
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 1000
    opened(tmp_path, intra_op_threads=5)
    assert A in in_memory()


WRITE = """
import sys
from trainer.tensorflow_setup import COMPILED, importing_tensorflow
with importing_tensorflow():
    import tensorflow as tf
    from trainer.compiled_cache import CompiledCache
from trainer.config import Config
cache = CompiledCache(Config(workdir="run", cache_dir=sys.argv[1]))
print("begins", flush=True)
for number in range(10_000):
    with tf.io.gfile.GFile(f"{COMPILED}/xla__{number}.pb", "wb") as file:
        file.write(bytes([number % 251]) * 100_000)
    cache.keep()
"""


@pytest.mark.slow
def test_a_kill_during_a_write_leaves_only_whole_entries(tmp_path):
    for after in (0.05, 0.12, 0.31):
        command_ = [sys.executable, "-c", WRITE, str(tmp_path)]
        with popen(command_, env=as_users_have_it(), stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
    cache = opened(tmp_path)
    found = in_memory()
    assert found and {len(content) for content in found.values()} == {100_000}
    assert found.keys() == {path.name for path in entries(tmp_path)}
    compile_(B, b"more")
    cache.keep()
    assert list(tmp_path.glob("compiled/*/*.tmp")) == []


def as_users_have_it(**changed):
    # TF_XLA_FLAGS names another folder in tests.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TF_XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL")
    }
    return inherited | changed


# The lines of TensorFlow that tell what it loads.
SHOWN = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "device_executable_persistor=1"}
SERVER = ForkServer(**SHOWN)


def trained(workdir, cache_dir, **settings):
    """Trains a tiny run in a process of its own; returns how many functions it did not need to compile."""
    completed = SERVER.run(
        command(tiny(workdir, str(cache_dir), **settings)),
        env=as_users_have_it(**SHOWN),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr[-2000:]
    return completed.stderr.count("Loading cached entry")


@pytest.fixture(scope="module")
def server():
    """There is a server for the starts of this module."""
    with SERVER:
        SERVER.run([sys.executable, "-c", ""])  # it is there before a test looks for processes left behind
        yield SERVER


@pytest.fixture(scope="module")
def first_start(server, build_once, cache_dir):
    """A run of one epoch that found an empty cache, that cache, and how many functions it loaded."""

    def make(folder):
        shutil.copytree(cache_dir, folder / "cache", ignore=shutil.ignore_patterns("compiled"))
        loaded = trained(folder / "run", folder / "cache", epochs=1)
        (folder / "loaded").write_text(str(loaded))

    return build_once("first start", make)


@pytest.fixture
def own_cache(first_start, tmp_path):
    """A copy of the cache that it left, to be written."""
    return pathlib.Path(shutil.copytree(first_start / "cache", tmp_path / "cache"))


@pytest.mark.slow
def test_a_run_has_the_same_bits_with_an_empty_a_filled_and_a_damaged_cache(
    tmp_path, own_cache, first_start, one_epoch
):
    assert (first_start / "loaded").read_text() == "0"
    compiled = entries(own_cache)
    assert len(compiled) >= 3
    assert trained(tmp_path / "filled", own_cache, epochs=1) == len(compiled)
    flip_a_bit(compiled[0])
    compiled[1].write_bytes(b"")
    assert trained(tmp_path / "damaged", own_cache, epochs=1) == len(compiled) - 2
    assert entries(own_cache) == compiled, "a second start has functions of other names"
    for run in (first_start / "run", tmp_path / "filled", tmp_path / "damaged"):
        assert differences(outcome(one_epoch), outcome(run)) == []


@pytest.mark.slow
def test_a_resume_needs_not_compile_what_the_first_start_compiled(
    tmp_path, own_cache, halfway, reference_outcome
):
    compiled = entries(own_cache)
    shutil.copytree(halfway, tmp_path / "resumed")
    assert trained(tmp_path / "resumed", own_cache) >= 2
    assert set(compiled) <= set(entries(own_cache))
    assert differences(reference_outcome, outcome(tmp_path / "resumed")) == []


COMPILE = """
import sys
from trainer.tensorflow_setup import importing_tensorflow
with importing_tensorflow():
    import tensorflow as tf
    from trainer.compiled_cache import CompiledCache
from trainer.config import Config
cache = CompiledCache(Config(workdir="run", cache_dir=sys.argv[1]))
print("opened", flush=True)
sys.stdin.readline()
for number in range(4):
    compiled = tf.function(lambda x: tf.tanh(x @ x) + number, jit_compile=True, autograph=False)
    print(compiled(tf.reshape(tf.range(16.0), [4, 4]) / 16).numpy().tobytes().hex())
    cache.keep()
"""
"""Compiles four small functions, and keeps each; so that two processes do so at once, it waits for a line."""


def compile_together(cache_dir, count):
    """Compiles in some processes at once: how many functions each has loaded, and what it has computed."""
    program = [sys.executable, "-c", COMPILE, str(cache_dir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    starts = [SERVER.popen(program, env=as_users_have_it(**SHOWN), **pipes) for _ in range(count)]
    for start in starts:
        assert start.stdout.readline() == "opened\n"
    for start in starts:
        start.stdin.write("\n")
        start.stdin.flush()
    answers = [start.communicate(timeout=300) for start in starts]
    assert [start.returncode for start in starts] == [0] * count, answers
    return [(log.count("Loading cached entry"), output.split()) for output, log in answers]


@pytest.mark.slow
def test_two_processes_may_fill_the_cache_at_once(tmp_path, server):
    (a, of_a), (b, of_b) = compile_together(tmp_path, 2)
    assert a == b == 0 and len(entries(tmp_path)) == 4
    ((loaded, computed),) = compile_together(tmp_path, 1)
    assert loaded == 4
    assert of_a == of_b == computed and len(set(computed)) == 4


@pytest.mark.slow
def test_a_run_has_the_same_bits_when_nothing_can_be_kept(tmp_path, server, cache_dir, reference_outcome):
    unusable = shutil.copytree(cache_dir, tmp_path / "cache", ignore=shutil.ignore_patterns("compiled"))
    (unusable / "compiled").write_text("in the way")
    compile_(A, b"machine code")  # what the run fails to keep
    train.run(tiny(tmp_path / "run", str(unusable)), stop_requests=NoStopRequests())
    assert differences(reference_outcome, outcome(tmp_path / "run")) == []
    ((loaded, computed),) = compile_together(unusable, 1)
    assert loaded == 0
    assert compile_together(tmp_path / "usable", 1) == [(0, computed)]
    assert (unusable / "compiled").read_text() == "in the way"
