"""Many runs on many processes or machines, through joblib: local processes by default, or a Dask cluster.

Workers share nothing but the run store. A run's lock decides who trains it, so that two sweeps on one store neither
lose nor repeat a run, and a worker that is killed leaves a run that the next one takes up. Taught in notebook 05.
"""

import contextlib
import getpass
import os
import signal
import tempfile
import threading
import time
import traceback
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
from filelock import FileLock, Timeout

from dnm.config import RunConfig
from dnm.errors import DnmError, unknown
from dnm.estimate import default_jobs, name, units
from dnm.runs import Status, group_runs, interruptible, run_fleet, stored
from dnm.store import RunStore

ATTEMPTS = 3  # deaths of a worker in the same run before the run counts as failed
BACKENDS = ("local", "dask")
_slot: list[FileLock] = []  # the GPU slot this process holds, for as long as it lives


class StopFile:
    """A stop sign that every worker of a sweep can see, wherever it runs: a file in the store."""

    def __init__(self, path: Path):
        self.path, self.looked, self.seen = path, 0.0, False

    def set(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self.seen = True

    def is_set(self) -> bool:
        if not self.seen and time.monotonic() - self.looked > 0.5:
            self.looked, self.seen = time.monotonic(), self.path.exists()
        return self.seen


def sweep(configs: list[RunConfig], store: RunStore, *, jobs: int | None = None, backend: str = "local",
          scheduler: str = "", save_models: bool = False, fleet: int | None = None,
          on_status: Callable[[Status], None] | None = None) -> tuple[list[dict], dict[str, str]]:
    """Train what is not stored yet, on several workers; return the records there are, and the errors by run hash.

    Parameters
    ----------
    jobs : worker processes; by default one for each GPU, or one for each core where there is none. A Dask cluster
        has as many as it has.
    backend, scheduler : ``local``, or ``dask`` and the address of its scheduler, such as ``tcp://node1:8786``. Its
        workers need the package, the data and the store's folder at the same places.
    fleet : runs that a worker trains together; by default one on a CPU, as many as fit on a GPU of this machine.
    on_status : called about once a second.

    Raises
    ------
    dnm.training.Interrupted : after Ctrl-C; every worker has saved its run's checkpoint.
    DnmError : no cluster at that address, or workers that die without finishing anything.
    """
    from dnm.training import Interrupted

    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    configs = list({config.hash: config for config in configs}.values())
    status, tell = Status(configs), on_status or (lambda status: None)
    todo, deaths, errors = [], Counter(), {}
    for config in configs:
        if stored(config, store, save_models, warn=True):
            status.reused += 1
        else:
            todo.append(config)
    work = {config.hash: units(config) for config in todo}
    status.steps_total = round(sum(work.values()))
    tell(status)
    stop, started = StopFile(store.folder / ".training" / f"stop-{uuid.uuid4().hex}"), time.perf_counter()

    def fail(config: RunConfig, error: str) -> None:
        errors[config.hash] = error
        status.failed += 1
        status.notes.append(f"{name(config)}: failed: {error}")
        work.pop(config.hash)

    try:
        with interruptible(stop), _watched(store, todo, work, status, tell, started):
            wait = False  # first what nobody else trains, then what is left of theirs
            while todo and not stop.is_set():
                # A run whose worker died is tried again by itself, so that it cannot take others with it.
                batch, died = [c for c in todo if not deaths[c.hash]] or todo[:1], ""
                alone = bool(deaths[batch[0].hash])
                groups = [[c] for c in batch] if wait or alone else group_runs(batch, fleet)
                try:
                    for states, notes in _dispatch(groups, store, stop, wait, save_models, jobs, backend, scheduler,
                                                   alone):
                        status.notes += notes
                        for config, state in states:
                            if state.startswith("failed: "):
                                fail(config, state.removeprefix("failed: "))
                            elif state in ("trained", "reused"):
                                status.trained, status.reused = (status.trained + (state == "trained"),
                                                                 status.reused + (state == "reused"))
                                status.steps_done += round(work.pop(config.hash))
                except (DnmError, KeyboardInterrupt):
                    raise
                except Exception as error:  # a worker was killed: each backend says so in a way of its own
                    if stop.is_set():
                        break
                    died = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
                    lost = [c for c in batch if c.hash in work and store.note_path(c).exists() and _free(store, c)]
                    if not lost and len(work) == len(todo):
                        raise DnmError(f"the workers do not work ({died}); finished runs are kept") from None
                    for config in lost:
                        store.note_path(config).unlink(missing_ok=True)
                        deaths[config.hash] += 1
                        status.notes.append(f"{name(config)}: its worker died; the run is taken up again")
                        if deaths[config.hash] == ATTEMPTS:
                            text = f"its worker died {ATTEMPTS} times (killed, or out of memory?)"
                            store.put_error(config, text, died)
                            fail(config, text)
                wait, todo = not died, [c for c in todo if c.hash in work]
            if stop.is_set():
                raise Interrupted(f"stopped with {status.reused + status.trained} of {len(configs)} runs finished; the "
                                  "others' checkpoints are saved, run the same command again to go on")
    finally:
        stop.path.unlink(missing_ok=True)
    status.training, status.seconds = 0, time.perf_counter() - started
    tell(status)
    return [found for config in configs if (found := stored(config, store))], errors


def _dispatch(groups: list[list[RunConfig]], store: RunStore, stop: StopFile, wait: bool, save_models: bool,
              jobs: int | None, backend: str, scheduler: str, alone: bool) -> Iterator[tuple]:
    """Hand fleets of runs to workers; yield what `_work` says of each as it ends."""
    with contextlib.ExitStack() as stack:
        if backend == "dask":
            client = stack.enter_context(_dask(scheduler))
            workers, threads = max(1, sum(client.nthreads().values())), 0
            stack.enter_context(joblib.parallel_config("dask", n_jobs=workers, client=client))
        else:
            workers = jobs if jobs else default_jobs()
            threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, joblib.cpu_count(True) // workers))
            stack.enter_context(joblib.parallel_config("loky", n_jobs=max(2, workers) if alone else workers))
        tasks = (joblib.delayed(_work)(configs, store, stop.path, wait, save_models, threads, os.getpid())
                 for configs in groups)
        # A cluster may grow while the sweep runs, so it is told of all runs at once.
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1,
                                   pre_dispatch="all" if backend == "dask" else "2*n_jobs")(tasks)


