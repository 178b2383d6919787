"""Data: Table 1's counts, splits, nested subsets, the built-in corpus, one's own files."""

import hashlib
import json
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_real_data

from dnm.data import corpus
from dnm.data.datasets import REAL, Split, _load, load_dataset, split_pooled, stratified_order, subset, within_data
from dnm.errors import DnmError

TABLE_1 = {"subj": (2, 8000, 1000, 1000), "mr": (2, 8528, 1068, 1066), "sst2": (2, 6920, 1821, 872),
           "sst1": (5, 8544, 2210, 1101)}  # classes, train, test, validation


@needs_real_data
@pytest.mark.parametrize("name", TABLE_1)
def test_table_1(name):
    data = load_dataset(name)
    found = (len(data.label_names), data.counts["train"], data.counts["test"], data.counts["validation"])
    assert found == TABLE_1[name]
    assert set(data.train.labels) == set(range(found[0]))
    if REAL[name]["pooled"]:
        keys = [{" ".join(t.split()).casefold() for t in split.texts} for split in (data.train, data.validation, data.test)]
        assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
        shares = [split.labels.mean() for split in (data.train, data.validation, data.test)]
        assert max(shares) - min(shares) < 0.005


def rows(n=400, seed=0) -> Split:
    rng = np.random.default_rng(seed)
    texts = [f"sentence number {i} about {rng.integers(1000)}" for i in range(n)]
    return Split(texts, rng.choice(3, size=n, p=(0.5, 0.3, 0.2)))


def test_our_split_does_not_depend_on_the_order_of_the_rows():
    pool = rows()
    order = np.random.default_rng(1).permutation(len(pool))
    here, there = (split_pooled(p, (300, 40, 60), "x") for p in (pool, pool.take(order)))
    for a, b, size in zip(here, there, (300, 40, 60), strict=True):
        assert set(a.texts) == set(b.texts) and len(a) == size
        shares = np.bincount(a.labels, minlength=3) / len(a)
        np.testing.assert_allclose(shares, np.bincount(pool.labels) / len(pool), atol=0.03)


def test_repeated_sentences_stay_in_one_split():
    pool = rows(100)
    twice = Split(pool.texts + [t.upper() + " " for t in pool.texts[:30]], np.concatenate([pool.labels, pool.labels[:30]]))
    train, validation, test = split_pooled(twice, (100, 15, 15), "x")
    keys = [{t.strip().casefold() for t in split.texts} for split in (train, validation, test)]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])


def test_subsets_are_nested_stratified_and_a_function_of_the_seed():
    data = load_dataset("builtin5")
    chosen = {n: subset(data, n, seed=1) for n in (5, 50, 200, 500, 1000, 2000, "all")}
    sizes = list(chosen)
    for small, large in pairwise(sizes):
        assert (chosen[small] == chosen[large][:len(chosen[small])]).all()
    whole = np.bincount(data.train.labels) / len(data.train)
    assert set(data.train.labels[chosen[5]]) == set(range(5))
    for n in (50, 200, 500):
        counts = np.bincount(data.train.labels[chosen[n]], minlength=5)
        assert abs(counts - n * whole).max() < 2
    assert (subset(data, 50, seed=1) == chosen[50]).all() and set(subset(data, 50, seed=2)) != set(chosen[50])
    assert sorted(chosen["all"]) == list(range(len(data.train)))


def test_wrong_labels_are_as_many_as_asked_in_every_class_and_the_same_for_all_methods():
    from dnm.config import RunConfig
    from dnm.data.datasets import training_split

    data, usual = load_dataset("builtin5"), RunConfig.create(dataset="builtin5", n_train=200, seed=1)
    clean, noisy = (training_split(data, config) for config in (usual, usual.with_(wrong_labels=0.1)))
    assert clean.texts == noisy.texts == data.train.take(subset(data, 200, 1)).texts
    wrong = clean.labels != noisy.labels
    assert wrong.sum() == 20 and abs(np.bincount(clean.labels[wrong], minlength=5) - 0.1 * np.bincount(clean.labels)).max() < 1.5
    assert set((noisy.labels - clean.labels)[wrong] % 5) == {1, 2, 3, 4}  # any other class
    again = training_split(data, usual.with_(wrong_labels=0.1, method="plain"))
    assert (again.labels == noisy.labels).all()
    assert (training_split(data, usual.with_(wrong_labels=0.1, seed=2)).labels != noisy.labels).any()
    assert usual.hash == RunConfig.create(dataset="builtin5", n_train=200, seed=1, wrong_labels=0.0).hash
    assert "wrong_labels=0.1" in usual.with_(wrong_labels=0.1).label and usual.with_(wrong_labels=0.1).hash != usual.hash
    with pytest.raises(DnmError, match="wrong_labels=0.001 of 200 sentences is not one"):
        training_split(data, usual.with_(wrong_labels=0.001))
    with pytest.raises(DnmError, match=r"wrong_labels must lie in \[0, 1\), got 1.0"):
        usual.with_(wrong_labels=1)


