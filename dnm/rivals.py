"""What `dnm bench` measures the study against: `transformers.Trainer`, at its defaults and tuned, and a plain loop.

All start from the same weights and see the same training sentences, with AdamW at a constant rate without weight decay
or clipping. They pad each batch to its longest sentence, as the library does. None is compiled or captured as a graph.
"""

import contextlib
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dnm.batches import Batches, limited
from dnm.config import RunConfig
from dnm.data import Dataset, load_dataset, subset
from dnm.encoders import Tokenizer
from dnm.errors import DnmError
from dnm.hub import model_folder
from dnm.models import resolve_device


class Rival(NamedTuple):
    """``train(count)`` gives the seconds of that many steps after a first one; ``evaluate(1)`` those of an evaluation
    on all held-out sentences."""

    train: Callable[[int], float]
    evaluate: Callable[[int], float]


class Task(NamedTuple):
    """What a rival needs of a run."""

    config: RunConfig
    data: Dataset
    batches: Batches
    tokenizer: Tokenizer
    device: torch.device
    precision: str


def now(device: torch.device) -> float:
    """The time, once the device has done all it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def most_memory() -> int:
    """The most bytes that this process has held."""
    with contextlib.suppress(OSError):  # elsewhere than on Linux; there, the other figure can be the parent's
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text()).group(1))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def trainer(run, tuned: bool = False) -> Rival:
    """`transformers.Trainer`, at its defaults with dynamic padding, on the run's batches in the run's order.

    ``tuned`` groups sentences by length (so the order is its own), logs nothing, does not look for NaN after each step
    and evaluates 64 sentences at a time.
    """
    try:
        import accelerate  # noqa: F401 (what the Trainer needs)
    except ImportError:
        raise DnmError("the benchmark's rival needs accelerate: run `pip install dnm[bench]`") from None
    import transformers as hf

    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    model, collate = _start(run)
    train = [_example(run.batches.sentences[i], run.batches.labels[i]) for i in _order(run)]
    settings = dict(train_sampling_strategy="group_by_length", logging_strategy="no", logging_nan_inf_filter=False,
                    per_device_eval_batch_size=64) if tuned else {}
    arguments = hf.TrainingArguments(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=run.config.batch_size,
        learning_rate=run.config.lr, lr_scheduler_type="constant", max_steps=10 ** 6, max_grad_norm=0.0,
        bf16=run.precision == "bfloat16", save_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=run.device.type == "cpu", dataloader_pin_memory=run.device.type == "cuda", **settings)

    class InOrder(hf.Trainer):
        def _get_train_sampler(self, *given):
            return super()._get_train_sampler(*given) if tuned else torch.utils.data.SequentialSampler(train)

    class Clock(hf.TrainerCallback):
        times: list[float] = []
        count = 0

        def on_step_end(self, args, state, control, **_):
            if len(self.times) in (0, self.count):  # nobody waits for the device in between
                self.times.append(now(run.device))
            else:
                self.times.append(0.0)
            control.should_training_stop = len(self.times) > self.count

    clock = Clock()
    fitted = InOrder(model=model, args=arguments, train_dataset=train, data_collator=collate, callbacks=[clock])
    fitted.remove_callback(hf.PrinterCallback)
    held_out = _held_out(run)

    def steps(count: int) -> float:
        clock.times, clock.count = [], count
        fitted.train()
        return clock.times[-1] - clock.times[0]

    def evaluate(_: int = 1) -> float:
        started = now(run.device)
        fitted.evaluate(held_out)
        return now(run.device) - started

    return Rival(steps, evaluate)


def loop(run) -> Rival:
    """A plain PyTorch loop: pad the batch, forward, backward, step."""
    model, collate = _start(run)
    model.to(run.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=run.config.lr, weight_decay=0.0, fused=True)
    batches = _order(run).reshape(-1, run.batches.size)
    cast = torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16")

    examples = _held_out(run)

    def step(index: np.ndarray) -> None:
        batch = collate([_example(run.batches.sentences[i], run.batches.labels[i]) for i in index]).to(run.device)
        with cast:
            loss = model(**batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    def train(count: int) -> float:
        model.train()
        step(batches[0])
        started = now(run.device)
        for number in range(count):
            step(batches[(1 + number) % len(batches)])
        return now(run.device) - started

    @torch.no_grad()
    def evaluate(_: int = 1) -> float:
        model.eval()
        started = now(run.device)
        for first in range(0, len(examples), 64):
            with cast:
                model(**collate(examples[first:first + 64]).to(run.device)).logits.argmax(-1).tolist()
        return now(run.device) - started

    return Rival(train, evaluate)


def whole_run(config) -> None:
    """One run of the Trainer from loading to the last evaluation, on the run's schedule."""
    data, tokenizer = load_dataset(config.dataset), Tokenizer(model_folder(config.encoder), config.max_length)
    train = data.train.take(subset(data, config.n_train, config.seed))
    device, dtype = resolve_device(config)
    task = Task(config, data, Batches(tokenizer(train.texts), train.labels, config), tokenizer, device,
                "bfloat16" if dtype else "float32")
    rival, left = trainer(task), config.steps
    while left > 0:
        rival.train(min(config.eval_every, left) - 1)
        rival.evaluate()
        left -= config.eval_every


def _start(run) -> tuple:
    import transformers as hf

    folder = model_folder(run.config.encoder)
    model = hf.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(run.data.label_names), dtype=torch.float32)
    return model, hf.DataCollatorWithPadding(hf.AutoTokenizer.from_pretrained(folder))


def _order(run) -> np.ndarray:
    return np.concatenate([run.batches(step) for step in range(min(run.batches.per_epoch, 400))])


def _held_out(run) -> list[dict]:
    splits = [limited(run.data, name, run.config.eval_limit) for name in ("validation", "test")]
    return [_example(sentence, label) for split in splits
            for sentence, label in zip(run.tokenizer(split.texts), split.labels, strict=True)]


def _example(sentence: np.ndarray, label: int) -> dict:
    return {"input_ids": sentence.tolist(), "labels": int(label)}
