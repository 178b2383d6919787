"""Fit one run: batches, steps, evaluation, checkpoints. Taught in notebook 04.

Every random number of step t is a function of the run's seed and t alone: the batch, the draws and the dropout masks.
So a resumed run is the uninterrupted one, bit for bit on the CPU, and methods that share a seed share batches, draws
and (where they encode the same rows) dropout masks.
"""

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dnm import __version__, checkpoints
from dnm.batches import Batches, Encoded
from dnm.config import RESULT_FORMAT, RunConfig
from dnm.data import augmentation, hub
from dnm.data.datasets import Dataset, dataset_of, limited, training_split
from dnm.encoders import build_encoder
from dnm.errors import DnmError, Interrupted
from dnm.heads import Head, stream
from dnm.model import Model, adamw, device_name, resolve_device
from dnm.related import memory
from dnm.selection import partners_each
from dnm.states import constant_encoder, states

COLLAPSED = 0.9  # label embeddings more alike than this make the cosine loss blind
_TURN = threading.Lock()


@contextmanager
def own_randomness(stop: threading.Event | None = None) -> Iterator[None]:
    """Training inside leaves torch's random state as it was; one at a time, as all threads share that state."""
    while not _TURN.acquire(timeout=0.2):
        if stop is not None and stop.is_set():
            raise Interrupted("stopped while waiting for another training in this process")
    try:
        with torch.random.fork_rng():
            yield
    finally:
        _TURN.release()


