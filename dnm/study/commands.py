"""What ``dnm train``, ``dnm report``, ``dnm predict`` and ``dnm list`` do."""

from pathlib import Path

from dnm.config import DATASETS, ENCODER_SETTINGS, PROFILES
from dnm.methods import METHODS
from dnm.runs.plan import grid
from dnm.runs.store import RunStore


def train(methods, seeds, profile, runs, save_models, results, workers, fleet, **settings) -> None:
    """Train a grid of runs and print its table."""
    configs, store = grid(methods, seeds, profile, **settings), RunStore.open(runs)
    from dnm.runs.progress import in_terminal  # only now: what is wrong with the settings is said at once
    from dnm.runs.results import frame, keep
    from dnm.runs.scheduler import run_all
    from dnm.study import tables

    with in_terminal() as show:
        records = run_all(configs, store, workers=workers, fleet=fleet, save_models=save_models, on_status=show)
    table = tables.summary(frame(records))
    print(tables.caption(table), tables.readable(table).to_string(index=False), sep="\n")
    print(f"runs: {store.folder}")
    if save_models:
        ranked = frame(records).sort_values("validation", ascending=False, kind="stable")
        print("models, the best on validation sentences first:", *(
            f"{store.folder / run.hash}.model  {run.method}, seed {run.seed}: validation {run.validation:.1f}%"
            for run in ranked.itertuples()), sep="\n  ")
    if results:
        print(keep(records, results))


def report(runs: str, out: Path) -> None:
    """Write tables and figures of stored runs."""
    from dnm.runs.results import load
    from dnm.study import tables

    found = load(RunStore.open().find(runs, ".json"))
    print(*tables.write_tables(found, out), *tables.write_figures(found, out), sep="\n")


def predict(model: str, texts: list[str], runs: str | None) -> None:
    """Print the class and the scores of each text."""
    from dnm.classifier import Classifier

    classifier = Classifier.load(RunStore.open(runs).find(model, ".model"))
    kind = "cosine" if classifier.config.row.embeds_labels else "logit"
    for text, scores in zip(texts, classifier.scores(texts), strict=True):
        ranked = sorted(zip(scores.tolist(), classifier.label_names, strict=True), reverse=True)
        print(f"{ranked[0][1]}\t{text}\t{kind}: " + ", ".join(f"{name} {score:.3f}" for score, name in ranked))


def show_list() -> None:
    """Print what there is to choose from."""
    print("methods:")
    for row in METHODS.values():
        print(f"  {row.name:16} {row.title} ({row.source})")
    print("  DSS, LDS, SDS: distance-based selection; largest, smallest distance samples\n"
          "  TIW, FIW, TOW, FOW: input and output (label) mixing weights tuned or fixed at their first draw")
    print("data sets:\n  " + ", ".join(DATASETS) + ", or a CSV, TSV, Excel, JSON or Parquet file, or a folder of them")
    print("encoders:\n  " + ", ".join(ENCODER_SETTINGS) + ", any BERT-family id of the Hub, or a local folder")
    print("profiles:")
    for name, values in PROFILES.items():
        print(f"  {name:6} " + ", ".join(f"{key}={value}" for key, value in values.items()))
