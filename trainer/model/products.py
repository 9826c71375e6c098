"""Which rows of zeros a product can leave out, without another bit of the result.

The gradient of a matrix of weights sums products over the rows of a batch. oneDNN, with which TensorFlow
multiplies matrices on most x86-64 processors, computes such a sum in blocks of rows, and adds these up. A
block of zeros changes nothing, but other blocks would round otherwise. With one thread, the numbers below are
whole blocks on all processors that oneDNN 3 distinguishes (SSE4.1, AVX, AVX2, AVX-512), with any sizes of the
matrices.
"""

import platform

import tensorflow as tf

# Whether oneDNN multiplies: it depends on the processor and on TF_ENABLE_ONEDNN_OPTS. No public API tells.
from tensorflow.python.util import _pywrap_util_port

_BLOCK = 768


def are_in_blocks() -> bool:
    """Whether products are computed in the known blocks; if not, no row can be left out."""
    # Several threads may each take some of the rows.
    is_one_thread = tf.config.threading.get_intra_op_parallelism_threads() == 1
    return is_one_thread and platform.machine() == "x86_64" and _pywrap_util_port.IsMklEnabled()


def first_rows_to_leave_out(zero: tf.Tensor, rows: int | tf.Tensor) -> tf.Tensor:
    """How many of the first rows a sum of products can leave out.

    Args:
      zero: how many of the first rows are zero, an int32 scalar.
      rows: how many there are.
    """
    if not are_in_blocks():
        return tf.zeros_like(zero)
    # The last rows are cut into blocks in another way if there are fewer.
    return tf.maximum(tf.minimum(zero, rows - _BLOCK) // _BLOCK * _BLOCK, 0)


def padded_sizes(most: int) -> list[int]:
    """The numbers of rows to which rows of zeros may be added, each the least that is larger than the last.

    They are the powers of two from 1,024 up to the first that is not less than `most`; where products are in
    blocks also three quarters of each but the first. They are few, because XLA compiles for each.
    """
    powers = [2**k for k in range(10, max(10, (most - 1).bit_length()) + 1)]
    quarters = [power * 3 // 4 for power in powers[1:]] if are_in_blocks() else []
    return sorted(powers + quarters)
