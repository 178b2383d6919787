"""The related systems: what is special in each, against NumPy or the unmodified `transformers` model, and their identities."""

import dataclasses
import json

import numpy as np
import pytest
import reference as ref
import torch
from test_methods import C, D, N, setup
from torch.nn import functional as F
from torch.utils._pytree import tree_map
from transformers import AutoModel

from dnm import DNMClassifier, mixing
from dnm.data.hub import minilm_folder
from dnm.errors import DnmError, Interrupted
from dnm.heads import Draws, Head, draw, stream
from dnm.methods import METHODS
from dnm.packing import pack
from dnm.related import memory, pairs, spans
from dnm.runs.fleet import kind
from dnm.training import Run, fit

RELATED = ["mixup-transformer", "batchmixup", "batchmixup-dirichlet", "tmix", "ssmix", "aum-saliency", "dmix"]


def step(run, number=None):
    """The inputs of a step, its sentences' positions, and the run's model without dropout, in training mode."""
    number = run.step if number is None else number
    run.model.train()
    return tree_map(lambda stacked: stacked[0], run.batches.inputs([number])), run.batches(number)


def changed(monkeypatch, name, **columns):
    monkeypatch.setitem(METHODS, name, dataclasses.replace(METHODS[name], **columns))


def losses(record):
    return [row["train_loss"] for row in record["history"]]


# ---------------------------------------------------------------- identities

def test_mixing_that_never_starts_is_plain_bit_for_bit(tiny, monkeypatch):
    plain = fit(tiny(method="plain", dropout=0.1))[0]
    for name in ("mixup-transformer", "ssmix"):
        changed(monkeypatch, name, start=1.0)
        record = fit(tiny(method=name, dropout=0.1))[0]
        assert record["history"] == plain["history"] and record["test_predictions"] == plain["test_predictions"], name


def test_mixup_transformer_is_plain_first_and_then_senmixup_with_equal_weights(tiny, monkeypatch):
    plain, late = (fit(tiny(method=name, steps=8, eval_every=1, dropout=0.1))[0] for name in ("plain", "mixup-transformer"))
    assert losses(late)[:4] == losses(plain)[:4] and losses(late)[4] != losses(plain)[4]
    changed(monkeypatch, "mixup-transformer", start=0.0)
    halves = fit(tiny(method="mixup-transformer"))[0]
    monkeypatch.setitem(mixing.WEIGHTS, "scalar", lambda draws, partners, policy: torch.tensor(0.5))
    assert halves["history"] == fit(tiny(method="senmixup"))[0]["history"]


def test_batchmixup_with_the_identity_is_plain_and_with_two_entries_senmixup():
    head, h, y, draws, p, _ = setup("batchmixup")
    h, y = torch.from_numpy(h), torch.from_numpy(y)
    assert head.loss(h, y, draws._replace(weight=torch.eye(N).double())).item() == pytest.approx(ref.plain_loss(h.numpy(), y.numpy(), p))
    pairs = 0.3 * torch.eye(N) + 0.7 * torch.eye(N)[draws.permutation]
    sen = ref.senmixup_loss(h.numpy(), y.numpy(), p, draws.permutation.tolist(), 0.3)
    assert head.loss(h, y, draws._replace(weight=pairs.double())).item() == pytest.approx(sen, rel=1e-6)
    flat = head.loss(h, y, draws._replace(weight=torch.full((3, N), 1 / N).double()))
    centroid = F.log_softmax(head.fc(h.mean(0)), -1)
    assert flat.item() == pytest.approx(-centroid[y].mean().item())


@pytest.mark.parametrize("method", ["batchmixup", "batchmixup-dirichlet"])
def test_the_weights_of_a_batch_are_as_published(method):
    weights = draw(METHODS[method], 20, 1.0, (8, 4), (0, 3)).weight
    assert weights.shape == (400, 20)
    torch.testing.assert_close(weights.sum(-1), torch.ones(400))
    spread = weights.std().item()
    # Softmax of U(0, 1): standard deviation of e^U over its mean is 0.286, so 0.0143 at N = 20; Dirichlet(1, …): 0.0475.
    assert spread == pytest.approx({"batchmixup": 0.0143, "batchmixup-dirichlet": np.sqrt(19 / 20 ** 2 / 21)}[method], rel=0.05)
    if method == "batchmixup":
        assert weights.min() > 0.025 and weights.max() < 0.097


