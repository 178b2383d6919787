"""How fast is a step, and an evaluation? Against `transformers.Trainer`, in the same process, on the same sentences.

Every contestant gets the same pre-trained weights, training sentences, batches in the same order (but where grouping by
length is the point), precision and optimiser. Blocks of steps are timed in turn, in alternating order; the median block
is reported with its spread, each factor alone, too. Steps while another program keeps the cores busy are timed in
processes of their own. A contestant is a function from a count to the seconds that so many steps take.
"""

import gc
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
import transformers as hf

from dnm.config import RunConfig
from dnm.data.datasets import dataset_of, limited
from dnm.data.hub import model_folder
from dnm.disk import write_atomically
from dnm.errors import DnmError
from dnm.methods import METHODS, get_method
from dnm.model import cpu_info, device_name, resolve_device
from dnm.runs import fleet
from dnm.training import Run


def run_bench(dataset: str = "builtin", encoder: str = "minilm", blocks: int = 5, steps: int = 20,
              sizes: list[int] | None = None, precisions: list[str] | None = None, out: Path | None = None) -> dict:
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
    if not gpu:
        usual = table["automatic"] if table["automatic"] in precisions else precisions[0]
        table["busy"] = _with_another_program(base.with_(precision=usual), min(blocks, 3), min(steps, 3))
    if out:
        write_atomically(out, (json.dumps(table, indent=1) + "\n").encode())
        print(f"stored: {out}")
    return table


def run_methods(dataset: str = "builtin", encoder: str = "minilm", blocks: int = 5, steps: int = 20,
                methods: list[str] | None = None, out: Path | None = None) -> dict:
    """Milliseconds of a step that mixes, of each of ``methods`` (default: all but ablations), beside a plain one's."""
    rows = [get_method(name) for name in methods or [name for name in METHODS if not name.startswith("dnm-")]]
    base = RunConfig.create("quick", dataset=dataset, encoder=encoder, method="plain", n_train="all", steps=10 ** 6)
    names = ["plain", *(row.name for row in rows if row.fine_tunes and row.name != "plain" and not row.augment)]
    contest = {name: partial(_steps, _mixing(base.with_(method=name))) for name in names}
    table = {"command": f"dnm {shlex.join(sys.argv[1:])}", "device": device_name(resolve_device(base)[0]),
             "steps": _race(contest, base, blocks, steps, base.batch_size, "plain")}
    if out:
        write_atomically(out, (json.dumps(table, indent=1) + "\n").encode())
        print(f"stored: {out}")
    return table


def _mixing(config: RunConfig) -> Run:
    """A run whose first step mixes, as if a first phase had seen every sentence."""
    run = Run(config)
    run.start = 0
    if "visits" in run.memory:
        run.memory["visits"] += 1
    return run


def _contestants(config: RunConfig, sizes: list[int]) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """Who trains and who evaluates, by name."""
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
    encoder, scores, held_out = plain.model.encoder, plain.model.head.scores, plain.evaluated.values()
    trained = {name: partial(_steps, one) for name, one in ours.items()}
    evaluated = {"ours": lambda _: _seconds(plain.device, lambda: [
        scores(encoded.hidden(encoder)).argmax(-1).tolist() for encoded, _ in held_out])}
    for name, tuned in (("Trainer", False), ("Trainer, tuned", True)):
        trained[name], evaluated[name] = rival(plain, tuned)
    return trained, evaluated


def _steps(trainer: Run | fleet.Fleet, count: int) -> float:
    """A run's seconds of the second to (count + 1)-th step; the first is not counted, as with the Trainer."""
    for run in trainer.members:
        run.step = 0  # the same batches in every block
    trainer.train_step()
    found = _seconds(trainer.device, lambda: [trainer.train_step() for _ in range(count)])
    if isinstance(trainer, fleet.Fleet):  # its inputs are made for a whole window at once: a block's share of that
        found += _seconds(trainer.device, lambda: trainer.load(0)) * count / fleet.WINDOW
    return found / len(trainer.members)


