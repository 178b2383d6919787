"""A store with many runs, a sweep of many small ones, and how far predictions move when nothing should move them.

    python tests/load.py --out data/report/load.md     # some ten minutes on two cores, with nothing else on them

With ``--other PYTHON``, the interpreter of an environment with other versions (such as the lowest that pyproject.toml
admits), runs are trained under both, and what differs is told.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import psutil

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from dnm import batches
from dnm.classify.estimator import DNMClassifier
from dnm.config import RunConfig
from dnm.data.datasets import load_dataset
from dnm.disk import read_json, write_json
from dnm.runs.plan import plan
from dnm.runs.results import load
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.study.tables import write_figures, write_tables
from dnm.training import fit

SMALL = dict(encoder="cnn", steps=20, batch_size=12, eval_every=10, eval_limit=100, n_train=24, precision="float32")
METHODS = ("plain", "senmixup", "dnm", "label-embedding")


def runs(count: int) -> list[RunConfig]:
    return [RunConfig.create("smoke", method=method, seed=seed, **SMALL) for seed in range(count // 4) for method in METHODS]


def seconds(work: Callable) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def silent(*_) -> None:
    """Told how far runs are."""


def store(folder: Path, counts: list[int]) -> list[dict]:
    """A store of so many finished runs: how long it takes to find them all finished, to plan, to read, to report."""
    rows, record = [], fit(runs(4)[0])[0]
    for count in counts:
        configs, place = runs(count), RunStore(folder / str(count))
        for config in configs:
            place.put(config, record | {"hash": config.hash, "config": config.to_dict(), "title": config.title})
        frame = load(place.folder)
        rows.append({"runs": count, "resume": seconds(lambda c=configs, p=place: run_all(c, p, workers=1, on_status=silent)),
                     "dry run": seconds(lambda c=configs, p=place: plan(c, p)), "read": seconds(lambda p=place: load(p.folder)),
                     "tables": seconds(lambda f=frame: write_tables(f, folder / "report")),
                     "figures": seconds(lambda f=frame: write_figures(f, folder / "report"))})
        print(rows[-1], flush=True)
    return rows


def sweep(folder: Path, count: int) -> dict:
    """Small runs through two workers, beside the same in two bare processes, and one after the other in one, halved."""
    configs = runs(count)
    fit(configs[0])
    alone = seconds(lambda: [fit(config) for config in configs[:100]]) / 100
    taken = seconds(lambda: run_all(configs, RunStore(folder / "two"), workers=2, on_status=silent))
    halves = [joblib.delayed(lambda part: [None for config in part if fit(config)])(configs[i::2]) for i in range(2)]
    bare = seconds(lambda: joblib.Parallel(2)(halves))
    found = {"runs": count, "alone, seconds a run": alone, "two workers, seconds": taken, "two bare processes, seconds": bare,
             "more than bare": taken / bare - 1, "more than half of all alone": taken / (alone * count / 2) - 1}
    print(found, flush=True)
    return found


def memory(folder: Path, count: int) -> list[float]:
    """Megabytes of a process after every fifth of so many runs; at first after one run."""
    configs, me = runs(count), psutil.Process()
    fit(configs[0])
    held = [me.memory_info().rss / 1e6]
    for start in range(0, count, count // 5):
        run_all(configs[start:start + count // 5], RunStore(folder / "one"), workers=1, on_status=silent)
        held.append(me.memory_info().rss / 1e6)
    print(held, flush=True)
    return held


def predictions(count: int = 500) -> list[dict]:
    """Largest difference of a probability, and how many predictions change, for the same model and sentences."""
    data, rows, usual, threads = load_dataset("builtin"), [], batches.EVALUATION_TOKENS, torch.get_num_threads()
    texts, held = data.train.texts[:60], data.test.texts[:count]
    model = DNMClassifier(steps=20, random_state=0).fit(texts, [data.label_names[y] for y in data.train.labels[:60]])
    order = np.random.default_rng(0).permutation(count)

    def asked(tokens: int = usual, cores: int = threads) -> np.ndarray:
        batches.EVALUATION_TOKENS = tokens
        torch.set_num_threads(cores)
        try:
            return model.predict_proba(held)
        finally:
            batches.EVALUATION_TOKENS = usual
            torch.set_num_threads(threads)

    back = np.argsort(order)
    ways = {"asked again": asked, "two threads instead of one": lambda: asked(cores=2), "256 word pieces at once": lambda: asked(256),
            "16,384 at once": lambda: asked(16384), "in another order": lambda: model.predict_proba([held[i] for i in order])[back],
            "one at a time": lambda: np.concatenate([model.predict_proba([text]) for text in held])}
    for precision in ("automatic", "float32"):
        if precision == "float32":
            model.model_.encoder.compute_dtype = None
        first = asked()
        for name, way in ways.items():
            now = way()
            rows.append({"precision": precision if precision == "float32" or model.model_.encoder.compute_dtype else "float32 (automatic)",
                         "change": name, "difference": float(abs(now - first).max()), "other predictions": int((now.argmax(1) != first.argmax(1)).sum())})
            print(rows[-1], flush=True)
    return rows


TRAINED = """
import json, sys, warnings
from importlib.metadata import version
warnings.simplefilter("ignore")
from dnm.config import RunConfig
from dnm.training import fit
record = fit(RunConfig.create("quick", dataset="builtin", steps=50, eval_every=25, **json.loads(sys.argv[1])))[0]
found = {name: record[name] for name in ("history", "test_predictions", "hash")}
print(json.dumps(found | {"versions": {name: version(name) for name in ("torch", "transformers", "numpy", "scikit-learn")}}))
"""


def versions(other: str) -> dict:
    """The same runs under this environment and another: largest differences of losses, accuracies; other predictions."""
    rows, named = [], {}
    for settings in [dict(encoder=encoder, precision=precision, method=method) for encoder, precision in
                     (("minilm", "float32"), ("minilm", "bfloat16"), ("cnn", "float32")) for method in ("plain", "dnm")]:
        here, there = (json.loads(subprocess.run([python, "-c", TRAINED, json.dumps(settings)], check=True, text=True, capture_output=True,
                                                 cwd=Path(__file__).parents[1]).stdout) for python in (sys.executable, other))
        assert here["hash"] == there["hash"] and here["versions"] != there["versions"]
        named = {"here": here["versions"], "there": there["versions"]}
        both = list(zip(here["history"], there["history"], strict=True))
        moved = {name: max(abs(one[name] - two[name]) for one, two in both) for name in ("train_loss", "validation_loss", "test_accuracy")}
        rows.append({**settings, "training loss": moved["train_loss"], "validation loss": moved["validation_loss"], "test accuracy, points": 100 * moved["test_accuracy"], "other predictions": sum(
            one != two for one, two in zip(here["test_predictions"], there["test_predictions"], strict=True)), "of": len(here["test_predictions"])})
        print(rows[-1], flush=True)
    return {**named, "rows": rows}


def table(rows: list[dict]) -> list[str]:
    def told(value) -> str:
        return f"{value:.1e}" if isinstance(value, float) and abs(value) < 0.01 and value else f"{value:,.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0]), *("| " + " | ".join(map(told, row.values())) + " |" for row in rows), ""]


def page(found: dict) -> str:
    """What was measured, as Markdown."""
    parts = ["# Many runs, and predictions that should not move", "", f"`{found['command']}`, {found['machine']}.", ""]
    if "store" in found:
        parts += ["Seconds for a store of finished runs (a small CNN's, 100 test sentences each): to find them all finished, to plan, to read "
                  "them, to write tables and figures.", "", *table(found["store"])]
    if swept := found.get("sweep"):
        parts += [f"A sweep of {swept['runs']} such runs of {1000 * swept['alone, seconds a run']:.0f} ms through two workers takes "
                  f"{swept['two workers, seconds']:.0f} s: {swept['more than bare']:+.0%} to two bare processes that train half of them each, "
                  f"{swept['more than half of all alone']:+.0%} to half the time that they take one after the other.", ""]
    if held := found.get("memory"):
        parts += [f"A process that trains them holds {held[0]:.0f} MB after the first run, then "
                  f"{', '.join(f'{value:.0f}' for value in held[1:])} MB after each fifth.", ""]
    if "predictions" in found:
        parts += ["The same model (MiniLM, DNM) and 500 sentences: the largest difference of a probability, and how many predictions are others.",
                  "", *table(found["predictions"])]
    if compared := found.get("versions"):
        told = [", ".join(f"{name} {version}" for name, version in compared[place].items()) for place in ("here", "there")]
        parts += [f"The same runs (50 steps, built-in notes) under two sets of versions, {told[0]}, and {told[1]} (`--other`, the lowest that "
                  "pyproject.toml admits): the largest differences, and how many predictions are others.", "", *table(compared["rows"])]
    return "\n".join(parts)


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    wanted.add_argument("--counts", type=int, nargs="+", default=[2000, 20000], help="runs in a store")
    wanted.add_argument("--sweep", type=int, default=500, help="runs of a sweep")
    wanted.add_argument("--only", nargs="+", default=["predictions", "store", "memory", "sweep"], help="default: all but versions")
    wanted.add_argument("--other", help="the Python of an environment with other versions, for the part `versions`")
    wanted.add_argument("--out", type=Path, help="a page (.md); the figures go beside it as .json, and stay there for what is not measured anew")
    options = wanted.parse_args()
    os.environ["BROWSER_PATH"] = "/bin/false"  # nobody looks at the pictures
    warnings.simplefilter("ignore")
    cpu = next((line.split(": ")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "a CPU")
    kept = options.out.with_suffix(".json") if options.out else Path()
    found = (read_json(kept) if kept.is_file() else {}) | {
        "command": f"python tests/load.py --counts {' '.join(map(str, options.counts))} --sweep {options.sweep}", "machine": f"{os.cpu_count()} cores of an {cpu}"}
    for part in [*options.only, *(["versions"] if options.other else [])]:
        with tempfile.TemporaryDirectory() as place:
            found[part] = {"predictions": lambda folder: predictions(), "store": lambda folder: store(folder, options.counts),
                           "memory": lambda folder: memory(folder, options.sweep), "sweep": lambda folder: sweep(folder, options.sweep),
                           "versions": lambda folder: versions(options.other)}[part](Path(place))
    print(page(found))
    if options.out:
        options.out.write_text(page(found), encoding="utf-8")
        write_json(kept, found, indent=1)


if __name__ == "__main__":
    main()
