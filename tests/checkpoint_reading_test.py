"""Reading parts of a checkpoint without building the whole state."""

import pytest
import tensorflow as tf
from fakes import TinyModel
from saved_runs import save_steps

from trainer.errors import InputError
from trainer.run import checkpoint_reading


def test_a_checkpoint_of_a_different_program_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / "checkpoints" / "ckpt-1"))
    with pytest.raises(InputError, match="ckpt-1"):
        checkpoint_reading.read_text(tmp_path / "checkpoints" / "ckpt-1", "frozen_flags")


def test_a_string_of_the_state_is_read_without_a_model(tmp_path):
    save_steps(tmp_path, [1])
    assert checkpoint_reading.read_text(tmp_path / "checkpoints" / "ckpt-1", "frozen_flags") == "--seed=0\n"


def test_scalars_of_the_state_are_read_by_name(tmp_path):
    save_steps(tmp_path, [7])
    values = checkpoint_reading.read_values(tmp_path / "checkpoints" / "ckpt-7")
    assert values["step"] == 7
    assert values["frozen_flags"] == b"--seed=0\n"
    assert "model/layer/_kernel" not in values  # not a scalar


@pytest.mark.parametrize("text", ["{", "[]", '{"cpu": 1}'])
def test_a_string_that_is_not_a_json_object_of_strings_is_refused(tmp_path, text):
    save_steps(tmp_path, [1])
    prefix = tmp_path / "checkpoints" / "ckpt-1"
    assert checkpoint_reading.read_texts(prefix, "conditions") == {}
    with pytest.raises(
        InputError, match=r"ckpt-1 .* its 'conditions' is not a JSON object of strings; give another"
    ):
        checkpoint_reading.read_texts(prefix, "conditions", {"conditions": text.encode()})


def test_a_model_is_restored_without_the_rest_of_the_state(tmp_path):
    state, _ = save_steps(tmp_path, [3])
    model = TinyModel()
    checkpoint_reading.restore_parts(tmp_path / "checkpoints" / "ckpt-3", model=model)
    assert model.layer.kernel.numpy().tolist() == state.model.layer.kernel.numpy().tolist()


def test_a_module_that_does_not_fit_the_checkpoint_is_refused(tmp_path):
    save_steps(tmp_path, [3])
    with pytest.raises(InputError, match=r"ckpt-3 must fit the model of this program, but does not"):
        checkpoint_reading.restore_parts(
            tmp_path / "checkpoints" / "ckpt-3", model=tf.Module(), other=TinyModel()
        )
