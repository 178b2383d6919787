"""An independent reference: the method in plain NumPy loops, written from the formulas, one pair at a time."""

import numpy as np


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def softmax_pair(a, b):
    a, b = np.exp(a - np.maximum(a, b)), np.exp(b - np.maximum(a, b))
    return a / (a + b), b / (a + b)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def partners(h, i, k, kind):
    """Positions of the partners of sentence i, by sorting all others."""
    others = [j for j in range(len(h)) if j != i]
    near = sorted(others, key=lambda j: -cosine(h[i], h[j]))
    return {"nearest": near[:k], "farthest": near[::-1][:k], "both": near[:k] + near[::-1][:k]}[kind]


def cross_entropy(logits, label):
    shifted = logits - logits.max()
    return float(np.log(np.exp(shifted).sum()) - shifted[label])


def dnm_loss(h, y, p, k, kind="both", chosen=None):
    """Eqs. 2 to 6 with the parameters p: v1, v2, W, M, fc weight and bias; mean over all pairs."""
    v1, v2 = softmax_pair(p["v"][0], p["v"][1])
    losses = []
    for i in range(len(h)):
        for j in (chosen[i] if chosen is not None else partners(h, i, k, kind)):
            mixed = v1 * h[i] + v2 * h[j]
            phi_i, phi_j = softmax_pair((v1 * h[i]) @ p["W"], (v2 * h[j]) @ p["W"])
            target = phi_i * p["M"][y[i]] + phi_j * p["M"][y[j]]
            predicted = p["fc_w"] @ mixed + p["fc_b"]
            losses.append((1 - cosine(predicted, target)) ** 2)
    return float(np.mean(losses))


def no_dnm_loss(h, y, p, k, lam):
    """w/o DNM: one scalar mixes hidden states and label embeddings."""
    losses = []
    for i in range(len(h)):
        for j in partners(h, i, k, "both"):
            predicted = p["fc_w"] @ (lam * h[i] + (1 - lam) * h[j]) + p["fc_b"]
            target = lam * p["M"][y[i]] + (1 - lam) * p["M"][y[j]]
            losses.append((1 - cosine(predicted, target)) ** 2)
    return float(np.mean(losses))


def senmixup_loss(h, y, p, permutation, lam, mix_hidden=True):
    losses = []
    for i, j in enumerate(permutation):
        mixed = lam * h[i] + (1 - lam) * h[j] if mix_hidden else h[i]
        logits = p["fc_w"] @ mixed + p["fc_b"]
        losses.append(lam * cross_entropy(logits, y[i]) + (1 - lam) * cross_entropy(logits, y[j]))
    return float(np.mean(losses))


def batch_loss(h, y, p, weights):
    """BatchMixup: every row of weights mixes the whole batch, and its loss is that mix of cross-entropies."""
    losses = []
    for row in weights:
        logits = p["fc_w"] @ sum(w * h[i] for i, w in enumerate(row)) + p["fc_b"]
        losses.append(sum(w * cross_entropy(logits, y[i]) for i, w in enumerate(row)))
    return float(np.mean(losses))


def pair_loss(h, y, p, pairs):
    """Cross-entropy of pairs (i, j, weight of i), the weight mixing hidden states and losses alike."""
    losses = []
    for i, j, lam in pairs:
        logits = p["fc_w"] @ (lam * h[i] + (1 - lam) * h[j]) + p["fc_b"]
        losses.append(lam * cross_entropy(logits, y[i]) + (1 - lam) * cross_entropy(logits, y[j]))
    return float(np.mean(losses))


def plain_loss(h, y, p):
    return float(np.mean([cross_entropy(p["fc_w"] @ h[i] + p["fc_b"], y[i]) for i in range(len(h))]))


def dmix_pairs(distances, scores, factor, share=0.7):
    """DMix: the highest score among those beyond a share of the farthest; a weight for each pair."""
    pairs = []
    for i in range(len(distances)):
        far = max(distances[i])
        j = max((j for j in range(len(distances)) if j != i and distances[i][j] > share * far), key=lambda j: scores[i][j])
        pairs.append((i, j, min(1.0, max(0.0, factor[i] * distances[i][j] / far))))
    return pairs


def class_saliency(h, y, p):
    """|derivative of the cross-entropy by the logits|, each sentence's own."""
    found = []
    for i in range(len(h)):
        logits = p["fc_w"] @ h[i] + p["fc_b"]
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        found.append(np.abs(probabilities - np.eye(len(logits))[y[i]]))
    return np.array(found)


def saliency_pairs(stored, current, high, lam):
    """Park and Caragea: the most and the least alike of the other half."""
    pairs = []
    for i in range(len(stored)):
        others = sorted((j for j in range(len(stored)) if high[j] != high[i]), key=lambda j: cosine(stored[i], current[j]))
        pairs += [(i, others[-1], lam), (i, others[0], lam)]
    return pairs


def spans(salient, lengths, partners, share=0.1):
    """SSMix by trying every window between the special pieces: (to, from, width), or None where a partner is too short."""
    found = []
    for i, j in enumerate(partners):
        own, other = lengths[i] - 2, lengths[j] - 2
        width = max(1, int(np.floor(share * own + 1e-9)))
        if own < 1 or other < width:
            found.append(None)
            continue
        to = min(range(1, lengths[i] - width), key=lambda s: np.mean(salient[i][s:s + width]))
        source = max(range(1, lengths[j] - width), key=lambda s: np.mean(salient[j][s:s + width]))
        found.append((to, source, width))
    return found


def nonlinear_loss(h, y, p, permutation):
    """NonlinearMixup's loss; h are encodings of already mixed sentences."""
    losses = []
    for i, j in enumerate(permutation):
        theta = sigmoid(p["A"] @ h[i] + p["b"])
        target = theta * p["M"][y[i]] + (1 - theta) * p["M"][y[j]]
        losses.append((1 - cosine(p["fc_w"] @ h[i] + p["fc_b"], target)) ** 2)
    return float(np.mean(losses))


def gradient(function, array, step=1e-6):
    """Central differences of a scalar function with respect to an array it reads."""
    found = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + step
        up = function()
        array[index] = before - step
        down = function()
        array[index] = before
        found[index] = (up - down) / (2 * step)
    return found
