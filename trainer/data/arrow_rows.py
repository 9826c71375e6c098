"""Tables of Apache Arrow: Parquet files, Feather files, and streams as Hugging Face's save_to_disk writes."""

import contextlib
import json
from collections.abc import Iterator, Sequence

import pyarrow
import pyarrow.parquet

from trainer.data.compression import Source
from trainer.data.file_kinds import FILE_MAGIC
from trainer.data.review_rows import CHUNK
from trainer.errors import InputError


class ArrowTable:
    """A table of Arrow; its rows are read a part at a time.

    Args:
      source: its bytes.
      kind: parquet or arrow.

    Attributes:
      names: of the columns.

    Raises:
      InputError: when it can't be read, or is corrupt; so does `rows`.
    """

    def __init__(self, source: Source, kind: str) -> None:
        self._source, self._kind = source, kind
        with self._readable(), self._opened() as table:
            schema = table.schema_arrow if isinstance(table, pyarrow.parquet.ParquetFile) else table.schema
            self.names: list[str] = list(schema.names)
            self._classes = _class_names(schema)

    def rows(self, names: Sequence[str]) -> Iterator[list[object]]:
        """The values of these columns in each row; numbers of Hugging Face's classes become their names."""
        with self._readable(), self._opened() as table:
            for batch in self._batches(table, names):
                for start in range(0, batch.num_rows, CHUNK):
                    part = batch.slice(start, CHUNK)
                    columns = [self._values(part, name) for name in names]
                    yield from (list(row) for row in zip(*columns, strict=True))

    def _values(self, batch: pyarrow.RecordBatch, name: str) -> list[object]:
        values: list[object] = batch.column(batch.schema.get_field_index(name)).to_pylist()
        classes = self._classes.get(name)
        if classes is None:
            return values
        return [
            classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value
            for value in values
        ]

    def _batches(
        self, table: "pyarrow.parquet.ParquetFile | pyarrow.RecordBatchReader", names: Sequence[str]
    ) -> Iterator[pyarrow.RecordBatch]:
        if isinstance(table, pyarrow.parquet.ParquetFile):
            return table.iter_batches(batch_size=CHUNK, columns=list(dict.fromkeys(names)))
        if isinstance(table, pyarrow.ipc.RecordBatchFileReader):
            return (table.get_batch(number) for number in range(table.num_record_batches))
        return iter(table)

    @contextlib.contextmanager
    def _opened(self) -> Iterator["pyarrow.parquet.ParquetFile | pyarrow.RecordBatchReader"]:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(pyarrow.PythonFile(self._source.seekable(), mode="r"))
            if self._kind == "parquet":
                yield stack.enter_context(pyarrow.parquet.ParquetFile(file))
            elif self._source.sample.startswith(FILE_MAGIC):
                yield stack.enter_context(pyarrow.ipc.open_file(file))
            else:
                yield stack.enter_context(pyarrow.ipc.open_stream(file))

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pyarrow.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"A file of reviews must be readable, but {self._source.name} can't be read as {self._kind}: "
                f"{reason}; write it again, or name another file."
            ) from error


def _class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Column -> the names of its classes, as Hugging Face's datasets note them; others are left out."""
    found = {}
    with contextlib.suppress(KeyError, ValueError, TypeError, AttributeError):
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for name, feature in features.items():
            if isinstance(feature, dict) and isinstance(feature.get("names"), list):
                found[name] = [str(value) for value in feature["names"]]
    return found
