"""Which method suits one's own texts: repeated cross-validation of each, and an honest recommendation.

Every candidate learns from and is tested on the same sentences. Taught in notebook 07.
"""

import hashlib
import html
import json
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold

from dnm import __version__
from dnm.classify.estimator import DNMClassifier
from dnm.config import SCRATCH, RunConfig
from dnm.data import hub
from dnm.data.files import same
from dnm.data.splits import Split
from dnm.disk import read_json, write_atomically, write_json
from dnm.errors import DnmError
from dnm.methods import METHODS, get_method
from dnm.plots import charts, page
from dnm.plots.look import number, numbers
from dnm.runs.progress import duration
from dnm.study.statistics import calibration_error, corrected

CANDIDATES = ("logreg", "plain", "label-embedding", "senmixup", "dnm")  # the cheapest and simplest first


def cross_validate(texts: Split, names: tuple[str, ...], methods=CANDIDATES, folds: int = 5, repeats: int = 2,
                   out: Path | None = None, *, workers: int | None = None,
                   on_fit: Callable[[int, int, str], None] = lambda *_: None, **settings) -> pd.DataFrame:
    """Accuracy and macro F1 (%), how sure and how right it was of each test sentence, and seconds: a row a fit.

    Folds keep the classes in proportion, and a sentence that occurs more than once on one side; each repeat draws them
    anew. ``settings`` are those of `dnm.DNMClassifier`. Fits are kept in ``out`` as they end, so that an interrupted
    comparison goes on there.

    Parameters
    ----------
    methods : rows of the table of methods, the simplest first; without logistic regression for ``cnn`` and ``lstm``.
    workers : processes, a thread each (default: one a core of a CPU; on a GPU one).
    on_fit : called with the fits done, their total, and what to say.

    Raises
    ------
    DnmError : more folds than there are different sentences, or sentences of a class; one class only in a fold.
    """
    encoder = str(settings.get("encoder", "minilm"))
    methods = [name for name in dict.fromkeys(get_method(name).name for name in methods)
               if METHODS[name].fine_tunes or encoder not in SCRATCH]
    groups = pd.factorize(np.array([same(text) for text in texts.texts]))[0]
    most = min(int(np.bincount(texts.labels).max()), int(groups.max()) + 1)
    if not 2 <= folds <= most:
        raise DnmError(f"{folds} folds of {len(texts)} sentences, {groups.max() + 1} of them different, at most {most} "
                       "of a class: " + (f"take 2 to {most} folds" if most > 1 else "too few to compare on"))
    identity = "" if encoder in SCRATCH else hub.identity(RunConfig.create(encoder=encoder).encoder)
    job = [texts.texts, texts.labels.tolist(), names, folds, settings, __version__, identity]
    job = hashlib.sha256(json.dumps(job, default=str).encode()).hexdigest()[:12]
    kept, file = {}, out and out / f"compare-{job}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = read_json(file) if file else {}
        kept = {(fit["method"], fit["repeat"], fit["fold"]): fit for fit in found["fits"]}
    with warnings.catch_warnings():  # of classes with fewer sentences than folds: it was said when they were read
        warnings.simplefilter("ignore")
        tasks = [(name, repeat, fold, *part) for repeat in range(repeats) for fold, part in enumerate(
            StratifiedGroupKFold(folds, shuffle=True, random_state=repeat).split(groups, texts.labels, groups))
            for name in methods]
    for *_, learn, _held in tasks:
        if len(left := set(texts.labels[learn])) < 2:
            raise DnmError(f"a fold leaves only class {names[left.pop()]!r} to learn from: the others have too few "
                           "sentences; give more, or take more folds")
    todo = [task for task in tasks if task[:3] not in kept]
    on_fit(len(tasks) - len(todo), len(tasks), "")
    workers, started = min(workers or default_workers(), max(1, len(todo))), time.perf_counter()
    with (joblib.parallel_config("loky", inner_max_num_threads=1) if workers > 1 else nullcontext(),
          warnings.catch_warnings()):
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
        fits = joblib.Parallel(workers, return_as="generator_unordered")(
            joblib.delayed(_fit)(texts, names, task, settings) for task in todo)
        for count, fit in enumerate(fits, start=1):
            kept[fit["method"], fit["repeat"], fit["fold"]] = fit
            if file:
                write_json(file, {"fits": [*kept.values()]})
            left = (time.perf_counter() - started) / count * (len(todo) - count)
            on_fit(len(tasks) - len(todo) + count, len(tasks), f" ({duration(left)} left)")
    return pd.DataFrame([kept[task[:3]] for task in sorted(tasks, key=lambda task: methods.index(task[0]))])


def default_workers() -> int:
    """Processes that share the fits."""
    return 1 if torch.cuda.is_available() else joblib.cpu_count(only_physical_cores=True)


