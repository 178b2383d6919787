"""How fast is a run? Against `transformers.Trainer` and a plain loop, in the same process, on the same sentences.

Every contestant gets the same pre-trained weights, training sentences, batches in the same order (but where grouping by
length is the point), precision and optimiser. Blocks of steps are timed in turn, in alternating order; the median block
is reported with its spread. Every factor is measured alone, too, and all of it beside a floor, from rates measured in
the same call.
"""

import gc
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from dnm import rivals
from dnm.config import RunConfig
from dnm.data import load_dataset
from dnm.errors import DnmError
from dnm.fleet import WINDOW, Fleet, fleet_size
from dnm.heads import Head, draw
from dnm.methods import get_method
from dnm.models import cpu_info
from dnm.records import device_name
from dnm.rivals import now
from dnm.store import write_atomically
from dnm.training import Run

_ENDLESS = 10 ** 6  # steps: no contestant may come to its end
_SIDE_BY_SIDE = 8  # Trainer processes on one GPU
Contest = dict[str, tuple[Callable[[int], float], int]]  # by name: seconds of a count of steps, and of how many runs


def run_bench(dataset: str, encoder: str, blocks: int = 5, steps: int = 20, sizes: list[int] | None = None,
              whole: bool = True, precisions: list[str] | None = None, out: Path | None = None) -> dict:
    """Measure, print and, at ``out``, store the tables as JSON; returns them.

    ``sizes`` are those of the fleets (default: 1, 2, 4 on a CPU, to 16 on a GPU). ``whole`` says whether to time whole
    runs, too, loading and evaluation included, each in a process of its own. ``precisions``: by default all that the
    device has instructions for.
    """
    if blocks < 1 or steps < 1:
        raise DnmError("blocks and steps must be positive")
    base = RunConfig.create("quick", dataset=dataset, encoder=encoder, n_train="all", steps=_ENDLESS)
    if encoder in ("cnn", "lstm"):
        raise DnmError(f"the Trainer has no {encoder!r}: name a pre-trained encoder")
    first = Run(base)
    gpu = first.device.type == "cuda"
    precisions = precisions or (["float32", "bfloat16"] if gpu or _has_bfloat16() else ["float32"])
    about = {"dataset": dataset, "encoder": encoder, "device": _device(first.device), "batch": base.batch_size,
             "automatic": first.precision, "blocks": blocks, "steps": steps, "torch": torch.__version__,
             "command": f"dnm {shlex.join(sys.argv[1:])}"}
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    table = about | {"heads": _heads(first.device), "floor": [], "steps": [], "evaluation": [], "whole": []}
    if not sizes:  # all of them are in memory at once
        sizes = [size for size in (1, 2, 4, 8, 16) if 2 * size <= fleet_size(base)] if gpu else [1, 2, 4]
    held_out = sum(encoded.count for encoded, _ in first.evaluated.values())
    for precision in precisions:
        config = base.with_(precision=precision)
        table["floor"].append(_floor(Run(config)))
        contest, evaluations = _contestants(config, sizes)
        table["steps"] += _race(contest, precision, blocks, steps, base.batch_size, table["floor"][-1]["milliseconds"])
        table["evaluation"] += _race(evaluations, precision, 3, 1, held_out)
        del contest, evaluations
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()  # for the processes to come
            rate = _side_by_side(config)
            print(f"  {_SIDE_BY_SIDE} Trainers side by side: {1000 / rate:.2f} ms a step and run", flush=True)
            table.setdefault("side_by_side", []).append(
                {"precision": precision, "processes": _SIDE_BY_SIDE, "milliseconds": 1000 / rate})
    del first
    if whole:
        quick = RunConfig.create("quick", dataset=dataset, encoder=encoder, method="dnm")
        for precision in precisions:
            config = quick.with_(precision=precision)
            for name, count in [("dnm", 1), ("Trainer", 1)] + [("dnm, fleet", fleet_size(config))] * gpu:
                table["whole"].append({"precision": precision} | _whole(name, config, count))
    if out:
        write_atomically(out, (json.dumps(table, indent=1) + "\n").encode())
        print(f"stored: {out}")
    return table


def _device(device: torch.device) -> str:
    """The device by its name, as a maker gives it."""
    model = re.search(r"model name\s*: (.+)", cpu_info())
    return device_name(device) if device.type == "cuda" or not model else (
        f"{model.group(1)}, {torch.get_num_threads()} threads")


