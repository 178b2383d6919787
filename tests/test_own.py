"""People's own tables: `dnm fit`, `dnm predict` and `dnm compare`, and files of any length."""

import csv
import errno
import fcntl
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dnm.classify import stream
from dnm.classify.estimator import DNMClassifier
from dnm.cli import main
from dnm.data.datasets import load_dataset
from dnm.data.splits import Split
from dnm.errors import DnmError
from dnm.study import compare, statistics

pytestmark = pytest.mark.filterwarnings("ignore:.*predict_proba is not calibrated", "ignore:K = 5 needs")
QUICK = dict(steps=4, batch_size=12, lr=1e-3, head_lr=1e-2, max_length=32, random_state=0)
AS_OPTIONS = ["--steps", "4", "--batch-size", "12", "--lr", "1e-3", "--head-lr", "1e-2", "--max-length", "32"]


@pytest.fixture(scope="module")
def corpus() -> tuple[list[str], list[str]]:
    data = load_dataset("builtin")
    return data.train.texts[:120], [data.label_names[y] for y in data.train.labels[:120]]


@pytest.fixture(scope="module")
def model(tiny_models, corpus) -> DNMClassifier:
    return DNMClassifier(encoder=str(tiny_models["bert"]), **QUICK).fit(*corpus)


@pytest.fixture
def table(corpus, tmp_path):
    """As a spreadsheet in Germany writes it: semicolons, Windows-1252, gaps, a label typed two ways."""
    rows = [[n, f"Grüße; {text}" if n % 5 == 0 else text, name] for n, (text, name) in enumerate(zip(*corpus, strict=True))]
    rows[10][1], rows[20][2], rows[30][2] = "", "", f" {rows[30][2]} "
    path = tmp_path / "kunden.csv"
    with path.open("w", encoding="cp1252", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["Nr", "Bewertung", "Urteil"], *rows])
    return path


# ---------------------------------------------------------------- fit, then predict

def test_a_spreadsheets_table_is_fitted_scored_kept_and_predicted(table, corpus, tiny_models, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(table), "--out", "model", "--encoder", str(tiny_models["bert"]), "--method", "plain", *AS_OPTIONS]) == 0
    told = capsys.readouterr()
    assert "read as Windows-1252" in told.err and "reads 'Bewertung' as text and 'Urteil' as label" in told.err
    assert "1 without a text (line 12) and 1 without a label (line 22)" in told.err
    assert "94 sentences to learn from (19 of them choose when to stop), 24 to test; classes: disappointed, pleased" in told.out
    score = next(line for line in told.out.splitlines() if line.startswith("test accuracy"))
    right = round(float(score.split()[2].rstrip("%")) / 100 * 24)
    low, high = stats.binomtest(right, 24).proportion_ci(method="wilson")
    assert f"{right / 24:.1%} (95% interval {low:.0%} to {high:.0%}, of 24 sentences)" in score
    assert "kunden.csv" in (tmp_path / "model" / "README.md").read_text()

    assert main(["predict", "model", str(table)]) == 0
    assert "kunden.predicted.csv: 120 rows, 1 of them without a text" in capsys.readouterr().out
    found = pd.read_csv("kunden.predicted.csv", sep=";", encoding="utf-8-sig", keep_default_na=False)
    given = pd.read_csv(table, sep=";", encoding="cp1252", keep_default_na=False)
    pd.testing.assert_frame_equal(found[list(given)], given)
    assert found.predicted[10] == found.probability[10] == ""
    kept = DNMClassifier.load("model")
    texts = [text for text in given.Bewertung if text]
    assert found.predicted[found.predicted != ""].tolist() == kept.predict(texts).tolist()
    np.testing.assert_allclose(found.probability[found.predicted != ""].astype(float), kept.predict_proba(texts).max(1), atol=5.1e-5)

    assert main(["predict", "model", "a lovely cup of tea"]) == 0
    shown = capsys.readouterr().out.split("\t")
    assert shown[0] == kept.predict("a lovely cup of tea")[0] and shown[1] == "a lovely cup of tea"


