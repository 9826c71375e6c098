"""Facts and functions of this machine: everything that only Linux has, with a fallback for other systems.

macOS has no /proc, /sys, O_PATH, sched_getaffinity or posix_fadvise, and its fsync does not reach the disk.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import re
import subprocess

PROC, SYS = pathlib.Path("/proc"), pathlib.Path("/sys")
_UNKNOWN = "unknown"  # a fact about the CPU that this system does not provide

_SYSCTL = "/usr/sbin/sysctl"  # of macOS; the sysctl of Linux has none of these names
_MODEL, _ARM_FEATURES = "machdep.cpu.brand_string", "hw.optional"
_X86_FEATURES = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
_CACHES = ("hw.l1icachesize", "hw.l1dcachesize", "hw.l2cachesize", "hw.l3cachesize")
_NO_FULL_SYNC = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY)


def usable_cores() -> int:
    """How many cores this process may use; without sched_getaffinity, how many the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_ahead(descriptor: int, start: int, length: int) -> None:
    """Asks the kernel to read bytes of a file in the background; without posix_fadvise, does nothing."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)


def sync(descriptor: int) -> None:
    """Waits until a file's content, or a directory's entries, are on the disk, not only in the drive's cache.

    On macOS only F_FULLFSYNC does that; some filesystems, such as network ones, support only fsync.
    """
    if hasattr(fcntl, "F_FULLFSYNC"):
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
        else:
            return
    os.fsync(descriptor)


def open_directory(path: str | os.PathLike[str]) -> int:
    """Opens a directory so that its descriptor can name it; without O_PATH it must be readable.

    Raises:
      OSError: when it can't be opened or is not a directory.
    """
    return os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)


def descriptor_name(descriptor: int) -> pathlib.Path | None:
    """A name of an open directory that stays valid when the directory is moved; None without /proc."""
    name = PROC / "self" / "fd" / str(descriptor)
    return name if name.is_dir() else None


def replace_descriptor_names(text: str, name: str) -> str:
    """Replaces every name made by `descriptor_name` in a text by `name`."""
    return re.sub(f"{re.escape(str(PROC))}/self/fd/[0-9]+", lambda _: name, text)


def is_locked(inode: int) -> bool:
    """Whether /proc lists a lock on a file; it omits those of other PID namespaces. False without /proc."""
    with contextlib.suppress(OSError):
        lines = (PROC / "locks").read_text(encoding="ascii").splitlines()
        return any(line.split()[5].rpartition(":")[2] == str(inode) for line in lines if "->" not in line)
    return False


def cpu() -> dict[str, str]:
    """Model, features and caches of the CPU, by which kernels choose block sizes and so the order of sums.

    Read from /proc and /sys; without /proc, from sysctl. A fact that neither provides is "unknown".
    """
    try:
        return _cpu_of_linux()
    except OSError:
        return _cpu_of_macos()


def _cpu_of_linux() -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in (PROC / "cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    sizes = sorted(SYS.glob("devices/system/cpu/cpu0/cache/index*/size"))
    return {
        "cpu": facts.get("model name") or os.uname().machine,
        "cpu features": _digest((facts.get("flags") or facts.get("Features") or "").split()),
        "cpu caches": " ".join(path.read_text().strip() for path in sizes),
    }


def _cpu_of_macos() -> dict[str, str]:
    facts = _sysctl(_MODEL, _ARM_FEATURES, *_X86_FEATURES, *_CACHES)
    features = [feature for name in _X86_FEATURES for feature in facts.get(name, "").split()]
    arm = {name: value for name, value in facts.items() if name.startswith(f"{_ARM_FEATURES}.")}
    features += [name for name, value in arm.items() if value != "0"]
    return {
        "cpu": facts.get(_MODEL) or os.uname().machine,
        "cpu features": _digest(features) if features else _UNKNOWN,
        "cpu caches": " ".join(facts[name] for name in _CACHES if name in facts) or _UNKNOWN,
    }


def _digest(features: list[str]) -> str:
    return hashlib.sha256(" ".join(sorted(features)).encode()).hexdigest()[:12]


def _sysctl(*names: str) -> dict[str, str]:
    # The known values by name; empty if there is no sysctl.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = [_SYSCTL, *names]
        completed = subprocess.run(command, capture_output=True, timeout=10, check=False)
        lines = (line.partition(": ") for line in completed.stdout.decode(errors="replace").splitlines())
        return {name: value.strip() for name, _, value in lines}
    return {}
