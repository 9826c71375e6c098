"""What the tests share: a cache folder, so that the synthetic corpus is generated once, a finished run, and a disk that can be full."""

import shutil
import subprocess

import pytest

from trainer.config import Config
from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    import tensorflow as tf
    from compare_runs import outcome
    from fakes import NoStopRequests, tiny

from trainer import train

# Threads are set once a process, and a test may make a tensor before it trains.
tf.config.threading.set_intra_op_parallelism_threads(Config.intra_op_threads)
tf.config.threading.set_inter_op_parallelism_threads(Config.inter_op_threads)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, cache_dir):
    """The directory of a tiny run that was left alone; to be read, not written."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train.run(tiny(workdir, cache_dir), stop_requests=NoStopRequests())
    return workdir


@pytest.fixture(scope="session")
def twin(finished):
    """Its outcome, for a run that was disturbed to be compared with."""
    return outcome(finished)


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of it, to be written."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture(autouse=True)
def _hear_what_is_said(caplog):
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
