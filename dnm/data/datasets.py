"""Sentences in: the four real data sets, the built-in corpus and files of one's own.

`load_dataset` returns the same `Dataset` whatever the source; `subset` draws the nested low-resource
training sets. Taught in notebook 04.
"""

import contextlib
import hashlib
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from dnm.config import DATASETS, FILE_SUFFIXES, RunConfig, is_data_file
from dnm.data import corpus
from dnm.data.files import SPLITS, Table, read_folder, read_splits, read_table, same
from dnm.data.hub import reachable
from dnm.data.splits import Split, split_pooled, stratified_order
from dnm.disk import write_atomically
from dnm.errors import DnmError, mendable, project_root, unknown

MANY = 200  # sentences from which on 50 steps are few; data/results/queue.md tells how steps were chosen
OWN = "own"  # salt of what is drawn from files of one's own: their rows alone decide, not their names

# Sizes of the splits, as in the paper's Table 1; `source` is the Hub data set, `pooled` says that it brings
# no fixed split of these sizes, so the split is ours.
REAL = {
    "subj": dict(source="SetFit/subj", pooled=True, sizes=(8000, 1000, 1000), labels=("objective", "subjective")),
    "mr": dict(source="cornell-movie-review-data/rotten_tomatoes", pooled=True, sizes=(8528, 1066, 1068),
               labels=("negative", "positive")),
    "sst2": dict(source="SetFit/sst2", pooled=False, sizes=(6920, 872, 1821), labels=("negative", "positive")),
    "sst1": dict(source="SetFit/sst5", pooled=False, sizes=(8544, 1101, 2210),
                 labels=("very negative", "negative", "neutral", "positive", "very positive")),
}


@dataclass(frozen=True)
class Dataset:
    """Three splits, the classes' names, and where the sentences came from."""

    name: str
    label_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    source: str
    salt: str = ""  # of what is drawn from it; else its name

    @cached_property
    def fingerprint(self) -> str:
        """Names the sentences. The order of training rows never matters, that of test rows does, to predictions."""
        rows = [list(zip(split.texts, split.labels.tolist(), strict=True))
                for split in (self.train, self.validation, self.test)]
        return hashlib.sha256(json.dumps([sorted(rows[0]), *rows[1:]]).encode()).hexdigest()[:16]

    @property
    def counts(self) -> dict[str, int]:
        return {split: len(getattr(self, split)) for split in SPLITS}

    @property
    def ceiling(self) -> float | None:
        """The best possible expected test accuracy, where p(y | sentence) is known; else None."""
        known = self.test.probabilities
        return None if known is None else float(known.max(axis=1).mean())


def load_dataset(name: str, text_column: str = "", label_column: str = "") -> Dataset:
    """A data set by name, or from a file or folder of one's own.

    Named sets are looked for in ``$DNM_DATA_DIR``, then ``data/``, then on the Hugging Face Hub. A single
    file (see `dnm.data.files`) is split 80/10/10 (train/validation/test); a folder holds ``train`` and
    optionally ``validation`` and ``test`` files, and what is missing is taken from the training sentences.
    A file that has changed since is read anew; a warning says what was guessed, left out or found odd.

    Raises
    ------
    DnmError : nothing found, a missing column, many rows with gaps, undecodable bytes, one class only.
    """
    return _load(str(name), text_column, label_column, () if name in corpus.LABELS else _stamp(str(name)))


def _stamp(name: str) -> tuple:
    """Paths, times and sizes of the files behind a name: what tells that they have changed since they were read."""
    places = [folder / name for folder in data_folders()] if name in REAL else [Path(name)]
    files = [file for place in places if place.exists()
             for file in (filter(is_data_file, sorted(place.iterdir())) if place.is_dir() else [place])]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@lru_cache(maxsize=8)
def _load(name: str, text_column: str, label_column: str, stamp: tuple) -> Dataset:
    if name in corpus.LABELS:
        built = corpus.build(name)
        splits = [Split(built.texts[s], np.array(built.labels[s]), np.array(built.probabilities[s])) for s in SPLITS]
        return Dataset(name, corpus.LABELS[name], *splits, source="built-in grammar")
    if name in REAL:
        damaged = None
        for folder in (place / name for place in data_folders() if (place / name).is_dir()):
            try:
                return _real(name, read_folder(folder), source="files")
            except DnmError as error:  # another folder may be whole, as after `dnm fetch`
                damaged = damaged or error
        if damaged:
            raise damaged
        return _real(name, from_hub(name), source=f"Hugging Face Hub, {REAL[name]['source']}")
    path = Path(name)
    if not path.exists():
        raise DnmError(f"no such data file or folder: {path} (named data sets: {', '.join(DATASETS)})")
    if not path.is_dir() and not is_data_file(path):
        raise DnmError(f"cannot read {path.name}: use one of {', '.join(FILE_SUFFIXES)}")
    return _own(path, read_splits(path, text_column, label_column) if path.is_dir() else
                {"all": read_table(path, text_column, label_column)})


