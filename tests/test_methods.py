"""Every row of the table of methods against NumPy, values and gradients; and the identities of mixing."""

import numpy as np
import pytest
import reference as ref
import torch

from dnm import mixing, selection
from dnm.heads import Draws, Head, draw
from dnm.methods import METHODS

N, D, C = 9, 6, 3


def setup(method: str, k: int | None = None, **settings):
    """A head in double precision, hidden states, labels, draws, and the head's parameters as NumPy arrays."""
    rng = np.random.default_rng(5)
    row = METHODS[method]
    head = Head(row, D, C, row.k if k is None else k, **dict(original_weight=row.original_weight, seed=1) | settings).double()
    hidden, labels = rng.normal(size=(N, D)), rng.integers(0, C, N)
    weight, permutation, scores = torch.tensor(0.3, dtype=torch.float64), rng.permutation(N), rng.random((N, N))
    if row.partners == "batch":
        weight = torch.from_numpy(rng.dirichlet(np.ones(N), 7))
    if row.inputs == "span":  # each sentence's own
        weight = torch.from_numpy(rng.random((N, 1, 1)))
    distances = rng.random((N, N))
    memory = {"distances": torch.from_numpy(distances * (1 - np.eye(N))), "factor": torch.from_numpy(0.6 + 0.6 * rng.random(N)),
              "saliency": torch.from_numpy(rng.random((N, C))), "high": torch.arange(N) >= N // 2}
    if not row.remembers:
        memory = {}
    elif row.partners == "beyond":
        memory = {name: memory[name] for name in ("distances", "factor")}
    draws = Draws(weight, torch.from_numpy(permutation), torch.from_numpy(scores), memory=memory)
    names = {"v": "input_policy", "W": "label_policy", "M": "label_embedding", "fc_w": "fc.weight", "fc_b": "fc.bias",
             "A": "encoding_policy.weight", "b": "encoding_policy.bias"}
    have = dict(head.named_parameters())
    p = {short: have[name].detach().numpy().copy() for short, name in names.items() if name in have}
    return head, hidden, labels, draws, p, {short: have[name] for short, name in names.items() if name in have}


def expected_loss(method: str, h, y, p, draws, chosen=None) -> float:
    row, perm, memory = METHODS[method], draws.permutation.tolist(), {name: t.detach().numpy() for name, t in draws.memory.items()}
    lam = draws.weight.numpy().ravel()[0]
    k = min(row.k, (N - 1) // 2)
    if method in ("plain", "eda", "back-translation"):  # they train on other texts
        return float(np.mean([ref.cross_entropy(p["fc_w"] @ h[i] + p["fc_b"], y[i]) for i in range(N)]))
    if method == "label-embedding":
        return float(np.mean([(1 - ref.cosine(p["fc_w"] @ h[i] + p["fc_b"], p["M"][y[i]])) ** 2 for i in range(N)]))
    if method in ("senmixup", "wordmixup", "tmix"):
        return ref.senmixup_loss(h, y, p, perm, lam, mix_hidden=method == "senmixup")
    if method == "mixup-transformer":
        return ref.senmixup_loss(h, y, p, perm, 0.5)
    if row.partners == "batch":
        return ref.batch_loss(h, y, p, draws.weight.numpy())
    if method == "ssmix":  # the states are those of mixtures already, and here also of the sentences themselves
        weights = draws.weight.numpy().ravel()
        logits = h @ p["fc_w"].T + p["fc_b"]
        mixed = [w * ref.cross_entropy(logits[i], y[i]) + (1 - w) * ref.cross_entropy(logits[i], y[perm[i]]) for i, w in enumerate(weights)]
        return float(np.mean(mixed)) + ref.plain_loss(h, y, p)
    if method == "dmix":
        return ref.pair_loss(h, y, p, ref.dmix_pairs(memory["distances"], draws.scores.numpy(), memory["factor"]))
    if method == "aum-saliency":  # 0.8, 0.1 and 0.1, times 5
        current = chosen if chosen is not None else ref.class_saliency(h, y, p)
        pairs = ref.saliency_pairs(memory["saliency"], current, memory["high"], lam)
        return 5 * (0.8 * ref.plain_loss(h, y, p) + 0.1 * ref.pair_loss(h, y, p, pairs[::2]) + 0.1 * ref.pair_loss(h, y, p, pairs[1::2]))
    if method == "nonlinearmixup":
        return ref.nonlinear_loss(h, y, p, perm)
    if method == "dnm-no-dnm":
        return ref.no_dnm_loss(h, y, p, k, lam)
    scores = draws.scores.numpy()
    ranked = [sorted((j for j in range(N) if j != i), key=lambda j: -scores[i, j]) for i in range(N)]
    if method == "dnm-no-dss":
        return ref.dnm_loss(h, y, p, 1, chosen=[r[:1] for r in ranked])
    if method == "dnm-random":
        return ref.dnm_loss(h, y, p, k, chosen=[r[:2 * k] for r in ranked])
    return ref.dnm_loss(h, y, p, k, row.partners)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.level != "frozen"])
