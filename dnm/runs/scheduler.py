"""Runs through the store: finished ones are reused, the others trained, each stored when it is done.

`run_all` is the one way to train several: in this process, in local ones side by side, or on a Dask cluster. Taught in
notebook 04.
"""

import signal
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from filelock import Timeout

from dnm.config import RunConfig
from dnm.data import augmentation
from dnm.data.hub import identity
from dnm.errors import DnmError, Interrupted, reason
from dnm.runs.plan import default_workers, run_name, units
from dnm.runs.progress import Status
from dnm.runs.store import RunStore
from dnm.runs.workers import StopFile, processes, work

ATTEMPTS = 3  # deaths of a worker in the same run before the run counts as failed


class RunsFailed(DnmError):
    """Some runs failed, the others are finished: ``errors`` by run hash, and ``records`` of those there are."""

    def __init__(self, errors: dict[str, str], records: list[dict], store: RunStore):
        self.errors, self.records = errors, records
        text = next(iter(errors.values())) if len(errors) == 1 and not records else (
            f"{len(errors)} runs failed, the others are finished; each error is in {store.folder}/RUN.error:"
            + "".join(f"\n  {run}: {error}" for run, error in errors.items()))
        super().__init__(text)
        self.args = text,  # a line a run


def run_all(configs: list[RunConfig], store: RunStore | None = None, *, workers: int | None = None, cluster: str = "",
            fleet: int | None = None, save_models: bool | Iterable[RunConfig] = False,
            on_status: Callable[[Status], None] | None = None, stop: threading.Event | None = None,
            checkpoint_seconds: float = 60.0) -> list[dict]:
    """Records of all runs, in the order of ``configs``; what is stored is not trained again.

    A stored file that cannot be read or belongs to other settings or data is reported and trained again; a run that
    another process is training is waited for.

    Parameters
    ----------
    workers : processes; by default one for each GPU, or for each core where there is none (one thread each) if there is
        enough to do. 1 is this process.
    cluster : the address of a Dask scheduler, such as ``tcp://node1:8786``. Its workers need the package, the data and
        the store's folder at the same places.
    fleet : runs that are trained together; by default one on a CPU, as many as fit on a GPU.
    save_models : keep the trained models beside the results, all of them or those of some runs.
    on_status : called after every step in this process, once a second for others.
    stop : an event that saves checkpoints and ends training, as Ctrl-C does.

    Raises
    ------
    RunsFailed : after all others are finished, if a run has failed.
    Interrupted : after Ctrl-C or ``stop``; every run's checkpoint is saved.
    DnmError : wrong settings or data, before anything trains; a disk that is full; workers that do not work.
    """
    models = set(configs if save_models is True else save_models or ())
    sweep = _Sweep(configs, store or RunStore.open(), models, on_status or (lambda status: None))
    if sweep.todo:
        sweep.run(workers or default_workers(sweep.todo), cluster, fleet, stop, checkpoint_seconds)
    for note in [] if on_status else sweep.status.notes:
        warnings.warn(note, stacklevel=2)
    records = {config.hash: sweep.store.stored(config) for config in configs}
    if sweep.errors:
        raise RunsFailed(sweep.errors, [record for record in records.values() if record], sweep.store)
    if not all(records.values()):
        raise DnmError("a data file changed while runs were trained on it; run the same command again")
    return [records[config.hash] for config in configs]


