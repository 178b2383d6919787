"""Faults made on purpose, each many times: what was lost, what was wrongly believed, what the user saw.

    python tests/faults.py --times 50 --out data/report/faults.md

takes the better part of an hour on two cores. A disk that is full or cannot be written to is a small one in memory,
which takes the rights to mount it. `test_faults.py` makes each fault a few times.

"Lost": work that was finished before the fault and is not there afterwards, or not as it was. "Believed": something
half-written or changed that was taken for whole. Both must be 0. After every fault the same command is given again,
and must end as if nothing had happened.
"""

import argparse
import contextlib
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import dnm  # noqa: F401 (first, for what it sets before torch comes in)
from dnm import cli, disk
from dnm.classify import stream
from dnm.classify.estimator import DNMClassifier
from dnm.config import RunConfig
from dnm.data.datasets import load_dataset
from dnm.disk import read_json, write_json
from dnm.errors import DnmError
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.training import fit

SMALL = dict(encoder="cnn", steps=30, batch_size=12, eval_every=10, eval_limit=40, n_train=24, precision="float32", max_length=64)
OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@dataclass
class Tally:
    """How often a fault was made, what it cost, and what was said: without numbers and paths, with its count."""

    fault: str
    times: int = 0
    lost: int = 0
    believed: int = 0
    said: Counter = field(default_factory=Counter)

    def saw(self, code: int, text: str) -> None:
        """One fault and its end: an exit code (negative: a signal), and what was written."""
        self.times += 1
        lines = [line for line in text.splitlines() if line.startswith(("error", "Traceback", "interrupted"))]
        if any(line.startswith("Traceback") for line in lines) or (code > 0 and len(lines) != 1):
            lines = [f"NOT ONE LINE: exit code {code} | " + " | ".join(text.splitlines())]
        self.said[self._plain(lines[-1]) if lines else "nothing: killed" if code < 0 else "nothing: it went on"] += 1

    @staticmethod
    def _plain(text: str) -> str:
        text = re.sub(r"(?<![\w.])/[\w./+-]+", lambda found: "…/" + re.sub(r"[0-9a-f]{12}", "RUN", Path(found[0]).name), text)
        return re.sub(r"\d+", "N", text)


# ---------------------------------------------------------------- how things are run, killed, looked at

