"""The names of traced functions, by which what XLA compiled is found in a later start."""

from tensorflow.python.framework import ops


def number_from(number: int) -> None:
    """Makes the name of the function that is being traced the same in each start.

    TensorFlow numbers the operations of a process one by one, and a traced function has such a number in its
    name. No public API sets it. If a name differs nevertheless, the function is only compiled anew.

    Args:
      number: the least number of operations in this function, greater than that of those traced before.
    """
    while ops.uid() < number:
        pass