def test_a_folder_of_splits_brings_its_own_test(corpus, tiny_models, tmp_path, capsys):
    texts, names = corpus
    for split, part in (("train", slice(0, 60)), ("dev", slice(60, 80)), ("test", slice(79, 120))):
        pd.DataFrame({"text": texts[part], "label": names[part]}).to_json(tmp_path / f"{split}.jsonl", orient="records", lines=True)
    assert main(["fit", str(tmp_path), "--out", str(tmp_path / "m"), "--encoder", str(tiny_models["bert"]), *AS_OPTIONS]) == 0
    told = capsys.readouterr()
    assert "80 sentences to learn from (16 of them choose when to stop), 41 to test" in told.out
    assert "1 test sentences are also among those to learn from" in told.err


def test_too_few_for_a_test_are_all_learned_from_and_that_is_said(corpus, tiny_models, tmp_path, capsys):
    pd.DataFrame({"text": corpus[0][:30], "label": corpus[1][:30]}).to_csv(tmp_path / "few.csv", index=False)
    assert main(["fit", str(tmp_path / "few.csv"), "--out", str(tmp_path / "m"), "--encoder", str(tiny_models["bert"]), *AS_OPTIONS]) == 0
    assert "no test: fewer than 10 sentences were set aside" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "told"), [
    (["missing.csv"], "no such file: missing.csv"), (["a", "b", "--out", "x.csv"], "--out is for the predictions of a file"),
    (["given.csv", "--out", "x.xlsx"], "cannot write x.xlsx: name a file that ends in .csv, .tsv, .jsonl"),
    (["given.csv", "--out", "given.csv"], "given.csv is the file that is read; name another"),
    (["given.csv", "--text", "words"], "given.csv: unknown text column 'words'"), (["empty.csv"], "no rows below the column names")])
