"""Kills a run again and again at random instants, resumes it, and compares every bit with a run that was left alone.

    python scripts/kill_and_resume.py [--kills=20] [--seed=0] [--signal=KILL] [-- FLAGS OF THE TRAINER]
    python scripts/kill_and_resume.py --strategy=mirrored [--replicas=2]        # the CPU split into that many devices
    python scripts/kill_and_resume.py --forks       # starts that import nothing: more kills in the same time
    python scripts/kill_and_resume.py --strategy=multi_worker [--replicas=2]    # that many processes, of which one is killed

Each process is killed at an instant between its start and a little beyond its end. The same command resumes. A run that has come to its
end is compared with its undisturbed twin, every tensor, file and logged value but rates, and a new one is begun. TERM or INT in the place
of KILL show how long the trainer takes to end by itself. Of several workers all have to end when one is killed, within 30 seconds.
"""

import argparse
import collections
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from fork_server import ForkServer
from local_cluster import SECS_TO_END, start_workers
from tqdm import tqdm

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from trainer import files
from trainer.main import importing_tensorflow

with importing_tensorflow():
    import tensorflow as tf

ROOT = pathlib.Path(__file__).parent.parent
SMALL_RUN = [
    *("--train_split=train[:640]", "--validation_split=validation[:512]", "--test_split=test[:512]", "--batch_size=8", "--epochs=2"),
    *("--embedding_dim=16", "--lstm_units=16", "--dense_units=16", "--dropout=0.2", "--learning_rate=0.005", "--patience=3"),
    *("--eval_every_steps=20", "--checkpoint_every_steps=3", "--log_every_steps=5"),
]
COPIES = ("config.flags", "manifest.json", "vocabulary.txt", "result.json")


def tensors(prefix: pathlib.Path | str) -> dict[str, bytes]:
    """Every tensor of a checkpoint, as bytes."""
    with files.plain_name(pathlib.Path(prefix)) as name:
        reader = tf.train.load_checkpoint(name)
        values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    return {name: value if isinstance(value, bytes) else np.asarray(value).tobytes() for name, value in values.items()}