class Run:
    """One run in memory: data, model, optimiser and everything recorded so far."""

    def __init__(self, config: RunConfig, data: Dataset | None = None):
        self.config, self.method, self.data = config, config.row, data or dataset_of(config)
        self.device, dtype = resolve_device(config)
        self.train = training_split(self.data, config)
        batch = min(len(self.train), config.batch_size)
        self.k = partners_each(batch, config.k) if self.method.selects else config.k
        if self.k != config.k:
            warnings.warn(f"K = {config.k} needs more than {2 * config.k} sentences in a batch; with {batch} it "
                          f"becomes {self.k}", stacklevel=3)
        torch.manual_seed(stream("encoder", config.seed))
        encoder, self.tokenizer = (constant_encoder if config.frozen else build_encoder)(config)
        encoder.compute_dtype, self.weights = dtype, hub.identity(config.encoder, config.word_vectors)
        self.precision = "bfloat16" if dtype and encoder.takes_bfloat16 else "float32"
        head = Head(self.method, encoder.hidden_size, len(self.data.label_names), self.k, config.original_weight,
                    config.seed)
        self.model = Model(encoder, head)
        texts, counts, self.augmentation = augmentation.versions(
            config, self.train.texts, encoder.words.table, self.tokenizer.loaded.get_vocab())
        self.batches = Batches(self.tokenizer(texts), self.train.labels, config, encoder.share_rows,
                               encoder.words.table.shape[1], counts)
        self.model.to(self.device)
        if self.method.level == "layer" and not encoder.share_rows:
            raise DnmError(f"{self.method.name} mixes within an encoder whose sentences are packed, such as BERT or "
                           f"RoBERTa; those of {config.encoder!r} are not")
        if config.frozen:
            head.by_role = True
            self.model.states = states(encoder, self.batches.sentences, config.max_length)
        self.memory = memory.begin(self)
        self.start = memory.start(self)
        self.train_words(torch.from_numpy(np.unique(np.concatenate(self.batches.sentences))))
        self.step, self.history, self.best, self.seconds, self.failure, self.fleet = 0, [], None, 0.0, "", 1
        self.enough = False  # whoever watches may say so: the run then ends before its last step
        self.losses = torch.zeros((), device=self.device)

    def train_words(self, ids: Tensor) -> None:
        """Choose the word embeddings that are trained, and start the optimiser of all that is trained."""
        if not self.config.frozen:
            self.model.encoder.words.use(ids)
        self.trained = {name: p for name, p in (*self.model.named_parameters(), *self.memory.items())
                        if p.requires_grad}
        self.optimiser = adamw(*self.groups(), self.config)

    def groups(self) -> list[list[Tensor]]:
        """The trained parameters of the encoder, and all others."""
        return [[p for name, p in self.trained.items() if name.startswith("encoder.") == encoder]
                for encoder in (True, False)]

    @cached_property
    def evaluated(self) -> dict[str, tuple[Encoded | Tensor, Tensor]]:
        """Validation and test sentences, as far as there are any, laid out or, at rate 0, as states; class numbers."""
        found = {}
        for name in ("validation", "test"):
            if not len(split := limited(self.data, name, self.config.eval_limit)):
                continue
            held, encoder = self.tokenizer(split.texts), self.model.encoder
            found[name] = (states(encoder, held, self.config.max_length) if self.config.frozen else
                           Encoded(held, encoder.share_rows, self.config.max_length, self.device),
                           torch.from_numpy(split.labels).to(self.device))
        return found

    def train_step(self) -> Tensor:
        """One optimiser step; returns its loss without waiting for the device."""
        mixes = memory.due(self)
        inputs = tree_map(lambda stacked: stacked[0], self.batches.inputs([self.step])).to(self.device)
        inputs = inputs._replace(draws=memory.recalled(self, inputs.draws) if mixes else None)
        torch.manual_seed(stream("dropout", self.config.seed, self.step))
        loss, hidden = self.model.train().loss(inputs)
        if not mixes:
            memory.remember(self, hidden, inputs.labels)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        self.losses += loss.detach()
        return loss.detach()

    def evaluate(self, hidden: dict[str, Tensor] | None = None) -> dict:
        """One row of the history; also keeps the model and predictions of the best validation accuracy.

        Without validation sentences the latest model is the best.
        ``hidden`` are hidden states ``[n, d]`` of the held-out sentences, where a fleet has them already.
        """
        steps = self.step - (self.history[-1]["step"] if self.history else 0)
        row = {"step": self.step, "train_loss": self.losses.item() / steps if steps else None}
        predictions = None
        for name, (encoded, labels) in self.evaluated.items():
            states = hidden[name] if hidden else encoded if self.config.frozen else encoded.hidden(self.model.encoder)
            with torch.no_grad():
                predictions = self.model.head.scores(states).argmax(-1)
                row[f"{name}_loss"] = self.model.head.plain_loss(states, labels).item()
            row[f"{name}_accuracy"] = (predictions == labels).float().mean(dtype=torch.float64).item()
            if name == "validation":
                found = self.model.head.diagnostics(states[:self.batches.size])
                row |= {name: value.item() for name, value in found.items()}
        if not all(value is None or math.isfinite(value) for value in row.values()):
            raise DnmError(f"{self.config.method} on {self.config.dataset}: the loss is no longer a finite number at "
                           f"step {self.step}; lower lr or head_lr, or use precision float32")
        if row.get("label_cosine", 0) > COLLAPSED:
            warnings.warn(f"label embeddings have collapsed (mean cosine {row['label_cosine']:.2f}): the cosine loss "
                          "can no longer tell the classes apart", stacklevel=3)
        self.losses.zero_()
        self.history.append(row)
        # With few validation sentences many evaluations tie, the first of them often of a model that has hardly begun.
        unmixed = self.best and self.start and self.best["step"] <= self.start < self.step  # it has mixed nothing yet
        names, best = ("validation_accuracy", "validation_loss"), {} if unmixed else self.best or {}
        accuracy, loss = best.get(names[0]), best.get(names[1], math.inf)
        if accuracy is None or (row[names[0]], -row[names[1]]) > (accuracy, -loss):
            self.best = {"step": self.step} | {name: row.get(name) for name in names} | {
                         "predictions": [] if predictions is None else predictions.tolist(),
                         "weights": {name: p.detach().clone() for name, p in self.trained.items()}}
        return row

    @property
    def members(self) -> list["Run"]:
        """The runs that `train` trains with this one: itself."""
        return [self]

    def result(self) -> dict:
        """The record of a finished run, ready for JSON: its numbers with everything that made them.

        Accuracies are fractions, times seconds.
        """
        import transformers

        best = next(row for row in self.history if row["step"] == self.best["step"])
        return {
            "format": RESULT_FORMAT, "hash": self.config.hash, "config": self.config.to_dict(),
            "label": self.config.label,
            "data": {"name": self.data.name, "fingerprint": self.data.fingerprint, "counts": self.data.counts,
                     "labels": list(self.data.label_names), "source": self.data.source, "ceiling": self.data.ceiling},
            "encoder_weights": self.weights, **({"augmentation": self.augmentation} if self.augmentation else {}),
            "environment": {"device": device_name(self.device), "precision": self.precision, "torch": torch.__version__,
                            "transformers": transformers.__version__, "dnm": __version__,
                            "threads": torch.get_num_threads(), **({"fleet": self.fleet} if self.fleet > 1 else {})},
            "title": self.config.title, "k": self.k, "test_accuracy": best["test_accuracy"],
            "last_test_accuracy": self.history[-1]["test_accuracy"], "best_step": self.best["step"],
            "history": self.history, "test_predictions": self.best["predictions"], "seconds": round(self.seconds, 3)}


