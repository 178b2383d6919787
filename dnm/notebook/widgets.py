"""Widgets for JupyterLab: controls above a drawing of `dnm.plots.drawings` that moves as they move.

Each can be used alone: ``from dnm.notebook import widgets; widgets.playground()``; or with a run at hand,
``run = Run(RunConfig.create("smoke", method="dnm")); widgets.partner_explorer(Batch.first(run))`` (from `dnm.training`,
`dnm.config` and `dnm.study.explore`). Every control answers the keyboard (Tab to it, then the arrow keys). The same
drawings move without Python through `drawings.with_slider`. Taught in notebooks 01 to 04, 06 and 07.
"""

import html
import json
import threading
from collections.abc import Callable, Sequence

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import torch
from plotly.utils import PlotlyJSONEncoder

from dnm import selection
from dnm.classify.estimator import DNMClassifier
from dnm.config import RunConfig
from dnm.errors import Interrupted, reason
from dnm.plots import drawings
from dnm.runs.progress import Status
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.study import explore

WIDTH = 820  # fits JupyterLab with its side bar on a screen of 1280 pixels
_NAMED = dict(description_width="130px")
WIDE = dict(style=_NAMED, layout=w.Layout(width="400px"))  # two stand side by side


class Explorer(w.VBox):
    """Controls above a figure; whenever one of them changes, ``draw(**values)`` gives the new picture."""

    def __init__(self, draw: Callable[..., go.Figure], controls: dict[str, w.ValueWidget],
                 extra: Sequence[w.Widget] = ()):
        self.draw, self.controls = draw, controls
        first = draw(**{name: control.value for name, control in controls.items()})
        self.figure = go.FigureWidget(_plain(first.data), _plain(first.layout) | {"width": WIDTH})
        for control in controls.values():
            control.observe(lambda _: self.redraw(), names="value")
        rows = [w.HBox(list(controls.values()), layout=w.Layout(flex_flow="row wrap"))] if controls else []
        super().__init__([*rows, *extra, self.figure])

    def redraw(self) -> None:
        """Move the figure in place; only what differs is sent to the page."""
        new = self.draw(**{name: control.value for name, control in self.controls.items()})
        with self.figure.batch_update():
            for trace, other in zip(self.figure.data, new.data, strict=True):
                trace.update(_plain(other))
            self.figure.layout.title.text = new.layout.title.text
            for axis, ends in drawings.axis_ranges(new).items():
                self.figure.layout[axis].range = ends

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and for pages without a kernel one line of text instead of a list of its parts."""
        text = "A widget: run this notebook in JupyterLab to use it. The next figure needs no kernel."
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": text}


def _plain(part):
    """A part of a figure as it is in JSON, with lists for arrays, which ipywidgets cannot compare."""
    return json.loads(json.dumps(part, cls=PlotlyJSONEncoder))


def playground() -> Explorer:
    """Two sentences in two dimensions: what a scalar, vector or matrix of weights can reach (notebook 01)."""
    policy = w.ToggleButtons(options=explore.POLICIES, description="policy", style=_NAMED | {"button_width": "68px"},
                             layout=WIDE["layout"])
    first, second = (w.FloatSlider(weight, min=0, max=1, step=0.02, description=f"λ (dimension {d})", **WIDE)
                     for d, weight in ((1, 0.7), (2, 0.3)))

    def only_what_counts(_=None) -> None:
        first.disabled, second.disabled = policy.value == "matrix", policy.value != "vector"

    only_what_counts()
    policy.observe(only_what_counts, names="value")
    alpha = w.FloatLogSlider(1.0, base=10, min=-1, max=1, step=0.05, description="α of Beta(α, α)",
                             readout_format=".2g", **WIDE)
    return Explorer(drawings.playground, dict(policy=policy, alpha=alpha, first_weight=first, second_weight=second))


def partner_explorer(batch: explore.Batch, k: int = 5) -> Explorer:
    """Pick a sentence of a batch and K; see its nearest and farthest partners and what they say (notebook 02)."""
    cosines, places = selection.similarities(batch.hidden).numpy(), explore.plane(batch.hidden)
    most = max(1, (len(batch.texts) - 1) // 2)
    return Explorer(lambda sentence, k: drawings.partners(batch, places, cosines, sentence, k), {
        "sentence": w.IntSlider(0, min=0, max=len(batch.texts) - 1, description="sentence", **WIDE),
        "k": w.IntSlider(min(k, most), min=1, max=most, description="K", **WIDE)})


def policy_explorer(snapshots: Sequence[explore.Snapshot]) -> Explorer:
    """Which dimensions mix how much, from the first step to the last (notebook 03)."""
    steps = w.SelectionSlider(options=[s.step for s in snapshots], value=snapshots[-1].step,
                              description="training step", **WIDE)
    return Explorer(lambda step: drawings.policies(snapshots, step), {"step": steps})


def tsne_explorer(pictures: dict[tuple, np.ndarray], groups: Sequence[str], texts: Sequence[str],
                  looks: dict | None = None) -> Explorer:
    """t-SNE pictures ``{(perplexity, seed): [n, 2]}`` of the same sentences side by side in time (notebook 06)."""
    perplexities, seeds = (sorted({key[place] for key in pictures}) for place in (0, 1))
    return Explorer(lambda perplexity, seed: drawings.clouds(
        pictures[perplexity, seed], groups, texts, f"t-SNE, perplexity {perplexity:g}, seed {seed}", looks), {
        "perplexity": w.SelectionSlider(options=perplexities, description="perplexity", **WIDE),
        "seed": w.SelectionSlider(options=seeds, description="random start", **WIDE)})


def sentence_figure(classifier: DNMClassifier, known: explore.Batch, text: str, near: int = 6) -> go.Figure:
    """One sentence's score for each class and its ``near`` most similar training sentences."""
    cosines = torch.cosine_similarity(known.hidden, classifier.hidden([text]))
    found = torch.topk(cosines, min(near, len(cosines)))
    names = [f"[{known.label_names[known.labels[i]]}] {known.texts[i]}" for i in found.indices.tolist()]
    return drawings.sentence(classifier.scores([text])[0], classifier.label_names, found.values.numpy(), names, text,
                             "cosine" if classifier.config_.row.embeds_labels else "score")


