"""Properties of what people hand in as texts: tables of every kind, word pieces, and the classifier."""

import csv
import gzip
import io
import json
import unicodedata
import warnings

import numpy as np
import openpyxl
import pandas as pd
import pytest
from conftest import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from dnm.config import FILE_SUFFIXES
from dnm.data.files import chunks, read_table
from dnm.errors import DnmError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


# ---------------------------------------------------------------- tables, written and read

whole = st.characters(exclude_categories=["Cs"])  # every character but halves
odd = st.sampled_from(["a,b", "a;b", "a\tb", 'he said "no"', '"', "a\nb", "a\r\nb", "a\rb", " blanks around ", "\ufeffmarked", "\u202eright to left\u202c", "\u05e9\u05dc\u05d5\u05dd",
                       "\U0001f600\u200d\U0001f680", "e\u0301", "\x00", "a\x00b", "\x1f", "\x85", "\u2028", "\x1a", "=1+1", "-", "nan", "1.0", "TRUE", "{}", "[1]", "\\", "\\n", '\\"', "''", "sep=;",
                       '";"', '","', ",,,", "#", "1;2,3\t4", "\xe9", "\xff\xfe", "PK\x03\x04", "PAR1", "_x000D_"])
texts = (st.text(whole, min_size=1, max_size=30) | odd | st.lists(odd, min_size=1, max_size=4).map(" ".join)).filter(str.strip)
labels = st.lists((st.text(whole, min_size=1, max_size=6) | st.sampled_from(["a, b", 'a "b"', "a\nb", "x;y", "\u00e9t\u00e9", " b ", "\u05d0"])).filter(str.strip), min_size=2, max_size=4)


@st.composite
def tables(draw):
    """Texts and labels, sometimes with a long text; a row that repeats the header is none."""
    names = draw(labels)
    rows = draw(st.lists(st.tuples(texts, st.sampled_from(names)), min_size=1, max_size=12))
    if draw(st.integers(0, 9)) == 0:
        rows.append((" ".join(["word"] * 10_000), names[0]))
    assume(not any((text.strip(), label.strip()) == ("text", "label") for text, label in rows))
    return rows


def separated_text(rows, separator=",", quoting=csv.QUOTE_MINIMAL, end="\r\n") -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=end).writerows([("text", "label"), *rows])
    return out.getvalue()


def workbook(rows) -> bytes:
    book, out = openpyxl.Workbook(write_only=True), io.BytesIO()
    sheet = book.create_sheet()
    for row in [("text", "label"), *rows]:
        cells = [WriteOnlyCell(sheet, value) for value in row]
        for cell in cells:
            cell.data_type = "s"  # no formulas, no errors
        sheet.append(cells)
    book.save(out)
    return out.getvalue()


def parquet(rows) -> bytes:
    out = io.BytesIO()
    pd.DataFrame(rows, columns=["text", "label"]).to_parquet(out)
    return out.getvalue()


def objects(rows) -> list[dict]:
    return [dict(zip(("text", "label"), row, strict=True)) for row in rows]


@st.composite
def files(draw, rows):
    """A file's suffix and bytes."""
    kind = draw(st.sampled_from(["csv", "csv by pandas", "json", "jsonl", "xlsx", "parquet"]))
    if kind == "xlsx":
        assume(not any(ILLEGAL_CHARACTERS_RE.search(value) or "\r" in value or "_x" in value or "\ufffe" in value or "\uffff" in value for row in rows for value in row))
        content = workbook([(text[:32_767], label) for text, label in rows])
        assume(all(len(text) <= 32_767 for text, _ in rows))
    elif kind == "parquet":
        content = parquet(rows)
    else:
        encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
        if kind == "csv":
            separator, quoting = draw(st.sampled_from(",;\t")), draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
            text = separated_text(rows, separator, quoting, draw(st.sampled_from(["\r\n", "\n"])) if quoting == csv.QUOTE_ALL else "\r\n")
        elif kind == "csv by pandas":
            text = pd.DataFrame(rows, columns=["text", "label"]).to_csv(index=False, lineterminator="\r\n")
        elif kind == "json":
            text = json.dumps(objects(rows), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        else:
            ascii_only = draw(st.booleans())
            text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in objects(rows))
        content = text.encode(encoding)
    suffix = "." + kind.split()[0]
    return (suffix + ".gz", gzip.compress(content)) if draw(st.booleans()) else (suffix, content)


def tidied(label: str) -> str:
    label = unicodedata.normalize("NFC", label.strip())
    return {"true": "True", "false": "False"}.get(label.casefold(), label)


@examples(250)
@given(st.data())
def test_a_table_is_read_as_it_was_written_or_refused(folder, data):
    rows = data.draw(tables())
    suffix, content = data.draw(files(rows))
    path = folder / f"table{suffix}"
    path.write_bytes(content)
    try:
        table = read_table(path)
    except DnmError as error:
        assert len(str(error).splitlines()) == 1
        assert any("\0" in value for row in rows for value in row), error  # no character of a text
        return
    assert table.texts == [text for text, _ in rows]
    assert table.labels == [tidied(label) for _, label in rows]
    size = data.draw(st.integers(1, 5))
    parts = [*chunks(path, size=size)]
    assert [text for part in parts for text in part.texts] == table.texts and [n for part in parts for n in part.rows] == table.rows
    assert all(len(part.texts) == size for part in parts[:-1])
    assert {name: [value for part in parts for value in part.columns[name]] for name in table.columns} == table.columns
