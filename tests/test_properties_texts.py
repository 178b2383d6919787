"""Properties of what people hand in as texts: tables of every kind, word pieces, and the classifier."""

import csv
import gzip
import io
import json
import re
import unicodedata

import numpy as np
import openpyxl
import pandas as pd
import pytest
from conftest import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from dnm.classify.estimator import DNMClassifier
from dnm.config import FILE_SUFFIXES
from dnm.data.files import chunks, read_table
from dnm.data.hub import minilm_folder
from dnm.errors import DnmError
from dnm.words import Tokenizer

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


def separated_text(frame, separator=",", quoting=csv.QUOTE_MINIMAL, end="\r\n") -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=end).writerows([[*frame], *frame.values.tolist()])
    return out.getvalue()


def workbook(frame) -> bytes:
    book, out = openpyxl.Workbook(write_only=True), io.BytesIO()
    sheet = book.create_sheet()
    for row in [[*frame], *frame.values.tolist()]:
        cells = [WriteOnlyCell(sheet, value) for value in row]
        for cell in cells:
            cell.data_type = "s"  # no formulas, no errors
        sheet.append(cells)
    book.save(out)
    return out.getvalue()


def parquet(frame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out)
    return out.getvalue()


@st.composite
def files(draw, rows):
    """A file's suffix and bytes; the texts come first or last."""
    frame = pd.DataFrame(rows, columns=["text", "label"])[draw(st.permutations(["text", "label"]))]
    kind = draw(st.sampled_from(["csv", "csv by pandas", "json", "jsonl", "xlsx", "parquet"]))
    if kind == "xlsx":
        assume(not any(ILLEGAL_CHARACTERS_RE.search(value) or "\r" in value or "_x" in value or "\ufffe" in value or "\uffff" in value for row in rows for value in row))
        assume(all(len(text) <= 32_767 for text, _ in rows))
        content = workbook(frame)
    elif kind == "parquet":
        content = parquet(frame)
    else:
        encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
        if kind == "csv":
            separator, quoting = draw(st.sampled_from(",;\t")), draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
            text = separated_text(frame, separator, quoting, draw(st.sampled_from(["\r\n", "\n"])) if quoting == csv.QUOTE_ALL else "\r\n")
        elif kind == "csv by pandas":
            text = frame.to_csv(index=False, lineterminator="\r\n")
        elif kind == "json":
            text = json.dumps(frame.to_dict("records"), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        else:
            ascii_only = draw(st.booleans())
            text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in frame.to_dict("records"))
        content = text.encode(encoding)
    suffix = "." + kind.split()[0]
    return (suffix + ".gz", gzip.compress(content)) if draw(st.booleans()) else (suffix, content)


def tidied(label: str) -> str:
    label = unicodedata.normalize("NFC", re.sub(r"\s+", " ", label).strip())
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
        assert len(str(error).splitlines()) == 1 and any("\0" in value for row in rows for value in row), error  # no character of a text
        return
    assert table.texts == [text for text, _ in rows]
    assert table.labels == [tidied(label) for _, label in rows]
    size = data.draw(st.integers(1, 5))
    parts = [*chunks(path, size=size)]
    assert [text for part in parts for text in part.texts] == table.texts and [n for part in parts for n in part.rows] == table.rows
    assert all(len(part.texts) == size for part in parts[:-1])
    assert {name: [value for part in parts for value in part.columns[name]] for name in table.columns} == table.columns


@examples(80)
@given(st.lists(texts, min_size=10, max_size=30), st.lists(st.integers(0, 29), min_size=1, max_size=8), st.sampled_from(["", " ", "\t\n"]), st.sampled_from([".csv", ".jsonl", ".parquet"]),
       st.integers(1, 9))
