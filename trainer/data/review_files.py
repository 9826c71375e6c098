"""Reviews for evaluate and predict, from files, folders and standard input."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence

from absl import logging

from trainer.data import file_kinds, own_files, review_folders, tables
from trainer.data.compression import Source, without_suffix
from trainer.data.tables import CHUNK, BadRow, BadRows, Options, Row, chunks
from trainer.data.text_encoding import is_recognised
from trainer.errors import InputError
from trainer.labels import Classes, listed
from trainer.words import plural

__all__ = ["CHUNK", "BadRow", "Input", "Row", "Style", "chunks", "open_input"]

FILE = "file"  # the column that names the file of a row where there are several
_IDENTIFIER = "id"
_UNKNOWN = "its label means no class of the run"

_Rows = Iterator[Row | BadRow]


@dataclasses.dataclass(frozen=True)
class Style:
    """How reviews may be written.

    Attributes:
      given: what the user states; it holds in any case.
      usual: the same, completed by what the run was trained with; it holds where the reviews fit.
      kind: one of `own_files.KINDS`; empty: recognised.
    """

    given: Options = dataclasses.field(default_factory=Options)
    usual: Options = dataclasses.field(default_factory=Options)
    kind: str = ""

    def candidates(self) -> list[Options]:
        """Options to try, in their order."""
        same_columns = dataclasses.replace(
            self.usual, delimiter=self.given.delimiter, header=self.given.header
        )
        return [self.usual, same_columns, self.given]

    def encoding_of(self, source: Source) -> str:
        """The encoding of a source; empty: it is recognised."""
        if self.given.encoding or not self.usual.encoding:
            return self.given.encoding
        return "" if is_recognised(source) else self.usual.encoding


class Input:
    """Opened reviews; made by `open_input`.

    Attributes:
      kept: the columns that rows keep.
      has_lines: whether their lines say where they are.
    """

    def __init__(
        self,
        place: str,
        rows: Callable[[], _Rows],
        *,
        kept: Sequence[str],
        has_lines: bool,
        classes: Classes | None,
        bad_rows: str,
    ) -> None:
        self.kept, self.has_lines = tuple(kept), has_lines
        self._place, self._rows = place, rows
        self._classes, self._stops = classes, bad_rows == "stop"

    def rows(self) -> _Rows:
        """The rows in their order, bad ones among them, which a warning counts at the end; read them once.

        Memory holds a part.

        Raises:
          InputError: when the reviews can't be read, most labels mean none of the classes that are required,
            or a row is bad and `bad_rows` is "stop".
        """
        bad, count, unknown = BadRows(), 0, 0
        rows = map(self._with_known_label, self._rows())
        for row in rows:
            count += 1
            if isinstance(row, BadRow):
                bad.add(row, self.place_of(row))
                unknown += row.kind == _UNKNOWN
                if self._stops:
                    raise self._invalid(row, bad, rows)
            yield row
        # Of a few labels that happen to mean a class, as 1 does of five stars, no figure is worth anything.
        if self._classes and count and (len(bad) == count or 2 * unknown > count):
            raise InputError(
                f"Reviews must have labels of the run's classes, {listed(self._classes.names)}, but of "
                f"{plural(count, 'row')} of {self._place} {count - len(bad) or 'none'} "
                f"{'do' if count - len(bad) > 1 else 'does'}: {bad.summary()}; give the right "
                f"--label_column, or say by --labels which labels mean these classes, as in "
                f"--labels='{';'.join(f'{name}={at}' for at, name in enumerate(self._classes.names))}'."
            )
        if len(bad):
            done = "evaluated" if self._classes else "classified"
            logging.warning(
                "Of %s in %s, %d could not be %s: %s.",
                plural(count, "row"),
                self._place,
                len(bad),
                done,
                bad.summary(),
            )

    def place_of(self, row: Row | BadRow) -> str:
        """Where a row is, as in line 9."""
        line = [f"line {row.line}"] if self.has_lines else []
        return ", ".join([*filter(None, [row.kept.get(FILE)]), *line])

    def _with_known_label(self, row: Row | BadRow) -> Row | BadRow:
        if isinstance(row, BadRow) or not self._classes or self._classes.number_of(row.label) is not None:
            return row
        why = f"its label is {str(row.label)[:100]!r}"
        return BadRow(row.number, row.line, _UNKNOWN, why, row.kept)

    def _invalid(self, first: BadRow, bad: BadRows, rest: _Rows) -> InputError:
        for row in rest:
            if isinstance(row, BadRow):
                bad.add(row, self.place_of(row))
        return InputError(
            f"Each row must hold a review, but {self.place_of(first)} of {self._place} does not: "
            f"{first.why}; in all, {plural(len(bad), 'row')} can't be used: {bad.summary()}; fix them, or "
            f"give --bad_rows=skip."
        )


def open_input(
    path: str, style: Style, *, classes: Classes | None = None, bad_rows: str = "", keep: Sequence[str] = ()
) -> Input:
    """Opens reviews.

    Args:
      path: a file of any kind that `tables` knows; a folder of texts, or with a table; "-": standard input.
      style: how they may be written.
      classes: those that the labels must mean; None: rows need no label.
      bad_rows: "stop" ends at the first bad row.
      keep: columns that rows keep; further ones are `FILE` in a folder, and `id` if a table has it.

    Raises:
      InputError: when they can't be read, or lack what is asked for; the message says what to do.
    """
    root = pathlib.Path(path)
    with review_folders.readable(root):
        is_folder = path != "-" and root.is_dir()
    if not is_folder:
        table, kept = _open_table(Source(None if path == "-" else root), style, classes, keep)
        rows: Callable[[], _Rows] = table.rows
    elif texts := _texts(root, style.kind, classes):
        _refuse(keep, path, "a folder of texts")
        kept, rows = [FILE], functools.partial(_rows_of_texts, root, texts, style)
    else:
        tables_in = _files(root, style.kind)
        first, kept = _open_table(Source(tables_in[0]), style, classes, keep)
        rows = functools.partial(_rows_of_tables, first, tables_in, style, classes, kept)
        kept = [FILE, *kept]
    place = "standard input" if path == "-" else path
    return Input(place, rows, kept=kept, has_lines=kept != [FILE], classes=classes, bad_rows=bad_rows)


def _open_table(
    source: Source, style: Style, classes: Classes | None, keep: Sequence[str]
) -> tuple[tables.Table, list[str]]:
    """A table, and the columns that its rows keep."""
    if style.kind == "folder":
        raise InputError(f"--input_format=folder needs a folder, but {source.name} is none; leave it out.")
    encoding = style.encoding_of(source)
    candidates = [
        dataclasses.replace(
            options, encoding=encoding, label_column=options.label_column if classes else None
        )
        for options in style.candidates()
    ]
    wanted = [options.text_column for options in candidates]
    kind = style.kind or file_kinds.kind_of_source(
        source, labelled=classes is not None, encoding=encoding, wanted=wanted
    )
    table, options = _first_that_fits(source, kind, candidates)
    logging.info("Input     %s: %s", source.name, table.description)
    if not table.columns:
        _refuse(keep, source.name, "text in lines")
        return table, []
    kept = list(dict.fromkeys(keep))
    if _IDENTIFIER not in [name.strip().lower() for name in keep]:
        kept = [_IDENTIFIER] * (_IDENTIFIER in [name.strip().lower() for name in table.columns]) + kept
    if kept:
        table = tables.open_source(source, dataclasses.replace(options, keep=tuple(kept)), kind=kind)
    return table, kept


def _first_that_fits(
    source: Source, kind: str, candidates: Sequence[Options]
) -> tuple[tables.Table, Options]:
    opened, errors = [], {}
    for options in dict.fromkeys(candidates):
        try:
            opened.append((tables.open_source(source, options, kind=kind), options))
        except InputError as error:
            errors[options] = error
            continue
        # With another delimiter than that of the file, all of it is a single column.
        if len(opened[-1][0].columns) != 1:
            return opened[-1]
    if opened:
        return opened[0]
    raise errors[candidates[1]]  # which has the columns of the run, and recognises how the file is written


def _refuse(keep: Sequence[str], place: str, what: str) -> None:
    if keep:
        raise InputError(
            f"--keep_columns must name columns of the input, but --keep_columns={keep[0]} was given, and "
            f"{place} is {what}; leave it out."
        )


def _texts(root: pathlib.Path, kind: str, classes: Classes | None) -> list[pathlib.Path]:
    """The texts of a folder; empty if it holds none, or they are not asked for."""
    if kind not in ("", "folder"):
        return []
    texts = review_folders.texts_of(root) if classes else review_folders.texts_below(root)
    if classes and not kind and review_folders.plain_classes_of(root) and any(_tables_in(root)):
        return []  # files without a suffix are texts only where there is nothing else
    if not texts and kind:
        raise InputError(
            f"--input_format=folder needs a folder of .txt files{', one for each class' if classes else ''}, "
            f"but {root} holds none; name another one."
        )
    if texts and not kind and not classes and (table := next(_tables_in(root), None)):
        raise InputError(
            f"It must be clear what to read, but {root} holds both .txt files and {table.name}; name that "
            f"file, as in --input={table}, or give --input_format=folder to read the .txt files."
        )
    return texts


def _tables_in(root: pathlib.Path) -> Iterator[pathlib.Path]:
    with review_folders.readable(root):
        for path in sorted(root.iterdir()):
            if file_kinds.SUFFIXES.get(without_suffix(path).suffix.lower(), "txt") != "txt":
                yield path


def _files(root: pathlib.Path, kind: str) -> list[pathlib.Path]:
    """The table in a folder, which may be in several files."""
    by_split = own_files.find(kind, root).by_split
    if len(by_split) > 1 or next(iter(by_split.values()))[0].is_dir():
        paths = [path for of_split in by_split.values() for path in of_split]
        raise InputError(
            f"--input must name a single table or folder of texts, but {root} holds "
            f"{listed(path.name for path in paths)}; name one, as in --input={paths[0]}."
        )
    return next(iter(by_split.values()))


def _rows_of_texts(root: pathlib.Path, texts: Sequence[pathlib.Path], style: Style) -> _Rows:
    for number, path in enumerate(texts, start=1):
        source = review_folders.open_text(path)
        row = review_folders.row_of(number, source, style.encoding_of(source))
        yield row._replace(kept={FILE: str(path.relative_to(root))})


def _rows_of_tables(
    first: tables.Table,
    paths: Sequence[pathlib.Path],
    style: Style,
    classes: Classes | None,
    keep: Sequence[str],
) -> _Rows:
    numbers = itertools.count(1)
    for path in paths:
        table = first if path == paths[0] else _open_table(Source(path), style, classes, keep)[0]
        for row in table.rows():
            yield row._replace(number=next(numbers), kept={FILE: path.name, **row.kept})
