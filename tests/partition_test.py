"""A network that splits: real processes in network namespaces that lose frames one way or both ways."""

import contextlib
import re
import signal
import subprocess

import pytest
from compare_runs import differences, outcome
from fakes import tiny
from local_cluster import start_workers
from partition_and_resume import CONNECT_SECS, SECS_TO_END, network
from processes import popen

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
IN_TRAINING, IN_THE_ENDING = r"train +\| step +6/", "Ended at step"


@pytest.fixture
def joined():
    """A network of two workers."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(network(2))
        except OSError as error:
            pytest.skip(f"needs leave to make network namespaces: {error}")


@pytest.fixture
def processes():
    """Those that a test has started; none outlives it."""
    started = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def wait(processes, secs):
    said = [process.communicate(timeout=secs)[0] for process in processes]
    return said, [process.returncode for process in processes]


def cut_when_the_chief_has_said(words, joined, kind, workers):
    while not re.match(words, line := workers[0].stdout.readline()):
        assert line
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)  # so that they do not get further before the cut
    joined.cut(1, kind)
    for worker in workers:
        worker.send_signal(signal.SIGCONT)


def test_workers_that_are_cut_off_end_with_a_sentence_and_go_on_as_if_nothing_had_been(
    tmp_path, cache_dir, joined, processes
):
    def flags(name, **more):
        return [f"--{key}={value}" for key, value in tiny(tmp_path / name, cache_dir, **more).items()]

    def start(**more):
        workers = joined.start(flags("run", **more), **PIPES)
        processes.extend(workers)
        return workers

    joined.cut(1, "from")
    said, codes = wait(start(connect_secs=2), 300)
    assert codes == [5, 5], said
    assert all(
        "but not all have connected within 2 s (--connect_secs)" in text.splitlines()[-1] for text in said
    )
    joined.heal()

    reference_outcome = start_workers(
        2, flags("reference_outcome", connect_secs=CONNECT_SECS), popen=popen, **PIPES
    )
    processes.extend(reference_outcome)
    for words, kind in ((IN_TRAINING, "both"), (IN_THE_ENDING, "to")):
        workers = start()
        cut_when_the_chief_has_said(words, joined, kind, workers)
        said, codes = wait(workers, SECS_TO_END)
        assert codes == [5, 5] if words == IN_TRAINING else {0, 5}.issuperset(codes), said
        for text, code in zip(said, codes, strict=True):
            assert ("but one is gone" in text.splitlines()[-1]) == (code == 5), text
            # Nothing but our own sentence: no traceback, and no words of TensorFlow or gRPC.
            assert not re.search(
                "Traceback|^error: (?!All 2 workers must)|/job:|UNKNOWN", text, re.MULTILINE
            ), text
        joined.heal()

    said, codes = wait(reference_outcome, 300)
    assert codes == [0, 0], said
    said, codes = wait(start(), 300)
    assert codes == [0, 0], said
    assert differences(outcome(tmp_path / "reference_outcome"), outcome(tmp_path / "run")) == []
