"""Further versions of the training texts: easy data augmentation (EDA), and translation there and back.

A copy is a function of its text, the run's seed and what it is made with. Taught in notebook 01.

EDA after Wei and Zou (2019) and their code (jasonwei20/eda_nlp), with its defaults: copies in small letters without
digits and punctuation. Where ours differs: the original stays as it is; letters of every script are kept; stop words
are scikit-learn's; words keep an order (theirs were sets, of another order in every process); insertion takes any
synonym of a content word to any place, as their paper says (their code the first one, of stop words too, never last).

Back-translation after Edunov et al. (2018), sampled both ways at MixText's temperature from the whole vocabulary, a
text at a time on the CPU, so that a copy depends on no batch. Models that have to be told the language are not served.
"""

import hashlib
import json
import os
import re
import unicodedata
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np

from dnm.config import RunConfig
from dnm.data import hub
from dnm.data.pretrained import by_transformers
from dnm.disk import read_json, write_json
from dnm.errors import DnmError, mendable, project_root, say_once

SHARE = 0.1  # of the words that an operation changes, EDA's alpha and p
TEMPERATURE = 0.9  # of sampled translations
NEAREST, ALIKE = 5, 0.3  # neighbours that stand for synonyms, and their least cosine: random vectors have none
Synonyms = dict[str, list[str]]
_ENDINGS = {part: [rule.split(":") for rule in rules.split()] for part, rules in {  # as in WordNet's morphy(7WN)
    "noun": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "verb": "s: ies:y es:e es: ed:e ed: ing:e ing:", "adj": "er: est: er:e est:e", "adv": ""}.items()}


def versions(config: RunConfig, texts: list[str], *words_of) -> tuple[list[str], np.ndarray, dict]:
    """Every text with its copies behind it; how many versions each has ``[n]``; what the run's record tells of them.

    ``words_of`` the encoder are the table ``[V, e]`` of its word embeddings and the vocabulary.
    """
    if not config.row.augment:
        return texts, np.ones(len(texts), int), {}
    about = {"source": source(config)}  # which says what is missing
    made = {"eda": eda_copies, "translation": translations}[config.row.augment](config, texts, *words_of)
    every = [version for text, copies in zip(texts, made, strict=True) for version in (text, *copies)]
    about |= {"copies": len(every) - len(texts), "digest": _digest(every)[:16]}
    return every, np.array([1 + len(copies) for copies in made]), about


def source(config: RunConfig) -> str:
    """What a run's copies are made with, by a digest where it is files; a `DnmError` where those are not there."""
    if not config.row.augment:
        return ""
    if config.row.augment == "translation":
        return " and ".join(_files(folder, "[!.]*") for folder in _translators(config))
    if config.synonyms == "wordnet":
        return "WordNet " + _files(wordnet_folder(), "data.*", "*.exc")
    if config.synonyms:
        if not Path(config.synonyms).is_file():
            raise DnmError(f"cannot read synonyms {config.synonyms}: there is no such file")
        return f"synonyms {hub.file_sha256(Path(config.synonyms))[:16]}"
    return "swap and deletion" if config.from_scratch and not config.word_vectors else "neighbouring embeddings"


def _digest(*parts) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _files(folder: Path, *patterns: str) -> str:
    files = sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file())
    return _digest([(file.name, hub.file_sha256(file)) for file in files])[:16]


# ---------------------------------------------------------------- EDA: lists of words in, lists of words out

def words(text: str) -> list[str]:
    """A text's words in small letters: digits and punctuation part them, apostrophes do not."""
    text = re.sub("['’]", "", text.lower())
    return "".join(c if unicodedata.category(c)[0] in "LM" else " " for c in text).split()  # letters and their marks


def content(found: list[str]) -> list[str]:
    """Those that are neither stop words nor single letters."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return [word for word in found if len(word) > 1 and word not in ENGLISH_STOP_WORDS]


def replacement(found: list[str], n: int, synonyms: Synonyms, rng: np.random.Generator) -> list[str]:
    """``n`` different content words, or as many as there are, each a random synonym wherever it stands."""
    able = [word for word in dict.fromkeys(content(found)) if synonyms.get(word)]
    new = {able[i]: str(rng.choice(synonyms[able[i]])) for i in rng.permutation(len(able))[:n]}
    return [new.get(word, word) for word in found]


def insertion(found: list[str], n: int, synonyms: Synonyms, rng: np.random.Generator) -> list[str]:
    """``n`` times a random synonym of a random content word, anywhere."""
    able, new = [word for word in content(found) if synonyms.get(word)], list(found)
    for _ in range(n if able else 0):
        new.insert(rng.integers(len(new) + 1), str(rng.choice(synonyms[rng.choice(able)])))
    return new


def swap(found: list[str], n: int, rng: np.random.Generator) -> list[str]:
    """``n`` times two words in each other's place."""
    new = list(found)
    for _ in range(n if len(new) > 1 else 0):
        i, j = rng.choice(len(new), 2, replace=False)
        new[i], new[j] = new[j], new[i]
    return new


