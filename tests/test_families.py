"""Encoders of many families, tiny and random, against the unmodified `transformers` models; folders that do not fit together."""

import contextlib
import json
import warnings

import numpy as np
import pytest
import torch
import transformers as hf
from filelock import FileLock
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import dnm
from dnm import encoders, training
from dnm.config import RunConfig
from dnm.data.hub import minilm_folder
from dnm.data.pretrained import PACKED
from dnm.encoders import build_encoder
from dnm.errors import DnmError
from dnm.mixing import mix
from dnm.packing import pack
from dnm.runs.fleet import Fleet, fit_fleet, kind
from dnm.training import Run

SENTENCES = ["a short one .", "the guide at the other museum was very careful , and we stayed for three hours .",
             "slow .", "although the bread was warm , i had expected the coffee to be superb .", "two of us ."]
SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=30522,
            max_position_embeddings=140)
XLM = dict(emb_dim=32, n_layers=2, n_heads=4, vocab_size=30522, max_position_embeddings=140)
DISTANCES = dict(relative_attention=True, pos_att_type=["c2p", "p2c"])
# Settings of each family, and how it is asked for its states.
FAMILIES: dict[str, tuple[str, dict]] = {
    **{name: ("packed", SIZE) for name in PACKED},
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
    "funnel": ("padded", dict(block_sizes=[1, 1], num_decoder_layers=1, d_model=32, n_head=4, d_head=8, d_inner=64, vocab_size=30522)),
    "mobilebert": ("padded", SIZE | dict(embedding_size=32, intra_bottleneck_size=16)),
    "squeezebert": ("padded", SIZE | dict(embedding_size=32)),
    "rembert": ("padded", SIZE | dict(input_embedding_size=16)),
    "roformer": ("padded", SIZE | dict(embedding_size=32)),
    "xlm": ("padded", XLM),
    "flaubert": ("padded", XLM),
    "nomic_bert": ("padded", SIZE | dict(pad_token_id=0)),
    "eurobert": ("padded", SIZE | dict(num_key_value_heads=4, pad_token_id=0)),
    "data2vec-text": ("padded", SIZE),
    "convbert": ("alone", SIZE | dict(embedding_size=16, conv_kernel_size=3)),  # its windows see the padding
    "nystromformer": ("alone", SIZE),
    "fnet": ("alone", SIZE),  # no mask at all
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
    encoders._say_once.cache_clear()


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
        with contextlib.nullcontext() if way == "packed" else pytest.warns(UserWarning, match=f"{name}' runs slower.*not packed"):
            encoder, sentences = encoder_of(folder, pooling)
        encoders._say_once.cache_clear()
        assert encoder.way == way and encoder.share_rows == (way == "packed")
        with torch.no_grad():
            expected = torch.stack([pooled(model(torch.from_numpy(one)[None]).last_hidden_state[0], pooling, name) for one in sentences])
            differs = (encode(encoder, sentences) - expected).abs().max().item()
        print(f"{name}, {way}, {pooling}: largest difference {differs:.1e} of {expected.abs().max():.1f}")
        assert differs < 2e-6 and len({round(h.sum().item(), 4) for h in expected}) == len(SENTENCES)


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


@pytest.mark.parametrize("method", ["dnm", "nonlinearmixup"])
def test_every_family_trains_saves_and_loads(family, method, tiny, tmp_path):
    name, folder, _ = family
    run = Run(tiny(method=method, encoder=str(folder), dropout=0.1))
    before = {name: p.detach().clone() for name, p in run.trained.items()}
    loss = run.train_step()
    moved = {name for name, p in run.trained.items() if not torch.equal(p, before[name])}
    assert torch.isfinite(loss) and "encoder.words.rows" in moved
    assert len([m for m in moved if m.startswith("encoder.model.") and m.endswith("weight")]) > 5 and any("head." in m for m in moved)
    run.model.eval()
    dnm.Classifier.of(run).save(tmp_path)
    again = dnm.Classifier.load(tmp_path)
    np.testing.assert_array_equal(again.scores(SENTENCES), dnm.Classifier.of(run).scores(SENTENCES))
    assert again.model.encoder.way == FAMILIES[name][0]


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