def scalars(directory: pathlib.Path) -> dict[tuple[str, str, int], list[float | bytes]]:
    """What the event log below `directory` holds: (run, tag, step) -> its values or texts, as TensorBoard's readers would find them."""
    points: dict[tuple[str, str, int], list[float | bytes]] = {}
    for path in sorted(path for path in directory.glob("*/events.out.tfevents.*") if path.is_file()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                points.setdefault((path.parent.name, value.tag, event.step), []).append(tf.make_ndarray(value.tensor).item())
    return points


def outcome(workdir: pathlib.Path) -> dict:
    """All that a run leaves and that a kill must not change; rates are the one value that may differ."""
    newest = max((workdir / "checkpoints").glob("ckpt-*.index"), key=lambda path: int(path.stem.removeprefix("ckpt-"))).with_suffix("")
    best = {path.stem: tensors(path.with_suffix("")) for path in (workdir / "best").glob("ckpt-*.index")}
    points = {key: values for key, values in scalars(workdir / "summaries").items() if key[1] != "reviews_per_second"}
    state = tensors(newest)
    state.pop("free_flags/.ATTRIBUTES/VARIABLE_VALUE", None)  # config.flags has them too
    return {"newest": newest.name, "state": state, "best": best, "points": points} | {
        name: (workdir / name).read_bytes() for name in COPIES
    }


def differences(expected: dict, actual: dict, name: str = "") -> list[str]:
    """The names of the values that are not the same."""
    if not isinstance(expected, dict) or not isinstance(actual, dict):
        return [] if expected == actual else [name]
    keys = sorted(expected.keys() | actual.keys(), key=str)
    return [difference for key in keys for difference in differences(expected.get(key), actual.get(key), f"{name} {key}".strip())]


def start(
    workdir: pathlib.Path, flags: list[str], log: pathlib.Path, *, workers: int = 0, popen: Callable[..., subprocess.Popen]
) -> list[subprocess.Popen]:
    """Starts the trainer, in one process or as many workers; what it says goes to `log`."""
    flags = [*flags, f"--workdir={workdir}"]
    with log.open("wb") as output:
        if workers:
            return start_workers(workers, flags, popen=popen, stdout=output, stderr=output)
        return [popen([sys.executable, "-m", "trainer.main", *flags], cwd=ROOT, stdout=output, stderr=output)]


def wait(processes: list[subprocess.Popen], secs: float | None = None) -> list[int]:
    """The exit codes; raises subprocess.TimeoutExpired when not all have ended within `secs`."""
    deadline = time.monotonic() + secs if secs is not None else None
    return [process.wait(max(0, deadline - time.monotonic()) if deadline else None) for process in processes]


def phase(workdir: pathlib.Path, said: str) -> str:
    """Where a process was when it was killed, as far as it can be told from what it said and left."""
    leftovers = [path for pattern in ("*/*_temp", "*/checkpoint.tmp*", "**/.*.tmp") for path in workdir.glob(pattern)]
    if "Ended at step" in said:
        return "ending"
    if "is abandoned" in said:  # by a signal; a kill leaves no word
        return "evaluation"
    if leftovers:
        return "in a save"
    # The first thing said in training, of a new and of a resumed run.
    return "training" if "with probability" in said or "Resumed at step" in said else "start-up"


def kill_and_resume(
    *,
    kills: int,
    seed: int,
    signum: int,
    flags: list[str],
    folder: pathlib.Path,
    workers: int = 0,
    popen: Callable[..., subprocess.Popen] = subprocess.Popen,
) -> tuple[dict, list[str]]:
    """Kills `kills` times; returns the seconds from each signal to the end of all processes, by phase, and what went wrong."""
    rng = random.Random(seed)
    began = time.monotonic()
    if any(wait(start(folder / "twin", flags, folder / "twin.log", workers=workers, popen=popen))):
        raise SystemExit((folder / "twin.log").read_text())
    lifetime = time.monotonic() - began
    twin = outcome(folder / "twin")
    seconds = collections.defaultdict(list)
    workdir, log = folder / "run", folder / "run.log"
    with tqdm(total=kills, unit="kill", disable=None) as bar:
        while kills >= 0:
            processes = start(workdir, flags, log, workers=workers, popen=popen)
            allowed = {0}
            try:
                codes = wait(processes, 1.1 * lifetime * rng.random() if kills else None)
                kills -= not kills  # the last start was left alone
            except subprocess.TimeoutExpired:
                sent = time.monotonic()
                rng.choice(processes).send_signal(signum)
                try:
                    codes = wait(processes, SECS_TO_END)
                except subprocess.TimeoutExpired:
                    return seconds, [f"{SECS_TO_END} s after the signal not all have ended: {log.read_text()}"]
                finally:
                    for process in processes:
                        process.kill()
                seconds[phase(workdir, log.read_text())].append(time.monotonic() - sent)
                # Other workers lose their peer, or are told of its signal, which they call SIGTERM.
                allowed |= {-signum, 128 + signum} | ({5, 128 + signal.SIGTERM} if workers else set())
                kills -= 1
                bar.update()
            if not allowed.issuperset(codes) or "Traceback" in log.read_text():
                return seconds, [f"exit codes {codes}: {log.read_text()}"]
            if not any(codes):
                wrong = differences(twin, outcome(workdir))
                if wrong:
                    return seconds, wrong
                shutil.rmtree(workdir)
    return seconds, []


def main() -> int:
    """Prints how many kills fell into which phase, and whether anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--forks", action="store_true", help="starts that import nothing")
    parser.add_argument("--strategy", choices=("one_device", "mirrored", "multi_worker"), default="one_device")
    parser.add_argument("--replicas", type=int, default=2, help="devices of mirrored, or workers of multi_worker")
    parser.add_argument("flags", nargs="*", help="flags of the trainer, after --; without: a small run on sample_reviews")
    given = parser.parse_args()
    flags = [*(given.flags or SMALL_RUN), f"--strategy={given.strategy}"]
    flags += [f"--logical_devices={given.replicas}"] if given.strategy == "mirrored" else []
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, ForkServer() as server:
        seconds, wrong = kill_and_resume(
            kills=given.kills,
            seed=given.seed,
            signum=signal.Signals[f"SIG{given.signal}"],
            flags=flags,
            workers=given.replicas if given.strategy == "multi_worker" else 0,
            folder=pathlib.Path(folder),
            popen=server.popen if given.forks else subprocess.Popen,
        )
    for name in sorted(seconds):
        print(f"{name:<10} {len(seconds[name]):>4} kills, each ended within {max(seconds[name]):.2f} s")
    print(*wrong, f"{sum(map(len, seconds.values()))} kills, {len(wrong)} differences", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
