"""Fit one run: batches, steps, evaluation, checkpoints. Taught in notebook 04.

Every random number of step t is a function of the run's seed and t alone: the batch, the draws and the
dropout masks. So a resumed run is the uninterrupted one, bit for bit on the CPU, and methods that share a
seed share batches, draws and (where they encode the same rows) dropout masks.
"""

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnm import hub
from dnm.batches import Batches, Encoded, limited
from dnm.config import RunConfig
from dnm.data import Dataset, load_dataset, subset
from dnm.encoders import build_encoder
from dnm.errors import DnmError
from dnm.heads import Head, draw, stream
from dnm.methods import get_method
from dnm.mixing import mix
from dnm.models import Classifier, Model, resolve_device
from dnm.packing import pack
from dnm.records import record
from dnm.selection import partners_each
from dnm.store import load_tensors, save_tensors

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
        self.batches = Batches(self.tokenizer(self.train.texts), self.train.labels, config)
        encoder.words.use(torch.from_numpy(np.unique(np.concatenate(self.batches.sentences))))
        self.model.to(self.device)
        self.evaluated = {name: self._held_out(name) for name in ("validation", "test")}
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(
            [{"params": [p for name, p in self.trained.items() if name.startswith("encoder.")], "lr": config.lr},
             {"params": [p for p in head.parameters() if p.requires_grad], "lr": config.head_lr}],
            weight_decay=0.0, fused=True)
        self.step, self.history, self.best, self.seconds = 0, [], None, 0.0
        self.losses = torch.zeros((), device=self.device)

    def _held_out(self, name: str) -> tuple[Encoded, Tensor]:
        split, share_rows = limited(self.data, name, self.config.eval_limit), self.model.encoder.share_rows
        encoded = Encoded(self.tokenizer(split.texts), share_rows, self.config.max_length, self.device)
        return encoded, torch.from_numpy(split.labels).to(self.device)

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
        config, batches = self.config, self.batches
        index = batches(self.step)
        torch.manual_seed(stream("dropout", config.seed, self.step))
        self.model.train()
        hidden, draws = self._encode_batch(index)
        labels = torch.from_numpy(batches.labels[index]).to(self.device)
        loss = self.model.head.loss(hidden, labels, draws)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        return loss.detach()

    def _encode_batch(self, index: np.ndarray) -> tuple:
        """Hidden states ``[N, d]`` of a batch, of mixed word embeddings where the method mixes words."""
        encoder, sentences, lengths = self.model.encoder, self.batches.sentences, self.batches.lengths
        word_size = encoder.words.table.shape[1]
        draws = draw(self.method, len(index), self.config.alpha, (self.config.max_length, word_size),
                     (self.config.seed, self.step))
        if self.method.level != "word":
            layout = pack(lengths[index], self.config.max_length, encoder.share_rows)
            ids, layout = layout.place([sentences[i] for i in index]).to(self.device), layout.to(self.device)
            return self.model.encode(ids, layout), draws.to(self.device)
        partner = index[draws.permutation.numpy()]
        layout = pack(np.maximum(lengths[index], lengths[partner]), self.config.max_length, encoder.share_rows)
        first, second = (encoder.words(layout.place([sentences[i] for i in who]).to(self.device))
                         for who in (index, partner))
        layout, draws = layout.to(self.device), draws.to(self.device)
        weight = draws.weight[layout.position] if self.method.inputs == "matrix" else draws.weight
        return encoder(mix(first, second, weight), layout), draws

    # ------------------------------------------------------------ evaluation

    def evaluate(self) -> dict:
        """One row of the history; also keeps the model and predictions of the best validation accuracy."""
        steps = self.step - (self.history[-1]["step"] if self.history else 0)
        row = {"step": self.step, "train_loss": self.losses.item() / steps}
        predictions = None
        for name, (encoded, labels) in self.evaluated.items():
            hidden = encoded.hidden(self.model.encoder)
            with torch.no_grad():
                predictions = self.model.head.scores(hidden).argmax(-1)
                row[f"{name}_loss"] = self.model.head.plain_loss(hidden, labels).item()
            row[f"{name}_accuracy"] = (predictions == labels).float().mean(dtype=torch.float64).item()
            if name == "validation":
                row |= self.model.head.diagnostics(hidden[:self.batches.size])
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

    # ------------------------------------------------------------ checkpoint

    def save(self, path: Path) -> None:
        tensors = {f"model/{name}": p for name, p in self.trained.items()} | {"losses": self.losses}
        moments = self.optimiser.state_dict()["state"]
        tensors |= {f"adam/{i}/{name}": value for i, entry in moments.items() for name, value in entry.items()}
        best = dict(self.best) if self.best else None
        if best:
            tensors |= {f"best/{name}": value for name, value in best.pop("weights").items()}
        save_tensors(path, tensors, {
            "config": self.config.to_dict(), "data": self.data.fingerprint, "weights": self.weights,
            "step": self.step, "history": self.history, "best": best, "seconds": self.seconds})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same run; a `DnmError` where it is damaged or another run's."""
        tensors, state = load_tensors(path)
        expected = {"config": self.config.to_dict(), "data": self.data.fingerprint, "weights": self.weights}
        if {name: state.get(name) for name in expected} != expected:
            raise DnmError(f"{path} belongs to another run, other data or other weights: delete it and run the same "
                           "command again")
        try:
            self._restore(tensors, state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DnmError(f"{path} does not fit this run ({error}): delete it and run the same command "
                           "again") from None

    def _restore(self, tensors: dict, state: dict) -> None:
        groups: dict[str, dict] = {"model": {}, "best": {}, "adam": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if rest:
                groups[kind][rest] = tensor.to(self.device)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(groups["model"][name])
            self.losses.copy_(tensors["losses"])
        moments: dict[int, dict] = {}
        for name, tensor in groups["adam"].items():
            index, _, moment = name.partition("/")
            moments.setdefault(int(index), {})[moment] = tensor
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": moments})
        self.step, self.history, self.seconds = state["step"], state["history"], state["seconds"]
        self.best = state["best"] and {**state["best"], "weights": groups["best"]}

    # ------------------------------------------------------------ the whole run

    def result(self) -> dict:
        """The record of a finished run, ready for JSON."""
        best = next(row for row in self.history if row["step"] == self.best["step"])
        return record(self, self.history, best["test_accuracy"], self.history[-1]["test_accuracy"],
                      self.best["predictions"], best_step=self.best["step"])


def fit(config: RunConfig, data: Dataset | None = None, *, checkpoint: Path | None = None,
        checkpoint_seconds: float = 60.0, stop: threading.Event | None = None,
        on_progress: Callable[[Progress], None] | None = None) -> tuple[dict, Run]:
    """Train one run to its end and return its record and the run itself, at its best validation accuracy.

    Parameters
    ----------
    data : the data set, where it is already loaded.
    checkpoint : file to save to at most every ``checkpoint_seconds``, and to go on from if it exists.
    stop : when set, the run saves its checkpoint after the current step and raises `Interrupted`.
    on_progress : called after every step and evaluation.
    """
    if get_method(config.method).level == "frozen":
        return fit_frozen(config, data)
    with own_randomness(stop):
        run = Run(config, data)
        if checkpoint and checkpoint.exists():
            run.load(checkpoint)
        tell = on_progress or (lambda progress: None)
        started, saved = time.perf_counter() - run.seconds, time.perf_counter()
        while run.step < config.steps:
            run.losses += run.train_step()
            row = None
            if run.step % config.eval_every == 0 or run.step == config.steps:
                row = run.evaluate()
            run.seconds = time.perf_counter() - started
            tell(Progress(config, run.step, run.seconds, run.history, row))
            stopping = stop is not None and stop.is_set() and run.step < config.steps
            if checkpoint and (stopping or time.perf_counter() - saved >= checkpoint_seconds):
                try:
                    run.save(checkpoint)
                except DnmError as error:
                    if stopping:
                        raise
                    warnings.warn(f"training goes on without a checkpoint: {error}", stacklevel=2)
                saved = time.perf_counter()
            if stopping:
                kept = "its checkpoint is saved; run the same command again to go on" if checkpoint else \
                    "no checkpoint was asked for"
                raise Interrupted(f"stopped at step {run.step} of {config.steps}: {kept}")
        result = run.result()
        run.restore_best()
        return result, run


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
