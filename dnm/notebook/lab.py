"""The ablation lab: parts of DNM switched on and off, several heads on a frozen encoder trained at each click.

For one of its own: ``lab.AblationLab(RunConfig.create("head"))``. Taught in notebook 05.
"""

import html
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import ipywidgets as w
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dnm.config import RunConfig
from dnm.errors import DnmError, Interrupted, reason
from dnm.methods import METHODS, Method
from dnm.notebook.widgets import Explorer
from dnm.plots.drawings import with_slider
from dnm.plots.lab import trial
from dnm.runs.fleet import fit_fleet
from dnm.runs.progress import duration
from dnm.study.statistics import by_seed, difference

FULL, NOTHING = METHODS["dnm"], np.array([])
# What stands on a part's buttons and the columns of DNM's row that it sets.
BUTTONS = {
    "partners": {name: dict(partners=name) for name in ("both", "nearest", "farthest", "random")} | {
        "one": dict(partners="one", k=0), "shuffled": dict(partners="permutation", k=0),
        "none": dict(level="none", partners="none", k=0)},
    "K": {str(k): dict(k=k) for k in (1, 3, 5, 7, 9)},
    "inputs": {"learned": {}, "fixed": dict(train_input_policy=False), "drawn λ": dict(inputs="scalar")},
    "labels": {"learned": {}, "fixed": dict(train_label_policy=False), "as inputs": dict(labels="scalar")},
    "loss": {"cosine": {}, "cross-entropy": dict(loss="cross-entropy")}}


def row_of(**chosen: str) -> Method:
    """The row that the chosen buttons make: that of the table, where it has one."""
    partners, plain = chosen["partners"], dict(inputs="scalar", labels="scalar")  # by one number, as classes are
    part = {name: BUTTONS[name][button] for name, button in chosen.items()}
    policies = dict.fromkeys(plain, "none") if partners == "none" else part["inputs"] | part["labels"]
    changes = part["K"] | part["partners"] | (plain if part["loss"] and partners != "none" else policies) | part["loss"]
    made, unnamed = replace(FULL, **changes), dict(name="", title="", source="", fixed_k=False)
    found = (row for row in METHODS.values() if replace(row, **unnamed) == replace(made, **unnamed))
    idle = ["K"] * ("k" in part["partners"]) + ["inputs", "labels"] * bool(part["loss"])
    return next(found, replace(made, title=", ".join(f"{name} {chosen[name]}" for name in chosen if name not in idle)))


@dataclass(frozen=True)
class Trial(RunConfig):
    """A run of a row that need not be in the table. It is never stored, as its hash does not tell the row."""

    row: Method = FULL

    def to_dict(self) -> dict:
        return {name: value for name, value in super().to_dict().items() if name != "row"}


def picture(row: Method, setting: str, full: np.ndarray, mine: np.ndarray) -> go.Figure:
    """The lab's picture: accuracies of full DNM and of a row, as far as they are known."""
    return trial(row.title, setting, full, mine, difference([mine - full] if len(mine) == len(full) else []))


def twin(runs: pd.DataFrame) -> go.Figure:
    """The picture of every method in ``runs`` that has the seeds of DNM, with a slider that needs no Python."""
    table, first = by_seed(runs, "method").dropna(axis=1).mul(1.0), runs.iloc[0]
    setting = f"{first['data']}, n = {first.n_train}, {first.encoder}, {first.profile}"
    names = sorted(table, key=list(METHODS).index)
    return with_slider(lambda row: picture(METHODS[row], setting, table["dnm"].to_numpy(), table[row].to_numpy()),
                       "row", names).update_layout(margin_r=60)  # the last name stands half beyond the slider


class AblationLab(Explorer):
    """Buttons for DNM's parts above the accuracies of the row that they make, trained in the background at a click."""

    def __init__(self, config: RunConfig, seeds: Iterable[int] = range(10), runs: pd.DataFrame | None = None):
        """``runs`` are those with these settings that are trained already; a row counts if it has all ``seeds``."""
        if not config.frozen:
            raise DnmError("the ablation lab trains heads alone: give it a config of profile 'head', or with lr=0")
        self.config, self.seeds, self.thread, self.asked = config, list(seeds), None, threading.Event()
        done = pd.DataFrame() if runs is None else by_seed(runs, "method").reindex(self.seeds).dropna(axis=1)
        self.known, self.drawing = {METHODS[name]: done[name].to_numpy() for name in done}, threading.RLock()
        self.line = w.HTML("<em>press a button: the row that it makes is trained at once</em>")
        controls = {}
        for name, buttons in BUTTONS.items():
            wide = 800 if name == "partners" else 400
            controls[name] = w.ToggleButtons(
                options=list(buttons), value="5" if name == "K" else next(iter(buttons)), description=name,
                layout=w.Layout(width=f"{wide}px"),
                style=dict(description_width="70px", button_width=f"{(wide - 110) // len(buttons)}px"))
        super().__init__(self._draw, controls, [self.line])
        for control in controls.values():
            control.observe(lambda _: self.begin(), names="value")

    def _draw(self, **chosen: str) -> go.Figure:
        row, about = row_of(**chosen), self.config
        setting = f"{Path(about.encoder).name}, n = {about.n_train}, {about.label}, {len(self.seeds)} seeds"
        return picture(row, setting, *(self.known.get(one, NOTHING) for one in (FULL, row)))

    def redraw(self) -> None:
        with self.drawing:  # a click and the end of a training may come together
            super().redraw()

    def begin(self) -> None:
        """Train in the background what is not known yet; a newer choice ends the training of an older one."""
        row = row_of(**{name: control.value for name, control in self.controls.items()})
        self.controls["K"].disabled = not row.selects
        self.controls["inputs"].disabled = self.controls["labels"].disabled = not (row.mixes and row.embeds_labels)
        self.asked.set()
        self.asked, missing = threading.Event(), [one for one in dict.fromkeys([FULL, row]) if one not in self.known]
        self.line.value = "…" if missing else "<em>trained before</em>"
        self.thread = threading.Thread(target=self._train, args=(missing, self.asked), daemon=True)
        self.thread.start()

    def _train(self, rows: list[Method], stop: threading.Event) -> None:
        started = time.perf_counter()

        def tell(run) -> None:
            if run.step % 5 == 0 and run.config.seed == self.seeds[-1] and not stop.is_set():
                self.line.value = html.escape(f"{run.method.title}: step {run.step} of {run.config.steps}")

        try:
            for row in rows:
                own = vars(self.config) | dict(method="dnm", k=row.k, row=row)
                found = fit_fleet([Trial(**own | dict(seed=seed)) for seed in self.seeds], stop=stop, on_progress=tell)
                if failed := [record for record, _ in found if isinstance(record, DnmError)]:
                    raise failed[0]
                self.known[row] = np.array([100 * record["test_accuracy"] for record, _ in found])
                self.redraw()
                self.line.value = f"{len(self.seeds)} seeds in {duration(time.perf_counter() - started)}"
        except Interrupted:  # by a newer choice
            pass
        except Exception as error:  # a thread's error would otherwise be lost
            self.line.value = html.escape(f"error: {reason(error)}")
