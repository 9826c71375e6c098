"""What training logs."""

import types

import pytest

from trainer import progress


@pytest.mark.parametrize("last_step", [9, 1890])
def test_the_lines_of_training_and_of_validation_align(caplog, last_step):
    run = types.SimpleNamespace(
        last_step=last_step, data=types.SimpleNamespace(plan=types.SimpleNamespace(steps_per_epoch=63))
    )
    metrics = {"loss": 0.5, "accuracy": 0.25}
    for name, step in (("train", 1), ("validation", last_step), ("test", 5)):
        progress.log_line(run, name, step, metrics, "remark")
    lines = [record.getMessage() for record in caplog.records]
    assert len({tuple(at for at, letter in enumerate(line) if letter == "|") for line in lines}) == 1
    assert all(line.endswith("| loss 0.5000 | accuracy 0.2500 | remark") for line in lines)
