"""A folder in which all processes of one test run keep what XLA compiled.

What XLA compiles depends on its input alone; taking it from the folder saves a third of the time of a start.
`main_test` holds that a start which compiles for itself computes the same bits.
"""

import os
import shutil
import tempfile

_own = ""


def share() -> None:
    """Makes the folder and names it in the environment, which TensorFlow reads once, unless one is named."""
    global _own
    if "TF_XLA_FLAGS" not in os.environ:
        _own = tempfile.mkdtemp(prefix="xla-cache-")
        os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={_own}"


def remove() -> None:
    """Removes the folder, in the process that made it."""
    if _own:
        shutil.rmtree(_own)
