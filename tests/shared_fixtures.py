"""What tests share: runs trained once for all workers of pytest, compiled steps, a disk that can be full."""

import contextlib
import fcntl
import gc
import os
import pathlib
import shutil
import subprocess
import sys

import psutil
import pytest
from absl import flags as absl_flags

from trainer.config import Config
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    from compare_runs import outcome
    from compiled_steps import shared_eval_step, shared_predict_step, shared_train_step
    from fakes import EVERYTHING, TOPICS, NoStopRequests, corpus_of, tiny
    from processes import SERVER
    from reference_runs import STEPS, train_to_the_end

from trainer import build, evaluate, export, flags, inference, predict, session, steps, train
from trainer.data.corpus import open_corpus
from trainer.run import distribution
from trainer.run.checkpoint_manager import Checkpoints

# Threads are set once a process, and a test may make a tensor before it trains.
distribution.set_threads(intra_op=Config.intra_op_threads, inter_op=Config.inter_op_threads)


# Whole modules of the slow tier; of the others, the tests that train or are marked.
_SLOW = {
    f"{name}_test"
    for name in ("bench", "chaos", "local_cluster", "main", "partition", "resume", "strategies")
}


# Modules whose trainings take few steps, all of them within the process: they are part of the fast tier.
_SHORT_TRAININGS = {f"{name}_test" for name in ("prepare", "session", "steps", "train", "warm_start")}


def pytest_collection_modifyitems(items):
    """Marks what `scripts/test.sh --fast` leaves out: second processes, training runs, long tests."""
    for item in items:
        uses = {"cache_dir", "small_disk", "tensorboard"} & set(item.fixturenames)
        is_short = item.module.__name__ in _SHORT_TRAININGS
        if item.module.__name__ in _SLOW or (uses and not is_short):
            item.add_marker("slow")


def pytest_collectstart():
    # The trainer leaves no bytecode of what is imported after TensorFlow; pytest may keep that of the tests.
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)


def pytest_collection_finish():
    sys.dont_write_bytecode = True


@pytest.fixture(scope="session", autouse=True)
def _one_compiled_step_for_runs_of_one_kind():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_train_step", shared_train_step(steps.make_train_step))
        patch.setattr(session, "make_eval_step", shared_eval_step(steps.make_eval_step))
        for mode in (evaluate, export, predict):
            patch.setattr(mode, "make_predict_step", shared_predict_step(inference.make_predict_step))
        yield


@pytest.fixture(scope="session", autouse=True)
def _garbage_is_not_looked_for_in_what_was_imported():
    # A fifth of the time of a run, in a process that has imported TensorFlow and collected all tests.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _fork_server():
    with SERVER:
        yield


def _children():
    # As Linux lists them by thread; a look at all processes of the machine takes longer than many a test.
    listed = []
    for path in pathlib.Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # The thread may have ended.
            listed.append(path.read_text())
    pids = " ".join(listed).split() if listed else [child.pid for child in psutil.Process().children()]
    return {int(pid) for pid in pids} - {SERVER.pid}


@pytest.fixture(autouse=True)
def _no_process_is_left_behind(request):
    """Fails a test that leaves a process behind; one that has ended but was not waited for does not count."""
    before = _children()
    yield
    left = []
    for pid in _children() - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    if left:
        _, left = psutil.wait_procs(left, timeout=10)
    left = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    commands = [process.cmdline() for process in left]
    for process in left:
        process.kill()
    assert not commands, f"{request.node.name} has left processes behind: {commands}"


