"""A classifier for people's own few labels, in scikit-learn's habits. Taught in notebook 07."""

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from dnm.batches import Encoded
from dnm.classify.inputs import InputError, classes, sentences
from dnm.config import MOST, RunConfig
from dnm.data.datasets import Dataset, Split, split_pooled
from dnm.errors import DnmError, mendable
from dnm.training import Run, own_randomness, train, train_frozen

EVALUATIONS = 15  # of a training that runs to its last step
PATIENCE = 5  # evaluations without a better validation loss or accuracy that end it
CALIBRATION = 15  # validation sentences that a temperature needs
USUAL_TEMPERATURE = {"cosine": 0.1, "cross-entropy": 1.0}  # where there are fewer; not measured


def steps_for(n: int) -> int:
    """At most so many steps for ``n`` sentences: measured, see ``data/report/own-texts.md``."""
    return min(600, 100 + n // 4)


class DNMClassifier(ClassifierMixin, BaseEstimator):
    """A fine-tuned text classifier, by default with dynamic nonlinear mixup.

    Parameters
    ----------
    method : a row of the table of methods, such as ``dnm``, ``plain``, ``label-embedding`` or ``logreg``.
    encoder : ``minilm``, which reads English, ``cnn``, ``lstm``, an id of the Hub, or a folder.
    steps : training steps; ``auto`` for at most `steps_for` the number of sentences. Either ends early once the
        validation part has not become better for a while.
    lr, head_lr, k, batch_size : as in `dnm.RunConfig`; None for the usual value.
    max_length : word pieces of a text that are read.
    validation_fraction : share of the texts that chooses when to stop and the temperature; if too few, all are trained.
        Logistic regression, which has no stop to choose, then learns from these, too.
    class_weight : None, ``balanced``, or a dict from classes to weights.
    random_state : an int, a ``RandomState``, or None for another outcome each time.
    device : ``auto``, ``cpu`` or ``cuda``.
    verbose : whether to print a line an evaluation.

    Attributes
    ----------
    classes_ : the classes ``[c]``, sorted, of the type they came in.
    n_iter_ : steps taken; history_ : one dict an evaluation; validation_score_ : best validation accuracy, or None.
    temperature_ : what `predict_proba` divides the scores by, or None where too few sentences could calibrate it.
    """

    def __init__(self, method="dnm", encoder="minilm", steps="auto", lr=None, head_lr=None, k=None, batch_size=None,
                 max_length=128, validation_fraction=0.2, class_weight=None, random_state=None, device="auto",
                 verbose=False):
        self.method = method
        self.encoder = encoder
        self.steps = steps
        self.lr = lr
        self.head_lr = head_lr
        self.k = k
        self.batch_size = batch_size
        self.max_length = max_length
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    # ------------------------------------------------------------ training

    def fit(self, texts, y, *, on_progress: Callable[[Run], None] = lambda run: None,
            stop: threading.Event | None = None) -> "DNMClassifier":
        """Train on texts and their classes; ``on_progress`` and ``stop`` are those of `dnm.training.train`.

        Raises
        ------
        InputError : texts or classes that cannot be used; DnmError : settings that make no sense.
        """
        texts = sentences([texts] if isinstance(texts, str) else texts)
        y = classes(y, len(texts))
        found, numbers = np.unique(y, return_inverse=True)
        if len(found) < 2:
            raise InputError(f"only one class ({found[0]!s}); a classifier needs at least two classes")
        with mendable("class_weight: {}; use None, 'balanced', or a dict from classes to weights"):
            weight = None if self.class_weight is None else compute_class_weight(self.class_weight, classes=found, y=y)
        config = self._config(len(texts))
        whole, nothing = Split(texts, numbers), Split([], np.array([], int))
        train_part, validation = self._parts(whole, len(found), f"texts {config.seed}")

        def trained(learn: Split, held: Split) -> Run:
            run = Run(config, Dataset("texts", tuple(map(str, found)), learn, held, nothing, source="texts in memory"))
            if weight is not None:
                run.model.head.class_weight = torch.as_tensor(weight, dtype=torch.float32, device=run.device)
            if config.row.fine_tunes:
                train(run, stop=stop, on_progress=_Watch(self.verbose, on_progress))
            else:
                train_frozen(run)
            return run

        with own_randomness(stop):
            self._take(trained(train_part, validation), found)
            self.temperature_ = self._temperature(validation)
            if len(validation) and not config.row.fine_tunes:  # it had no stop to choose, so it can learn from all
                self.model_ = trained(whole, nothing).model.eval()
                self.counts_ = {"train": len(whole), "validation": len(validation), "test": 0}
        self._say(len(texts), len(validation))
        return self

    def _config(self, n: int) -> RunConfig:
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = int(check_random_state(seed).randint(2 ** 31 - 1))
        steps = steps_for(n) if self.steps == "auto" else self.steps
        every = max(1, round(min(steps, MOST["steps"]) / EVALUATIONS)) if isinstance(steps, int | np.integer) else None
        config = RunConfig.create(
            "quick", n_train="all", method=self.method, encoder=str(self.encoder), steps=steps, eval_every=every,
            lr=self.lr, head_lr=self.head_lr, k=self.k, batch_size=self.batch_size, max_length=self.max_length,
            seed=int(seed), device=self.device)
        return replace(config, dataset="texts")

    def _parts(self, whole: Split, count: int, salt: str) -> tuple[Split, Split]:
        """Training and validation sentences; every class keeps one to train, and no validation part is a tiny one."""
        if not isinstance(self.validation_fraction, Real) or not 0 <= self.validation_fraction < 1:
            raise InputError(f"validation_fraction must lie in [0, 1), got {self.validation_fraction!r}")
        size, nothing = round(self.validation_fraction * len(whole)), whole.take([])
        if size < max(2 * count, 10):
            return whole, nothing
        try:
            training, held, _ = split_pooled(whole, (len(whole) - size, size, 0), salt)
        except DnmError:  # too few distinct sentences
            return whole, nothing
        return training, held

    def _temperature(self, validation: Split) -> float | None:
        """The temperature at which validation sentences are likeliest, each counted with Laplace's rule.

        By that rule the class that a text has gets (n + 1) / (n + c) and the others 1 / (n + c) each: where all
        validation sentences are right, probabilities are still no more certain than so few can say.
        """
        n, count = len(validation), len(self.classes_)
        if n < CALIBRATION:
            return None
        scores = self._scores(validation.texts).astype(float)
        target = (np.eye(count)[validation.labels] * n + 1) / (n + count)
        found = minimize_scalar(lambda log_t: -(target * log_softmax(scores / np.exp(log_t), axis=1)).sum(1).mean(),
                                bounds=(np.log(0.005), np.log(100)), method="bounded")
        return float(np.exp(found.x))

    def _say(self, n: int, held: int) -> None:
        usual = f"so predict_proba is not calibrated ({CALIBRATION} validation sentences are needed)"
        if not held:
            steps = f", for {self.n_iter_} steps," if self.n_iter_ else ""
            warnings.warn(f"none of the {n} sentences is set aside for validation: all are trained{steps} {usual}",
                          stacklevel=3)
        elif self.temperature_ is None:
            warnings.warn(f"only {held} of the {n} sentences are set aside for validation, {usual}", stacklevel=3)

    def _take(self, run: Run, found: np.ndarray) -> None:
        self.model_, self.tokenizer_, self.config_ = run.model.eval(), run.tokenizer, run.config
        self.classes_, self.n_iter_, self.history_, self.temperature_ = found, run.step, run.history, None
        self.validation_score_ = run.best["validation_accuracy"] if run.best else None
        self.counts_, self.text_column_ = run.data.counts, ""  # the column, for whoever reads files with it

    # ------------------------------------------------------------ asking

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes as text."""
        return tuple(map(str, self.classes_.tolist()))

    def hidden(self, texts) -> Tensor:
        """Hidden states ``[n, d]`` of sentences, without dropout, on the CPU."""
        check_is_fitted(self, "model_")
        return self._hidden(sentences(texts)).cpu()

    def scores(self, texts) -> np.ndarray:
        """Class scores ``[n, c]``: cosines to the label embeddings, or logits. Never mixes."""
        check_is_fitted(self, "model_")
        return self._scores(sentences(texts))

    def _hidden(self, texts: list[str]) -> Tensor:
        encoder, device = self.model_.encoder, next(self.model_.parameters()).device
        return Encoded(self.tokenizer_(texts), encoder.share_rows, self.config_.max_length, device).hidden(encoder)

    @torch.no_grad()
    def _scores(self, texts: list[str]) -> np.ndarray:
        return self.model_.head.scores(self._hidden(texts)).cpu().numpy()

    def predict(self, texts) -> np.ndarray:
        """The class ``[n]`` of each text, of the type of ``classes_``."""
        scores = self.scores(texts)
        return self.classes_[scores.argmax(-1)]

    def decision_function(self, texts) -> np.ndarray:
        """`scores`; of two classes the second's less the first's, ``[n]``, as scikit-learn's tools expect it."""
        scores = self.scores(texts)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, texts) -> np.ndarray:
        """Probabilities ``[n, c]``: a softmax of scores / ``temperature_``, or a usual one where that is None."""
        scores = self.scores(texts).astype(float)
        return softmax(scores / (self.temperature_ or USUAL_TEMPERATURE[self.config_.row.loss]), axis=1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array = True, True, False
        return tags

    # ------------------------------------------------------------ keeping

    @classmethod
    def of(cls, run: Run) -> "DNMClassifier":
        """A run's model as it stands."""
        names = ("method", "encoder", "steps", "lr", "head_lr", "k", "batch_size", "max_length", "device")
        made = cls(**{name: getattr(run.config, name) for name in names}, random_state=run.config.seed)
        made._take(run, np.array(run.data.label_names))
        return made

    def save(self, folder: str | Path, about: dict | None = None) -> None:
        """Keep the model in a folder (`dnm.classify.saved`); ``about`` are lines for its card, name to value."""
        from dnm.classify import saved

        check_is_fitted(self, "model_")
        saved.save(self, Path(folder).expanduser(), about or {})

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "DNMClassifier":
        """A saved model; its predictions are those it had when it was saved."""
        from dnm.classify import saved

        return saved.load(cls, Path(folder).expanduser(), device)


class _Watch:
    """Called after each step: says how far it is, and that it is enough once nothing has become better for a while."""

    def __init__(self, verbose: bool, on_progress: Callable[[Run], None]):
        self.verbose, self.on_progress, self.seen, self.since = verbose, on_progress, 0, 0
        self.accuracy, self.loss = -np.inf, np.inf

    def __call__(self, run: Run) -> None:
        if len(run.history) > self.seen:
            self.seen, row = len(run.history), run.history[-1]
            if "validation_loss" in row:
                self._judge(run, row)
            if self.verbose:
                print(f"step {row['step']}: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in
                                                          row.items() if name.endswith(("_loss", "_accuracy"))))
        self.on_progress(run)

    def _judge(self, run: Run, row: dict) -> None:
        if row["step"] <= run.start:  # before mixing begins nothing is judged, and nothing there counts later
            return
        better = row["validation_accuracy"] > self.accuracy or row["validation_loss"] < self.loss
        self.accuracy = max(self.accuracy, row["validation_accuracy"])
        self.loss = min(self.loss, row["validation_loss"])
        self.since = 0 if better else self.since + 1
        run.enough = self.since >= PATIENCE