def test_stratified_order_ignores_row_order():
    pool = rows(60)
    order = np.random.default_rng(2).permutation(60)
    first = [pool.texts[i] for i in stratified_order(pool.texts, pool.labels, "s")]
    again = pool.take(order)
    assert first == [again.texts[i] for i in stratified_order(again.texts, again.labels, "s")]


def test_subset_errors():
    data = load_dataset("builtin5")
    with pytest.raises(DnmError, match="fewer examples than"):
        subset(data, 4, 0)
    with pytest.raises(DnmError, match="fewer than n_train"):
        subset(data, 10 ** 6, 0)


def test_a_size_beyond_the_data_becomes_all_once_and_is_said_once(tmp_path, capsys):
    from dnm.cli import main
    from dnm.config import RunConfig
    from dnm.runs.plan import grid
    from dnm.study.experiments import experiment
    from dnm.training import fit

    path = str(write(tmp_path / "mine.csv"))  # 40 rows, 32 of them to train on
    with pytest.warns(UserWarning, match="mine.csv has 32 training sentences, so n_train of 200, 500 becomes all") as told:
        sizes = [30, 32, 200, 500, "all"]
        found = within_data(RunConfig.create("smoke", dataset=path, n_train=n, seed=s) for n in sizes for s in (0, 1))
    assert [(c.n_train, c.seed) for c in found] == [(n, s) for n in (30, 32, "all") for s in (0, 1)]
    assert found[-1].to_dict()["n_train"] == "all" and sum("becomes all" in str(w.message) for w in told) == 1
    with pytest.warns(UserWarning, match="n_train of 200 becomes all"):
        assert [c.n_train for c in grid(["plain", "dnm", "plain"], [0, 0], dataset=path, n_train=200)] == ["all", "all"]
    with pytest.warns(UserWarning, match="n_train of 50, 200, 500, 1000, 2000 becomes all"):
        assert {c.n_train for c in experiment("table2", datasets=[path])} == {"all"}
    with pytest.warns(UserWarning, match="builtin has 2400 training sentences"):  # known without the data
        assert grid(["plain"], [0], n_train=99999)[0].n_train == "all"
    with pytest.raises(DnmError, match="fewer than n_train=200; use 'all'"):  # who makes a config means it
        fit(RunConfig.create("smoke", dataset=path, n_train=200))
    common = ["--encoder", "cnn", "--profile", "smoke", "--runs", str(tmp_path / "runs")]
    other = ["--dataset", str(write(tmp_path / "other.csv")), "--steps", "2", "--methods", "plain", "--seeds", "0", "--n-train", "20"]
    assert main(["train", *other, *common]) == 0 and "other.csv" in capsys.readouterr().err
    _load.cache_clear()
    assert main(["paper", "table10", "--datasets", path, "--sizes", "200", "--dry-run", *common]) == 0
    out, errors = capsys.readouterr()
    assert "mine, n = all, cnn, dnm, smoke" in out and "30 runs, 0 done, 30 to do: " in out
    assert errors.count("becomes all") == 1 and "other.csv" not in errors  # whose run gave the measured time


@pytest.mark.parametrize("settings, said", [
    (dict(n_train=200), "50 steps are few for 200 sentences"), (dict(n_train="all"), "50 steps are few for 2400 sentences"),
    (dict(n_train=1999, steps=199), "set steps to 200 at least"), (dict(n_train=2000, steps=200), "set steps to 400 at least"),
    (dict(n_train=99999, steps=399), "399 steps are few for 2400"), (dict(encoder="cnn", n_train=500, steps=200), "set steps to 1000 at least"),
    (dict(), ""), (dict(n_train=199), ""), (dict(n_train=1999, steps=200), ""), (dict(n_train="all", steps=400), ""),
    (dict(n_train=200, lr=0), ""), (dict(n_train=200, profile="lesson"), ""), (dict(n_train=200, methods=["logreg"]), "")])
