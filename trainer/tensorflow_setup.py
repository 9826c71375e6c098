"""The environment in which TensorFlow is imported: variables that affect bits, and its log lines."""

import contextlib
import gc
import os
import pathlib
import sys
from collections.abc import Iterator

# Where TensorFlow puts what XLA compiles for the CPU: in memory. `compiled_cache` copies it to the disk and
# back.
COMPILED = "ram://compiled"
_CACHE = "--tf_xla_persistent_cache"
_XLA_FLAGS = f"{_CACHE}_directory={COMPILED} {_CACHE}_device_types=CPU"

_NOT_NEEDED = ("matplotlib",)


@contextlib.contextmanager
def importing_tensorflow() -> Iterator[None]:
    """Sets variables that TensorFlow reads on import, unless the user has set them; silences the import.

    Keras' settings are always this program's own: neither the environment nor the user's keras.json changes
    them, and none are written. TensorFlow's libraries print while they load, before any log level applies;
    TF_CPP_MIN_LOG_LEVEL=0 shows everything. What is imported later leaves no bytecode.

    Keras plots images with matplotlib, which it imports if there is one: a sixth of the time of the import.
    Inside there seems to be none.

    Modules are never garbage: to look for it among them would take a fifth of the time of the import, and
    some of that of all that follows.
    """
    for name in [name for name in os.environ if name.startswith("KERAS_")]:
        del os.environ[name]
    # The null device is not a directory: no keras.json is below it, and none can be made.
    os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
    given = os.environ.get("TF_XLA_FLAGS", "").strip()
    # It may also name a file of flags, to which nothing can be added.
    if _CACHE not in given and (not given or given.startswith("-")):
        os.environ["TF_XLA_FLAGS"] = f"{given} {_XLA_FLAGS}".strip()
    gc.disable()
    without = {name: None for name in _NOT_NEEDED if name not in sys.modules}
    sys.modules |= without  # type: ignore[arg-type]
    try:
        with contextlib.nullcontext() if "TF_CPP_MIN_LOG_LEVEL" in os.environ else _silenced():
            yield
    finally:
        for name in without:
            del sys.modules[name]
        # TensorFlow writes generated Python to the folder for temporary files, and removes it at the end;
        # the bytecode of it would stay there.
        sys.dont_write_bytecode = True
        gc.freeze()
        gc.enable()


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
