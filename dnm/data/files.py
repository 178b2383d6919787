"""Texts and labels from files: CSV, TSV, JSON Lines and Parquet, with errors that name file, line and way out."""

import csv
import io
import json
from pathlib import Path

from dnm.config import FILE_SUFFIXES
from dnm.errors import DnmError, mendable, unknown

SPLITS = ("train", "validation", "test")


def read_folder(folder: Path, text_column: str = "", label_column: str = "") -> dict[str, tuple[list, list]]:
    """The ``train``, ``validation`` and ``test`` (or ``all``) files of a folder, as texts and labels."""
    tables = {}
    for split in (*SPLITS, "all"):
        for suffix in FILE_SUFFIXES:
            if (folder / (split + suffix)).is_file():
                tables[split] = read_rows(folder / (split + suffix), text_column, label_column)
                break
    if "all" in tables and len(tables) > 1:
        raise DnmError(f"{folder} holds an 'all' file beside {', '.join(set(tables) - {'all'})}; keep one or the other")
    if not tables:
        raise DnmError(f"{folder}: no train, validation, test or all file ({', '.join(FILE_SUFFIXES)})")
    return tables


def read_rows(path: Path, text_column: str = "", label_column: str = "") -> tuple[list[str], list[str]]:
    """Texts and labels of a CSV, TSV, JSON Lines or Parquet file; the columns named or guessed.

    The guess: a column called text, sentence or review (else the one with the longest values), and one
    called label, class, target or y (else the one with the fewest different values).
    """
    columns = _columns(path)
    text = _column(path, columns, text_column, ("text", "sentence", "review"), "text",
                   lambda values: -sum(len(str(v)) for v in values))
    if not columns[text]:
        raise DnmError(f"{path.name}: no rows below the column names")
    rest = {name: values for name, values in columns.items() if name != text}
    label = _column(path, rest, label_column, ("label", "class", "target", "y"), "label",
                    lambda values: (len({str(v) for v in values}) < 2, len({str(v) for v in values})))
    for kind, name in (("text", text), ("label", label)):
        for row, value in enumerate(columns[name], start=1):
            if value is None or value != value or not str(value).strip():
                raise DnmError(f"{path.name}, row {row}: empty {kind} in column {name!r}; fill it in or remove the row")
            if not str(value).isascii() and any("\ud800" <= c <= "\udfff" for c in str(value)):
                raise DnmError(f"{path.name}, row {row}: {kind} in column {name!r} holds half a character (a lone "
                               "surrogate, as in cut-off text); mend or remove the row")
    labels = [int(v) if isinstance(v, float) and v.is_integer() else v for v in columns[label]]
    return [str(v) for v in columns[text]], [str(v).strip() for v in labels]


def _columns(path: Path) -> dict[str, list]:
    with mendable(f"cannot read {path.name}: {{}}"):
        if path.suffix == ".parquet":
            import pandas
            frame = pandas.read_parquet(path).astype(object)
            return {str(name): frame[name].where(frame[name].notna(), None).tolist() for name in frame}
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw[:error.start].count(b"\n") + 1
            raise DnmError(f"{path.name}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8; "
                           "save the file as UTF-8") from None
        if path.suffix == ".jsonl":
            rows = [_json_line(path, n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
            names = dict.fromkeys(name for row in rows for name in row)
            return {name: [row.get(name) for row in rows] for name in names}
        return _separated(path, text)


def _separated(path: Path, text: str) -> dict[str, list]:
    """Columns of comma- or tab-separated text; tabs need no quotes, so in a TSV a quotation mark is just one."""
    options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {"strict": True}
    reader = csv.DictReader(io.StringIO(text, newline=""), **options)
    rows = []
    for row in reader:
        if row.pop(None, None):
            raise DnmError(f"{path.name}, line {reader.line_num}: more fields than columns; put texts with commas in "
                           "double quotes")
        rows.append(row)
    return {name: [row[name] for row in rows] for name in reader.fieldnames or ()}


def _json_line(path: Path, number: int, line: str) -> dict:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise DnmError(f'{path.name}, line {number}: not a JSON object such as {{"text": "…", "label": 1}}')
    return row


def _column(path: Path, columns: dict, asked: str, usual: tuple[str, ...], kind: str, rank) -> str:
    if asked:
        if asked not in columns:
            error = unknown(f"{kind} column", asked, columns)
            raise DnmError(f"{path.name}: {error}")
        return asked
    for name in columns:
        if name.lower() in usual:
            return name
    if not columns:
        raise DnmError(f"{path.name}: no {kind} column; the file needs a text and a label column")
    return min(columns, key=lambda name: rank(columns[name]))
