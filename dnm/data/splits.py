"""Sentences with their classes, and how they are put in order and parted: deterministic, the classes in proportion."""

import hashlib
from dataclasses import dataclass

import numpy as np

from dnm.data.files import same
from dnm.errors import DnmError


@dataclass(frozen=True)
class Split:
    """Sentences and their class numbers, ``[n]`` each; ``probabilities`` ``[n, c]`` for the built-in corpus."""

    texts: list[str]
    labels: np.ndarray
    probabilities: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, index) -> "Split":
        index = np.asarray(index, dtype=int)
        chosen = None if self.probabilities is None else self.probabilities[index]
        return Split([self.texts[i] for i in index], self.labels[index], chosen)


def stratified_order(texts: list[str], labels: np.ndarray, salt: str) -> np.ndarray:
    """An order ``[n]`` of the sentences every prefix of which has the classes in proportion.

    Within a class, sentences are ordered by a hash of their text, so the order of the rows does not matter.
    The r-th sentence of a class of m gets the rank (r + 1/2) / m (Webster's apportionment, whose prefixes
    are nested); the first of every class comes at the very front.
    """
    keys = np.array([hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest() for text in texts])
    labels, ranks = np.asarray(labels), np.empty(len(texts))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position = np.empty(len(members))
        position[np.argsort(keys[members], kind="stable")] = np.arange(len(members))
        ranks[members] = np.where(position == 0, 0.0, (position + 0.5) / len(members))
    return np.lexsort((keys, ranks))


def split_pooled(rows: Split, sizes: tuple[int, int, int], salt: str) -> list[Split]:
    """Train, validation and test of the given sizes: stratified, deterministic, no sentence in two of them.

    Sentences that occur more than once (up to case and spacing) all go to the training split, and so does a class's
    last sentence.
    """
    _, inverse, occurrences = np.unique([same(text) for text in rows.texts], return_inverse=True, return_counts=True)
    single = np.flatnonzero(occurrences[inverse] == 1)
    held = single[stratified_order([rows.texts[i] for i in single], rows.labels[single], f"{salt} split")]
    safe = set(rows.labels[occurrences[inverse] > 1].tolist())
    last = {label: i for i, label in enumerate(rows.labels[held].tolist()) if label not in safe}
    held = np.delete(held, list(last.values()))
    if len(held) < sizes[1] + sizes[2]:
        raise DnmError(f"{len(rows)} rows, {len(occurrences)} different sentences, {len(held)} of them neither "
                       f"repeated nor a class's only one, but {sizes[1] + sizes[2]} are needed for validation and "
                       "test; give more sentences, or files train, validation and test in one folder")
    test, validation = held[:sizes[2]], held[sizes[2]:sizes[1] + sizes[2]]
    train = np.setdiff1d(np.arange(len(rows)), np.concatenate([test, validation]))
    return [rows.take(train), rows.take(validation), rows.take(test)]