def fit(config: RunConfig, data: Dataset | None = None, **options) -> tuple[dict, Run]:
    """Train one run to the end: its record, and the run itself at its best validation accuracy.

    ``data`` is the data set, where it is already loaded; ``options`` are those of `train`.
    """
    if not config.row.fine_tunes:
        return fit_frozen(config, data)
    with own_randomness(options.get("stop")):
        run = Run(config, data)
        train(run, **options)
    return run.result(), run


def train(trainer, *, checkpoint: Path | None = None, checkpoint_seconds: float = 60.0,
          stop: threading.Event | None = None, on_progress: Callable[["Run"], None] = lambda run: None) -> None:
    """Train to the end; every run that has not failed is then at its best validation accuracy.

    Parameters
    ----------
    trainer : a `Run`, or what takes steps for several: it has ``members``, ``optimiser``, ``train_step``, ``evaluate``.
    checkpoint : file to save to at most every ``checkpoint_seconds``, and to go on from if it exists.
    stop : when set, a checkpoint is saved after the current step and `Interrupted` raised.
    on_progress : called with every run after each step.
    """
    runs = trainer.members
    if checkpoint and checkpoint.exists():
        checkpoints.load(checkpoint, runs, trainer.optimiser)
    config, started, saved = runs[0].config, time.perf_counter(), time.perf_counter()
    started -= sum(run.seconds for run in runs)
    while runs[0].step < config.steps and not all(run.failure or run.enough for run in runs):
        trainer.train_step()
        step = runs[0].step
        if step % config.eval_every == 0 or step == config.steps:
            trainer.evaluate()
        for run in runs:
            run.seconds = (time.perf_counter() - started) / len(runs)  # a run's share
            on_progress(run)
        stopping = stop is not None and stop.is_set() and step < config.steps
        if checkpoint and (stopping or time.perf_counter() - saved >= checkpoint_seconds):
            try:
                checkpoints.save(checkpoint, runs, trainer.optimiser)
            except DnmError as error:
                if stopping:
                    raise
                warnings.warn(f"training goes on without a checkpoint: {error}", stacklevel=2)
            saved = time.perf_counter()
        if stopping:
            kept = "its checkpoint is saved; run the same command again to go on" if checkpoint else "no checkpoint"
            raise Interrupted(f"stopped at step {step} of {config.steps}: {kept}")
    with torch.no_grad():
        for run in (run for run in runs if not run.failure):
            for name, parameter in run.trained.items():
                parameter.copy_(run.best["weights"][name])
            run.model.eval()


def fit_frozen(config: RunConfig, data: Dataset | None = None) -> tuple[dict, Run]:
    """Logistic regression on the frozen encoder's features: the baseline every practitioner tries first."""
    with own_randomness():
        started, run = time.perf_counter(), Run(config, data)
        train_frozen(run)
    run.seconds = time.perf_counter() - started
    return run.result(), run


def train_frozen(run: Run) -> None:
    """Fit the head of ``run`` by scikit-learn's logistic regression."""
    from sklearn.linear_model import LogisticRegression

    head, labels = run.model.head, run.batches.labels
    train = Encoded(run.batches.sentences, run.model.encoder.share_rows, run.config.max_length, run.device)
    features = train.hidden(run.model.encoder).cpu().numpy()
    weight = None if head.class_weight is None else head.class_weight.cpu().numpy()[labels]
    model = LogisticRegression(max_iter=2000).fit(features, labels, weight)
    with torch.no_grad():  # into the run's own head, so that it predicts and saves like any other
        weights, bias = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
        binary = len(weights) == 1
        head.fc.weight.copy_(torch.cat([-weights, weights]) / 2 if binary else weights)
        head.fc.bias.copy_(torch.cat([-bias, bias]) / 2 if binary else bias)
    run.evaluate()
