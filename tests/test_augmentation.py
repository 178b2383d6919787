"""EDA and back-translation: their operations, where synonyms come from, the cache, and what the trainer makes of copies."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf
from test_training import ENCODERS, essence, stop_after

from dnm.batches import Batches
from dnm.classify.estimator import DNMClassifier
from dnm.config import RunConfig
from dnm.data import augmentation as augment
from dnm.data.hub import minilm_folder
from dnm.errors import DnmError, say_once
from dnm.methods import METHODS
from dnm.runs.fleet import kind
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.training import Interrupted, Run, fit

SYNONYMS = {"film": ["movie", "picture"], "bright": ["shining"], "dull": ["boring", "flat", "slow"], "the": ["a"], "x": ["y"]}
WORDS = ["the", "film", "is", "not", "dull", "and", "the", "actors", "of", "the", "film", "are", "bright", "x"]


@pytest.fixture(autouse=True)
def _every_warning():
    say_once.cache_clear()


def rngs(count: int = 200):
    return [np.random.default_rng(seed) for seed in range(count)]


# ---------------------------------------------------------------- EDA's operations

def test_words_are_letters_of_any_script_and_apostrophes_join():
    assert augment.words("Don't PANIC: it’s 42 o'clock, re-read Straße_7!") == ["dont", "panic", "its", "oclock", "re", "read", "straße"]
    assert augment.words("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"] and augment.words(" 3.14 ?! ") == []


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_replacement_changes_n_content_words_wherever_they_stand(n):
    seen = set()
    for rng in rngs():
        new = augment.replacement(WORDS, n, SYNONYMS, rng)
        changed = {old: {b for a, b in zip(WORDS, new, strict=True) if a == old} for old, b in zip(WORDS, new, strict=True) if old != b}
        assert len(new) == len(WORDS) and len(changed) == min(n, 3)  # the, x and what has no synonym stay
        assert all(len(found) == 1 and found <= set(SYNONYMS[old]) for old, found in changed.items())
        seen |= {(old, *found) for old, found in changed.items()}
    assert seen == {(old, new) for old in ("film", "bright", "dull") for new in SYNONYMS[old]}


def test_insertion_adds_n_synonyms_of_content_words_anywhere():
    places = set()
    for rng in rngs(400):
        new = augment.insertion(WORDS, 2, SYNONYMS, rng)
        added = Counter(new) - Counter(WORDS)
        assert added.total() == 2 and set(added) <= {s for word in ("film", "bright", "dull") for s in SYNONYMS[word]}
        assert [word for word in new if word not in added] == WORDS  # the others keep their order
        places |= {i for i, word in enumerate(new) if word in added}
    assert places == set(range(len(WORDS) + 2))
    assert augment.insertion(["the", "unknown"], 2, SYNONYMS, rngs(1)[0]) == ["the", "unknown"]


def test_swap_keeps_the_multiset_and_two_words_move():
    letters = list("abcdefg")
    for rng in rngs():
        once, thrice = augment.swap(letters, 1, rng), augment.swap(WORDS, 3, rng)
        assert sum(a != b for a, b in zip(once, letters, strict=True)) == 2 and sorted(once) == letters
        assert Counter(thrice) == Counter(WORDS)
    assert augment.swap(["alone"], 3, rngs(1)[0]) == ["alone"] and letters == list("abcdefg")


def test_deletion_leaves_a_subsequence_never_nothing_and_a_share_of_p():
    for p in (0.1, 0.5, 1.0):
        kept = []
        for rng in rngs(500):
            new, rest = augment.deletion(WORDS, p, rng), iter(WORDS)
            assert new and all(word in rest for word in new)  # in this order
            kept.append(len(new))
        if p < 1:  # five standard errors
            spread = 5 * (p * (1 - p) / (500 * len(WORDS))) ** 0.5
            assert np.mean(kept) / len(WORDS) == pytest.approx(1 - p, abs=spread)
        else:
            assert set(kept) == {1}


def test_a_text_has_nine_copies_of_about_as_many_of_each_operation():
    text, unlike = " ".join(WORDS), Counter()
    for rng in rngs(300):
        copies = augment.eda(text, 9, SYNONYMS, rng)
        assert len(copies) == 9
        for copy in map(str.split, copies):
            more, less = (Counter(copy) - Counter(WORDS)).total(), (Counter(WORDS) - Counter(copy)).total()
            unlike["replaced" if more and less else "inserted" if more else "deleted" if less else "swapped"] += 1
    every = sum(unlike.values())
    for name in ("replaced", "inserted"):  # a quarter each; a deletion may delete nothing, and looks like a swap then
        assert unlike[name] / every == pytest.approx(0.25, abs=0.01)
    assert unlike["deleted"] / every == pytest.approx(0.25 * (1 - 0.9 ** len(WORDS)), abs=0.02)
    assert all(Counter(copy.split()) <= Counter(WORDS) for copy in augment.eda(text, 9, None, rngs(1)[0]))


@pytest.mark.parametrize("text", ["", " ", "?!", "12 %", "one", "x", "the", "film"])
def test_texts_of_no_or_one_word_do_no_harm(text):
    for synonyms in (None, {}, SYNONYMS):
        copies = augment.eda(text, 9, synonyms, rngs(1)[0])
        assert len(copies) == (9 if augment.words(text) else 0) and all(copy.strip() for copy in copies)


SCRIPT = """
import sys, json
from dnm.data import augmentation, datasets
from dnm.config import RunConfig
from dnm.training import Run
run = Run(RunConfig.create("smoke", method="eda", encoder=sys.argv[1], n_train=20, seed=3))
print(json.dumps(run.augmentation), run.train.texts == run.data.train.take(datasets.subset(run.data, 20, 3)).texts)
"""


def test_copies_do_not_depend_on_pythons_hash_seed(tiny_models):
    said = {subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT, str(tiny_models["bert"])], check=True, capture_output=True, text=True,
                           env=os.environ | {"PYTHONHASHSEED": seed}).stdout for seed in ("0", "1")}
    assert len(said) == 1 and '"copies": 180' in said.pop()


# ---------------------------------------------------------------- where synonyms come from

def test_a_file_of_synonyms(tmp_path):
    file = tmp_path / "synonyms.txt"
    file.write_text("Film\tmovie, motion picture ,\n\ndull\tboring\nfilm\tflick\n", encoding="utf-8")
    assert augment.read_synonyms(str(file)) == {"film": ["movie", "motion picture", "flick"], "dull": ["boring"]}
    for bad, line in (("good\tfine\nno tab here\n", 2), ("good\t \n", 1), ("\tfine\n", 1)):
        file.write_text(bad)
        with pytest.raises(DnmError, match=rf"synonyms\.txt .*line {line}.*a tab"):
            augment.read_synonyms(str(file))
    with pytest.raises(DnmError, match=r"nowhere\.txt: there is no such file"):
        fit(RunConfig.create("smoke", method="eda", synonyms=str(tmp_path / "nowhere.txt")))


WORDNET = {
    "data.noun": """\
  1 A licence in lines that begin with two blanks.
