"""The table of methods: every system, ablation and control of the study is one row.

A row says *where* sentences are mixed, *with whom*, *how* the inputs and the labels are mixed and which loss is
minimised. Its words are keys into dictionaries of functions: ``partners`` into `dnm.selection.PARTNERS`, ``inputs``,
``labels`` and ``loss`` into `dnm.mixing.WEIGHTS`, `LABEL_WEIGHTS` and `LOSSES`. Nothing here imports torch, so the
table can be read, printed and validated at once. Taught in notebook 04.
"""

from dataclasses import dataclass, replace

from dnm.errors import unknown


@dataclass(frozen=True)
class Method:
    """One row of the table; what a column means, and its words, stand beside it."""

    name: str
    title: str
    source: str  # who proposed it, or the paper's table
    level: str  # where mixing happens: none, token (word pieces), word (embedding matrices), layer (states within the
    #             encoder), sentence (hidden states); or frozen: no fine-tuning, logistic regression on frozen features
    partners: str  # none; permutation (of the batch); one, random (1, 2K random others); nearest, farthest (K); both;
    #                batch (all at once); beyond (a random one of the distant); saliency (most, least alike of the
    #                other half)
    inputs: str  # their weight: none; scalar (lambda); half (lambda = 1/2); matrix (one a position and dimension);
    #              vector (learned; Eq. 2); simplex, dirichlet (one a sentence of the batch); distance (learned, times
    #              the distance); span (the share of word pieces kept)
    labels: str  # their weight: none; scalar (the inputs'); pair (each pair's own); encoding (of the mixture);
    #              policy (learned; Eq. 3)
    loss: str  # cross-entropy on class scores, or cosine to label embeddings (Eq. 5)
    k: int = 0  # the paper's K, partners of each kind; 0 where partners are not selected
    train_input_policy: bool = True
    train_label_policy: bool = True
    fixed_k: bool = False  # whether K is what the row is about, so that it cannot be set
    alpha: float = 1.0  # of Beta(alpha, alpha), where weights are drawn
    original_weight: float = 0.0  # of the unmixed sentences' loss
    start: float = 0.0  # share of the steps before mixing begins
    augment: str = ""  # what makes further versions of the training texts: eda, translation
    copies: int = 0  # of each text, at most

    @property
    def selects(self) -> bool:
        """Whether the row uses K, that is, draws or selects several partners for each sentence."""
        return self.k > 0

    @property
    def draws_weights(self) -> bool:
        """Whether mixing weights are drawn from Beta(alpha, alpha), or Dirichlet(alpha, …) for more than two."""
        return self.inputs in ("scalar", "matrix", "dirichlet")

    @property
    def mixes(self) -> bool:
        """Whether training mixes sentences, so that a batch needs at least two."""
        return self.partners != "none"

    @property
    def mixes_words(self) -> bool:
        """Whether sentences are mixed before the encoder, in their word embeddings."""
        return self.level == "word"

    @property
    def sees_mixed(self) -> bool:
        """Whether the encoder's hidden states are those of mixtures already."""
        return self.level in ("token", "word", "layer")

    @property
    def remembers(self) -> bool:
        """Whether partners depend on what is kept of each training sentence (`dnm.related.memory`)."""
        return self.partners in ("beyond", "saliency")

    @property
    def stacks(self) -> bool:
        """Whether its runs can be trained as one stack: its steps are all alike, and their inputs known before."""
        alone = self.remembers or self.start or self.augment or self.level in ("token", "layer")
        return self.fine_tunes and not alone

    @property
    def fine_tunes(self) -> bool:
        """Whether the encoder is trained, step by step."""
        return self.level != "frozen"

    @property
    def embeds_labels(self) -> bool:
        """Whether classes are learned vectors, scored by their cosine, and not one-hot."""
        return self.loss == "cosine"


_DNM = Method("dnm", "DNM", "the paper, Tables 2-5", "sentence", "both", "vector", "policy", "cosine", k=5)