def forked(work: Callable[[], int], said: Path, before: Callable[[], None] = lambda: None) -> int:
    """Start ``work`` in a process and a session of its own; what it writes goes to a file."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        with said.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        before()
        code = work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process and all of its session; its exit code, or minus the signal."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return code


def killed(work: Callable[[], int], said: Path, after: float) -> int:
    """Run ``work`` and SIGKILL it and all it has started after so many seconds, if it still runs."""
    pid, deadline = forked(work, said), time.monotonic() + after
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return ended(pid)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return ended(pid)


def at_write(number: int) -> Callable[[], None]:
    """Kills the process at its n-th step of writing: before or after it syncs, renames, removes or makes something."""
    def arm() -> None:
        left = [number]

        def deadly(call):
            def instead(*arguments, **named):
                left[0] -= 1
                if left[0] == 0:
                    os.killpg(0, signal.SIGKILL)
                result = call(*arguments, **named)
                left[0] -= 1
                if left[0] == 0:
                    os.killpg(0, signal.SIGKILL)
                return result
            return instead

        for name in ("fsync", "replace", "unlink", "mkdir"):
            setattr(os, name, deadly(getattr(os, name)))
    return arm


def command(*words: object) -> Callable[[], int]:
    return lambda: cli.main([str(word) for word in words])


def until_done(tally: Tally, work: Callable[[], int], said: Path, check: Callable[[], None], seconds: float, rng: random.Random,
               writes: int) -> None:
    """Kill ``work`` at a random moment, or at a random step of writing, check, and let it end."""
    if rng.random() < 0.5:
        code = killed(work, said, rng.uniform(0, seconds))
    else:
        code = ended(forked(work, said, at_write(rng.randint(1, writes))))
    if code < 0:  # else it had ended before
        tally.saw(code, "")
    check()
    if (code := ended(forked(work, said))) != 0:
        tally.lost += 1
        tally.said["THE SAME COMMAND FAILED: " + said.read_text(errors="replace")[-200:]] += 1
    check()


def essence(record: dict) -> dict:
    return json.loads(json.dumps({name: record[name] for name in ("config", "test_accuracy", "history", "test_predictions")}))


def sweep_of(folder: Path, *more: object, seeds: int = 3) -> tuple[list[RunConfig], Callable[[], int]]:
    """A small sweep and its command, in this process unless ``more`` says otherwise."""
    configs = [RunConfig.create("smoke", method=method, seed=seed, **SMALL) for method in ("plain", "dnm") for seed in range(seeds)]
    words = ["train", "--profile", "smoke", *OPTIONS, "--methods", "plain", "dnm", "--seeds", *range(seeds), "--runs", folder]
    return configs, command(*words, *(more or ("--jobs", 1)))


class Watch:
    """Finished runs of a store: what is finished stays byte for byte, and is what an undisturbed run gives."""

    def __init__(self, tally: Tally, store: RunStore, configs: list[RunConfig], expected: dict[str, dict]):
        self.tally, self.store, self.configs, self.expected, self.before = tally, store, configs, expected, {}

    def __call__(self) -> None:
        now = {}
        for config in self.configs:
            path = self.store.result_path(config)
            if record := self.store.stored(config):
                now[path] = path.read_bytes()
                self.tally.believed += essence(record) != self.expected[config.hash]
        self.tally.lost += sum(now.get(path) != content for path, content in self.before.items())
        self.before = now

    def settled(self, work: Callable[[], int], said: Path, before: Callable[[], None] = lambda: None) -> None:
        """The same command again ends well, with every run there."""
        self()
        self.tally.lost += ended(forked(work, said, before)) != 0
        self()
        self.tally.lost += len(self.before) != len(self.configs)


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A disk of so many bytes, in memory."""
    folder = Path(tempfile.mkdtemp())
    done = subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if done.returncode:
        folder.rmdir()
        raise PermissionError(done.stderr.decode())
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "-l", folder], check=True)
        folder.rmdir()


def fill(folder: Path, left: int) -> None:
    """Leave about so many bytes free."""
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(4096, shutil.disk_usage(folder).free - left))


# ---------------------------------------------------------------- what there is to break

