"""Reads a checkpoint: texts and scalars without a model, or parts of the saved state into objects."""

import contextlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer import files
from trainer.errors import InputError
from trainer.run.checkpoint_files import READ_ERRORS, VARIABLE_VALUE, open_reader, reason

Values = Mapping[str, Any]  # name -> NumPy scalar or bytes


def read_values(prefix: pathlib.Path) -> dict[str, Any]:
    """The scalars of the saved state by name, strings as bytes.

    Raises:
      InputError: when the checkpoint can't be read.
    """
    try:
        with open_reader(prefix) as reader:
            shapes = reader.get_variable_to_shape_map()
            names = [name for name, shape in shapes.items() if not shape and name.endswith(VARIABLE_VALUE)]
            return {name.removesuffix(VARIABLE_VALUE): reader.get_tensor(name) for name in names}
    except READ_ERRORS as error:
        raise InputError(
            f"{prefix} must be a checkpoint of this program, but can't be read: {reason(error, prefix)}."
        ) from error


def read_text(prefix: pathlib.Path, name: str, values: Values | None = None) -> str:
    """A string of the saved state.

    Args:
      prefix: the checkpoint.
      name: the string's name.
      values: the result of an earlier `read_values`; a training run may have removed the checkpoint since.

    Raises:
      InputError: when the checkpoint is not one of this program.
    """
    value = (read_values(prefix) if values is None else values).get(name)
    if not isinstance(value, bytes):
        raise InputError(
            f"{prefix} must be a checkpoint of this program, but it has no {name!r}; give another --workdir."
        )
    return value.decode(errors="replace")


def read_texts(prefix: pathlib.Path, name: str, values: Values | None = None) -> dict[str, str]:
    """The JSON object in a string of the saved state, whose values are all strings; see `read_text`."""
    with contextlib.suppress(ValueError, RecursionError):
        texts = json.loads(read_text(prefix, name, values))
        if isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()):
            return texts
    raise InputError(
        f"{prefix} must be a checkpoint of this program, but its {name!r} is not a JSON object of strings; "
        f"give another --workdir."
    )


def restore_parts(prefix: pathlib.Path, **parts: tf.Module | keras.optimizers.Optimizer) -> None:
    """Restores some attributes of the saved state, such as model=..., and nothing else.

    Raises:
      InputError: when they do not fit the checkpoint.
    """
    try:
        with files.plain_name(prefix) as name:
            status = tf.train.Checkpoint(root=tf.train.Checkpoint(**parts)).read(name)
            status.assert_existing_objects_matched().expect_partial()
    except Exception as error:  # TensorFlow may raise anything for a file that is not from this program.
        raise InputError(
            f"{prefix} must fit the model of this program, but does not: {reason(error, prefix)}."
        ) from error
