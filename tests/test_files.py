"""Files as people have them: separators, encodings, quotes, gaps, guessed columns, labels in several spellings."""

import gzip
import io
import json
import sys
import warnings

import numpy as np
import pandas
import pytest

from dnm.config import RunConfig
from dnm.data.datasets import load_dataset, subset
from dnm.data.files import chunks, read_splits, read_table, tidy_labels
from dnm.errors import DnmError

NOUNS = ["tea", "bus", "sea", "hall", "loaf", "cup", "road", "lamp", "door", "tree", "boat", "coat", "bell", "drum", "fork",
         "gate", "hill", "jug", "kite", "mill"]
ROWS = [(f"the {noun} was {word} number {i}", label) for i, noun in enumerate(NOUNS)
        for word, label in (("fine", "good"), ("poor", "bad"))]
TEXTS, LABELS = (list(column) for column in zip(*ROWS, strict=True))


def lines(rows=ROWS, names=("text", "label"), separator=",", end="\n") -> str:
    return "".join(separator.join(map(str, row)) + end for row in ([names, *rows] if names else rows))


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def objects(rows=ROWS, names=("text", "label")) -> list[dict]:
    return [dict(zip(names, row, strict=True)) for row in rows]


# ---------------------------------------------------------------- K1: the form of a file

@pytest.mark.parametrize("name, content", [
    ("semicolons.csv", lines(separator=";")),
    ("tabs.csv", lines(separator="\t")),
    ("commas.tsv", lines()),
    ("sep-semicolon.csv", "sep=;\n" + lines(separator=";")),
    ("sep-comma.csv", "sep=,\r\n" + lines(end="\r\n")),
    ("UPPER.CSV", lines()),
    ("utf16-no-mark.csv", lines().encode("utf-16-le")),
    ("utf16-big.tsv", lines(separator="\t").encode("utf-16-be")),
    ("utf16-mark.csv", lines().encode("utf-16")),
    ("mark.csv", lines().encode("utf-8-sig")),
    ("utf16.jsonl", "".join(json.dumps(o) + "\n" for o in objects()).encode("utf-16-le")),
    ("array.json", json.dumps(objects())),
    ("one-line.jsonl", json.dumps(objects())),
    ("indented.jsonl", json.dumps(objects(), indent=1)),
    ("inside.json", json.dumps({"data": objects()}, indent=1)),
    ("lines.json", "\n".join(map(json.dumps, objects()))),
    ("blank-rows.csv", lines() + ",\n , \n\n"),
    ("trailing.csv", lines(end=",\n").replace("label,", "label", 1)),
    ("trailing-too.csv", lines(end=",,\n")),
    ("old-mac.csv", lines(end="\r")),
    ("packed.csv.gz", gzip.compress(lines(separator=";").encode())),
    ("packed.jsonl.GZ", gzip.compress("".join(json.dumps(o) + "\n" for o in objects()).encode())),
    ("header-twice.csv", lines(ROWS[:20]) + lines(ROWS[20:])),
])
def test_the_form_of_a_file_is_seen(tmp_path, name, content):
    table = read_table(write(tmp_path / name, content))
    assert (table.texts, table.labels, table.text, table.label) == (TEXTS, LABELS, "text", "label")
    assert [note.partition(" (")[0] for note in table.notes] == ["read as UTF-16"] * name.startswith("utf16")
    one = load_dataset(str(write(tmp_path / "plain.csv", lines())))
    assert load_dataset(str(tmp_path / name)).fingerprint == one.fingerprint


