"""What a sweep will do and how long it will take, by measured times."""

import time
from pathlib import Path
from statistics import median

import joblib

from dnm.config import RunConfig
from dnm.data import load_dataset
from dnm.methods import get_method
from dnm.runs import clock, stored
from dnm.store import RunStore


def name(config: RunConfig) -> str:
    """A run as a person would call it."""
    return f"{Path(config.dataset).stem}, n = {config.n_train}, {config.encoder}, {config.method}, seed {config.seed}"


def default_jobs() -> int:
    """A process for each GPU, or for each core where there is none."""
    import torch

    return torch.cuda.device_count() or joblib.cpu_count(only_physical_cores=True)


def plan(configs: list[RunConfig], store: RunStore, jobs: int | None = None) -> list[str]:
    """Lines that say which runs there are, which are done, and how long the others will take."""
    groups: dict[str, dict[str, list[int]]] = {}
    todo, records = [], []
    for config in {config.hash: config for config in configs}.values():
        found = stored(config, store)
        records += [found] if found else []
        todo += [] if found else [config]
        group = groups.setdefault(name(config).rpartition(", ")[0] + f", {config.label}", {"done": [], "to do": []})
        group["done" if found else "to do"].append(config.seed)
    lines = [f"{what}: " + "; ".join(f"{state}: seeds {' '.join(map(str, seeds))}" if seeds else f"{state}: none"
                                     for state, seeds in group.items()) for what, group in groups.items()]
    workers = jobs or default_jobs()
    seconds = expected_seconds(todo, records or store.all_results()) / workers
    return [*lines, f"{len(todo) + len(records)} runs, {len(records)} done, {len(todo)} to do: about {clock(seconds)} "
            f"on {workers} worker{'s' * (workers > 1)}, by the measured times of stored runs (or, for an encoder "
            "without any, of a few steps timed now)"]


def units(config: RunConfig) -> float:
    """The work of a run, in training steps; a sentence that is only read costs a third of one trained on."""
    data = load_dataset(config.dataset, config.text_column, config.label_column)
    held = sum(min(len(split), config.eval_limit or len(split)) for split in (data.validation, data.test))
    if get_method(config.method).level == "frozen":
        train = len(data.train) if config.n_train == "all" else config.n_train
        return (train + held) / (3 * config.batch_size)
    return config.steps + -(-config.steps // config.eval_every) * held / (3 * config.batch_size)


def expected_seconds(configs: list[RunConfig], records: list[dict]) -> float:
    """Seconds of work in ``configs`` for one worker, from the measured times of ``records`` with the same encoder.

    For an encoder without any, a few steps are timed now.
    """
    rates: dict[str, list[float]] = {}
    for record in records:
        config = RunConfig(**record["config"])
        rates.setdefault(config.encoder, []).append(record["seconds"] / units(config))
    for config in configs:
        if config.encoder not in rates:
            rates[config.encoder] = [_seconds_a_step(config)]
    return sum(units(config) * median(rates[config.encoder]) for config in configs)


def _seconds_a_step(config: RunConfig, steps: int = 3) -> float:
    from dnm.training import Run, own_randomness

    method = config.method if get_method(config.method).level != "frozen" else "plain"
    with own_randomness():
        run = Run(config.with_(method=method))
        run.train_step()
        started = time.perf_counter()
        for _ in range(steps):
            run.train_step().item()
        return (time.perf_counter() - started) / steps