def test_a_class_weight_weighs_soft_targets():
    head, h, y, draws, p, _ = setup("batchmixup")
    w, (h, y) = np.array([0.5, 3.0, 1.25]), (torch.from_numpy(h), torch.from_numpy(y))
    head.class_weight = torch.from_numpy(w)
    cost = count = 0.0
    for row in draws.weight.numpy():
        logits = p["fc_w"] @ (row @ h.numpy()) + p["fc_b"]
        cost += sum(a * w[k] * ref.cross_entropy(logits, k) for a, k in zip(row, y.tolist(), strict=True))
        count += sum(a * w[k] for a, k in zip(row, y.tolist(), strict=True))
    assert head.loss(h, y, draws).item() == pytest.approx(cost / count)


# ---------------------------------------------------------------- TMix

@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("depth", [0.5, 1.0])
def test_tmix_agrees_with_the_unmodified_model_and_a_hook(tiny, tiny_models, family, pooling, depth):
    """Each pair alone: states of the whole model up to a layer, mixed and put back by a hook, then the other layers."""
    run = Run(tiny(method="tmix", encoder=str(tiny_models[family]), pooling=pooling, dropout=0.0))
    inputs, index = step(run)
    partners, weight = inputs.draws.permutation, torch.tensor(0.7)
    encoder = run.model.encoder
    hidden = encoder.mixed(encoder.words(inputs.ids), inputs.layout, inputs.pairs, partners, weight, depth)
    probe = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    (hidden * probe).sum().backward()
    model, found = AutoModel.from_pretrained(tiny_models[family]).eval(), []
    layer = model.encoder.layer[round(depth * 2) - 1]

    def upto(sentence):
        kept = {}
        handle = layer.register_forward_hook(lambda module, given, states: kept.setdefault("states", states))
        model(torch.from_numpy(sentence)[None])
        handle.remove()
        return kept["states"][0]

    for i, j in enumerate(partners.tolist()):
        one, two = (run.batches.sentences[index[k]] for k in (i, j))
        length = max(len(one), len(two))
        mixed = mixing.mix(*(F.pad(upto(s), (0, 0, 0, length - len(s))) for s in (one, two)), weight)
        handle = layer.register_forward_hook(lambda module, given, states, mixed=mixed: mixed[None])
        # What lies below the hook is thrown away; a sentence of the pair's length sees to it that all places count.
        states = model(torch.from_numpy(one if len(one) == length else two)[None]).last_hidden_state[0]
        handle.remove()
        found.append(states[0] if pooling == "cls" else states.mean(0))
    torch.testing.assert_close(hidden, torch.stack(found), atol=3e-6, rtol=1e-5)
    (torch.stack(found) * probe).sum().backward()
    named = dict(run.model.encoder.model.named_parameters())
    for name, parameter in model.named_parameters():
        if "word_embeddings" in name or "pooler" in name:
            continue
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        got = torch.zeros_like(parameter) if named[name].grad is None else named[name].grad
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_tmix_with_oneself_is_plain_for_every_weight_and_depth(tiny):
    run, plain = Run(tiny(method="tmix", dropout=0.0)), Run(tiny(method="plain", dropout=0.0))
    inputs, _ = step(run)
    expected = plain.model.train()(step(plain)[0])
    own = torch.arange(len(expected))
    for weight, layer in ((0.3, 0.0), (0.9, 0.5), (0.5, 0.99)):
        draws = inputs.draws._replace(permutation=own, weight=torch.tensor(weight), layer=torch.tensor(layer))
        alone = inputs._replace(draws=draws, pairs=inputs.layout)
        torch.testing.assert_close(run.model(alone), expected, atol=2e-6, rtol=1e-5)


def test_tmix_after_the_last_layer_with_cls_pooling_is_senmixup(tiny):
    run = Run(tiny(method="tmix", pooling="cls", dropout=0.0))
    sen = Run(tiny(method="senmixup", pooling="cls", dropout=0.0))
    inputs, _ = step(run)
    draws = inputs.draws._replace(layer=torch.tensor(0.99), weight=torch.tensor(0.4))
    loss, _ = run.model.loss(inputs._replace(draws=draws))
    expected, _ = sen.model.train().loss(step(sen)[0]._replace(draws=draws))
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)


