"""The environment in which TensorFlow is imported: variables that affect bits, and its log lines."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Sets variables that TensorFlow reads on import, unless the user has set them; silences the import.

    Keras' settings are always this program's own: neither the environment nor the user's keras.json changes
    them, and none are written. TensorFlow's libraries print while they load, before any log level applies;
    TF_CPP_MIN_LOG_LEVEL=0 shows everything. What is imported later leaves no bytecode.
    """
    for name in [name for name in os.environ if name.startswith("KERAS_")]:
        del os.environ[name]
    # The null device is not a directory: no keras.json is below it, and none can be made.
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
    try:
        with contextlib.nullcontext() if "TF_CPP_MIN_LOG_LEVEL" in os.environ else _silenced():
            yield
    finally:
        # TensorFlow writes generated Python to the folder for temporary files, and removes it at the end;
        # the bytecode of it would stay there.
        sys.dont_write_bytecode = True


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    stderr = os.dup(2)
    with pathlib.Path(os.devnull).open("wb") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
