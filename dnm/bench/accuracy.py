"""How good is the classifier for people's own few labels, beside others? Same sentences, encoder and threads for all.

A system gets m training sentences of each class, drawn anew for each split; what stops or calibrates it comes out of
these: `dnm.DNMClassifier` sets a fifth of them aside where that is enough. Nothing is tuned.

SetFit (Tunstall et al. 2022) is trained by its own library: one epoch over pairs of sentences, 16 a step, rate 2e-5,
then scikit-learn's logistic regression. ``setfit-r20`` draws 20 equal and 20 unequal pairs a sentence, as its paper
does; ``setfit`` has the library's default, all pairs, the rarer kind oversampled, or the same where these are more.
"""

import inspect
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from importlib import metadata, util
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from tqdm import tqdm

from dnm.bench.race import run_bench, run_methods
from dnm.classify.estimator import DNMClassifier
from dnm.config import RunConfig
from dnm.data import hub
from dnm.data.datasets import Dataset, limited, load_dataset
from dnm.data.splits import Split, stratified_order
from dnm.disk import read_json, write_json
from dnm.errors import DnmError, mendable, project_root, unknown
from dnm.methods import METHODS
from dnm.model import device_name
from dnm.plots.look import number, standard_error
from dnm.study.compare import default_workers
from dnm.study.statistics import by_seed, calibration_error, difference, holm, paired
from dnm.study.tables import markdown
from dnm.training import own_randomness

SETFIT = {"setfit": "SetFit", "setfit-r20": "SetFit, R = 20"}
TITLES = {name: row.title for name, row in METHODS.items()} | SETFIT
SYSTEMS = ("dnm", "label-embedding", "plain", "logreg", *SETFIT)
KEY = ("data", "fingerprint", "test", "encoder", "weights", "system", "labels", "split")
PIECES, R = 128, 20  # word pieces of a text; pairs of each kind a sentence
PACKAGES = ("dnm", "torch", "transformers", "scikit-learn", "setfit", "sentence-transformers")


def bench(what: str, **options) -> None:
    """``dnm bench``: the race, a step of every method, or `run_accuracy`, with the options that were given."""
    if what not in (known := {"speed": run_bench, "methods": run_methods, "accuracy": run_accuracy}):
        raise unknown("benchmark", what, known)
    if wrong := [name for name in options if name not in inspect.signature(known[what]).parameters]:
        raise DnmError(f"{wrong[0]} is no option of `dnm bench {what}` (see dnm bench --help)")
    known[what](**options)


def run_accuracy(datasets=("subj", "mr", "sst2", "sst1"), labels=(8, 16, 64), splits: int = 10, test: int = 500,
                 systems=SYSTEMS, encoder: str = "minilm", workers: int | None = None, out: Path | None = None) -> None:
    """Train each system on ``labels`` sentences of each class, ask it for ``test`` others (0: all), print the tables.

    Fits are kept in ``out`` as they end: the same command goes on where it stopped. A split of everything comes before
    the next. ``workers`` are processes, a thread each (default: one a core of a CPU; on a GPU one).
    """
    if wrong := [name for name in systems if name not in TITLES]:
        raise unknown("system", wrong[0], TITLES)
    if SETFIT.keys() & {*systems} and not util.find_spec("setfit"):
        print("SetFit is left out: `pip install --constraint constraints.txt setfit` brings it", file=sys.stderr)
        systems = [name for name in systems if name not in SETFIT]
    out, loaded = out or project_root() / "runs/bench-accuracy.json", {name: load_dataset(name) for name in datasets}
    for data in loaded.values():
        drawn(data, max(labels), 0)  # what is wrong is said before the first fit
    with mendable(f"{out} holds no fits of this benchmark ({{}}): name another --out, or move it away"):
        stored = read_json(out)["fits"] if out.exists() else []
        kept = {tuple(fit[name] for name in KEY): fit for fit in stored}
    weights = hub.identity(RunConfig.create(encoder=encoder).encoder)
    wanted = [(system, name,
               (data.name, data.fingerprint, test, encoder, weights, trained(system, count, data), count, split))
              for split in range(splits) for name, data in loaded.items() for count in labels for system in systems]
    todo, total = {key: name for _, name, key in wanted if key not in kept}, len({key for *_, key in wanted})
    workers = min(workers or default_workers(), max(1, len(todo)))
    bar = tqdm(desc="fits", total=total, initial=total - len(todo), smoothing=0, dynamic_ncols=True)
    with bar, joblib.parallel_config("loky", inner_max_num_threads=1) if workers > 1 else nullcontext():
        for fit in joblib.Parallel(workers, return_as="generator_unordered")(
                joblib.delayed(_fit)(key, name, workers) for key, name in todo.items()):
            kept[tuple(fit[name] for name in KEY)] = fit
            write_json(out, {"command": f"dnm {shlex.join(sys.argv[1:])}", "fits": [*kept.values()]}, indent=1)
            bar.update()
    print(told(pd.DataFrame([kept[key] | {"system": system} for system, _, key in wanted])), f"stored: {out}", sep="\n")


