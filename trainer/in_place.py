"""Variables that live for one call of a graph, which compiled functions change in place.

XLA copies an argument that a loop changes, unless it is a variable to which the function assigns the result
and whose memory nothing else refers to. (A copy of a mebibyte or more is also for the intra-op threads: with
one such thread, functions that run side by side would wait for each other.)
"""

import tensorflow as tf

# `tensorflow::ResourceHandle::ANONYMOUS_NAME`: each execution makes a variable of its own, which is freed
# with its last handle.
_ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"


def variable() -> tf.Tensor:
    """Makes a variable; returns its handle, a scalar of dtype resource that functions take as an argument.

    TensorFlow calls functions that make variables one after the other, but not functions that are given
    different ones.
    """
    return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=None, shared_name=_ANONYMOUS)


def assign(handle: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Replaces the value, float32; returns the handle, to be used for what is to come after."""
    # A graph of gradients does not order operations on a variable by itself.
    with tf.control_dependencies([tf.raw_ops.AssignVariableOp(resource=handle, value=value)]):
        return tf.identity(handle)


def read(handle: tf.Tensor, after: tf.Tensor | None = None) -> tf.Tensor:
    """The value, once `after` is computed.

    As long as it is in use, a function that assigns another copies it first.
    """
    with tf.control_dependencies([] if after is None else [after]):
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