def test_many_sentences_want_more_steps_than_fifty_and_that_is_said_once(settings, said):
    import warnings

    from dnm.runs.plan import grid

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        grid(**dict(methods=["plain", "dnm"], seeds=[0, 1]) | settings)
    assert [said in str(w.message) for w in told if "becomes all" not in str(w.message)] == [True] * bool(said)


# ---------------------------------------------------------------- the built-in corpus

def test_the_corpus_is_the_same_everywhere():
    digest = hashlib.sha256(json.dumps([corpus.build(name).texts | {"y": corpus.build(name).labels}
                                        for name in corpus.LABELS], sort_keys=True).encode()).hexdigest()
    assert digest[:16] == "ae6de297d08e20e8"


@pytest.mark.parametrize("name", corpus.LABELS)
def test_the_corpus_keeps_its_promises(name):
    built = corpus.build(name)
    texts = [text for split in built.texts.values() for text in split]
    assert len(texts) == len(set(texts)) == sum(corpus.SIZES.values())
    lengths = [len(text.split()) for text in texts]
    assert 18 < np.mean(lengths) < 24 and np.std(lengths) > 7 and min(lengths) < 8 and max(lengths) > 45
    for split in corpus.SIZES:
        p = np.array(built.probabilities[split])
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert p.max(axis=1).mean() < 0.97
    assert load_dataset(name).ceiling == pytest.approx(p.max(axis=1).mean())
    p, y = (np.concatenate([np.array(part[s]) for s in corpus.SIZES]) for part in (built.probabilities, built.labels))
    right = p.max(axis=1).mean()  # labels are drawn from p: the best classifier scores the ceiling, within chance
    assert abs((p.argmax(axis=1) == y).mean() - right) < 4 * math.sqrt(right * (1 - right) / len(y))
    assert abs(p.mean(axis=0) - np.bincount(y) / len(y)).max() < 0.03


def test_the_distribution_is_that_of_the_sentence_as_it_reads():
    """The score of each note, read anew from its text alone, clause by clause, gives the kept p(y | sentence)."""
    words = json.loads((Path(corpus.__file__).parent / "corpus.json").read_text())
    values = {word: value for kind in words["kinds"] for part in ("praise", "blame") for word, value in kind[part].items()}
    adverbs, verdicts = words["adverbs"], words["verdicts"]

    def clause(text):
        *phrase, adjective = text.removesuffix(" at all").split()
        if adjective not in values or re.search(" had called the ", text):
            return 0.0  # a fact, or hearsay
        value = values[adjective]
        strength = next((adverbs[word] for word in phrase[-1:] if word in adverbs), 1.0)
        if text.endswith(" at all"):
            return -0.8 * value
        factor = -0.7 if text.startswith("i had expected") else -0.6 if " at the other " in text else 1.0
        return factor * strength * value

    def score(text):
        text, verdict = (*text.removesuffix(" .").partition(", so "),)[::2]
        text = re.sub(r"^[^:]+: ", "", text)
        text, total = re.sub(r"^although ([^,]+), ", r"although \1, but ", text), verdicts.get(verdict, 0.0)
        for part in re.split(r", and |; ", text):
            conceded, _, rest = part.rpartition(", but ")
            total += clause(rest) + 0.5 * (clause(conceded.removeprefix("although ")) if conceded else 0.0)
        return total

    built = corpus.build("builtin")
    found = [1 / (1 + math.exp(-2 * score(text))) for text in built.texts["test"]]
    np.testing.assert_allclose(found, np.array(built.probabilities["test"])[:, 1], atol=1e-9)


def test_counting_words_is_not_enough_for_the_corpus():
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    built = corpus.build("builtin")
    counts, p = CountVectorizer(), np.array(built.probabilities["test"])
    model = LogisticRegression(max_iter=2000).fit(counts.fit_transform(built.texts["train"]), built.labels["train"])
    chosen = model.predict(counts.transform(built.texts["test"]))
    assert 0.8 < p[np.arange(len(p)), chosen].mean() < p.max(axis=1).mean() - 0.03  # with all 2,400 sentences


def test_both_tasks_share_their_sentences():
    assert corpus.build("builtin").texts == corpus.build("builtin5").texts