def _fit(texts: Split, names: tuple[str, ...], task: tuple, settings: dict) -> dict:
    method, repeat, fold, learn, held = task
    learn, held, started = texts.take(learn), texts.take(held), time.perf_counter()
    seed = (settings.get("random_state") or 0) + repeat
    classifier = DNMClassifier(method=method, **settings | {"random_state": seed})
    with warnings.catch_warnings():  # of too few sentences to calibrate, in every fit; the table says so
        warnings.simplefilter("ignore")
        classifier.fit(learn.texts, [names[y] for y in learn.labels])
    seconds, truth = time.perf_counter() - started, np.array(names)[held.labels]
    shares = classifier.predict_proba(held.texts)
    found = classifier.classes_[shares.argmax(1)]
    return {"method": method, "title": METHODS[method].title, "repeat": repeat, "fold": fold, "n_train": len(learn),
            "n_test": len(held), "accuracy": 100 * float((found == truth).mean()),
            "f1": 100 * float(f1_score(truth, found, average="macro", zero_division=0)),
            "sure": shares.max(1).round(4).tolist(), "right": (found == truth).tolist(), "seconds": seconds,
            "steps": classifier.n_iter_, "calibrated": classifier.temperature_ is not None}


# ---------------------------------------------------------------- what came out

def summary(fits: pd.DataFrame) -> pd.DataFrame:
    """A row a method, the simplest first: means over the folds, and ``behind``, its difference to the best one."""
    order = [*fits.method.unique()]
    accuracy = fits.pivot(index=["repeat", "fold"], columns="method", values="accuracy")[order]
    best, share = accuracy.mean().idxmax(), (fits.n_test / fits.n_train).mean()
    return pd.DataFrame([{
        "method": name, "title": mine.title.iloc[0], "accuracy": mine.accuracy.mean(),
        "error": corrected(mine.accuracy, share).spread, "f1": mine.f1.mean(),
        "calibration_error": 100 * calibration_error(np.concatenate([*mine.sure]), np.concatenate([*mine.right])),
        "calibrated": mine.calibrated.mean(), "seconds": mine.seconds.mean(), "fits": len(mine),
        "behind": None if name == best else corrected(accuracy[name] - accuracy[best], share)}
        for name, mine in fits.groupby("method", sort=False)])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A `summary` with the columns and signs people read."""
    return pd.DataFrame({
        "method": table.title, "accuracy (%)": numbers(table.accuracy, table.error),
        "to the best": ["best" if gap is None else gap.text() for gap in table.behind],
        "macro F1 (%)": numbers(table.f1), "seconds": numbers(table.seconds),
        "calibration error (%)": [number(error) + "*" * (share < 1) for error, share in
                                  zip(table.calibration_error, table.calibrated, strict=True)]})


def recommendation(table: pd.DataFrame) -> str:
    """The simplest method within a standard error of the best, in a few sentences.

    After Breiman et al.'s (1984) rule, but with the corrected standard error of the paired difference. Simpler is what
    was named before.
    """
    best = table[[gap is None for gap in table.behind]].iloc[0]
    chosen = next(row for row in table.itertuples() if row.behind is None or row.behind.mean >= -row.behind.spread)
    simpler = ", ".join(f"{row.title} {row.behind.text()}" for row in table.itertuples() if row.Index < chosen.Index)
    behind = f" Simpler ones are more than a standard error behind: {simpler} points." if simpler else ""
    if chosen.behind is None:
        return f"Recommendation: {chosen.title}. It has the highest mean, {chosen.accuracy:.1f}%.{behind}"
    cost = f" and takes {duration(chosen.seconds)} a fit instead of {duration(best.seconds)}"
    return (f"Recommendation: {chosen.title}. {best.title} has the highest mean, {best.accuracy:.1f}%, but "
            f"{chosen.title} is within a standard error of it ({chosen.behind.text()} points over {table.fits.min()} "
            f"folds), and is simpler{cost if 2 * chosen.seconds < best.seconds else ''}.{behind}")


def write(fits: pd.DataFrame, name: str, about: str, out: Path) -> list[Path]:
    """Keep the table and the figure, ``compare.csv`` and ``compare.html``; ``about`` says what was compared."""
    table, figure = summary(fits), charts.folds(fits, name)
    out.mkdir(parents=True, exist_ok=True)
    fits.drop(columns=["sure", "right"]).round(3).to_csv(out / "compare.csv", index=False)
    note = (f"{table.fits.min()} fits of each, on a fold set aside. To the best: difference in points with its 95% "
            "interval, by the t test for repeated cross-validation (Nadeau and Bengio 2003), as folds share "
            "sentences; ± is the standard error so corrected. Macro F1 counts every class alike, however rare. "
            "Calibration error: how far probabilities are from how often they are right; *: with too few sentences to "
            "calibrate. Seconds: of one fit.")
    lead = (f"<p>{html.escape(about)}</p><p>{html.escape(recommendation(table))}</p>"
            f"{page.table_html(readable(table)).to_html()}<p>{note}</p>")
    content = page.page(f"Which method for {name}?", lead, {"figure": ("accuracy", page.figure_html(figure))})
    write_atomically(out / "compare.html", content.encode())
    return [out / "compare.csv", out / "compare.html"]