def sentence_box(classifier: DNMClassifier, known: explore.Batch, text: str) -> Explorer:
    """Type a sentence: its cosine to each class and the nearest training sentences (notebooks 03 and 07)."""
    box = w.Text(text, description="your sentence", style=_NAMED, layout=w.Layout(width=f"{WIDTH - 10}px"))
    return Explorer(lambda sentence: sentence_figure(classifier, known, sentence if sentence.strip() else text),
                    {"sentence": box})


class LiveTraining(Explorer):
    """A run, with its curve, that starts and stops at a click and goes on from its checkpoint (notebook 04)."""

    def __init__(self, config: RunConfig, store: RunStore | None = None):
        self.config, self.store, self.status, self.thread = config, store or RunStore.open(), None, None
        self.start = w.Button(description="Start", button_style="primary")
        self.stop = w.Button(description="Stop", disabled=True)
        self.line, self.asked = w.HTML("<em>press Start</em>"), threading.Event()
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.asked.set())
        super().__init__(self._picture, {}, [w.HBox([self.start, self.stop, self.line])])

    def _picture(self) -> go.Figure:
        history = self.status.histories.get(self.config, []) if self.status else []
        return drawings.so_far([row for row in history if row["step"]], self.config.title, self.config.steps)

    def begin(self) -> None:
        """Train in the background, so that the notebook stays usable."""
        if not self.start.disabled:
            self.asked.clear()
            self.start.disabled, self.stop.disabled = True, False
            self.thread = threading.Thread(target=self._train, daemon=True)
            self.thread.start()

    def _train(self) -> None:
        try:
            run_all([self.config], self.store, workers=1, on_status=self._show, stop=self.asked)
        except Interrupted as stopped:
            self.line.value = html.escape(str(stopped).replace("run the same command again", "press Start"))
        except Exception as error:  # a thread's error would otherwise be lost
            self.line.value = html.escape(f"error: {reason(error)}")
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def _show(self, status: Status) -> None:
        drawn, self.status = self.status and len(self.figure.data[0].x or ()), status
        self.line.value = html.escape(status.line)
        if status.config is None or drawn != len(status.histories.get(self.config, ())):
            self.redraw()


live_training = LiveTraining  # called as the other widgets are
