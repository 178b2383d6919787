"""What ``dnm train``, ``dnm report`` and ``dnm list`` do."""

import sys
from pathlib import Path

from dnm.config import DATASETS, ENCODER_SETTINGS, PROFILES
from dnm.methods import METHODS
from dnm.runs.plan import grid, tell
from dnm.runs.store import RunStore


def train(methods, seeds, profile, runs, save_models, results, dry_run, workers, fleet, **settings) -> None:
    """Train a grid of runs and print its table, or, dry, say what that would take."""
    configs, store = grid(methods, seeds, profile, **settings), RunStore.open(runs)
    if dry_run:
        return tell(configs, store, workers)
    print(f"{len(configs)} runs; loading …", file=sys.stderr)
    from dnm.runs.progress import in_terminal  # only now: what is wrong with the settings is said at once
    from dnm.runs.results import frame, keep
    from dnm.runs.scheduler import run_all
    from dnm.study import tables

    with in_terminal() as show:
        records = run_all(configs, store, workers=workers, fleet=fleet, save_models=save_models, on_status=show)
    table = tables.summary(frame(records))
    print(tables.caption(table), tables.readable(table).to_string(index=False), f"runs: {store.folder}", sep="\n")
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


def show_list() -> None:
    """Print what there is to choose from."""
    print("methods:")
    for row in METHODS.values():
        print(f"  {row.name:20} {row.title} ({row.source})")
    print("  DSS, LDS, SDS: distance-based selection; largest, smallest distance samples\n"
          "  TIW, FIW, TOW, FOW: input and output (label) mixing weights tuned or fixed at their first draw")
    print("data sets:\n  " + ", ".join(DATASETS) + ", or a CSV, TSV, Excel, JSON or Parquet file, or a folder of them")
    print("encoders:\n  " + ", ".join(ENCODER_SETTINGS) + ", the id of any encoder on the Hub, or a local folder")
    print("profiles:")
    for name, values in PROFILES.items():
        print(f"  {name:6} " + ", ".join(f"{key}={value}" for key, value in values.items()))