_CE = "cross-entropy"
_ROWS = [
    Method("plain", "Plain fine-tuning", "Tables 2-5, `BERT`", "none", "none", "none", "none", "cross-entropy"),
    Method("wordmixup", "WordMixup", "Guo et al. 2019", "word", "permutation", "scalar", "scalar", "cross-entropy"),
    Method("senmixup", "SenMixup", "Guo et al. 2019", "sentence", "permutation", "scalar", "scalar", "cross-entropy"),
    Method("nonlinearmixup", "NonlinearMixup", "Guo 2020", "word", "permutation", "matrix", "encoding", "cosine"),
    _DNM,
    *(replace(_DNM, name=f"dnm-k{k}", title=f"DNM, K = {k}", source="Tables 6, 7", k=k, fixed_k=True)
      for k in (1, 3, 7, 9)),
    replace(_DNM, name="dnm-fow", title="DNM, TIW + FOW", source="Tables 8, 9", train_label_policy=False),
    replace(_DNM, name="dnm-fiw", title="DNM, FIW + TOW", source="Tables 8, 9", train_input_policy=False),
    replace(_DNM, name="dnm-fiw-fow", title="DNM, FIW + FOW", source="Tables 8, 9",
            train_input_policy=False, train_label_policy=False),
    replace(_DNM, name="dnm-no-dss", title="DNM w/o DSS", source="Tables 10, 11", partners="one", k=0),
    replace(_DNM, name="dnm-no-lds", title="DNM w/o LDS", source="Tables 10, 11", partners="nearest"),
    replace(_DNM, name="dnm-no-sds", title="DNM w/o SDS", source="Tables 10, 11", partners="farthest"),
    replace(_DNM, name="dnm-no-dnm", title="DNM w/o DNM", source="Tables 10, 11", inputs="scalar", labels="scalar"),
    replace(_DNM, name="dnm-random", title="DNM, random partners", source="our control", partners="random"),
    Method("label-embedding", "Label embeddings, no mixing", "our control", "none", "none", "none", "none", "cosine"),
    Method("logreg", "Logistic regression", "our baseline, frozen features",
           "frozen", "none", "none", "none", "cross-entropy"),
    # The related systems that the paper names, and DMix; what differs from their authors' code, beside each.
    # Mixup-Transformer: no official code; our reading mixes the last hidden states, half the steps plainly first.
    Method("mixup-transformer", "Mixup-Transformer", "Sun et al. 2020", "sentence", "permutation", "half", "scalar",
           _CE, start=0.5),
    # BatchMixup: softmax of uniform numbers is nearly flat, so mixtures lie close to the batch's mean; hence a second
    # row with weights ~ Dirichlet(1, …, 1). Theirs has two tanh layers more, and is trained for pairs afterwards.
    Method("batchmixup", "BatchMixup", "Yin et al. 2021", "sentence", "batch", "simplex", "simplex", _CE),
    Method("batchmixup-dirichlet", "BatchMixup, Dirichlet weights", "our variant", "sentence", "batch", "dirichlet",
           "simplex", _CE),
    # TMix: three layers at 7/12, 9/12 and the whole depth; ours minds masks and special tokens, its head is linear.
    Method("tmix", "TMix", "Chen et al. 2020", "layer", "permutation", "scalar", "scalar", _CE, alpha=16.0),
    # SSMix: partners by a permutation of the batch, saliency of word embeddings, no separate checkpoint: 3/8 of the
    # steps plainly first, as 3 of their 8 epochs. A partner too short for the span leaves its sentence as it was.
    Method("ssmix", "SSMix", "Yoon et al. 2021", "token", "permutation", "span", "pair", _CE, original_weight=1.0,
           start=0.375),
    # AUM + saliency: weights 0.8, 0.1 and 0.1 (times 5), each sentence's own class, the mean over the batch. Of two
    # classes theirs gives all sentences the same saliency; ours then takes that of hidden states instead of scores.
    # The first phase takes a quarter of the steps, three epochs at least, half the steps at most, and counts as steps.
    Method("aum-saliency", "AUM + saliency", "Park and Caragea 2022", "sentence", "saliency", "scalar", "scalar", _CE,
           alpha=0.4, original_weight=4.0, start=0.25),
    # DMix: at hidden states, theirs at a layer it draws; partners within the batch, never oneself (their code: always),
    # by cosine distance; the weight is that distance, relative to the largest, times a learned factor of each sentence:
    # the farthest partner leaves a sentence as it is until its factor shrinks.
    Method("dmix", "DMix", "Sawhney et al. 2022", "sentence", "beyond", "distance", "pair", _CE),
    Method("eda", "EDA", "Wei and Zou 2019", "none", "none", "none", "none", _CE, augment="eda", copies=9),
    Method("back-translation", "Back-translation", "Edunov et al. 2018", "none", "none", "none", "none",
           _CE, augment="translation", copies=1),
]

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}


def get_method(name: str) -> Method:
    """The row called ``name``; a `DnmError` with the nearest valid name if there is none."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