def test_loss_and_every_gradient_agree_with_numpy(method):
    head, h, y, draws, p, tensors = setup(method)
    hidden = torch.from_numpy(h.copy()).requires_grad_()
    loss = head.loss(hidden, torch.from_numpy(y), draws)
    assert loss.item() == pytest.approx(expected_loss(method, h, y, p, draws), rel=1e-10)
    loss.backward()
    chosen = ref.class_saliency(h, y, p) if method == "aum-saliency" else None  # no gradient flows through the choice

    def value():
        return expected_loss(method, h, y, p, draws, chosen)

    np.testing.assert_allclose(hidden.grad.numpy(), ref.gradient(value, h), atol=2e-8)
    for name, tensor in tensors.items():
        if not tensor.requires_grad:
            assert tensor.grad is None
            continue
        np.testing.assert_allclose(tensor.grad.numpy(), ref.gradient(value, p[name]), atol=2e-8, err_msg=name)


@pytest.mark.parametrize("method", ["plain", "label-embedding", "senmixup", "dmix", "dnm"])
def test_a_class_weight_weighs_what_its_labels_cost(method):
    """Against NumPy: a sentence counts as its class does, each label of a mixture as its own, a pair as its two in the mean."""
    head, h, y, draws, p, _ = setup(method)
    weights, k = np.array([0.5, 3.0, 1.25]), (N - 1) // 2
    head.class_weight = torch.from_numpy(weights)

    costs = []  # how much it counts, what it costs, of every sentence, label or pair
    for i in range(N):
        predicted, lam, j = p["fc_w"] @ h[i] + p["fc_b"], draws.weight.numpy().ravel()[0], draws.permutation[i].item()
        if method == "plain":
            costs.append((weights[y[i]], ref.cross_entropy(predicted, y[i])))
        elif method == "label-embedding":
            costs.append((weights[y[i]], (1 - ref.cosine(predicted, p["M"][y[i]])) ** 2))
        elif method in ("senmixup", "dmix"):
            if method == "dmix":
                _, j, lam = ref.dmix_pairs(draws.memory["distances"].numpy(), draws.scores.numpy(), draws.memory["factor"].numpy())[i]
            logits = p["fc_w"] @ (lam * h[i] + (1 - lam) * h[j]) + p["fc_b"]
            costs += [(lam * weights[y[i]], ref.cross_entropy(logits, y[i])), ((1 - lam) * weights[y[j]], ref.cross_entropy(logits, y[j]))]
        else:
            for j in ref.partners(h, i, min(5, k), "both"):
                costs.append(((weights[y[i]] + weights[y[j]]) / 2, ref.dnm_loss(h, y, p, min(5, k), chosen=[[j] if s == i else [] for s in range(N)])))
    expected = sum(count * cost for count, cost in costs) / sum(count for count, _ in costs)
    loss = head.loss(torch.from_numpy(h), torch.from_numpy(y), draws)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", ["nearest", "farthest"])
