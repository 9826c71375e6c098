"""Which columns of a table hold the texts and the labels, and whether its first row names the columns."""

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from trainer.data.review_rows import NUMBER, Columns, Options, printable
from trainer.errors import InputError
from trainer.labels import NEGATIVE_POSITIVE

# Names under which public datasets have them; taken if there is exactly one and no "text" or "label".
TEXT_NAMES = (
    *("text", "review", "sentence", "content", "comment", "tweet", "message", "body", "document"),
    *("review_text", "reviewtext", "text_review", "review_body", "comment_text", "v2"),
)
LABEL_NAMES = (
    *("label", "sentiment", "class", "category", "target", "stars", "star_rating", "rating", "score"),
    *("polarity", "overall", "label_name", "airline_sentiment", "v1"),
)
DEFAULTS = Options()

NESTED = ("{...}", "[...]")  # how cells with objects and lists are shown

_IDENTIFIERS = ("", "id", "index", "idx", "guid", "uid")
_MOST_LABELS, _LONGEST_LABEL = 20, 30
_ENOUGH = 5  # rows to say that a column is constant
_ADDRESS = re.compile(r"https?://\S+$")


class Table(NamedTuple):
    """The beginning of a table: what its columns are called, and some of its rows.

    Attributes:
      place: what messages call it, as in reviews.csv.
      names: of the columns; if the table does not name them, their numbers.
      rows: its first rows, without names.
      has_names: whether the names are its own.
      may_lack_names: whether its first row may be a review, though it looks like names.
    """

    place: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    has_names: bool = True
    may_lack_names: bool = False


def has_header(first: Sequence[str], others: Sequence[Sequence[str]], options: Options) -> bool:
    """Whether the first row of a table names its columns."""
    if options.header != "auto":
        return options.header == "first_row"
    found = [_key(name) for name in first]
    asked = [name for name in _asked(found, options) if not name.isdecimal()]
    missing = [name for name in asked if name not in found]
    if not missing and asked:
        return True
    if any(name not in (DEFAULTS.text_column, DEFAULTS.label_column) for name in missing):
        return True  # the user names the columns, so they have names
    if {*TEXT_NAMES, *LABEL_NAMES} & set(found):
        return True
    return not _looks_like(first, others)