def deletion(found: list[str], p: float, rng: np.random.Generator) -> list[str]:
    """Every word left out with probability ``p``; a random one stays where none would."""
    kept = [word for word, share in zip(found, rng.random(len(found)), strict=True) if share >= p]
    return kept or [str(rng.choice(found))]


def eda(text: str, count: int, synonyms: Synonyms | None, rng: np.random.Generator) -> list[str]:
    """``count`` copies of a text, one operation each, about as many of each; without synonyms swaps and deletions."""
    if not (found := words(text)):
        return []
    n = max(1, int(SHARE * len(found)))
    operations = [partial(replacement, found, n, synonyms, rng), partial(insertion, found, n, synonyms, rng),
                  partial(swap, found, n, rng), partial(deletion, found, SHARE, rng)][2 * (synonyms is None):]
    made = [" ".join(one()) for one in operations for _ in range(count // len(operations) + 1)]
    return [made[i] for i in rng.permutation(len(made))[:count]]


def eda_copies(config: RunConfig, texts: list[str], table, vocabulary: dict[str, int]) -> list[list[str]]:
    """The copies of every text, with synonyms from where the run's settings say."""
    wanted, synonyms = list(dict.fromkeys(content([word for text in texts for word in words(text)]))), None
    if config.synonyms:
        synonyms = wordnet(wanted, wordnet_folder()) if config.synonyms == "wordnet" else read_synonyms(config.synonyms)
    elif config.from_scratch and not config.word_vectors:
        say_once(f"{config.encoder} starts from random word vectors, so eda swaps and leaves out words only; name a "
                 "file of synonyms, or 'wordnet', for the other two operations")
    else:
        synonyms = neighbours(wanted, table, vocabulary)
        say_once("the synonyms of eda are neighbours in the encoder's word embeddings, among which are antonyms; name "
                 "a file of synonyms, or 'wordnet', for others")
    return [eda(text, config.row.copies, synonyms, np.random.default_rng(int(_digest("eda", config.seed, text), 16)))
            for text in texts]


# ---------------------------------------------------------------- synonyms

def read_synonyms(path: str) -> Synonyms:
    """A file of lines of a word, a tab and its synonyms with commas between; a word's lines add up."""
    found: Synonyms = {}
    with mendable(f"cannot read synonyms {path} ({{}}): expected lines of a word, a tab, and its synonyms with commas"):
        lines = enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), start=1)
        for number, line in ((number, line) for number, line in lines if line.strip()):
            word, *others = (" ".join(words(part)) for part in re.split("[\t,]", line))
            if not (word and any(others)):
                raise ValueError(f"line {number}: {line[:40]!r}")
            found.setdefault(word, []).extend(filter(None, others))
    return found


def wordnet_folder() -> Path:
    """Where WordNet's files are: ``$WNSEARCHDIR``, ``$WNHOME/dict``, or where Debian puts them."""
    places = (os.environ.get("WNSEARCHDIR", ""), f"{os.environ.get('WNHOME', '')}/dict", "/usr/share/wordnet")
    if found := [Path(place) for place in places if place and (Path(place) / "data.noun").is_file()]:
        return found[0]
    raise DnmError("synonyms 'wordnet': WordNet's files (data.noun, …) are not here; install them (Debian's package is "
                   "wordnet-base), or name their folder in $WNSEARCHDIR")


def wordnet(wanted: list[str], folder: Path) -> Synonyms:
    """For each wanted word the others of every synonym set that it, or a base form of it, is in."""
    found: Synonyms = {word: [] for word in wanted}
    for part, rules in _ENDINGS.items():
        sets, irregular = _synonym_sets(folder, part, _files(folder, f"data.{part}", f"{part}.exc"))
        for word, others in found.items():
            regular = (word.removesuffix(end) + base for end, base in rules if word.endswith(end))
            bases = [word, *irregular.get(word, []), *regular]
            others += [o for base in dict.fromkeys(bases) for one in sets.get(base, []) for o in one if o not in bases]
    return {word: list(dict.fromkeys(others)) for word, others in found.items()}


@lru_cache(maxsize=4)
def _synonym_sets(folder: Path, part: str, digest: str) -> tuple[dict[str, list[list[str]]], Synonyms]:
    """The synonym sets of each word of a part of speech, and base forms of the irregular ones, as in wndb(5WN)."""
    sets: dict[str, list[list[str]]] = {}
    with mendable(f"cannot read WordNet's files of the {part} in {folder} ({{}}): install them anew"):
        lines = [line.split() for file in folder.glob(f"{part}.exc") for line in file.read_text("utf-8").splitlines()]
        for line in (folder / f"data.{part}").read_text("utf-8").splitlines():
            if not line.startswith("  "):  # as the licence does
                fields = line.split()  # place, file, kind, how many words (hexadecimal), then words, each with a number
                names = [" ".join(words(re.sub(r"\(.*", "", name))) for name in fields[4:4 + 2 * int(fields[3], 16):2]]
                for name in filter(None, names):
                    sets.setdefault(name, []).append([*filter(None, names)])
    return sets, {word: bases for word, *bases in filter(None, lines)}


