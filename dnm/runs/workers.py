"""Where runs are trained: in this process, or in workers that share nothing with each other but the run store.

A run's lock decides who trains it, so that two sweeps on one store neither lose nor repeat a run, and a worker that is
killed leaves a run that the next one takes up. Taught in notebook 05.

On more than one machine, with a folder that all of them see and a thread a worker::

    dask scheduler                                                              # prints its address
    OMP_NUM_THREADS=4 dask worker tcp://node1:8786 --nthreads 1 --nworkers 4    # on each machine
    dnm paper all --cluster tcp://node1:8786 --runs /shared/runs

On Slurm, dask-jobqueue starts the workers: ``SLURMCluster(cores=4, processes=1, memory="8GB", walltime="04:00:00",
worker_extra_args=["--nthreads", "1"])``, then ``scale(jobs=20)``; its ``scheduler_address`` goes to ``--cluster``. A
job that reaches its time limit costs the time since its last checkpoint, a minute at most. Locks are the file system's
own (``flock``), which NFS 4 and Lustre honour across machines, the latter mounted with ``flock``.
"""

import contextlib
import getpass
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import joblib
from filelock import FileLock, Timeout

from dnm.config import RunConfig
from dnm.data.datasets import dataset_of
from dnm.disk import DiskError
from dnm.errors import DeviceLost, DnmError, Interrupted, mendable, reason
from dnm.runs.plan import run_name
from dnm.runs.store import RunStore

_slot: list[FileLock] = []  # the GPU slot this process holds, for as long as it lives
Ends = list[tuple[RunConfig, str]]  # how each run ended: "trained", "reused", "busy", "stopped" or "failed: …"


@dataclass(frozen=True)
class StopFile:
    """A stop sign that every worker can see, wherever it runs: a file in the store."""

    path: Path

    def set(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def is_set(self) -> bool:
        return self.path.exists()


def processes(groups: list[list[RunConfig]], workers: int, cluster: str, *options) -> Iterator[tuple[Ends, list[str]]]:
    """Hand groups of runs to local processes or a Dask cluster; yield what `work` says of each as it ends."""
    # A worker whose memory has grown is replaced between two runs; that loses nothing and needs no word.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
    if cluster:
        from distributed import as_completed

        with _dask(cluster) as client:  # told of all runs at once, as it may grow while the sweep runs
            for future in as_completed([client.submit(work, configs, *options, main=os.getpid(), pure=False)
                                        for configs in groups], loop=client.loop):
                yield future.result()
        return
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, joblib.cpu_count(True) // workers))
    with joblib.parallel_config("loky", n_jobs=max(2, workers), inner_max_num_threads=threads):  # of one it makes none
        tasks = (joblib.delayed(work)(configs, *options, main=os.getpid()) for configs in groups)
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1,
                                   pre_dispatch=2 * workers if workers > 1 else 1)(tasks)


def _dask(address: str):
    with mendable("a Dask cluster needs the package distributed: pip install 'dnm[cluster]'"):
        from distributed import Client
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # its tracebacks are no help to who reads ours
    with mendable(f"no Dask cluster with workers at {address!r} ({{}}); give the address that `dask scheduler` prints, "
                  "such as tcp://node1:8786"):
        client = Client(address, timeout="10s", set_as_default=False)
        client.wait_for_workers(1, timeout=60)
        return client