@pytest.mark.parametrize("k", [1, 3, N - 1])
def test_selection_agrees_with_sorting_and_never_picks_oneself(kind, k):
    h = np.random.default_rng(0).normal(size=(N, D))
    chosen = getattr(selection, kind)(torch.from_numpy(h), k)
    assert chosen.tolist() == [ref.partners(h, i, k, kind) for i in range(N)]
    assert not (chosen == torch.arange(N).unsqueeze(-1)).any()


def test_selection_never_picks_oneself_even_among_identical_sentences():
    same = torch.ones(5, D)
    for chosen in (selection.nearest(same, 4), selection.farthest(same, 4),
                   selection.random_others(torch.zeros(5, 5), 4)):
        assert [sorted(row) for row in chosen.tolist()] == [[j for j in range(5) if j != i] for i in range(5)]


def test_functions_take_leading_dimensions():
    torch.manual_seed(0)
    h, w, v = torch.randn(2, 3, N, D), torch.randn(2, 3, D, D), torch.rand(2, 3, 1, D)
    partners = selection.nearest(h, 2)
    mixed = mixing.mix_inputs(h, partners, v.unsqueeze(-2))
    policy = mixing.label_policy(h, partners, v, w)
    losses = mixing.cosine_loss(mixed, policy)
    assert partners.shape == (2, 3, N, 2) and mixed.shape == policy.shape == (2, 3, N, 2, D) and losses.shape == (2, 3)
    for a in range(2):
        for b in range(3):
            alone = selection.nearest(h[a, b], 2)
            assert torch.equal(partners[a, b], alone)
            torch.testing.assert_close(mixed[a, b], mixing.mix_inputs(h[a, b], alone, v[a, b, 0]))
            torch.testing.assert_close(policy[a, b], mixing.label_policy(h[a, b], alone, v[a, b, 0], w[a, b]))
            torch.testing.assert_close(losses[a, b], mixing.cosine_loss(mixed[a, b], policy[a, b]))


def test_a_weight_of_one_or_zero_gives_one_of_the_two_exactly():
    a, b = torch.randn(4, D), torch.randn(4, D)
    assert torch.equal(mixing.mix(a, b, 1.0), a) and torch.equal(mixing.mix(a, b, 0.0), b)
    scores, first, second = torch.randn(4, 1, C), torch.tensor([[0], [1], [2], [0]]), torch.tensor([[2], [2], [1], [1]])
    for weight, label in ((1.0, first), (0.0, second)):
        torch.testing.assert_close(mixing.mixed_cross_entropy(scores, first, second, weight),
                                   torch.nn.functional.cross_entropy(scores.squeeze(1), label.squeeze(1)))


def test_the_two_policies_of_a_pair_sum_to_one():
    a, b = 5 * torch.randn(3, D), 5 * torch.randn(3, D)
    torch.testing.assert_close(mixing.pair_softmax(a, b), torch.stack([a, b]).softmax(0)[0])
    torch.testing.assert_close(mixing.pair_softmax(a, b) + mixing.pair_softmax(b, a), torch.ones(3, D))


def test_k_of_one_mixes_with_the_nearest_and_the_farthest_only():
    head, h, _, draws, *_ = setup("dnm-k1")
    chosen = head.partners(torch.from_numpy(h), draws).tolist()
    assert chosen == [ref.partners(h, i, 1, "both") for i in range(N)]


@pytest.mark.parametrize("n, k, expected", [(20, 5, 5), (20, 9, 9), (11, 5, 5), (10, 5, 4), (3, 5, 1), (2, 5, 1)])
def test_k_shrinks_where_the_batch_is_small(n, k, expected):
    assert selection.partners_each(n, k) == expected


def test_a_batch_of_one_cannot_be_mixed():
    with pytest.raises(ValueError, match="no partner"):
        selection.partners_each(1, 5)


