"""The arrays of a token store: read on demand, and checked."""

import hashlib
import os

import numpy as np
import pytest

from trainer.data import stored_array
from trainer.data.stored_array import StoredArray, Verification, open_array
from trainer.errors import StorageError

VALUES = np.array([0, 3, 3, 7, 20, 21], np.int64)
SHA256 = hashlib.sha256(VALUES.tobytes()).hexdigest()


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "offsets.bin"
    file.write_bytes(VALUES.tobytes())
    return file


@pytest.mark.parametrize(
    "wanted", [slice(1, 4), slice(0, 0), slice(4, 99), slice(-2, None), np.array([5, 0, 0]), np.array([-1])]
)
def test_a_stored_array_is_indexed_like_one_in_memory(path, wanted):
    np.testing.assert_array_equal(StoredArray(path, "<i8", size=path.stat().st_size)[wanted], VALUES[wanted])


def test_a_small_array_is_held_in_memory_and_a_large_one_is_not(path, monkeypatch):
    assert isinstance(open_array(path, "<i8", size=48), np.ndarray)
    monkeypatch.setattr(stored_array, "IN_MEMORY_BYTES", 47)
    assert isinstance(open_array(path, "<i8", size=48), StoredArray)


def test_a_file_of_the_wrong_size_is_refused(path):
    with pytest.raises(ValueError, match="must have 56 bytes"):
        open_array(path, "<i8", size=56)


def test_a_file_truncated_while_it_is_read_is_an_error_and_not_a_signal(path):
    array = StoredArray(path, "<i8", size=48)
    os.truncate(path, 16)
    np.testing.assert_array_equal(array[:2], VALUES[:2])
    for wanted in (slice(0, 6), np.array([5])):
        with pytest.raises(StorageError, match="it was truncated"):
            array[wanted]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (VALUES, None),
        ([0, 3, 3, 7, 20, 22], "a value that is not from 0 to 21"),
        ([0, 3, -1, 7, 20, 21], "a value that is not from 0 to 21"),
        ([0, 3, 2, 7, 20, 21], "decreasing offsets"),
        ([0, 3, 3, 8, 20, 21], "differs from what was written"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_damage_is_found_by_ranges_order_and_checksum(tmp_path, values, why, in_memory, monkeypatch):
    monkeypatch.setattr(stored_array, "_CHUNK_BYTES", 16)
    path = tmp_path / "offsets.bin"
    path.write_bytes(np.array(values, np.int64).tobytes())
    array = StoredArray(path, "<i8", size=48)
    found = stored_array.damage(array[:] if in_memory else array, sha256=SHA256, at_most=21, rises=True)
    assert (found is None) == (why is None)
    assert why is None or why in found


def test_a_verification_is_repeated_if_a_file_was_written_meanwhile(path):
    array = StoredArray(path, "<i8", size=48)
    verification = Verification(
        lambda: stored_array.damage(array, sha256=SHA256, at_most=21, rises=True), [array]
    )
    assert verification.result(wait=True) is None
    with path.open("r+b") as file:
        file.write(bytes([1]))
    os.utime(path, ns=(1, 1))
    assert verification.result(wait=True) == "differs from what was written"