def test_what_cannot_be_predicted_is_one_line(model, tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    model.save("m")
    (tmp_path / "given.csv").write_text("text,id\na cup,1\n")
    (tmp_path / "empty.csv").write_text("text,id\n")
    assert main(["predict", "m", *arguments]) == 2
    assert told in capsys.readouterr().err and (tmp_path / "given.csv").read_text() == "text,id\na cup,1\n"


# ---------------------------------------------------------------- files of any length

@pytest.fixture
def long(corpus, tmp_path):
    path = tmp_path / "long.jsonl"
    rows = [{"id": n, "text": text if n % 11 else None, "predicted": "theirs"} for n, text in enumerate(corpus[0])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_an_interrupted_file_goes_on_where_it_stopped(model, long, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(stream, "SIZE", 10)
    out, whole = tmp_path / f"out.{kind}", tmp_path / f"whole.{kind}"
    assert stream.predict_file(model, long, whole) == {"rows": 120, "empty": 11, "before": 0}
    asked = []
    monkeypatch.setattr(model, "predict_proba", lambda texts: asked.extend(texts) or DNMClassifier.predict_proba(model, texts))

    def kill(at):
        def told(done, notes):
            if done == at:
                with (tmp_path / f"out.{kind}.part").open("ab") as file:
                    file.write(b"half a li")  # of the rows that were not secured
                raise Killed
        return told

    for at in (30, 70):
        with pytest.raises(Killed):
            stream.predict_file(model, long, out, on_rows=kill(at))
        assert not out.exists()
    assert stream.predict_file(model, long, out) == {"rows": 120, "empty": 11, "before": 70}
    assert out.read_bytes() == whole.read_bytes() and len(asked) == 120 - 11  # nothing twice
    assert not [*tmp_path.glob("*.part*")]


def test_the_rows_are_those_of_the_file_in_order_beside_their_classes(model, long, corpus, tmp_path):
    stream.predict_file(model, long, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = iter(model.predict([text for n, text in enumerate(corpus[0]) if n % 11]).tolist())
    assert [row["id"] for row in rows] == [*range(120)] and {row["predicted"] for row in rows} == {"theirs"}
    assert [row["predicted.2"] for row in rows] == [next(expected) if n % 11 else None for n in range(120)]


@pytest.mark.parametrize("change", ["file", "model", "note", "rows"])
def test_another_file_or_model_starts_anew(model, long, tmp_path, monkeypatch, change):
    monkeypatch.setattr(stream, "SIZE", 10)
    out = tmp_path / "out.csv"

    def stop(done, notes):
        raise Killed

    with pytest.raises(Killed):
        stream.predict_file(model, long, out, model="a", on_rows=stop)
    if change == "file":
        long.write_text(long.read_text().replace("theirs", "others"))
    elif change == "note":
        (tmp_path / "out.csv.part.json").write_text('{"rows"')
    elif change == "rows":
        part = tmp_path / "out.csv.part"
        part.write_bytes(part.read_bytes().replace(b"theirs", b"theirz", 1))
    done = stream.predict_file(model, long, out, model="b" if change == "model" else "a")
    assert done["before"] == 0 and len(pd.read_csv(out)) == 120


def test_standard_input_is_read_through(model, tmp_path):
    model.save(tmp_path / "m")
    done = subprocess.run([sys.executable, "-m", "dnm", "predict", str(tmp_path / "m"), "-", "--out", "o.tsv"], cwd=tmp_path,
                          input="id\ttext\n7\tschöner tea\n".encode(), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "o.tsv", sep="\t").text.tolist() == ["schöner tea"]


# ---------------------------------------------------------------- which method

def test_candidates_learn_from_and_are_tested_on_the_same_sentences(corpus, tiny_models, tmp_path, monkeypatch):
    texts = Split([*corpus[0][:40], *corpus[0][:20]], np.unique([*corpus[1][:40], *corpus[1][:20]], return_inverse=True)[1])
    settings = dict(encoder=str(tiny_models["bert"])) | QUICK
    seen, fit = [], compare._fit

    def noted(texts, names, task, settings):
        seen.append(task)
        return fit(texts, names, task, settings)

    monkeypatch.setattr(compare, "_fit", noted)
    run = partial(compare.cross_validate, texts, ("a", "b"), ["logreg", "plain"], 3, 2, tmp_path, workers=1, **settings)
    fits = run()
    assert len(fits) == 12 and fits.method.tolist() == ["logreg"] * 6 + ["plain"] * 6
    for name, repeat, fold, learn, held in seen:
        assert {*map(texts.texts.__getitem__, learn)}.isdisjoint(texts.texts[i] for i in held)
        assert sorted([*learn, *held]) == [*range(60)]
        twin = next(task for task in seen if task[:3] == ({"logreg": "plain", "plain": "logreg"}[name], repeat, fold))
        np.testing.assert_array_equal(held, twin[4])
    one = next(task for task in seen if task[0] == "logreg")
    alone = DNMClassifier(method="logreg", **settings | {"random_state": 0}).fit([texts.texts[i] for i in one[3]], texts.labels[one[3]])
    assert fits.accuracy[0] == pytest.approx(100 * alone.score([texts.texts[i] for i in one[4]], texts.labels[one[4]]))

    [file] = tmp_path.glob("compare-*.json")
    file.write_text(json.dumps({"fits": json.loads(file.read_text())["fits"][:5]}))  # as if it had been interrupted
    seen.clear()
    pd.testing.assert_frame_equal(run().drop(columns="seconds"), fits.drop(columns="seconds"))
    assert len(seen) == 7
    seen.clear()
    run(max_length=16)
    assert len(seen) == 12, "other settings are another comparison"


def made(**accuracies) -> pd.DataFrame:
    return pd.DataFrame([{"method": name, "title": name, "repeat": i // 5, "fold": i % 5, "n_train": 80, "n_test": 20, "accuracy": value,
                          "f1": value, "sure": [0.9], "right": [True], "calibrated": True, "seconds": 1.0 if name == "logreg" else 30.0, "steps": 9}
                         for name, values in accuracies.items() for i, value in enumerate(values)])


def test_the_simplest_within_a_standard_error_of_the_best_is_recommended():
    noise = np.random.default_rng(0).normal(0, 2, 10)
    close = compare.summary(made(logreg=80 + noise, plain=70 + noise[::-1], dnm=80.5 + noise[::-1]))
    told = compare.recommendation(close)
    assert told.startswith("Recommendation: logreg. dnm has the highest mean, ") and "logreg is within a standard error of it (-0.5 [" in told
    clear = compare.recommendation(compare.summary(made(logreg=80 + noise, plain=82 + noise, dnm=90 + noise * 0.9)))
    assert clear.startswith("Recommendation: dnm. It has the highest mean") and "more than a standard error behind: logreg -10.0 [" in clear
    first = compare.recommendation(compare.summary(made(logreg=90 + noise, dnm=80 + noise[::-1])))
    assert first == f"Recommendation: logreg. It has the highest mean, {90 + noise.mean():.1f}%."
    spread = (noise - noise.mean()) / noise.std(ddof=1) * 8.5  # far behind in the mean, though not for sure
    unsure = compare.recommendation(compare.summary(made(logreg=80 + spread, dnm=np.full(10, 90.0))))
    assert unsure.startswith("Recommendation: dnm.") and ", +" in unsure


def test_the_corrected_interval_is_that_of_nadeau_and_bengio():
    gaps = np.array([1.0, 2.5, -0.5, 3.0, 1.5])
    found = statistics.corrected(gaps, 0.25)
    error = np.sqrt((1 / 5 + 0.25) * np.sum((gaps - 1.5) ** 2) / 4)
    assert found.mean == 1.5 and found.spread == pytest.approx(error)
    assert found.high - 1.5 == pytest.approx(2.7764451 * error)  # t, 4 degrees of freedom, from a table
    # With nothing shared it is the ordinary t test.
    assert statistics.corrected(gaps, 0).p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)


def test_the_calibration_error_is_the_mean_gap_in_bins():
    shares = np.array([[0.95, 0.05], [0.92, 0.08], [0.35, 0.65], [0.4, 0.6], [1.0, 0.0]])
    # bins: [0.6, 0.7): 0.65 right, 0.6 wrong; [0.9, 1]: 0.95 right, 0.92 wrong, 1.0 right
    expected = abs(1 - 1.25) / 5 + abs(2 - 2.87) / 5
    right = shares.argmax(1) == np.array([0, 1, 1, 0, 0])
    assert statistics.calibration_error(shares.max(1), right) == pytest.approx(expected)


def test_the_command_prints_table_and_recommendation_and_keeps_a_page(corpus, tiny_models, tmp_path, capsys):
    name = tmp_path / "<b>texts.csv"
    pd.DataFrame({"text": corpus[0][:40], "label": corpus[1][:40]}).to_csv(name, index=False)
    assert main(["compare", str(name), "--methods", "logreg", "plain", "--folds", "2", "--repeats", "1", "--jobs", "1", "--out",
                 str(tmp_path / "o"), "--encoder", str(tiny_models["bert"]), *AS_OPTIONS]) == 0
    told = capsys.readouterr().out
    assert "Recommendation: " in told and "calibration error" in told and "to the best" in told
    page = (tmp_path / "o" / "compare.html").read_text()
    assert "&lt;b&gt;texts.csv" in page and "<b>texts" not in page and "Nadeau" in page
    assert len(pd.read_csv(tmp_path / "o" / "compare.csv")) == 4
    assert f"would give {max(map(corpus[1][:40].count, corpus[1])) / 40:.1%}" in told and "left out" not in told
    assert main(["compare", str(name), "--methods", "logreg", "plain", "--folds", "2", "--repeats", "1", "--jobs", "1", "--out",
                 str(tmp_path / "o"), "--encoder", "cnn", *AS_OPTIONS]) == 0
    assert "; left out, as they need a pre-trained encoder: logreg\n" in capsys.readouterr().out


@pytest.mark.parametrize("folds", ["1", "99"])
def test_folds_that_make_no_sense_are_told(corpus, tmp_path, folds):
    texts = Split(corpus[0][:40], np.unique(corpus[1][:40], return_inverse=True)[1])
    with pytest.raises(DnmError, match=f"{folds} folds of 40 sentences, 40 of them different"):
        compare.cross_validate(texts, ("a", "b"), folds=int(folds))


# ---------------------------------------------------------------- the widget

def test_pasted_rows_are_read_trained_on_and_tried(corpus, tiny_models):
    from dnm.notebook import table

    widget = table.table_training(encoder=str(tiny_models["bert"]), **QUICK)
    assert widget.start.disabled
    widget.pasted.value = "Remark\tVerdict\tNo\n" + "".join(f"{text}\t{name}\t{n % 3}\n" for n, (text, name) in enumerate(zip(*corpus, strict=True)))
    assert "reads &#x27;Remark&#x27; as text and &#x27;Verdict&#x27; as label" in widget.said.value and not widget.start.disabled
    typed = widget.pasted.value
    widget.pasted.value = typed.replace("\tpleased\t", "\tPLEASED\t", 1)  # a label typed in two ways
    assert "could equally be the label column" in widget.said.value and widget.start.disabled  # three classes each
    widget.columns["label"].value = "No"
    widget.columns["label"].value = "Verdict"
    assert "was read as &#x27;pleased&#x27; (1 rows)" in widget.said.value and {*widget.table.labels} == {"pleased", "disappointed"}
    fresh = table.table_training()
    fresh.pasted.value = widget.pasted.value
    assert fresh.columns["label"].options == ("Remark", "Verdict", "No") and fresh.start.disabled
    fresh.columns["text"].value, fresh.columns["label"].value = "Remark", "Verdict"
    assert not fresh.start.disabled and fresh.table.label == "Verdict"
    widget.pasted.value = typed
    widget.columns["label"].value = "No"
    assert "40 0, 40 1, 40 2" in widget.said.value
    widget.columns["label"].value = "Verdict"
    widget.begin()
    widget.thread.join(120)
    held = 24  # a fifth
    assert "trained for 4 steps; test accuracy" in widget.line.value and f"of {held} sentences" in widget.line.value
    assert list(widget.figure.data[0].x) == [1, 2, 3, 4] and len(widget.tried.children) == 1
    assert widget.tried.children[0].figure.layout.title.text.endswith(f"<b>{widget.classifier.predict(widget.tried.children[0].controls['sentence'].value)[0]}</b>")
    widget.take("../<i>x.csv", "text;label\n<b>a</b>;<script>\nb;c\n".encode("cp1252"))  # a file's name stays in its folder
    assert "<b>" not in widget.said.value and "<script>" not in widget.said.value and not widget.start.disabled
    widget.pasted.value = "one column\nonly\n"
    assert widget.said.value.startswith("error: pasted rows: no label column") and widget.start.disabled


def test_training_stops_at_a_click_and_errors_are_said(corpus, tiny_models):
    from dnm.notebook import table

    rows = "text\tlabel\n" + "".join(f"{text}\t{name}\n" for text, name in zip(*corpus, strict=True))
    widget = table.table_training(encoder=str(tiny_models["bert"]), **QUICK | {"steps": 5000})
    widget.pasted.value = rows
    widget.begin()
    while not widget.line.value.startswith("step"):
        widget.thread.join(0.05)
    widget.asked.set()
    widget.thread.join(60)
    assert widget.line.value.startswith("stopped: stopped at step") and not widget.start.disabled and widget.classifier is None
    broken = table.table_training(method="nothing")
    broken.pasted.value = rows
    broken.begin()
    broken.thread.join(60)
    assert "unknown method" in broken.line.value


def test_a_table_that_cannot_be_learned_from_is_one_line(tmp_path, capsys):
    assert main(["fit", str(tmp_path / "nothing.csv")]) == 2
    assert f"no such file or folder: {tmp_path / 'nothing.csv'}" in capsys.readouterr().err


def test_two_calls_for_one_output_do_not_mix(model, long, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "SIZE", 10)

    def second(done, notes):
        with pytest.raises(DnmError, match="another process is writing"):
            stream.predict_file(model, long, tmp_path / "out.csv")

    assert stream.predict_file(model, long, tmp_path / "out.csv", on_rows=second)["rows"] == 120
    assert len(pd.read_csv(tmp_path / "out.csv")) == 120 and not [*tmp_path.glob("*.part*")]


def test_where_a_file_system_has_no_locks_predictions_are_written_all_the_same(model, long, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="goes on with files as locks"):
        assert stream.predict_file(model, long, tmp_path / "out.csv")["rows"] == 120
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.jsonl", "out.csv"]


def test_a_lone_carriage_return_stays_in_its_cell(model, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a cup\rof tea", "note": "one\rtwo"}) + "\n")
    stream.predict_file(model, tmp_path / "a.jsonl", tmp_path / "a.csv")
    assert pd.read_csv(tmp_path / "a.csv").note.tolist() == ["one\rtwo"]


def test_the_column_it_was_trained_on_is_remembered(corpus, tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"remark": corpus[0], "label": corpus[1]}).to_csv("a.csv", index=False)
    assert main(["fit", "a.csv", "--out", "m", "--encoder", str(tiny_models["bert"]), *AS_OPTIONS]) == 0
    pd.DataFrame({"reply": [text * 3 for text in corpus[0]], "remark": corpus[0]}).to_csv("b.csv", index=False)
    assert main(["predict", "m", "b.csv", "--out", "c.csv"]) == 0
    assert pd.read_csv("c.csv").predicted.tolist() == DNMClassifier.load("m").predict(corpus[0]).tolist()


def test_a_model_that_could_not_be_kept_is_not_trained(table, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(DNMClassifier, "fit", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").touch()
    (tmp_path / "kept").mkdir()

    def refused(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "touch", refused)  # as where somebody else's folder is
    for out, why in ((tmp_path / "file" / "model", errno.ENOTDIR), (tmp_path / "kept", errno.EACCES)):
        assert main(["fit", str(table), "--out", str(out), *AS_OPTIONS]) == 2
        assert f"error: cannot write to {out}: {os.strerror(why)}; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(("files", "told"), [
    ({"train": ["good", "bad"] * 20, "test": ["-1"] * 9}, "class '-1' (9 rows) does not occur in train.csv: a file without labels?"),
    ({"train": ["good"] * 20}, "only one class (good)")])
def test_a_folder_whose_labels_do_not_fit_is_refused(tmp_path, capsys, files, told):
    for split, labels in files.items():
        pd.DataFrame({"text": [f"{split} {n}" for n in range(len(labels))], "label": labels}).to_csv(tmp_path / f"{split}.csv", index=False)
    assert main(["fit", str(tmp_path)]) == 2 and told in capsys.readouterr().err
    assert main(["fit", str(tmp_path), "--strict"]) == 2 and "for a single file" in capsys.readouterr().err


def test_several_files_are_no_sentences(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save("m")
    for name in ("a.csv", "b.csv", "old.xls"):
        (tmp_path / name).write_text("text\na\n")
    assert main(["predict", "m", "a.csv", "b.csv"]) == 2 and "a.csv is a file: name one file at a time" in capsys.readouterr().err
    assert main(["predict", "m", "old.xls"]) == 2 and "cannot read old.xls: use one of" in capsys.readouterr().err


@pytest.mark.parametrize(("labels", "told"), [
    (["a", *["b"] * 11], "a fold leaves only class 'b' to learn from"), (["a", "a", "b", "b"], "at most 2 of a class: take 2 to 2 folds")])
def test_a_table_too_small_to_compare_on_is_told_before_anything_is_trained(tiny_models, tmp_path, capsys, labels, told):
    pd.DataFrame({"text": [f"sentence {n}" for n in range(len(labels))], "label": labels}).to_csv(tmp_path / "a.csv", index=False)
    assert main(["compare", str(tmp_path / "a.csv"), "--out", str(tmp_path / "o"), "--encoder", str(tiny_models["bert"])]) == 2
    assert told in capsys.readouterr().err and not [*tmp_path.glob("o/*.json")]


@pytest.mark.parametrize(("columns", "options", "told"), [
    (["shop", "kind"], [], "'shop', 'kind' could each be the column of the classes; say which (--label, label_column)"),
    (["number"], ["--label", "number"], "40 classes among 40 rows: too few of each, or a running number?")])
def test_columns_that_are_not_sure_to_be_the_classes_are_refused(corpus, tmp_path, capsys, columns, options, told):
    made = {"shop": ["north", "south"] * 20, "kind": ["praise", "question", "complaint", "praise"] * 10, "number": range(40)}
    pd.DataFrame({"remark": corpus[0][:40]} | {name: made[name] for name in columns}).to_csv(tmp_path / "a.csv", index=False)
    assert main(["fit", str(tmp_path / "a.csv"), *options]) == 2 and told in capsys.readouterr().err


def test_a_label_typed_in_two_ways_is_one_class_and_that_is_said(corpus, tiny_models, tmp_path, capsys):
    labels = [name.upper() if n == 7 else f" {name}" if n == 9 else name for n, name in enumerate(corpus[1])]
    pd.DataFrame({"text": corpus[0], "label": labels}).to_csv(tmp_path / "a.csv", index=False)
    assert main(["fit", str(tmp_path / "a.csv"), "--out", str(tmp_path / "m"), "--encoder", str(tiny_models["bert"]), *AS_OPTIONS]) == 0
    told = capsys.readouterr()
    assert f"{labels[7]!r} was read as {corpus[1][7]!r} (1 rows)" in told.err and "are two classes" not in told.err
    assert "classes: disappointed, pleased" in told.out
    assert main(["fit", str(tmp_path / "a.csv"), "--out", str(tmp_path), "--encoder", str(tiny_models["bert"]), *AS_OPTIONS]) == 2
    told = capsys.readouterr()
    assert "holds other things than a model of dnm" in told.err and "sentences to learn from" not in told.out  # before training
