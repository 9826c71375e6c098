"""Which kind a file is."""

import gzip
import io
import json
import pickle
import sqlite3
import sys
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from trainer.data import file_kinds
from trainer.data.compression import Source
from trainer.errors import InputError

CSV = "text,label\ngood,1\nbad,0\n"
TSV = "text\tlabel\ngood\t1\nbad\t0\n"
JSONL = '{"text": "good", "label": 1}\n{"text": "bad", "label": 0}\n'
ARRAY = '[\n{"text": "good", "label": 1}]'
PRETTY = json.dumps({"data": [{"text": "good", "label": 1}]}, indent=1)


def kind(path, content, **kwargs):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file_kinds.kind_of(path, **kwargs)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", CSV, "csv"),
        ("a.CSV", CSV, "csv"),
        ("a.tab", TSV, "tsv"),
        ("a.ndjson", JSONL, "jsonl"),
        ("a.json", JSONL, "jsonl"),
        ("a.json", ARRAY, "json"),
        ("a.jsonl", ARRAY, "json"),
        ("a.json", PRETTY, "json"),
        ("a.json", json.dumps({"data": [{"text": "good"}]}), "json"),
        ("a.json", '{"text": "good"}', "jsonl"),
        ("a.jsonl", '{"text": "go\n{"text": "bad"}\n', "jsonl"),
        ("a.csv", JSONL, "jsonl"),
        ("a.txt", CSV, "csv"),
        ("a.txt", TSV, "tsv"),
        ("a.dat", "text;label\ngood;1\n", "csv"),
        ("a", TSV, "tsv"),
        ("a", JSONL, "jsonl"),
        ("a", ARRAY, "json"),
        ("a.csv", "[1] good,1\n{x} bad,0\n", "csv"),
        ("a.csv", "", "csv"),
        ("a.txt", CSV.encode("utf-16"), "csv"),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_the_kind_is_recognised_by_name_and_content(tmp_path, name, content, expected, compress):
    data = compress(content if isinstance(content, bytes) else content.encode())
    assert kind(tmp_path / name, data) == expected
    suffix = ".gz" if compress is gzip.compress else ""
    assert kind(tmp_path / f"{name}{suffix}", data) == expected


def test_parquet_and_arrow_are_recognised_whatever_their_name(tmp_path):
    table = pyarrow.table({"text": ["good"]})
    for name in ("a.parquet", "a.csv", "a"):
        pyarrow.parquet.write_table(table, tmp_path / name)
        assert file_kinds.kind_of(tmp_path / name) == "parquet"
    for name, new in (
        ("b.arrow", pyarrow.ipc.new_stream),
        ("b", pyarrow.ipc.new_stream),
        ("c", pyarrow.ipc.new_file),
    ):
        with new(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
        assert file_kinds.kind_of(tmp_path / name) == "arrow"


def test_a_txt_is_one_text_per_line_only_where_no_label_is_needed(tmp_path):
    for name in ("a.txt", "a"):
        assert kind(tmp_path / name, "good, fine\nbad\n", labelled=False) == "txt"
        assert kind(tmp_path / name, CSV, labelled=False) == "csv"


def test_the_columns_of_a_run_make_a_header(monkeypatch):
    content = io.BytesIO(b"headline,blurb\nFine,good\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    source = Source(None)
    assert file_kinds.kind_of_source(source, labelled=False, wanted=["remark", "headline,remark"]) == "txt"
    assert file_kinds.kind_of_source(source, labelled=False, wanted=["remark", "headline,blurb"]) == "csv"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (CSV, "csv"),
        (TSV, "tsv"),
        (JSONL, "jsonl"),
        ("label,text\n1,good\n", "csv"),
        ("stars;Review\n5;good\n", "csv"),
        ("sep=;\nstars;text\n5;good\n", "csv"),
        ("text\ngood\n", "csv"),
        ("good, text\nbad\n", "txt"),
        ("my text\ngood\n", "txt"),
        ("review\ngood\n", "txt"),
    ],
)
def test_a_table_on_standard_input_is_noticed_by_its_header(monkeypatch, content, expected):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert file_kinds.kind_of_source(Source(None), labelled=False) == expected


def workbook(folder):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"{folder}/a.xml", "<a/>")
    return archive.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (workbook("xl"), "an Excel workbook; save it as csv"),
        (workbook("word"), "a Word document; save its table as csv"),
        (workbook("a"), "a zip archive; unpack it"),
        (b"%PDF-1.7\n", "a PDF; save"),
        *[(pickle.dumps({"text": "good"}, version), "a pickle; save it as csv") for version in range(2, 6)],
        (gzip.compress(b"RDX3\nX\n", mtime=0), "a file of R; save it as csv"),
        (gzip.compress(b"RDA3\nA\n", mtime=0), "a file of R; save it as csv"),
        (b"<stata_dta><header>", "a file of Stata; save it as csv"),
        (b"\x72\x02\x01\0", "a file of Stata; save it as csv"),
        (b"$FL2@(#) SPSS", "a file of SPSS; save it as csv"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel"),
        (b"a.csv".ljust(257, b"\0") + b"ustar", "a tar archive; unpack it"),
        (gzip.compress(b"a.csv".ljust(257, b"\0") + b"ustar", mtime=0), "a tar archive; unpack it"),
    ],
)
def test_other_kinds_are_refused_with_a_remedy(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        kind(tmp_path / "a.csv", content)


def test_a_database_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("create table a (b)")
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="an SQLite database; export a table as csv"):
        file_kinds.kind_of(tmp_path / "a.db")


def test_a_parquet_by_name_alone_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"ends with \.parquet must be parquet, but .*a\.parquet is not"):
        kind(tmp_path / "a.parquet", CSV)


@pytest.mark.parametrize(
    ("content", "kind"),
    [("Phrase\tSentiment\ngood\t3\nbad, bad\t1\n", "tsv"), ('blurb,verdict\n"a, b",1\nc,0\n', "csv")],
)
def test_a_table_on_standard_input_whose_columns_are_unknown_is_not_taken_for_texts(
    monkeypatch, content, kind
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    with pytest.raises(InputError, match=f"--input_format={kind} and --text_column, or --input_format=txt"):
        file_kinds.kind_of_source(Source(None), labelled=False)


@pytest.mark.parametrize(
    "content", ["good\nbad\n", "Well, fine\nNo, bad\nYes, good\n", "one\ttwo\n", "a b\nc d\ne f\n"]
)
def test_texts_on_standard_input_are_texts(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert file_kinds.kind_of_source(Source(None), labelled=False) == "txt"