class Bench:
    """What the faults work on, made once: undisturbed results, a table, a model and its predictions."""

    def __init__(self, folder: Path):
        self.folder, data = folder, load_dataset("builtin")
        self.said = folder / "said.txt"
        configs, work = sweep_of(folder / "whole")
        started = time.perf_counter()
        assert ended(forked(work, self.said)) == 0, self.said.read_text()
        self.seconds = time.perf_counter() - started
        self.expected = {config.hash: essence(RunStore(folder / "whole").stored(config)) for config in configs}
        self.table, self.long = folder / "table.csv", folder / "long.csv"
        names = [data.label_names[y] for y in data.train.labels]
        write_table(self.table, ["text", "label"], zip(data.train.texts[:120], names, strict=False))
        write_table(self.long, ["id", "text"], enumerate(data.train.texts[:400]))
        self.model = folder / "model"
        assert ended(forked(self.fit(self.model), self.said)) == 0, self.said.read_text()
        self.probabilities = DNMClassifier.load(self.model).predict_proba(data.train.texts[:20])
        self.texts = data.train.texts[:20]
        stream.SIZE = 20
        assert ended(forked(self.predict(folder / "whole.csv"), self.said)) == 0, self.said.read_text()
        self.predicted = (folder / "whole.csv").read_bytes()

    def fit(self, out: Path) -> Callable[[], int]:
        return command("fit", self.table, "--out", out, "--encoder", "cnn", "--steps", 20, "--batch-size", 12, "--max-length", 64)

    def predict(self, out: Path) -> Callable[[], int]:
        return command("predict", self.model, self.long, "--out", out)

    def fresh(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def sweep(self, tally: Tally, folder: Path, *more: object) -> tuple[list[RunConfig], Callable[[], int], Watch]:
        configs, work = sweep_of(folder, *more)
        return configs, work, Watch(tally, RunStore(folder), configs, self.expected)

    def whole_model(self, tally: Tally, folder: Path, needed: bool = False) -> None:
        """A model that loads is the whole one."""
        try:
            model = DNMClassifier.load(folder)
        except DnmError:
            tally.lost += needed
            return
        tally.believed += not (model.predict_proba(self.texts) == self.probabilities).all()


def write_table(path: Path, header: list[str], rows) -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


# ---------------------------------------------------------------- SIGKILL

def kill_training(bench: Bench, times: int, rng: random.Random) -> Tally:
    """SIGKILL while one run trains, with a checkpoint after every step; resumed bit for bit"""
    tally, config = Tally("SIGKILL, a training"), RunConfig.create("smoke", method="dnm", **SMALL | dict(steps=60))
    started, whole = time.perf_counter(), essence(fit(config)[0])
    seconds = 3 * (time.perf_counter() - started)
    while tally.times < times:
        folder = bench.fresh()

        def train(folder=folder) -> int:
            write_json(folder / "result.json", fit(config, checkpoint=folder / "c.safetensors", checkpoint_seconds=0)[0])
            return 0

        for _ in range(3):
            if (code := killed(train, bench.said, rng.uniform(0, seconds / 3))) < 0:
                tally.saw(code, "")
        assert ended(forked(train, bench.said)) == 0, bench.said.read_text()
        tally.lost += essence(read_json(folder / "result.json")) != whole
        shutil.rmtree(folder)
    return tally


def kill_sweep(bench: Bench, times: int, rng: random.Random) -> Tally:
    """SIGKILL of a sweep in one process, at any moment or at a step of writing"""
    tally = Tally("SIGKILL, a sweep")
    while tally.times < times:
        folder = bench.fresh()
        _, work, watch = bench.sweep(tally, folder)
        until_done(tally, work, bench.said, watch, bench.seconds, rng, 60)
        tally.lost += len(watch.before) != len(watch.configs)
        shutil.rmtree(folder)
    return tally


def kill_workers(bench: Bench, times: int, rng: random.Random) -> Tally:
    """SIGKILL of one worker of two, as a machine out of memory does; the sweep goes on by itself"""
    tally = Tally("SIGKILL, a worker (out of memory)")
    while tally.times < times:
        folder = bench.fresh()
        configs, work, watch = bench.sweep(tally, folder, "--jobs", 2)
        pid, over, store = forked(work, bench.said), threading.Event(), RunStore(folder)

        def hunt(store=store, pid=pid, over=over) -> None:
            until = time.monotonic() + 60
            while not over.wait(rng.uniform(0, 0.3)) and time.monotonic() < until:
                if prey := [note["process"] for note in store.notes().values() if note["process"] != pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(prey), signal.SIGKILL)
                    return

        thread = threading.Thread(target=hunt)
        thread.start()
        code = ended(pid)
        over.set()
        thread.join()
        tally.saw(code, bench.said.read_text(errors="replace"))
        watch()
        tally.lost += len(watch.before) != len(configs)
        shutil.rmtree(folder)
    return tally


def kill_fit(bench: Bench, times: int, rng: random.Random) -> Tally:
    """SIGKILL of ``dnm fit``, every other time where another model lies already"""
    tally = Tally("SIGKILL, `dnm fit`")
    while tally.times < times:
        folder = bench.fresh()
        if tally.times % 2:
            shutil.copytree(bench.model, folder / "model")
        until_done(tally, bench.fit(folder / "model"), bench.said, lambda folder=folder: bench.whole_model(tally, folder / "model"),
                   bench.seconds, rng, 50)
        bench.whole_model(tally, folder / "model", needed=True)
        shutil.rmtree(folder)
    return tally


def kill_predict(bench: Bench, times: int, rng: random.Random) -> Tally:
    """SIGKILL of ``dnm predict FILE``"""
    tally = Tally("SIGKILL, `dnm predict`")
    while tally.times < times:
        out = bench.fresh() / "out.csv"
        until_done(tally, bench.predict(out), bench.said, lambda: None, 1.5, rng, 100)
        tally.lost += not out.exists()
        tally.believed += out.exists() and out.read_bytes() != bench.predicted
        shutil.rmtree(out.parent)
    return tally


def kill_study(bench: Bench, times: int, rng: random.Random) -> Tally:
    """SIGKILL of ``dnm study``, again and again until it is done: its runs, side by side, and its notebooks"""
    tally, folder = Tally("SIGKILL, `dnm study`"), bench.fresh()
    words = [sys.executable, "-m", "dnm", "study", "--profile", "smoke", "--runs", folder / "runs", "--out", folder / "out"]
    before: dict[Path, bytes] = {}
    for number in range(times + 1):
        with bench.said.open("wb") as file:
            process = subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(None if number == times else rng.uniform(1, 12))
        family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        for one in (*family, process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        code = process.wait()
        if number < times:
            tally.saw(code, bench.said.read_text(errors="replace"))
        now = {path: path.read_bytes() for path in (folder / "runs").glob("[0-9a-f]*.json")}
        tally.believed += sum(not readable(path) for path in now)
        tally.lost += sum(now.get(path) != content for path, content in before.items())
        before = now
    tally.lost += code != 0 or not (folder / "out" / "report.html").exists()
    return tally


def readable(path: Path) -> bool:
    try:
        return "history" in read_json(path)
    except ValueError:
        return False


def kill_kernel(bench: Bench, times: int, rng: random.Random) -> Tally:
    """SIGKILL of the kernel of a notebook that ``dnm run`` executes"""
    tally = Tally("SIGKILL, a notebook's kernel")
    while tally.times < times:
        out = bench.fresh()
        work = command("run", "01", "--out", out)
        pid, deadline = forked(work, bench.said), time.monotonic() + 60
        kernel = None
        while not kernel and time.monotonic() < deadline:
            with contextlib.suppress(psutil.Error):
                kernel = next((one for one in psutil.Process(pid).children(recursive=True) if "ipykernel" in " ".join(one.cmdline())), None)
            time.sleep(0.01)
        time.sleep(rng.uniform(0.2, 3))
        with contextlib.suppress(psutil.Error, AttributeError):
            kernel.kill()
        tally.saw(ended(pid), bench.said.read_text(errors="replace"))
        tally.lost += ended(forked(work, bench.said)) != 0
        shutil.rmtree(out)
    return tally


def kill_scheduler(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A Dask scheduler that dies under a sweep"""
    tally, dask = Tally("SIGKILL, a Dask scheduler"), [sys.executable, "-m", "dask"]
    while tally.times < times:
        folder = bench.fresh()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        address, quiet = f"tcp://127.0.0.1:{port}", dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        scheduler = subprocess.Popen([*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"], **quiet)
        worker = subprocess.Popen([*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"], **quiet)
        configs, work, watch = bench.sweep(tally, folder / "runs")

        def on_cluster(configs=configs, store=watch.store, address=address) -> int:
            try:
                run_all(configs, store, cluster=address)
            except DnmError as error:  # as the command line says it
                print(f"error: {error}", file=sys.stderr)
                return 2
            return 0

        pid = forked(on_cluster, bench.said)
        deadline = time.monotonic() + 60
        while not RunStore(folder / "runs").notes() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        scheduler.kill()
        for _ in range(1200):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.1)
        else:
            os.killpg(pid, signal.SIGKILL)
        tally.saw(ended(pid), bench.said.read_text(errors="replace"))
        for process in (scheduler, worker):
            process.kill()
            process.wait()
        watch.settled(work, bench.said)
        shutil.rmtree(folder, ignore_errors=True)
    return tally


# ---------------------------------------------------------------- disks

def writers(bench: Bench, folder: Path) -> dict[str, Callable[[], int]]:
    """Every kind of write, into a folder."""
    return {"results and models": command("train", "--profile", "smoke", *OPTIONS, "--methods", "plain", "--seeds", "0", "--runs",
                                          folder / "runs", "--save-models", "--jobs", 1),
            "kept results": command("train", "--profile", "smoke", *OPTIONS, "--methods", "plain", "dnm", "--seeds", 0, 1, 2,
                                    "--runs", bench.folder / "whole", "--results", folder / "kept.json", "--jobs", 1),
            "a classifier": bench.fit(folder / "model"), "predictions": bench.predict(folder / "out.csv"),
            "tables and figures": command("report", bench.folder / "whole", "--out", folder / "report"),
            "a comparison": command("compare", bench.table, "--methods", "logreg", "plain", "--encoder", "minilm", "--folds", 2,
                                    "--repeats", 1, "--steps", 2, "--jobs", 1, "--out", folder / "compare"),
            "notebooks": command("run", "01", "--out", folder / "batch")}


def full_disk(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A disk that is full after a random number of bytes, at every kind of write"""
    tally = Tally("a full disk")
    for name in writers(bench, bench.folder):
        for _ in range(max(1, times // 7) if name not in ("notebooks", "a comparison") else max(1, times // 25)):
            with small_disk(256 << 20) as folder:
                work = writers(bench, folder)[name]
                fill(folder, rng.choice([0, 4096, rng.randrange(60_000), rng.randrange(4_000_000)]))
                code = ended(forked(work, bench.said))
                tally.saw(code, bench.said.read_text(errors="replace"))
                if code == 0:
                    continue
                tally.lost += len([*folder.rglob("*.tmp")])
                (folder / "filler").unlink()
                if (code := ended(forked(work, bench.said))) != 0:
                    tally.lost += 1
                    tally.said["THE SAME COMMAND FAILED: " + bench.said.read_text(errors="replace")[-200:]] += 1
                tally.believed += (folder / "out.csv").exists() and (folder / "out.csv").read_bytes() != bench.predicted
                if (folder / "model").exists():
                    bench.whole_model(tally, folder / "model", needed=True)
    return tally


def read_only(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A folder that cannot be written to, at every kind of write"""
    tally = Tally("a read-only folder")
    for _ in range(max(1, times // 10)):
        with small_disk(1 << 20) as folder:
            subprocess.run(["/bin/mount", "-o", "remount,ro", folder], check=True)
            for work in writers(bench, folder).values():
                tally.saw(ended(forked(work, bench.said)), bench.said.read_text(errors="replace"))
    return tally


def no_temporary_space(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A full folder for temporary files"""
    tally = Tally("no space for temporary files")
    while tally.times < times:
        with small_disk(1 << 20) as folder:
            fill(folder, 0)

            def there(folder=folder) -> None:
                os.environ["TMPDIR"] = tempfile.tempdir = str(folder)

            out = bench.fresh()
            _, work, watch = bench.sweep(tally, out / "runs", "--jobs", 2)
            works = [work, bench.predict(out / "out.csv"), command("run", "01", "--out", out / "batch")]
            for work in works[:times - tally.times]:
                tally.saw(ended(forked(work, bench.said, there)), bench.said.read_text(errors="replace"))
            watch()
            tally.believed += (out / "out.csv").exists() and (out / "out.csv").read_bytes() != bench.predicted
            shutil.rmtree(out)
    return tally


def no_locks(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A store on a file system without locks, and a sweep on it that is killed"""
    tally = Tally("a file system without locks")

    def lockless() -> None:
        import fcntl

        def refuse(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        fcntl.flock = refuse
        disk._has_locks.cache_clear()

    while tally.times < times:
        folder = bench.fresh()
        _, work, watch = bench.sweep(tally, folder)

        def here(work=work) -> int:
            lockless()
            return work()

        tally.saw(killed(here, bench.said, rng.uniform(0, bench.seconds)), bench.said.read_text(errors="replace"))
        watch.settled(here, bench.said)
        shutil.rmtree(folder)
    return tally


def two_at_once(bench: Bench, times: int, rng: random.Random) -> Tally:
    """Two commands on one store, one of them killed: each run is trained once, or taken up"""
    tally = Tally("two commands on one store, one killed")
    while tally.times < times:
        folder = bench.fresh()
        _, work, watch = bench.sweep(tally, folder)
        other = forked(work, bench.folder / "other.txt")
        code = killed(work, bench.said, rng.uniform(0, 2 * bench.seconds))
        tally.saw(code, bench.said.read_text(errors="replace"))
        tally.lost += ended(other) != 0
        watch()
        tally.lost += len(watch.before) != len(watch.configs)
        shutil.rmtree(folder)
    return tally


def clock_back(bench: Bench, times: int, rng: random.Random) -> Tally:
    """The clock is set back ten years, or files are of the future, between a kill and the same command"""
    tally = Tally("the clock set back")
    real = time.time
    while tally.times < times:
        folder = bench.fresh()
        _, work, watch = bench.sweep(tally, folder)
        tally.saw(killed(work, bench.said, rng.uniform(0, bench.seconds)), bench.said.read_text(errors="replace"))
        watch()
        for path in folder.rglob("*"):
            os.utime(path, (real() + rng.uniform(-1, 1) * 3e8,) * 2)

        def back() -> None:
            time.time = lambda: real() - 3e8

        watch.settled(work, bench.said, back)
        shutil.rmtree(folder)
    return tally


def little_memory(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A process that is refused memory in the middle of its work"""
    tally = Tally("no memory")
    while tally.times < times:
        folder = bench.fresh()
        _, work, watch = bench.sweep(tally, folder)
        most = psutil.Process().memory_info().vms + rng.randrange(300_000_000)

        def tight(most=most) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

        tally.saw(ended(forked(work, bench.said, tight)), bench.said.read_text(errors="replace"))
        watch.settled(work, bench.said)
        shutil.rmtree(folder)
    return tally


# ---------------------------------------------------------------- damaged files

def damaged(content: bytes, times: int, rng: random.Random, header: int) -> Iterator[bytes]:
    """The content cut at every byte of its header and at random elsewhere, and with a bit flipped, as often."""
    places = [*range(min(header, len(content))), *(rng.randrange(len(content)) for _ in range(times))]
    for place in rng.sample(places, min(len(places), 3 * times)):
        yield content[:place]
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        yield bytes(flipped)


def damaged_results(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A stored result, cut or with a bit flipped"""
    tally, config = Tally("a damaged result"), RunConfig.create("smoke", method="plain", seed=0, **SMALL)
    store = RunStore(bench.fresh())
    whole = (bench.folder / "whole" / f"{config.hash}.json").read_bytes()
    for content in damaged(whole, 10 * times, rng, len(whole)):
        store.folder.mkdir(exist_ok=True)
        store.result_path(config).write_bytes(content)
        found = store.stored(config)
        tally.times += 1
        tally.said["trained again" if found is None else "read: what is stored is unharmed"] += 1
        tally.believed += found is not None and essence(found) != bench.expected[config.hash]
    return tally


def damaged_checkpoints(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A checkpoint, cut or with a bit flipped"""
    tally, config = Tally("a damaged checkpoint"), RunConfig.create("smoke", method="dnm", **SMALL | dict(encoder=str(tiny_bert(bench.folder))))
    path, whole, stop = bench.fresh() / "c.safetensors", essence(fit(config)[0]), threading.Event()
    with contextlib.suppress(DnmError):
        fit(config, checkpoint=path, stop=stop, on_progress=lambda run: run.step >= 15 and stop.set())
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for changed in damaged(content, times, rng, header):
        path.write_bytes(changed)
        try:
            tensors, state = disk.load_tensors(path, "delete it")
            tally.said["read: what is stored is unharmed"] += 1
            path.write_bytes(content)
            expected = disk.load_tensors(path, "delete it")
            tally.believed += state != expected[1] or tensors.keys() != expected[0].keys() or any(
                not t.equal(expected[0][name]) for name, t in tensors.items())
        except DnmError as error:
            tally.saw(2, f"error: {error}")
            tally.times -= 1
        tally.times += 1
    path.write_bytes(content)
    tally.lost += essence(fit(config, checkpoint=path)[0]) != whole
    return tally


def damaged_models(bench: Bench, times: int, rng: random.Random) -> Tally:
    """Each file of a saved model, cut or with a bit flipped"""
    tally, folder = Tally("a damaged model"), bench.fresh() / "model"
    shutil.copytree(bench.model, folder)
    files = [path for path in folder.rglob("*") if path.name in ("config.json", "head.safetensors", "tokenizer.json", "tokenizer_config.json")
             and (path.parent.name == "encoder" or path.name in ("config.json", "head.safetensors"))]
    for path in files:
        content = path.read_bytes()
        for changed in damaged(content, max(1, times // 2), rng, 2000):
            path.write_bytes(changed)
            tally.times += 1
            try:
                model = DNMClassifier.load(folder)
                same = (model.predict_proba(bench.texts) == bench.probabilities).all() and model.classes_.tolist() == ["disappointed", "pleased"]
                tally.believed += not same
                tally.said["read: what is stored is unharmed"] += 1
            except DnmError as error:
                tally.saw(2, f"error: {error}")
                tally.times -= 1
        path.write_bytes(content)
    return tally


def damaged_notes(bench: Bench, times: int, rng: random.Random) -> Tally:
    """What an interrupted prediction has left, its note or its rows, cut or with a bit flipped"""
    tally = Tally("a damaged half of predictions")
    out = bench.fresh() / "out.csv"
    part, note = (out.with_name(f"out.csv{end}") for end in (".part", ".part.json"))
    while not (part.exists() and note.exists()):
        killed(bench.predict(out), bench.said, rng.uniform(0.2, 1.2))
        out.unlink(missing_ok=True)
    kept = {part: part.read_bytes(), note: note.read_bytes()}
    secured = read_json(note)["bytes"]  # what lies behind is written anew
    for path, changed in [(note, one) for one in damaged(kept[note], times, rng, len(kept[note]))] + [
            (part, one) for one in damaged(kept[part][:secured], times // 3, rng, 0)]:
        for file, content in kept.items():
            file.write_bytes(content)
        path.write_bytes(changed)
        tally.saw(ended(forked(bench.predict(out), bench.said)), bench.said.read_text(errors="replace"))
        tally.lost += not out.exists()
        tally.believed += out.exists() and out.read_bytes() != bench.predicted
        out.unlink(missing_ok=True)
    return tally


def damaged_data(bench: Bench, times: int, rng: random.Random) -> Tally:
    """A data file that is cut or has a bit flipped after runs on it: those runs are not taken for its runs"""
    import pandas as pd

    tally, folder = Tally("a damaged data file"), bench.fresh()
    frame = pd.read_csv(bench.table)
    frame.to_parquet(folder / "t.parquet"), frame.to_excel(folder / "t.xlsx", index=False)
    frame.to_csv(folder / "t.csv.gz", index=False), frame.to_json(folder / "t.json", orient="records"), frame.to_csv(folder / "t.csv", index=False)
    for path in sorted(folder.glob("t.*")):
        content, whole = path.read_bytes(), load_dataset(str(path)).fingerprint
        for changed in damaged(content, times, rng, 64):
            path.write_bytes(changed)
            tally.times += 1
            try:
                found = load_dataset(str(path))
            except DnmError as error:
                tally.saw(2, f"error: {error}")
                tally.times -= 1
                continue
            texts = [text for split in (found.train, found.validation, found.test) for text in split.texts]
            same = sorted(texts) == sorted(frame.text)
            tally.said["read, with the same sentences" if same else "read as other data: its runs are trained anew"] += 1
            tally.believed += found.fingerprint == whole and not same
        path.write_bytes(content)
    return tally


def tiny_bert(folder: Path) -> Path:
    import torch
    import transformers

    from dnm.data.hub import minilm_folder

    if not (folder / "bert").exists():
        torch.manual_seed(3)
        tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder())
        size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
        transformers.BertModel(transformers.BertConfig(**size, vocab_size=tokenizer.vocab_size, max_position_embeddings=140)).save_pretrained(folder / "bert")
        tokenizer.save_pretrained(folder / "bert")
    return folder / "bert"


# The share of ``--times`` that each is made, as some take long.
FAULTS = {kill_training: 1, kill_sweep: 1, kill_workers: 0.4, kill_fit: 1, kill_predict: 1, kill_study: 1, kill_kernel: 0.2,
          kill_scheduler: 0.1, full_disk: 1, read_only: 0.2, no_temporary_space: 0.1, no_locks: 0.2, two_at_once: 0.4, clock_back: 0.2,
          little_memory: 0.4, damaged_results: 1, damaged_checkpoints: 1, damaged_models: 1, damaged_notes: 1, damaged_data: 1}


def page(tallies: list[Tally], shown: str) -> str:
    rows = [f"| {t.fault} | {t.times} | {t.lost} | {t.believed} | " + "; ".join(
        f"{text} ({count})" for text, count in t.said.most_common(4)).replace("|", "\\|") + " |" for t in tallies]
    total = [sum(getattr(t, name) for t in tallies) for name in ("times", "lost", "believed")]
    return "\n".join([
        "# Faults made on purpose", "", f"`{shown}`, on a small CNN and the built-in notes. *Lost* is finished work that was gone or "
        "changed after the fault and the same command; *believed* is something half-written or damaged that was taken for whole. "
        "Numbers in messages stand as N, folders as `…`; of many messages the four commonest are shown. A data file has no checksum: *believed* "
        "means there that other sentences were taken for the same file's.", "", "| fault | times | lost | believed | what the user saw |",
        "|---|---|---|---|---|", *rows, f"| **all** | **{total[0]:,}** | **{total[1]}** | **{total[2]}** | |", ""])


def main() -> int:
    wanted = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    wanted.add_argument("--times", type=int, default=50)
    wanted.add_argument("--only", nargs="+", choices=[fault.__name__ for fault in FAULTS], help="default: all")
    wanted.add_argument("--seed", type=int, default=0)
    wanted.add_argument("--out", type=Path, help="a page (.md); the figures go beside it as .json")
    options = wanted.parse_args()
    os.environ["BROWSER_PATH"] = "/bin/false"  # nobody looks at the pictures
    kept = options.out.with_suffix(".json") if options.out else None
    before = read_json(kept)["faults"] if kept and kept.exists() else []
    tallies = [Tally(**one | {"said": Counter(one["said"])}) for one in before]  # of other faults, by an earlier call
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for fault, share in FAULTS.items():
            if options.only and fault.__name__ not in options.only:
                continue
            started = time.perf_counter()
            try:
                tally = fault(bench, max(1, round(share * options.times)), random.Random(f"{options.seed} {fault.__name__}"))
            except PermissionError as error:
                print(f"{fault.__name__}: not made ({error})", flush=True)
                continue
            tallies = [one for one in tallies if one.fault != tally.fault] + [tally]
            print(f"{tally.fault}: {tally.times} times, lost {tally.lost}, believed {tally.believed}, "
                  f"{time.perf_counter() - started:.0f} s\n  " + "\n  ".join(f"{n} x {text}" for text, n in tally.said.most_common()), flush=True)
            if options.out:
                shown = "python tests/faults.py" + "".join(f" --{n} {v}" for n, v in (("times", options.times), ("seed", options.seed)))
                options.out.write_text(page(tallies, shown), encoding="utf-8")
                write_json(options.out.with_suffix(".json"), {"command": shown, "faults": [vars(t) for t in tallies]}, indent=1)
    return int(any(t.lost or t.believed or any("NOT ONE LINE" in text for text in t.said) for t in tallies))


if __name__ == "__main__":
    sys.exit(main())
