"""A network that splits: real processes in network namespaces that lose frames one way or both ways."""

import contextlib
import re
import signal

import pytest
from compare_runs import differences, outcome
from fakes import flags
from partition_and_resume import SECS_TO_END, network
from processes import popen
from reference_runs import SELDOM
from replicated_runs import PIPES, settings, undisturbed, wait

IN_TRAINING, IN_THE_FINAL_EVALUATION = r"train +\| step +6/", "Ended at step"


@pytest.fixture
def joined():
    """A network of two workers."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(network(2))
        except OSError as error:
            pytest.skip(f"needs permission to make network namespaces: {error}")


@pytest.fixture
def processes():
    """Those that a test has started; none outlives it."""
    started = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def cut_when_the_chief_has_logged(line, joined, kind, workers):
    while not re.match(line, logged := workers[0].stdout.readline()):
        assert logged
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)  # so that they do not get further before the cut
    joined.cut(1, kind)
    for worker in workers:
        worker.send_signal(signal.SIGCONT)


def test_workers_that_are_cut_off_end_with_a_message_and_resume_bit_identically(
    tmp_path, cache_dir, build_once, joined, processes
):
    def start(**more):
        given = settings(tmp_path / "run", cache_dir, "multi_worker", **more)
        workers = joined.start(flags(given), popen=popen, **PIPES)
        processes.extend(workers)
        return workers

    joined.cut(1, "from")
    outputs, codes = wait(start(connect_secs=2))
    assert codes == [5, 5], outputs
    for output in outputs:
        assert "but not all have connected within 2 s (--connect_secs)" in output.splitlines()[-1]
    joined.heal()

    # From the second start on with the free flags of the undisturbed run.
    for line, kind, more in ((IN_TRAINING, "both", {}), (IN_THE_FINAL_EVALUATION, "to", SELDOM)):
        workers = start(**more)
        cut_when_the_chief_has_logged(line, joined, kind, workers)
        outputs, codes = wait(workers, SECS_TO_END)
        assert codes == [5, 5] if line == IN_TRAINING else {0, 5}.issuperset(codes), outputs
        for output, code in zip(outputs, codes, strict=True):
            assert ("but one is gone" in output.splitlines()[-1]) == (code == 5), output
            # No message but our own: no traceback, and none of TensorFlow or gRPC.
            assert not re.search(
                "Traceback|^error: (?!All 2 workers must)|/job:|UNKNOWN", output, re.MULTILINE
            ), output
        joined.heal()

    outputs, codes = wait(start(**SELDOM))
    assert codes == [0, 0], outputs
    reference_run = undisturbed(build_once, cache_dir, "multi_worker")
    assert differences(outcome(reference_run), outcome(tmp_path / "run")) == []
