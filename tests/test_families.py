"""Encoders of many families, tiny and random, against the unmodified `transformers` models; folders that do not fit together."""

import contextlib
import functools
import json
import sys
import types
import warnings

import numpy as np
import pytest
import torch
import transformers as hf
from filelock import FileLock
from safetensors.torch import load_file, save_file
from test_device import NoSteps
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import dnm
from dnm import encoders, training
from dnm.config import RunConfig
from dnm.data import pretrained
from dnm.data.hub import minilm_folder
from dnm.data.pretrained import PACKED, TRIED
from dnm.encoders import build_encoder
from dnm.errors import DnmError
from dnm.mixing import mix
from dnm.packing import pack
from dnm.runs.fleet import Fleet, fit_fleet, fleets, kind
from dnm.training import Run, fit

SENTENCES = ["a short one .", "the guide at the other museum was very careful , and we stayed for three hours .",
             "slow .", "although the bread was warm , i had expected the coffee to be superb .", "two of us ."]
SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=30522,
            max_position_embeddings=140)
XLM = dict(emb_dim=32, n_layers=2, n_heads=4, vocab_size=30522, max_position_embeddings=140)
DISTANCES = dict(relative_attention=True, pos_att_type=["c2p", "p2c"])
# Settings of each family, and how it is asked for its states.
FAMILIES: dict[str, tuple[str, dict]] = {
    **dict.fromkeys(PACKED, ("packed", SIZE)),
    "electra": ("packed", SIZE | dict(embedding_size=16)),
    "distilbert": ("padded", dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=30522, max_position_embeddings=140)),
    "albert": ("padded", SIZE | dict(embedding_size=16)),
    "deberta": ("padded", SIZE | DISTANCES),
    "deberta-v2": ("padded", SIZE | DISTANCES | dict(position_buckets=16, share_att_key=True, norm_rel_ebd="layer_norm")),
    "mpnet": ("padded", SIZE),
    "modernbert": ("padded", SIZE | dict(local_attention=8, pad_token_id=0, bos_token_id=101, eos_token_id=102,
                                         cls_token_id=101, sep_token_id=102)),
    "xlnet": ("padded", dict(d_model=32, n_layer=2, n_head=4, d_inner=64, vocab_size=30522)),
    "longformer": ("padded", SIZE | dict(attention_window=8)),
    "big_bird": ("padded", SIZE),
    "mobilebert": ("padded", SIZE | dict(embedding_size=32, intra_bottleneck_size=16)),
    "squeezebert": ("padded", SIZE | dict(embedding_size=32)),
    "rembert": ("padded", SIZE | dict(input_embedding_size=16)),
    "roformer": ("padded", SIZE | dict(embedding_size=32)),
    "xlm": ("padded", XLM),
    "flaubert": ("padded", XLM),
    "nomic_bert": ("padded", SIZE | dict(pad_token_id=0)),
    "eurobert": ("padded", SIZE | dict(num_key_value_heads=4, pad_token_id=0)),
    "data2vec-text": ("padded", SIZE),
    # Their windows or summaries see the padding; the last has no mask at all.
    "convbert": ("alone", SIZE | dict(embedding_size=16, conv_kernel_size=3)),
    "funnel": ("alone", dict(architectures=["FunnelModel"], block_sizes=[1, 1], num_decoder_layers=1, d_model=32, n_head=4, d_head=8, d_inner=64, vocab_size=30522)),
    "nystromformer": ("alone", SIZE),
    "fnet": ("alone", SIZE),
}
FAMILIES = {name: given for name, given in FAMILIES.items() if name in hf.CONFIG_MAPPING}


def words():
    return hf.AutoTokenizer.from_pretrained(minilm_folder())