# ---------------------------------------------------------------- files of one's own

ROWS = [(f"the {thing} was {word}, number {i}", label) for i, thing in enumerate(("tea", "bus", "sea", "hall", "loaf") * 4)
        for word, label in (("fine", "good"), ("poor", "bad"))]


def write(path, rows=ROWS, names=("text", "label")):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        import pandas
        pandas.DataFrame(rows, columns=list(names)).to_parquet(path)
    else:
        import csv
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([names, *rows])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_one_file_of_any_kind(tmp_path, suffix):
    data = load_dataset(str(write(tmp_path / f"mine{suffix}")))
    assert data.label_names == ("bad", "good") and data.counts == {"train": 32, "validation": 4, "test": 4}
    everything = {*data.train.texts, *data.validation.texts, *data.test.texts}
    assert everything == {text for text, _ in ROWS}
    assert all(("fine" in text) == (label == 1) for text, label in zip(data.train.texts, data.train.labels, strict=True))


def test_columns_are_guessed_or_named(tmp_path):
    path = write(tmp_path / "odd.csv", [(i % 7, *row) for i, row in enumerate(ROWS)], ("number", "what_they_said", "mood"))
    assert load_dataset(str(path), "", "mood").label_names == ("bad", "good")
    assert set(load_dataset(str(path), "what_they_said", "number").label_names) == set("0123456")
    assert load_dataset(str(path)).label_names == ("bad", "good")  # the fewest different values
    with pytest.raises(DnmError, match="did you mean 'mood'"):
        load_dataset(str(path), "", "moood")


def test_a_folder_of_files_and_what_is_missing_is_carved_from_train(tmp_path):
    write(tmp_path / "train.csv", ROWS[:30])
    write(tmp_path / "test.jsonl", ROWS[30:])
    data = load_dataset(str(tmp_path))
    assert data.counts == {"train": 27, "validation": 3, "test": 10}
    assert data.test.texts == [text for text, _ in ROWS[30:]]


def test_numbers_as_labels_are_sorted_as_numbers(tmp_path):
    path = write(tmp_path / "n.csv", [(f"text {i}", i % 12) for i in range(96)])
    assert load_dataset(str(path)).label_names == tuple(str(i) for i in range(12))


def test_the_fingerprint_follows_the_content(tmp_path):
    one = load_dataset(str(write(tmp_path / "a.csv"))).fingerprint
    _load.cache_clear()
    assert load_dataset(str(write(tmp_path / "a.csv", ROWS[::-1]))).fingerprint == one
    _load.cache_clear()
    assert load_dataset(str(write(tmp_path / "a.csv", [("changed", "good"), *ROWS[1:]]))).fingerprint != one


@pytest.mark.parametrize("content, message", [
    (b"text,label\nfine,1\n,0\n", r"of 2 rows 1 without a text \(line 3\)"),
    (b"text,label\nfine,1\npoor\n", r"of 2 rows 1 without a label \(line 3\)"),
    (b"text,label\na,1\nb,1\nc,1\n", "only one class"),
    (b"text\nfine\n", "no label column"),
    (b"text,label\n", "no rows below"),
    (b"text,label\nNice, cosy,1\npoor,0\n", "line 2: more fields than columns"),
    (b'text,label\n"never closed,1\npoor,0\n', "cannot read bad.csv"),
    (b"", "bad.csv is empty"), (b" \n\n", "bad.csv is empty"), (b"\xff\xfe", "bad.csv is empty"),
    (b"text,label\na,1\nb,0\nc,1\nd,0\n", "fewer|few"),
])
def test_bad_files_are_named_with_a_way_out(tmp_path, content, message):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(DnmError, match=message):
        load_dataset(str(tmp_path / "bad.csv"))


def test_a_quotation_mark_in_a_tsv_is_just_one(tmp_path):
    path = tmp_path / "q.tsv"
    path.write_text('text\tlabel\n"so called tea\t1\n' + "".join(f"more {i}\t{i % 2}\n" for i in range(20)))
    data = load_dataset(str(path))
    assert sum(data.counts.values()) == 21
    assert '"so called tea' in {*data.train.texts, *data.validation.texts, *data.test.texts}


