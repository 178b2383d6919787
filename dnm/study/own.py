"""What ``dnm fit``, ``dnm predict`` and ``dnm compare`` do: a classifier for one's own labelled texts."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from dnm.config import FILE_SUFFIXES, is_data_file
from dnm.data.datasets import numbered
from dnm.data.files import SPLITS, USUAL, Table, read_splits, read_table, same
from dnm.data.splits import Split, split_pooled
from dnm.errors import DnmError

LEAST = 10  # test sentences that are worth a score


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def read(file: str, text: str = "", label: str = "", say=_to_stderr,
         **options) -> tuple[tuple[str, ...], Split, Split, str]:
    """The classes, the sentences to learn from and to test on (none, of a single file), and the texts' column.

    ``options`` are those of `dnm.data.files.read_table`; ``say`` is told what was found in the file.
    """
    if file != "-" and not Path(file).exists():
        raise DnmError(f"no such file or folder: {file}")
    if Path(file).is_dir() and any(options.values()):
        raise DnmError(f"{file} is a folder: separator, sheet and strict are for a single file")
    tables = (read_splits(Path(file), text, label) if Path(file).is_dir() else
              {"all": read_table(file, text, label, **options)})
    for name, table in tables.items():
        _sure(table, label)
        tables[name] = table = one_spelling(table)
        for note in table.notes:
            say(f"{table.file}: {note}" + "; --text and --label name others" * ("(guessed; other columns" in note))
    names, parts = numbered(Path(file), tables)
    if 2 * len(names) > (rows := sum(map(len, parts.values()))):
        raise DnmError(f"{len(names)} classes among {rows} rows: too few of each, or a running number? Name the column "
                       "of the classes (--label, label_column)")
    test, learn = parts.pop("test", Split([], np.array([], int))), joined(parts.values())
    if twice := len({*map(same, test.texts)} & {*map(same, learn.texts)}):
        say(f"{file}: {twice} test sentences are also among those to learn from")
    return tuple(names), learn, test, next(iter(tables.values())).text


def _sure(table: Table, asked: str) -> None:
    """Refuse to guess where several columns look like classes: a model of the wrong one would be in vain."""
    could = [name for name, values in table.columns.items()
             if name != table.text and 1 < len({*map(str, values)} - {"None"}) <= max(2, len(table.texts) / 10)]
    if not asked and table.label.strip().casefold() not in USUAL["label"] and len(could) > 1:
        raise DnmError(f"{table.file}: {', '.join(map(repr, could))} could each be the column of the classes; say "
                       "which (--label, label_column)")


def one_spelling(table: Table) -> Table:
    """Labels that only capitals or blanks tell apart become one, in its most frequent spelling."""
    spellings = {}
    for name, _ in Counter(table.labels).most_common():
        spellings.setdefault(same(name), name)
    labels = [spellings[same(name)] for name in table.labels]
    read = [f"{name!r} was read as {spellings[same(name)]!r} ({count} rows)"
            for name, count in Counter(table.labels).items() if name != spellings[same(name)]]
    notes = [note for note in table.notes if not (read and "only capitals or blanks" in note)]
    return replace(table, labels=labels, notes=notes + read)


def joined(parts: Iterable[Split]) -> Split:
    """Sentences of several splits as one."""
    parts = [*parts]
    return Split([text for part in parts for text in part.texts], np.concatenate([part.labels for part in parts]))


def set_aside(learn: Split, held: Split, share: float = 0.2) -> tuple[Split, Split]:
    """Sentences to learn from and to test on: ``share`` of them where none are ``held`` yet, if enough for a score."""
    if not 0 <= share < 1:
        raise DnmError(f"the share of sentences to test on must lie in [0, 1), got {share}")
    if held or (size := round(share * len(learn))) < LEAST:
        return learn, held
    try:
        return tuple(split_pooled(learn, (len(learn) - size, size, 0), "texts test")[:2])
    except DnmError:  # too few different sentences, or classes with more than one
        return learn, held


def score(classifier, names: tuple[str, ...], held: Split) -> str:
    """Test accuracy with its interval, beside that of the most frequent class; or why there is none."""
    if not held:
        return f"no test: fewer than {LEAST} sentences were set aside; `dnm compare` scores by cross-validation"
    right = int((classifier.predict(held.texts) == np.array(names)[held.labels]).sum())
    usual = np.bincount(held.labels).max() / len(held)
    return (f"test accuracy {interval(right, len(held))}; always saying the most frequent class would give "
            f"{usual:.1%}" + ": nothing was learned; are these the right columns?" * bool(right <= usual * len(held)))


def fit(file: str, out: Path, text: str, label: str, separator: str, sheet: str, strict: bool, test: float,
        **settings) -> None:
    """Train a classifier on a table of texts and labels, score it on sentences set aside, and keep it."""
    names, learn, held, column = read(file, text, label, separator=separator, sheet=sheet, strict=strict)
    from sklearn.metrics import classification_report

    from dnm.classify import saved
    from dnm.classify.estimator import DNMClassifier

    if saved.taken(out):
        _to_stderr(f"{out}: the model there will be replaced")
    learn, held = set_aside(learn, held, test)
    classifier = DNMClassifier(**settings)
    with _bar("training") as show:
        classifier.fit(learn.texts, [names[y] for y in learn.labels],
                       on_progress=lambda run: show(run.step, run.config.steps, _newest(run)))
    use = "choose when to stop" if classifier.config_.row.fine_tunes else "were set aside at first, to calibrate"
    some = classifier.counts_["validation"]
    about, told = {"Data": Path(file).name if file != "-" else "standard input"}, score(classifier, names, held)
    print(f"{len(learn)} sentences to learn from{f' ({some} of them {use})' * bool(some)}, {len(held)} to test; "
          f"classes: {', '.join(names)}")
    print(f"method: {classifier.config_.title} (another: --method; which suits: dnm compare)", told, sep="\n")
    if held:
        about["Test"] = told
        truth = [names[y] for y in held.labels]
        print(classification_report(truth, classifier.predict(held.texts), zero_division=0, digits=2))
    classifier.text_column_ = column
    classifier.save(out, about)
    print(f'model: {out}  (dnm predict {out} "a sentence", or a file with --out predicted.csv)')


def interval(right: int, n: int) -> str:
    """A share with Wilson's 95% interval: ``85.0% (71.0% to 93.0%, of 40 sentences)``."""
    from scipy.stats import binomtest

    low, high = binomtest(right, n).proportion_ci(method="wilson")
    return f"{right / n:.1%} (95% interval {low:.0%} to {high:.0%}, of {n} sentences)"


