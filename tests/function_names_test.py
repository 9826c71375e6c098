"""Names of traced functions."""

import subprocess
import sys

import processes
import pytest
from local_cluster import ROOT

PROGRAM = """
import sys
import tensorflow as tf
from trainer import function_names

for _ in range(int(sys.argv[1])):
    tf.function(lambda: tf.constant(0)).get_concrete_function()

@tf.function(autograph=False)
def function():
    function_names.number_from(20_000)
    return tf.constant(1)

print(function.get_concrete_function().name.decode())
"""


@pytest.mark.slow
def test_a_function_has_the_same_name_whatever_was_traced_before():
    def name(run, traced_before):
        command = [sys.executable, "-c", PROGRAM, str(traced_before)]
        return run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    # A process of its own has other hashes than a fork.
    assert name(subprocess.run, 0) == name(processes.run, 7) != ""
