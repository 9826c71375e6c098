"""A folder in which all processes of one test run keep what XLA compiled.

It takes the place of the product's own, which `compiled_cache_test` tests, because many tests have a cache
folder of their own. `main_test` holds that a start which compiles for itself computes the same bits.
"""

import os
import shutil
import tempfile

from trainer.tensorflow_setup import COMPILED

_own = ""


def share() -> None:
    """Makes the folder and names it in the environment, which TensorFlow reads once, unless one is named."""
    global _own
    if os.environ.get("TF_XLA_FLAGS", COMPILED).count(COMPILED):
        _own = tempfile.mkdtemp(prefix="xla-cache-")
        os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={_own}"


def remove() -> None:
    """Removes the folder, in the process that made it."""
    if _own:
        shutil.rmtree(_own)