def work(configs: list[RunConfig], store: RunStore, stop, wait: bool, models: set[RunConfig], options: dict,
         main: int = 0) -> tuple[Ends, list[str]]:
    """Train a group of runs, here; how each of them ended, and warnings. All is stored before this returns.

    ``stop`` is an event or a `StopFile`; ``wait`` says whether to wait for runs that others train; ``models`` are those
    whose models are kept, ``options`` those of `fit_fleet`; ``main`` is the process that asked (0: this one).
    """
    elsewhere = main not in (0, os.getpid())
    if elsewhere:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asked, who leaves a stop sign
        _take_gpu()
        with warnings.catch_warnings(action="ignore"), contextlib.suppress(DnmError):
            dataset_of(configs[0])  # what is odd about the data, the one who asked has said
    if stop.is_set():
        return [(config, "stopped") for config in configs], []
    in_charge = elsewhere or threading.current_thread() is threading.main_thread()  # of warnings, which threads share
    with warnings.catch_warnings(record=True) if in_charge else contextlib.nullcontext([]) as caught:
        if in_charge:
            warnings.simplefilter("default")
        try:
            ends = _train(configs, store, stop, wait, models, options)
        except DeviceLost as error:
            if not elsewhere:
                raise
            for config in configs:
                store.put_note(config, 0, [], failure=str(error))
            os._exit(1)  # for another process to take up
    return ends, [f"{run_name(configs[0])}: {w.message}" for w in caught if issubclass(w.category, UserWarning)]


def _train(configs: list[RunConfig], store: RunStore, *task) -> Ends:
    """Train a group together; where it fails as a whole, in halves."""
    try:
        return _together(configs, store, *task)
    except Interrupted:
        return [(config, "stopped") for config in configs]
    except (DiskError, DeviceLost):  # the next run would fare no better
        raise
    except Exception as error:  # whatever it is, it ends this run only
        if len(configs) == 1:
            return [(configs[0], _failed(store, configs[0], error))]
    store.drop_checkpoint(*configs)  # too little memory for all of them, or one that spoils the others
    half = len(configs) // 2
    return [*_train(configs[:half], store, *task), *_train(configs[half:], store, *task)]


def _together(configs: list[RunConfig], store: RunStore, stop, wait: bool, models: set, options: dict) -> Ends:
    from dnm.classify.estimator import DNMClassifier
    from dnm.runs.fleet import fit_fleet

    ends, todo, told, wait = {}, [], {}, wait and len(configs) == 1
    with contextlib.ExitStack() as stack:
        for config in configs:
            try:
                stack.enter_context(store.lock(config).acquire(timeout=-1 if wait else 0, cancel_check=stop.is_set))
            except Timeout:
                ends[config] = "stopped" if wait else "busy"
                continue
            if store.stored(config, config in models):
                ends[config] = "reused"
            else:
                todo.append(config)
                stack.callback(store.note_path(config).unlink, missing_ok=True)
                store.put_note(config, 0, [])

        def progress(run) -> None:
            if time.monotonic() - told.get(run.config, 0) > 1:
                told[run.config] = time.monotonic()
                store.put_note(run.config, run.step, run.history)
            options.get("on_progress", lambda run: None)(run)

        if todo:
            if store.checkpoint_path(*todo).exists():
                warnings.warn("goes on from its checkpoint", stacklevel=2)
            trained = fit_fleet(todo, checkpoint=store.checkpoint_path(*todo), stop=stop,
                                **options | {"on_progress": progress})
            for config, (record, run) in zip(todo, trained, strict=True):
                if isinstance(record, DnmError):
                    ends[config] = _failed(store, config, record)
                    continue
                ends[config] = "trained"
                store.put(config, record)  # first the small file that holds the numbers
                if config in models:
                    shutil.rmtree(store.model_path(config), ignore_errors=True)  # of whatever version
                    DNMClassifier.of(run).save(store.model_path(config))
            store.drop_checkpoint(*todo)
    return list(ends.items())


def _failed(store: RunStore, config: RunConfig, error: Exception) -> str:
    store.put_error(config, reason(error), "".join(traceback.format_exception(error)))
    return f"failed: {reason(error)}"


def _take_gpu() -> None:
    """One GPU for each worker process of a machine that has several."""
    import torch

    if _slot or torch.cuda.is_initialized() or torch.cuda.device_count() < 2:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    for device in visible.split(","):
        lock = FileLock(Path(tempfile.gettempdir()) / f"dnm-{getpass.getuser()}-gpu-{device}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            _slot.append(lock)
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            break