def _looks_like(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether a row may be one of the others: it has one of their few values, or a number where they do."""
    verdicts = set()
    for cell, values in zip(first, zip(*others, strict=False), strict=False):
        value, known = cell.strip(), {other.strip() for other in values}
        if all(map(NUMBER.fullmatch, known)):
            verdicts.add(bool(NUMBER.fullmatch(value)))
        elif len(known) <= min(_MOST_LABELS, len(others) / 2):
            verdicts.add(value in known)
    if verdicts:
        return True in verdicts
    # Nothing repeats: names are short and of one or two words.
    return not all(re.fullmatch(r"[^\W\d][\w .-]{0,30}", cell.strip()) for cell in first)


def select(table: Table, options: Options) -> tuple[Columns[int], str]:
    """Finds the columns that are asked for.

    Returns:
      Their positions, and a note for the log if they were not asked for by these names, else an empty text.

    Raises:
      InputError: when one is missing or is there twice; the message lists the columns, and what to give.
    """
    found = [_key(name) for name in table.names]
    for name in _asked(found, options):
        if found.count(name) > 1:
            raise InputError(
                f"The name of a column must be there once, but {name} is there {found.count(name)} times in "
                f"{table.place}: its columns are {_listed(table)}; rename one, or give its number."
            )
    text = {name: _position(table, found, name) for name in _parts(found, options.text_column)}
    label = None if options.label_column is None else _position(table, found, _key(options.label_column))
    note = ""
    if None in text.values() or (options.label_column is not None and label is None):
        if (guess := _well_known(table, found, options)) is None:
            raise _missing(table, options)
        text_at, label = guess
        text = {table.names[text_at]: text_at}
        note = f"the text is column {table.names[text_at]}"
        note += "" if label is None else f", the label is column {table.names[label]}"
    return (
        Columns(
            {name: at for name, at in text.items() if at is not None},
            None if label is None else (table.names[label], label),
            _kept(table, found, options),
        ),
        note,
    )


def _kept(table: Table, found: Sequence[str], options: Options) -> dict[str, int]:
    kept = {}
    for name in options.keep:
        position = _position(table, found, _key(name))
        if position is None:
            raise InputError(
                f"--keep_columns must name columns of the input, but --keep_columns={name} was given; "
                f"the columns of {table.place} are {_listed(table)}."
            )
        kept[name] = position
    return kept


def _asked(found: Sequence[str], options: Options) -> list[str]:
    label = [] if options.label_column is None else [_key(options.label_column)]
    return [*_parts(found, options.text_column), *label]


def _key(name: str) -> str:
    return name.strip().lower()


def _parts(found: Sequence[str], name: str) -> list[str]:
    # A name may itself contain a comma.
    return [_key(name)] if _key(name) in found else [_key(part) for part in name.split(",")]


def _position(table: Table, found: Sequence[str], name: str) -> int | None:
    if table.has_names and name in found:
        return found.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(found):
        return int(name) - 1
    return None


def _well_known(table: Table, found: Sequence[str], options: Options) -> tuple[int, int | None] | None:
    """The columns of text and label that are meant where none is named; None: that can't be said."""
    if not table.has_names:
        is_open = options.text_column == DEFAULTS.text_column
        return _of_two(table, options) if is_open and options.label_column in (None, "label") else None
    text, label = _meant(table, found, options.text_column, DEFAULTS.text_column, TEXT_NAMES), None
    if options.label_column is not None:
        label = _meant(table, found, options.label_column, "label", LABEL_NAMES)
    if text is None or (options.label_column is not None and label is None):
        return None
    # What a column is called does not make it a text: a tweet may be a number, a document an address.
    fits = _may_be_text(table, text) and (label is None or _may_be_label(table, label))
    return (text, label) if fits or not table.rows else None


def _meant(table: Table, found: Sequence[str], asked: str, default: str, names: Sequence[str]) -> int | None:
    """The column that is asked for; for the default, if there is none, the only one with a usual name."""
    if asked != default or default in found:
        return _position(table, found, _key(asked))
    usual = [at for at, name in enumerate(found) if name in names]
    return usual[0] if len(usual) == 1 else None


def _of_two(table: Table, options: Options) -> tuple[int, int | None] | None:
    if len(table.names) == 1 and options.label_column is None:
        return 0, None
    labels = [at for at in range(len(table.names)) if _may_be_label(table, at)]
    if len(labels) > 1:  # in a short table, texts are few, too
        labels = [at for at in labels if all(map(_is_usual_label, _values(table, at)))]
    if len(table.names) != 2 or len(labels) != 1:
        return None
    return 1 - labels[0], labels[0] if options.label_column else None


def _is_usual_label(value: str) -> bool:
    return bool(NUMBER.fullmatch(value)) or NEGATIVE_POSITIVE.number_of(value) is not None


def _values(table: Table, at: int) -> list[str]:
    return [row[at].strip() for row in table.rows if at < len(row)]


def _may_be_label(table: Table, at: int) -> bool:
    values = _values(table, at)
    distinct = set(values)
    return (
        not distinct & set(NESTED)
        and len(distinct) <= min(_MOST_LABELS, max(2, len(values) / 2))
        and max(map(len, distinct), default=0) <= _LONGEST_LABEL
    )


def _may_be_text(table: Table, at: int) -> bool:
    values = _values(table, at)
    distinct = set(values)
    is_constant = len(distinct) == 1 and len(values) > _ENOUGH
    is_other = all(NUMBER.fullmatch(value) or _ADDRESS.match(value) for value in distinct)
    return not (distinct & set(NESTED) or is_constant or is_other)


def _missing(table: Table, options: Options) -> InputError:
    """The error that lists the columns, and prints flags that name the likely ones."""
    found = [_key(name) for name in table.names]
    wanted = " and ".join(_asked(found, options))
    remedy = _remedy(table, options)
    if not table.has_names:
        return InputError(
            f"Columns without names must be given by their numbers, but {wanted} was asked for, and those "
            f"of {table.place} are {_listed(table)}; {remedy}."
        )
    if table.may_lack_names and options.header == "auto":
        remedy += ", or --header=none if the first row holds a review"
    return InputError(
        f"Reviews must have the columns {wanted}, but those of {table.place} are {_listed(table)}; {remedy}."
    )


def _remedy(table: Table, options: Options) -> str:
    found = [_key(name) for name in table.names]
    lengths = [sum(map(len, _values(table, at))) for at in range(len(found))]
    texts = [at for at in range(len(found)) if _may_be_text(table, at)]
    text = _position(table, found, _key(options.text_column))
    if text is None:
        text = max(texts, key=lambda at: (found[at] in TEXT_NAMES, lengths[at]), default=None)
    labels = [at for at in range(len(found)) if at != text and found[at] not in _IDENTIFIERS]
    label = None if options.label_column is None else _position(table, found, _key(options.label_column))
    if label is None:
        label = max(
            (at for at in labels if found[at] in LABEL_NAMES or _may_be_label(table, at)),
            key=lambda at: (
                len(set(_values(table, at))) > 1,
                _may_be_label(table, at),
                -_rank(found[at]),
                -at,
            ),
            default=None,
        )
    if text is None or (options.label_column is not None and label is None):
        if any(set(NESTED) & set(row) for row in table.rows):
            return (
                "its values are nested: write an object for each review, as in "
                '{"text": "A fine film.", "label": "positive"}'
            )
        if len(table.names) == 1 and options.label_column is not None:
            return (
                "if something else separates its columns, name that by --delimiter, as in --delimiter='~'; "
                "else give a file that has a column for each"
            )
        return "name the right ones by --text_column and --label_column, or give a file that has them"
    flags = [] if table.has_names else ["--header=none"]
    flags.append(f"--text_column={_flag_value(table, text)}")
    if options.label_column is not None and label is not None:
        flags.append(f"--label_column={_flag_value(table, label)}")
    return f"give {' '.join(flags)}"


def _rank(name: str) -> int:
    """The place of a name among those that labels usually have."""
    return LABEL_NAMES.index(name) if name in LABEL_NAMES else len(LABEL_NAMES)


def _flag_value(table: Table, at: int) -> str:
    name = table.names[at].strip()
    is_usable = table.has_names and name and name.isprintable() and "," not in name
    return shlex.quote(name) if is_usable and not name.startswith("-") else str(at + 1)


def _listed(table: Table) -> str:
    """The columns, each with a value."""
    examples = table.rows[0] if table.rows else []
    shown = []
    for at, name in enumerate(table.names[:20]):
        example = f" ({printable(examples[at].strip()[:30])})" if at < len(examples) else ""
        shown.append(f"{printable(name.strip()[:40])}{example}")
    return ", ".join(shown) or "none"