@pytest.mark.parametrize("method, frozen", [("dnm", set()), ("dnm-fiw", {"input_policy"}), ("dnm-fow", {"label_policy"}),
                                            ("dnm-fiw-fow", {"input_policy", "label_policy"})])
def test_only_the_trained_policies_move(method, frozen):
    head, h, y, draws, *_ = setup(method)
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in head.parameters() if p.requires_grad], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        head.loss(torch.from_numpy(h), torch.from_numpy(y), draws).backward()
        optimiser.step()
        optimiser.zero_grad()
    moved = {name for name, p in head.named_parameters() if not torch.equal(p, before[name])}
    assert {"input_policy", "label_policy"} - moved == frozen


@pytest.mark.parametrize("method", ["plain", "dnm"])
def test_scores_agree_with_numpy_and_do_not_mix(method):
    head, h, _, _, p, _ = setup(method)
    scores = head.scores(torch.from_numpy(h)).detach().numpy()
    out = h @ p["fc_w"].T + p["fc_b"]
    expected = out if method == "plain" else np.array([[ref.cosine(o, m) for m in p["M"]] for o in out])
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    alone = np.concatenate([head.scores(torch.from_numpy(h[i:i + 1])).detach().numpy() for i in range(N)])
    np.testing.assert_allclose(scores, alone, rtol=1e-9)


def test_original_weight_adds_the_unmixed_sentences_loss():
    head, h, y, draws, p, _ = setup("dnm", original_weight=0.5)
    unmixed = np.mean([(1 - ref.cosine(p["fc_w"] @ h[i] + p["fc_b"], p["M"][y[i]])) ** 2 for i in range(N)])
    expected = expected_loss("dnm", h, y, p, draws) + 0.5 * unmixed
    assert head.loss(torch.from_numpy(h), torch.from_numpy(y), draws).item() == pytest.approx(expected)


def test_diagnostics_agree_with_numpy():
    head, h, _, _, p, _ = setup("dnm")
    found = head.diagnostics(torch.from_numpy(h))
    m = p["M"]
    assert found["label_cosine"] == pytest.approx(
        np.mean([ref.cosine(m[a], m[b]) for a in range(C) for b in range(C) if a != b]))
    v1, v2 = ref.softmax_pair(*p["v"])
    assert found["input_policy_spread"] == pytest.approx(v1.std(ddof=1))
    phi = [ref.softmax_pair((v1 * h[i]) @ p["W"], (v2 * h[j]) @ p["W"])[0] for i in range(N) for j in range(N) if i != j]
    assert found["label_policy_spread"] == pytest.approx(np.std(phi, ddof=1))


def test_methods_of_one_seed_share_initial_values_and_draws():
    heads = {name: Head(METHODS[name], D, C, 5, seed=4) for name in ("dnm", "dnm-no-dnm", "nonlinearmixup")}
    for name in ("dnm-no-dnm", "nonlinearmixup"):
        assert torch.equal(heads["dnm"].label_embedding, heads[name].label_embedding)
        assert torch.equal(heads["dnm"].fc.weight, heads[name].fc.weight)
    assert not torch.equal(heads["dnm"].label_embedding, Head(METHODS["dnm"], D, C, 5, seed=5).label_embedding)
    a, b = (draw(METHODS[name], 20, 1.0, (16, 8), (0, 7)) for name in ("senmixup", "wordmixup"))
    assert torch.equal(a.weight, b.weight) and torch.equal(a.permutation, b.permutation)
    other = draw(METHODS["senmixup"], 20, 1.0, (16, 8), (0, 8))
    assert not torch.equal(a.permutation, other.permutation)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_draws_follow_beta(alpha):
    matrix = draw(METHODS["nonlinearmixup"], 5, alpha, (128, 200), (0, 0)).weight.numpy()
    assert matrix.shape == (128, 200) and matrix.mean() == pytest.approx(0.5, abs=0.01)
    assert matrix.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
