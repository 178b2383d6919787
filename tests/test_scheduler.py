"""The scheduler: killed workers, two commands on one store, resume, failures, Ctrl-C, and a real Dask cluster."""

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from dnm.config import RunConfig
from dnm.errors import DnmError
from dnm.runs.plan import expected_seconds, plan, units
from dnm.runs.progress import Status, duration, in_terminal
from dnm.runs.scheduler import ATTEMPTS, RunsFailed, _Sweep, run_all
from dnm.runs.store import RunStore
from dnm.runs.workers import StopFile
from dnm.study.experiments import experiment

SEEDS = 3


def essence(record: dict) -> dict:
    return {name: record[name] for name in ("config", "test_accuracy", "history", "test_predictions")}


@pytest.fixture
def table(tiny_models, tmp_path):
    """The command of a small sweep (4 methods x 3 seeds, about a second each), its runs and their store."""
    encoder = str(tiny_models["bert"])
    configs = experiment("table8", encoder=encoder, profile="smoke", datasets=["builtin"], sizes=["24"], seeds=tuple(range(SEEDS)))
    command = [sys.executable, "-m", "dnm", "paper", "table8", "--encoder", encoder, "--profile", "smoke", "--datasets",
               "builtin", "--sizes", "24", "--seeds", *map(str, range(SEEDS)), "--runs", str(tmp_path / "runs"), "--out",
               str(tmp_path / "out"), "--jobs", "2"]
    return command, configs, RunStore(tmp_path / "runs")


def start(command: list[str], **more) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": str(Path(sys.executable).parent)}  # no Chromium: nobody looks at PNG figures
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                            env=environment, **more)


