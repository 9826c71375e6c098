"""Which kind a file of reviews is, by its name and its content."""

import json
import pathlib
import re
from collections.abc import Sequence

from trainer.data import columns, compression, separated
from trainer.data.compression import Source
from trainer.data.text_encoding import Text
from trainer.errors import InputError

PARQUET_MAGIC, FILE_MAGIC, STREAM_MAGIC = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"  # of Apache Arrow
KINDS = ("csv", "tsv", "jsonl", "json", "parquet", "arrow", "txt")
SUFFIXES = {
    **{f".{kind}": kind for kind in KINDS},
    **{".tab": "tsv", ".ndjson": "jsonl", ".pq": "parquet", ".feather": "arrow", ".text": "txt"},
}
"""Suffix -> kind, without the suffix of a compression."""

# The beginning of a file that is of no use -> what it is, and what to do.
_REFUSED = {
    b"%PDF": ("a PDF", "save its table as csv"),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word document", "save it as csv"),
    b"SQLite format 3\0": ("an SQLite database", "export a table as csv"),
    b"{\\rtf": ("an RTF document", "save it as text"),
    b"\x93NUMPY": ("a NumPy array", "save it as csv"),
    **{bytes([0x80, version]): ("a pickle", "save it as csv") for version in range(2, 6)},
    **{start: ("a file of R", "save it as csv") for start in (b"RDX", b"RDA", b"X\n\0\0\0")},
    b"<stata_dta>": ("a file of Stata", "save it as csv"),
    # Its version, the order of its bytes, and 1.
    **{
        bytes([version, order, 1]): ("a file of Stata", "save it as csv")
        for version in (105, 108, 110, 111, 113, 114, 115)
        for order in (1, 2)
    },
    b"$FL2": ("a file of SPSS", "save it as csv"),
    b"$FL3": ("a file of SPSS", "save it as csv"),
    b"\x89HDF": ("an HDF5 file", "save it as csv"),
    b"FEA1": ("a Feather file of version 1", "save it as parquet"),
    b"ORC": ("an ORC file", "save it as parquet"),
    b"Obj\x01": ("an Avro file", "save it as parquet"),
    b"7z\xbc\xaf": ("an archive", "unpack it and name a file in it"),
    b"Rar!": ("an archive", "unpack it and name a file in it"),
}


def kind_of(path: pathlib.Path, *, labelled: bool = True, encoding: str = "") -> str:
    """One of `KINDS`.

    Args:
      path: a file.
      labelled: whether its rows need labels; if so, a .txt is looked at as a table.
      encoding: as Python names it; empty: recognised.

    Raises:
      InputError: when it can't be read, or is of another kind.
    """
    return kind_of_source(Source(path), labelled=labelled, encoding=encoding)


def kind_of_source(
    source: Source, *, labelled: bool, encoding: str = "", wanted: Sequence[str] = ("text",)
) -> str:
    """The same for a source.

    Text without labels and without a name that says more is a table if its first row names columns: those of
    one of `wanted`, as in title,body, or one that texts usually have.
    """
    if by_magic := kind_by_magic(source):
        return by_magic
    suffix = compression.without_suffix(source.path).suffix.lower() if source.path else ""
    by_name = SUFFIXES.get(suffix, "")
    if by_name in ("parquet", "arrow"):
        raise InputError(
            f"A file that ends with {suffix} must be {by_name}, but {source.name} is not; "
            f"write it again, or name another file."
        )
    if source.is_terminal:
        return "txt"
    return _kind_of_text(source, by_name, labelled=labelled, encoding=encoding, wanted=wanted)


def _kind_of_text(
    source: Source, by_name: str, *, labelled: bool, encoding: str, wanted: Sequence[str]
) -> str:
    text = Text(source, encoding)
    start = text.sample.lstrip()
    if as_json := kind_of_json(start, by_name, is_complete=source.is_complete):
        return as_json
    if by_name and by_name != "txt":
        return by_name
    lines = text.sample_lines()[:50]
    names = [{part.strip().lower() for part in columns.split(",")} for columns in wanted]
    delimiter, skip = separated.find_delimiter(lines, set().union(*names), given="", kind="csv")
    if labelled or _is_table(lines[skip:], delimiter, names):
        return "tsv" if delimiter == "\t" else "csv"
    if source.path is None:
        _refuse_unknown_table(lines[skip:], delimiter)
    return "txt"