class _Sweep:
    """The runs that are to be trained, and what has become of them so far."""

    def __init__(self, configs: list[RunConfig], store: RunStore, models: set[RunConfig], tell: Callable):
        self.status, self.store, self.models, self.tell = Status(list(dict.fromkeys(configs))), store, models, tell
        self.errors, self.deaths = {}, Counter()
        for config in self.status.configs:  # look first, so that the time left counts what is to do
            if found := store.stored(config, config in models, warn=True):
                self.status.histories[config] = found["history"]
        self.status.reused = len(self.status.histories)
        self.todo = [config for config in self.status.configs if config not in self.status.histories]
        for encoder in {(config.encoder, config.word_vectors) for config in self.todo}:
            identity(*encoder)  # what is not there is told before anything is trained
        for config in self.todo:
            augmentation.source(config)
        self.work = {config: units(config) for config in self.todo}  # loses a run when it ends
        self.before = store.notes()  # a killed process's stay as they are
        self.done, self.under_way, self.graph, self.complaint = 0.0, {}, None, None
        self.lock = threading.RLock()  # a second thread watches where others train
        self.status.work_total, self.started = sum(self.work.values()), time.perf_counter()
        tell(self.status)

    def run(self, workers: int, cluster: str, fleet: int | None, stop: threading.Event | None,
            checkpoint_seconds: float) -> None:
        import torch

        from dnm.runs.fleet import fleets

        sign, wait, todo = StopFile(self.store.folder / ".training" / f"stop-{uuid.uuid4().hex}"), False, self.todo
        with interruptible(stop) as stop:
            while todo and not stop.is_set():  # first what nobody else trains, then what is left of theirs
                # A run whose worker died is tried again by itself, without a graph, in a process of its own.
                batch, died = [c for c in todo if not self.deaths[c]] or todo[:1], ""
                alone = bool(self.deaths[batch[0]])
                # A GPU may be lost to a process, so it is never this one that uses it.
                here = workers == 1 and not cluster and not alone and not torch.cuda.is_available()
                groups = [[c] for c in batch] if wait or alone or fleet == 1 else fleets(batch, fleet)
                options = dict(graph=False if alone else self.graph, checkpoint_seconds=checkpoint_seconds)
                options |= {"on_progress": self._progress} if here else {}
                task = (self.store, stop if here else sign, wait, self.models, options)
                try:
                    with nullcontext() if here else self._watched(stop, sign):
                        for ends, notes in ((work(group, *task) for group in groups) if here else
                                            processes(groups, workers, cluster, *task)):
                            self.status.notes += notes
                            for config, end in ends:
                                self._end(config, end)
                except (DnmError, KeyboardInterrupt):
                    raise
                except Exception as error:  # a worker was killed: each backend says so in a way of its own
                    if stop.is_set():
                        break
                    died = reason(error)[:200]
                    self._mourn([c for c in batch if c in self.work and self._left(c)], died, todo)
                wait, todo = not died, [c for c in todo if c in self.work]
                if wait and todo and not stop.is_set():
                    self.status.notes.append(f"waits for {len(todo)} runs that another process is training, by its "
                                             f"locks in {self.store.folder / '.locks'}")
                    self._tell()
            if stop.is_set() and todo:
                count = self.status.reused + self.status.trained
                raise Interrupted(f"stopped with {count} of {len(self.status.configs)} runs finished; the others' "
                                  "checkpoints are saved, run the same command again to go on")
        self.status.config, self.status.row, self.status.training = None, None, 0
        self._tell()
        if self.complaint:
            raise self.complaint

    def _progress(self, run) -> None:
        self.status.config, self.status.step = run.config, run.step
        self.status.row = run.history[-1] if run.history else None
        self._note(run.config, run.step, run.history)
        self._tell()

    def _note(self, config: RunConfig, step: int, history: list[dict]) -> None:
        with self.lock:
            if config in self.work:
                self.under_way[config] = self.work[config] * step / config.steps
            self.status.histories[config] = history

    def _tell(self) -> None:
        with self.lock:
            self.status.work_done = self.done + sum(self.under_way.values())
            self.status.seconds = time.perf_counter() - self.started
            try:
                if not self.complaint:
                    self.tell(self.status)
            except Exception as error:  # a fault of who listens is no fault of a run: it is raised at the end
                self.complaint = error

    def _end(self, config: RunConfig, end: str) -> None:
        status = self.status
        if end.startswith("failed: "):
            self.errors[config.hash] = end.removeprefix("failed: ")
            status.notes.append(f"{run_name(config)}: {end}")
            status.failed += 1
        elif end in ("trained", "reused"):
            status.trained += end == "trained"
            status.reused += end == "reused"
            if record := self.store.stored(config):
                self._note(config, config.steps, record["history"])
        else:
            return
        with self.lock:
            self.done += self.work.pop(config)
            self.under_way.pop(config, None)
        self._tell()

    def _left(self, config: RunConfig) -> bool:
        """Whether a run's worker is gone: it has left a note, and nobody holds the run's lock."""
        try:
            with self.store.lock(config).acquire(timeout=0):
                return self.store.note_path(config).exists()
        except Timeout:
            return False

    def _mourn(self, lost: list[RunConfig], died: str, todo: list[RunConfig]) -> None:
        """Take up again the runs whose worker died; where a GPU's graph failed, without one."""
        if not lost and len(self.work) == len(todo):
            raise DnmError(f"the workers do not work ({died}); finished runs are kept")
        notes = self.store.notes()
        failures = [notes[config.hash]["failure"] for config in lost if config.hash in notes]
        forgiven = any(failures) and self.graph is None
        if forgiven:
            self.graph = False
            self.status.notes.append(f"a step failed on the GPU ({next(filter(None, failures))}); its runs start anew, "
                                     "without a CUDA graph")
        for config in lost:
            self.store.note_path(config).unlink(missing_ok=True)
            if forgiven:
                continue
            self.deaths[config] += 1
            self.status.notes.append(f"{run_name(config)}: its worker died; the run is taken up again")
            if self.deaths[config] == ATTEMPTS:
                text = f"its worker died {ATTEMPTS} times (killed, or out of memory?)"
                self.store.put_error(config, text, died)
                self._end(config, f"failed: {text}")

    @contextmanager
    def _watched(self, stop: threading.Event, sign: StopFile, seconds: float = 1.0) -> Iterator[None]:
        """Every second, where others train: hand on the stop sign, and tell how far they are, by their notes."""
        finished = threading.Event()

        def watch() -> None:
            while not finished.wait(seconds):
                if stop.is_set():
                    sign.set()
                notes = {run: note for run, note in self.store.notes().items() if note != self.before.get(run)}
                training = [(config, notes[config.hash]) for config in self.todo if config.hash in notes]
                for config, note in training:
                    self._note(config, note["step"], note["history"])
                self.status.config, self.status.training = None, len(training)
                self._tell()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
            sign.path.unlink(missing_ok=True)


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
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)  # None: not Python's
