"""Tables of reviews in the formats of well-known sources, with no more than the flags that errors name."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import shlex
import sys

import pyarrow
import pyarrow.parquet
import pytest

from trainer.data.tables import BadRow, Options, Row, open_table
from trainer.errors import InputError

REVIEWS = [
    (f'Film {number}, {"a “fine”" if number % 2 else "not a"} one: 42" of naïveté', str(number % 2))
    for number in range(60)
]
TEXTS = [text.encode() for text, _ in REVIEWS]
NAMED = [("text", "label"), *REVIEWS]


def separated(rows, **kwargs):
    file = io.StringIO(newline="")
    csv.writer(file, **kwargs).writerows(rows)
    return file.getvalue()


def objects(text="text", label="label"):
    return [{"id": number, text: review, label: value} for number, (review, value) in enumerate(REVIEWS)]


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def parquet(columns, **kwargs):
    file = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), file, **kwargs)
    return file.getvalue().to_pybytes()


def arrow_stream(columns):
    file, table = pyarrow.BufferOutputStream(), pyarrow.table(columns)
    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue().to_pybytes()


COLUMNS = {"text": [text for text, _ in REVIEWS], "label": [int(label) for _, label in REVIEWS]}
SENTIMENT_140 = [
    ("4" if label == "1" else "0", 10**9 + n, "Mon Apr 06", "NO_QUERY", f"user{n}", text)
    for n, (text, label) in enumerate(REVIEWS)
]
AT_ONCE = {
    "Kaggle IMDB": ("a.csv", separated([("review", "sentiment"), *REVIEWS])),
    "SMS spam": ("spam.csv", separated([("v1", "v2", "", ""), *((b, a, "", "") for a, b in REVIEWS)])),
    "SST-2": ("train.tsv", "sentence\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in REVIEWS)),
    "Yelp, no header": ("train.csv", separated([(b, a) for a, b in REVIEWS], quoting=csv.QUOTE_ALL)),
    "text first, no header": ("a.csv", separated(REVIEWS)),
    "Excel, semicolons": ("a.csv", "\ufeff" + separated(NAMED, delimiter=";")),
    "Excel, sep=": ("a.csv", "sep=,\r\n" + separated(NAMED)),
    "Excel, UTF-16": ("a.txt", separated(NAMED, delimiter="\t").encode("utf-16")),
    "pipes": ("a.csv", separated(NAMED, delimiter="|")),
    "old Mac": ("a.csv", separated(NAMED, lineterminator="\r")),
    "pandas index": ("a.csv", separated([("", *NAMED[0]), *((n, *row) for n, row in enumerate(REVIEWS))])),
    "pandas tsv": ("a.tsv", separated(NAMED, delimiter="\t", lineterminator="\n")),
    "Steam": ("a.csv", separated([("review", "label"), *((a, b == "1") for a, b in REVIEWS)])),
    "stars": ("a.csv", separated([("Text", "Stars"), *REVIEWS])),
    "gzip": ("a.csv.gz", gzip.compress(separated(NAMED).encode())),
    "bzip2": ("a.csv.bz2", bz2.compress(separated(NAMED).encode())),
    "xz": ("a.csv.xz", lzma.compress(separated(NAMED).encode())),
    "zstd": ("a.csv.zst", pyarrow.compress(separated(NAMED).encode(), codec="zstd", asbytes=True)),
    "gzip without its suffix": ("a.csv", gzip.compress(separated(NAMED).encode())),
    "JSON lines": ("a.jsonl", lines(objects())),
    "JSON lines, a blank last line": ("a.jsonl", lines(objects()) + "\n"),
    "Hugging Face to_json": ("a.json", lines(objects())),
    "JSON array": ("a.json", json.dumps(objects())),
    "JSON array, indented": ("a.json", json.dumps(objects(), indent=2)),
    "JSON array in an object": ("a.json", json.dumps({"version": "1", "data": objects()})),
    "doccano": ("a.jsonl", lines({"id": 1, "text": a, "label": [b]} for a, b in REVIEWS)),
    "parquet": ("a.parquet", parquet(COLUMNS)),
    "parquet, compressed": ("a.parquet.gz", gzip.compress(parquet(COLUMNS, row_group_size=7))),
    "save_to_disk": ("data-00000-of-00001.arrow", arrow_stream(COLUMNS)),
    "no suffix": ("reviews", separated(NAMED)),
}
ONE_FLAG_ERROR = {
    "Sentiment140": ("a.csv", separated(SENTIMENT_140, quoting=csv.QUOTE_ALL)),
    "Amazon": ("a.csv", separated([(b, "A title", a) for a, b in REVIEWS])),
    "other names": ("a.csv", separated([("blurb", "verdict"), *REVIEWS])),
    "other names in JSON": ("a.json", json.dumps(objects("blurb", "verdict"))),
    "other names in parquet": ("a.parquet", parquet({"a": COLUMNS["text"], "b": COLUMNS["label"]})),
    "Prodigy": ("a.jsonl", lines({"text": a, "accept": [b], "answer": "accept"} for a, b in REVIEWS)),
    "cp1252": ("a.csv", separated(NAMED).encode("cp1252")),
    "cp1252 without a header": (
        "a.csv",
        separated([("id", "x", *NAMED[0])]).encode() + b"1,2,na\xefve,1\n" * 9,
    ),
}


def write(tmp_path, name, content):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / name


def flags_of(error):
    command = re.search("; give (--.*?)(, |\\.$)", str(error))[1]
    return dict(part.removeprefix("--").split("=") for part in shlex.split(command))


@pytest.mark.parametrize("source", AT_ONCE)
def test_a_file_of_a_well_known_source_is_read_at_once(tmp_path, source):
    table = open_table(write(tmp_path, *AT_ONCE[source]), Options())
    for _ in range(2):
        rows = list(table.rows())
        assert [row.text for row in rows] == TEXTS
        assert [row.label in ("1", "true") for row in rows] == [label == "1" for _, label in REVIEWS] or (
            [row.label == "True" for row in rows] == [label == "1" for _, label in REVIEWS]
        )
        assert [row.number for row in rows] == list(range(1, 61))


@pytest.mark.parametrize("source", ONE_FLAG_ERROR)
def test_another_is_read_with_the_flags_that_its_error_names(tmp_path, source):
    path = write(tmp_path, *ONE_FLAG_ERROR[source])
    with pytest.raises(InputError) as error:
        list(open_table(path, Options()).rows())
    rows = list(open_table(path, Options(**flags_of(error.value))).rows())
    assert all(isinstance(row, Row) for row in rows)
    assert [row.text for row in rows] in (TEXTS, ["naïve".encode()] * 9)


def test_label_studio_is_refused_with_a_remedy(tmp_path):
    task = {"id": 1, "annotations": [{"result": []}, {}], "data": {"text": "good", "source": "x"}}
    with pytest.raises(InputError, match=r"those of .* are id \(1\), annotations.*values are nested: write"):
        open_table(write(tmp_path, "a.json", json.dumps([task] * 9)), Options())


def test_several_text_columns_are_joined_and_columns_can_be_kept(tmp_path):
    path = write(tmp_path, "a.csv", "id,title,body,label\n7,Fine,film,1\n8,,,0\n9,a\n")
    table = open_table(path, Options(text_column="title,body", keep=("ID",)))
    assert list(table.rows()) == [
        Row(1, 2, b"Fine film", "1", {"ID": "7"}),
        BadRow(2, 3, "its text is empty", 'its "body" is empty', {"ID": "8"}),
        BadRow(3, 4, "it has fewer fields than columns", "it has 2 fields, but the first row has 4"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16-le", "gb18030", "cp1252"])
def test_the_encoding_is_found_wrong_before_columns_are_looked_for(tmp_path, encoding):
    rows = [
        ("影評" if encoding == "gb18030" else "critiqué", "blurb"),
        *[("naïve é 电影很好看"[:7], "1")] * 40,
    ]
    content = separated(rows).encode(encoding, "ignore")
    path = write(tmp_path, "a.csv", content)
    with pytest.raises(InputError, match=r"line 1 of .* is not"):
        open_table(path, Options())


def test_a_table_describes_itself(tmp_path):
    path = write(tmp_path, "a.csv.gz", gzip.compress(separated(REVIEWS, delimiter=";").encode("cp1252")))
    table = open_table(path, Options(encoding="cp1252"))
    assert table.description == "csv, gzip, cp1252, separated by ;, no header"
    assert (table.kind, table.encoding, table.delimiter, table.columns) == ("csv", "cp1252", ";", ("1", "2"))
    path = write(tmp_path, "a.parquet", parquet(COLUMNS))
    assert open_table(path, Options()).description == "parquet"


def test_columns_that_were_not_named_are_noted_once(tmp_path, caplog):
    path = write(tmp_path, *AT_ONCE["Kaggle IMDB"])
    for _ in range(3):
        open_table(path, Options())
    assert caplog.text.count("the text is column review, the label is column sentiment") == 1


def test_a_given_kind_decides(tmp_path):
    path = write(tmp_path, "a.txt", "text,label\ngood,1\n")
    assert len(list(open_table(path, Options(label_column=None), kind="txt").rows())) == 2
    assert len(list(open_table(path, Options(), kind="csv").rows())) == 1


def test_a_txt_has_a_text_per_line_and_a_blank_one_is_bad(tmp_path):
    rows = open_table(write(tmp_path, "a.txt", "good\r\n\n bad"), Options(label_column=None)).rows()
    assert list(rows) == [
        Row(1, 1, b"good", None),
        BadRow(2, 2, "its text is empty", "it is empty"),
        Row(3, 3, b" bad", None),
    ]


@pytest.mark.parametrize(
    "source", ["Excel, semicolons", "JSON array", "JSON lines", "parquet", "zstd", "Excel, UTF-16"]
)
def test_standard_input_takes_the_same_kinds(monkeypatch, source):
    content = AT_ONCE[source][1]
    content = content if isinstance(content, bytes) else content.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert [row.text for row in open_table(None, Options()).rows()] == TEXTS


def test_an_empty_file_and_one_without_reviews(tmp_path):
    with pytest.raises(InputError, match=r"line 1 of .*a\.csv is empty"):
        open_table(write(tmp_path, "a.csv", ""), Options())
    for name, content in (("b.csv", "text,label\n"), ("c.jsonl", ""), ("d.json", "[]")):
        assert list(open_table(write(tmp_path, name, content), Options()).rows()) == []


def test_a_large_file_is_read_beyond_the_sample(tmp_path):
    rows = [(f"{text} " * 40, label) for text, label in REVIEWS] * 20
    for name, content in (
        ("a.csv", separated([NAMED[0], *rows])),
        ("a.json", json.dumps([{"text": a, "label": b} for a, b in rows])),
        ("a.jsonl", lines({"text": a, "label": b} for a, b in rows)),
    ):
        read = list(open_table(write(tmp_path, name, content), Options()).rows())
        assert [(row.text.decode(), row.label) for row in read] == rows


def damaged(chance):
    """A file of some kind with some damage."""
    rows = [
        (
            " ".join(chance.choices(('"', '42"', "a,b", "é", "x;y", "\\n", "ok"), k=5)),
            str(chance.randrange(2)),
        )
    ]
    rows *= chance.randrange(40)
    kind = chance.choice(("csv", "tsv", "jsonl", "json"))
    records = [{"text": a, "label": b} for a, b in rows]
    text = {
        "csv": separated([NAMED[0], *rows], delimiter=chance.choice(",;|\t")),
        "tsv": "".join(f"{a}\t{b}\n" for a, b in [NAMED[0], *rows]),
        "jsonl": lines(records),
        "json": json.dumps(records),
    }[kind]
    data = bytearray(text.encode(chance.choice(("utf-8", "utf-8-sig", "utf-16", "cp1252", "gb18030"))))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        damage = chance.choice(("cut", "quote", "byte", "splice"))
        if damage == "cut":
            del data[at : at + chance.randrange(50)]
        else:
            data[at:at] = {"quote": b'"', "byte": chance.randbytes(1), "splice": bytes(data[:60])}[damage]
    return f"a.{kind}", gzip.compress(data)[: chance.randrange(300)] if chance.random() < 0.1 else bytes(data)


def test_of_damaged_files_each_line_is_a_row_or_they_are_refused_in_one_sentence(tmp_path):
    chance = random.Random(0)
    for _ in range(200):
        name, content = damaged(chance)
        path = write(tmp_path, name, content)
        try:
            table = open_table(path, Options())
            rows = list(table.rows())
        except InputError as error:
            assert str(error).isprintable() and str(error).endswith(".")
            continue
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
        is_plain = not content.startswith(b"\x1f\x8b")
        if is_plain and (table.kind == "jsonl" or (table.kind, table.delimiter) == ("tsv", "\t")):
            physical = [
                line for line in content.decode(table.encoding, "surrogateescape").split("\n") if line.strip()
            ]
            assert len(rows) >= len(physical) - 1, "the header"


DAMAGED = separated([("text", "label"), *[("très naïve", "1")] * 10]).encode()


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", DAMAGED + b"caf\xe9,1\n" + "été,0\n".encode(), 12),
        (
            "a.jsonl",
            '{"text": "très naïve", "label": 1}\n'.encode() * 10 + b'{"text": "\xe9", "label": 1}\n',
            11,
        ),
        (
            "a.json",
            b"[" + '{"text": "très naïve", "label": 1},\n'.encode() * 10 + b'{"text": "\xe9", "label": 1}]',
            11,
        ),
    ],
)
def test_a_row_with_bytes_that_are_not_utf8_is_a_bad_row(tmp_path, name, content, place):
    rows = list(open_table(write(tmp_path, name, content), Options()).rows())
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [(row.line, row.kind) for row in bad] == [(place, "it is not all UTF-8")]
    assert len(rows) >= 11


def test_a_line_of_text_that_is_not_all_utf8_is_a_bad_row(tmp_path):
    path = write(tmp_path, "a.txt", "très naïve\n".encode() * 10 + b"caf\xe9\n")
    rows = list(open_table(path, Options(label_column=None)).rows())
    assert rows[-1] == BadRow(11, 11, "it is not all UTF-8", "it is not all UTF-8")


def test_a_header_that_is_not_all_utf8_is_an_input_error(tmp_path):
    path = write(tmp_path, "a.csv", b"text,label,caf\xe9\n" + "très naïve,1,x\n".encode() * 10)
    with pytest.raises(InputError, match="The first row must name each column in UTF-8"):
        open_table(path, Options())


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_repeated_header_is_a_bad_row(tmp_path, delimiter):
    rows = ["text,label", "good,1", "bad,0", "text,label", "fine,1", '"text","label"']
    path = write(tmp_path, "a.csv", "".join(f"{row}\n" for row in rows).replace(",", delimiter).encode())
    read = list(open_table(path, Options()).rows())
    kinds = [row.kind if isinstance(row, BadRow) else row.text.decode() for row in read]
    assert kinds == ["good", "bad", "it repeats the header", "fine", "it repeats the header"]


def test_the_dashes_below_a_header_in_markdown_are_a_bad_row_and_other_dashes_are_a_review(tmp_path):
    content = "| text | label |\n|:---|---:|\n| good | 1 |\n| bad | 0 |\n| - | - |\n| fine | 1 |\n"
    dashes, *rows = open_table(write(tmp_path, "a.csv", content.encode()), Options()).rows()
    assert isinstance(dashes, BadRow) and "Markdown" in dashes.kind and dashes.line == 2
    assert [row.label for row in rows] == ["1", "0", "-", "1"]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_what_an_annotator_rejected_or_ignored_is_a_bad_row_where_labels_are_read(tmp_path, kind):
    answers = ["accept", "reject", "ignore", "accept"]
    records = [{"text": answer, "label": "a", "answer": answer} for answer in answers]
    content = json.dumps(records) if kind == "json" else "\n".join(map(json.dumps, records))
    path = write(tmp_path, f"a.{kind}", content.encode())
    kinds = [row.kind if isinstance(row, BadRow) else "" for row in open_table(path, Options()).rows()]
    assert kinds == ["", "its answer is reject", "its answer is ignore", ""]
    for options in (Options(label_column=None), Options(label_column="answer")):
        assert all(isinstance(row, Row) for row in open_table(path, options).rows())
