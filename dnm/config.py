"""What a run is: one frozen, validated configuration with a stable hash.

`RunConfig.create` is the way in: it starts from a profile, applies the encoder's and the method's own
settings, then the caller's, and refuses what makes no sense. Taught in notebook 04.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dnm.errors import DnmError, mendable, unknown
from dnm.methods import Method, get_method

DATASETS = ("builtin", "builtin5", "subj", "mr", "sst2", "sst1")
FILE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".json", ".xlsx")  # each also with .gz behind it
METHOD_SETTINGS = ("k", "alpha", "original_weight")
# Settings born after results were kept: left out of a run's hash and record while they have their default.
LATER = ("synonyms", "translators", "wrong_labels")
AUGMENTS = {"synonyms": "eda", "translators": "translation"}  # settings of rows that augment, by what these are
SCRATCH = ("cnn", "lstm")  # encoders that are not pre-trained
FROZEN = "frozen encoder"  # how labels mark runs at rate 0
# The largest numbers taken, of other settings 10**6: a larger one is a slip, and would fill the memory or never end.
MOST = dict(n_train=10**8, seed=2**63 - 1, steps=10**7, batch_size=10**4, k=10**4, eval_every=10**7, eval_limit=10**8)
HASH_VERSION = 1  # raise it when the same settings start to mean a different computation
RESULT_FORMAT = 2  # of the records that runs leave

# `paper`: as published (section 4.2). The short profiles give the head its own, larger rate, because a few hundred
# steps at 2e-5 leave a new head under-trained. The rates of `quick` were chosen, for 50 steps, by validation accuracy
# on SST-2 (data/results/choice-sst2-lr*.json). `lesson` is `quick`, watched more often on fewer sentences. `head`
# trains no encoder, see `RunConfig.frozen`; its steps take a DNM run a second or two on one core, so that many can be
# tried, and leave it a point below what twice as many reach on the built-in notes.
PROFILES: dict[str, dict] = {
    "paper": dict(steps=4000, batch_size=20, lr=2e-5, head_lr=2e-5, eval_every=200),
    "quick": dict(steps=50, batch_size=20, lr=5e-5, head_lr=1e-3, eval_every=50),
    "lesson": dict(steps=50, batch_size=20, lr=5e-5, head_lr=1e-3, eval_every=10, eval_limit=200),
    "smoke": dict(steps=24, batch_size=20, lr=2e-5, head_lr=1e-3, eval_every=8, eval_limit=100),
    "head": dict(steps=200, batch_size=20, lr=0.0, head_lr=1e-3, eval_every=50),
}
# Word vectors trained from scratch want larger steps and, after Kim (2014), more dropout.
_FROM_SCRATCH = dict(lr=1e-3, head_lr=1e-3, dropout=0.5, pooling="own")
ENCODER_SETTINGS: dict[str, dict] = {"minilm": dict(pooling="mean"), "cnn": _FROM_SCRATCH, "lstm": _FROM_SCRATCH}
# They also need more steps than a pre-trained encoder, and theirs are cheap.
FROM_SCRATCH_STEPS = {"quick": 100}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's numbers; what a setting means stands beside it."""

    dataset: str = "builtin"  # a name of `dnm list`, or a file or folder of one's own
    n_train: int | str = 50  # number of training sentences, or all
    method: str = "dnm"  # a row of the table of methods
    encoder: str = "minilm"  # minilm, cnn, lstm, an encoder's id on the Hub, or a folder
    seed: int = 0  # decides the training subset, the order of the batches and every draw
    profile: str = "quick"  # the profile the settings started from; `label` tells what was changed since
    pooling: str = "cls"  # sentence vector of a transformer, cls or mean; own for cnn and lstm
    max_length: int = 128  # longest sentence, in word pieces with the special ones
    steps: int = 200  # training steps
    batch_size: int = 20  # sentences a step
    lr: float = 2e-5  # learning rate of the encoder; 0 leaves it as it is, see `frozen`
    head_lr: float = 1e-3  # learning rate of everything the method adds to it
    dropout: float = 0.1  # of the encoder; none at rate 0
    k: int = 5  # partners of each kind, the paper's K
    alpha: float = 1.0  # of Beta(alpha, alpha), for the methods that draw their mixing weights
    original_weight: float = 0.0  # weight of the unmixed sentences' loss, 0 in the paper
    eval_every: int = 50  # steps from one evaluation to the next
    eval_limit: int = 0  # at most so many validation and test sentences, 0 for all of them
    precision: str = "auto"  # of the encoder, float32, bfloat16, or auto for the best the machine has
    device: str = "auto"  # cpu, cuda, or auto
    text_column: str = ""  # column of one's own file that holds the sentences, guessed if empty
    label_column: str = ""  # column that holds the classes, guessed if empty
    word_vectors: str = ""  # of cnn and lstm: glove, or a text file in GloVe's format; else random
    synonyms: str = ""  # of eda, a file (a word, a tab, its synonyms a line) or wordnet; else neighbouring embeddings
    translators: str = ""  # of back-translation, two models, there and back: folders or Hub ids, a comma between
    wrong_labels: float = 0.0  # share of the training labels that are made wrong, to see which method stands it

    @classmethod
    def create(cls, profile: str = "quick", **settings) -> "RunConfig":
        """A configuration from a profile and the caller's settings; a `DnmError` names what is wrong."""
        return cls._filled(profile, settings)._checked()

    @classmethod
    def _filled(cls, profile: str, settings: dict) -> "RunConfig":
        if (profile := _typed("profile", profile, "")) not in PROFILES:
            raise unknown("profile", profile, PROFILES)
        if wrong := settings.keys() - vars(cls()).keys():
            raise unknown("parameter", min(wrong), vars(cls()))
        settings = {name: _typed(name, v, getattr(cls, name)) for name, v in settings.items() if v is not None}
        method = get_method(settings.get("method", cls.method))
        encoder = settings.get("encoder", cls.encoder)
        own = {name: getattr(method, name) for name in METHOD_SETTINGS}
        values = dict(profile=profile) | own | PROFILES[profile] | ENCODER_SETTINGS.get(encoder, {})
        if encoder in SCRATCH and profile in FROM_SCRATCH_STEPS:
            values["steps"] = values["eval_every"] = FROM_SCRATCH_STEPS[profile]
        if not PROFILES[profile]["lr"]:  # whatever rate of its own an encoder has
            values["lr"] = 0.0
        values |= settings
        for name, place in _PLACES.items():
            with mendable(f"{name} cannot be looked for: {{}}"):
                values[name] = place(values.get(name, getattr(cls, name)))
        # What a method does not use does not make another run of it, so one command can serve several methods.
        if not method.selects or method.fixed_k:
            values["k"] = method.k
        if not method.draws_weights:
            values["alpha"] = method.alpha
        if method.level != "sentence" or method.partners == "batch":
            values["original_weight"] = method.original_weight
        if values.get("lr") == 0:
            values["dropout"] = 0.0
        values |= {name: "" for name, word in AUGMENTS.items() if method.augment != word}
        if values["dataset"] in DATASETS:  # columns are those of one's own files, which may stand beside it in a list
            values["text_column"], values["label_column"] = cls.text_column, cls.label_column
        return cls(**values)

    @property
    def row(self) -> Method:
        """The method's row of the table."""
        return get_method(self.method)

    @property
    def from_scratch(self) -> bool:
        """Whether the encoder is not a pre-trained one."""
        return self.encoder in SCRATCH

    @property
    def frozen(self) -> bool:
        """Whether the encoder is a constant, at rate 0: its states are computed once, without dropout."""
        return self.lr == 0

    def _checked(self) -> "RunConfig":
        row, own, n = self.row, self.from_scratch, self.n_train
        poolings, precisions = ("own",) if own else ("cls", "mean"), ("auto", "float32", "bfloat16")
        as_it_is = row.level in ("none", "sentence", "frozen") and not row.augment  # what the encoder reads
        positive = ("steps", "batch_size", "head_lr", "alpha", "eval_every", "max_length")
        wrong = {f"{name} must be positive, got {getattr(self, name)}": getattr(self, name) <= 0 for name in positive}
        wrong |= {f"{name} cannot be negative, got {getattr(self, name)}": getattr(self, name) < 0
                  for name in ("lr", "original_weight", "eval_limit", "seed")}
        wrong |= {f"{name} must lie in [0, 1), got {getattr(self, name)}": not 0 <= getattr(self, name) < 1
                  for name in ("dropout", "wrong_labels")}
        wrong |= {
            f"max_length must lie between 8 and 512, got {self.max_length}": not 8 <= self.max_length <= 512,
            f"n_train must be a positive number or 'all', got {n!r}": n != "all" and n < 1,
            f"at lr=0 sentences are encoded once, but {row.name} changes what the encoder reads: take an lr above 0":
                self.frozen and not as_it_is,
            "lr=0 needs a pre-trained encoder; cnn and lstm start from nothing": own and self.frozen,
            f"{row.name} needs k of at least 1, got {self.k}": row.selects and self.k < 1,
            f"a batch of one sentence has no partner to mix with: {row.name} needs batch_size of at least 2":
                row.mixes and self.batch_size < 2,
            "logreg needs a pre-trained encoder; cnn and lstm start from nothing": own and not row.fine_tunes,
            f"{row.name} needs 2 steps at least, one to learn": row.partners == "saliency" and self.steps < 2,
            f"{row.name} mixes within a transformer; {self.encoder} has no such layers": own and row.level == "layer",
            f"pooling {self.pooling!r} does not fit encoder {self.encoder!r}: use {' or '.join(poolings)}":
                self.pooling not in poolings,
            f"word_vectors are for cnn and lstm; {self.encoder!r} brings its own": self.word_vectors and not own,
            f"translators are two models, there and back, with a comma between, got {self.translators!r}":
                self.translators and len(self.translators.split(",")) != 2,
            str(unknown("precision", self.precision, precisions)): self.precision not in precisions,
            str(unknown("device", self.device, ("auto", "cpu", "cuda", "cuda:1"))):
                not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)}
        if said := [text for text, holds in wrong.items() if holds]:
            raise DnmError(said[0])
        return self

    def to_dict(self) -> dict:
        """Its settings; those born later only where they are not as they always were."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in LATER or value != getattr(RunConfig, name)}

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that name the run; the same on every machine and Python."""
        text = json.dumps([HASH_VERSION, self.to_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """The profile's name and what was changed in it, such as ``quick (steps=100)`` or ``head (frozen encoder)``."""
        changed = self._changed((*METHOD_SETTINGS, *AUGMENTS, "dataset", "n_train", "method", "encoder", "seed",
                                 "device", "precision", "text_column", "label_column"))
        if self.frozen:
            changed = [FROZEN, *(text for text in changed if not text.startswith(("lr=", "dropout=")))]
        return self.profile + (f" ({', '.join(changed)})" if changed else "")

    @property
    def title(self) -> str:
        """The method's name and what was changed in its own settings, such as ``DNM (original_weight=0.5)``."""
        own = (*METHOD_SETTINGS, "synonyms")  # without translators there is no back-translation
        changed = self._changed(tuple(name for name in self.to_dict() if name not in own))
        return self.row.title + (f" ({', '.join(changed)})" if changed else "")

    def _changed(self, apart_from: tuple[str, ...]) -> list[str]:
        usual = RunConfig._filled(self.profile, dict(method=self.method, encoder=self.encoder)).to_dict()  # if it fits
        paths = ("word_vectors", *AUGMENTS)
        return [f"{name}={', '.join(Path(one).name for one in value.split(',')) if name in paths else value}"
                for name, value in self.to_dict().items() if name not in apart_from and value != usual.get(name)]

    def with_(self, **changes) -> "RunConfig":
        """A validated copy with some settings changed; K and what else was the method's own follow the method."""
        values, row = self.to_dict() | changes, get_method(changes.get("method", self.method))
        for name in set(METHOD_SETTINGS) - changes.keys():
            if row != self.row and (name == "k" or values[name] == getattr(self.row, name)):
                values[name] = getattr(row, name)
        return RunConfig.create(**values)


def as_list(value, kind: type = str) -> list:
    """A list from whatever has several values, from one value, and from text with commas, alone or in a list."""
    try:
        values = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        values = [part for v in values for part in (v.strip("[] ").split(",") if isinstance(v, str) else [v])]
        return [_whole(v) if kind is int else kind(v).strip("'\" ") for v in values if str(v).strip()]
    except (TypeError, ValueError, OverflowError):
        raise DnmError(f"expected a list of {'whole numbers' if kind is int else 'names'}, got {value!r}") from None


def is_data_file(path: Path) -> bool:
    """Whether a file's name says that it holds texts; capitals mean nothing."""
    return path.name.lower().removesuffix(".gz").endswith(FILE_SUFFIXES)


def _dataset(name: str) -> str:
    """A known name as it is, a path of one's own made absolute, anything else an error."""
    if name in DATASETS or Path(name).expanduser().exists() or is_data_file(Path(name)) or "/" in name:
        return _absolute(name, *DATASETS)
    raise DnmError(f"{unknown('data set', name, DATASETS)}, or give a file or folder of your own")


def _encoder(name: str) -> str:
    """A name or Hub id as it is, a local folder made absolute."""
    return _absolute(name, *ENCODER_SETTINGS) if Path(name).expanduser().is_dir() else name


def _absolute(path: str, *names: str) -> str:
    return path if path in ("", *names) else Path(path).expanduser().resolve().as_posix()


# What a setting that names something on disk is, wherever one looks from.
_PLACES = {"dataset": _dataset, "encoder": _encoder, "translators": lambda ids: ",".join(map(_encoder, as_list(ids))),
           "synonyms": lambda path: _absolute(path, "wordnet"), "word_vectors": lambda path: _absolute(path, "glove")}


def _typed(name: str, value, default):
    """``value`` as the type of ``default``; numbers may come as text (papermill, command line)."""
    try:
        if isinstance(default, int | float) and not (name == "n_train" and value == "all"):
            number = _whole(value) if isinstance(default, int) else float(value) + 0.0  # 0.0 and -0.0 are one setting
            if isinstance(value, bool) or not number <= MOST.get(name, 10**6):
                raise ValueError(value)
            return number
    except (TypeError, ValueError, OverflowError):
        kind = "whole " * isinstance(default, int) + "number" + " or 'all'" * (name == "n_train")
        raise DnmError(f"{name} must be a {kind}, {MOST.get(name, 10**6)} at most, got {value!r}") from None
    value = ",".join(as_list(value)) if name == "translators" and isinstance(value, Iterable) else value
    if not isinstance(value, str | Path):
        raise DnmError(f"{name} must be text, got {value!r}")
    if re.search("[\0\ud800-\udfff]", text := str(value)):
        raise DnmError(f"{name} {text!a} holds what is no character of a text in UTF-8; give another name")
    return text


def _whole(value) -> int:
    number = int(value)
    if isinstance(value, bool | bytes) or (number != value and not isinstance(value, str)):
        raise ValueError(value)
    return number
