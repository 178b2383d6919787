"""Rows out of files as people have them: separated text, JSON, JSON Lines, Excel and Parquet, each also gzipped.

`opened` gives them one by one, each with the number that an editor (text, JSON Lines) or a spreadsheet (Excel) shows.
Of JSON arrays and Parquet files the first entry is row 1.
"""

import codecs
import gzip
import io
import json
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path, PurePath

from dnm.data.separated import NOTHING, SEPARATORS, TEXT, separated, shown, trimmed
from dnm.errors import DnmError, mendable, unknown

ENCODINGS = {f"cp125{n}": f"Windows-125{n}" for n in (2, 0, 1, 3)}  # Western, Central European, Cyrillic, Greek
# A file made to do harm may ask for any memory. No table of texts needs more than this.
WHOLE = 250_000_000  # characters of JSON that is not a row a line
COLUMNS, SHEET = 16_384, 1_048_576  # columns of a table and rows of a sheet, as spreadsheets have them
BYTES, PACKED = 1 << 30, 200  # of a workbook or of standard input; how much smaller than its content a packed file is
TOO_ALIKE = ("gb18030", "big5", "shift_jis", "euc_kr")  # to be read on a guess


@dataclass
class Source:
    """A file that is being read: ``rows`` are numbers and values by column, ``word`` says what the numbers count."""

    name: str
    word: str = "row"
    rows: Iterable[tuple[int, dict]] = ()
    names: list[str] = field(default_factory=list)  # of the columns, where a header says them
    notes: list[str] = field(default_factory=list)
    separator: str = ""  # of separated text


def opened(path: Path | str, separator: str = "", sheet: str = "", known: Collection[str] = ()) -> Source:
    """The rows of a file, or of standard input (``-``), whose kind is then seen from its first bytes.

    ``known`` are names of columns, in small letters: where the first row holds one, it is a header.

    What is unreadable or damaged is a `DnmError`, now or at the row in question.
    """
    path = "-" if str(path) == "-" else Path(path)
    source = Source("standard input" if path == "-" else path.name)
    with mendable(f"cannot read {source.name}: {{}}"):
        content = sys.stdin.buffer.read(BYTES + 1) if path == "-" else None
        if content is not None and len(content) > BYTES:
            raise DnmError("standard input: more than a gigabyte; give a file")
        with _bytes(path, content) as file:
            head = file.read(4096)
        if not head.strip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"):  # byte order marks and blanks
            raise DnmError(f"{source.name} is empty")
        kind = _kind(source.name, head)
        if kind == "xlsx":
            _headed(source, _workbook(source, _bytes(path, content), sheet), known)
        elif kind == "parquet":
            source.rows = _parquet(source.name, _bytes(path, content))
        else:
            with _bytes(path, content) as file:
                encoding = _encoding(source, file, head)
            source.word, most = "line", WHOLE if kind == "json" else TEXT
            lines = _lines(source, _bytes(path, content), encoding, most)
            if kind == "json":
                _json(source, lines)
            else:
                taken, records = separated(source.name, lines, SEPARATORS.get(separator, separator), kind)
                source.separator = taken if taken != NOTHING else ""
                _headed(source, records, known, taken)
                missing = "comma, semicolon or tab" if taken == NOTHING else repr(taken)
                source.notes += [f"one column only: no {missing} in the first line"] * (len(source.names) == 1)
    source.rows = _guarded(source.name, source.rows)
    return source


def _guarded(name: str, rows: Iterable) -> Iterator:
    with mendable(f"cannot read {name}: {{}}"):
        yield from rows


def _bytes(path: Path | str, content: bytes | None):
    """A binary file, unpacked where it is gzipped, whatever its name says."""
    if content is None and path.exists() and not path.is_file():  # reading a pipe or a device need not end
        raise DnmError(f"cannot read {path}: no ordinary file; name one, or - for standard input")
    file = path.open("rb") if content is None else io.BytesIO(content)
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return _Unpacked(path if content is None else "standard input", fileobj=file) if packed else file


class _Unpacked(gzip.GzipFile):
    """What a gzipped file holds, as long as it may be texts."""

    def read(self, size: int = -1) -> bytes:
        return self._sound(super().read(size))

    def read1(self, size: int = -1) -> bytes:
        return self._sound(super().read1(size))

    def _sound(self, block: bytes) -> bytes:
        _no_bomb(PurePath(self.name).name, self.tell(), self.fileobj.tell())
        return block


