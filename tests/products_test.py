"""Sums of products without some rows of zeros, bit for bit with all rows, for each processor of oneDNN."""

import itertools
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from processes import run

from trainer.model import products

SIZES = (7, 1000), (64, 4096), (100, 4032), (256, 2048), (512, 2500)  # units, rows


@tf.function(autograph=False)
def of_rows(x, y):
    return tf.matmul(x, y, transpose_a=True), tf.reduce_sum(y, axis=0)


def equal(ours, expected):
    return all(np.array_equal(a, b) for a, b in zip(ours, expected, strict=True))


def random_rows(rows, units):
    random = np.random.default_rng(units)
    return (random.standard_normal((rows, width), np.float32) for width in (units, 4 * units))


def check_first_rows():
    for units, rows in SIZES:
        x, y = random_rows(rows, units)
        for part in (0.5, 0.9):
            zero = int(part * rows)
            x[:zero], y[:zero] = 0.0, 0.0
            start = int(products.first_rows_to_leave_out(tf.constant(zero), rows))
            assert equal(of_rows(x[start:], y[start:]), of_rows(x, y)), (units, rows, zero, start)


def check_padding():
    for units, size in itertools.product((64, 300), products.padded_sizes(4096)):
        used = size - 100
        power = 2 ** (size - 1).bit_length()
        x, y = random_rows(power, units)
        x[used:], y[used:] = x[0], 0.0  # what is added to the tokens of a batch is a token without gradient
        assert equal(of_rows(x[:size], y[:size]), of_rows(x, y)), (units, size)


def check():
    tf.config.threading.set_intra_op_parallelism_threads(1)
    check_first_rows()
    check_padding()


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["ALL", "AVX2", "AVX", "SSE41"])
def test_no_bit_depends_on_whether_the_rows_are_left_out(processor):
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": processor, "TF_XLA_FLAGS": ""}
    program = f"import sys; sys.path[:0] = {sys.path!r}; import products_test; products_test.check()"
    run([sys.executable, "-c", program], env=environment, check=True)


def test_without_known_blocks_no_row_is_left_out(monkeypatch):
    monkeypatch.setattr(products, "are_in_blocks", lambda: False)
    assert int(products.first_rows_to_leave_out(tf.constant(4000), 4096)) == 0
    assert products.padded_sizes(5000) == [1024, 2048, 4096, 8192]


def test_with_known_blocks_rows_are_left_out_in_blocks(monkeypatch):
    monkeypatch.setattr(products, "are_in_blocks", lambda: True)
    left_out = [
        int(products.first_rows_to_leave_out(tf.constant(zero), 4096)) for zero in (0, 767, 900, 4096)
    ]
    assert left_out == [0, 0, 768, 3072]
    assert products.padded_sizes(5000) == [1024, 1536, 2048, 3072, 4096, 6144, 8192]


def test_a_small_vocabulary_has_one_size():
    assert products.padded_sizes(3) == [1024]


@pytest.mark.parametrize(
    ("threads", "machine", "onednn", "known"),
    [
        (1, "x86_64", True, True),
        (2, "x86_64", True, False),
        (0, "x86_64", True, False),
        (1, "arm64", True, False),
        (1, "x86_64", False, False),
    ],
)
def test_the_blocks_are_those_of_onednn_on_x86_with_one_thread(monkeypatch, threads, machine, onednn, known):
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: threads)
    monkeypatch.setattr(products.platform, "machine", lambda: machine)
    monkeypatch.setattr(products._pywrap_util_port, "IsMklEnabled", lambda: onednn)
    assert products.are_in_blocks() == known