def test_rows_without_a_text_are_left_out_told_or_kept_as_nothing(folder, texts, gaps, empty, suffix, size):
    """Of a table up to a tenth of the rows may have none; `chunks` loses no row."""
    assume(not any("\0" in text for text in texts))
    frame = pd.DataFrame({"text": texts, "label": [f"l{i % 3}" for i in range(len(texts))]})
    gaps = sorted({gap % len(texts) for gap in gaps})
    frame.loc[gaps, "text"] = empty
    path = folder / f"gaps{suffix}"
    path.write_bytes(separated_text(frame).encode() if suffix == ".csv" else parquet(frame) if suffix == ".parquet" else
                     "".join(json.dumps(row) + "\n" for row in frame.to_dict("records")).encode())
    kept = frame.drop(index=gaps)
    if 10 * len(gaps) > len(texts):
        with pytest.raises(DnmError, match=f"of {len(texts)} rows {len(gaps)} without a text"):
            read_table(path)
    else:
        table = read_table(path)
        assert (table.texts, table.labels) == (kept.text.tolist(), kept.label.tolist()) and any(f"{len(gaps)} without a text" in note for note in table.notes)
    found = [text for part in chunks(path, "text", size=size) for text in part.texts]
    assert found == ["" if i in gaps else text for i, text in enumerate(texts)]


halves = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)


@examples(40)
@given(texts, halves, texts, st.sampled_from([".json", ".jsonl"]), st.sampled_from(["text", "label"]))
def test_half_a_character_is_refused_with_its_row(folder, before, half, after, suffix, column):
    value = before + half + after
    assume(any("\ud800" <= c <= "\udfff" for c in json.loads(json.dumps(value))))  # two halves may have met
    rows = [{"text": "fine", "label": "a"}, {"text": "poor", "label": "b"} | {column: value}]
    path = folder / f"half{suffix}"
    path.write_text(json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DnmError, match=rf"^half{suffix}, (row|line) 2: the {column} in column '{column}' holds half a character") as error:
        read_table(path)
    assert len(str(error.value).splitlines()) == 1


VALID = pd.DataFrame({"text": ["a fine cup", 'said "no", twice', "zwei\nZeilen", "\u00e9t\u00e9"] * 3, "label": ["a", "b", "a", "b"] * 3})
STARTS = [separated_text(VALID).encode(), separated_text(VALID, "\t").encode("utf-16"), json.dumps(VALID.to_dict("records")).encode(), workbook(VALID), parquet(VALID),
          gzip.compress(separated_text(VALID).encode()), b"".join(json.dumps(row).encode() + b"\n" for row in VALID.to_dict("records"))]


@st.composite
def damaged(draw):
    """Bytes of a good file, some of them others, some cut away."""
    content = bytearray(draw(st.sampled_from(STARTS)))
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)):
        content[place] = value
    begin, end = draw(st.integers(0, 40)), draw(st.integers(0, 400))
    content = bytes(content[begin if draw(st.booleans()) else 0:])
    return content[:len(content) - end] if draw(st.booleans()) else content


@examples(250)
@given(st.binary(max_size=200) | damaged() | st.text(st.sampled_from('text,label;\t\r\n"\\ab{}[]:1'), max_size=60).map(str.encode), st.sampled_from([*FILE_SUFFIXES, ""]), st.booleans())
def test_whatever_bytes_a_file_holds_it_is_a_table_or_refused_in_one_line(folder, content, suffix, packed):
    path = folder / f"any\nname{suffix}{'.gz' * packed}"
    path.write_bytes(gzip.compress(content) if packed else content)
    for read in (lambda: [read_table(path)], lambda: [read_table(path, labelled=False)], lambda: [*chunks(path, size=3)]):
        try:
            tables = read()
        except DnmError as error:
            assert len(str(error).splitlines()) == 1
        else:
            for table in tables:
                assert all(isinstance(text, str) for text in table.texts) and len(table.rows) == len(table.texts)
                assert all(len(values) == len(table.texts) for values in table.columns.values())
                assert table.labels is None or len(table.labels) == len(table.texts)


# ---------------------------------------------------------------- word pieces

@pytest.fixture(scope="module")
def minilm_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm_folder())


