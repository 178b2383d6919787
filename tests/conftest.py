"""Shared ground: real data where it is at hand, a tiny BERT-family model, what is trained or run once for all tests."""

import json
import os
import re
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs a network
# Workers of pytest-xdist lie side by side, so that each has one core; what they start inherits this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # how many processes `run_all` takes where it is not told
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "hypothesis"))

from dnm.config import RunConfig
from dnm.data.datasets import REAL, _load, data_folders
from dnm.data.hub import minilm_folder
from dnm.runs.store import RunStore


def has_real_data(name: str) -> bool:
    return any((folder / name).is_dir() for folder in data_folders())


needs_real_data = pytest.mark.skipif(
    not all(map(has_real_data, REAL)),
    reason="the real data sets are not at hand: set DNM_DATA_DIR or run `python -m dnm fetch subj mr sst2 sst1`")


# ---------------------------------------------------------------- properties

# `short` tries the same examples each time; `long`, by hand (--hypothesis-profile=long), 50 times as many, each time others.
COMMON = dict(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("short", **COMMON, derandomize=True, database=None)
hypothesis.settings.register_profile("long", **COMMON, print_blob=True)
hypothesis.settings.load_profile("short")


def examples(n: int) -> hypothesis.settings:
    """How many examples a property is tried on."""
    return hypothesis.settings(max_examples=n * (50 if hypothesis.settings.get_current_profile_name() == "long" else 1))


# ---------------------------------------------------------------- who runs what, and when

# What takes longest comes first, so that the workers end together; the sixth notebook before others that need its runs,
# as it wants their models, too.
FIRST = ["06_tsne", "browser", "05_ablations", "04_training", "test_the_batch_job", "test_the_benchmark", "test_two_sweeps",
         "test_ctrl_c", "test_papermill", "test_the_exercises", "test_a_killed", "test_a_dask", "wrong parameters"]


def together(test: str) -> str:
    """What a test has to stay with, in order on one worker: a notebook's cells, all that share a browser or a kernel."""
    file, _, name = test.partition("::")
    if "test_browser.py" in file or "07_your_data" in test:  # whoever runs notebook 07 writes the same example
        return "browser"
    if name.startswith("test_a_wrong_parameter_stops"):
        return "wrong parameters"
    return Path(file).stem if file.endswith(".ipynb") else name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return next((place for place, name in enumerate(FIRST) if together(item.nodeid).startswith(name)), len(FIRST))

    items.sort(key=rank)


def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        _split_scope = staticmethod(together)

    return Together(config, log)


@pytest.fixture(autouse=True)
def _fresh_datasets():
    _load.cache_clear()


@pytest.fixture(scope="session")
def common(tmp_path_factory) -> Path:
    """A folder that all workers share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_models(common) -> dict[str, Path]:
    """A random two-layer model of every supported architecture, saved as a local folder would be."""
    import torch
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(minilm_folder())
    size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                vocab_size=tokenizer.vocab_size, max_position_embeddings=140)
    models = {"bert": (hf.BertModel, hf.BertConfig(**size)), "roberta": (hf.RobertaModel, hf.RobertaConfig(**size, pad_token_id=1)),
              "electra": (hf.ElectraModel, hf.ElectraConfig(**size, embedding_size=16))}
    folders = {name: common / name for name in models}
    with FileLock(common / "models.lock"):
        for name, (kind, config) in models.items():
            if not folders[name].exists():
                torch.manual_seed(3)
                kind(config).save_pretrained(folders[name])
                tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def tiny(tiny_models):
    """A run configuration that trains in a second: a tiny random BERT on the built-in corpus."""
    def make(**settings) -> RunConfig:
        values = dict(encoder=str(tiny_models["bert"]), steps=6, batch_size=12, eval_every=3, eval_limit=40, n_train=24,
                      lr=1e-3, precision="float32", max_length=64, pooling="mean")
        return RunConfig.create("smoke", **values | settings)
    return make


# ---------------------------------------------------------------- once for all tests

@pytest.fixture(scope="session")
def runs(common) -> RunStore:
    """The runs of all notebooks with the tiny model: what one test has trained, the others find."""
    return RunStore(common / "runs")


@pytest.fixture(scope="session")
def small(tiny_models, runs) -> Callable[..., dict]:
    """Parameters with which a notebook takes seconds, as far as it has them."""
    from dnm.notebook.parameters import declared

    def parameters(path: Path, **more) -> dict:
        wanted = dict(encoder=str(tiny_models["bert"]), store=str(runs.folder), methods=["plain", "dnm", "logreg"], sizes=[50],
                      seeds=[0, 1], perplexities=[5, 20], sentences=60, snapshots=3, tables=[8], draws=30, trials=3) | more
        return {name: value for name, value in wanted.items() if name in declared(path)}
    return parameters


SOLUTION = re.compile(r"<summary>Solution</summary>\n\n +```python\n(.+?)\n +```", flags=re.S)


def solutions(path: Path) -> list[str]:
    """The folded solutions of a notebook's exercises."""
    text = "".join(json.loads(path.read_text())["cells"][-1]["source"])
    return [textwrap.dedent(code) for code in SOLUTION.findall(text)]


@pytest.fixture(scope="session")
def executed(common, small) -> Callable[[Path], Path]:
    """A notebook, its solutions behind it as cells, executed on small settings by the first test that asks for it."""
    from dnm.notebook.batch import execute

    def once(path: Path) -> Path:
        target = common / "executed" / path.name
        with FileLock(common / f"{path.stem}.lock"):
            if not target.exists():
                notebook = json.loads(path.read_text())
                template = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code" and not cell["metadata"].get("tags"))
                for number, code in enumerate(solutions(path)):
                    notebook["cells"].append({**template, "id": f"solution{number}", "source": code, "outputs": [], "execution_count": None})
                source = common / "with_solutions" / path.name
                source.parent.mkdir(exist_ok=True)
                source.write_text(json.dumps(notebook))
                unfinished = execute(source, common / "unfinished" / path.name, small(path))
                target.parent.mkdir(exist_ok=True)
                unfinished.rename(target)
        return target
    return once