@pytest.fixture(scope="session")
def build_once(tmp_path_factory):
    """A function that has another one fill a folder of a given name, once for all workers of pytest."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def build(name, make) -> pathlib.Path:
        folder, made = shared / name, shared / f"{name}.made"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return build


@pytest.fixture(scope="session")
def cache_dir(build_once):
    """The folder of stores, with the synthetic corpus in it."""

    def generate(folder):
        open_corpus(name="sample_reviews", data_dir=None, cache_dir=str(folder))

    return str(build_once("cache", generate))


@pytest.fixture(scope="session")
def finished(build_once, cache_dir):
    """The directory of a tiny run that was left alone; to be read, not written."""
    return (
        build_once(
            "finished",
            lambda folder: train.run(tiny(folder / "run", cache_dir), stop_requests=NoStopRequests()),
        )
        / "run"
    )


@pytest.fixture(scope="session")
def reference_outcome(finished):
    """Its outcome, for a run that was disturbed to be compared with."""
    return outcome(finished)


@pytest.fixture(scope="session")
def seldom_saved_outcome(build_once, cache_dir):
    """The outcome of the same run, saved only where it is evaluated; see `train_to_the_end`."""

    def make(folder):
        train_to_the_end(tiny(folder / "run", cache_dir))

    return outcome(build_once("seldom saved", make) / "run")


@pytest.fixture(scope="session")
def reference(build_once, cache_dir):
    """The same run with the checkpoints of all its steps; to be read, not written."""

    def make(folder):
        train.run(tiny(folder / "run", cache_dir, max_to_keep=STEPS + 1), stop_requests=NoStopRequests())

    return build_once("reference", make) / "run"


@pytest.fixture(scope="session")
def everything(build_once, cache_dir):
    """The directory of a tiny run with everything on that is off by default; to be read, not written."""

    def make(folder):
        train_to_the_end(tiny(folder / "run", cache_dir, **EVERYTHING))

    return build_once("everything", make) / "run"


@pytest.fixture(scope="session")
def killed(build_once, cache_dir):
    """What a kill at each step leaves of the tiny run: at even steps after the commit, at odd ones before."""

    def make(folder):
        save, workdir = Checkpoints.save, folder / "run"

        def keep_and_save(checkpoints):
            # What is in memory is lost by a kill, what was written is not.
            step = int(checkpoints._state.step)
            if step % 2 == 0:
                save(checkpoints)
            if not (folder / str(step)).exists():
                shutil.copytree(workdir, folder / str(step))
            save(checkpoints)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoints, "save", keep_and_save)
            train.run(tiny(workdir, cache_dir), stop_requests=NoStopRequests())

    return build_once("killed", make)


@pytest.fixture(scope="session")
def halfway(killed):
    """A tiny run that was killed just after the commit of step 10; not to be written."""
    return killed / "10"


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of it, to be written."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture(autouse=True)
def _logs_from_info_up(caplog):
    caplog.set_level("INFO", logger="absl")


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a filesystem of a given size in MiB; again with another size: resizes it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(size):
        nonlocal mounted
        options = ["-o", f"{'remount,' if mounted else ''}size={int(size * 2**20)}"]
        answer = subprocess.run(
            ["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if answer.returncode:
            pytest.skip(f"needs leave to mount a tmpfs: {answer.stderr.strip()}")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def topics(monkeypatch):
    """Within the test each run reads a corpus of three classes; returns their names."""
    monkeypatch.setattr(build, "open_corpus", lambda config: corpus_of(*TOPICS))
    return TOPICS


@pytest.fixture(scope="session")
def finished_topics(build_once, cache_dir):
    """The directory of a tiny run of three classes that was left alone; to be read, not written."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "open_corpus", lambda config: corpus_of(*TOPICS))
            given = tiny(folder / "run", cache_dir, monitor="val_f1", sample_text=("word5 word5",))
            train.run(given, stop_requests=NoStopRequests())

    return build_once("topics", make) / "run"


@pytest.fixture
def copy_of_topics(finished_topics, tmp_path):
    """A copy of it, to be written."""
    return pathlib.Path(shutil.copytree(finished_topics, tmp_path / "copy"))


@pytest.fixture(scope="session")
def one_epoch(build_once, cache_dir):
    """The directory of a tiny run of one epoch; to be read, not written."""

    def make(folder):
        train.run(tiny(folder / "run", cache_dir, epochs=1), stop_requests=NoStopRequests())

    return build_once("one epoch", make) / "run"


@pytest.fixture
def copy_of_one_epoch(one_epoch, tmp_path):
    """A copy of it, to be written."""
    return pathlib.Path(shutil.copytree(one_epoch, tmp_path / "copy"))


@pytest.fixture
def parse():
    """Parses a command line with absl's flags as they are at the start of the program."""
    absl_flags.FLAGS.unparse_flags()
    yield lambda *arguments: flags.parse(["trainer", *arguments])
    absl_flags.FLAGS.unparse_flags()
