"""The conditions of exactness: what must not change for a resumed run to stay bit-identical."""

import importlib.metadata
import os
import re
from collections.abc import Mapping

import tensorflow as tf

from trainer import machine

_CORES = "usable cores"
# Set by threadpoolctl when scikit-learn is there, which Keras imports; they decide no bit.
_SET_BY_IMPORTS = re.compile(r" ?\bKMP_(DUPLICATE_LIB_OK|INIT_AT_FORK)=\S*")
# Where XLA keeps what it has compiled decides no bit.
_CACHE = re.compile(r"--tf_xla_persistent_cache_(directory|device_types)=\S*")
_EMPTIED = re.compile(r"\bTF_XLA_FLAGS=\s*(?=[A-Z][A-Z0-9_]*=|$)")
# The environment variables by which TensorFlow, XLA and their kernels choose how to compute; those for logs
# and paths are left out.
_ENVIRONMENT = (
    *("TF_XLA_", "TF_ENABLE_", "TF_DISABLE_", "TF_NUM_", "TF_CPU_", "TF_GPU_", "TF_CUDNN_", "TF_USE_"),
    *("TF_DETERMINISTIC", "TF_OVERRIDE_"),
    *("XLA_", "OMP_", "KMP_", "DNNL_", "ONEDNN_", "CUDNN_", "NVIDIA_TF32"),
)


def conditions(*, numerics: Mapping[str, str], intra_op_threads: int, replicas: int = 1) -> dict[str, str]:
    """The conditions of this process, each with its value.

    Args:
      numerics: the ids of those parts of our code that affect the bits of a result, by name.
      intra_op_threads: how many threads share an operation; 0: TensorFlow decides.
      replicas: how many replicas train together.
    """
    devices = sorted({device.device_type for device in tf.config.list_logical_devices()})
    environment = [
        f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_ENVIRONMENT)
    ]
    # The number of cores affects bits only through the threads that share an operation, if TensorFlow derives
    # their number from it. How many operations run at a time affects none.
    cores = {} if intra_op_threads else {_CORES: str(machine.usable_cores())}
    recorded = {
        **{package: importlib.metadata.version(package) for package in ("tensorflow", "keras", "numpy")},
        **machine.cpu(),
        **cores,
        "devices": " ".join(devices),
        "replicas": str(replicas),
        "environment": " ".join(environment),
        **numerics,
    }
    return compared(recorded)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Each condition that differs from the run's: its name, the run's value and the new one.

    Args:
      before: the run's conditions.
      now: the conditions of this process.
    """
    names = before.keys() | now.keys()
    if _CORES not in now:  # Older versions recorded it whatever the threads were.
        names -= {_CORES}
    return [
        f"{name} was {before.get(name, 'not recorded')!r} and is {now.get(name, 'not recorded')!r} now"
        for name in sorted(names)
        if compared(before).get(name) != compared(now).get(name)
    ]


def compared(conditions: Mapping[str, str]) -> dict[str, str]:
    """The conditions without those parts of the environment that decide no bit."""
    environment = conditions.get("environment")
    if environment is None:
        return dict(conditions)
    for ignored in (_CACHE, _SET_BY_IMPORTS, _EMPTIED):
        environment = ignored.sub("", environment)
    plain = " ".join(environment.split()).replace("TF_XLA_FLAGS= ", "TF_XLA_FLAGS=")
    return {**conditions, "environment": plain}