def drawn(data: Dataset, count: int, split: int) -> Split:
    """The training sentences of a split, ``count`` of each class; those of a smaller count are among them."""
    order = stratified_order(data.train.texts, data.train.labels, f"{data.salt or data.name} accuracy {split}")
    classes = [order[data.train.labels[order] == label] for label in range(len(data.label_names))]
    if (least := min(map(len, classes))) < count:
        raise DnmError(f"{data.name}: its rarest class has {least} training sentences, fewer than --labels {count}")
    return data.train.take(np.concatenate([members[:count] for members in classes]))


def trained(system: str, count: int, data: Dataset) -> str:
    """Whose fit a system has: of n sentences, m of each of c, SetFit's default draws max(m + 1, (c - 1)m) n pairs."""
    more = max(count + 1, (len(data.label_names) - 1) * count) > 2 * R
    return "setfit-r20" if system == "setfit" and more else system


def _fit(key: tuple, name: str, workers: int) -> dict:
    task, data = dict(zip(KEY, key, strict=True)), load_dataset(name)
    train, test = drawn(data, task["labels"], task["split"]), limited(data, "test", task["test"])
    learn = _setfit if task["system"] in SETFIT else _ours
    with warnings.catch_warnings():  # of too few sentences to calibrate, in every fit
        warnings.simplefilter("ignore")
        _warm(learn, task["encoder"])
        # Of the processor where a fit has one thread, so that other work beside it does not count.
        alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
        started = (clock := time.process_time if alone else time.perf_counter)()
        ask, steps, device, precision = learn(train, task["system"], task["encoder"], task["split"])
    seconds, (bare, calibrated) = clock() - started, ask(test.texts)
    off, calibrated_off = (None if found is None else 100 * calibration_error(
        found.max(1), found.argmax(1) == test.labels) for found in (bare, calibrated))
    return task | {
        "n_train": len(train), "n_test": len(test), "accuracy": 100 * float((bare.argmax(1) == test.labels).mean()),
        "f1": 100 * float(f1_score(test.labels, bare.argmax(1), average="macro", zero_division=0)),
        "calibration_error": off, "calibrated_error": calibrated_off, "seconds": seconds, "steps": steps,
        "device": device_name(device), "precision": precision,
        "threads": torch.get_num_threads(), "side_by_side": workers, "clock": "processor" if alone else "wall",
        "versions": {name: metadata.version(name) for name in PACKAGES[:None if learn is _setfit else 4]}}


@cache
def _warm(learn: Callable, encoder: str) -> None:
    """A fit of four sentences: what a process loads but once is no part of a fit's seconds."""
    learn(drawn(load_dataset("builtin"), 2, 0), "setfit" if learn is _setfit else "logreg", encoder, 0)


def _ours(train: Split, method: str, encoder: str, seed: int) -> tuple[Callable, int, torch.device, str]:
    """A function from sentences to probabilities ``[n, c]``, bare and calibrated or None; steps, device, precision."""
    model = DNMClassifier(method, encoder, random_state=seed, max_length=PIECES).fit(train.texts, train.labels)
    inside, device = model.model_.encoder, next(model.model_.parameters()).device
    return (lambda texts: (softmax(model.scores(texts).astype(float), axis=1),
                           model.predict_proba(texts) if model.temperature_ else None), model.n_iter_, device,
            "bfloat16" if inside.compute_dtype and inside.takes_bfloat16 else "float32")


