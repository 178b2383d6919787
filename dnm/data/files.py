"""Texts and labels from files as people have them: which columns they are, what is left out, what is odd about them.

`read_table` reads one file whole, `chunks` one of any length, `read_splits` a folder; `formats` gives the rows.
"""

import numbers
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dnm.config import FILE_SUFFIXES, is_data_file
from dnm.data.formats import Source, opened
from dnm.data.separated import TEXT
from dnm.errors import DnmError, unknown

SPLITS = ("train", "validation", "test")
NAMES = dict(train=("train",), validation=("validation", "valid", "dev", "val"), test=("test",), all=("all",))
USUAL = {"text": ("text", "sentence", "review"),
         "label": ("label", "class", "target", "y", "category", "sentiment", "intent", "kategorie", "klasse")}
MISSING_WORDS = ("nan", "na", "n/a", "#n/a", "none", "null", "<na>")  # as programs write a missing value
ROWS, CELLS, CHARACTERS = 5_000_000, 50_000_000, 1_000_000_000  # that are read at once at most
MANY = 100  # different fractions: no classes


@dataclass
class Table:
    """Rows of a file: texts, labels in one spelling, all columns, their numbers, and sentences on what was found."""

    texts: list[str]
    labels: list[str] | None
    columns: dict[str, list]
    text: str
    label: str
    rows: list[int]  # as an editor or a spreadsheet shows them
    notes: list[str]
    file: str = ""
    guessed: bool = False  # a column, from its values
    separator: str = ""  # of separated text


def same(text: str) -> str:
    """What two spellings of one sentence have in common: all but capitals and spacing."""
    return " ".join(text.split()).casefold()


def tidy_labels(values: Iterable) -> list[str]:
    """Class names in one spelling: ``1.0`` is ``1``, ``TRUE`` is ``True``, blanks and line ends are one blank."""
    return [_tidy(str(value)) for value in values]


def _tidy(label: str) -> str:
    label = unicodedata.normalize("NFC", " ".join(label.split()))
    if re.fullmatch(r"-?[0-9]+\.0+", label):
        label = label[:label.index(".")]
    return label.title() if label.casefold() in ("true", "false") else label


# ---------------------------------------------------------------- one file

def read_table(path: Path | str, text_column: str = "", label_column: str = "", *, separator: str = "", sheet: str = "",
               strict: bool = False, labelled: bool = True, like: "Table | None" = None) -> Table:
    """The texts and labels of one file (``-``: standard input); columns named or guessed, rows with gaps left out.

    The guess: a column named as in ``like``; one called text, sentence or review (else the one with the longest
    values), and one called label, class, target or y (else the one with the fewest different values). Capitals and
    outer blanks of names mean nothing.

    Raises
    ------
    DnmError : unreadable, no such column, two equally good ones, values that are no text or class, gaps in more than
        a tenth of the rows (in any row, if ``strict``).
    """
    source = opened(path, separator, sheet, _known(text_column, label_column))
    rows = list(_within(source, source.rows))
    columns = _columns(source, rows)
    text, guessed_text = _chosen(source, columns, "text", text_column, like, label_column)
    if not rows:
        raise DnmError(f"{source.name}: no rows below the column names")
    label, guessed = "", False
    if labelled:
        rest = {name: values for name, values in columns.items() if name != text}
        label, guessed = _chosen(source, rest, "label", label_column, like)
    if guessed_text or guessed:
        others = ", ".join(name for name in columns if name not in (text, label)) or "none"
        also = f" and {label!r} as label" if labelled and not label_column else ""
        source.notes.append(f"reads {text!r} as text{also} (guessed; other columns: {others})")
    at, found = [n for n, _ in rows], {"text": _values(source, rows, text, "text")}
    if labelled:
        found["label"] = _values(source, rows, label, "label")
    kept = _without_gaps(source, at, found, strict)
    labels = tidy_labels(found["label"][i] for i in kept) if labelled else None
    table = Table([found["text"][i] for i in kept], labels, {n: [v[i] for i in kept] for n, v in columns.items()}, text,
                  label, [at[i] for i in kept], source.notes, source.name, guessed_text or guessed)
    if labelled:
        _check_classes(table)
        source.notes.extend(_findings(table))
    return table