00000100 03 n 03 film 0 movie 0 motion_picture 2 001 @ 00000300 n 0000 | something to be seen
00000200 03 n 02 Film 1 plastic_film 0 000 | a thin sheet
00000300 03 n 01 thing 0 000 | whatever there is
00000400 03 n 0c a1 0 bb 0 cc 0 dd 0 ee 0 ff 0 gg 0 hh 0 ii 0 jj 0 kk 0 children's 0 000 | twelve words, c in hexadecimal
00000500 03 n 02 child 0 kid 0 000 | a young one
""",
    "data.verb": "00000100 30 v 02 film 0 shoot 4 001 @ 00000200 v 0000 01 + 08 00 | with a camera\n",
    "data.adj": "00000100 00 a 02 dull(p) 0 boring 0 000 | not bright\n00000200 00 s 02 asleep(a) 0 dull 1 000 | what is not awake\n",
    "data.adv": "00000100 02 r 02 fast 0 rapidly 0 000 | with speed\n",
    "noun.exc": "children child\n"}


def test_wordnets_own_files(tmp_path, monkeypatch):
    """Every sense, words of several words, markers in brackets, counts in hexadecimal, base forms."""
    for name, content in WORDNET.items():
        (tmp_path / name).write_text(content)
    found = augment.wordnet(["film", "filming", "films", "dull", "dullest", "bb", "children", "fast", "nothing"], tmp_path)
    assert found == {
        "film": ["movie", "motion picture", "plastic film", "shoot"], "films": ["movie", "motion picture", "plastic film", "shoot"],
        "filming": ["shoot"], "dull": ["boring", "asleep"], "dullest": ["boring", "asleep"], "children": ["kid"], "fast": ["rapidly"],
        "bb": ["a", "cc", "dd", "ee", "ff", "gg", "hh", "ii", "jj", "kk", "childrens"], "nothing": []}
    config = RunConfig.create("smoke", method="eda", synonyms="wordnet")
    for name, value in (("WNSEARCHDIR", str(tmp_path)), ("WNHOME", str(tmp_path.parent))):
        monkeypatch.setenv(name, value)
    (tmp_path.parent / "dict").mkdir(exist_ok=True)
    first = augment.source(config)
    assert augment.wordnet_folder() == tmp_path and first.startswith("WordNet ")
    (tmp_path / "data.adv").write_text(WORDNET["data.adv"].replace("rapidly", "quickly"))
    assert augment.source(config) != first
    (tmp_path / "data.noun").write_text("00000100 03 n zz film\n")
    with pytest.raises(DnmError, match=r"files of the noun .*install them anew"):
        augment.wordnet(["film"], tmp_path)
    (tmp_path / "data.noun").unlink()
    if not os.path.exists("/usr/share/wordnet/data.noun"):
        with pytest.raises(DnmError, match=r"wordnet-base.*WNSEARCHDIR"):
            augment.source(config)


def test_neighbours_are_the_nearest_whole_words_of_the_table():
    tokenizer = hf.AutoTokenizer.from_pretrained(minilm_folder())
    table = hf.AutoModel.from_pretrained(minilm_folder()).get_input_embeddings().weight.detach()
    found = augment.neighbours(["good", "film", "xyzzyq", "the", "##ing"], table, tokenizer.get_vocab())
    assert set(found) == {"good", "film"} and "bad" in found["good"]  # which is why it is said
    rows = table.double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vocabulary = tokenizer.get_vocab()
    for word, near in found.items():
        cosines = {other: rows[i] @ rows[vocabulary[word]] for other, i in vocabulary.items()
                   if other.isalpha() and other != word and augment.content([other])}
        assert near == sorted(cosines, key=cosines.get, reverse=True)[:augment.NEAREST]
        assert min(cosines[other] for other in near) >= augment.ALIKE


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_neighbours_in_vocabularies_that_mark_the_beginning_of_words(mark):
    vocabulary = {f"{mark}{word}": i for i, word in enumerate(["film", "movie", "dull", "Film"])} | {"movie": 4, "ilm": 5}
    table = torch.eye(6, 3)
    table[1], table[3], table[4] = torch.tensor([1, 0.2, 0]), table[0], table[0]
    assert augment.neighbours(["film", "dull", "ilm"], table, vocabulary) == {"film": ["movie"], "dull": []}


def test_where_synonyms_come_from_is_said_and_recorded(tiny, tmp_path):
    file = tmp_path / "synonyms.txt"
    file.write_text("food\tmeal, fare\nroom\tchamber\n")
    with pytest.warns(UserWarning, match="antonyms"):
        near = Run(tiny(method="eda"))
    with pytest.warns(UserWarning, match="swaps and leaves out words only"):
        none = Run(tiny(method="eda", **ENCODERS["cnn"]))
    given = Run(tiny(method="eda", synonyms=str(file)))
    sources = [run.augmentation["source"] for run in (near, none, given)]
    assert sources[:2] == ["neighbouring embeddings", "swap and deletion"] and sources[2].startswith("synonyms ")
    assert all(run.augmentation["copies"] == 9 * 24 and len(run.batches.sentences) == 10 * 24 for run in (near, none, given))
    assert len({run.augmentation["digest"] for run in (near, none, given)}) == 3 and Run(tiny(method="plain")).augmentation == {}


# ---------------------------------------------------------------- the trainer

def test_each_visit_takes_a_version_uniformly_and_plains_order_stays():
    config = RunConfig.create("smoke", method="eda", batch_size=7)
    counts = np.array([1, 3, 10, 2] * 5)
    sentences = [np.array([101, 1000 + 10 * i + version, 102]) for i, count in enumerate(counts) for version in range(count)]
    labels = np.arange(20)  # so that a label names its sentence
    batches, plain = Batches(sentences, labels, config, counts=counts), Batches(sentences[:20], labels, config)
    seen = Counter()
    for step in range(4000):
        ids = batches.versions(step)
        assert (batches(step) == plain(step)).all() and (batches.owner[ids] == plain(step)).all()
        seen.update(int(sentences[i][1]) for i in ids)
    for i, count in enumerate(counts):
        shares = np.array([seen[1000 + 10 * i + version] for version in range(count)])
        expected = shares.sum() / count
        assert ((shares - expected) ** 2 / expected).sum() < 3 * count + 15  # chi squared
    inputs = batches.inputs([0, 1])
    assert inputs.labels.tolist() == [plain(0).tolist(), plain(1).tolist()]
    for row, labels in zip(inputs.ids.flatten(1).tolist(), inputs.labels.tolist(), strict=True):
        assert sorted(id // 10 - 100 for id in row if id >= 1000) == sorted(labels)
    assert torch.equal(batches.inputs([1]).ids.flatten().sort()[0], inputs.ids[1].flatten().sort()[0])  # of seed and step alone


@pytest.mark.parametrize("encoder", ENCODERS)
def test_without_copies_it_is_plain_bit_for_bit(tiny, monkeypatch, encoder):
    monkeypatch.setitem(METHODS, "eda", replace(METHODS["eda"], copies=0))
    (plain, _), (eda, _) = (fit(tiny(method=method, dropout=0.1, **ENCODERS[encoder])) for method in ("plain", "eda"))
    assert eda["history"] == plain["history"] and eda["test_predictions"] == plain["test_predictions"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_eda_trains_and_a_stopped_run_ends_the_same(tiny, tmp_path, encoder):
    config, path = tiny(method="eda", **ENCODERS[encoder]), tmp_path / "run.checkpoint.safetensors"
    record, run = fit(config)
    assert record["augmentation"] == run.augmentation and record["history"] != fit(config.with_(method="plain"))[0]["history"]
    used = set(np.concatenate(run.batches.sentences).tolist())
    assert set(run.model.encoder.words.ids.tolist()) == used >= set(np.concatenate(run.tokenizer(run.train.texts)).tolist())
    for step in (1, 4):
        event, tell = stop_after(step)
        with pytest.raises(Interrupted, match=f"stopped at step {step} of 6"):
            fit(config, checkpoint=path, stop=event, on_progress=tell)
    assert essence(fit(config, checkpoint=path)[0]) == essence(record)


def test_eda_runs_train_alone(tiny):
    """Their copies are longer than the sentences that a fleet's shape is made for."""
    assert kind(tiny(method="eda")) is None