def _setfit(train: Split, system: str, encoder: str, seed: int) -> tuple[Callable, int, torch.device, str]:
    """The same of SetFit, by its library; its probabilities are its own, nothing calibrates them."""
    import datasets
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments, logging
    from transformers import PrinterCallback, ProgressCallback
    from transformers.utils.logging import disable_progress_bar

    logging.set_verbosity_error()
    disable_progress_bar()
    datasets.disable_progress_bars()
    body = SentenceTransformer(str(hub.model_folder(encoder)))  # a bare encoder gets mean pooling there
    body.max_seq_length, model = PIECES, SetFitModel(body, LogisticRegression())
    pairs = {"num_iterations": R} if system == "setfit-r20" else {}
    with tempfile.TemporaryDirectory() as folder, own_randomness():
        quiet = dict(report_to="none", save_strategy="no", show_progress_bar=False)
        table = datasets.Dataset.from_dict({"text": train.texts, "label": train.labels.tolist()})
        trainer = Trainer(model, TrainingArguments(folder, seed=seed, **quiet, **pairs), table)
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.train()
    return (lambda texts: (model.predict_proba(texts, as_numpy=True), None), trainer.st_trainer.state.global_step,
            body.device, "float32")


def table(fits: pd.DataFrame, column: str) -> pd.DataFrame:
    """Means ± standard errors over splits: a row a system, a column a data set and number of labels a class."""
    return pd.DataFrame({"system": TITLES[name]} | {
        f"{data} {count}": number(one[column].mean(), standard_error(one[column].dropna()))
        for (data, count), one in mine.groupby(["data", "labels"], sort=False)}
        for name, mine in fits.groupby("system", sort=False))


def verdict(fits: pd.DataFrame) -> str:
    """Who is best with one number of labels, on one data set or over several, and who is measurably behind."""
    accuracy = by_seed(fits, "system", rows=("data", "split")).dropna()
    means = accuracy.groupby(level=0).mean().mean().sort_values(ascending=False, kind="stable")
    best, *others = means.index
    gaps = [difference([gap for _, gap in paired(accuracy, (1, name), (-1, best)).groupby(level=0)]) for name in others]
    found = [(f"{TITLES[name]} {gap.text()}", p < 0.05) for name, gap, p in
             zip(others, gaps, holm(gap.p for gap in gaps), strict=True)]
    behind, level = (", ".join(text for text, sure in found if sure == told) or "none" for told in (True, False))
    return (f"- {', '.join(accuracy.index.unique(0))}, {fits.labels.iloc[0]}: {TITLES[best]} has the highest mean, "
            f"{means[best]:.1f}%; behind: {behind}; {len(accuracy)} pairs cannot tell it from: {level}")


def told(fits: pd.DataFrame) -> str:
    """All tables, and who is best where, as Markdown."""
    shown = {"accuracy": "Accuracy (%)", "f1": "Macro F1 (%)", "seconds": "Seconds of training, loading included",
             "calibration_error": "Expected calibration error (%), softmax of the bare scores",
             "calibrated_error": "Expected calibration error (%), with the temperature, where enough were set aside"}
    if (own := fits.get("clock", fits.system) == "processor").any():  # the wall's, of fits from before, had other work
        fits = fits.assign(seconds=fits.seconds.where(own))
        counts = sorted({*fits[own].groupby("system").split.nunique()})
        shown["seconds"] += f", of the processor, over {' to '.join(map(str, counts))} splits"
    fits = fits.astype({"calibrated_error": float})
    return "\n".join([
        f"Data set and training sentences of each class; {fits.split.nunique()} splits; {fits.n_test.max()} test "
        f"sentences; {', '.join(fits.device.unique())}. ±: standard error over splits.\n",
        *(f"## {heading}\n\n{markdown(table(fits, column))}" for column, heading in shown.items()),
        "## Who is best\n\nBrackets: 95% bootstrap intervals of the difference in points, paired by split; behind: "
        "p < 0.05 by the sign-flip test, with Holm's correction within a line.\n",
        *(verdict(mine) for by in ["labels"] * (fits.data.nunique() > 1) + [["data", "labels"]]
          for _, mine in fits.groupby(by, sort=False)), ""])
