"""Keyed permutations, computed position by position: no buffer, and nothing to save."""

import numpy as np
import tensorflow as tf

KEY_BYTES = 12
_ROUNDS = 8  # the public `index_shuffle` has 4, with which permutations of two keys correlate by up to 0.5


def shuffled(start: int, stop: int, *, size: int, key: bytes) -> np.ndarray:
    """The values at positions start .. stop-1 of a permutation of 0 .. size-1.

    Args:
      start: the first position.
      stop: one past the last position.
      size: the number of positions.
      key: 12 bytes that determine the permutation.

    Returns:
      [stop - start] int64.
    """
    with tf.device("CPU"):
        return tf.raw_ops.RandomIndexShuffle(
            index=np.arange(start, stop),
            seed=np.frombuffer(key, "<u4", count=KEY_BYTES // 4).astype(np.uint32),
            max_index=np.int64(size - 1),
            rounds=_ROUNDS,
        ).numpy()
