"""How long a save stalls training, compared with a plain write of the same state."""

import tempfile

from our_contender import open_benchmark_session, save
from timing import machine, machine_line, seconds, spread

from trainer.tensorflow_setup import importing_tensorflow

with importing_tensorflow():
    import tensorflow as tf

_WARM_UP = 3  # the first saves and writes of a process take longer


def compare_saves(count: int) -> None:
    """Saves and plain writes, which are neither synced nor read back, take turns; prints the median times."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_benchmark_session(f"--workdir={folder}/run", "--verbosity=-1")
        plain = tf.train.Checkpoint(root=session.state)
        scalars = dict.fromkeys(("loss", "accuracy", "gradient_norm"), 0.0)
        saves, writes = [], []
        for step in range(1, count + _WARM_UP + 1):
            session.state.step.assign(step)
            session.events.write("train", step=step, scalars=scalars)
            saves.append(1000 * seconds(lambda: save(session)))
            writes.append(1000 * seconds(lambda step=step: plain.write(f"{folder}/plain-{step}")))
    saves, writes = saves[_WARM_UP:], writes[_WARM_UP:]
    ratios = [save / write for save, write in zip(saves, writes, strict=True)]
    print(
        f"{machine_line(machine())}; median of {count} (least-most)\n"
        f"A save stalls training for {spread(saves)} ms; a plain tf.train.Checkpoint.write of the same state "
        f"takes {spread(writes)} ms; ratio {spread(ratios)}."
    )
