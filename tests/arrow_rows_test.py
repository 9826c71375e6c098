"""Parquet and arrow files."""

import gzip
import json

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from trainer.data.arrow_rows import ArrowTable
from trainer.data.compression import Source
from trainer.errors import InputError

COUNT = 5000
COLUMNS = {
    "id": pyarrow.array(range(COUNT)),
    "text": pyarrow.array([f"film {number}" for number in range(COUNT)], pyarrow.large_string()),
    "label": pyarrow.array([("neg", "pos", None)[number % 3] for number in range(COUNT)]).dictionary_encode(),
}
ROWS = [[f"film {number}", ("neg", "pos", None)[number % 3]] for number in range(COUNT)]


def write(path, table, kind):
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=700)
    elif kind == "feather":
        pyarrow.feather.write_feather(table, path)
    else:
        new = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    return path


def open_table(path, kind):
    return ArrowTable(Source(path), "parquet" if kind == "parquet" else "arrow")


KINDS = ("parquet", "file", "stream", "feather")


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_that_are_asked_for_are_read_in_order_as_often_as_asked(tmp_path, kind):
    table = open_table(write(tmp_path / "a", pyarrow.table(COLUMNS), kind), kind)
    assert table.names == ["id", "text", "label"]
    for _ in range(2):
        assert list(table.rows(["text", "label"])) == ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_one_is_read_too(tmp_path, kind):
    path = write(tmp_path / "a", pyarrow.table(COLUMNS), kind)
    path.write_bytes(gzip.compress(path.read_bytes()))
    table = open_table(path, kind)
    for _ in range(2):
        assert list(table.rows(["text", "label"])) == ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_hugging_face_classes_become_their_names(tmp_path, kind):
    features = {"text": {"_type": "Value"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pyarrow.table({"text": ["a", "b", "c", "d"], "label": [1, 0, -1, None]})
    path = write(tmp_path / "a", table.replace_schema_metadata(metadata), kind)
    assert [row[0] for row in open_table(path, kind).rows(["label"])] == ["pos", "neg", -1, None]


@pytest.mark.parametrize("metadata", ["", "[]", '{"info": 3}', '{"info": {"features": [1]}}'])
def test_other_metadata_do_no_harm(tmp_path, metadata):
    table = pyarrow.table({"label": [1, 0]}).replace_schema_metadata({"huggingface": metadata})
    path = write(tmp_path / "a", table, "parquet")
    assert list(open_table(path, "parquet").rows(["label"])) == [[1], [0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_an_input_error_that_names_it(tmp_path, kind, share):
    path = write(tmp_path / "a.parquet", pyarrow.table(COLUMNS), kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"a\.parquet can't be read as") as error:
        list(open_table(path, kind).rows(["text"]))
    assert str(error.value).isprintable()