def neighbours(wanted: list[str], table, vocabulary: dict[str, int]) -> Synonyms:
    """For each wanted word with an embedding of its own the nearest other content words, by the cosine of ``table``."""
    import torch

    mark = next((m for m in "Ġ▁" if sum(token.startswith(m) for token in vocabulary) > len(vocabulary) / 10), "")
    whole = {token.removeprefix(mark): i for token, i in sorted(vocabulary.items(), key=lambda item: item[1])
             if token.startswith(mark)}
    names = content([word for word in whole if word.isalpha() and word == word.lower()])
    # In double precision, so that what else is wanted, which changes the rounding, changes no order.
    rows = torch.nn.functional.normalize(table[[whole[word] for word in names]].detach().double().cpu(), dim=-1)
    places, found = {word: i for i, word in enumerate(names)}, {}
    asked = [word for word in wanted if word in places]
    for part in (asked[start:start + 256] for start in range(0, len(asked), 256)):
        alike, near = (rows[[places[word] for word in part]] @ rows.T).topk(min(NEAREST + 1, len(names)))
        for word, cosines, order in zip(part, alike.tolist(), near.tolist(), strict=True):
            these = (names[i] for cosine, i in zip(cosines, order, strict=True) if cosine >= ALIKE)
            found[word] = [other for other in these if other != word][:NEAREST]
    return found


# ---------------------------------------------------------------- back-translation

def _translators(config: RunConfig) -> list[Path]:
    if not config.translators:
        raise DnmError("back-translation needs translators: two models, there and back, as folders or Hub ids with a "
                       "comma between, such as Helsinki-NLP/opus-mt-en-de,Helsinki-NLP/opus-mt-de-en")
    return [hub.model_folder(name, "translator") for name in config.translators.split(",")]


def translations(config: RunConfig, texts: list[str], *_) -> list[list[str]]:
    """The copies of every text that differ from it; each is kept in ``data/translations``, and made once."""
    from tqdm import tqdm

    folders, models, load, copies = _translators(config), source(config), cache(translator), []
    for text in tqdm(texts, "back-translation", unit="text", delay=3, mininterval=1):
        made = []
        for copy in range(config.row.copies):
            key = _digest("translation", text, models, TEMPERATURE, config.seed, copy)
            path = project_root() / "data" / "translations" / key[:2] / f"{key[:24]}.json"
            try:
                made.append(str(read_json(path)["copy"]))
            except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
                made.append(round_trip(text, *map(load, folders), int(key[:14], 16)))
                write_json(path, {"text": text, "copy": made[-1]})
        copies.append([copy for copy in dict.fromkeys(made) if copy])
    return copies


def round_trip(text: str, there, back, seed: int) -> str:
    """A text there and back, or nothing where it says the same; small letters, and marks that stand apart, stay so."""
    marks = r"\s+([.,!?;:]|n't|'\w+)(?=\s|$)"
    found = back(there(re.sub(marks, r"\1", text), seed), seed + 1).strip()
    for mark in sorted(set(re.findall(marks, text))):
        found = re.sub(rf"(?<=[^\s.,!?;:]){re.escape(mark)}(?=[\s.,!?;:]|$)", f" {mark}", found)
    same = "".join(found.split()).casefold() == "".join(text.split()).casefold()
    return "" if same else found.lower() if text == text.lower() else found


def translator(folder: Path):
    """The model of `transformers` in a folder as a function; its weights are read from safetensors only."""
    import torch

    local = dict(local_files_only=True, trust_remote_code=False)
    with by_transformers(f"cannot load the translator in {folder} ({{}}): it has to be a model from text to text with "
                         "its tokenizer; that of Marian's models needs `pip install sentencepiece sacremoses`"):
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        model, found = AutoModelForSeq2SeqLM.from_pretrained(folder, use_safetensors=True, dtype=torch.float32,
                                                             output_loading_info=True, **local)
        if any(re.fullmatch(r">>\w+<<", token) for token in tokenizer.get_vocab()):
            raise DnmError(f"the translator in {folder} has to be told the language, which is not served")
        if found["missing_keys"]:
            raise DnmError(f"the translator in {folder} lacks weights: {min(found['missing_keys'])}")
    room = getattr(model.eval().config, "max_position_embeddings", 512)
    model.generation_config.max_length = None  # the length of a text decides

    @torch.no_grad()
    def translate(text: str, seed: int) -> str:
        ids = tokenizer(text, truncation=True, max_length=room, return_tensors="pt")["input_ids"]
        most = min(room - 1, 2 * ids.shape[1] + 10)  # a sample may never come to its end
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=TEMPERATURE,
                                  top_k=0, top_p=1.0, num_beams=1, max_new_tokens=most)
        return tokenizer.decode(made[0], skip_special_tokens=True)

    return translate