def test_other_synonyms_are_another_run_and_changed_ones_are_trained_again(tiny, tmp_path):
    file, store = tmp_path / "synonyms.txt", RunStore(tmp_path / "runs")
    file.write_text("food\tmeal\n")
    config = tiny(method="eda", synonyms=str(file), steps=2, eval_every=2)
    assert config.hash != tiny(method="eda", steps=2, eval_every=2).hash and "synonyms=synonyms.txt" in config.title
    event, tell = stop_after(1)
    with pytest.raises(Interrupted):
        fit(config, checkpoint=store.checkpoint_path(config), stop=event, on_progress=tell)
    run_all([config], store=store)
    assert store.stored(config)
    file.write_text("food\tfare\n")
    with pytest.warns(UserWarning, match="other copies"):
        assert store.stored(config, warn=True) is None
    with pytest.raises(Interrupted):
        fit(config, checkpoint=store.checkpoint_path(config), stop=event, on_progress=tell)
    file.write_text("food\tmeal\nservice\tattention\nroom\tchamber\n")
    with pytest.raises(DnmError, match="belongs to another run"):
        fit(config, checkpoint=store.checkpoint_path(config))


def test_settings_of_augmentation_are_checked_and_left_out_elsewhere(tiny_models):
    folder = str(tiny_models["bert"])
    for method in ("plain", "dnm", "back-translation"):
        assert RunConfig.create(method=method, synonyms="wordnet") == RunConfig.create(method=method)
    for method in ("plain", "eda"):
        assert RunConfig.create(method=method, translators="a,b").hash == RunConfig.create(method=method).hash
    config = RunConfig.create(method="back-translation", translators=[folder + "/../bert", "some/model"])
    assert config.translators == f"{folder},some/model" and RunConfig.create(**config.to_dict()) == config
    assert config.title == "Back-translation"
    assert RunConfig.create(method="eda", synonyms="x/../y.txt").synonyms == os.path.abspath("y.txt")
    for wrong in ("a", "a,b,c"):
        with pytest.raises(DnmError, match="two models, there and back"):
            RunConfig.create(method="back-translation", translators=wrong)
    for without in (fit, lambda config: run_all([config])):
        with pytest.raises(DnmError, match=r"back-translation needs translators: two models.*a comma between"):
            without(RunConfig.create("smoke", method="back-translation"))


