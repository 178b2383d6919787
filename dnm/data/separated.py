"""Rows out of separated text (CSV, TSV and the like), with the numbers of their lines as an editor shows them."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice

from dnm.errors import DnmError

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t"}
TEXT = 5_000_000  # characters of a row at most: two long novels
NOTHING = "\x1f"  # the separator of a file with one column


def separated(name: str, lines: Iterator[str], separator: str, kind: str) -> tuple[str, Iterator]:
    """The separator, sniffed where none is given, and the rows: the number of the first line, and the fields."""
    first, skipped = list(islice(lines, 200)), 0
    if first and (said := re.fullmatch(r'"?sep=(.)"?\s*', first[0], re.I)):  # a spreadsheet's own first line
        separator, skipped = separator or said[1], 1
    if len(separator) > 1:
        raise DnmError(f"separator must be one character, or {', '.join(SEPARATORS)}; got {separator!r}")
    separator = separator or _sniffed(first[skipped:], "\t,;" if kind == "tsv" else ",;\t")
    return separator, _records(name, chain(first[skipped:], lines), separator, skipped)


def _sniffed(lines: list[str], candidates: str) -> str:
    """The separator under which most rows have as many fields as the header, at least two; `NOTHING` if none has.

    Where two do, the one with fewer fields that start with a blank: a comma before a blank is prose.
    """
    def merit(separator: str) -> tuple[int, int]:
        rows = []
        with suppress(DnmError):
            rows.extend(fields for _, fields in _records("", iter(lines), separator))
        width = len(rows[0]) if rows else 0
        fitting = sum(len(trimmed(fields, width)) == width for fields in rows) if width > 1 else 0
        return fitting, -sum(field.startswith(" ") for fields in rows for field in fields)
    best = max(candidates, key=merit)  # the first of equals
    return best if merit(best)[0] else NOTHING


def _records(name: str, lines: Iterator[str], separator: str, skipped: int = 0) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line, and the fields, of every row that is not empty.

    The `csv` module reads strictly. What it refuses is read as one line in which only a quotation mark before a
    separator or the end closes a field. So is, between tabs, what would be a field of several lines that are rows, too.
    """
    csv.field_size_limit(2 ** 31 - 1)
    waiting, number, width = deque(), skipped, 0

    def following(taken: list[str]) -> Iterator[str]:
        size = 0
        while size < TEXT and (line := waiting.popleft() if waiting else next(lines, None)) is not None:
            size += len(line)
            yield taken.append(line) or line

    def fits(fields: list[str] | None) -> bool:
        return fields is not None and width in (0, len(trimmed(fields, width)))

    while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
        taken = [line]
        fields = _strictly([line], separator) if '"' in line else line.rstrip("\r\n").split(separator)
        if any(re.match(' +"', field) for field in fields or ()):  # blanks before the quotes
            fields = _strictly([re.sub(rf'(?<={re.escape(separator)}) +(?=")', "", line)], separator) or fields
        if fields is None:
            fields = _strictly(chain([line], following(taken)), separator)
            rows = separator == "\t" and width and [fits(_one_line(one, separator)) for one in taken]
            if not fits(fields) or (rows and rows[0] and any(rows[1:])):
                waiting.extendleft(reversed(taken[1:]))
                del taken[1:]
                fields = _one_line(line, separator)
                if not fits(fields) or (not rows and any(re.match('"(?!.*")', field) for field in fields)):
                    raise DnmError(f"cannot read {name}, line {number + 1}: its quotation marks do not pair within "
                                   f'{TEXT:,} characters; double the quotes inside a text, as in "a 12"" pipe"')
        if any(field.strip() for field in fields):
            width = width or len(fields)
            yield number + 1, fields
        number += len(taken)


def _strictly(lines: Iterable[str], separator: str) -> list[str] | None:
    with suppress(csv.Error):
        return next(csv.reader(lines, delimiter=separator, strict=True))


def _one_line(line: str, separator: str) -> list[str]:
    """The fields of one line whose inner quotation marks may be single, or behind backslashes."""
    end = rf"{re.escape(separator)}|\Z"
    field = re.compile(rf'"((?>\\"|""|[^"]|"(?!{end}))*+)"(?={end})|([^{re.escape(separator)}]*+)')
    fields, place, line = [], 0, line.rstrip("\r\n")
    while place <= len(line):
        found = field.match(line, place)
        fields.append(found[2] if found[1] is None else re.sub(r'""|\\"', '"', found[1]))
        place = found.end() + 1
    return fields


def trimmed(fields: list, width: int) -> list:
    end = len(fields)
    while end > width and not shown(fields[end - 1]):
        end -= 1
    return fields[:end]


def shown(value) -> str:
    return "" if value is None else str(value).strip()