def test_half_characters_missing_values_and_two_kinds_of_files(tmp_path):
    (tmp_path / "s.jsonl").write_text('{"text": "fine", "label": 1}\n{"text": "cut \\ud83d", "label": 0}\n')
    with pytest.raises(DnmError, match="line 2: the text .* half a character"):
        load_dataset(str(tmp_path / "s.jsonl"))
    import pandas
    frame = pandas.DataFrame({"text": pandas.array(["fine", None], dtype="string"), "label": [1, 0]})
    frame.to_parquet(tmp_path / "na.parquet")
    with pytest.raises(DnmError, match=r"1 without a text \(row 2\)"):
        load_dataset(str(tmp_path / "na.parquet"))
    (tmp_path / "both").mkdir()
    for name in ("all.csv", "train.csv"):
        write(tmp_path / "both" / name)
    with pytest.raises(DnmError, match="keep one or the other"):
        load_dataset(str(tmp_path / "both"))


def test_bad_json_lines_and_missing_files(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "label": 1}\nnot json\n')
    with pytest.raises(DnmError, match="line 2"):
        load_dataset(str(tmp_path / "bad.jsonl"))
    for name, message in (("none.csv", "no such data file"), ("none.parquet", "no such data file")):
        with pytest.raises(DnmError, match=message):
            load_dataset(str(tmp_path / name))
    (tmp_path / "odd.xlsx").write_bytes(b"x")
    with pytest.raises(DnmError, match="cannot read odd.xlsx"):
        load_dataset(str(tmp_path / "odd.xlsx"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DnmError, match="cannot read torn.parquet"):
        load_dataset(str(tmp_path / "torn.parquet"))


def test_a_named_data_set_that_is_nowhere_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DNM_HOME", str(tmp_path))
    monkeypatch.delenv("DNM_DATA_DIR", raising=False)
    with pytest.raises(DnmError, match="not on this machine.*fetch subj"):
        load_dataset("subj")


def test_a_damaged_real_data_set_is_refused(tmp_path, monkeypatch):
    (tmp_path / "sst2").mkdir()
    write(tmp_path / "sst2" / "train.jsonl", [("a", 0), ("b", 1)])
    monkeypatch.setenv("DNM_DATA_DIR", str(tmp_path))
    with pytest.raises(DnmError, match="expected .6920, 872, 1821."):
        load_dataset("sst2")


@needs_real_data
def test_fetch_stores_checked_files_and_keeps_finished_ones(tmp_path, monkeypatch, capsys):
    """The Hub is replaced by the files at hand; what is written must load as the same data set."""
    from dnm.data import datasets as module

    original, calls = load_dataset("mr"), []
    folder = next(f for f in module.data_folders() if (f / "mr").is_dir())

    def hub(name):
        calls.append(name)
        texts, labels = module.read_folder(folder / name)["all"]
        return {"train": (texts[:9000], labels[:9000]), "test": (texts[9000:], labels[9000:])}

    monkeypatch.setattr(module, "from_hub", hub)
    monkeypatch.setenv("DNM_HOME", str(tmp_path))
    monkeypatch.delenv("DNM_DATA_DIR")
    module.fetch(["mr"])
    _load.cache_clear()
    assert load_dataset("mr").fingerprint == original.fingerprint
    module.fetch(["mr"])
    assert calls == ["mr"]  # the second call found it whole
    monkeypatch.setenv("DNM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DNM_HOME", str(tmp_path / "elsewhere"))
    capsys.readouterr()
    module.fetch(["mr"])
    assert capsys.readouterr().out == f"mr: {tmp_path / 'data' / 'mr'}\n" and calls == ["mr"]  # wherever it is looked for
    monkeypatch.setenv("DNM_HOME", str(tmp_path))
    monkeypatch.delenv("DNM_DATA_DIR")
    (tmp_path / "data" / "mr" / "test.jsonl").write_text('{"text": "torn", "lab')
    module.fetch(["mr"])
    _load.cache_clear()
    assert calls == ["mr", "mr"] and load_dataset("mr").fingerprint == original.fingerprint
    (tmp_path / "named" / "mr").mkdir(parents=True)  # a damaged folder that is looked at first does not hide a whole one
    (tmp_path / "named" / "mr" / "test.jsonl").write_text('{"text": "torn", "lab')
    monkeypatch.setenv("DNM_DATA_DIR", str(tmp_path / "named"))
    assert load_dataset("mr").fingerprint == original.fingerprint
    shutil.rmtree(tmp_path / "data" / "mr")
    with pytest.raises(DnmError, match="not a JSON object"):
        load_dataset("mr")
