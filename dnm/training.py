"""Fit one run: batches, steps, evaluation, checkpoints. Taught in notebook 04.

Every random number of step t is a function of the run's seed and t alone: the batch, the draws and the
dropout masks. So a resumed run is the uninterrupted one, bit for bit on the CPU, and methods that share a
seed share batches, draws and (where they encode the same rows) dropout masks. Runs trained together (`dnm.fleet`)
keep their batches and draws; their dropout masks depend on their place in the fleet.
"""

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dnm import checkpoints, hub
from dnm.batches import Batches, Encoded, limited
from dnm.config import RunConfig
from dnm.data import Dataset, load_dataset, subset
from dnm.encoders import build_encoder
from dnm.errors import DnmError
from dnm.fleet import Fleet, kind
from dnm.heads import Head, stream
from dnm.methods import get_method
from dnm.models import Classifier, Model, adamw, resolve_device
from dnm.records import record
from dnm.selection import partners_each

COLLAPSED = 0.9  # label embeddings more alike than this make the cosine loss blind
_TURN = threading.Lock()


class Interrupted(DnmError):
    """The run was stopped on request; its checkpoint is saved."""


@dataclass(frozen=True)
class Progress:
    """What a run tells while it trains: after every step, and with ``row`` after an evaluation."""

    config: RunConfig
    step: int
    seconds: float
    history: list[dict]
    row: dict | None = None


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
        self.config, self.method = config, get_method(config.method)
        self.data = data or load_dataset(config.dataset, config.text_column, config.label_column)
        self.device, dtype = resolve_device(config)
        self.precision = "bfloat16" if dtype else "float32"
        self.train = self.data.train.take(subset(self.data, config.n_train, config.seed))
        self.k = self._k(len(self.train))
        torch.manual_seed(stream("encoder", config.seed))
        encoder, self.tokenizer = build_encoder(config)
        encoder.compute_dtype, self.weights = dtype, hub.identity(config.encoder, config.word_vectors)
        head = Head(self.method, encoder.hidden_size, len(self.data.label_names), self.k, config.original_weight,
                    config.seed)
        self.model = Model(encoder, head)
        self.batches = Batches(self.tokenizer(self.train.texts), self.train.labels, config, encoder.share_rows,
                               encoder.words.table.shape[1])
        self.model.to(self.device)
        self.train_words(torch.from_numpy(np.unique(np.concatenate(self.batches.sentences))))
        self.step, self.history, self.best, self.seconds, self.failure, self.fleet = 0, [], None, 0.0, "", 1
        self.losses = torch.zeros((), device=self.device)

    def train_words(self, ids: Tensor) -> None:
        """Choose the word embeddings that are trained, and start the optimiser of all that is trained."""
        self.model.encoder.words.use(ids)
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimiser = adamw([p for name, p in self.trained.items() if name.startswith("encoder.")],
                               [p for name, p in self.trained.items() if name.startswith("head.")], self.config)

    @cached_property
    def evaluated(self) -> dict[str, tuple[Encoded, Tensor]]:
        """Validation and test sentences, laid out, and their class numbers."""
        found = {}
        for name in ("validation", "test"):
            split = limited(self.data, name, self.config.eval_limit)
            found[name] = (Encoded(self.tokenizer(split.texts), self.model.encoder.share_rows, self.config.max_length,
                                   self.device), torch.from_numpy(split.labels).to(self.device))
        return found

    def _k(self, n: int) -> int:
        """K as the batch allows; an error where nobody could be mixed, a warning where K shrinks."""
        config, batch = self.config, min(n, self.config.batch_size)
        if self.method.level in ("word", "sentence") and batch < 2:
            raise DnmError(f"a batch of one sentence has no partner to mix with: {self.method.name} needs at least 2 "
                           f"training sentences, got {n}")
        k = partners_each(batch, config.k) if self.method.selects else config.k
        if k != config.k:
            warnings.warn(f"K = {config.k} needs more than {2 * config.k} sentences in a batch; with {batch} it "
                          f"becomes {k}", stacklevel=4)
        return k

    # ------------------------------------------------------------ one step

    def train_step(self) -> Tensor:
        """One optimiser step; returns its loss without waiting for the device."""
        inputs = tree_map(lambda stacked: stacked[0], self.batches.inputs([self.step])).to(self.device)
        torch.manual_seed(stream("dropout", self.config.seed, self.step))
        hidden = self.model.train()(inputs)
        loss = self.model.head.loss(hidden, inputs.labels, inputs.draws)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        self.losses += loss.detach()
        return loss.detach()

    # ------------------------------------------------------------ evaluation

    def evaluate(self, hidden: dict[str, Tensor] | None = None) -> dict:
        """One row of the history; also keeps the model and predictions of the best validation accuracy.

        ``hidden`` are hidden states ``[n, d]`` of the held-out sentences, where a fleet has them already.
        """
        steps = self.step - (self.history[-1]["step"] if self.history else 0)
        row = {"step": self.step, "train_loss": self.losses.item() / steps}
        predictions = None
        for name, (encoded, labels) in self.evaluated.items():
            states = hidden[name] if hidden else encoded.hidden(self.model.encoder)
            with torch.no_grad():
                predictions = self.model.head.scores(states).argmax(-1)
                row[f"{name}_loss"] = self.model.head.plain_loss(states, labels).item()
            row[f"{name}_accuracy"] = (predictions == labels).float().mean(dtype=torch.float64).item()
            if name == "validation":
                row |= self.model.head.diagnostics(states[:self.batches.size])
        if not all(math.isfinite(value) for value in row.values()):
            raise DnmError(f"{self.config.method} on {self.config.dataset}: the loss is no longer a finite number at "
                           f"step {self.step}; lower lr or head_lr, or use precision float32")
        if row.get("label_cosine", 0) > COLLAPSED:
            warnings.warn(f"label embeddings have collapsed (mean cosine {row['label_cosine']:.2f}): the cosine loss "
                          "can no longer tell the classes apart", stacklevel=3)
        self.losses.zero_()
        self.history.append(row)
        if self.best is None or row["validation_accuracy"] > self.best["validation_accuracy"]:
            self.best = {"step": self.step, "validation_accuracy": row["validation_accuracy"],
                         "predictions": predictions.tolist(),
                         "weights": {name: p.detach().clone() for name, p in self.trained.items()}}
        return row

    def restore_best(self) -> Model:
        """The model as it was at its best validation accuracy, ready to predict."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(self.best["weights"][name])
        return self.model.eval()

    def classifier(self) -> Classifier:
        """The run's model as it stands, for predictions and for keeping."""
        return Classifier(self.model, self.tokenizer, self.config, self.data.label_names)

    # ------------------------------------------------------------ the whole run

    def result(self) -> dict:
        """The record of a finished run, ready for JSON."""
        best = next(row for row in self.history if row["step"] == self.best["step"])
        return record(self, self.history, best["test_accuracy"], self.history[-1]["test_accuracy"],
                      self.best["predictions"], best_step=self.best["step"])


