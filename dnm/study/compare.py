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

from dnm.classify.estimator import DNMClassifier
from dnm.data.files import same
from dnm.data.splits import Split
from dnm.disk import write_atomically
from dnm.errors import DnmError
from dnm.methods import METHODS, get_method
from dnm.plots import charts, page
from dnm.plots.look import numbers
from dnm.runs.progress import duration
from dnm.study.statistics import calibration_error, corrected

CANDIDATES = ("logreg", "plain", "label-embedding", "senmixup", "dnm")  # the cheapest and simplest first


def cross_validate(texts: Split, names: tuple[str, ...], methods=CANDIDATES, folds: int = 5, repeats: int = 2,
                   out: Path | None = None, *, workers: int | None = None,
                   on_fit: Callable[[int, int, str], None] = lambda *_: None, **settings) -> pd.DataFrame:
    """Accuracy, macro F1 and expected calibration error (%) and seconds of each method, a row a fit.

    Folds keep the classes in proportion, and a sentence that occurs more than once on one side; each repeat draws them
    anew. ``settings`` are those of `dnm.DNMClassifier`. Fits are kept in ``out``/compare.json as they end, so an
    interrupted comparison goes on there.

    Parameters
    ----------
    workers : processes, a thread each (default: one a core of a CPU; on a GPU one).
    on_fit : called with the fits done, their total, and what to say.
    """
    methods, most = [get_method(name).name for name in methods], int(np.bincount(texts.labels).max())
    if not 2 <= folds <= most:
        raise DnmError(f"folds={folds}: take 2 to {most}, the number of sentences of the largest class")
    job = json.dumps([texts.texts, texts.labels.tolist(), names, folds, settings], default=str)
    kept, file = {}, out and out / "compare.json"
    job = hashlib.sha256(job.encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text(encoding="utf-8")) if file else {}
        kept = {(fit["method"], fit["repeat"], fit["fold"]): fit for fit in found["fits"] if found["job"] == job}
    tasks = [(name, repeat, fold, *part) for repeat in range(repeats)
             for fold, part in enumerate(_folds(texts, folds, repeat)) for name in methods]
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
                write_atomically(file, json.dumps({"job": job, "fits": [*kept.values()]}).encode())
            left = (time.perf_counter() - started) / count * (len(todo) - count)
            on_fit(len(tasks) - len(todo) + count, len(tasks), f" ({duration(left)} left)")
    return pd.DataFrame([kept[task[:3]] for task in sorted(tasks, key=lambda task: methods.index(task[0]))])


def _folds(texts: Split, folds: int, repeat: int) -> list[tuple[np.ndarray, np.ndarray]]:
    groups = pd.factorize(np.array([same(text) for text in texts.texts]))[0]
    with warnings.catch_warnings():  # of classes with fewer sentences than folds: it was said when they were read
        warnings.simplefilter("ignore")
        return [*StratifiedGroupKFold(folds, shuffle=True, random_state=repeat).split(groups, texts.labels, groups)]


def default_workers() -> int:
    """Processes that share the fits."""
    return 1 if torch.cuda.is_available() else joblib.cpu_count(only_physical_cores=True)


def _fit(texts: Split, names: tuple[str, ...], task: tuple, settings: dict) -> dict:
    method, repeat, fold, learn, held = task
    learn, held, started = texts.take(learn), texts.take(held), time.perf_counter()
    classifier = DNMClassifier(method=method, **{"random_state": repeat} | settings)
    with warnings.catch_warnings():  # of too few sentences to calibrate, in every fit
        warnings.simplefilter("ignore")
        classifier.fit(learn.texts, learn.labels)
    seconds, shares = time.perf_counter() - started, np.zeros((len(held), len(names)))
    shares[:, classifier.classes_] = classifier.predict_proba(held.texts)
    found = shares.argmax(1)
    return {"method": method, "title": METHODS[method].title, "repeat": repeat, "fold": fold, "n_train": len(learn),
            "n_test": len(held), "accuracy": 100 * float((found == held.labels).mean()),
            "f1": 100 * float(f1_score(held.labels, found, average="macro", zero_division=0)),
            "calibration_error": 100 * calibration_error(shares, held.labels), "seconds": seconds,
            "steps": classifier.n_iter_, "calibrated": classifier.temperature_ is not None}


# ---------------------------------------------------------------- what came out

def summary(fits: pd.DataFrame) -> pd.DataFrame:
    """A row a method, the simplest first: means over the folds, and ``behind``, its difference to the best one."""
    accuracy = fits.pivot(index=["repeat", "fold"], columns="method", values="accuracy")
    best, share = accuracy.mean().idxmax(), (fits.n_test / fits.n_train).mean()
    return pd.DataFrame([{
        "method": name, "title": mine.title.iloc[0], "accuracy": mine.accuracy.mean(),
        "error": corrected(mine.accuracy, share).spread, "f1": mine.f1.mean(),
        "calibration_error": mine.calibration_error.mean(), "seconds": mine.seconds.mean(), "fits": len(mine),
        "behind": None if name == best else corrected(accuracy[name] - accuracy[best], share)}
        for name, mine in fits.groupby("method", sort=False)])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A `summary` with the columns and signs people read."""
    return pd.DataFrame({
        "method": table.title, "accuracy (%)": numbers(table.accuracy, table.error),
        "to the best": ["best" if gap is None else gap.text() for gap in table.behind],
        "macro F1 (%)": numbers(table.f1), "calibration error (%)": numbers(table.calibration_error),
        "seconds a fit": numbers(table.seconds), "fits": table.fits})


def recommendation(table: pd.DataFrame) -> str:
    """The simplest method within a standard error of the best (Breiman et al. 1984), in a few sentences."""
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


def write(fits: pd.DataFrame, name: str, out: Path) -> list[Path]:
    """Keep the table and the figure: ``compare.csv``, ``compare.html``."""
    table, figure = summary(fits), charts.folds(fits, name)
    out.mkdir(parents=True, exist_ok=True)
    fits.round(3).to_csv(out / "compare.csv", index=False)
    note = ("Brackets: 95% intervals of the difference, by the t test for repeated cross-validation whose variance is "
            "corrected for folds that share sentences (Nadeau and Bengio 2003). ± : the standard error so corrected.")
    lead = f"<p>{html.escape(recommendation(table))}</p>{page.table_html(readable(table)).to_html()}<p>{note}</p>"
    content = page.page(f"Which method for {name}?", lead, {"figure": ("accuracy", page.figure_html(figure))})
    write_atomically(out / "compare.html", content.encode())
    return [out / "compare.csv", out / "compare.html"]