def _dask(scheduler: str):
    try:
        from distributed import Client
    except ImportError:
        raise DnmError("the dask backend needs the package distributed: pip install 'dnm[cluster]'") from None
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
        client.wait_for_workers(1, timeout=60)
    except (OSError, ValueError, TimeoutError) as error:
        raise DnmError(f"no Dask cluster with workers at {scheduler!r} ({type(error).__name__}); give the address that "
                       "`dask scheduler` prints, such as tcp://node1:8786") from None
    return client


def _work(configs: list[RunConfig], store: RunStore, stop_path: Path, wait: bool, save_models: bool, threads: int,
          main: int) -> tuple[list[tuple[RunConfig, str]], list[str]]:
    """A fleet of runs in a worker: each with "trained", "reused", "busy", "stopped" or "failed: …"; and warnings."""
    if os.getpid() != main and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep itself, which leaves a stop sign
    stop = StopFile(stop_path)
    if stop.is_set():
        return [(config, "stopped") for config in configs], []
    _prepare(threads, main)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        states = _train(configs, store, stop, wait, save_models)
    notes = [f"{name(configs[0])}: {w.message}" for w in caught if issubclass(w.category, UserWarning)]
    return states, notes


def _train(configs: list[RunConfig], store: RunStore, stop: StopFile, wait: bool,
           save_models: bool) -> list[tuple[RunConfig, str]]:
    from dnm.training import Interrupted

    ends, details = [], ""
    try:
        ends = run_fleet(configs, store, save_models=save_models, stop=stop, wait=wait)
    except Interrupted:
        return [(config, "stopped") for config in configs]
    except Exception as error:  # whatever it is, it ends this run only
        details = traceback.format_exc()
        if len(configs) == 1:
            ends = [(error, False)]
    if not ends:  # too little memory for all of them, or one that spoils the others: in halves
        store.drop_checkpoint(*configs)
        half = len(configs) // 2
        return [state for part in (configs[:half], configs[half:])
                for state in _train(part, store, stop, wait, save_models)]
    states = []
    for config, (found, trained) in zip(configs, ends, strict=True):
        if isinstance(found, Exception):
            text = str(found) if isinstance(found, DnmError) else f"{type(found).__name__}: {found}"
            store.put_error(config, text, details or text)
            states.append((config, f"failed: {text}"))
        else:
            states.append((config, "trained" if trained else "reused" if found else "busy"))
    return states


def _prepare(threads: int, main: int) -> None:
    """Make a worker process fit for training: its threads and its GPU."""
    import torch

    if threads and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if os.getpid() != main and not _slot and not torch.cuda.is_initialized() and torch.cuda.device_count() > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        for device in visible.split(","):
            lock = FileLock(Path(tempfile.gettempdir()) / f"dnm-{getpass.getuser()}-gpu-{device}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                _slot.append(lock)
                os.environ["CUDA_VISIBLE_DEVICES"] = device
                break


def _free(store: RunStore, config: RunConfig) -> bool:
    """Whether nobody trains the run now."""
    lock = store.lock(config)
    try:
        lock.acquire(timeout=0)
        lock.release()
        return True
    except Timeout:
        return False


@contextlib.contextmanager
def _watched(store, configs, work, status, tell, started, seconds: float = 1.0) -> Iterator[None]:
    """Tell every second how far the workers are, by the notes they leave in the store."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(seconds):
            steps, training = 0.0, 0
            for config in configs:
                if config.hash in work:
                    try:
                        step = int(store.note_path(config).read_text(encoding="utf-8").split()[1])
                    except (OSError, ValueError, IndexError):  # not there, or being written
                        continue
                    training += 1
                    steps += work.get(config.hash, 0) * step / config.steps
            status.training, status.step = training, round(steps)
            status.seconds = time.perf_counter() - started
            tell(status)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        status.step = 0
