"""How fast is a run? Against `transformers.Trainer`, in the same process, on the same sentences.

Every contestant gets the same pre-trained weights, training sentences, batches in the same order (but where grouping by
length is the point), precision and optimiser. Blocks of steps are timed in turn, in alternating order; the median block
is reported with its spread, each factor alone, too. Steps while another program keeps the cores busy are timed in
processes of their own.
"""

import gc
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import torch

from dnm.bench import rivals
from dnm.config import RunConfig
from dnm.data.datasets import dataset_of
from dnm.disk import write_atomically
from dnm.errors import DnmError
from dnm.model import cpu_info, device_name
from dnm.runs import fleet
from dnm.training import Run


def run_bench(dataset: str, encoder: str, blocks: int = 5, steps: int = 20, sizes: list[int] | None = None,
              precisions: list[str] | None = None, out: Path | None = None) -> dict:
    """Measure, print and, at ``out``, store the tables as JSON; returns them.

    ``sizes`` are those of the fleets (default: 1, 2, 4 on a CPU, to 16 on a GPU); ``precisions``: by default all that
    the device has instructions for.
    """
    if blocks < 1 or steps < 1:
        raise DnmError("blocks and steps must be positive")
    if encoder in ("cnn", "lstm"):
        raise DnmError(f"the Trainer has no {encoder!r}: name a pre-trained encoder")
    base = RunConfig.create("quick", dataset=dataset, encoder=encoder, method="plain", n_train="all",
                            steps=10 ** 6)  # no contestant may come to its end
    run, model = Run(base), re.search(r"model name\s*: (.+)", cpu_info())
    gpu, held_out = run.device.type == "cuda", sum(encoded.count for encoded, _ in run.evaluated.values())
    if not precisions:  # instructions for bfloat16, be they of use or not
        precisions = ["float32", "bfloat16"] if gpu or re.search("avx512_bf16|amx_bf16", cpu_info()) else ["float32"]
    if not sizes:  # all of them are in memory at once
        sizes = [size for size in (1, 2, 4, 8, 16) if 2 * size <= fleet.fleet_size(base)] if gpu else [1, 2, 4]
    name = device_name(run.device) if gpu or not model else f"{model.group(1)}, {torch.get_num_threads()} threads"
    table = {"dataset": dataset, "encoder": encoder, "device": name, "batch": base.batch_size,
             "automatic": run.precision, "blocks": blocks, "steps": steps, "torch": torch.__version__,
             "command": f"dnm {shlex.join(sys.argv[1:])}"}
    print(", ".join(f"{name} {value}" for name, value in table.items()), flush=True)
    table |= {"steps": [], "evaluation": []}
    del run
    for precision in precisions:
        config = base.with_(precision=precision)
        trained, evaluated = _contestants(config, sizes)
        table["steps"] += _race(trained, config, blocks, steps, base.batch_size)
        table["evaluation"] += _race(evaluated, config, 3, 1, held_out)
        del trained, evaluated
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()
    if not gpu:
        usual = table["automatic"] if table["automatic"] in precisions else precisions[0]
        table["busy"] = _with_another_program(base.with_(precision=usual), min(blocks, 3), min(steps, 3))
    if out:
        write_atomically(out, (json.dumps(table, indent=1) + "\n").encode())
        print(f"stored: {out}")
    return table


def _contestants(config: RunConfig, sizes: list[int]) -> tuple[dict, dict]:
    """Who trains and who evaluates, by name: functions from a count to the seconds that it takes."""
    data, dnm = dataset_of(config), config.with_(method="dnm")
    plain, unpacked, untrimmed = (Run(config, data) for _ in range(3))
    unpacked.batches.share_rows = False
    untrimmed.train_words(torch.arange(len(untrimmed.model.encoder.words.table) - 1))
    ours = {"plain": plain, "dnm": Run(dnm, data), "plain, no packing": unpacked, "plain, whole vocabulary": untrimmed}
    graph = plain.device.type == "cuda" and os.environ.get("DNM_GRAPH") != "0"
    for size in sizes:
        ours[f"dnm, fleet of {size}"] = fleet.Fleet([Run(dnm.with_(seed=seed), data) for seed in range(size)], graph)
    if graph:
        ours["dnm, fleet of 1, no graph"] = fleet.Fleet([Run(dnm, data)])
    others = {"Trainer": rivals.trainer(plain), "Trainer, tuned": rivals.trainer(plain, tuned=True)}
    encoder, scores, held_out = plain.model.encoder, plain.model.head.scores, plain.evaluated.values()
    evaluations = {"ours": lambda _: rivals.seconds(plain.device, lambda: [
        scores(encoded.hidden(encoder)).argmax(-1).tolist() for encoded, _ in held_out])}
    return ({name: partial(_steps, one) for name, one in ours.items()} | {name: o.train for name, o in others.items()},
            evaluations | {name: one.evaluate for name, one in others.items()})