def _refuse_unknown_table(lines: Sequence[str], delimiter: str) -> None:
    """Raises InputError when standard input is probably a table, though no column has a usual name."""
    header, *rows = [
        record.cells for record in separated.records(lines, separated.Layout(delimiter)) if not record.kind
    ] or [[]]
    are_names = len(set(header)) > 1 and all(re.fullmatch(r"[^\W\d][\w.-]{0,30}", cell) for cell in header)
    if are_names and len(rows) > 1 and all(len(row) == len(header) for row in rows):
        kind = "tsv" if delimiter == "\t" else "csv"
        raise InputError(
            f"Standard input must be a text per line, or a table whose text column is known, but it looks "
            f"like a {kind} with the columns {', '.join(header[:10])}; give --input_format={kind} and "
            f"--text_column, or --input_format=txt if each line is a text."
        )


def _is_table(lines: Sequence[str], delimiter: str, wanted: Sequence[set[str]]) -> bool:
    """Whether the first line is a header, and most rows have as many cells."""
    header, *rows = [
        record.cells for record in separated.records(lines, separated.Layout(delimiter)) if not record.kind
    ] or [[]]
    found = {cell.strip().lower() for cell in header}
    names_columns = any(names <= found for names in wanted) or (
        len(header) > 1 and not found.isdisjoint(columns.TEXT_NAMES)
    )
    return names_columns and 2 * sum(len(row) == len(header) for row in rows) >= len(rows)


def kind_of_json(start: str, by_name: str, *, is_complete: bool) -> str:
    """Either json or jsonl for a text that begins with an object or an array of objects; empty: it does not.

    Args:
      start: the beginning of the text.
      by_name: the kind that the name says.
      is_complete: whether `start` is all of it.
    """
    if re.match(r"\[\s*([{\]]|$)", start):
        return "json"
    if not start.startswith("{"):
        return ""
    first, _, rest = start.partition("\n")
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        if by_name == "jsonl":
            return "jsonl"
        # An object over several lines, or one that is longer than the sample.
        return "json" if re.match(r'\{\s*("|$)', start) and _is_cut(first, is_complete, rest) else ""
    values = record.values() if isinstance(record, dict) else ()
    holds_rows = any(isinstance(value, list) and value and isinstance(value[0], dict) for value in values)
    return "json" if holds_rows and is_complete and not rest.strip() else "jsonl"


def _is_cut(first: str, is_complete: bool, rest: str) -> bool:
    # A line of JSON lines ends with a brace, even if it is not valid.
    return not first.rstrip().endswith("}") and (bool(rest) or not is_complete)


def kind_by_magic(source: Source) -> str:
    """The kind that the first bytes say: parquet or arrow; empty: they say none.

    Raises:
      InputError: when they say that it holds no rows, as those of a workbook.
    """
    if source.sample.startswith(PARQUET_MAGIC):
        return "parquet"
    if source.sample.startswith((FILE_MAGIC, STREAM_MAGIC)):
        return "arrow"
    for magic, (what, remedy) in _REFUSED.items():
        if source.sample.startswith(magic):
            raise _unusable(source, what, remedy)
    if source.sample.startswith(b"PK\x03\x04"):
        if b"xl/" in source.sample:
            raise _unusable(source, "an Excel workbook", "save it as csv")
        if b"word/" in source.sample:
            raise _unusable(source, "a Word document", "save its table as csv")
        raise _unusable(source, "a zip archive", "unpack it and name a file in it")
    if source.sample[257:262] == b"ustar":
        raise _unusable(source, "a tar archive", "unpack it and name a file or a folder in it")
    return ""


def _unusable(source: Source, what: str, remedy: str) -> InputError:
    return InputError(
        f"Reviews must be csv, tsv, JSON, parquet or text, but {source.name} is {what}; {remedy}."
    )