# ---------------------------------------------------------------- back-translation

@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """Two tiny random translation models with MiniLM's tokenizer."""
    folders = [tmp_path_factory.mktemp(name) for name in ("there", "back")]
    tokenizer = hf.AutoTokenizer.from_pretrained(minilm_folder())
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        config = hf.MarianConfig(vocab_size=tokenizer.vocab_size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                                 decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=140,
                                 pad_token_id=0, eos_token_id=102, decoder_start_token_id=0, forced_eos_token_id=None)
        model = hf.MarianMTModel(config)
        model.generation_config.num_beams, model.generation_config.top_k = 4, 50  # as real ones have them
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folders


@pytest.fixture
def translated(tiny, marian, tmp_path, monkeypatch):
    """A configuration with these models, its cache in a folder of its own."""
    monkeypatch.setenv("DNM_HOME", str(tmp_path))
    return lambda **settings: tiny(method="back-translation", translators=",".join(map(str, marian)), **settings)


TEXTS = ["The food was really good.", "a dull film .", "Nobody knows why this place is still open, or for whom."]


def test_a_random_model_translates_repeatably_and_no_batch_matters(translated, tmp_path):
    config = translated()
    together = augment.translations(config, TEXTS)
    files = {file: json.loads(file.read_text()) for file in (tmp_path / "data" / "translations").rglob("*.json")}
    assert [len(copies) for copies in together] == [1, 1, 1] and {about["text"]: [about["copy"]] for about in files.values()} == dict(
        zip(TEXTS, together, strict=True))
    assert together[1][0].islower() and len({copy for copies in together for copy in copies}) == 3
    for file in files:
        file.unlink()
    alone = [augment.translations(config, [text])[0] for text in reversed(TEXTS)]
    assert alone[::-1] == together
    assert augment.translations(translated(seed=1), TEXTS) != together


