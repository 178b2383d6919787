"""The built-in corpus: sentences from a grammar of our own, labels from a known p(y | sentence).

Each sentence is a short note about a visit to an everyday place. Every clause adds a known amount to a
hidden score; the label is drawn from a distribution that depends on the score alone. So the best accuracy
any classifier can reach is known exactly (`Corpus.ceiling`). The score is compositional: praise that was
only expected, or that goes to another place, counts against; hearsay does not count at all; the side of a
contrast that comes last weighs more. Taught in notebook 04.
"""

import math
import random
from dataclasses import dataclass

SIZES = {"train": 2400, "validation": 400, "test": 700}
LABELS = {"builtin": ("disappointed", "pleased"),
          "builtin5": ("very disappointed", "disappointed", "mixed", "pleased", "very pleased")}

_PLACES = ("bakery", "ferry", "evening class", "repair shop", "library", "campsite", "swimming hall", "museum",
           "garden centre", "cinema", "night train", "market", "pottery course", "bicycle rental", "tea house",
           "barber", "climbing hall", "guest house", "planetarium", "dance school")
_ASPECTS = ("staff", "lighting", "waiting time", "price", "seating", "opening talk", "view", "heating", "menu",
            "equipment", "sound", "booking desk", "instruction", "cloakroom", "bread", "timetable", "air",
            "floor plan", "second half", "coffee", "guide", "queue", "side room", "service")
# Adjectives and what they add to the score; sign is praise or blame, size is strength.
_ADJECTIVES = {
    "superb": 2.0, "delightful": 1.8, "thoughtful": 1.5, "charming": 1.5, "spotless": 1.3, "generous": 1.3,
    "warm": 1.0, "careful": 1.0, "reliable": 1.0, "clever": 0.9, "pleasant": 0.9, "fair": 0.6, "tidy": 0.6,
    "decent": 0.5, "calm": 0.5, "sensible": 0.5, "adequate": 0.2, "plain": -0.2, "slow": -0.7, "crowded": -0.6,
    "odd": -0.4, "dated": -0.5, "stiff": -0.6, "confusing": -1.0, "careless": -1.2, "gloomy": -1.0, "noisy": -0.9,
    "overpriced": -1.2, "shabby": -1.2, "rude": -1.6, "dreadful": -2.0, "filthy": -1.8, "chaotic": -1.4,
    "tiresome": -1.0,
}
_PRAISE = [word for word, value in _ADJECTIVES.items() if value > 0]
_BLAME = [word for word, value in _ADJECTIVES.items() if value < 0]
_ADVERBS = {"": 1.0, "rather": 0.8, "very": 1.4, "a little": 0.6, "remarkably": 1.5, "mostly": 0.9, "truly": 1.4}
_VERDICTS = {"i would go again tomorrow": 1.6, "i have already told two friends to go": 1.4,
             "i left in a better mood than i came": 1.2, "i may look in again some day": 0.5,
             "once was enough for me": -1.2, "i shall think twice next time": -1.0,
             "i asked for my money back": -1.7, "i was glad when it was over": -1.4}
_PEOPLE = ("my neighbour", "a colleague", "the leaflet", "my sister", "the man at the kiosk", "an old review",
           "our landlady", "a friend of a friend")
_WHEN = ("on a tuesday", "after work", "in late autumn", "with my two nephews", "just before noon",
         "during the school holidays", "on the way home", "in the rain", "a week after it opened", "by chance")
_FACTS = ("we sat near the {aspect_place}", "it lies behind the old {landmark}", "the {landmark} is five minutes away",
          "there were {number} of us", "they open at {number} in the morning", "we stayed for {number} hours",
          "i had left my umbrella at the {landmark}", "it took us past the {landmark}")
_SPOTS = ("window", "entrance", "stairs", "radiator", "notice board", "back door")
_LANDMARKS = ("post office", "water tower", "town hall", "chapel", "fire station", "canal", "bus depot", "brewery")
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_LENGTHS = (1, 1, 1, 2, 2, 2, 2, 3, 3, 4)  # clauses a note; gives about 22 words with a deviation near 9


@dataclass(frozen=True)
class Corpus:
    """Sentences with their labels and the distribution the labels were drawn from.

    ``texts``, ``labels`` and ``probabilities`` (one tuple of p(y | sentence) a sentence) are keyed by split.
    """

    texts: dict[str, list[str]]
    labels: dict[str, list[int]]
    probabilities: dict[str, list[tuple[float, ...]]]

    def ceiling(self, split: str = "test") -> float:
        """Expected accuracy of the best possible classifier on the sentences of ``split``."""
        return math.fsum(max(p) for p in self.probabilities[split]) / len(self.probabilities[split])


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
    place, mood = rng.choice(_PLACES), rng.choice((_PRAISE, _BLAME))
    clauses = [_clause(rng, place, mood) for _ in range(rng.choice(_LENGTHS))]
    text, score = clauses[0]
    for clause, value in clauses[1:]:
        if rng.random() < 0.3:  # a contrast: what comes last weighs more
            text, score = f"although {text}, {clause}" if "although" not in text else f"{text}, but {clause}", \
                0.5 * score + 1.5 * value
        else:
            text, score = text + rng.choice((", and ", "; ", ", ")) + clause, score + value
    if rng.random() < 0.55:
        text = rng.choice((f"we went to the {place} {rng.choice(_WHEN)}: ", f"about the {place}: ",
                           f"{rng.choice(_WHEN)} i tried the {place}, and ")) + text
    if rng.random() < 0.3:
        verdict, value = rng.choice([item for item in _VERDICTS.items() if (item[1] > 0) == (mood is _PRAISE)])
        text, score = f"{text}, so {verdict}", score + value
    return text + " .", score


def _clause(rng: random.Random, place: str, mood: list[str]) -> tuple[str, float]:
    """One clause and what it adds; most adjectives follow the note's mood."""
    adjective = rng.choice(mood if rng.random() < 0.7 else list(_ADJECTIVES))
    value = _ADJECTIVES[adjective]
    adverb, strength = rng.choice(list(_ADVERBS.items()))
    aspect, kind = rng.choice(_ASPECTS), rng.random()
    phrase = f"{adverb} {adjective}".strip()
    if kind < 0.58:
        return f"the {aspect} was {phrase}", value * strength
    if kind < 0.68:
        return f"the {aspect} was not {adjective} at all", -0.8 * value
    if kind < 0.75:
        return f"i had expected the {aspect} to be {phrase}", -0.7 * value * strength
    if kind < 0.81:
        return f"the {aspect} at the other {place} is {phrase}", -0.6 * value * strength
    if kind < 0.89:
        return f"{rng.choice(_PEOPLE)} had called the {aspect} {phrase}", 0.0
    return rng.choice(_FACTS).format(aspect_place=rng.choice(_SPOTS), landmark=rng.choice(_LANDMARKS),
                                     number=rng.choice(_NUMBERS)), 0.0