def wait_for(condition, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def training(store: RunStore, configs: list[RunConfig]) -> dict[str, int]:
    """The processes that train now, by the hash of their run."""
    wanted = {config.hash for config in configs}
    return {run: note["process"] for run, note in store.notes().items() if run in wanted}


def finished(store: RunStore, configs: list[RunConfig]) -> list[Path]:
    return [store.result_path(c) for c in configs if store.result_path(c).exists()]


def counts(errors: str) -> tuple[int, int]:
    """Runs finished and runs reused, from the last line of the progress."""
    done, _, reused = re.findall(r"(\d+)/(\d+) runs \((\d+) reused", errors)[-1]
    return int(done), int(reused)


def test_a_killed_worker_loses_no_run_and_repeats_none(table, monkeypatch):
    command, configs, store = table
    process = start(command)
    wait_for(lambda: len(finished(store, configs)) >= 3 and training(store, configs))
    before = {path: path.read_bytes() for path in finished(store, configs)}
    pid = next(iter(training(store, configs).values()))
    assert pid != process.pid and psutil.Process(pid).ppid() != os.getpid()
    os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert len(finished(store, configs)) == len(configs) == 4 * SEEDS and "taken up again" in errors
    done, reused = counts(errors)  # what the other worker had stored but not yet told of is found in the store
    assert done == len(configs) and reused <= 1
    assert all(path.read_bytes() == content for path, content in before.items())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as many threads as the sweep had: sums are added up in the same order
    alone = run_all([configs[5]], RunStore(store.folder / "alone"), workers=1)[0]
    assert essence(alone) == essence(json.loads(store.result_path(configs[5]).read_text()))


def test_two_sweeps_share_the_work_and_a_damaged_result_is_trained_again(table):
    command, configs, store = table
    both = [start(command), start(command)]
    ends = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    (done, reused), (done_too, reused_too) = map(counts, ends)
    assert done == done_too == len(configs)
    assert (done - reused) + (done_too - reused_too) == len(configs)  # every run was trained by one of the two, once
    assert 0 < reused < len(configs)
    path = store.result_path(configs[3])
    whole = path.read_text()
    path.write_text(whole[:300])
    process = start(command)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and "trained again" in errors and counts(errors) == (len(configs), len(configs) - 1)
    assert essence(json.loads(path.read_text())) == essence(json.loads(whole))
    assert not list(store.folder.glob(".training/*")) and not list(store.folder.glob("*.checkpoint*"))


def test_ctrl_c_saves_every_workers_checkpoint_and_the_same_command_goes_on(table):
    command, configs, store = table
    command = [*command, "--results", str(store.folder / "kept.json")]
    process = start(command)
    wait_for(lambda: finished(store, configs) and len(training(store, configs)) == 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and to its workers
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "run the same command again to go on" in errors and "Traceback" not in errors
    done = len(finished(store, configs))
    assert done < len(configs) and not training(store, configs)
    process = start(command)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and counts(errors) == (len(configs), done), errors
    kept = json.loads((store.folder / "kept.json").read_text())
    assert len(kept["runs"]) == len(configs) and kept["command"].startswith("dnm paper table8") and "paper.md" in out


def test_a_failing_run_is_recorded_and_the_others_go_on(tiny, tmp_path):
    store = RunStore(tmp_path)
    good, bad = [tiny(seed=seed) for seed in range(3)], tiny(lr=1e6, head_lr=1e6)
    with pytest.raises(RunsFailed) as failed:
        run_all([bad, *good], store, workers=2)
    records, errors = failed.value.records, failed.value.errors
    assert [r["hash"] for r in records] == [c.hash for c in good] and list(errors) == [bad.hash]
    told = json.loads(store.error_path(bad).read_text())
    assert "no longer a finite number" in told["error"] and told["config"] == bad.to_dict() and "Traceback" in told["details"]
    store.put(bad, {"anything": 1})  # once it is finished, the error is gone
    assert not store.error_path(bad).exists()


def test_a_run_that_kills_its_worker_fails_alone(tiny, tmp_path):
    store = RunStore(tmp_path)
    poison, others = tiny(steps=300, eval_every=300), [tiny(seed=seed) for seed in (1, 2, 3)]
    kills, over = [], threading.Event()

    def killer():
        while not over.wait(0.01):
            if (pid := training(store, [poison]).get(poison.hash)) and pid not in kills:
                kills.append(pid)
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        with pytest.raises(RunsFailed) as failed:
            run_all([poison, *others], store, workers=2)
    finally:
        over.set()
        thread.join()
    records, errors = failed.value.records, failed.value.errors
    assert {r["hash"] for r in records} == {c.hash for c in others}
    assert len(kills) == ATTEMPTS and "died 3 times" in errors[poison.hash]
    assert store.error_path(poison).exists()


def test_a_dask_cluster_survives_the_death_of_a_worker(table, tmp_path):
    command, configs, store = table
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, dask = f"tcp://127.0.0.1:{port}", [sys.executable, "-m", "dask"]
    scheduler = start([*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], cwd=tmp_path)
    workers = [start([*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"], cwd=tmp_path)
               for _ in range(2)]
    try:
        process = start([*command, "--cluster", address])
        mine = {worker.pid for worker in workers}
        wait_for(lambda: len(finished(store, configs)) >= 2 and set(training(store, configs).values()) == mine)
        before = {path: path.read_bytes() for path in finished(store, configs)}
        workers[0].kill()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert len(finished(store, configs)) == len(configs) and counts(errors)[0] == len(configs)
        assert all(path.read_bytes() == content for path, content in before.items())
        assert workers[1].poll() is None
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.communicate()


def test_what_cannot_work_is_said_at_once(tiny, tmp_path, capsys):
    from dnm.cli import main

    with pytest.raises(DnmError, match="no Dask cluster"):
        run_all([tiny()], RunStore(tmp_path), cluster="tcp://127.0.0.1:9")
    for wrong in (["table1"], ["table2", "--jobs", "0"], ["table2", "--jobs", "many"], ["table2", "--sizes", "few"],
                  ["table2", "-p", "seed", "3"], ["table2", "-p", "stepps", "3"], ["report", "table2"]):
        assert main(["paper", *wrong, "--runs", str(tmp_path)]) == 2
    assert "table2" in capsys.readouterr().err


def test_each_process_takes_a_gpu_of_its_own(tmp_path):
    """Two processes see two (pretended) GPUs: each keeps one for itself; a third shares."""
    code = ("import os, time, torch; from dnm.runs import workers; torch.cuda.device_count = lambda: 2; workers._take_gpu();"
            "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); input()")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    processes = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                  env=environment) for _ in range(3)]
    seen = sorted(process.stdout.readline().strip() for process in processes)
    for process in processes:
        process.communicate("\n")
    assert seen == ["0", "1", "None"]


def test_the_plan_counts_what_is_done_and_estimates_the_rest(table, capsys):
    from dnm.cli import main

    command, configs, store = table
    run_all(configs[:5], store, workers=1)
    assert main([*command[3:], "--dry-run"]) == 0
    told = capsys.readouterr().out
    ours = ["train", "--encoder", "cnn", "--profile", "smoke", "--n-train", "24", "--runs", str(store.folder), "--dry-run"]
    before = {*store.folder.glob("*.json")}
    assert main(ours) == 0 and "6 runs, 0 done, 6 to do: " in capsys.readouterr().out and {*store.folder.glob("*.json")} == before
    assert plan(configs, store, kept=[{"config": c.with_(precision="float32").to_dict()} for c in configs[4:7]])[-1].startswith(
        f"{len(configs)} runs, 5 done, {len(configs) - 5} to do (2 of them kept in data/results, in some precision, for `dnm paper report`): ")
    assert f"{len(configs)} runs, 5 done, {len(configs) - 5} to do" in told
    assert "builtin, n = 24" in told and "dnm, smoke: done: seeds 0 1; to do: seeds 2" in told
    records = [json.loads(store.result_path(c).read_text()) for c in configs[:5]]
    per_unit = sorted(r["seconds"] / units(c) for r, c in zip(records, configs, strict=False))[2]
    assert expected_seconds(configs[5:], records) == pytest.approx(sum(map(units, configs[5:])) * per_unit)
    assert units(configs[0]) == 24 + 3 * 200 / (3 * 20)  # steps, and 3 evaluations of 2 x 100 sentences
    assert 0 < expected_seconds(configs[:1], []) < 600  # timed now


def test_times_are_told_in_words():
    assert [duration(s) for s in (0.2, 1, 35.4, 949, 5999, 6100, 9000, 400_000)] == [
        "0 seconds", "1 second", "35 seconds", "about 16 minutes", "about 100 minutes", "about 1.7 hours", "about 2.5 hours",
        "about 111.1 hours"]
    line = Status([RunConfig()] * 2, reused=1, training=1, seconds=60, work_done=10, work_total=170).line
    assert line == "1/2 runs (1 reused), 1 in training, about 16 minutes left"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_ends_with_one_line_and_apart_from_what_follows(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with in_terminal() as show:
        show(Status([RunConfig()], reused=1, work_total=24))
    told = capsys.readouterr().err
    assert told.count("1/1 runs (1 reused) in 0 seconds") == 1 and told.endswith("seconds" + "\n" * (1 + terminal))


# ---------------------------------------------------------------- other surroundings

@pytest.fixture
def patience():
    """A stop sign that shows after a minute, so that what waits for ever fails."""
    stop = threading.Event()
    timer = threading.Timer(60, stop.set)
    timer.start()
    yield stop
    timer.cancel()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_where_a_file_system_has_no_locks_runs_go_on_and_nobody_waits_for_the_dead(tiny, tmp_path, monkeypatch, patience, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    config, locks = tiny(method="plain"), tmp_path / ".locks"
    locks.mkdir()
    (locks / config.hash).touch()  # what a process with locks leaves behind, and what a killed one without
    code = "import filelock, os, sys; lock = filelock.SoftFileLock(sys.argv[1]); lock.acquire(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, locks / f"{config.hash}.held"], check=True)
    assert len(list(locks.iterdir())) == 2
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match=f"{re.escape(str(locks))}: {os.strerror(number)}; goes on with files as locks"):
        run_all([config], RunStore(tmp_path), workers=1, stop=patience)
    assert not list(locks.glob("*.held"))


def test_who_waits_for_anothers_run_says_so(tiny, tmp_path, patience):
    config, store = tiny(method="plain"), RunStore(tmp_path)
    held = store.lock(config)
    held.acquire()

    def listen(status: Status) -> None:
        if any(note.startswith("waits for 1 runs that another process is training") for note in status.notes):
            held.release()

    assert run_all([config], store, workers=1, on_status=listen, stop=patience)


def test_what_a_killed_process_noted_does_not_count_as_training(tiny, tmp_path):
    """Of two notes one stays as it was, a dead process's; the other's run goes on."""
    alive, dead, store = tiny(method="plain"), tiny(method="dnm"), RunStore(tmp_path)
    for config in (alive, dead):
        store.put_note(config, 1, [])
    seen = []
    sweep = _Sweep([alive, dead], store, set(), lambda status: seen.append(status.training))
    with sweep._watched(threading.Event(), StopFile(tmp_path / "stop"), seconds=0.02):
        wait_for(lambda: len(seen) > 3, 10)
        assert not any(seen)
        store.put_note(alive, 2, [])
        wait_for(lambda: seen[-1], 10)
        for config in (alive, dead):
            store.note_path(config).unlink()
        wait_for(lambda: not seen[-1], 10)
    assert max(seen) == 1 and sweep.under_way.keys() == {alive}


def test_a_store_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / ".locks" / ".dnm-lock-probe").mkdir(parents=True)  # opening it fails, for root, too
    with pytest.raises(DnmError, match=f"cannot write to {re.escape(str(tmp_path / '.locks'))}: .+; name another folder"):
        run_all([tiny(method="plain")], RunStore(tmp_path), workers=1)


def test_a_handler_of_ctrl_c_that_python_has_not_set_is_no_error(tiny, tmp_path, monkeypatch):
    install = signal.signal
    before = install(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(signal, "signal", lambda number, handler: (install(number, handler), None)[1])  # as for such a one
    run_all([tiny(method="plain")], RunStore(tmp_path), workers=1)
    assert install(signal.SIGINT, before) is signal.default_int_handler