def _has_bfloat16() -> bool:
    """Whether the CPU has instructions for it, be they of use or not."""
    return bool(re.search(r"avx512_bf16|amx_bf16", cpu_info()))


def _contestants(config: RunConfig, sizes: list[int]) -> tuple[Contest, Contest]:
    """Who trains, and who evaluates."""
    data = load_dataset(config.dataset)

    def run(method: str = "plain", seed: int = 0) -> Run:
        return Run(config.with_(method=method, seed=seed), data)

    plain, unpacked, untrimmed = run(), run(), run()
    unpacked.batches.share_rows = False
    untrimmed.train_words(torch.arange(len(untrimmed.model.encoder.words.table) - 1))
    ours = {"plain": plain, "dnm": run("dnm"), "plain, no packing": unpacked, "plain, whole vocabulary": untrimmed}
    contest = {name: (_steps(one), 1) for name, one in ours.items()}
    for size in sizes:
        contest[f"dnm, fleet of {size}"] = _steps(Fleet([run("dnm", seed) for seed in range(size)])), size
    if plain.device.type == "cuda":
        contest["dnm, fleet of 1, no graph"] = _steps(Fleet([run("dnm")], graph=False)), 1
    others = {"Trainer": rivals.trainer(plain), "Trainer, tuned": rivals.trainer(plain, tuned=True),
              "plain loop": rivals.loop(plain)}

    def evaluate(_: int) -> float:
        started = now(plain.device)
        for encoded, _ in plain.evaluated.values():
            plain.model.head.scores(encoded.hidden(plain.model.encoder)).argmax(-1).tolist()
        return now(plain.device) - started

    return (contest | {name: (rival.train, 1) for name, rival in others.items()},
            {"ours": (evaluate, 1)} | {name: (rival.evaluate, 1) for name, rival in others.items()})


def _steps(trainer: Run | Fleet) -> Callable[[int], float]:
    """Seconds of the second to (count + 1)-th step; the first is not counted, as with the rivals."""
    device = trainer.device

    def train(count: int) -> float:
        for run in getattr(trainer, "runs", [trainer]):
            run.step = 0  # the same batches in every block
        trainer.train_step()
        started = now(device)
        for _ in range(count):
            trainer.train_step()
        seconds = now(device) - started
        if isinstance(trainer, Fleet):  # its inputs are made for a whole window at once: a block's share of that
            started = now(device)
            trainer.load(0)
            seconds += (now(device) - started) * count / WINDOW
        return seconds

    return train


def _race(contest: Contest, precision: str, blocks: int, steps: int, sentences: int, floor: float = 0) -> list[dict]:
    """Time all in turn, forth and back; rows with milliseconds a step and run and the ratio to the Trainer."""
    print(f"{precision}: {blocks} blocks of {steps}, after one to warm up …", flush=True)
    times: dict[str, list[float]] = {name: [] for name in contest}
    for block in range(-1, blocks):
        for name, (train, runs) in list(contest.items())[::1 if block % 2 else -1]:
            seconds = train(steps)
            if block >= 0:
                times[name].append(1000 * seconds / steps / runs)
    rows = []
    for name, found in times.items():
        faster = median(its / mine for mine, its in zip(found, times["Trainer"], strict=True))
        row = {"precision": precision, "contestant": name, "milliseconds": median(found), "fastest": min(found),
               "slowest": max(found), "faster_than_trainer": faster,
               "sentences_per_second": 1000 * sentences / median(found)}
        if floor:
            row["times_the_floor"] = median(found) / floor
        rows.append(row)
        print(f"  {name:26} {row['milliseconds']:8.1f} ms ({min(found):.1f} to {max(found):.1f}), {faster:.2f} x the "
              f"Trainer's speed, {row['sentences_per_second']:.0f} sentences/s"
              + (f", {row['times_the_floor']:.2f} x the floor" if floor else ""), flush=True)
    return rows


