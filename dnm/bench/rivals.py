"""What `dnm bench` measures the study against: `transformers.Trainer`, at its defaults and tuned.

It starts from the same weights and sees the same training sentences, with AdamW at a constant rate without weight decay
or clipping. It pads each batch to its longest sentence, as the library does. It is not compiled or captured as a graph.
It has ``train(count)``, the seconds of so many steps after a first one, and ``evaluate(1)``, those of an evaluation.
"""

import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
import transformers as hf

from dnm.data.datasets import limited
from dnm.data.hub import model_folder
from dnm.errors import DnmError


def now(device: torch.device) -> float:
    """The time, once the device has done all it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """How long the device takes for that."""
    started = now(device)
    work()
    return now(device) - started


def trainer(run, tuned: bool = False) -> SimpleNamespace:
    """`transformers.Trainer`, at its defaults with dynamic padding, on the run's batches in the run's order.

    ``tuned`` groups sentences by length (so the order is its own), logs nothing, does not look for NaN after each step
    and evaluates 64 sentences at a time.
    """
    if not hf.utils.is_accelerate_available():
        raise DnmError("the benchmark's rival needs accelerate: run `pip install dnm[bench]`")
    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    (model, collate), (train, held_out) = _start(run), _examples(run)
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
                self.times.append(now(run.device))
            control.should_training_stop = state.global_step > self.count

    clock = Clock()
    fitted = hf.Trainer(model=model, args=arguments, train_dataset=train, data_collator=collate, callbacks=[clock])
    fitted.remove_callback(hf.PrinterCallback)
    if not tuned:
        fitted._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(train)
    return SimpleNamespace(train=clock.train,
                           evaluate=lambda *_: seconds(run.device, lambda: fitted.evaluate(held_out)))


def _start(run) -> tuple:
    folder, count = model_folder(run.config.encoder), len(run.data.label_names)
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=count, dtype=torch.float32)
    return model, hf.DataCollatorWithPadding(hf.AutoTokenizer.from_pretrained(folder))


def _examples(run) -> list[list[dict]]:
    """The training sentences in the order of the run's batches, and all held-out ones."""
    order = np.concatenate([run.batches(step) for step in range(min(run.batches.per_epoch, 400))])
    held_out = [limited(run.data, name, run.config.eval_limit) for name in ("validation", "test")]
    words = [run.batches.sentences[i] for i in order], run.tokenizer([*held_out[0].texts, *held_out[1].texts])
    labels = run.batches.labels[order], np.concatenate([split.labels for split in held_out])
    return [[{"input_ids": sentence.tolist(), "labels": int(label)} for sentence, label in zip(*pairs, strict=True)]
            for pairs in zip(words, labels, strict=True)]
