"""The built-in corpus: sentences from a grammar of our own, labels from a known p(y | sentence).

Each sentence is a short note about a visit to an everyday place. Every clause adds a known amount to a hidden score;
the label is drawn from a distribution that depends on the score alone. So the best accuracy that any classifier can
reach is known exactly (``Dataset.ceiling``). A note is of one mind, but counting its words does not always tell which:
blame that is denied or was only expected is praise, and so is blame of another place; what is conceded counts half,
hearsay not at all. The words and what they add lie in ``corpus.json``. Taught in notebook 04.
"""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

SIZES = {"train": 2400, "validation": 400, "test": 700}
LABELS = {"builtin": ("disappointed", "pleased"),
          "builtin5": ("very disappointed", "disappointed", "mixed", "pleased", "very pleased")}
_WORDS = json.loads(Path(__file__).with_name("corpus.json").read_text(encoding="utf-8"))
_CLAUSES = (1, 1, 1, 2, 2, 2, 2, 3, 3, 4)  # in a note, which then has about 22 words


@dataclass(frozen=True)
class Corpus:
    """Sentences with their labels and the distribution the labels were drawn from.

    ``texts``, ``labels`` and ``probabilities`` (one tuple of p(y | sentence) a sentence) are keyed by split.
    """

    texts: dict[str, list[str]]
    labels: dict[str, list[int]]
    probabilities: dict[str, list[tuple[float, ...]]]


def build(name: str = "builtin") -> Corpus:
    """The two-class (``builtin``) or five-class (``builtin5``) corpus; the sentences are the same in both."""
    rng = random.Random(20221012)
    notes: dict[str, float] = {}
    while len(notes) < sum(SIZES.values()):
        text, score = _note(rng)
        notes.setdefault(text, score)
    rng = random.Random(f"labels of {name}")
    rows = []
    for text, score in notes.items():
        probability = label_distribution(score, len(LABELS[name]))
        label = rng.choices(range(len(probability)), probability)[0]
        rows.append((text, label, probability))
    corpus, start = Corpus({}, {}, {}), 0
    for split, size in SIZES.items():
        texts, labels, probabilities = zip(*rows[start:start + size], strict=True)
        corpus.texts[split], corpus.labels[split] = list(texts), list(labels)
        corpus.probabilities[split] = list(probabilities)
        start += size
    return corpus


def label_distribution(score: float, classes: int) -> tuple[float, ...]:
    """p(y | score): a logistic curve for two classes, a softmax of squared distances to five anchors."""
    if classes == 2:
        positive = 1 / (1 + math.exp(-2.0 * score))
        return 1 - positive, positive
    weights = [math.exp(-1.1 * (score - anchor) ** 2) for anchor in (-2.4, -1.2, 0.0, 1.2, 2.4)]
    weights = weights if sum(weights) > 1e-12 else [float(score < 0), 0.0, 0.0, 0.0, float(score > 0)]
    return tuple(weight / sum(weights) for weight in weights)


def _note(rng: random.Random) -> tuple[str, float]:
    """One sentence and its score."""
    place, mood = rng.choice(_WORDS["places"]), rng.choice((-1, 1))
    text, score = _opinion(rng, place, mood)
    for _ in range(rng.choice(_CLAUSES) - 1):
        if rng.random() < 0.25 and not {"but", "although"} & set(text.split()):
            # A contrast, one a note: what is conceded counts half.
            other, value = _opinion(rng, place, -mood)
            text, score = rng.choice((f"although {other}, {text}", f"{other}, but {text}")), score + 0.5 * value
        else:
            clause, value = _opinion(rng, place, mood) if rng.random() < 0.7 else _aside(rng)
            text, score = text + rng.choice((", and ", "; ")) + clause, score + value
    if rng.random() < 0.4:
        when = rng.choice(_WORDS["when"])
        text = rng.choice((f"we went to the {place} {when}: ", f"about the {place}: ",
                           f"{when} i tried the {place}: ")) + text
    if rng.random() < 0.55:
        verdict, value = rng.choice([item for item in _WORDS["verdicts"].items() if item[1] * mood > 0])
        text, score = f"{text}, so {verdict}", score + value
    return text + " .", score


def _opinion(rng: random.Random, place: str, mood: int) -> tuple[str, float]:
    """A clause that praises (``mood`` 1) or blames (-1), straight or by what is denied, expected or elsewhere."""
    kind, turned = rng.choice(_WORDS["kinds"]), rng.random()
    words = kind["praise" if (mood > 0) == (turned < 0.91) else "blame"]
    aspect, (adjective, value), (adverb, strength) = (
        rng.choice(list(part)) for part in (kind["aspects"], words.items(), _WORDS["adverbs"].items()))
    if not 0.3 < abs(value) < 1.7:  # nothing is rather superb, or remarkably adequate
        adverb, strength = "", 1.0
    phrase = f"{adverb} {adjective}".strip()
    if turned < 0.91:
        return f"the {aspect} was {phrase}", value * strength
    if turned < 0.955:
        return f"the {aspect} was not {adjective} at all", -0.8 * value
    if turned < 0.98:
        return f"i had expected the {aspect} to be {phrase}", -0.7 * value * strength
    return f"the {aspect} at the other {place} is {phrase}", -0.6 * value * strength


def _aside(rng: random.Random) -> tuple[str, float]:
    """A clause that adds nothing: hearsay or a mere fact."""
    if rng.random() < 0.5:
        fact = rng.choice(_WORDS["facts"])
        return fact.format(**{name: rng.choice(_WORDS[name]) for name in ("spot", "landmark", "number")}), 0.0
    kind = rng.choice(_WORDS["kinds"])
    adjective = rng.choice([*kind["praise"], *kind["blame"]])
    return f"{rng.choice(_WORDS['people'])} had called the {rng.choice(kind['aspects'])} {adjective}", 0.0