def test_semicolons_with_commas_in_texts_and_in_the_header(tmp_path):
    rows = [(f"well, {text}", label) for text, label in ROWS]
    table = read_table(write(tmp_path / "a.csv", lines(rows, separator=";")))
    assert table.texts == [text for text, _ in rows] and table.labels == LABELS
    table = read_table(write(tmp_path / "b.csv", lines(rows, ("review", "mood, overall"), ";")))
    assert table.texts == [text for text, _ in rows] and (table.text, table.label) == ("review", "mood, overall")
    table = read_table(write(tmp_path / "c.csv", lines(rows, ("text", "label"), "|")), separator="|")
    assert table.texts == [text for text, _ in rows]
    for separator in ("semicolon", ";"):
        assert read_table(tmp_path / "a.csv", separator=separator).texts == table.texts
    with pytest.raises(DnmError, match="one character"):
        read_table(tmp_path / "a.csv", separator="semi")
    with pytest.raises(DnmError, match="no label column.*no comma, semicolon or tab in the first line"):
        read_table(write(tmp_path / "d.csv", lines(separator="|")))
    with pytest.raises(DnmError, match="no label column.*no ';' in the first line"):
        read_table(write(tmp_path / "d.csv", lines()), separator="semicolon")
    only = write(tmp_path / "e.csv", 'text\nnice, cosy\n"so, ""so"""\n\nplain\n')
    assert read_table(only, labelled=False).texts == next(chunks(only)).texts == ["nice, cosy", 'so, "so"', "plain"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_field_may_be_long(tmp_path, suffix):
    rows = [("word " * 28_000, "good"), *ROWS]
    content = "".join(json.dumps(o) + "\n" for o in objects(rows)) if suffix == ".jsonl" else \
        lines(rows, separator="\t" if suffix == ".tsv" else ",")
    assert read_table(write(tmp_path / f"long{suffix}", content)).texts[0] == "word " * 28_000


@pytest.mark.parametrize("line, text", [
    (r'"she said \"never\" twice",bad', 'she said "never" twice'),
    ('"a 12" pipe, bent",bad', 'a 12" pipe, bent'),
    ('"he said ""no"", and left",bad', 'he said "no", and left'),
    ('a 12" pipe,bad', 'a 12" pipe'),
    ('"nice, cosy", "bad"', "nice, cosy"),
    ('"two\nlines, and ""more""",bad', 'two\nlines, and "more"'),
])
def test_quotation_marks_are_read_where_the_meaning_is_plain(tmp_path, line, text):
    quoted = [(f'"{t}"', label) for t, label in ROWS]
    table = read_table(write(tmp_path / "q.csv", lines(quoted[:29]) + line + "\n" + lines(quoted[29:], None)))
    assert table.texts == [*TEXTS[:29], text, *TEXTS[29:]] and table.labels == [*LABELS[:29], "bad", *LABELS[29:]]
    assert table.rows[29] == 31 and table.rows[30] == 32 + line.count("\n")  # as an editor counts


@pytest.mark.parametrize("line", ['"a 12", pipe",bad', '"never closed,bad', '"never closed, or is it,bad'])
def test_other_quotation_marks_are_named_by_their_line(tmp_path, line):
    for rest in (lines(ROWS[29:], None), "", lines([(f'"{t}"', label) for t, label in ROWS[29:]], None)):
        write(tmp_path / "q.csv", lines(ROWS[:29]) + line + "\n" + rest)
        with pytest.raises(DnmError, match="q.csv, line 31: .*double the quotes"):
            read_table(tmp_path / "q.csv")


def test_quotation_marks_in_a_tsv(tmp_path):
    """pandas writes it as spreadsheets do; a lone quotation mark stays one."""
    texts = ['the "so called" tea', "two\nlines", 'ends in "quotes"', '"opens', "plain", 'a 12" pipe']
    frame = pandas.DataFrame({"text": texts, "label": list("ababab")})
    frame.to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    assert read_table(tmp_path / "p.tsv").texts == texts
    lone = write(tmp_path / "l.tsv", 'text\tlabel\n"so called tea\t1\nmore\t0\nstill "more\t1\nand "more"\t0\n"all"\t1\n')
    assert read_table(lone).texts == ['"so called tea', "more", 'still "more', 'and "more"', "all"]
    frame[["label", "text"]].to_csv(tmp_path / "last.tsv", sep="\t", index=False)  # several lines in the last column
    assert read_table(tmp_path / "last.tsv").texts == texts
    between = write(tmp_path / "b.tsv", 'label\ttext\n1\t"so called tea\n0\tmore\n1\tstill more"\n0\tplain\n')
    assert read_table(between).texts == ['"so called tea', "more", 'still more"', "plain"]  # each line is a row of its own


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_whatever_pandas_writes_is_read_back(tmp_path, separator):
    random = np.random.default_rng(0)
    parts = ["tea", "bus", " ", ", ", "; ", '"', "\n", "'", "ü", "\\", ".", "12", "sep="] + ["\t"] * (separator != "\t")
    for trial in range(60):
        texts = ["tea " + "".join(random.choice(parts, random.integers(1, 9))) + " bus" for _ in range(12)]
        labels = [str(random.choice(["good", "so, so", 'a "b"'])) for _ in texts]
        frame = pandas.DataFrame({"text": texts, "label": labels, "other": range(12)})
        path = tmp_path / f"{trial}{'.tsv' if separator == chr(9) else '.csv'}"
        frame.to_csv(path, sep=separator, index=False)
        table = read_table(path)
        assert (table.texts, table.labels, table.columns["other"]) == (texts, labels, [str(i) for i in range(12)])


def test_old_encodings_are_guessed_and_said(tmp_path):
    rows = [(f"Der Käse war gut – Nummer {i}", "gut") if i % 2 else (f"Die Brühe schmeckte übel {i}", "übel") for i in range(20)]
    table = read_table(write(tmp_path / "w.csv", lines(rows, separator=";").encode("cp1252")))
    assert (table.texts, table.labels) == ([t for t, _ in rows], [label for _, label in rows])
    assert table.notes == ["read as Windows-1252 (guessed: byte 0xfc in line 2 is not UTF-8)"]
    one = read_table(write(tmp_path / "o.csv", b"text,label\nfine,1\nA nice caf\xe9,0\nfine,1\n" * 9))
    assert "A nice café" in one.texts and "Windows-1252" in one.notes[0] and "line 3" in one.notes[0]
    russian = [(f"хороший чай и вкусный хлеб номер {i}", "да") for i in range(20)] + [(f"плохой автобус {i}", "нет") for i in range(20)]
    table = read_table(write(tmp_path / "r.csv", lines(russian).encode("cp1251")))
    assert table.texts == [t for t, _ in russian] and "Windows-1251" in table.notes[0]
    chinese = [(f"这杯茶非常好喝{i}", "好") for i in range(20)] + [(f"公共汽车很差{i}", "差") for i in range(20)]
    with pytest.raises(DnmError, match="z.csv: byte 0x.. in line 2 is not UTF-8.*save the file as UTF-8"):
        read_table(write(tmp_path / "z.csv", lines(chinese).encode("gb18030")))
    late = lines([(f"the tea number {i}", i % 2) for i in range(90_000)]) + "caf\xe9,1\n"  # beyond the first block
    assert read_table(write(tmp_path / "l.csv", late.encode("cp1252"))).texts[-1] == "café"


def test_gaps_are_left_out_counted_and_refused_where_they_are_many(tmp_path):
    rows = [*ROWS[:38], ("", "good"), ("nice", " "), *ROWS[38:]]
    table = read_table(write(tmp_path / "g.csv", lines(rows[:20]) + "\n\n" + lines(rows[20:], None)))
    assert table.texts == TEXTS and table.labels == LABELS
    assert table.notes == ["left out of 42 rows: 1 without a text (line 42) and 1 without a label (line 43)"]
    assert table.rows == [*range(2, 22), *range(24, 42), 44, 45]
    with pytest.raises(DnmError, match="g.csv: of 42 rows 1 without a text .line 42. and 1 without a label .line 43."):
        read_table(tmp_path / "g.csv", strict=True)
    with pytest.raises(DnmError, match="7 without a label .line 42, 43, 44, 45, 46, …."):
        read_table(write(tmp_path / "m.csv", lines([*ROWS, *[("nice", "")] * 7])))
    with pytest.warns(UserWarning, match="g.csv: left out of 42 rows"):
        assert sum(load_dataset(str(tmp_path / "g.csv")).counts.values()) == 40


def test_workbooks(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    for row in [(), ("Text ", None, "Label"), *[(text, None, label) for text, label in ROWS], (None, None, None),
                (None, None, "good"), (5, None, "good")]:
        book.active.append(row)
    book.active.title = "Reviews"
    second = book.create_sheet("Ratings")
    for row in [("text", "label"), *[(text, 1.0 if label == "good" else True if i % 4 == 1 else 0) for i, (text, label) in enumerate(ROWS)]]:
        second.append(row)
    book.save(tmp_path / "b.xlsx")
    table = read_table(tmp_path / "b.xlsx")
    assert table.texts == [*TEXTS, "5"] and table.labels == [*LABELS, "good"] and (table.text, table.label) == ("Text", "Label")
    assert table.rows == [*range(3, 43), 45]  # as the spreadsheet counts
    assert table.notes == ["reads the sheet 'Reviews' (others, for --sheet: Ratings)", "left out of 42 rows: 1 without a text (row 44)"]
    table = read_table(tmp_path / "b.xlsx", sheet="Ratings")
    assert table.texts == pandas.read_excel(tmp_path / "b.xlsx", sheet_name="Ratings")["text"].tolist()
    assert set(table.labels) == {"1", "True", "0"}
    with pytest.raises(DnmError, match="unknown sheet 'Rating'; did you mean 'Ratings'"):
        read_table(tmp_path / "b.xlsx", sheet="Rating")
    write(tmp_path / "named-wrongly.csv", (tmp_path / "b.xlsx").read_bytes())
    assert read_table(tmp_path / "named-wrongly.csv").texts == [*TEXTS, "5"]
    write(tmp_path / "torn.xlsx", (tmp_path / "b.xlsx").read_bytes()[:300])
    with pytest.raises(DnmError, match="cannot read torn.xlsx"):
        read_table(tmp_path / "torn.xlsx")


@pytest.mark.parametrize("kind", ["csv", "semicolons", "jsonl", "array", "parquet", "gz"])
def test_standard_input(monkeypatch, kind):
    frame = pandas.DataFrame(ROWS, columns=["text", "label"])
    content = {"csv": lines().encode(), "semicolons": lines(separator=";").encode("utf-16"), "array": json.dumps(objects()).encode(),
               "jsonl": "\n".join(map(json.dumps, objects())).encode(), "parquet": frame.to_parquet(),
               "gz": gzip.compress(lines().encode())}[kind]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    table = read_table("-")
    assert (table.texts, table.labels, table.file) == (TEXTS, LABELS, "standard input")


def test_a_broken_array_and_a_line_that_is_no_object(tmp_path):
    with pytest.raises(DnmError, match="a.json: neither an array nor lines of JSON objects: .*line 3"):
        read_table(write(tmp_path / "a.json", '[\n{"text": "a", "label": 1},\n{"text" "b"}]'))
    with pytest.raises(DnmError, match="l.jsonl, line 4: not a JSON object"):
        read_table(write(tmp_path / "l.jsonl", '\n{"text": "a", "label": 1}\n\nnot json\n'))
    with pytest.raises(DnmError, match="p.csv.gz"):
        read_table(write(tmp_path / "p.csv.gz", gzip.compress(lines().encode())[:60]))


# ---------------------------------------------------------------- K2: which columns

def test_names_of_columns_are_compared_without_blanks_and_capitals(tmp_path):
    rows = [(text, label, "yes") for text, label in ROWS]
    table = read_table(write(tmp_path / "b.csv", lines(rows, ("TEXT", " label ", "verified"))))
    assert table.labels == LABELS and table.label == "label" and not table.notes
    assert read_table(tmp_path / "b.csv", "text", " Verified").labels == ["yes"] * 40
    with pytest.raises(DnmError, match="did you mean 'verified'"):
        read_table(tmp_path / "b.csv", "text", "verifed")


def test_guessed_columns_are_said_and_two_equally_good_ones_refused(tmp_path):
    rows = [(text, ("good", "bad", "mixed")[i % 3], ("no", "yes")[i % 4 > 0]) for i, (text, _) in enumerate(ROWS)]
    shop = write(tmp_path / "shop.csv", lines(rows, ("comment", "opinion", "verified")))
    with pytest.warns(UserWarning, match=r"reads 'comment' as text and 'verified' as label \(guessed; other columns: opinion\)"):
        data = load_dataset(str(shop))
    assert data.source == "shop.csv (guessed: text 'comment', label 'verified')"  # in the record, too
    assert load_dataset(str(shop), "comment", "opinion").source == "shop.csv"
    assert not read_table(write(tmp_path / "two.csv", lines(names=("review", "verdict")))).notes  # nothing to choose from
    long = [("tea", f"something about {label} and more") for _, label in ROWS]
    assert read_table(write(tmp_path / "x.csv", lines(long, ("said", "class")))).text == "said"  # though it is shorter
    assert read_table(write(tmp_path / "x.csv", lines(long, ("said", "kind"))), "", " KIND").text == "said"
    both = write(tmp_path / "both.csv", lines([(t, o, v, v) for t, o, v in rows], ("comment", "opinion", "verified", "sent")))
    with pytest.raises(DnmError, match="'verified' and 'sent' could equally be the label column; .*label_column"):
        read_table(both)
    twice = write(tmp_path / "twice.csv", lines(rows, ("text", "class", "label")))
    with pytest.raises(DnmError, match="'class' and 'label' could equally be the label column"):
        read_table(twice)
    gaps = write(tmp_path / "gaps.csv", lines([(t, o, "x" if i % 8 else "") for i, (t, o, _) in enumerate(rows)], ("comment", "opinion", "flag")))
    assert read_table(gaps).label == "opinion"
    assert read_table(twice, "", "class").labels[:3] == ["good", "bad", "mixed"]


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_first_row_that_is_no_header_counts(tmp_path, separator):
    path = tmp_path / ("n.tsv" if separator == "\t" else "n.csv")
    table = read_table(write(path, lines([(label, text) for text, label in ROWS], None, separator)))
    assert (table.texts, table.labels, table.rows) == (TEXTS, LABELS, list(range(1, 41)))
    assert "first row was counted in" in table.notes[0] and "'good'" in table.notes[0]
    rows = [*ROWS, ("one more", "label")]
    assert len(read_table(write(path, lines(rows, separator=separator))).texts) == 41  # 'label' is a name all the same
    unnamed = pandas.DataFrame([(t, int(label == "good")) for t, label in ROWS])
    unnamed.to_csv(path, sep=separator)  # columns 0 and 1, and an index without a name
    assert read_table(path, "0", "1").texts == TEXTS


# ---------------------------------------------------------------- K3: values

def test_labels_in_one_spelling():
    assert tidy_labels([1, 1.0, "1", " 1.0 ", True, "TRUE", "true", np.True_, "good ", " good", 0.5, -2.0, "1.10", np.float32(3)]) == \
        ["1", "1", "1", "1", "True", "True", "True", "True", "good", "good", "0.5", "-2", "1.10", "3"]
    assert tidy_labels(["u\u0308bel", "übel", "\xa0gut", "zu\r\nteuer"]) == ["übel", "übel", "gut", "zu teuer"]


def test_classes_are_in_the_order_of_numbers_where_all_are(tmp_path):
    def names(labels):
        return load_dataset(str(write(tmp_path / "n.csv", lines([(t, labels[i % 3]) for i, t in enumerate(TEXTS)])))).label_names
    assert names(["4.0", "5.0", "10.0"]) == ("4", "5", "10") and names("①②③") == ("①", "②", "③")
    assert names(["-1", "0.5", "10"]) == ("-1", "0.5", "10") and names(["10", "9", "b"]) == ("10", "9", "b")
    assert names([" good", "good", "bad"]) == ("bad", "good") and names(["TRUE", "True", "FALSE"]) == ("False", "True")


def test_floats_in_one_file_and_whole_numbers_in_the_other_are_the_same_classes(tmp_path):
    write(tmp_path / "f" / "train.csv", lines([(t, float(label == "good")) for t, label in ROWS]))
    write(tmp_path / "f" / "test.csv", lines([(t + " again", int(label == "good")) for t, label in ROWS]))
    assert load_dataset(str(tmp_path / "f")).label_names == ("0", "1")


@pytest.mark.parametrize("text, label, message", [
    ("tea", ["price", "staff"], "line 2: the label in column 'label' is of type list: one label a text"),
    ("tea", [0, 1], "line 2: the label .* list"), ("tea", {"a": 1}, "line 2: the label .* dict"),
    (["the", "tea"], "good", "line 2: the text in column 'text' is of type list: not a text"),
])
def test_what_is_no_text_or_label_is_refused(tmp_path, text, label, message):
    with pytest.raises(DnmError, match=f"v.jsonl, {message}"):
        read_table(write(tmp_path / "v.jsonl", "\n".join(map(json.dumps, objects([ROWS[0], (text, label)])))))


def test_bytes_are_decoded_and_dates_are_no_labels(tmp_path):
    frame = pandas.DataFrame({"text": [t.encode() for t in TEXTS], "label": [label.encode() for label in LABELS]})
    frame.to_parquet(tmp_path / "b.parquet")
    table = read_table(tmp_path / "b.parquet")
    assert (table.texts, table.labels) == (TEXTS, LABELS)
    pandas.DataFrame({"text": [b"\xff", b"a"], "label": [1, 0]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DnmError, match="x.parquet, row 1: the text .* not UTF-8"):
        read_table(tmp_path / "x.parquet")
    pandas.DataFrame({"text": ["a", "b"], "label": pandas.to_datetime(["2026-01-01", "2026-01-02"])}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(DnmError, match="d.parquet, row 1: the label .* of type Timestamp|datetime"):
        read_table(tmp_path / "d.parquet")


def test_amounts_are_no_classes_and_odd_classes_are_said(tmp_path):
    rows = [(f"text {i}", i / 7) for i in range(300)]
    with pytest.raises(DnmError, match="column 'label' holds 2.. different fractions such as .*not classes"):
        read_table(write(tmp_path / "a.csv", lines(rows)))
    rows = [*ROWS, *[(f"more {i}", "good") for i in range(100)], *[(f"none {i}", "nan") for i in range(5)], ("once", "spam"),
            ("big", "Good"), ("bigger", "Good"), (TEXTS[0].upper() + " ", "good"), (TEXTS[1], "good")]
    notes = read_table(write(tmp_path / "o.csv", lines(rows))).notes
    assert notes == ["5 rows have the label 'nan', as many programs write a missing value; if it is one, empty them",
                     "'good' and 'Good' are two classes, though only capitals or blanks tell them apart", "1 rows repeat another",
                     "1 texts stand under more than one label", "one example only: class 'spam'", "class 'good' has 122 rows, 'Good' 2"]


# ---------------------------------------------------------------- K4: splits

def split_files(folder, *names, rows=ROWS, suffix=".csv"):
    for place, name in enumerate(names):
        write(folder / (name + suffix), lines([(f"{t} {place}", label) for t, label in rows]))
    return str(folder)


@pytest.mark.parametrize("name", ["dev", "val", "valid", "validation", "DEV"])
def test_the_usual_names_of_splits_are_known(tmp_path, name):
    data = load_dataset(split_files(tmp_path / "f", "Train", name, "TEST"))
    assert data.counts == {"train": 40, "validation": 40, "test": 40}
    assert data.validation.texts == [f"{t} 1" for t in TEXTS]


def test_other_files_of_a_folder_are_named(tmp_path):
    folder = split_files(tmp_path / "f", "train", "test", "extra", "._train", "dev")
    write(tmp_path / "f" / "val.csv.gz", gzip.compress(lines().encode()))
    write(tmp_path / "f" / "README.md", "hello")
    with pytest.warns(UserWarning, match="f: not read: extra.csv, val.csv.gz .files are called train"):
        assert load_dataset(folder).counts["validation"] == 40


def test_a_test_file_without_labels_is_named(tmp_path):
    folder = split_files(tmp_path / "f", "train", "dev")
    write(tmp_path / "f" / "test.tsv", lines([(i, f"{t} later") for i, t in enumerate(TEXTS)], ("index", "text"), "\t"))
    with pytest.raises(DnmError, match="test.tsv: no column 'label' as in train.csv: a file without labels. Leave it out"):
        load_dataset(folder)
    write(tmp_path / "f" / "test.tsv", lines([(f"{t} later", -1) for t in TEXTS], separator="\t"))
    with pytest.raises(DnmError, match="test.tsv: class '-1' .40 rows. does not occur in train.csv: .*Leave it out"):
        load_dataset(folder)


def test_the_training_files_columns_hold_for_the_others(tmp_path):
    rows = [(t, label, i % 2) for i, (t, label) in enumerate(ROWS)]
    write(tmp_path / "f" / "train.csv", lines(rows, ("comment", "mood", "seen")).replace(",0\n", ",2\n", 2))
    write(tmp_path / "f" / "test.csv", lines([(s, label, t) for t, label, s in rows], ("seen", "Mood", "comment")))
    tables = read_splits(tmp_path / "f")
    assert {(t.text.lower(), t.label.lower()) for t in tables.values()} == {("comment", "mood")}
    assert tables["test"].labels == LABELS


def test_a_class_of_one_example_stays_in_training(tmp_path):
    rows = [*ROWS, ("buy now", "spam")]
    with pytest.warns(UserWarning, match="one example only: class 'spam'"):
        data = load_dataset(str(write(tmp_path / "o.csv", lines(rows))))
    assert "buy now" in data.train.texts and data.label_names == ("bad", "good", "spam")
    rows = [(f"{text} {i}", f"intent{i}") for i in range(20) for text in TEXTS[:8]] + [("lonely one", "lonely")]
    data = load_dataset(str(write(tmp_path / "i.csv", lines(rows))))
    assert set(data.train.labels) == set(range(21)) and set(data.test.labels) == set(range(20))


def test_too_few_different_sentences_are_counted(tmp_path):
    rows = [(f"{noun} please", label) for noun in NOUNS[:12] for label in ("order", "chat") for _ in range(5)]
    with pytest.raises(DnmError, match="d.csv: 120 rows, 12 different sentences.* 24 are needed .*give more"):
        load_dataset(str(write(tmp_path / "d.csv", lines(rows))))


def test_sentences_in_capitals_are_the_same_sentences(tmp_path):
    write(tmp_path / "f" / "train.csv", lines())
    write(tmp_path / "f" / "validation.csv", lines([(t + " later", label) for t, label in ROWS]))
    write(tmp_path / "f" / "test.csv", lines([(t.upper() + "  ", label) for t, label in ROWS[:20]]))
    with pytest.warns(UserWarning, match="f: 20 training sentences also stand in validation or test"):
        load_dataset(str(tmp_path / "f"))


def test_the_rows_alone_decide_the_split(tmp_path):
    paths = [write(tmp_path / "v1.csv", lines()), write(tmp_path / "mr.csv", lines()),
             write(tmp_path / "v1.jsonl", "\n".join(map(json.dumps, objects())))]
    data = [load_dataset(str(path)) for path in paths]
    assert len({d.fingerprint for d in data}) == 1 and [d.name for d in data] == ["v1", "mr", "v1"]
    assert len({tuple(subset(d, 12, seed=3)) for d in data}) == 1


# ---------------------------------------------------------------- K7: a corrected file, and chunks

def test_a_corrected_file_is_read_anew(tmp_path, tiny):
    from dnm.runs.scheduler import run_all
    from dnm.runs.store import RunStore

    path, store = write(tmp_path / "c.csv", lines()), RunStore(tmp_path / "runs")
    config = tiny(dataset=str(path), method="plain", steps=2, eval_every=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old, = run_all([config], store)
        assert load_dataset(str(path)) is load_dataset(str(path))
        write(path, lines([(t, label.upper()) for t, label in ROWS[:36]]))
        new, = run_all([config], store)
    assert old["data"]["labels"] == ["bad", "good"] and new["data"]["labels"] == ["BAD", "GOOD"]
    assert sum(new["data"]["counts"].values()) == 36 and new["data"]["fingerprint"] != old["data"]["fingerprint"]
    folder = split_files(tmp_path / "f", "train", "test")
    before = load_dataset(folder).counts["test"]
    write(tmp_path / "f" / "test.csv", lines(ROWS[:30]))
    assert (before, load_dataset(folder).counts["test"]) == (40, 30)


def test_a_file_of_ones_own_is_known_by_its_name():
    for name in ("x.CSV", "x.csv.gz", "x.json", "x.xlsx", "x.JSONL"):
        assert RunConfig.create("smoke", dataset=name).dataset.endswith(f"/{name}")
    with pytest.raises(DnmError, match="unknown data set"):
        RunConfig.create("smoke", dataset="x.doc")


@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".jsonl", ".json", ".parquet", ".xlsx"])
def test_chunks_hold_every_row_once_and_in_order(tmp_path, suffix):
    frame = pandas.DataFrame({"id": range(25), "comment": [f"the tea, number {i}" for i in range(25)], "when": ["later"] * 25})
    frame.loc[[3, 24], "comment"] = ""
    path, separated = tmp_path / f"c{suffix}", {".csv": ",", ".tsv.gz": "\t"}
    if suffix in separated:
        frame.to_csv(path, sep=separated[suffix], index=False)
    elif suffix.startswith(".json"):
        frame.to_json(path, orient="records", lines=suffix == ".jsonl")
    else:
        frame.to_parquet(path) if suffix == ".parquet" else frame.to_excel(path, index=False)
    tables = list(chunks(path, size=10))
    assert [len(table.texts) for table in tables] == [10, 10, 5] and {table.text for table in tables} == {"comment"}
    assert [text for table in tables for text in table.texts] == frame["comment"].tolist()
    assert [int(i) for table in tables for i in table.columns["id"]] == list(range(25))
    assert [row for table in tables for row in table.rows] == list(range(1, 26) if suffix in (".json", ".jsonl", ".parquet") else range(2, 27))
    assert [bool(table.notes) for table in tables] == [True, False, False] and list(tables[2].columns) == ["id", "comment", "when"]
    assert next(chunks(path, "when")).texts == ["later"] * 25 and not next(chunks(path, "when")).notes
    with pytest.raises(DnmError, match="unknown text column"):
        next(chunks(path, "nowhere"))


def test_names_with_several_dots(tmp_path):
    assert load_dataset(str(write(tmp_path / "my.own.csv", lines()))).name == "my.own"
    assert load_dataset(str(write(tmp_path / "my.own.csv.gz", gzip.compress(lines().encode())))).name == "my.own"
    split_files(tmp_path / "f", "train", "test", "train.old")
    with pytest.warns(UserWarning, match="f: not read: train.old.csv"):
        assert load_dataset(str(tmp_path / "f")).name == "f"