def _floor(run: Run) -> dict:
    """What a step of a plain run takes at least: its products at the rate of large ones, AdamW at the rate of a copy.

    Real word pieces only: 6 operations a weight and word piece, 12 d in each layer for two places of a sentence that
    attend to each other; AdamW reads and writes 28 bytes a trained number.
    """
    device, dtype = run.device, torch.bfloat16 if run.precision == "bfloat16" else torch.float32
    big = 8192 if device.type == "cuda" else 2048
    square, block = torch.randn(big, big, device=device, dtype=dtype), torch.empty(64 << 20, device=device)
    other = torch.ones_like(block)
    operations = 2 * big ** 3 / _fastest(lambda: square @ square, device)
    bytes_ = 8 * len(block) / _fastest(lambda: block.copy_(other), device)
    lengths = np.stack([run.batches.lengths[run.batches(step)] for step in range(100)])
    model = run.model.encoder.model
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embeddings" not in name
                  and "pooler" not in name)
    pairs = (lengths ** 2).sum(1).mean() * model.config.num_hidden_layers
    work = 6 * weights * lengths.sum(1).mean() + 12 * model.config.hidden_size * pairs
    trained = sum(p.numel() for name, p in run.trained.items() if "pooler" not in name)
    floor = {"precision": run.precision, "tera_operations_per_second": operations / 1e12,
             "gigabytes_per_second": bytes_ / 1e9, "milliseconds": 1000 * (work / operations + 28 * trained / bytes_)}
    print("{precision}: {tera_operations_per_second:.2f} TFLOP/s, {gigabytes_per_second:.1f} GB/s, so at least "
          "{milliseconds:.1f} ms a step".format(**floor), flush=True)
    return floor


def _fastest(work: Callable, device: torch.device) -> float:
    found = []
    for _ in range(8):
        started = now(device)
        work()
        found.append(now(device) - started)
    return min(found)


def _heads(device: torch.device) -> list[dict]:
    """Milliseconds of DNM's selection, mixing and loss, forward and backward, as N, K and d grow, one at a time."""
    rows = []
    for n, k, d in [(20, 5, 384), (40, 5, 384), (80, 5, 384), (160, 5, 384), (20, 1, 384), (20, 9, 384), (20, 5, 768),
                    (20, 5, 1536)]:
        method = get_method("dnm")
        head, hidden = Head(method, d, 2, k).to(device), torch.randn(n, d, device=device, requires_grad=True)
        labels, draws, found = torch.arange(n, device=device) % 2, draw(method, n, 1.0, (1, 1), (0,)).to(device), []
        for _ in range(12):
            started = now(device)
            head.loss(hidden, labels, draws).backward()
            found.append(1000 * (now(device) - started))
        rows.append({"n": n, "k": k, "d": d, "milliseconds": median(found[2:])})
    print("DNM's head: " + "; ".join("N {n}, K {k}, d {d}: {milliseconds:.1f} ms".format(**row) for row in rows))
    return rows


def _whole(name: str, config: RunConfig, count: int) -> dict:
    """A whole run, or a fleet of ``count``, in a fresh process: seconds a run, and the most memory it held."""
    call = "rivals.whole_run(config)" if name == "Trainer" else (
        "fit([config.with_(seed=seed) for seed in range(count)] if count > 1 else config)")
    found = json.loads(_python(
        "started = time.perf_counter()\n"
        f"config, count = RunConfig.create(**json.loads(sys.argv[1])), {count}\n{call}\n"
        "gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0\n"
        "print(json.dumps([time.perf_counter() - started, gpu or rivals.most_memory()]))",
        config).communicate()[0].splitlines()[-1])
    row = {"contestant": name, "runs": count, "seconds": found[0] / count, "runs_per_hour": 3600 * count / found[0],
           "megabytes": found[1] / 1e6}
    print("  whole run, {contestant}: {seconds:.1f} s, {runs_per_hour:.0f} an hour, {megabytes:.0f} MB".format(**row),
          flush=True)
    return row


def _side_by_side(config: RunConfig, seconds: float = 20) -> float:
    """Steps a second of several Trainers at once, each in a process of its own."""
    several = [_python("train = rivals.trainer(Run(RunConfig.create(**json.loads(sys.argv[1])))).train\n"
                       "train(10); print('ready', flush=True); input(); done = steps = 0\n"
                       f"while done < {seconds}: done += train(200); steps += 200\n"
                       "print(steps / done)", config) for _ in range(_SIDE_BY_SIDE)]
    for process in several:
        process.stdout.readline()
    for process in several:
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0].splitlines()[-1]) for process in several)


def _python(code: str, config: RunConfig) -> subprocess.Popen:
    start = ("import json, sys, time, torch\nfrom dnm import rivals\nfrom dnm.config import RunConfig\n"
             "from dnm.training import Run, fit\n")
    return subprocess.Popen([sys.executable, "-c", start + code, json.dumps(config.to_dict())], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