def rival(run: Run, tuned: bool = False) -> tuple[Callable, Callable]:
    """`transformers.Trainer` on the run's batches in the run's order: who trains, and who evaluates.

    It starts from the same weights, with AdamW at a constant rate without weight decay or clipping, and pads each batch
    to its longest sentence, as the library does. ``tuned`` groups sentences by length (so the order is its own), logs
    nothing, does not look for NaN after each step and evaluates 64 sentences at a time.
    """
    if not hf.utils.is_accelerate_available():
        raise DnmError("the benchmark's rival needs accelerate: run `pip install dnm[bench]`")
    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    folder, classes = model_folder(run.config.encoder), len(run.data.label_names)
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes, dtype=torch.float32)
    order = np.concatenate([run.batches(step) for step in range(min(run.batches.per_epoch, 400))])
    train = _examples([run.batches.sentences[i] for i in order], run.batches.labels[order])
    held_out = [example for name in ("validation", "test") for split in [limited(run.data, name, run.config.eval_limit)]
                for example in _examples(run.tokenizer(split.texts), split.labels)]
    settings = dict(train_sampling_strategy="group_by_length", logging_strategy="no", logging_nan_inf_filter=False,
                    per_device_eval_batch_size=64) if tuned else {}
    arguments = hf.TrainingArguments(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=run.config.batch_size,
        learning_rate=run.config.lr, lr_scheduler_type="constant", max_steps=10 ** 6, max_grad_norm=0.0,
        bf16=run.precision == "bfloat16", save_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=run.device.type == "cpu", dataloader_pin_memory=run.device.type == "cuda", **settings)

    class Clock(hf.TrainerCallback):
        def train(self, count: int) -> float:
            self.times, self.count = [], count
            fitted.train()
            return self.times[-1] - self.times[0]

        def on_step_end(self, args, state, control, **_):
            if state.global_step in (1, 1 + self.count):  # nobody waits for the device in between
                self.times.append(_now(run.device))
            control.should_training_stop = state.global_step > self.count

    clock, collate = Clock(), hf.DataCollatorWithPadding(hf.AutoTokenizer.from_pretrained(folder))
    fitted = hf.Trainer(model=model, args=arguments, train_dataset=train, data_collator=collate, callbacks=[clock])
    fitted.remove_callback(hf.PrinterCallback)
    if not tuned:
        fitted._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(train)
    return clock.train, lambda _: _seconds(run.device, lambda: fitted.evaluate(held_out))


def _examples(sentences: list[np.ndarray], labels: np.ndarray) -> list[dict]:
    return [{"input_ids": sentence.tolist(), "labels": int(label)}
            for sentence, label in zip(sentences, labels, strict=True)]


def _now(device: torch.device) -> float:
    """The time, once the device has done all it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """How long the device takes for that."""
    started = _now(device)
    work()
    return _now(device) - started


def _race(contest: dict[str, Callable], config: RunConfig, blocks: int, steps: int, sentences: int,
          rival: str = "Trainer") -> list[dict]:
    """Time all in turn, forth and back; rows with milliseconds a step and run and the ratio to ``rival``."""
    print(f"{config.precision}: {blocks} blocks of {steps}, after one to warm up …", flush=True)
    times: dict[str, list[float]] = {name: [] for name in contest}
    for block in range(-1, blocks):
        for name, train in list(contest.items())[::1 if block % 2 else -1]:
            try:
                times[name].append(1000 * train(steps) / steps)
            except RuntimeError as error:  # a CUDA graph, the GPU's memory: the others go on
                print(f"  {name} drops out: {str(error).splitlines()[0]}")
                del contest[name], times[name]
    ratio = f"faster_than_{rival.lower()}"
    text = (f"  {{contestant:26}} {{milliseconds:8.1f}} ms ({{fastest:.1f}} to {{slowest:.1f}}), {{{ratio}:.2f}} x the "
            f"speed of {rival}, {{sentences_per_second:.0f}} sentences/s")
    return [_told(text, precision=config.precision, contestant=name, milliseconds=median(found), fastest=min(found),
                  slowest=max(found), sentences_per_second=1000 * sentences / median(found),
                  **{ratio: median(b / a for a, b in zip(found, times[rival][1:], strict=True))})
            for name, (_, *found) in times.items()]


def _told(text: str, **row) -> dict:
    """A row of a table, once it is printed."""
    print(text.format(**row), flush=True)
    return row


_START = """
import json, os, sys, threading, torch
from dnm.bench.race import Run, RunConfig, _steps, rival
answers, sys.stdout = sys.stdout, sys.stderr
def say(answer): print(json.dumps(answer), file=answers, flush=True)
config = RunConfig.create(**json.loads(sys.argv[1]))
"""
_OURS = "run = Run(config)\nfor count in sys.stdin: say(_steps(run, int(count)))"
_ITS = "train, _ = rival(Run(config))\nfor count in sys.stdin: say(train(int(count)))"
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
                          text=True, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield ask
        finally:
            process.kill()


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
