"""Several devices and several processes: the same training, as exactly resumable."""

import json
import re
import shutil
import signal
import time

import pytest
from compare_runs import outcome, scalars
from fakes import EVERYTHING, NoStopRequests, tiny
from local_cluster import SECS_TO_END
from reference_runs import SELDOM, train_to_the_end
from replicated_runs import DEVICES, settings, start, undisturbed, wait

from trainer import evaluate, train
from trainer.errors import InputError

KILLS = {  # when, and which process: of two workers the first is the chief
    "mirrored": [(3, 0), (10, 0)],
    "multi_worker": [("Dataset", 1), ("Batches", 1), (3, 1), ("Dataset", 0), (10, 0)],
}


def wait_for(moment, processes, workdir):
    """Waits until the first process has logged a line, or the run has saved a step."""
    if isinstance(moment, str):
        assert any(re.match(moment, line) for line in processes[0].stdout)
        return
    until = time.monotonic() + 300
    while not (workdir / "checkpoints" / f"ckpt-{moment}.index").exists():
        assert time.monotonic() < until
        time.sleep(0.005)


def kill(processes, victim):
    """Kills a process; the other one, if there is one, must end by itself with one sentence."""
    processes[victim].kill()
    outputs, codes = wait(processes, SECS_TO_END)
    assert codes.pop(victim) == -signal.SIGKILL
    outputs.pop(victim)
    assert set(codes) <= {5}, outputs
    for output in outputs:
        assert "but one is gone" in output.splitlines()[-1]
        assert "Traceback" not in output


def stop_by_a_signal_to_the_last(processes):
    """Sends SIGTERM to one process; all must end at the same step."""
    processes[-1].terminate()
    outputs, codes = wait(processes, SECS_TO_END)
    assert set(codes) == {143}, outputs
    assert len({output.strip().splitlines()[-1].rpartition(": ")[2] for output in outputs}) == 1, outputs


@pytest.mark.parametrize("strategy", DEVICES)
def test_a_run_that_is_killed_in_any_phase_and_stopped_by_a_signal_to_one_process_is_resumed_bit_identically(
    tmp_path, cache_dir, build_once, strategy
):
    given = settings(tmp_path / "run", cache_dir, strategy)
    for moment, victim in KILLS[strategy]:
        processes = start(given)
        wait_for(moment, processes, tmp_path / "run")
        kill(processes, victim)
    processes = start(given)
    wait_for(12, processes, tmp_path / "run")
    stop_by_a_signal_to_the_last(processes)
    outputs, codes = wait(start({**given, **SELDOM}))
    assert set(codes) == {0}, outputs
    assert outcome(tmp_path / "run") == outcome(undisturbed(build_once, cache_dir, strategy))


@pytest.fixture(scope="module")
def on_one_device(build_once, cache_dir):
    """What a run on one device logs, of one epoch more than the undisturbed runs."""

    def make(folder):
        train_to_the_end(settings(folder / "run", cache_dir, "one_device", epochs=3, patience=0))

    return scalars(build_once("one device", make) / "run" / "summaries")


@pytest.mark.parametrize("strategy", DEVICES)
def test_one_device_has_the_losses_of_two_and_resumes_their_run_inexactly_when_allowed(
    tmp_path, cache_dir, caplog, build_once, on_one_device, strategy
):
    run = shutil.copytree(undisturbed(build_once, cache_dir, strategy), tmp_path / "run")
    given = settings(run, cache_dir, "one_device", logical_devices=0, epochs=3, patience=0)
    with pytest.raises(InputError, match="replicas was '2' and is '1' now"):
        train.run(given, stop_requests=NoStopRequests())
    train.run({**given, "allow_inexact_resume": True}, stop_requests=NoStopRequests())
    assert "Resuming inexactly: --strategy was " in caplog.text
    logged = scalars(run / "summaries")
    losses = {key: value for key, value in on_one_device.items() if key[1] == "loss" and key[0] != "best"}
    assert {step for _, _, step in losses} >= {3, 6, 8, 9, 16, 18, 21, 24}
    for key, loss in losses.items():
        assert logged[key] == pytest.approx(loss, abs=1e-5)


