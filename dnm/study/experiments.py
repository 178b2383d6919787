"""The paper's experiments: which runs make which table or figure, and the numbers that it published.

The 276 accuracies of Tables 2 to 11 lie in ``data/paper_results.csv``. Taught in notebooks 04 and 05.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import product

import pandas as pd

from dnm.config import SCRATCH as FROM_SCRATCH
from dnm.config import RunConfig, as_list
from dnm.data.datasets import within_data
from dnm.errors import DnmError, project_root, unknown
from dnm.methods import METHODS

SIZES = ("50", "200", "500", "1000", "2000", "all")
SCRATCH = "cnn or lstm"  # the paper does not say which of the two its rows without BERT used; we run both
# What each table is about: the tables, the sizes of each, and the rows of ours that the paper does not have.
DESIGNS = {"systems": ({2: SIZES, 3: SIZES, 4: SIZES, 5: SIZES}, (
               ("logreg", "bert-base-uncased"), ("label-embedding", "bert-base-uncased"), ("plain", SCRATCH))),
           "top-K": ({6: ("50",), 7: ("all",)}, ()), "policies": ({8: ("50",), 9: ("all",)}, ()),
           "parts": ({10: ("50",), 11: ("all",)}, (("dnm-random", "bert-base-uncased"),))}
PRETRAINED_ONLY = ("lr", "head_lr", "pooling", "dropout")  # settings that CNN and LSTM keep their own of
FIGURES = {"figure1": ((), ()), "figure2": (("subj", "sst1"), ("nonlinearmixup", "dnm")),  # data sets and methods
           "figure3": (("subj",), ("dnm",)), "figure4": (("subj", "sst2"), ("plain", "dnm"))}
NAMES = (*(f"table{n}" for tables, _ in DESIGNS.values() for n in tables), *FIGURES)
BASELINES = ("plain", "wordmixup", "senmixup", "nonlinearmixup", "logreg")


@lru_cache(maxsize=1)
def published() -> pd.DataFrame:
    """The paper's accuracies in percent: table, dataset, method, encoder, n_train (text), accuracy, error."""
    path = project_root() / "data" / "paper_results.csv"
    if not path.exists():
        raise DnmError(f"the paper's numbers are not at {path}; run from a checkout, or set DNM_HOME to one")
    return pd.read_csv(path, dtype={"n_train": str})


def table_methods(table: int) -> list[str]:
    """Rows of the paper's Tables 6 to 11, as names of our table of methods."""
    if table not in (ablations := sorted(set(published().table) - set(DESIGNS["systems"][0]))):
        raise DnmError(f"table {table} is no ablation of the paper (known: {', '.join(map(str, ablations))})")
    found = set(published().query("table == @table").method)
    return [name for name in METHODS if name in found]


def place(dataset: str) -> int:
    """Where a data set stands in the paper; others behind."""
    return [*dict.fromkeys(published().dataset), dataset].index(dataset)


def size(n_train: str) -> float:
    """A number of training sentences, to sort by: all is infinity."""
    return float(n_train.replace("all", "inf"))


def kinds(design: str) -> list[tuple[str, str]]:
    """Method and encoder of each row in the tables of a design, the paper's and ours, those without BERT first."""
    tables, ours = DESIGNS[design]
    theirs = published()[published().table.isin(tables)][["method", "encoder"]].itertuples(index=False, name=None)
    return sorted({*theirs, *ours}, key=lambda kind: (kind[1] != SCRATCH, list(METHODS).index(kind[0])))


def table_rows(design: str, dataset: str, n_train: str) -> pd.DataFrame:
    """A table's rows for one data set and size, as `published`; rows that are ours alone have no ``accuracy``."""
    theirs = published().query("table in @DESIGNS[@design][0] and dataset == @dataset and n_train == @n_train")
    frame = pd.DataFrame(kinds(design), columns=["method", "encoder"]).assign(dataset=dataset, n_train=n_train)
    frame = frame.merge(theirs.drop(columns="table"), how="left", on=["dataset", "method", "encoder", "n_train"])
    return frame.assign(table=theirs.table.max() if len(theirs) else 0)[list(published().columns)]  # 0: ours alone


def experiment(name: str, *, encoder: str = "minilm", profile: str = "quick", datasets: list[str] | None = None,
               sizes: list[str] | None = None, seeds: Iterable[int] = (0, 1, 2, 3, 4), **settings) -> list[RunConfig]:
    """The runs behind a table or figure (``table2`` … ``table11``, ``figure1`` … ``figure4``), seed by seed.

    ``datasets`` and ``sizes`` replace those of the paper's table, so that any of them can be had on other data;
    ``settings`` (of `RunConfig`) hold for all runs; rates, pooling and dropout for those of ``encoder`` only.
    """
    if name not in NAMES:
        raise unknown("table or figure", name, [*NAMES, "all"])
    common, seeds = dict(profile=profile, **settings), as_list(seeds, int)
    if name in FIGURES:
        (data, methods), counts = FIGURES[name], ["all"]
        rows, seeds = [(method, "") for method in methods], seeds if name == "figure2" else seeds[:1]
        if name == "figure2":  # a curve wants more than one evaluation
            usual = RunConfig.create(encoder=encoder, **common)
            common.setdefault("eval_every", max(1, min(usual.eval_every, usual.steps // 10)))
    else:
        number = int(name.removeprefix("table"))
        if fixed := {"k", "alpha", "original_weight"} & set(settings):
            raise DnmError(f"the rows of {name} are defined by their {fixed.pop()}; train others with `dnm train`")
        design, counts = next((design, tables[number]) for design, (tables, _) in DESIGNS.items() if number in tables)
        data, rows = dict.fromkeys(published().query("table == @number").dataset), kinds(design)
    # The paper's rows without BERT keep rates of their own; word vectors are for them and not for ``encoder``.
    pretrained, configs = encoder not in FROM_SCRATCH, []
    foreign = {SCRATCH: PRETRAINED_ONLY, "bert-base-uncased": ("word_vectors",) if pretrained else ()}
    for seed, dataset, n_train, (method, kind) in product(seeds, datasets or data, as_list(sizes or counts), rows):
        mine = {key: value for key, value in common.items() if key not in foreign.get(kind, ())}
        own = FROM_SCRATCH if kind == SCRATCH else [encoder] if pretrained or method != "logreg" else []
        configs += [RunConfig.create(dataset=dataset, n_train=n_train, method=method, seed=seed, encoder=which, **mine)
                    for which in own]
    return within_data(configs)
