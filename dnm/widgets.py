"""Widgets for JupyterLab: controls above a drawing of `dnm.drawings` that moves as they move.

Each can be used alone: ``from dnm.widgets import playground; playground()``; or with a run at hand,
``run = Run(RunConfig.create("smoke", method="dnm")); partner_explorer(Batch.first(run))`` (from `dnm.training`,
`dnm.config` and `dnm.explore`), ``sentence_box(run.classifier(), Batch.first(run), "a sentence")``. Every control
answers the keyboard (Tab to it, then the arrow keys). The same drawings move without Python through
`dnm.drawings.with_slider`.
Taught in notebooks 01 to 04, 06 and 07.
"""

import html
import threading
from collections.abc import Callable, Sequence

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import torch
from plotly.basedatatypes import BasePlotlyType
from torch.nn import functional as F

from dnm import drawings, explore, selection
from dnm.config import RunConfig
from dnm.errors import DnmError
from dnm.models import Classifier
from dnm.runs import Status, run_all
from dnm.store import RunStore
from dnm.training import Interrupted

WIDTH = 820  # fits JupyterLab with its side bar on a screen of 1280 pixels
_NAMED = dict(description_width="130px")
_WIDE = dict(style=_NAMED, layout=w.Layout(width="430px"))


class Explorer(w.VBox):
    """Controls above a figure; whenever one of them changes, ``draw(**values)`` gives the new picture."""

    def __init__(self, draw: Callable[..., go.Figure], controls: dict[str, w.ValueWidget],
                 extra: Sequence[w.Widget] = ()):
        self.draw, self.controls = draw, controls
        first = draw(**self.values)
        self.figure = go.FigureWidget(_plain(first.data), _plain(first.layout) | {"width": WIDTH})
        for control in controls.values():
            control.observe(lambda _: self.redraw(), names="value")
        rows = [w.HBox(list(controls.values()), layout=w.Layout(flex_flow="row wrap"))] if controls else []
        super().__init__([*rows, *extra, self.figure])

    @property
    def values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self) -> None:
        """Move the figure in place; only what differs is sent to the page."""
        new = self.draw(**self.values)
        with self.figure.batch_update():
            for trace, other in zip(self.figure.data, new.data, strict=True):
                trace.update(_plain(other))
            self.figure.layout.title.text = new.layout.title.text
            for axis, ends in drawings.axis_ranges(new).items():
                self.figure.layout[axis].range = ends

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and for pages without a kernel one line of text instead of a list of its parts."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        data["text/plain"] = "A widget: run this notebook in JupyterLab to use it. The next figure needs no kernel."
        return bundle


def _plain(value):
    """A part of a figure with lists for arrays: the page sends arrays back, and ipywidgets cannot compare them."""
    if isinstance(value, BasePlotlyType):
        return _plain(value.to_plotly_json())
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        gaps = value.dtype.kind == "f" and np.isnan(value).any()
        return (np.where(np.isnan(value), None, value) if gaps else value).tolist()  # JSON has no NaN
    return value


def playground() -> Explorer:
    """Two sentences in two dimensions: what a scalar, vector or matrix of weights can reach (notebook 01)."""
    explorer = Explorer(drawings.playground, {
        "policy": w.ToggleButtons(options=explore.POLICIES, description="policy", style=_NAMED),
        "alpha": w.FloatLogSlider(1.0, base=10, min=-1, max=1, step=0.05, description="α of Beta(α, α)", **_WIDE),
        "first_weight": w.FloatSlider(0.7, min=0, max=1, step=0.02, description="λ (dimension 1)", **_WIDE),
        "second_weight": w.FloatSlider(0.3, min=0, max=1, step=0.02, description="λ (dimension 2)", disabled=True,
                                       **_WIDE)})

    def only_what_counts(_) -> None:
        policy, controls = explorer.values["policy"], explorer.controls
        controls["first_weight"].disabled, controls["second_weight"].disabled = policy == "matrix", policy != "vector"

    explorer.controls["policy"].observe(only_what_counts, names="value")
    return explorer