@pytest.fixture(scope="module")
def with_everything(build_once, cache_dir):
    """Trains with everything on that is off by default; returns the directory of such a run of a strategy."""

    def trained(strategy):
        def make(folder):
            on_two = {"strategy": strategy, **DEVICES[strategy]}
            outputs, codes = wait(start(tiny(folder / "run", cache_dir, **EVERYTHING, **SELDOM, **on_two)))
            assert set(codes) == {0}, outputs

        return build_once(f"{strategy} with everything", make) / "run"

    return trained


@pytest.mark.parametrize("strategy", DEVICES)
def test_with_everything_on_two_devices_have_the_losses_of_one(with_everything, everything, strategy):
    logged = scalars(with_everything(strategy) / "summaries")
    losses = {key: value for key, value in scalars(everything / "summaries").items() if key[1] == "loss"}
    assert len(losses) > 10
    for key, loss in losses.items():
        assert logged[key] == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_whose_peer_does_not_come_waits_no_longer_than_connect_secs(tmp_path, cache_dir, victim):
    given = settings(tmp_path / "run", cache_dir, "multi_worker", connect_secs=2)
    processes = start(given)
    processes[victim].kill()
    outputs, codes = wait(processes, SECS_TO_END)
    assert codes[1 - victim] == 5, outputs
    assert "not all have connected within 2 s (--connect_secs)" in outputs[1 - victim]
    assert "Traceback" not in outputs[1 - victim]


def test_workers_with_different_flags_end_with_the_difference(tmp_path, cache_dir):
    given = settings(tmp_path / "run", cache_dir, "multi_worker")
    (tmp_path / "mounted").symlink_to(tmp_path)  # A path of its own to the same directory is no difference.
    outputs, codes = wait(start(given, unlike=["--seed=7", f"--workdir={tmp_path / 'mounted' / 'run'}"]))
    assert codes == [2, 2], outputs
    for output in outputs:
        assert "--seed is 2 on worker 0 and 7 on worker 1" in output
        assert "Traceback" not in output


def test_workers_that_do_not_share_the_run_directory_are_refused_before_anything_is_trained(
    tmp_path, cache_dir
):
    given = settings(tmp_path / "run", cache_dir, "multi_worker")
    outputs, codes = wait(start(given, unlike=[f"--workdir={tmp_path / 'other'}"]))
    assert codes == [2, 2], outputs
    for output in outputs:
        assert f"worker 1 does not see it in {tmp_path / 'other'}" in output.splitlines()[-1]
        assert "Traceback" not in output
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"lock"}
    assert not (tmp_path / "other").exists()


def assert_is_exact(run, cache_dir, output, metric, split):
    """The best value of a run is that of its best checkpoint, computed from the logits of one device."""
    evaluate.run({"workdir": str(run), "cache_dir": cache_dir, "split": split, "output": str(output)})
    best = json.loads((run / "result.json").read_text())["best_metric"]
    # 1e-4 is less than one of 1,000 reviews, and some pairs of 300.
    assert json.loads(output.read_text())[metric] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("strategy", DEVICES)
def test_the_f1_of_all_reviews_is_exact_though_each_replica_sees_some(
    tmp_path, cache_dir, build_once, strategy
):
    run = undisturbed(build_once, cache_dir, strategy)
    assert_is_exact(run, cache_dir, tmp_path / "metrics.json", "f1", "validation")


@pytest.mark.parametrize("strategy", DEVICES)
def test_a_warning_is_given_once_for_all_workers(cache_dir, build_once, strategy):
    outputs = json.loads((undisturbed(build_once, cache_dir, strategy).parent / "outputs.json").read_text())
    assert sum("unknown to the vocabulary" in output for output in outputs) == 1


@pytest.mark.parametrize("strategy", DEVICES)
def test_the_auc_of_all_reviews_is_exact_though_each_replica_sees_some(
    tmp_path, cache_dir, with_everything, strategy
):
    run = with_everything(strategy)
    assert_is_exact(run, cache_dir, tmp_path / "metrics.json", "auc", "validation[:300]")
