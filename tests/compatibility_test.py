"""Whether a run may be resumed with the given flags."""

import pytest
from fakes import NoStopRequests, resume_one_epoch

from trainer import train
from trainer.errors import InputError
from trainer.run import conditions


@pytest.mark.parametrize(
    "setting", [{"seed": 5}, {"vocab_size": 90}, {"lstm_units": 16}, {"batch_size": 8}, {"max_length": 9}]
)
def test_a_fixed_flag_cannot_change_even_with_allow_inexact_resume(copy_of_one_epoch, cache_dir, setting):
    (name,) = setting
    with pytest.raises(InputError, match=f"--{name} was "):
        resume_one_epoch(copy_of_one_epoch, cache_dir, allow_inexact_resume=True, **setting)


def test_a_changed_split_is_refused_by_name(copy_of_one_epoch, cache_dir):
    with pytest.raises(InputError, match=r"--train_split was train\[:31\] and is train\[:30\] now"):
        resume_one_epoch(copy_of_one_epoch, cache_dir, train_split="train[:30]")


def test_an_inexact_flag_may_change_when_allowed_and_is_then_stored(copy_of_one_epoch, cache_dir, caplog):
    with pytest.raises(InputError, match=r"--learning_rate was 0\.03 and is 0\.5 now"):
        resume_one_epoch(copy_of_one_epoch, cache_dir, learning_rate=0.5, epochs=2)
    resume_one_epoch(copy_of_one_epoch, cache_dir, learning_rate=0.5, epochs=2, allow_inexact_resume=True)
    assert "inexactly" in caplog.text
    train.run(
        {"workdir": str(copy_of_one_epoch), "cache_dir": cache_dir, "epochs": 3},
        stop_requests=NoStopRequests(),
    )
    assert "--learning_rate=0.5\n" in (copy_of_one_epoch / "config.flags").read_text()


def test_a_different_machine_is_refused_by_name_unless_allowed(
    copy_of_one_epoch, cache_dir, monkeypatch, caplog
):
    real = conditions.conditions
    monkeypatch.setattr(conditions, "conditions", lambda **kwargs: {**real(**kwargs), "cpu": "Z80"})
    with pytest.raises(InputError, match=r"cpu was '.*' and is 'Z80' now"):
        resume_one_epoch(copy_of_one_epoch, cache_dir, epochs=2)
    resume_one_epoch(copy_of_one_epoch, cache_dir, epochs=2, allow_inexact_resume=True)
    assert "is 'Z80' now" in caplog.text