def partner_explorer(batch: explore.Batch, k: int = 5) -> Explorer:
    """Pick a sentence of a batch and K; see its nearest and farthest partners and what they say (notebook 02)."""
    cosines, places = selection.similarities(batch.hidden).numpy(), explore.plane(batch.hidden)
    most = max(1, (len(batch.texts) - 1) // 2)
    return Explorer(lambda sentence, k: drawings.partners(batch, places, cosines, sentence, k), {
        "sentence": w.IntSlider(0, min=0, max=len(batch.texts) - 1, description="sentence", **_WIDE),
        "k": w.IntSlider(min(k, most), min=1, max=most, description="K", **_WIDE)})


def policy_explorer(snapshots: Sequence[explore.Snapshot]) -> Explorer:
    """Which dimensions mix how much, from the first step to the last (notebook 03)."""
    steps = w.SelectionSlider(options=[s.step for s in snapshots], description="training step", **_WIDE)
    return Explorer(lambda step: drawings.policies(snapshots, step), {"step": steps})


def tsne_explorer(pictures: dict[tuple, np.ndarray], groups: Sequence[str], texts: Sequence[str],
                  looks: dict | None = None) -> Explorer:
    """t-SNE pictures ``{(perplexity, seed): [n, 2]}`` of the same sentences side by side in time (notebook 06)."""
    perplexities, seeds = (sorted({key[place] for key in pictures}) for place in (0, 1))

    def draw(perplexity: float, seed: int) -> go.Figure:
        title = f"t-SNE, perplexity {perplexity:g}, seed {seed}"
        return drawings.clouds(pictures[perplexity, seed], groups, texts, title, looks)

    return Explorer(draw, {
        "perplexity": w.SelectionSlider(options=perplexities, description="perplexity", **_WIDE),
        "seed": w.SelectionSlider(options=seeds, description="random start", **_WIDE)})


def sentence_figure(classifier: Classifier, known: explore.Batch, text: str, near: int = 6) -> go.Figure:
    """One sentence's score for each class and its ``near`` most similar training sentences."""
    hidden = classifier.hidden([text])
    cosines = F.normalize(known.hidden, dim=-1) @ F.normalize(hidden, dim=-1)[0]
    found = torch.topk(cosines, min(near, len(cosines)))
    head = classifier.model.head
    with torch.no_grad():
        scores = head.scores(hidden.to(next(head.parameters()).device))[0].cpu().numpy()
    names = [f"[{known.label_names[known.labels[i]]}] {known.texts[i]}" for i in found.indices.tolist()]
    return drawings.sentence(scores, classifier.label_names, found.values.numpy(), names, text,
                             "cosine" if head.method.loss == "cosine" else "score")


def sentence_box(classifier: Classifier, known: explore.Batch, text: str) -> Explorer:
    """Type a sentence: its cosine to each class and the nearest training sentences (notebooks 03 and 07)."""
    box = w.Text(text, description="your sentence", continuous_update=True, style=_NAMED,
                 layout=w.Layout(width="900px"))

    def draw(sentence: str) -> go.Figure:
        return sentence_figure(classifier, known, sentence if sentence.strip() else text)

    return Explorer(draw, {"sentence": box})


class LiveTraining(Explorer):
    """A run that starts and stops at a click; stopped, it goes on from its checkpoint (notebook 04)."""

    def __init__(self, config: RunConfig, store: RunStore | None = None):
        self.config, self.store, self.status = config, store or RunStore.open(), None
        self.start = w.Button(description="Start", button_style="primary")
        self.stop = w.Button(description="Stop", disabled=True)
        self.line = w.HTML("<em>press Start</em>")
        self.asked, self.thread = threading.Event(), None
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.asked.set())
        super().__init__(self._picture, {}, [w.HBox([self.start, self.stop, self.line])])

    def _picture(self) -> go.Figure:
        history = self.status.histories.get(0, []) if self.status else []
        return drawings.so_far([row for row in history if row["step"]], self.config.title, self.config.steps)

    def begin(self) -> None:
        """Train in the background, so that the notebook stays usable."""
        if self.thread and self.thread.is_alive():
            return
        self.asked.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.thread = threading.Thread(target=self._train, daemon=True)
        self.thread.start()

    def _train(self) -> None:
        try:
            run_all([self.config], self.store, on_status=self._show, stop=self.asked)
        except Interrupted as stopped:
            self._say(str(stopped).replace("run the same command again", "press Start"))
        except DnmError as error:
            self._say(f"error: {error}")
        except Exception as error:  # a thread's error would otherwise be lost
            self._say(f"error: {type(error).__name__}: {error}")
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def _say(self, text: str) -> None:
        self.line.value = html.escape(text)

    def _show(self, status: Status) -> None:
        new = self.status is None or status.row is not self.status.row or status.config is None
        self.status = status
        self._say(status.line)
        if new or len(self.figure.data[0].x or ()) != len(status.histories.get(0, ())):
            self.redraw()


def live_training(config: RunConfig, store: RunStore | None = None) -> LiveTraining:
    """A training run with a Start and a Stop button and its curves growing (notebook 04)."""
    return LiveTraining(config, store)