def fit(configs: RunConfig | list[RunConfig], data: Dataset | None = None, *, checkpoint: Path | None = None,
        checkpoint_seconds: float = 60.0, stop: threading.Event | None = None,
        on_progress: Callable[[Progress], None] | None = None) -> tuple | list[tuple]:
    """Train one run, or a fleet of runs together, to the end.

    Returns the run's record and the run itself, at its best validation accuracy; for a list of configurations, a
    list of such pairs, with a `DnmError` in the place of a record whose run has failed.

    Parameters
    ----------
    configs : one run, or several that may share a fleet (`dnm.fleet.kind`).
    data : the data set, where it is already loaded.
    checkpoint : file to save to at most every ``checkpoint_seconds``, and to go on from if it exists.
    stop : when set, a checkpoint is saved after the current step and `Interrupted` raised.
    on_progress : called for every run after each step and evaluation.
    """
    alone = isinstance(configs, RunConfig)
    configs = [configs] if alone else configs
    if get_method(configs[0].method).level == "frozen":
        pairs = [fit_frozen(config, data) for config in configs]
        return pairs[0] if alone else pairs
    with own_randomness(stop):
        runs = [Run(config, data) for config in configs]
        # On a GPU even a single run is a fleet, of one, for the sake of its graph.
        graphed = runs[0].device.type == "cuda" and kind(configs[0])
        trainer = Fleet(runs) if len(runs) > 1 or graphed else runs[0]
        if checkpoint and checkpoint.exists():
            checkpoints.load(checkpoint, runs, trainer.optimiser)
        _train(trainer, runs, checkpoint, checkpoint_seconds, stop, on_progress or (lambda progress: None))
        for run in runs:
            if not run.failure:
                run.restore_best()
    pairs = [(DnmError(run.failure) if run.failure else run.result(), run) for run in runs]
    return pairs[0] if alone else pairs


def _train(trainer: "Run | Fleet", runs: list[Run], checkpoint: Path | None, checkpoint_seconds: float,
           stop: threading.Event | None, tell: Callable[[Progress], None]) -> None:
    config, started, saved = runs[0].config, time.perf_counter(), time.perf_counter()
    started -= sum(run.seconds for run in runs)
    while runs[0].step < config.steps and not all(run.failure for run in runs):
        trainer.train_step()
        step = runs[0].step
        evaluated = step % config.eval_every == 0 or step == config.steps
        if evaluated:
            trainer.evaluate()
        for run in runs:
            run.seconds = (time.perf_counter() - started) / len(runs)  # a run's share
            row = run.history[-1] if evaluated and not run.failure else None
            tell(Progress(run.config, step, run.seconds, run.history, row))
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
            kept = "its checkpoint is saved; run the same command again to go on" if checkpoint else \
                "no checkpoint was asked for"
            raise Interrupted(f"stopped at step {step} of {config.steps}: {kept}")


def fit_frozen(config: RunConfig, data: Dataset | None = None) -> tuple[dict, Run]:
    """Logistic regression on the frozen encoder's features: the baseline every practitioner tries first."""
    from sklearn.linear_model import LogisticRegression

    with own_randomness():
        started, run = time.perf_counter(), Run(config, data)
        train = Encoded(run.batches.sentences, run.model.encoder.share_rows, config.max_length, run.device)
        features = {name: encoded.hidden(run.model.encoder).cpu().numpy()
                    for name, encoded in (("train", train), *((n, e) for n, (e, _) in run.evaluated.items()))}
    labels = {name: y.cpu().numpy() for name, (_, y) in run.evaluated.items()}
    model = LogisticRegression(max_iter=2000).fit(features["train"], run.batches.labels)
    with torch.no_grad():  # the same scores from the run's own head, so that it predicts and saves like any other
        weights, bias = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
        binary = len(weights) == 1
        run.model.head.fc.weight.copy_(torch.cat([-weights, weights]) / 2 if binary else weights)
        run.model.head.fc.bias.copy_(torch.cat([-bias, bias]) / 2 if binary else bias)
    predictions = {name: model.predict(features[name]) for name in labels}
    row = {"step": 0, "train_loss": None,
           **{f"{name}_accuracy": float(np.mean(predictions[name] == y)) for name, y in labels.items()}}
    run.seconds = time.perf_counter() - started
    accuracy = row["test_accuracy"]
    return record(run, [row], accuracy, accuracy, predictions["test"].tolist(), best_step=0), run
