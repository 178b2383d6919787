"""The table of methods: every system, ablation and control of the study is one row.

A row says *where* sentences are mixed, *with whom*, *how* the inputs and the labels are mixed and which
loss is minimised. Nothing here imports torch, so the table can be read, printed and validated at once.
Taught in notebook 04.
"""

from dataclasses import dataclass, replace

from dnm.errors import unknown


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes
    ----------
    level : where mixing happens: ``none``, ``word`` (embedding matrices), ``sentence`` (pooled hidden
        states) or ``frozen`` (no fine-tuning at all: logistic regression on frozen features).
    partners : ``none``; ``permutation`` (one random permutation of the batch); ``one`` (one random other
        sentence); ``random`` (2K random others); ``nearest``, ``farthest`` (K each) or ``both`` (2K).
    inputs : mixing weight of the inputs: ``none``, ``scalar`` (one lambda), ``matrix`` (one weight for each
        position and dimension, drawn) or ``vector`` (one weight a dimension, learned; Eq. 2).
    labels : mixing weight of the labels: ``none``, ``scalar`` (the same lambda), ``encoding`` (a sigmoid of
        the mixed sentence's encoding) or ``policy`` (from the weighted inputs; Eq. 3).
    loss : ``cross-entropy`` on class scores or ``cosine`` on label embeddings (Eq. 5).
    k : the paper's K, partners of each kind; 0 where partners are not selected.
    fixed_k : whether K is what the row is about, so that it cannot be set.
    """

    name: str
    title: str
    source: str
    level: str
    partners: str
    inputs: str
    labels: str
    loss: str
    k: int = 0
    train_input_policy: bool = True
    train_label_policy: bool = True
    fixed_k: bool = False

    @property
    def selects(self) -> bool:
        """Whether the row uses K, that is, draws or selects several partners for each sentence."""
        return self.partners in ("nearest", "farthest", "both", "random")

    @property
    def draws_weights(self) -> bool:
        """Whether mixing weights are drawn from Beta(alpha, alpha)."""
        return self.inputs in ("scalar", "matrix")


_DNM = Method("dnm", "DNM", "the paper, Tables 2-5", "sentence", "both", "vector", "policy", "cosine", k=5)

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
    Method("logreg", "Logistic regression", "our baseline, frozen features",
           "frozen", "none", "none", "none", "cross-entropy"),
]

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}


def get_method(name: str) -> Method:
    """The row called ``name``; a `DnmError` with the nearest valid name if there is none."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