def test_the_cache_is_read_and_a_damaged_file_made_anew(translated, tmp_path):
    config = translated()
    made = augment.translations(config, TEXTS[:1])
    file, = (tmp_path / "data" / "translations").rglob("*.json")
    content = file.read_text()
    file.write_text(json.dumps({"text": TEXTS[0], "copy": "from the cache"}))
    assert augment.translations(config, TEXTS[:1]) == [["from the cache"]]
    file.write_text(content[:20])
    assert augment.translations(config, TEXTS[:1]) == made and file.read_text() == content


def test_sampling_follows_the_models_probabilities_at_the_temperature(marian):
    """Of pieces that are equally likely everywhere, against a softmax: no beams, no cut to the 50 likeliest."""
    folder = marian[0]
    model, tokenizer = hf.MarianMTModel.from_pretrained(folder), hf.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(0)
        model.final_logits_bias.copy_(torch.full_like(model.final_logits_bias, -1e4))
        many = [word for word in sorted(tokenizer.get_vocab()) if word.isalpha() and word.isascii() and len(word) > 5][:100]
        scores = torch.tensor([1.0, 0.0, -1.0, *(-3 - i / 1000 for i in range(len(many)))])
        model.final_logits_bias[0, tokenizer.convert_tokens_to_ids(["good", "bad", "film", *many])] = scores
    target = folder.parent / "biased"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    translate = augment.translator(target)
    state = torch.get_rng_state()
    found = Counter(word for seed in range(60) for word in translate("a text", seed).split())
    assert torch.equal(torch.get_rng_state(), state)
    expected = torch.softmax(scores / augment.TEMPERATURE, 0).tolist()
    for word, share in zip(("good", "bad", "film"), expected, strict=False):
        assert found[word] / found.total() == pytest.approx(share, abs=5 * (share * (1 - share) / found.total()) ** 0.5)
    assert found.total() == 60 * (2 * len(tokenizer("a text")["input_ids"]) + 10)  # as it never ends by itself