def _steps(trainer: Run | fleet.Fleet, count: int) -> float:
    """A run's seconds of the second to (count + 1)-th step; the first is not counted, as with the rivals."""
    for run in trainer.members:
        run.step = 0  # the same batches in every block
    trainer.train_step()
    found = rivals.seconds(trainer.device, lambda: [trainer.train_step() for _ in range(count)])
    if isinstance(trainer, fleet.Fleet):  # its inputs are made for a whole window at once: a block's share of that
        found += rivals.seconds(trainer.device, lambda: trainer.load(0)) * count / fleet.WINDOW
    return found / len(trainer.members)


def _race(contest: dict, config: RunConfig, blocks: int, steps: int, sentences: int) -> list[dict]:
    """Time all in turn, forth and back; rows with milliseconds a step and run and the ratio to the Trainer."""
    print(f"{config.precision}: {blocks} blocks of {steps}, after one to warm up …", flush=True)
    times: dict[str, list[float]] = {name: [] for name in contest}
    for block in range(-1, blocks):
        for name, train in list(contest.items())[::1 if block % 2 else -1]:
            try:
                times[name].append(1000 * train(steps) / steps)
            except RuntimeError as error:  # a CUDA graph, the GPU's memory: the others go on
                print(f"  {name} drops out: {str(error).splitlines()[0]}")
                del contest[name], times[name]
    text = ("  {contestant:26} {milliseconds:8.1f} ms ({fastest:.1f} to {slowest:.1f}), {faster_than_trainer:.2f} x "
            "the Trainer's speed, {sentences_per_second:.0f} sentences/s")
    return [_told(text, precision=config.precision, contestant=name, milliseconds=median(found), fastest=min(found),
                  slowest=max(found), sentences_per_second=1000 * sentences / median(found),
                  faster_than_trainer=median(b / a for a, b in zip(found, times["Trainer"][1:], strict=True)))
            for name, (_, *found) in times.items()]


def _told(text: str, **row) -> dict:
    """A row of a table, once it is printed."""
    print(text.format(**row), flush=True)
    return row


_START = """
import json, os, sys, threading, time, torch
from dnm.bench.race import Run, RunConfig, _steps, fleet, rivals
answers, sys.stdout = sys.stdout, sys.stderr
def say(answer): print(json.dumps(answer), file=answers, flush=True)
config = RunConfig.create(**json.loads(sys.argv[1]))
"""
_OURS = "run = Run(config)\nfor count in sys.stdin: say(_steps(run, int(count)))"
_ITS = "train = rivals.trainer(Run(config)).train\nfor count in sys.stdin: say(train(int(count)))"
_PRODUCTS = """
threading.Thread(target=lambda: os._exit(len(sys.stdin.read())), daemon=True).start()  # where nobody is left to end it
square = torch.randn(1000, 1000)
say(len(square @ square))
while True: square @ square
"""


@contextmanager
def _python(code: str, config: RunConfig, first: str = "torch") -> Iterator[Callable]:
    """A fresh Python that imports ``first`` at first, then runs ``code``: sends it a number and waits for its answer.

    OpenMP reads its settings when torch is loaded, so they are the study's only where ``first`` is dnm.
    """
    def ask(number: int = 0):
        print(number, file=process.stdin, flush=True)
        if answer := process.stdout.readline():
            return json.loads(answer)
        raise DnmError("a process of the benchmark has ended before its time; what it said stands above")

    settings = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    with subprocess.Popen([sys.executable, "-c", f"import {first}{_START}{code}", json.dumps(config.to_dict())],
                          text=True, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process, \
            ExitStack() as stack:
        stack.callback(process.kill)
        yield ask


def _with_another_program(config: RunConfig, blocks: int, steps: int) -> list[dict]:
    """Plain steps and the Trainer's, alone and while another program multiplies matrices on all cores.

    OpenMP's threads wait by spinning, by default so long that programs rob each other of the cores. `import dnm` ends
    that; the Trainer is timed as its users have it, without.
    """
    with _python(_OURS, config, "dnm") as ours, _python(_ITS, config) as its:
        race = {"plain": ours, "Trainer": its}, config, blocks, steps, config.batch_size
        print("alone, each in a process of its own; ", end="")
        alone = _race(*race)
        with _python(_PRODUCTS, config) as other:
            other()
            print("with another program on the cores; ", end="")
            busy = _race(*race)
    return [_told("  {contestant} takes {times_alone:.2f} x its time alone", **row, alone=before["milliseconds"],
                  times_alone=row["milliseconds"] / before["milliseconds"])
            for row, before in zip(busy, alone, strict=True)]