def saved(folder, family="bert", tokenizer=None, **settings):
    """A random model's folder, as `save_pretrained` leaves it."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            torch.manual_seed(3)
            config = hf.CONFIG_MAPPING[family](**(FAMILIES[family][1] if family in FAMILIES else {}) | settings)
            hf.AutoModel.from_config(config).save_pretrained(folder)
            (tokenizer or words()).save_pretrained(folder)
    return folder


@pytest.fixture(params=FAMILIES)
def family(request, common):
    """A family, its folder and how it is asked."""
    (common / "families").mkdir(exist_ok=True)
    return request.param, saved(common / "families" / request.param, request.param), FAMILIES[request.param][0]


@pytest.fixture(autouse=True)
def anew():
    encoders.say_once.cache_clear()


def encoder_of(folder, pooling="mean", **settings):
    encoder, tokenizer = build_encoder(RunConfig.create("smoke", encoder=str(folder), pooling=pooling, max_length=64, **settings))
    return encoder.eval(), tokenizer(SENTENCES)


def encode(encoder, sentences):
    layout = pack(np.array([len(s) for s in sentences]), 64, encoder.share_rows)
    return encoder(encoder.words(layout.place(sentences)), layout)


def pooled(states, pooling, name):
    return states.mean(0) if pooling == "mean" else states[-1 if name == "xlnet" else 0]


def test_every_family_gives_the_states_of_the_unmodified_model(family):
    name, folder, way = family
    model = hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for pooling in ("cls", "mean"):
        with contextlib.nullcontext() if way == "packed" else pytest.warns(UserWarning, match=f"{name}' runs slower.*cannot be packed"):
            encoder, sentences = encoder_of(folder, pooling)
        encoders.say_once.cache_clear()
        assert encoder.way == way and encoder.share_rows == (way == "packed")
        with torch.no_grad():
            expected = torch.stack([pooled(model(torch.from_numpy(one)[None]).last_hidden_state[0], pooling, name) for one in sentences])
            differs = (encode(encoder, sentences) - expected).abs().max().item()
        print(f"{name}, {way}, {pooling}: largest difference {differs:.1e} of {expected.abs().max():.1f}")
        assert differs < 2e-6 and len(torch.unique(expected, dim=0)) == len(SENTENCES)


def test_every_family_takes_mixed_words(family):
    """The shorter of a pair is filled up with zeros; each pair by the unmodified model, by itself."""
    name, folder, _ = family
    encoder, sentences = encoder_of(folder)
    partner, lam = [2, 0, 1, 4, 3], 0.3
    pairs = [(sentences[i], sentences[j]) for i, j in enumerate(partner)]
    layout = pack(np.array([max(map(len, pair)) for pair in pairs]), 64, encoder.share_rows)
    model = hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        hidden = encoder(mix(*(encoder.words(layout.place([pair[role] for pair in pairs])) for role in (0, 1)), lam), layout)
        for row, pair in zip(hidden, pairs, strict=True):
            one, two = torch.nn.utils.rnn.pad_sequence([table[torch.from_numpy(s)] for s in pair], batch_first=True)
            expected = model(inputs_embeds=(lam * one + (1 - lam) * two)[None]).last_hidden_state[0].mean(0)
            torch.testing.assert_close(row, expected, atol=2e-6, rtol=1e-5, msg=lambda m: f"{name}: {m}")


def test_every_family_trains_saves_and_loads(family, tiny, tmp_path):
    name, folder, way = family
    run = Run(tiny(method="nonlinearmixup" if name in ("deberta-v2", "xlnet", "convbert") else "dnm", encoder=str(folder), dropout=0.1, pooling="mean"))
    before = {key: p.detach().clone() for key, p in run.trained.items()}
    loss = run.train_step()
    moved = {key for key, p in run.trained.items() if not torch.equal(p, before[key])}
    assert torch.isfinite(loss) and "encoder.words.rows" in moved
    assert len([m for m in moved if m.startswith("encoder.model.") and m.endswith("weight")]) > 5 and any("head." in m for m in moved)
    run.model.eval()
    kept = dnm.DNMClassifier.of(run)
    kept.save(tmp_path)
    again = dnm.DNMClassifier.load(tmp_path)
    np.testing.assert_array_equal(again.scores(SENTENCES), kept.scores(SENTENCES))
    assert again.model_.encoder.way == way
    # The encoder inside is an ordinary folder: `transformers` alone has its hidden states.
    plain, ids = hf.AutoModel.from_pretrained(tmp_path / "encoder").eval(), torch.tensor(run.tokenizer(SENTENCES[:1])[0])
    with torch.no_grad():
        states = plain(input_ids=ids[None]).last_hidden_state[0]
    torch.testing.assert_close(kept.hidden(SENTENCES[:1])[0], states.mean(0), atol=2e-6, rtol=1e-5)


def test_every_family_is_served_by_transformers(family, tiny, tmp_path):
    """A sentence at a time: where padding changes a family's states, it does so there, too."""
    import dnm.classify.hf

    _, folder, _ = family
    run = Run(tiny(method="plain", encoder=str(folder), pooling="cls", precision="float32"))
    kept = dnm.DNMClassifier.of(run)
    kept.save(tmp_path)
    served, tokenizer = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval(), hf.AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = [served(**{name: value for name, value in tokenizer(text, return_tensors="pt").items() if name != "token_type_ids"}).logits
                  for text in SENTENCES]
    np.testing.assert_allclose(torch.cat(logits).numpy(), kept.scores(SENTENCES), atol=5e-6)


