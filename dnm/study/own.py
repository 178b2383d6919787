"""What ``dnm fit``, ``dnm predict`` and ``dnm compare`` do: a classifier for one's own labelled texts."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dnm.config import is_data_file
from dnm.data.files import SPLITS, read_splits, read_table, same
from dnm.data.splits import Split, split_pooled
from dnm.errors import DnmError

LEAST = 10  # test sentences that are worth a score


def read(file: str, text: str = "", label: str = "", **options) -> tuple[tuple[str, ...], Split, Split]:
    """The classes, the sentences to learn from and those to test on, of a file (all to learn from) or a folder.

    ``options`` are those of `dnm.data.files.read_table`; what was found in the file is said on standard error.
    """
    tables = (read_splits(Path(file), text, label) if Path(file).is_dir() else
              {"all": read_table(file, text, label, **options)})
    for table in tables.values():
        for note in table.notes:
            print(f"{table.file}: {note}", file=sys.stderr)
    names, numbers = np.unique([name for table in tables.values() for name in table.labels], return_inverse=True)
    parts, at = {}, 0
    for name, table in tables.items():
        parts[name], at = Split(table.texts, numbers[at:at + len(table.texts)]), at + len(table.texts)
    test = parts.pop("test", Split([], np.array([], int)))
    labels = np.concatenate([part.labels for part in parts.values()])
    if twice := len({*map(same, test.texts)} & {same(text) for part in parts.values() for text in part.texts}):
        print(f"{file}: {twice} test sentences are also among those to learn from", file=sys.stderr)
    return tuple(map(str, names)), Split([text for part in parts.values() for text in part.texts], labels), test


def fit(file: str, out: Path, text: str, label: str, separator: str, sheet: str, strict: bool, test: float,
        **settings) -> None:
    """Train a classifier on a table of texts and labels, score it on sentences set aside, and keep it."""
    names, learn, held = read(file, text, label, separator=separator, sheet=sheet, strict=strict)
    from sklearn.metrics import classification_report

    from dnm.classify.estimator import DNMClassifier

    if not held and (size := round(test * len(learn))) >= LEAST:
        learn, held, _ = split_pooled(learn, (len(learn) - size, size, 0), "texts test")
    classifier = DNMClassifier(**settings)
    with _bar("training") as show:
        classifier.fit(learn.texts, [names[y] for y in learn.labels],
                       on_progress=lambda run: show(run.step, run.config.steps, _newest(run)))
    print(f"{len(learn)} sentences to learn from{_parts(classifier.counts_)}, {len(held)} to test; classes: "
          f"{', '.join(names)}")
    about = {"Data": Path(file).name if file != "-" else "standard input"}
    if held:
        truth, found = [names[y] for y in held.labels], classifier.predict(held.texts)
        about["Test accuracy"] = score = interval(int((found == truth).sum()), len(truth))
        print(f"test accuracy {score}; always saying the most frequent class would give "
              f"{np.bincount(held.labels).max() / len(held):.1%}")
        print(classification_report(truth, found, zero_division=0, digits=2))
    else:
        print(f"no test: it would have fewer than {LEAST} sentences; `dnm compare` scores by cross-validation")
    classifier.save(out, about)
    print(f'model: {out}  (dnm predict {out} "a sentence", or a file with --out predicted.csv)')


def interval(right: int, n: int) -> str:
    """A share with Wilson's 95% interval: ``85.0% (71.0% to 93.0%, of 40 sentences)``."""
    from scipy.stats import binomtest

    low, high = binomtest(right, n).proportion_ci(method="wilson")
    return f"{right / n:.1%} (95% interval {low:.0%} to {high:.0%}, of {n} sentences)"


def predict(model: str, texts: list[str], runs: str | None, out: Path | None, text: str, separator: str,
            sheet: str) -> None:
    """Print the class of each text with its probability or score; of a file, write the predictions to another."""
    from dnm.classify.estimator import DNMClassifier
    from dnm.runs.store import RunStore

    folder = RunStore.open(runs).find(model, ".model")
    file = texts[0] if len(texts) == 1 and (texts[0] == "-" or is_data_file(Path(texts[0]))) else None
    if file and file != "-" and not Path(file).is_file():
        raise DnmError(f"no such file: {file}")
    if not file and out:
        raise DnmError("--out is for the predictions of a file: give one file instead of sentences")
    classifier = DNMClassifier.load(folder)
    if file:
        return _predict_file(classifier, folder, file, out, text, separator, sheet)
    kind = ("probability" if classifier.temperature_ else "cosine" if classifier.config_.row.embeds_labels else "logit")
    values = classifier.predict_proba(texts) if classifier.temperature_ else classifier.scores(texts)
    for text, scores in zip(texts, values, strict=True):
        ranked = sorted(zip(scores.tolist(), classifier.label_names, strict=True), reverse=True)
        print(f"{ranked[0][1]}\t{text}\t{kind}: " + ", ".join(f"{name} {score:.3f}" for score, name in ranked))


def _predict_file(classifier, folder: Path, file: str, out: Path | None, text: str, separator: str, sheet: str) -> None:
    from dnm.classify import saved, stream

    stem = "standard-input" if file == "-" else Path(file).name.split(".")[0]
    out = out or Path(f"{stem}.predicted.csv")
    with _bar("predicting") as show:
        def told(done: int, notes: list[str]) -> None:
            for note in notes:
                print(f"{Path(file).name}: {note}", file=sys.stderr)
            show(done, None, f"{done} rows")

        done = stream.predict_file(classifier, file, out, text, separator=separator, sheet=sheet,
                                   model=saved.digest(folder), on_rows=told)
    print(f"{out}: {done['rows']} rows" + f", {done['empty']} of them without a text" * bool(done["empty"]) +
          f", the first {done['before']} by an earlier call" * bool(done["before"]))
    if classifier.temperature_ is None:
        print("the probabilities are not calibrated: too few sentences were set aside when the model was trained")


def compare(file: str, out: Path, text: str, label: str, separator: str, sheet: str, strict: bool, folds: int,
            repeats: int, workers: int | None, methods: list[str], **settings) -> None:
    """Which method suits one's own texts: repeated cross-validation, a table, a figure and a recommendation."""
    names, learn, held = read(file, text, label, separator=separator, sheet=sheet, strict=strict)
    from dnm.study import compare as study

    if held:
        print(f"{len(held)} test sentences are left for `dnm fit`", file=sys.stderr)
    with _bar("training") as show:
        fits = study.cross_validate(learn, names, methods, folds, repeats, out, workers=workers, on_fit=show,
                                    **settings)
    table = study.summary(fits)
    print(study.readable(table).to_string(index=False), study.recommendation(table), sep="\n\n")
    print(*study.write(fits, Path(file).name, out), sep="\n")


def _parts(counts: dict[str, int]) -> str:
    return f" ({counts['validation']} of them choose when to stop)" if counts.get(SPLITS[1]) else ""


def _newest(run) -> str:
    row = run.history[-1] if run.history else {}
    return "".join(f", {name} {row[f'{name}_accuracy']:.1%}" for name in SPLITS if f"{name}_accuracy" in row)


@contextmanager
def _bar(what: str) -> Iterator:
    """A bar on standard error, told how much is done, of how much (None: not known), and what else to say."""
    from tqdm import tqdm

    with tqdm(desc=what, dynamic_ncols=True, mininterval=0.2 if sys.stderr.isatty() else 15) as bar:
        def show(done: int, total: int | None, about: str = "") -> None:
            bar.total, bar.desc = total, what + about
            bar.update(done - bar.n)

        yield show
