"""Where a run trains: the devices, and the conditions under which its bits repeat."""

import hashlib
import importlib.metadata
import json
import os
import pathlib

import tensorflow as tf

# What TensorFlow, XLA and their kernels read from the environment to choose how to compute; not what they log or where they look.
_ENVIRONMENT = (
    *("TF_XLA_", "TF_ENABLE_", "TF_DISABLE_", "TF_NUM_", "TF_CPU_", "TF_GPU_", "TF_CUDNN_", "TF_USE_", "TF_DETERMINISTIC", "TF_OVERRIDE_"),
    *("XLA_", "OMP_", "KMP_", "DNNL_", "ONEDNN_", "CUDNN_", "NVIDIA_TF32"),
)


def set_threads(*, intra_op: int, inter_op: int) -> None:
    """Sets how many threads share an operation and how many operations run at a time, before TensorFlow runs any; 0: it decides."""
    tf.config.threading.set_intra_op_parallelism_threads(intra_op)
    tf.config.threading.set_inter_op_parallelism_threads(inter_op)


def conditions(*, numerics: dict[str, str]) -> dict[str, str]:
    """What has to be equal for a resumed run to have the bits of an uninterrupted one.

    Args:
      numerics: the ids of our own code that decides bits, by name.
    """
    devices = sorted({device.device_type for device in tf.config.list_logical_devices()})
    environment = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_ENVIRONMENT)]
    return {
        **{package: importlib.metadata.version(package) for package in ("tensorflow", "keras", "numpy")},
        **_cpu(),
        "usable cores": str(len(os.sched_getaffinity(0))),
        "devices": " ".join(devices),
        "replicas": "1",
        "environment": " ".join(environment),
        **numerics,
    }


def differences(stored: str, now: dict[str, str]) -> list[str]:
    """Each condition that is not what the run was begun under: its name, the run's value and today's."""
    before = json.loads(stored)
    return [
        f"{name} was {before.get(name, 'not recorded')!r} and is {now.get(name, 'not recorded')!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _cpu() -> dict[str, str]:
    """Model, features and caches: kernels choose their blocks, and with them the order of their sums, by these."""
    facts = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    features = " ".join(sorted((facts.get("flags") or facts.get("Features") or "").split()))
    caches = [path.read_text().strip() for path in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))]
    return {
        "cpu": facts.get("model name") or os.uname().machine,
        "cpu features": hashlib.sha256(features.encode()).hexdigest()[:12],
        "cpu caches": " ".join(caches),
    }