def test_dropout_is_that_of_the_run_in_every_family(family):
    _, folder, _ = family
    with torch.no_grad():
        for dropout in (0.0, 0.5):
            encoder, sentences = encoder_of(folder, dropout=dropout)
            encoder.words.eval()
            quiet, noisy = encode(encoder, sentences), encode(encoder.train(), sentences)
            assert torch.allclose(quiet, noisy, atol=1e-5) == (dropout == 0)


def test_every_family_computes_in_bfloat16(family):
    _, folder, _ = family
    encoder, sentences = encoder_of(folder)
    with torch.no_grad():
        exact = encode(encoder, sentences)
        encoder.compute_dtype = torch.bfloat16
        rounded = encode(encoder, sentences)
    assert rounded.dtype == torch.float32 and torch.nn.functional.cosine_similarity(rounded, exact).min() > 0.99


# The code of three families asks for values of the mask, which a meta tensor has not.
@pytest.mark.parametrize("name", [name for name, (way, _) in FAMILIES.items() if way == "padded" and name not in ("longformer", "xlm", "flaubert")])
def test_a_step_in_padded_rows_leaves_nothing_on_the_cpu(name, common, tiny, monkeypatch):
    device = torch.device("meta")
    monkeypatch.setattr(hf.masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *_, **__: False)  # the others ask here, all of them
    monkeypatch.setattr(training, "resolve_device", lambda config: (device, None))
    monkeypatch.setattr(training, "adamw", lambda encoder, head, config, **_: NoSteps(encoder, head))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    (common / "families").mkdir(exist_ok=True)
    run = Run(tiny(method="dnm", encoder=str(saved(common / "families" / name, name)), dropout=0.1))
    assert run.train_step().device == device
    assert run.evaluated["validation"][0].hidden(run.model.encoder).device == device


def test_only_packed_families_are_trained_in_fleets(family, tiny):
    """A member of a packed family is the run it would be alone; the others are not put together."""
    name, folder, way = family
    configs = [tiny(method=method, seed=seed, encoder=str(folder), dropout=0.0, steps=2, eval_every=2) for seed, method in enumerate(["dnm", "plain"])]
    assert (kind(configs[0]) is not None) == (way == "packed")
    if way == "packed":
        for config, (record, _) in zip(configs, fit_fleet(configs), strict=True):
            assert record["environment"]["fleet"] == 2
            for row, alone in zip(record["history"], fit(config)[0]["history"], strict=True):
                assert row == pytest.approx(alone, rel=1e-4, abs=1e-4)
    elif name == "distilbert":
        assert [len(group) for group in fleets(configs, 2)] == [1, 1]
        with pytest.raises(DnmError, match="cannot be trained together"):
            Fleet([Run(config) for config in configs])
        assert not any("fleet" in record["environment"] for record, _ in fit_fleet(configs))


def test_a_slower_encoder_is_said_once_a_process(tmp_path):
    folder = saved(tmp_path / "distilbert", "distilbert")
    with pytest.warns(UserWarning) as said:
        for seed in (0, 1):
            encoder_of(folder, seed=seed)
    assert [str(one.message) for one in said] == [
        f"encoder '{folder}' runs slower than others: the sentences of a 'distilbert' model cannot be packed, so each is computed in a row of its own"]


# ---------------------------------------------------------------- models that are no encoders

@pytest.mark.parametrize("name, settings, why", [
    ("gpt2", dict(n_embd=32, n_layer=2, n_head=4, vocab_size=30522), "'gpt2' model that reads forwards only, as a decoder does"),
    ("llama", SIZE, "'llama' model that reads forwards only"),
    ("bert", SIZE | dict(is_decoder=True), "'bert' model that reads forwards only"),
    ("t5", dict(d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, vocab_size=30522), "'t5' model, encoder and decoder"),
    ("bart", dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
                  encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=30522), "'bart' model, encoder and decoder"),
    ("canine", SIZE, "takes no word embeddings"),
    ("bros", SIZE, "gives no hidden states of a plain sentence: ValueError: You have to specify bbox"),
    ("vit", dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64), "takes no word embeddings"),
])
def test_what_is_no_encoder_of_words_is_refused_with_the_reason(name, settings, why, tmp_path):
    folder = saved(tmp_path / name, name, **settings)
    with pytest.raises(DnmError, match=why):
        encoder_of(folder)


# ---------------------------------------------------------------- another `transformers`

def fails(*_, **__):
    raise TypeError("from_pretrained() got an unexpected keyword argument")


