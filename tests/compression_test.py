"""Bytes of files, compressed or not."""

import bz2
import functools
import gzip
import io
import lzma
import os
import sys

import pyarrow
import pytest

from trainer.data import compression
from trainer.data.compression import Source
from trainer.errors import InputError

TEXT = b"".join(b"line %d of a text\n" % number for number in range(80_000))
COMPRESS = {
    "": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": functools.partial(lzma.compress, preset=0),
    "zstd": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", COMPRESS)
def test_a_file_is_decompressed_by_its_content_as_often_as_it_is_read(tmp_path, name):
    source = Source(write(tmp_path / "a.csv", COMPRESS[name](TEXT)))
    assert source.compression == name
    assert source.sample == TEXT[: len(source.sample)]
    assert 2**18 <= len(source.sample) < len(TEXT) and not source.is_complete
    for _ in range(2):
        assert b"".join(source.blocks()) == TEXT


@pytest.mark.parametrize("name", COMPRESS)
def test_two_compressed_parts_in_a_row_are_both_read(tmp_path, name):
    compress = COMPRESS[name]
    source = Source(write(tmp_path / "a", compress(b"first\n") + compress(b"second\n")))
    assert b"".join(source.blocks()) == b"first\nsecond\n"


@pytest.mark.parametrize("share", [0.3, 0.99])
@pytest.mark.parametrize("name", [name for name in COMPRESS if name])
def test_a_compressed_file_that_is_cut_short_is_an_input_error(tmp_path, name, share):
    whole = COMPRESS[name](os.urandom(5 * 2**18))
    path = write(tmp_path / "a.csv", whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=rf"a\.csv \({name}\) is cut short or corrupt") as error:
        list(Source(path).blocks())
    assert str(error.value).isprintable()


def test_corrupt_bytes_in_a_compressed_file_are_an_input_error(tmp_path):
    whole = gzip.compress(TEXT)
    middle = len(whole) // 2
    path = write(tmp_path / "a", whole[:middle] + bytes(100) + whole[middle + 100 :])
    with pytest.raises(InputError, match="corrupt"):
        list(Source(path).blocks())


def test_a_missing_file_and_a_folder_are_input_errors_that_name_the_path(tmp_path):
    with pytest.raises(InputError, match=r"a\.csv is not: No such file"):
        Source(tmp_path / "a.csv")
    with pytest.raises(InputError, match="is not: Is a directory"):
        Source(tmp_path)


@pytest.mark.parametrize("name", ["", "gzip", "zstd"])
def test_standard_input_can_be_looked_at_and_is_read_once(monkeypatch, name):
    stdin = io.TextIOWrapper(io.BytesIO(COMPRESS[name](TEXT)))
    monkeypatch.setattr(sys, "stdin", stdin)
    source = Source(None)
    assert not source.can_reopen
    assert TEXT.startswith(source.sample)
    assert b"".join(source.blocks()) == TEXT


def test_a_pipe_with_a_name_is_read_once(tmp_path):
    read, write_end = os.pipe()
    os.write(write_end, b"good\n")
    os.close(write_end)
    source = Source(tmp_path / f"../../../../../../../../../dev/fd/{read}")
    os.close(read)
    assert not source.can_reopen
    assert b"".join(source.blocks()) == b"good\n"


def test_the_suffix_of_a_compression_is_left_out(tmp_path):
    for name in ("a.csv.gz", "a.csv.BZ2", "a.csv.xz", "a.csv.zst", "a.csv"):
        assert compression.without_suffix(tmp_path / name).name == "a.csv"


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("is_piped", [False, True])
def test_it_can_be_read_at_any_position_as_often_as_needed(tmp_path, monkeypatch, name, is_piped):
    content = COMPRESS[name](TEXT)
    (tmp_path / "a").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    source = Source(None if is_piped else tmp_path / "a")
    for _ in range(2):
        with source.seekable() as file:
            file.seek(-3, os.SEEK_END)
            assert file.read() == TEXT[-3:]
