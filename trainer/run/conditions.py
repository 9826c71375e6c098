"""The conditions of exactness: what must not change for a resumed run to stay bit-identical."""

import hashlib
import importlib.metadata
import os
import pathlib
from collections.abc import Mapping

import tensorflow as tf

# What TensorFlow, XLA and their kernels read from the environment to choose how to compute; not what they log
# or where they look.
_ENVIRONMENT = (
    *("TF_XLA_", "TF_ENABLE_", "TF_DISABLE_", "TF_NUM_", "TF_CPU_", "TF_GPU_", "TF_CUDNN_", "TF_USE_"),
    *("TF_DETERMINISTIC", "TF_OVERRIDE_"),
    *("XLA_", "OMP_", "KMP_", "DNNL_", "ONEDNN_", "CUDNN_", "NVIDIA_TF32"),
)


def conditions(*, numerics: dict[str, str], replicas: int = 1) -> dict[str, str]:
    """The conditions of this process, each with its value.

    Args:
      numerics: the ids of our own code that decides bits, by name.
      replicas: how many replicas train together.
    """
    devices = sorted({device.device_type for device in tf.config.list_logical_devices()})
    environment = [
        f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_ENVIRONMENT)
    ]
    return {
        **{package: importlib.metadata.version(package) for package in ("tensorflow", "keras", "numpy")},
        **_cpu(),
        "usable cores": str(len(os.sched_getaffinity(0))),
        "devices": " ".join(devices),
        "replicas": str(replicas),
        "environment": " ".join(environment),
        **numerics,
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Each condition that differs from the run's: its name, the run's value and the new one.

    Args:
      before: the run's conditions.
      now: those of this process.
    """
    return [
        f"{name} was {before.get(name, 'not recorded')!r} and is {now.get(name, 'not recorded')!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _cpu() -> dict[str, str]:
    """Model, features and caches, by which kernels choose their blocks, and so the order of their sums."""
    facts: dict[str, str] = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    features = " ".join(sorted((facts.get("flags") or facts.get("Features") or "").split()))
    caches = [
        path.read_text().strip()
        for path in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    ]
    return {
        "cpu": facts.get("model name") or os.uname().machine,
        "cpu features": hashlib.sha256(features.encode()).hexdigest()[:12],
        "cpu caches": " ".join(caches),
    }
