"""How fast is a training step? Against `transformers.Trainer`, in the same process, on the same sentences.

Every contestant gets the same pre-trained weights, training sentences, batches in the same order, precision
and optimiser (AdamW, constant rate, no weight decay). Blocks of steps are timed in turn, in alternating
order; the median block is reported with its spread.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dnm.config import RunConfig
from dnm.data import load_dataset
from dnm.errors import DnmError
from dnm.hub import model_folder
from dnm.records import device_name
from dnm.store import write_atomically
from dnm.training import Run


def run_bench(dataset: str, encoder: str, blocks: int = 5, steps: int = 20, out: Path | None = None) -> list[dict]:
    """Time plain and DNM against the Trainer with dynamic padding, in float32 and in the automatic precision.

    Prints a table, stores it as JSON at ``out`` and returns its rows: milliseconds a step (median, fastest
    and slowest block) and the ratio to plain.
    """
    if blocks < 1 or steps < 1:
        raise DnmError("blocks and steps must be positive")
    base = RunConfig.create("quick", dataset=dataset, encoder=encoder, n_train="all", steps=10 ** 6)
    data, rows, seen = load_dataset(dataset), [], set()
    for asked in ("float32", "auto"):
        config = base.with_(precision=asked)
        contestants: dict[str, Callable[[int], float]] = {}
        runs = {method: Run(config.with_(method=method), data) for method in ("plain", "dnm")}
        precision = runs["plain"].precision
        if precision in seen:
            continue  # no bfloat16 in hardware: automatic is float32 again
        seen.add(precision)
        for method, run in runs.items():
            contestants[method] = lambda count, run=run: _timed(run, count)
        contestants["Trainer"] = _trainer(runs["plain"], precision == "bfloat16")
        print(f"{precision}: {blocks} blocks of {steps} steps each, after one to warm up …", flush=True)
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for block in range(-1, blocks):
            order = list(contestants.items())
            for name, train in order if block % 2 else reversed(order):
                seconds = train(steps)
                if block >= 0:
                    times[name].append(1000 * seconds / steps)
        plain = statistics.median(times["plain"])
        for name, found in times.items():
            ratios = [mine / its for mine, its in zip(found, times["plain"], strict=True)]
            rows.append({"precision": precision, "contestant": name, "milliseconds": statistics.median(found),
                         "fastest": min(found), "slowest": max(found), "ratio_to_plain": statistics.median(ratios),
                         "sentences_per_second": 1000 * config.batch_size / statistics.median(found)})
            print(f"  {name:8} {rows[-1]['milliseconds']:7.1f} ms a step (blocks {min(found):.1f} to "
                  f"{max(found):.1f}), {rows[-1]['ratio_to_plain']:.2f} x plain's {plain:.1f} ms", flush=True)
    about = {"dataset": dataset, "encoder": encoder, "device": device_name(runs["plain"].device),
             "batch": base.batch_size, "blocks": blocks, "steps": steps, "torch": torch.__version__, "rows": rows,
             "command": f"dnm bench --dataset {dataset} --encoder {encoder} --blocks {blocks} --steps {steps}"}
    print(f"{dataset}, {encoder}, batch {base.batch_size}, {about['device']}, torch {torch.__version__}")
    if out:
        write_atomically(out, (json.dumps(about, indent=1) + "\n").encode())
        print(f"stored: {out}")
    return rows


def _timed(run: Run, count: int) -> float:
    """Seconds that a run's second to (count + 1)-th batch take; the first is not counted, as with the Trainer."""
    run.step = 0
    run.train_step()
    started = _now(run.device)
    for _ in range(count):
        run.train_step()
    return _now(run.device) - started


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _trainer(run: Run, bfloat16: bool) -> Callable[[int], float]:
    """The same for `transformers.Trainer` with dynamic padding; its set-up before the first step is not counted."""
    try:
        import accelerate  # noqa: F401 (what the Trainer needs)
    except ImportError:
        raise DnmError("the benchmark's rival needs accelerate: run `pip install dnm[bench]`") from None
    import transformers as hf

    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    config, folder = run.config, model_folder(run.config.encoder)
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(run.data.label_names))
    order = np.concatenate([run.batches(step) for step in range(min(run.batches.per_epoch, 400))])
    sentences = [{"input_ids": run.batches.sentences[i].tolist(), "labels": int(run.batches.labels[i])} for i in order]
    arguments = hf.TrainingArguments(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=config.batch_size, learning_rate=config.lr,
        weight_decay=0.0, lr_scheduler_type="constant", max_steps=10 ** 6, max_grad_norm=0.0,
        bf16=bfloat16, save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        optim="adamw_torch_fused", use_cpu=run.device.type == "cpu", dataloader_pin_memory=run.device.type == "cuda")

    class InOrder(hf.Trainer):
        def _get_train_sampler(self, *_):  # the same batches in the same order as ours
            return torch.utils.data.SequentialSampler(sentences)

    class Clock(hf.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            self.times.append(_now(run.device))
            control.should_training_stop = len(self.times) > self.count

    clock = Clock()
    collate = hf.DataCollatorWithPadding(hf.AutoTokenizer.from_pretrained(folder))
    trainer = InOrder(model=model, args=arguments, train_dataset=sentences, data_collator=collate, callbacks=[clock])

    trainer.remove_callback(hf.PrinterCallback)

    def train(count: int) -> float:
        clock.times, clock.count = [], count
        trainer.train()
        return clock.times[-1] - clock.times[0]

    return train
