"""Where unfinished runs go on from: one file for the runs that are trained together and their optimiser."""

from pathlib import Path

import torch

from dnm.disk import load_tensors, save_tensors
from dnm.errors import DnmError, mendable


def save(path: Path, runs: list, optimiser: torch.optim.Optimizer) -> None:
    """Everything that `load` needs to go on bit for bit; written whole or not at all."""
    tensors = {f"adam/{i}/{name}": value for i, entry in optimiser.state_dict()["state"].items()
               for name, value in entry.items()}
    states = []
    for i, run in enumerate(runs):
        tensors |= {f"{i}/model/{name}": p for name, p in run.trained.items()} | {f"{i}/losses": run.losses}
        tensors |= {f"{i}/memory/{name}": value for name, value in _kept(run).items()}
        best = dict(run.best) if run.best else None
        if best:
            tensors |= {f"{i}/best/{name}": value for name, value in best.pop("weights").items()}
        states.append(_identity(run) | {"step": run.step, "history": run.history, "best": best,
                                        "seconds": run.seconds, "failure": run.failure})
    save_tensors(path, tensors, {"runs": states})


def load(path: Path, runs: list, optimiser: torch.optim.Optimizer) -> None:
    """Bring runs and optimiser to where they were; a `DnmError` where the file is damaged or other runs'."""
    tensors, state = load_tensors(path, "delete it and run the same command again to start this run from its beginning")
    states, expected = state.get("runs", []), [_identity(run) for run in runs]
    if [{name: one.get(name) for name in expected[0]} for one in states] != expected:
        raise DnmError(f"{path} belongs to another run, other data or other weights: delete it and run the same "
                       "command again")
    with mendable(f"{path} does not fit this run ({{}}): delete it and run the same command again"):
        for i, (run, one) in enumerate(zip(runs, states, strict=True)):
            with torch.no_grad():
                for name, parameter in run.trained.items():
                    parameter.copy_(tensors[f"{i}/model/{name}"])
                for name, value in _kept(run).items():
                    value.copy_(tensors[f"{i}/memory/{name}"])
                run.losses.copy_(tensors[f"{i}/losses"])
            run.step, run.history, run.seconds, run.failure = (
                one[name] for name in ("step", "history", "seconds", "failure"))
            run.best = one["best"] and one["best"] | {
                "weights": {name: tensors[f"{i}/best/{name}"].to(run.device) for name in run.trained}}
        moments: dict[int, dict] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam/"):
                _, index, moment = name.split("/")
                moments.setdefault(int(index), {})[moment] = tensor
        for i, p in enumerate(p for group in optimiser.param_groups for p in group["params"]):
            for name in ("exp_avg", "exp_avg_sq") if i in moments else ():  # one run may be a stack of one
                moments[i][name] = moments[i][name].view(p.shape)
        optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})


def _kept(run) -> dict:
    """What a run remembers and does not learn."""
    return {name: value for name, value in run.memory.items() if name not in run.trained}


def _identity(run) -> dict:
    return {"config": run.config.to_dict(), "data": run.data.fingerprint, "weights": run.weights,
            "augmentation": run.augmentation or None}