def dataset_of(config: RunConfig) -> Dataset:
    """The data set of a run."""
    return load_dataset(config.dataset, config.text_column, config.label_column)


def data_folders() -> list[Path]:
    """Where named data sets are looked for, in this order."""
    folders = [Path(os.environ["DNM_DATA_DIR"]).expanduser()] if os.environ.get("DNM_DATA_DIR") else []
    return [*folders, project_root() / "data"]


def subset(data: Dataset, n: int | str, seed: int) -> np.ndarray:
    """Indices of a stratified training subset, a function of data set, size and seed alone.

    Subsets of one seed are nested: the first 50 of the 200 are the 50.
    """
    order = stratified_order(data.train.texts, data.train.labels, f"{data.salt or data.name} subset {seed}")
    return order[:subset_size(data, n)]


def training_split(data: Dataset, config: RunConfig) -> Split:
    """The sentences that a run trains on; a share ``wrong_labels``, the classes in proportion, has another's label.

    Which they are is a function of data set, size and seed alone. A `DnmError` where the share is less than one.
    """
    train = data.train.take(subset(data, config.n_train, config.seed))
    order = stratified_order(train.texts, train.labels, f"{data.salt or data.name} wrong {config.seed}")
    wrong, labels, classes = order[:round(config.wrong_labels * len(train))], train.labels.copy(), len(data.label_names)
    if config.wrong_labels and not len(wrong):
        raise DnmError(f"wrong_labels={config.wrong_labels} of {len(train)} sentences is not one: take a larger share")
    labels[wrong] = (labels[wrong] + 1 + np.arange(len(wrong)) % (classes - 1)) % classes
    return replace(train, labels=labels)


def subset_size(data: Dataset, n: int | str) -> int:
    """``n`` as a number; a `DnmError` where there are fewer training sentences, or more classes."""
    count, classes = len(data.train), len(data.label_names)
    n = count if n == "all" else n
    if n > count:
        raise DnmError(f"{data.name} has {count} training sentences, fewer than n_train={n}; use 'all'")
    if n < classes:
        raise DnmError(f"n_train={n} is fewer examples than {data.name}'s {classes} classes; use at least {classes}")
    return n