def predict(model: str, texts: list[str], runs: str | None, out: Path | None, text: str, separator: str,
            sheet: str) -> None:
    """Print the class of each text with the probabilities of all; of a file, write the predictions to another."""
    from dnm.classify.estimator import DNMClassifier
    from dnm.runs.store import RunStore

    folder = RunStore.open(runs).find(model, ".model")
    if len(texts) > 1 and (files := [text for text in texts if os.path.exists(text)]):
        raise DnmError(f"{files[0]} is a file: name one file at a time, or sentences")
    file = texts[0] if len(texts) == 1 and (texts[0] == "-" or is_data_file(Path(texts[0]))) else None
    if file and file != "-" and not Path(file).is_file():
        raise DnmError(f"no such file: {file}")
    if not file and os.path.exists(texts[0]):
        raise DnmError(f"cannot read {texts[0]}: use one of {', '.join(FILE_SUFFIXES)}")
    if not file and out:
        raise DnmError("--out is for the predictions of a file: give one file instead of sentences")
    classifier = DNMClassifier.load(folder)
    if file:
        return _predict_file(classifier, folder, file, out, text, separator, sheet)
    kind = "probability" if classifier.temperature_ else "probability, not calibrated"
    for text, scores in zip(texts, classifier.predict_proba(texts), strict=True):
        ranked = sorted(zip(scores.tolist(), classifier.label_names, strict=True), reverse=True)
        print(f"{ranked[0][1]}\t{text}\t{kind}: " + ", ".join(f"{name} {score:.3f}" for score, name in ranked))


def _predict_file(classifier, folder: Path, file: str, out: Path | None, text: str, separator: str, sheet: str) -> None:
    from dnm.classify import saved, stream

    out = out or Path(("standard-input" if file == "-" else Path(file).name.split(".")[0]) + ".predicted.csv")
    with _bar("predicting") as show:
        def told(done: int, notes: list[str]) -> None:
            for note in notes:
                _to_stderr(f"{Path(file).name}: {note}")
            show(done, None)

        done = stream.predict_file(classifier, file, out, text, separator=separator, sheet=sheet,
                                   model=saved.digest(folder), on_rows=told)
    print(f"{out}: {done['rows']} rows" + f", {done['empty']} of them without a text" * bool(done["empty"]) +
          f", the first {done['before']} by an earlier call" * bool(done["before"]))
    if classifier.temperature_ is None:
        print("the probabilities are not calibrated: too few sentences were set aside when the model was trained")


def compare(file: str, out: Path, text: str, label: str, separator: str, sheet: str, strict: bool, folds: int,
            repeats: int, workers: int | None, methods: list[str] | None, **settings) -> None:
    """Which method suits one's own texts: repeated cross-validation, a table, a figure and a recommendation."""
    names, learn, held, column = read(file, text, label, separator=separator, sheet=sheet, strict=strict)
    from dnm.study import compare as study

    if held:
        _to_stderr(f"{len(held)} test sentences are left for `dnm fit`")
    with _bar("training") as show:
        fits = study.cross_validate(learn, names, methods or study.CANDIDATES, folds, repeats, out, workers=workers,
                                    on_fit=show, **settings)
    table, counts = study.summary(fits), np.bincount(learn.labels)
    classes = ", ".join(f"{n} {name}" for name, n in zip(names, counts, strict=True))
    about = (f"{Path(file).name}: {len(learn)} sentences of column {column!r}; classes: {classes}; always saying the "
             f"most frequent one would give {counts.max() / len(learn):.1%}")
    if left := {*(methods or study.CANDIDATES)} - {*fits.method}:
        about += f"; left out, as they need a pre-trained encoder: {', '.join(sorted(left))}"
    print(about, study.readable(table).to_string(index=False), study.recommendation(table), sep="\n\n")
    print(*study.write(fits, Path(file).name, about, out), sep="\n")


def _newest(run) -> str:
    row = run.history[-1] if run.history else {}
    return "".join(f", {name} {row[f'{name}_accuracy']:.1%}" for name in SPLITS if f"{name}_accuracy" in row)


@contextmanager
def _bar(what: str) -> Iterator:
    """A bar on standard error, told how much is done, of how much (None: not known), and what else to say."""
    from tqdm import tqdm

    with tqdm(desc=what, dynamic_ncols=True, mininterval=0.2 if sys.stderr.isatty() else 15, delay=0.5) as bar:
        def show(done: int, total: int | None, about: str = "") -> None:
            bar.total, bar.desc = total, what + about
            bar.update(done - bar.n)

        yield show