def test_translators_that_give_a_text_back_are_plain(translated, tiny, monkeypatch):
    monkeypatch.setattr(augment, "translator", lambda folder: lambda text, seed: text)
    record, run = fit(translated())
    assert run.augmentation["copies"] == 0 and (run.batches.counts == 1).all()
    assert record["history"] == fit(tiny(method="plain"))[0]["history"]


def test_a_text_is_put_together_before_and_taken_apart_after():
    given = []

    def there(text, seed):
        given.append(text)
        return text.replace("film", "Movie")

    tokenised = "a dull film , is n't it ? no , the film 's fine ."
    assert augment.round_trip(tokenised, there, lambda text, seed: text, 0) == tokenised.replace("film", "movie")
    assert given == ["a dull film, isn't it? no, the film's fine."]
    assert augment.round_trip("A dull film, isn't it?", there, lambda text, seed: text, 0) == "A dull Movie, isn't it?"
    assert augment.round_trip("3.5 of 10 films .", there, lambda text, seed: text, 0) == "3.5 of 10 movies ."
    assert augment.round_trip("a  bar , or two: no ?", there, lambda text, seed: text.upper(), 0) == ""  # nothing new


def test_empty_copies_are_dropped_and_a_run_of_translations_goes_on(translated, tmp_path, monkeypatch):
    config = translated(n_train=8, batch_size=4)
    record, run = fit(config)
    assert run.augmentation["copies"] == 8 and " and " in run.augmentation["source"] and record["augmentation"] == run.augmentation
    path = tmp_path / "run.checkpoint.safetensors"
    event, tell = stop_after(3)
    with pytest.raises(Interrupted):
        fit(config, checkpoint=path, stop=event, on_progress=tell)
    assert essence(fit(config, checkpoint=path)[0]) == essence(record)
    monkeypatch.setattr(augment, "translator", lambda folder: lambda text, seed: " ")
    assert augment.translations(translated(seed=7), TEXTS) == [[], [], []]


def test_a_newer_transformers_that_loads_no_translator_names_the_one_that_was_tried(marian, monkeypatch):
    from dnm.data import augmentation, pretrained

    def fails(*_, **__):
        raise TypeError("an unexpected keyword")

    monkeypatch.setattr(hf.AutoModelForSeq2SeqLM, "from_pretrained", fails)
    monkeypatch.setattr(pretrained, "version", lambda _: "99.1")
    with pytest.raises(DnmError, match=f"cannot load the translator .*an unexpected keyword.*99.1 is newer than {pretrained.TRIED}"):
        augmentation.translator(marian[0])


def test_what_is_no_translator_says_so(tiny, tiny_models, marian, tmp_path):
    encoder, there = str(tiny_models["bert"]), str(marian[0])
    with pytest.raises(DnmError, match=r"cannot load the translator in .*from text to text"):
        Run(tiny(method="back-translation", translators=f"{encoder},{there}"))
    with pytest.raises(DnmError, match=r"translator 'no/such' is .*name a local folder"):
        Run(tiny(method="back-translation", translators=f"{there},no/such"))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    (empty / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DnmError, match=r"translator .*no \*\.safetensors"):
        Run(tiny(method="back-translation", translators=f"{there},{empty}"))


def test_a_classifier_of_ones_own_texts_learns_with_eda_and_is_kept(tiny_models, tmp_path):
    texts = [f"the {food} was {how}" for food in ("soup", "bread", "fish") for how in ("good", "awful", "fine", "bad")]
    classifier = DNMClassifier(method="eda", encoder=str(tiny_models["bert"]), steps=2, batch_size=6, random_state=0, device="cpu")
    classifier.fit(texts, ["good", "bad"] * 6).save(tmp_path / "model")
    assert (DNMClassifier.load(tmp_path / "model", "cpu").scores(texts) == classifier.scores(texts)).all()
    with pytest.raises(DnmError, match="back-translation needs translators"):
        classifier.set_params(method="back-translation").fit(texts, ["good", "bad"] * 6)