def chunks(path: Path | str, text_column: str = "", usual: str = "", *, separator: str = "", sheet: str = "",
           size: int = 10_000) -> Iterator[Table]:
    """A file's rows, ``size`` at a time, without labels; a text that is missing is ``""``, so that no row is lost.

    The first chunk decides the columns; the one called ``usual`` holds the texts, if it is there. A JSON array is read
    whole, everything else bit by bit.
    """
    source, text, names = opened(path, separator, sheet, _known(text_column, usual)), "", None
    like = Table([], None, {}, usual, "", [], []) if usual else None
    while rows := list(_within(source, islice(source.rows, size))):
        columns = _columns(source, rows)
        if names is None:
            names, (text, guessed) = list(columns), _chosen(source, columns, "text", text_column, like)
            source.notes += [f"reads {text!r} as text (guessed)"] if guessed else []
        elif late := [name for name in columns if name not in names]:
            source.notes.append(f"left out columns that are not among the first rows: {', '.join(late)}")
        texts = [value or "" for value in _values(source, rows, text, "text")]
        columns = {name: columns.get(name, [None] * len(rows)) for name in names}
        yield Table(texts, None, columns, text, "", [n for n, _ in rows], source.notes, source.name,
                    separator=source.separator)
        source.notes = []


def _within(source: Source, rows: Iterable) -> Iterator:
    """The rows, as long as they fit into the memory of a usual machine."""
    most, size = min(ROWS, CELLS // max(1, len(source.names))), 0
    for number, row in enumerate(rows, start=1):
        size += sum(len(value) for value in row[1].values() if isinstance(value, str))
        if number > most or size > CHARACTERS:
            what = f"{most:,} rows" if number > most else f"{CHARACTERS:,} characters"
            raise DnmError(f"{source.name}: more than {what} cannot be read at once; give fewer, or fewer columns")
        yield row


def _known(*asked: str) -> set[str]:
    return {name.strip().casefold() for name in asked if name} | {*USUAL["text"], *USUAL["label"]}


def _columns(source: Source, rows: list[tuple[int, dict]]) -> dict[str, list]:
    names = source.names or dict.fromkeys(name for _, row in rows for name in row)
    if len(names) * len(rows) > CELLS:
        raise DnmError(f"{source.name}: {len(rows)} rows have {len(names)} different columns; are the values names?")
    return {name: [row.get(name) for _, row in rows] for name in names}


# ---------------------------------------------------------------- which column, which value

def _chosen(source: Source, columns: dict, kind: str, asked: str, like: Table | None = None,
            label: str = "") -> tuple[str, bool]:
    """The column that holds the texts or the labels, and whether others were there and its values decided."""
    plain = {name: name.strip().casefold() for name in columns}
    for wanted in ([asked], [getattr(like, kind, "")], USUAL[kind]):
        if asked in columns:
            return asked, False
        found = [name for name in columns if plain[name] in [one.strip().casefold() for one in wanted if one]]
        if len(found) > 1:
            raise _undecided(source, kind, found)
        if found:
            return found[0], False
        if asked:
            raise DnmError(f"{source.name}: {unknown(f'{kind} column', asked, columns)}")
    if like and kind == "label":
        raise DnmError(f"{source.name}: no column {like.label!r} as in {like.file}: a file without labels? "
                       "Leave it out")
    shown = {name: [text for value in values if value is not None and (text := str(value).strip())]
             for name, values in columns.items()}
    if kind == "text":
        merit = {name: sum(map(len, values)) for name, values in shown.items()
                 if plain[name] not in (*USUAL["label"], label.strip().casefold())}
    else:  # not one value throughout, not one that is mostly missing
        merit = {name: -len({*values}) for name, values in shown.items()
                 if len({*values}) > 1 and 10 * len(values) >= 9 * len(columns[name])} or dict.fromkeys(columns, 0)
    if not merit:
        raise DnmError(f"{source.name}: no {kind} column; the file needs a text and a label column" +
                       "".join(f" ({note})" for note in source.notes if "one column" in note or "sheet" in note))
    best = [name for name in merit if merit[name] == max(merit.values())]
    if len(best) > 1:
        raise _undecided(source, kind, best)
    return best[0], len(columns) > 1


def _undecided(source: Source, kind: str, names: list[str]) -> DnmError:
    return DnmError(f"{source.name}: {' and '.join(map(repr, names))} could equally be the {kind} column; say which "
                    f"({kind}_column)")


def _values(source: Source, rows: list[tuple[int, dict]], name: str, kind: str) -> list[str | None]:
    """Values as text, None where there is none; a `DnmError` with the row where one is something else."""
    def refused(number: int, why: str) -> DnmError:
        return DnmError(f"{source.name}, {source.word} {number}: the {kind} in column {name!r} {why}")

    found = []
    for number, row in rows:
        value = row.get(name)
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                raise refused(number, "is bytes that are not UTF-8") from None
        if not isinstance(value, str):
            if value is not None and not isinstance(value, numbers.Number):
                way_out = "one label a text" if kind == "label" else "not a text"
                raise refused(number, f"is of type {type(value).__name__}: {way_out}")
            value = None if value is None or value != value else str(value)
        elif len(value) > TEXT:
            raise refused(number, f"has more than {TEXT:,} characters: no text is so long")
        elif not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise refused(number, "holds half a character (a lone surrogate, as in cut-off text); mend or remove "
                                  "the row")
        found.append(value if value and not value.isspace() else None)
    return found


# ---------------------------------------------------------------- what is left out, what is odd

def _without_gaps(source: Source, at: list[int], found: dict[str, list], strict: bool) -> list[int]:
    """Indices of the rows that hold all that is needed; the others are counted, an error where they are many."""
    said, kept = [], list(range(len(at)))
    for kind, values in found.items():
        if gaps := [at[i] for i in kept if values[i] is None]:
            shown = ", ".join(map(str, gaps[:5])) + (", …" if len(gaps) > 5 else "")
            said.append(f"{len(gaps)} without a {kind} ({source.word} {shown})")
            kept = [i for i in kept if values[i] is not None]
    if len(at) - len(kept) > (0 if strict else len(at) / 10):
        raise DnmError(f"{source.name}: of {len(at)} rows {' and '.join(said)}; fill them in, move these rows "
                       "to another file (`dnm predict` needs no labels), or name another column")
    source.notes.extend([f"left out of {len(at)} rows: {' and '.join(said)}"] if said else [])
    return kept


def _check_classes(table: Table) -> None:
    fractions = {label for label in table.labels if re.fullmatch(r"-?[0-9]*\.[0-9]+(e-?[0-9]+)?", label)}
    if len(fractions) >= MANY:
        raise DnmError(f"{table.file}: column {table.label!r} holds {len(fractions)} different fractions such as "
                       f"{min(fractions)}: amounts, not classes; make a few classes of them, or name another column")


def _findings(table: Table) -> list[str]:
    """Sentences on classes and texts that are seldom meant so."""
    counts, spellings, notes = Counter(table.labels), {}, []
    for label in counts:
        spellings.setdefault(same(label), []).append(label)
        if label.lower() in MISSING_WORDS:
            notes.append(f"{counts[label]} rows have the label {label!r}, as many programs write a missing value; "
                         "if it is one, empty them")
    notes += [f"{' and '.join(map(repr, alike))} are two classes, though only capitals or blanks tell them apart"
              for alike in spellings.values() if len(alike) > 1]
    pairs = Counter(zip(map(same, table.texts), table.labels, strict=True))
    if repeated := len(table.texts) - len(pairs):
        notes.append(f"{repeated} rows repeat another")
    if torn := sum(labels > 1 for labels in Counter(text for text, _ in pairs).values()):
        notes.append(f"{torn} texts stand under more than one label")
    if lonely := [label for label, count in counts.items() if count == 1]:
        notes.append(f"one example only: class {', '.join(map(repr, lonely[:5]))}{', …' * (len(lonely) > 5)}")
    frequent = [pair for pair in counts.most_common() if pair[1] > 1]
    if frequent and frequent[0][1] > 20 * frequent[-1][1]:
        notes.append("class {!r} has {} rows, {!r} {}".format(*frequent[0], *frequent[-1]))
    return notes


# ---------------------------------------------------------------- a folder

def read_folder(folder: Path, text_column: str = "", label_column: str = "") -> dict[str, tuple[list, list]]:
    """The splits of a folder, as texts and labels; see `read_splits`."""
    tables = read_splits(folder, text_column, label_column)
    return {split: (table.texts, table.labels) for split, table in tables.items()}


def read_splits(folder: Path, text_column: str = "", label_column: str = "") -> dict[str, Table]:
    """The files of a folder that are called train, validation (valid, dev, val) and test, or all.

    Where columns are not named, those of the training sentences are looked for in the others.
    """
    files = {path: path.name.casefold().removesuffix(".gz").rpartition(".")[0] for path in sorted(folder.iterdir())
             if path.is_file() and is_data_file(path) and path.name[0] not in ".~"}  # left by systems, spreadsheets
    tables = {}
    for split in ("train", "all", *SPLITS[1:]):
        ranked = [path for name in NAMES[split] for suffix in FILE_SUFFIXES for path in files
                  if files[path] == name and suffix in path.name.casefold()]
        if ranked:
            like = tables.get("train") or tables.get("all")
            tables[split] = read_table(ranked[0], text_column, label_column, like=like)
            del files[ranked[0]]
    if "all" in tables and len(tables) > 1:
        raise DnmError(f"{folder} holds an 'all' file beside {', '.join(set(tables) - {'all'})}; keep one or the other")
    if not tables:
        raise DnmError(f"{folder}: no train, validation, test or all file ({', '.join(FILE_SUFFIXES)})")
    if files:
        warnings.warn(f"{folder.name}: not read: {', '.join(path.name for path in files)} (files are called train, "
                      "validation, test or all)", stacklevel=4)
    return tables