def test_tmix_draws_each_of_its_layers_and_needs_a_packed_encoder(tiny):
    depths = [draw(METHODS["tmix"], 5, 16.0, (8, 4), (0, t)).layer.item() for t in range(600)]
    counts = np.bincount([int(3 * depth) for depth in depths], minlength=3)
    assert (abs(counts - 200) < 45).all()
    with pytest.raises(DnmError, match="tmix mixes within a transformer; cnn has no such layers"):
        tiny(method="tmix", encoder="cnn", pooling="own")


def test_tmix_refuses_an_encoder_that_is_not_packed(tiny, tmp_path):
    import transformers as hf

    torch.manual_seed(0)
    tokenizer = hf.AutoTokenizer.from_pretrained(minilm_folder())
    hf.DistilBertModel(hf.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=tokenizer.vocab_size,
                                           max_position_embeddings=140)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="runs slower"), pytest.raises(DnmError, match="an encoder whose sentences are packed"):
        Run(tiny(method="tmix", encoder=str(tmp_path)))


# ---------------------------------------------------------------- SSMix

def random_spans(rng, count=9):
    lengths = rng.integers(2, 34, count)
    lengths[:3] = 2, 3, 33  # nothing but special pieces; one piece; long
    salient = rng.random((count, lengths.max())) * (np.arange(lengths.max()) < lengths[:, None])
    return lengths, salient, rng.permutation(count)


@pytest.mark.parametrize("seed", range(8))
def test_spans_agree_with_trying_every_window(seed):
    lengths, salient, partners = random_spans(np.random.default_rng(seed))
    to, source, width = (found.tolist() for found in spans.spans(*map(torch.from_numpy, (salient, lengths, partners))))
    for i, expected in enumerate(ref.spans(salient, lengths.tolist(), partners.tolist())):
        assert width[i] == 0 if expected is None else (to[i], source[i], width[i]) == expected, i


@pytest.mark.parametrize("share_rows", [True, False])
def test_just_the_span_is_replaced_and_special_pieces_never(share_rows):
    rng = np.random.default_rng(1)
    lengths, salient, partners = random_spans(rng)
    sentences = [np.concatenate([[1], rng.integers(10, 900, n - 2), [2]]) for n in lengths]  # 1 and 2: the special ones
    layout = pack(lengths, 40, share_rows)
    found = spans.spans(*map(torch.from_numpy, (salient, lengths, partners)))
    mixed = spans.replaced(layout.place(sentences), layout, torch.from_numpy(partners), found)
    for i, expected in enumerate(ref.spans(salient, lengths.tolist(), partners.tolist())):
        wanted = sentences[i].copy()
        if expected:
            to, source, width = expected
            wanted[to:to + width] = sentences[partners[i]][source:source + width]
            assert width == max(1, int(0.1 * (lengths[i] - 2)))
        start = layout.first[i]
        assert mixed.flatten()[start:start + lengths[i]].tolist() == wanted.tolist() and wanted[0] == 1 and wanted[-1] == 2
    assert torch.equal(mixed == -1, layout.owner == -1)


def test_saliency_agrees_with_finite_differences(tiny):
    """In double precision: how the batch's mean loss changes with each number of each word's embedding."""
    run = Run(tiny(method="ssmix", dropout=0.0, batch_size=3))
    inputs, _ = step(run)
    model = run.model.double()
    embeddings = model.encoder.words(inputs.ids).detach().requires_grad_()
    loss = model.head.plain_loss(encoded(model, embeddings, inputs.layout), inputs.labels)
    salient = spans.saliency(torch.autograd.grad(loss, embeddings)[0], inputs.layout)
    flat, at = embeddings.detach().numpy().reshape(-1, 32), inputs.layout.first[1].item() + 2

    def value():
        with torch.no_grad():
            states = encoded(model, torch.from_numpy(flat).view(embeddings.shape), inputs.layout)
            return model.head.plain_loss(states, inputs.labels).item()

    expected = np.sqrt(np.mean(ref.gradient(value, flat[at]) ** 2))
    assert salient[1, 2].item() == pytest.approx(expected, rel=1e-5)
    assert (salient[0, inputs.layout.lengths[0]:] == 0).all()


def encoded(model, embeddings, layout):
    """Hidden states in double precision; the trainer's own pooling is in float32."""
    states = model.encoder._states(embeddings, layout).flatten(0, 1)
    return torch.stack([states[layout.owner.flatten() == i].mean(0) for i in range(len(layout.first))])