@pytest.mark.parametrize("breaks, why", [
    (lambda patch: patch.setattr(hf.AutoModel, "from_pretrained", fails), "cannot load encoder"),
    (lambda patch: patch.setattr(hf.AutoTokenizer, "from_pretrained", fails), "cannot load the tokenizer"),
    (lambda patch: patch.setitem(sys.modules, "transformers", types.ModuleType("transformers")), "cannot import name"),
    (lambda patch: patch.setattr(hf.BertModel, "forward", functools.wraps(hf.BertModel.forward)(fails)), "gives no hidden states"),
])
def test_a_newer_transformers_that_fails_names_the_version_that_was_tried(breaks, why, tmp_path, monkeypatch):
    folder = saved(tmp_path / "bert", hidden_size=32)
    for newer in ("5.23.0", "99.1.0rc1"):
        with monkeypatch.context() as patch:
            patch.setattr(pretrained, "version", lambda _, newer=newer: newer)
            breaks(patch)
            with pytest.raises(DnmError, match=why) as told:
                encoder_of(folder)
        assert "\n" not in str(told.value)
        said = f"transformers {newer} is newer than {TRIED}, with which the study was tried: pip install transformers=={TRIED}"
        assert (said in str(told.value)) == (newer != "5.23.0")


def no_full_mask(self, input_ids=None, attention_mask=None, position_ids=None, inputs_embeds=None):
    """As if a version of `transformers` heeded masks of word pieces, and full ones no more, and said nothing."""
    full = attention_mask is not None and attention_mask.dim() == 4
    return whole_bert(self, input_ids, None if full else attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds)


def no_positions(self, input_ids=None, attention_mask=None, inputs_embeds=None):
    return whole_bert(self, input_ids, attention_mask, inputs_embeds=inputs_embeds)


whole_bert = hf.BertModel.forward


@pytest.mark.parametrize("forward", [no_full_mask, no_positions])
def test_where_packed_sentences_would_see_one_another_each_gets_a_row(forward, tmp_path, monkeypatch):
    folder = saved(tmp_path / "bert", "bert", hidden_size=32)
    expected = encode(*encoder_of(folder))
    pretrained.load_model.cache_clear()
    monkeypatch.setattr(hf.BertModel, "forward", forward)
    monkeypatch.setattr(pretrained, "version", lambda _: "99.1")
    with pytest.warns(UserWarning) as said:
        encoder, sentences = encoder_of(folder)
    assert encoder.way == "padded" and (encode(encoder, sentences) - expected).abs().max() < 2e-6
    told = " ".join(str(one.message) for one in said)
    assert "'bert' model should take several sentences a row, but does not; transformers 99.1 is newer" in told and "runs slower" in told
    pretrained.load_model.cache_clear()


# ---------------------------------------------------------------- folders whose parts do not fit together

def changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    for name in ("bert", "roberta", "xlm-roberta", "albert", "xlnet"):
        folder = saved(tmp_path / name, name)
        for file in folder.iterdir():
            if file.name not in ("config.json", "model.safetensors"):
                file.unlink()
        with pytest.raises(DnmError, match="holds no tokenizer: put its files"):
            encoder_of(folder)


@pytest.mark.parametrize("pad", [0, 3])
def test_positions_start_where_the_padding_index_says(pad, tmp_path):
    """And the room is counted from there: 140 positions, the first of them behind the padding index."""
    folder = saved(tmp_path / "roberta", "roberta", pad_token_id=pad)
    encoder, sentences = encoder_of(folder)
    model = hf.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        for row, one in zip(encode(encoder, sentences), sentences, strict=True):
            torch.testing.assert_close(row, model(torch.from_numpy(one)[None]).last_hidden_state[0].mean(0), atol=2e-6, rtol=1e-5)
    room = 140 - pad - 1
    build_encoder(RunConfig.create("smoke", encoder=str(folder), pooling="mean", max_length=room))
    with pytest.raises(DnmError, match=rf"max_length={room + 1} is more than encoder .* can read \({room}\)"):
        build_encoder(RunConfig.create("smoke", encoder=str(folder), pooling="mean", max_length=room + 1))


@pytest.mark.parametrize("added", [1, 3])
def test_more_tokens_than_word_embeddings_are_refused_on_loading(added, tmp_path):
    tokenizer = words()
    tokenizer.add_tokens([f"<user{i}>" for i in range(added)])
    folder = saved(tmp_path / "bert", tokenizer=tokenizer)
    with pytest.raises(DnmError, match=f"tokenizer has {30522 + added} tokens, its model 30522 word embeddings; .*resize_token_embeddings"):
        encoder_of(folder)
    model = hf.AutoModel.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))  # the way out that the message names
    model.save_pretrained(folder)
    assert encoder_of(folder)[0].words.table.shape == (30522 + added + 1, 32)