def _no_bomb(name: str, size: int, packed: int) -> None:
    if size > 1 << 25 and size > PACKED * packed:
        raise DnmError(f"cannot read {name}: it unpacks to more than {PACKED} times its size, as no texts do; if it is "
                       "sound, save it as CSV")


def _kind(name: str, head: bytes) -> str:
    suffix = PurePath(name.lower().removesuffix(".gz")).suffix[1:]
    if not suffix:
        suffix = "json" if head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \r\n")[:1] in (b"{", b"[") else "csv"
    return {b"PK\x03\x04": "xlsx", b"PAR1": "parquet"}.get(head[:4], "json" if suffix == "jsonl" else suffix)


# ---------------------------------------------------------------- bytes to lines

def _encoding(source: Source, file, head: bytes) -> str:
    """UTF-8 if all of it is; else UTF-16 or the likeliest old encoding, which a note says."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        source.notes.append("read as UTF-16")
        return "utf-16"
    if b"\0" in head:  # no character of a text in UTF-8, every other byte of English in UTF-16
        source.notes.append("read as UTF-16 (guessed: every other byte is empty)")
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    decoder, line, block = codecs.getincrementaldecoder("utf-8")(), 1, head
    while block:
        block = file.read(1 << 20)
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line, wrong = line + error.object[:error.start].count(b"\n"), error.object[error.start]
            return _old_encoding(source, error.object, f"byte {wrong:#04x} in line {line} is not UTF-8")
        line += block.count(b"\n")
    return "utf-8-sig"


def _old_encoding(source: Source, sample: bytes, why: str) -> str:
    """Windows-1252 where it is among the likeliest, for it is by far the most frequent."""
    from charset_normalizer import from_bytes

    telling = b"\n".join([line for line in dict.fromkeys(sample.split(b"\n")) if not line.isascii()][:1000])
    found = list(from_bytes(telling, cp_isolation=[*ENCODINGS, *TOO_ALIKE]))
    likely = {name for match in found if match.chaos <= found[0].chaos + 0.02 for name in match.could_be_from_charset}
    western = not any(byte in telling for byte in b"\x81\x8d\x8f\x90\x9d")  # these five have no meaning in it
    encoding = "cp1252" if "cp1252" in likely or (western and not found) else found[0].encoding if found else ""
    if encoding not in ENCODINGS:
        raise DnmError(f"{source.name}: {why}, nor does it tell its encoding clearly; save the file as UTF-8")
    source.notes.append(f"read as {ENCODINGS[encoding]} (guessed: {why})")
    return encoding


def _lines(source: Source, file, encoding: str, most: int) -> Iterator[str]:
    """Lines with their ends, of ``most`` characters: only what an editor shows as a new line ends one."""
    number = 0
    try:
        with io.TextIOWrapper(file, encoding=encoding, newline="") as text:
            for number, line in enumerate(iter(lambda: text.readline(most + 1), ""), start=1):
                if len(line) > most:
                    raise DnmError(f"{source.name}, line {number}: more than {most:,} characters, as no row of "
                                   "texts has; is this a table?")
                yield line
    except UnicodeDecodeError as error:
        raise DnmError(f"{source.name}: byte 0x{error.object[error.start]:02x} behind line {number} does not fit the "
                       "encoding of what stands before; save the file as UTF-8") from None


# ---------------------------------------------------------------- names of columns

def _headed(source: Source, records: Iterator[tuple[int, list]], known: Collection[str], separator: str = "") -> None:
    """The first row as names of the columns, unless one of its values also stands below it, as in any other row."""
    (number, names), ahead = next(records, (0, [])), list(islice(records, 100))
    names = trimmed([*map(shown, names)], 0)
    counted = [name for name in names if name]
    header = counted == [str(n) for n in range(len(counted))] or any(name.casefold() in known for name in names)
    below = {name for _, row in ahead for name, value in zip(names, row, strict=False) if name == shown(value) != ""}
    if below and not header:
        source.notes.append(f"its first row was counted in, no names of columns: {min(below)!r} stands below it, too")
        ahead.insert(0, (number, names))
    if len(names) > COLUMNS:
        raise DnmError(f"{source.name}: {len(names):,} columns; leave out those that are not needed")
    source.names = _distinct([""] * len(names) if below and not header else names)

    blank = [None] * len(source.names)

    def fitted() -> Iterator[tuple[int, dict]]:
        for number, row in chain(ahead, records):
            row = row if len(row) <= len(blank) else trimmed(row, len(blank))
            if len(row) > len(blank) and separator:
                what = {",": "commas", ";": "semicolons", "\t": "tabs"}.get(separator, repr(separator))
                raise DnmError(f"{source.name}, line {number}: more fields than columns; put texts with {what} in "
                               f"double quotes, and double the quotes inside (separator taken: {separator!r})")
            if not header or shown(row[0]) != names[0] or [*map(shown, row)] != names:  # else it is the header again
                yield number, dict(zip(source.names, chain(row, blank), strict=False))
    source.rows = fitted()


def _distinct(names: list[str]) -> list[str]:
    """Names of columns, none empty and none twice."""
    found = []
    for place, name in enumerate(names, start=1):
        name = name or f"column {place}"
        found.append(f"{name}.{place}" if name in found else name)
    return found


# ---------------------------------------------------------------- JSON, workbooks, Parquet

def _json(source: Source, lines: Iterator[str]) -> None:
    """One object a line, or an array of objects, which may be the only value of an object."""
    lines = enumerate(lines, start=1)
    first = next(((number, line) for number, line in lines if line.strip()), (1, "{}"))
    numbered = chain([first], lines)
    if not isinstance(_value(first[1]), dict) or _array(_value(first[1])) is not None:
        numbered = list(_within(source, numbered))
        try:
            whole = json.loads("\n" * (first[0] - 1) + "".join(line for _, line in numbered))
        except ValueError as error:
            whole = error
            if first[1].lstrip()[:1] == "[" or first[1].strip() == "{":
                raise DnmError(f"{source.name}: neither an array nor lines of JSON objects: {error}") from None
        if (array := _array(whole)) is not None:
            source.word = "row"
            source.rows = ((number, _entry(source, number, value)) for number, value in enumerate(array, start=1))
            return
    source.rows = ((number, _entry(source, number, _value(line))) for number, line in numbered if line.strip())


def _within(source: Source, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    size = 0
    for number, line in lines:
        if (size := size + len(line)) > WHOLE:
            raise DnmError(f"{source.name}: more than {WHOLE:,} characters of JSON that has to be read whole; save an "
                           "object a line (JSON Lines)")
        yield number, line


def _value(line: str):
    with suppress(ValueError):
        return json.loads(line)


def _array(value) -> list | None:
    if isinstance(value, dict) and len(value) == 1:
        value, = value.values()
    return value if isinstance(value, list) else None


def _entry(source: Source, number: int, value) -> dict:
    if not isinstance(value, dict):
        raise DnmError(f'{source.name}, {source.word} {number}: not a JSON object such as {{"text": "…", "label": 1}}')
    return value


def _workbook(source: Source, file, sheet: str) -> Iterator[tuple[int, tuple]]:
    import openpyxl

    with file:
        if not zipfile.is_zipfile(file):
            raise DnmError(f"cannot read {source.name}: it holds no Excel workbook; if it is CSV, name it .csv")
        unpacked, packed = sum(part.file_size for part in zipfile.ZipFile(file).infolist()), file.seek(0, io.SEEK_END)
        _no_bomb(source.name, unpacked, packed)
        if unpacked > BYTES:
            raise DnmError(f"cannot read {source.name}: it unpacks to more than a gigabyte; save it as CSV")
        pages = {page.title: page for page in openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets}
        if sheet and sheet not in pages:
            raise DnmError(f"{source.name}: {unknown('sheet', sheet, pages)}")
        title = sheet or next(iter(pages))
        if len(pages) > 1 and not sheet:
            source.notes.append(f"reads the sheet {title!r} (others, for --sheet: {', '.join(list(pages)[1:])})")
        pages[title].reset_dimensions()  # some programs write wrong ones
        for number, row in enumerate(pages[title].iter_rows(values_only=True), start=1):
            if number > SHEET:
                raise DnmError(f"cannot read {source.name}: its rows are numbered beyond {SHEET:,}, as no sheet can")
            if any(map(shown, row)):
                yield number, row


def _parquet(name: str, file) -> Iterator[tuple[int, dict]]:
    from pyarrow.parquet import ParquetFile

    with file:
        packed, table = file.seek(0, io.SEEK_END), ParquetFile(file)
        for group in range(table.num_row_groups):
            _no_bomb(name, table.metadata.row_group(group).total_byte_size, packed)
        rows = chain.from_iterable(batch.to_pylist() for batch in table.iter_batches(64))  # each may be one long text
        for number, row in enumerate(rows, start=1):
            yield number, {name: value for name, value in row.items() if not name.startswith("__index_level_")}