def test_ssmix_is_its_definition_step_by_step(tiny, tiny_models):
    """The loss of a step from the unmodified model: saliency by its own gradients, spans by trial, cross-entropies by NumPy."""
    run = Run(tiny(method="ssmix", dropout=0.0, seed=4))
    inputs, index = step(run)
    loss, _ = run.model.loss(inputs)
    model, sentences = AutoModel.from_pretrained(tiny_models["bert"]).eval(), [run.batches.sentences[i] for i in index]
    p = {name: getattr(run.model.head.fc, part).detach().numpy() for name, part in (("fc_w", "weight"), ("fc_b", "bias"))}
    fc, labels, salient, plain = run.model.head.fc, inputs.labels.tolist(), [], []
    for sentence, label in zip(sentences, labels, strict=True):
        embeddings = model.get_input_embeddings()(torch.from_numpy(sentence)[None]).detach().requires_grad_()
        hidden = model(inputs_embeds=embeddings).last_hidden_state[0].mean(0)
        cost = F.cross_entropy(fc(hidden), torch.tensor(label))
        salient.append(torch.autograd.grad(cost, embeddings)[0][0].square().mean(-1).sqrt().numpy())
        plain.append(cost.item())
    partners, lengths, mixed = inputs.draws.permutation.tolist(), [len(s) for s in sentences], []
    for i, span in enumerate(ref.spans(salient, lengths, partners)):
        ids, share = sentences[i].copy(), 0.0
        if span:
            to, source, width = span
            ids[to:to + width], share = sentences[partners[i]][source:source + width], width / (lengths[i] - 2)
        with torch.no_grad():
            hidden = model(torch.from_numpy(ids)[None]).last_hidden_state[0].mean(0).numpy()
        logits = p["fc_w"] @ hidden + p["fc_b"]
        mixed.append((1 - share) * ref.cross_entropy(logits, labels[i]) + share * ref.cross_entropy(logits, labels[partners[i]]))
    assert loss.item() == pytest.approx(np.mean(mixed) + np.mean(plain), rel=1e-5)


# ---------------------------------------------------------------- DMix

def test_dmix_never_mixes_a_sentence_with_itself_and_learns_its_factors():
    head, h, y, draws, p, _ = setup("dmix")
    factor = draws.memory["factor"].clone().requires_grad_()
    chosen = head.partners(torch.from_numpy(h), draws).squeeze(-1)
    distances = draws.memory["distances"]
    assert not (chosen == torch.arange(N)).any()
    assert (distances[torch.arange(N), chosen] > 0.7 * distances.amax(-1)).all()
    head.loss(torch.from_numpy(h), torch.from_numpy(y), draws._replace(memory=draws.memory | {"factor": factor})).backward()
    values = factor.detach().numpy().copy()

    def value():
        return ref.pair_loss(h, y, p, ref.dmix_pairs(distances.numpy(), draws.scores.numpy(), values))

    np.testing.assert_allclose(factor.grad.numpy(), ref.gradient(value, values), atol=2e-8)
    alike = pairs.beyond(torch.zeros(4, 4), torch.rand(4, 4)).squeeze(-1)  # all sentences the same
    assert not (alike == torch.arange(4)).any()


def test_dmix_measures_by_the_encoder_as_it_started_and_leaves_no_factor_in_a_model(tiny, tiny_models, tmp_path):
    run = Run(tiny(method="dmix", dropout=0.0))
    model = AutoModel.from_pretrained(tiny_models["bert"]).eval()
    with torch.no_grad():
        states = torch.stack([model(torch.from_numpy(s)[None]).last_hidden_state[0].mean(0) for s in run.batches.sentences])
    for _ in range(4):
        run.train_step()
    torch.testing.assert_close(run.memory["states"], states, atol=2e-6, rtol=1e-5)
    index = torch.from_numpy(run.batches(run.step))
    found = memory.recalled(run, draw(run.method, 12, 1.0, (8, 4), (0, 4))).memory["distances"]
    expected = [[0.0 if i == j else 1 - ref.cosine(states[i].numpy(), states[j].numpy()) for j in index] for i in index]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert (run.memory["factor"] != 1).any()
    classifier = DNMClassifier.of(run)
    classifier.save(tmp_path / "model")
    texts = run.data.test.texts[:5]
    np.testing.assert_allclose(DNMClassifier.load(tmp_path / "model").predict_proba(texts), classifier.predict_proba(texts), atol=1e-6)


# ---------------------------------------------------------------- AUM and saliency

