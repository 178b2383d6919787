"""Another device than the CPU, without one: torch's `meta` device, and graphs that cannot be recorded."""

import contextlib
import json
import threading

import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from torch.utils._pytree import tree_map

from dnm import training
from dnm.methods import METHODS
from dnm.runs import fleet
from dnm.runs.fleet import DeviceLost, Fleet, fit_fleet
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.training import Interrupted, Run, fit

TRAINED = [row.name for row in METHODS.values() if row.fine_tunes and not row.augment]  # those are plain here
ENCODERS = {"bert": {}, "cnn": dict(encoder="cnn", pooling="own")}


class NoSteps:
    """Stands in for the optimiser, whose fused kernel knows no meta tensors."""

    def __init__(self, *groups):
        self.param_groups = [{"params": list(group)} for group in groups]

    def step(self):
        for group in self.param_groups:
            assert all(p.grad is None or p.grad.device == p.device for p in group["params"])

    def zero_grad(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None


@pytest.fixture(autouse=True)
def no_autocast(request, monkeypatch):
    """Autocast does not know the `meta` device."""
    if "nothing_on_the_cpu" in request.node.name:
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


@pytest.fixture
def meta(monkeypatch):
    """Runs that are made on the `meta` device, where every operation checks devices and shapes and computes nothing."""
    device = torch.device("meta")
    monkeypatch.setattr(training, "resolve_device", lambda config: (device, None))
    monkeypatch.setattr(training, "adamw", lambda encoder, head, config, **_: NoSteps(encoder, head))
    return device


def asked(head, hidden):
    """Scores and diagnostics of hidden states, and the loss of unmixed sentences: what an evaluation asks for."""
    found = head.diagnostics(hidden)
    return [head.scores(hidden), head.plain_loss(hidden, torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)), *found.values()]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("method", TRAINED)
def test_a_step_scores_and_diagnostics_leave_nothing_on_the_cpu(tiny, meta, monkeypatch, method, encoder):
    if METHODS[method].level == "layer" and encoder != "bert":
        pytest.skip("it has no layers to mix at")
    run = Run(tiny(method=method, dropout=0.1, **ENCODERS[encoder]))
    run.start = 0  # the first step is one that mixes
    if METHODS[method].partners == "saliency":
        run.batches.halves = (np.arange(12), np.arange(12, 24))
    monkeypatch.setattr(torch.Tensor, "__int__", lambda tensor: 1)  # the layer that is drawn decides what is computed
    assert run.train_step().device == meta
    encoded, labels = run.evaluated["validation"]
    hidden = encoded.hidden(run.model.encoder)
    assert labels.device == hidden.device == meta and hidden.shape[0] == len(labels)
    assert all(value.device == meta for value in asked(run.model.head, hidden[:12]))


def on_meta(team: Fleet, device) -> None:
    """Move all that a fleet holds, as a GPU would have it."""
    def moved(p):
        return torch.nn.Parameter(p.detach().to(device), p.requires_grad) if isinstance(p, torch.nn.Parameter) else p.to(device)

    team.device, team.first.model = device, team.first.model.to(device)
    team.tables, team.encoder = tree_map(moved, team.tables), {name: moved(p) for name, p in team.encoder.items()}
    team.heads = [(head, members.to(device), {name: moved(p) for name, p in own.items()}) for head, members, own in team.heads]
    team.at, team.losses, team.order = (t.to(device) for t in (team.at, team.losses, team.order))
    team.optimiser = NoSteps(team.encoder.values(), [p for *_, own in team.heads for p in own.values()])


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("methods", [
    [m for m in TRAINED if METHODS[m].stacks and not METHODS[m].mixes_words and METHODS[m].partners != "batch"],
    ["wordmixup"] * 2, ["nonlinearmixup"] * 2, ["batchmixup"] * 2], ids=["sentence", "word", "matrix", "batch"])
def test_a_fleets_step_and_evaluation_leave_nothing_on_the_cpu(tiny, methods, encoder):
    device = torch.device("meta")
    team = Fleet([Run(tiny(method=method, seed=seed, dropout=0.1, **ENCODERS[encoder])) for seed, method in enumerate(methods)])
    on_meta(team, device)
    before = team.losses
    team.train_step()
    assert team.losses is before and team.losses.device == device and team.window.ids.device == device
    team.first.model.eval()
    ids, layout = team.first.evaluated["validation"][0].parts[0][1:]
    hidden = torch.func.vmap(team._encode, in_dims=(0, 0, None))(team.encoder, team.tables,
                                                                 fleet.Inputs(ids.to(device), layout.to(device), None, None))
    assert hidden.device == device and len(hidden) == len(methods)


def essence(record: dict) -> dict:
    return {name: record[name] for name in ("config", "test_accuracy", "history", "test_predictions")}


def test_a_graph_that_cannot_be_recorded_is_done_without(tiny, tmp_path, monkeypatch):
    """A real recording that fails, as there is no GPU: a fresh process trains the fleet anew without, and one line says so."""
    if torch.cuda.is_available():
        pytest.skip("here it can be recorded")
    configs = [tiny(method=method, seed=seed) for seed, method in enumerate(("dnm", "plain", "senmixup"))]
    torch.set_num_threads(1)
    expected = [essence(record) for record, _ in fit_fleet(configs)]
    with pytest.raises(DeviceLost, match="CudaStream|NVIDIA|CUDA"):
        fit_fleet(configs, graph=True)
    monkeypatch.setenv("DNM_GRAPH", "1")
    get_reusable_executor().shutdown(wait=True)  # workers that are there do not see it
    notes = []
    records = run_all(configs, RunStore(tmp_path), workers=2, fleet=3, on_status=lambda s: notes.append(list(s.notes)))
    get_reusable_executor().shutdown(wait=True)
    assert [essence(record) for record in records] == json.loads(json.dumps(expected))
    said = [note for note in notes[-1] if "without a CUDA graph" in note]
    assert len(said) == 1 == len(notes[-1]) and not list(tmp_path.glob("*.error")) and not list(tmp_path.glob("*.checkpoint*"))


def test_a_fleet_that_fails_altogether_ends_as_single_runs(tiny, tmp_path, monkeypatch):
    """Halves, then each alone; nothing fails."""
    def broken(self):
        raise RuntimeError("CUDA out of memory")

    configs = [tiny(method=method, seed=seed) for seed, method in enumerate(("dnm", "plain", "senmixup"))]
    expected = [essence(fit(config)[0]) for config in configs]
    monkeypatch.setattr(Fleet, "_compute", broken)
    records = run_all(configs, RunStore(tmp_path), workers=1, fleet=3)
    assert [essence(record) for record in records] == json.loads(json.dumps(expected)) and not list(tmp_path.glob("*.error"))


def test_a_run_that_began_as_a_fleet_of_one_goes_on_alone(tiny, tmp_path):
    """As where a graph fails after a checkpoint, or is switched off."""
    config, stop, path = tiny(method="dnm", dropout=0.0), threading.Event(), tmp_path / "c.safetensors"
    expected = essence(fit(config)[0])
    with pytest.raises(Interrupted):
        training.train(Fleet([Run(config)]), checkpoint=path, stop=stop, on_progress=lambda run: stop.set() if run.step == 4 else None)
    record, _ = fit(config, checkpoint=path)
    for row, other in zip(record["history"], expected["history"], strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-4)
