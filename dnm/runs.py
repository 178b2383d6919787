"""Runs through the store: finished ones are reused, the others trained, each stored when it is done.

`run_all` trains in this process, one after the other; `dnm.sweep` distributes. Taught in notebook 04.
"""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product

from filelock import FileLock, Timeout

from dnm.config import RunConfig
from dnm.data import load_dataset
from dnm.errors import DnmError
from dnm.hub import identity
from dnm.methods import get_method
from dnm.store import RunStore


@dataclass
class Status:
    """How far a list of runs is; handed to ``on_status`` whenever something changes.

    ``row`` is the newest evaluation of ``config``; ``histories`` holds, by position in the list, the
    evaluations of every run so far.
    """

    configs: list[RunConfig]
    config: RunConfig | None = None
    step: int = 0
    row: dict | None = None
    reused: int = 0
    trained: int = 0
    failed: int = 0
    training: int = 0
    seconds: float = 0.0
    steps_done: int = 0
    steps_total: int = 0
    histories: dict[int, list[dict]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float | None:
        """Time left, from the work measured so far; None before there is a little."""
        if self.steps_done + self.step < 5:
            return None
        left = self.steps_total - self.steps_done - self.step
        return self.seconds / (self.steps_done + self.step) * left

    @property
    def line(self) -> str:
        """One line for people."""
        done = f"{self.reused + self.trained}/{len(self.configs)} runs"
        left = "" if self.seconds_left is None else f", {clock(self.seconds_left)} left"
        failed = f", {self.failed} failed" if self.failed else ""
        if self.training:
            return f"{done} ({self.reused} reused{failed}), {self.training} in training{left}"
        if self.config is None:
            return f"{done} ({self.reused} reused{failed}) in {clock(self.seconds)}"
        accuracy = f", validation {self.row['validation_accuracy']:.1%}" if self.row else ""
        return (f"{done}: {self.config.method}, seed {self.config.seed}, step {self.step}/{self.config.steps}"
                f"{left}{accuracy}")


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}" if minutes < 100 else f"{minutes // 60}:{minutes % 60:02d} h"


def grid(methods: list[str], seeds: list[int], profile: str = "quick", **settings) -> list[RunConfig]:
    """Configurations of every method with every seed, seed by seed, so that early results compare fairly."""
    if not methods or not seeds:
        raise DnmError("name at least one method and one seed")
    pairs = product(dict.fromkeys(seeds), dict.fromkeys(methods))  # each once, however often it is named
    return [RunConfig.create(profile, method=method, seed=seed, **settings) for seed, method in pairs]


def run_all(configs: list[RunConfig], store: RunStore | None = None, *, save_models: bool = False,
            on_status: Callable[[Status], None] | None = None, checkpoint_seconds: float = 60.0,
            stop: threading.Event | None = None, fleet: int | None = None) -> list[dict]:
    """Records of all runs, in the order of ``configs``; what is stored is not trained again.

    A stored file that cannot be read or belongs to other settings or data is reported and trained again; a run that
    another process is training is waited for. Ctrl-C, or ``stop``, saves a checkpoint and raises
    `dnm.training.Interrupted`. ``fleet`` runs are trained together; by default one on a CPU, as many as fit on a GPU.
    """
    store, tell = store or RunStore.open(), on_status or (lambda status: None)
    status, records, todo = Status(configs), {}, []
    positions: dict[str, list[int]] = {}
    for position, config in enumerate(configs):  # look first, so that the time left counts what is to do
        positions.setdefault(config.hash, []).append(position)
        if config.hash in records or (found := stored(config, store, save_models, warn=True)):
            records.setdefault(config.hash, found)
            status.histories[position] = records[config.hash]["history"]
            status.reused += 1
        elif config not in todo:
            todo.append(config)
            status.steps_total += _steps(config)
    tell(status)
    started = time.perf_counter()

    def progress(event) -> None:
        status.config, status.step, status.seconds = event.config, event.step * size, time.perf_counter() - started
        status.row = event.row or status.row
        for position in positions[event.config.hash]:
            status.histories[position] = event.history
        tell(status)

    with interruptible(stop) as stop:
        for group in group_runs(todo, fleet):
            status.config, status.step, status.row, size = group[0], 0, None, len(group)
            if store.checkpoint_path(*group).exists():
                status.notes.append(f"{group[0].method}, seed {group[0].seed}: goes on from its checkpoint")
            ends = run_fleet(group, store, save_models=save_models, stop=stop, on_progress=progress,
                             checkpoint_seconds=checkpoint_seconds)
            for config, (record, trained) in zip(group, ends, strict=True):
                if isinstance(record, DnmError):
                    raise record
                if record is None:  # another process has it: wait for it
                    record, trained = run_one(config, store, save_models=save_models, stop=stop, on_progress=progress,
                                              checkpoint_seconds=checkpoint_seconds)
                records[config.hash] = record
                for position in positions[config.hash]:
                    status.histories[position] = record["history"]
                status.trained, status.reused = status.trained + trained, status.reused + (not trained)
                status.reused += len(positions[config.hash]) - 1
                status.steps_done += _steps(config)
                status.step, status.seconds = 0, time.perf_counter() - started
                tell(status)
    status.config, status.row = None, None
    tell(status)
    return [records[config.hash] for config in configs]


def group_runs(configs: list[RunConfig], size: int | None) -> list[list[RunConfig]]:
    """Runs that are trained together: the fleets of `dnm.fleet.fleets`."""
    if size == 1 or not configs:
        return [[config] for config in configs]
    from dnm.fleet import fleets

    return fleets(configs, size)


def stored(config: RunConfig, store: RunStore, save_models: bool = False, warn: bool = False) -> dict | None:
    """The run's stored record, if it has one of these data and weights (and, if asked for, its model)."""
    data = load_dataset(config.dataset, config.text_column, config.label_column)
    found, reason = store.finished(config, data.fingerprint, _weights(config))
    if reason and warn:
        warnings.warn(f"{reason}; it is trained again", stacklevel=3)
    return found if not save_models or (store.model_path(config) / "model.safetensors").exists() else None


def run_one(config: RunConfig, store: RunStore, **options) -> tuple[dict | None, bool]:
    """`run_fleet` for one run; a run that has failed raises its error."""
    return run_fleet([config], store, **options)[0]


def run_fleet(configs: list[RunConfig], store: RunStore, *, save_models: bool = False, stop=None, wait: bool = True,
              on_progress: Callable | None = None,
              checkpoint_seconds: float = 60.0) -> list[tuple[dict | DnmError | None, bool]]:
    """For each run its record, or its error, and whether it was trained for it now; all stored before this returns.

    What is not stored yet is trained together (`dnm.fleet.kind` says what can be). A run that another process is
    training is waited for and then read, if it is the only one and ``wait`` is set; else it is ``(None, False)``.
    """
    from dnm.training import fit

    ends, todo, told = {}, [], {}
    with ExitStack() as stack:
        for config in configs:
            if not _locked(store.lock(config), stack, wait and len(configs) == 1, stop):
                ends[config.hash] = None, False
            elif found := stored(config, store, save_models):
                ends[config.hash] = found, False
            else:
                todo.append(config)
                stack.callback(store.note_path(config).unlink, missing_ok=True)
                store.note_path(config).write_text(f"{os.getpid()} 0", encoding="utf-8")

        def progress(event) -> None:
            if time.monotonic() - told.get(event.config.hash, 0) > 1:
                told[event.config.hash] = time.monotonic()
                store.note_path(event.config).write_text(f"{os.getpid()} {event.step}", encoding="utf-8")
            if on_progress:
                on_progress(event)

        if todo:
            fitted = fit(todo if len(todo) > 1 else todo[0], checkpoint=store.checkpoint_path(*todo), stop=stop,
                         on_progress=progress, checkpoint_seconds=checkpoint_seconds)
            for config, (record, run) in zip(todo, fitted if len(todo) > 1 else [fitted], strict=True):
                ends[config.hash] = record, True
                if not isinstance(record, DnmError):
                    store.put(config, record)  # first the small file that holds the numbers
                    if save_models:
                        run.classifier().save(store.model_path(config))
            store.drop_checkpoint(*todo)
    return [ends[config.hash] for config in configs]


def _locked(lock: FileLock, stack: ExitStack, wait: bool, stop) -> bool:
    """Whether the lock could be had; the stack gives it back."""
    from dnm.training import Interrupted

    while True:
        try:
            stack.enter_context(lock.acquire(timeout=0.5 if wait else 0))
            return True
        except Timeout:
            if not wait:
                return False
            if stop is not None and stop.is_set():
                raise Interrupted("stopped while another process trains the same run") from None


def _weights(config: RunConfig) -> str | None:
    """The encoder's weights at hand, or None: stored results can be read where there are none."""
    try:
        return identity(config.encoder, config.word_vectors)
    except DnmError:
        return None


def _steps(config: RunConfig) -> int:
    return 1 if get_method(config.method).level == "frozen" else config.steps


@contextmanager
def interruptible(stop: threading.Event | None = None) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second Ctrl-C stops at once.

    Outside the main thread, where signals cannot be caught, the event is the caller's to set.
    """
    stop = stop or threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(signum, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
