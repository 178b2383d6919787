"""Which runs there are, how much work they are, and how long that takes by measured times. Taught in notebook 05."""

import contextlib
import warnings
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from statistics import median

import joblib

from dnm.config import RunConfig, as_list
from dnm.data.datasets import dataset_of, subset_size, within_data
from dnm.errors import DnmError, project_root
from dnm.runs.progress import duration
from dnm.runs.store import RunStore, records_in

HEAD_STEPS = 30  # steps of a head alone, at rate 0, that take as long as one with MiniLM
ENOUGH = 100  # steps of work from which on processes side by side pay for their start


def grid(methods: Iterable[str], seeds: Iterable[int], profile: str = "quick", **settings) -> list[RunConfig]:
    """Every method with every seed, `within_data`; seed by seed, so that early results compare fairly."""
    methods, seeds = as_list(methods), as_list(seeds, int)
    if not methods or not seeds:
        raise DnmError("name at least one method and one seed")
    return within_data(RunConfig.create(profile, method=method, seed=seed, **settings)
                       for seed, method in product(seeds, methods))


def run_name(config: RunConfig) -> str:
    """A run as a person would call it."""
    return f"{Path(config.dataset).stem}, n = {config.n_train}, {config.encoder}, {config.method}, seed {config.seed}"


def default_workers(configs: list[RunConfig]) -> int:
    """A process for each GPU, or, if there is enough to do, for each core where there is none."""
    import torch

    if gpus := torch.cuda.device_count():
        return min(gpus, max(1, len(configs)))
    if len(configs) < 2 or sum(map(units, configs)) < ENOUGH:
        return 1
    return min(joblib.cpu_count(only_physical_cores=True), len(configs))


def units(config: RunConfig) -> float:
    """The work of a run, in training steps; a sentence that is only read costs a third of one trained on."""
    data = dataset_of(config)
    train = subset_size(data, config.n_train)
    held = sum(min(len(split), config.eval_limit or len(split)) for split in (data.validation, data.test))
    if not config.row.fine_tunes or config.frozen:
        return (train + held) / (3 * config.batch_size) + (config.steps / HEAD_STEPS if config.row.fine_tunes else 0)
    return config.steps + -(-config.steps // config.eval_every) * held / (3 * config.batch_size)


def plan(configs: list[RunConfig], store: RunStore, workers: int | None = None, kept: Iterable[dict] = ()) -> list[str]:
    """Lines that say which runs there are, which are done, and how long the others, ``kept`` records too, will take."""
    stored, groups = {config: store.stored(config) for config in configs}, {}
    todo, records = [config for config in stored if not stored[config]], list(filter(None, stored.values()))
    for config, found in stored.items():
        group = groups.setdefault(run_name(config).rpartition(", ")[0] + f", {config.label}", {"done": [], "to do": []})
        group["done" if found else "to do"].append(str(config.seed))
    lines = [f"{what}: " + "; ".join(f"{state}: seeds {' '.join(seeds)}" if seeds else f"{state}: none"
                                     for state, seeds in group.items()) for what, group in groups.items()]
    workers = workers or default_workers(todo)
    seconds = expected_seconds(todo, records or records_in(store.folder)) / workers
    here, there = ({config.with_(precision="auto", device="auto") for config in some}
                   for some in (todo, (RunConfig(**record["config"]) for record in kept)))
    both = len(here & there)
    elsewhere = f" ({both} of them kept in data/results, in some precision, for `dnm paper report`)" * bool(both)
    return [*lines, f"{len(todo) + len(records)} runs, {len(records)} done, {len(todo)} to do{elsewhere}: "
            f"{duration(seconds)} on {workers} worker{'s' * (workers > 1)}, by the measured times of stored runs (or, "
            "for an encoder without any, of a few steps timed now)"]


def tell(configs: list[RunConfig], store: RunStore, workers: int | None = None) -> None:
    """Print the `plan`, beside what is kept in ``data/results``: what ``--dry-run`` does."""
    print(*plan(configs, store, workers, records_in(project_root() / "data" / "results")), sep="\n")


def expected_seconds(configs: list[RunConfig], records: list[dict]) -> float:
    """Seconds of work in ``configs`` for one worker, from the measured times of ``records`` with the same encoder.

    For an encoder without any, a few steps are timed now.
    """
    rates: dict[tuple, list[float]] = {}  # at rate 0 they are others
    for record in records:
        config = RunConfig(**record["config"])
        with contextlib.suppress(DnmError), warnings.catch_warnings():  # its data may be gone, or not be asked for
            warnings.simplefilter("ignore")
            rates.setdefault((config.encoder, config.frozen), []).append(record["seconds"] / units(config))
    for config in configs:
        if (config.encoder, config.frozen) not in rates:
            from dnm.training import fit

            short = config.with_(method="plain", steps=5, eval_every=5, eval_limit=1)
            rates[config.encoder, config.frozen] = [fit(short)[0]["seconds"] / units(short)]
    return sum(units(config) * median(rates[config.encoder, config.frozen]) for config in configs)