def bare(unknown="[UNK]"):
    """A tokenizer without [CLS] and [SEP]: an invisible character gives no word piece at all."""
    made = Tokenizer(models.WordPiece(unk_token=unknown) if unknown else models.BPE())
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = dict(pad_token="[PAD]") | (dict(unk_token=unknown) if unknown else {})
    trainer = (trainers.WordPieceTrainer if unknown else trainers.BpeTrainer)(vocab_size=200, special_tokens=[*special.values()])
    made.train_from_iterator(SENTENCES, trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, **special)


def test_a_text_without_a_word_piece_is_the_unknown_word(tmp_path, tiny):
    _, tokenizer = build_encoder(RunConfig.create("smoke", encoder=str(saved(tmp_path / "bert", tokenizer=bare())), max_length=64))
    assert tokenizer(["\u200b", "slow"])[0].tolist() == [1]
    rows = [("\u200b" if i in (3, 6) else f"the {word} coffee {i}", word) for i in range(20) for word in ("warm", "slow")]
    (tmp_path / "own.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    record, run = fit(tiny(method="plain", encoder=str(tmp_path / "bert"), dataset=str(tmp_path / "own.csv"), n_train="all", batch_size=20))
    assert np.isfinite(record["history"][-1]["train_loss"]) and min(run.batches.lengths) == 1
    _, tokenizer = build_encoder(RunConfig.create("smoke", encoder=str(saved(tmp_path / "none", tokenizer=bare(""))), max_length=64))
    with pytest.raises(DnmError, match=r"text 2, '\\u200b', holds no word"):
        tokenizer(["slow", "\u200b"])


@pytest.mark.parametrize("name, prefix", [("bert", ""), ("electra", ""), ("bert", "bert.")])
def test_weights_that_found_no_place_are_refused(name, prefix, tmp_path):
    folder = saved(tmp_path / name, name)

    def with_relative_positions(tensors):
        here = {prefix + key: tensors.pop(key) for key in list(tensors)}
        tensors |= here | {f"{prefix}encoder.layer.{i}.attention.self.distance_embedding.weight": torch.randn(279, 8) for i in range(2)}

    changed(folder / "model.safetensors", with_relative_positions)
    with pytest.raises(DnmError, match="no place for its weights encoder.layer.0.attention.self.distance_embedding.weight and 1 more"):
        encoder_of(folder)


@pytest.mark.parametrize("kind, config", [("BertForMaskedLM", "bert"), ("DistilBertForSequenceClassification", "distilbert"),
                                          ("DebertaV2ForMaskedLM", "deberta-v2"), ("XLNetLMHeadModel", "xlnet"), ("ModernBertForMaskedLM", "modernbert")])
def test_weights_of_a_head_are_no_hindrance(kind, config, tmp_path):
    getattr(hf, kind)(hf.CONFIG_MAPPING[config](**FAMILIES[config][1])).save_pretrained(tmp_path / "head")
    words().save_pretrained(tmp_path / "head")
    encoder, sentences = encoder_of(tmp_path / "head")
    assert torch.isfinite(encode(encoder, sentences)).all()


def test_a_tokenizer_that_needs_a_package_names_it(tmp_path):
    folder = saved(tmp_path / "japanese", "bert")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="mecab", mecab_kwargs=dict(mecab_dic="unidic_lite"))))
    known = words().get_vocab()
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in sorted(known, key=known.get)), encoding="utf-8")
    with pytest.raises(DnmError, match="cannot load the tokenizer in .*install fugashi"):
        encoder_of(folder)


def test_texts_that_are_cut_are_counted_in_one_warning(tmp_path):
    _, tokenizer = build_encoder(RunConfig.create("smoke", encoder=str(saved(tmp_path / "bert")), max_length=16))
    long = "the coffee was warm " * 20
    exactly = " ".join(["coffee"] * 14)  # with [CLS] and [SEP] as long as may be
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert [len(ids) for ids in tokenizer([exactly, "slow"])] == [16, 3]
        assert not said
        assert [len(ids) for ids in tokenizer([long, exactly, "slow", long])] == [16, 16, 3, 16]
        tokenizer([long])
    assert [str(one.message) for one in said] == ["2 of 4 texts are longer than max_length=16 word pieces; the rest of them is not read"]