def within_data(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs, each once; an ``n_train`` beyond the training sentences becomes "all", and warnings say what is odd."""
    known = dict.fromkeys(corpus.LABELS, corpus.SIZES["train"]) | {name: row["sizes"][0] for name, row in REAL.items()}
    found, beyond, short = {}, {}, {}
    for config in configs:  # a named data set need not be at hand
        count = known.get(config.dataset) or len(dataset_of(config).train)
        if config.n_train != "all" and config.n_train > count:
            beyond.setdefault((Path(config.dataset).name, count), {})[str(config.n_train)] = True
            config = config.with_(n_train="all")
        n, found[config] = count if config.n_train == "all" else config.n_train, True
        wanted = 1000 if config.from_scratch else 400 if n >= 10 * MANY else 200
        if n >= MANY and config.steps < wanted and config.profile == "quick" and config.row.fine_tunes and config.lr:
            short[config.encoder] = max(short.get(config.encoder, (0,)), (n, config.steps, wanted))
    for (name, n), cut in beyond.items():
        warnings.warn(f"{name} has {n} training sentences, so n_train of {', '.join(cut)} becomes all", stacklevel=3)
    for encoder, (n, steps, wanted) in short.items():
        warnings.warn(f"{encoder}: {steps} steps are few for {n} sentences, and methods differ in how many they need "
                      f"(notebook 05): set steps to {wanted} at least", stacklevel=3)
    return list(found)


def limited(data: Dataset, split: str, limit: int) -> Split:
    """A split, or its first ``limit`` sentences in an order that keeps the classes in proportion."""
    whole = getattr(data, split)
    if not limit or limit >= len(whole):
        return whole
    return whole.take(stratified_order(whole.texts, whole.labels, f"{data.salt or data.name} {split} limit")[:limit])


def _real(name: str, tables: dict[str, tuple[list, list]], source: str) -> Dataset:
    about = REAL[name]
    try:
        parts = {split: Split(texts, np.array([int(label) for label in labels]))
                 for split, (texts, labels) in tables.items()}
    except ValueError:
        raise DnmError(f"{name}: labels must be the class numbers 0 to {len(about['labels']) - 1}") from None
    if about["pooled"]:
        whole = Split([text for p in parts.values() for text in p.texts],
                      np.concatenate([p.labels for p in parts.values()]))
        splits = split_pooled(whole, about["sizes"], name) if len(whole) == sum(about["sizes"]) else [whole]
    else:
        splits = [parts.get(split, Split([], np.array([], int))) for split in SPLITS]
    sizes = tuple(len(split) for split in splits)
    if sizes != about["sizes"]:
        raise DnmError(f"{name}: expected {about['sizes']} sentences (train, validation, test), found {sizes}; "
                       f"mend the files in {' or '.join(str(f / name) for f in data_folders())}, or `dnm fetch {name}`")
    return Dataset(name, about["labels"], *splits, source=source)


def _own(path: Path, tables: dict[str, Table]) -> Dataset:
    """One's own files: string labels allowed, missing splits carved from the training sentences."""
    for table in tables.values():
        if table.notes:
            warnings.warn(f"{table.file}: {'; '.join(table.notes)}", stacklevel=4)
    names, parts = numbered(path, tables)
    first = tables.get("all") or tables["train"]
    pool = parts.pop("all", None) or parts.pop("train")
    tenth = max(len(names), round(len(pool) / 10))
    sizes = [0 if split in parts else tenth for split in SPLITS[1:]]
    if len(pool) - sum(sizes) < len(names):
        raise DnmError(f"{path.name}: {len(pool)} rows are fewer examples than {len(names)} classes need for "
                       "training, validation and test; give more rows or separate files")
    try:
        carved = split_pooled(pool, (len(pool) - sum(sizes), *sizes), OWN)
    except DnmError as error:
        raise DnmError(f"{path.name}: {error}") from None
    parts = {split: parts.get(split, part) for split, part in zip(SPLITS, carved, strict=True)}
    if len(parts["test"]) < 50:
        warnings.warn(f"{path.name}: only {len(parts['test'])} test sentences, so one more right or wrong is "
                      f"{100 / len(parts['test']):.0f} points of accuracy", stacklevel=4)
    held = {same(text) for split in SPLITS[1:] for text in parts[split].texts}
    if shared := sum(text in held for text in {same(text) for text in parts["train"].texts}):
        warnings.warn(f"{path.name}: {shared} training sentences also stand in validation or test; "
                      "accuracies will look better than they are", stacklevel=4)
    columns = f" (guessed: text {first.text!r}, label {first.label!r})" if first.guessed else ""
    stem = path.with_suffix("").stem if path.suffix.lower() == ".gz" else path.stem
    return Dataset(stem, tuple(names), *(parts[split] for split in SPLITS), source=path.name + columns, salt=OWN)


def numbered(path: Path, tables: dict[str, Table]) -> tuple[list[str], dict[str, Split]]:
    """The classes of one's own files, those of the training sentences, and each file's sentences with their numbers."""
    first = tables.get("all") or tables.get("train")
    if first is None:
        raise DnmError(f"{path}: no train file (looked for train{{{','.join(FILE_SUFFIXES)}}})")
    names = sorted(set(first.labels), key=_number if all(_number(name) for name in set(first.labels)) else str)
    for table in tables.values():
        for name, count in Counter(table.labels).items():
            if name not in names:
                raise DnmError(f"{table.file}: class {name!r} ({count} rows) does not occur in {first.file}: a file "
                               "without labels? Leave it out")
    if len(names) < 2:
        raise DnmError(f"{path.name}: only one class ({names[0]}); classification needs at least two")
    return names, {split: Split(table.texts, np.array([names.index(label) for label in table.labels]))
                   for split, table in tables.items()}


def _number(name: str) -> tuple[float, str] | None:
    """A class name's place among numbers; None if it is none."""
    return (float(name), name) if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", name) else None


def from_hub(name: str) -> dict[str, tuple[list[str], list[int]]]:
    """The data set's splits from the Hugging Face Hub (or its local cache)."""
    way_out = (f"put {name}/all.jsonl or {name}/train.jsonl, validation.jsonl and test.jsonl under $DNM_DATA_DIR or "
               f"{project_root()}/data, run `dnm fetch {name}` where there is a network, or use dataset 'builtin'")
    with mendable(f"data set {name!r} is not on this machine and the Hub did not give it ({{}}): {way_out}"):
        reachable()  # decides at once whether the Hub's client may try the network or only its cache
        import datasets
        loaded = datasets.load_dataset(REAL[name]["source"])
    return {split: (list(table["text"]), list(table["label"])) for split, table in loaded.items()}


def fetch(names: list[str]) -> None:
    """Store named data sets under ``data/``, unless they are whole there or in ``$DNM_DATA_DIR``; print where."""
    for name in names:
        if name not in REAL:
            raise unknown("data set to fetch", name, REAL)
        for folder in (place / name for place in data_folders() if (place / name).is_dir()):
            with contextlib.suppress(DnmError):  # incomplete or damaged: fetch again
                _real(name, read_folder(folder), source="files")
                break
        else:
            tables, folder = from_hub(name), project_root() / "data" / name
            _real(name, tables, source="check")
            for split, (texts, labels) in tables.items():
                lines = (json.dumps({"text": text, "label": int(label)}, ensure_ascii=False) + "\n"
                         for text, label in zip(texts, labels, strict=True))
                write_atomically(folder / f"{split}.jsonl", "".join(lines).encode())
        print(f"{name}: {folder}")