def test_margins_are_those_of_the_definition_and_mind_no_shift():
    scores, labels = np.random.default_rng(0).normal(size=(7, 4)), np.array([0, 1, 2, 3, 0, 1, 2])
    found = pairs.margins(torch.from_numpy(scores), torch.from_numpy(labels)).numpy()
    expected = [row[y] - max(np.delete(row, y)) for row, y in zip(scores, labels, strict=True)]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(pairs.margins(torch.from_numpy(scores + 5.0), torch.from_numpy(labels)).numpy(), expected)


def test_the_area_under_the_margin_is_the_mean_over_visits_and_parts_at_its_median():
    visits = [(1.26, 1.15), (1.2,), (-3.0,), (4.0,), ()]  # the mean of the first, 1.205, lies above the second's
    kept = {"margin": torch.tensor([sum(v) for v in visits]), "visits": torch.tensor([float(len(v)) for v in visits])}
    low, high = memory.halves(kept)
    assert low.tolist() == [1, 2] and high.tolist() == [0, 3]  # the last was never seen


def test_one_step_is_too_few_for_two_phases(tiny):
    with pytest.raises(DnmError, match="aum-saliency needs 2 steps at least"):
        tiny(method="aum-saliency", steps=1)
    run = Run(tiny(method="aum-saliency", steps=2, batch_size=2, n_train=8))
    assert run.train_step().isfinite() and run.train_step().isfinite() and run.start == 1


def test_a_classifier_is_not_stopped_for_what_came_before_mixing(tiny):
    """Patience begins where mixing does: the second phase starts from a fresh model, which is worse at first."""
    from dnm.classify.estimator import PATIENCE, _Watch

    run, watch = Run(tiny(method="aum-saliency", steps=40)), _Watch(False, lambda run: None)
    assert run.start == 10
    for number in range(1, 9 + PATIENCE):
        accuracy = 0.9 if 4 * number <= run.start else 0.5 + 0.01 * number
        run.history.append({"step": 4 * number, "validation_accuracy": accuracy, "validation_loss": 1 - accuracy})
        watch(run)
        assert not run.enough
    for more in range(PATIENCE):
        run.history.append(dict(run.history[-1], step=100 + more))
        watch(run)
    assert run.enough


def test_two_classes_make_the_published_saliency_say_nothing():
    rng = np.random.default_rng(3)
    p = {"fc_w": rng.normal(size=(2, D)), "fc_b": rng.normal(size=2)}
    h, y = rng.normal(size=(N, D)), rng.integers(0, 2, N)
    published = ref.class_saliency(h, y, p)
    assert all(ref.cosine(a, b) == pytest.approx(1) for a in published for b in published)
    head = Head(METHODS["aum-saliency"], D, 2, 0).double()
    for name, part in (("fc_w", head.fc.weight), ("fc_b", head.fc.bias)):
        part.data.copy_(torch.from_numpy(p[name]))
    hidden = torch.from_numpy(h).requires_grad_()
    F.cross_entropy(head.fc(hidden), torch.from_numpy(y), reduction="sum").backward()
    torch.testing.assert_close(pairs.saliency(head.fc, hidden, torch.from_numpy(y)), (hidden * hidden.grad).detach())
    three = Head(METHODS["aum-saliency"], D, C, 0).double()
    h3, y3 = torch.from_numpy(h), torch.from_numpy(rng.integers(0, C, N))
    q = {"fc_w": three.fc.weight.detach().numpy(), "fc_b": three.fc.bias.detach().numpy()}
    np.testing.assert_allclose(pairs.saliency(three.fc, h3, y3).numpy(), ref.class_saliency(h, y3.numpy(), q), atol=1e-12)