anything = st.text(whole, max_size=60) | odd | st.lists(st.sampled_from(["the", "a", "café", "[SEP]", "[UNK]", "unaffable", "中文", "😀", "x́", "##ing", "\u200b", "\x00", "\xad"]), max_size=40).map(" ".join) | \
    st.integers(1, 10_000).map(lambda n: "word " * n) | st.integers(90, 300).map(lambda n: "x" * n)


@examples(100)
@given(st.lists(anything, min_size=1, max_size=6), st.sampled_from([8, 128, 512]) | st.integers(8, 512))
def test_word_pieces_are_those_of_transformers_and_never_none_nor_too_many(minilm_tokenizer, texts, max_length):
    found = Tokenizer(minilm_folder(), max_length)(texts)
    expected = minilm_tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    assert [ids.tolist() for ids in found] == expected and all(2 <= len(ids) <= max_length and ids.dtype.kind == "i" for ids in found)


# ---------------------------------------------------------------- a classifier

sentences = (st.text(whole, min_size=1, max_size=20) | odd).filter(str.strip)
kinds = st.sampled_from([st.text(whole, max_size=8), st.integers(-2**40, 2**40), st.booleans(), st.integers(-9, 9).map(float)])


@st.composite
def labelled(draw):
    """Texts, some of them twice, and classes of one kind, two at least, some of them with one example."""
    classes = draw(st.lists(draw(kinds), min_size=2, max_size=4, unique=True))
    texts = draw(st.lists(sentences, min_size=len(classes), max_size=24))
    y = classes + [draw(st.sampled_from(classes)) for _ in range(len(texts) - len(classes))]
    return [texts[draw(st.integers(0, i))] for i in range(len(texts))], y


def settled(**settings) -> DNMClassifier:
    return DNMClassifier(**dict(encoder="cnn", steps=1, batch_size=4, max_length=16, random_state=0) | settings)


@examples(10)
@given(labelled(), st.sampled_from(["plain", "dnm", "senmixup", "label-embedding"]), st.sampled_from([None, "balanced"]), st.lists(sentences, min_size=1, max_size=8), st.randoms())
def test_a_classifier_of_any_classes_predicts_them_in_any_order_and_survives_its_folder(folder, rows, method, weight, asked, random):
    texts, y = rows
    found = settled(method=method, class_weight=weight).fit(texts, y)
    asked = asked + texts
    assert found.classes_.tolist() == sorted(set(y)) and {type(name) for name in found.classes_.tolist()} == {type(y[0])}
    predicted, p = found.predict(asked), found.predict_proba(asked)
    assert set(predicted.tolist()) <= set(y) and p.shape == (len(asked), len(set(y))) and (p >= 0).all()
    np.testing.assert_allclose(p.sum(1), 1)
    order = random.sample(range(len(asked)), len(asked))
    np.testing.assert_allclose(found.predict_proba([asked[i] for i in order]), p[order], atol=1e-5)
    found.save(folder / "model")
    loaded = DNMClassifier.load(folder / "model")
    np.testing.assert_array_equal(loaded.predict_proba(asked), p)
    assert loaded.predict(asked).tolist() == predicted.tolist() and loaded.classes_.dtype == found.classes_.dtype


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**30, -1, 10**400]), lambda inner: st.lists(inner, max_size=2), max_leaves=3)


@examples(60)
@given(st.sampled_from(["method", "encoder", "steps", "lr", "head_lr", "k", "batch_size", "max_length", "validation_fraction", "class_weight", "device"]), json_values)
def test_any_value_of_any_of_its_settings_makes_a_classifier_or_one_line(name, value):
    if name == "steps" and not isinstance(value, bool) and isinstance(value, int | float) and 20 < value < 10**8:
        value = 10**9  # what may be asked for, but not waited for
    try:
        settled(**{name: value}).fit(["a fine cup", "a bad cup", "a cup"], ["good", "bad", "bad"])
    except DnmError as error:
        assert len(str(error).splitlines()) == 1