def test_the_second_phase_starts_anew_on_batches_from_both_halves(tiny):
    run = Run(tiny(method="aum-saliency", steps=16, n_train=24, batch_size=8, dropout=0.0))
    assert run.start == 8  # three epochs of three steps are more than half of all
    initial = {name: p.detach().clone() for name, p in run.trained.items()}
    plain = Run(tiny(method="plain", steps=16, n_train=24, batch_size=8, dropout=0.0))
    margins = np.zeros(24)
    for number in range(8):
        with torch.no_grad():  # as they are before the update
            inputs, index = step(plain, number)
            scores = plain.model.head.scores(plain.model(inputs)).numpy()
        for row, i in zip(scores, index, strict=True):
            own = run.train.labels[i]
            margins[i] += row[own] - max(np.delete(row, own))
        assert torch.equal(run.train_step(), plain.train_step())
    run.evaluate()
    kept = {name: value.clone() for name, value in run.memory.items()}
    np.testing.assert_allclose(kept["margin"].numpy(), margins, atol=1e-5)
    assert kept["visits"].sum() == 64 and any(not torch.equal(p, initial[name]) for name, p in run.trained.items())
    assert memory.due(run)
    assert all(torch.equal(p, initial[name]) for name, p in run.trained.items())
    low, high = run.batches.halves
    area = (kept["margin"] / kept["visits"]).numpy()
    assert len(low) == len(high) == 12 and area[low].max() <= area[high].min()
    for number in range(8, 16):
        batch = run.batches(number)
        assert np.isin(batch[:4], low).all() and np.isin(batch[4:], high).all() and len(set(batch.tolist())) == 8
    assert np.unique(np.concatenate([run.batches(t)[:4] for t in range(9, 12)])).tolist() == low.tolist()  # an epoch of the half
    loss = run.train_step()
    assert all(torch.equal(run.memory[name], kept[name]) for name in kept) and loss.isfinite()


@pytest.mark.parametrize("method", ["mixup-transformer", "ssmix", "aum-saliency"])
def test_the_best_model_is_one_that_has_mixed(tiny, monkeypatch, method):
    """However good the validation sentences were while nothing was mixed."""
    config = tiny(method=method, steps=16, eval_every=2, batch_size=8, dropout=0.0)
    monkeypatch.setattr(Run, "evaluate", lambda run, hidden=None, own=Run.evaluate: better(run, own(run, hidden)))

    def better(run, row):
        if run.step <= run.start:
            run.best |= {"validation_accuracy": 2.0}
        return row

    record, run = fit(config)
    assert 0 < run.start < record["best_step"]


# ---------------------------------------------------------------- all of them

@pytest.mark.parametrize("method", ["aum-saliency", "dmix", "ssmix", "tmix"])
@pytest.mark.parametrize("at", [2, 6, 9])
def test_an_interrupted_run_goes_on_bit_for_bit(tiny, tmp_path, method, at):
    import threading

    config = tiny(method=method, steps=12, eval_every=3, dropout=0.1, batch_size=6, n_train=18)
    whole, path, stop = fit(config)[0], tmp_path / "c.safetensors", threading.Event()
    with pytest.raises(Interrupted):
        fit(config, checkpoint=path, stop=stop, on_progress=lambda run: stop.set() if run.step == at else None)
    again = fit(config, checkpoint=path)[0]
    drop = ("seconds", "environment")
    assert json.dumps({k: v for k, v in again.items() if k not in drop}) == json.dumps({k: v for k, v in whole.items() if k not in drop})


@pytest.mark.parametrize("method", RELATED)
def test_related_rows_say_whether_they_can_share_a_fleet(tiny, method):
    together = {"batchmixup", "batchmixup-dirichlet"}
    assert (kind(tiny(method=method)) is not None) == (method in together)
    assert kind(tiny(method=method)) != kind(tiny(method="plain"))


def test_the_settings_of_a_row_are_its_own_and_follow_it(tiny):
    tmix, dnm = tiny(method="tmix"), tiny(method="dnm")
    assert tmix.alpha == 16 and dnm.with_(method="tmix") == tmix and tmix.with_(method="dnm") == dnm
    assert tmix.with_(alpha=2.0).with_(method="senmixup").alpha == 2.0  # what somebody asked for stays
    aum = tiny(method="aum-saliency")
    assert (aum.alpha, aum.original_weight) == (0.4, 4.0) and aum.title == "AUM + saliency"
    assert tiny(method="ssmix", original_weight=0.2).original_weight == 1.0 and "synonyms" not in aum.to_dict()


def test_draws_of_the_older_rows_are_what_they_were():
    """The layer is drawn behind everything else."""
    rng = np.random.default_rng(stream("draws", 0, 7))
    weight, permutation, scores = rng.beta(1.0, 1.0), rng.permutation(20), rng.random((20, 20))
    found = draw(METHODS["senmixup"], 20, 1.0, (16, 8), (0, 7))
    assert found.weight == np.float32(weight) and found.permutation.tolist() == permutation.tolist()
    assert torch.equal(found.scores, torch.from_numpy(scores).float()) and isinstance(found, Draws)
