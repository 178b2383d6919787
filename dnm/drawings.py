"""Pictures of the method: what it mixes, with whom, and what comes of it; data in, `plotly` figure out.

A drawing keeps the number and kind of its traces whatever its arguments, so `dnm.widgets` can move one in place
and `with_slider` can turn it into a figure that moves without Python. Taught in notebooks 00 to 03, 06 and 07.
"""

import html
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.stats import beta

from dnm.plots import PALETTE, SYMBOLS, titled
from dnm.selection import partners_each

BLUE, ORANGE, GREEN, PINK, GREY = *PALETTE[:4], "#8a8f98"


def with_slider(draw: Callable[..., go.Figure], name: str, values: Sequence, active: int = 0, **fixed) -> go.Figure:
    """``draw(name=value, **fixed)`` for each value as one figure with a slider, which needs no Python to move."""
    drawn = [draw(**{name: value}, **fixed) for value in values]
    figure, shown = drawn[active], drawn[active].to_plotly_json()["data"]
    frames = []
    for value, other in zip(values, drawn, strict=True):
        changed = [{"type": new["type"], **{key: new[key] for key in new if not _same(new[key], old.get(key))}}
                   for old, new in zip(shown, other.to_plotly_json()["data"], strict=True)]
        moved = {axis: dict(range=ends) for axis, ends in axis_ranges(other).items()}
        frames.append(go.Frame(name=str(value), data=changed, layout=dict(title_text=other.layout.title.text, **moved)))
    figure.frames = frames
    step = dict(mode="immediate", frame=dict(duration=0, redraw=True), transition=dict(duration=0))
    slider = dict(active=active, currentvalue=dict(prefix=f"{name.replace('_', ' ')}: "), pad=dict(t=95),
                  steps=[dict(method="animate", label=str(value), args=[[str(value)], step]) for value in values])
    return figure.update_layout(sliders=[slider], height=figure.layout.height + 120,
                                margin_b=figure.layout.margin.b + 110)


def axis_ranges(figure: go.Figure) -> dict[str, tuple]:
    """The ranges of the axes that have a fixed one, by the axis's name in the layout."""
    axes = {name: figure.layout[name] for name in figure.layout if name.startswith(("xaxis", "yaxis"))}
    return {name: axis.range for name, axis in axes.items() if axis.range is not None}


def _same(new, old) -> bool:
    if isinstance(new, dict) and isinstance(old, dict):
        return new.keys() == old.keys() and all(_same(new[key], old[key]) for key in new)
    return np.array_equal(np.asarray(new, dtype=object), np.asarray(old, dtype=object))


def short(text: str, width: int = 60) -> str:
    """A sentence for a figure: cut to ``width`` characters and escaped."""
    return html.escape(text if len(text) <= width else text[:width - 1].rstrip() + "…")


def wrapped(text: str, width: int = 70) -> str:
    """A sentence for a hover box: escaped, in lines of ``width`` characters."""
    return "<br>".join(html.escape(line) for line in textwrap.wrap(text, width))


# ---------------------------------------------------------------- notebook 00: the paper's Figure 1

def architecture() -> go.Figure:
    """The method from sentences to loss: the paper's Figure 1, drawn anew with the equations' numbers."""
    figure = go.Figure()
    boxes = {  # name: (centre x, centre y, width, height, colour, text)
        "batch": (1.0, 2.5, 1.5, 1.3, GREY, "<b>batch</b><br>N sentences<br>labels y"),
        "encoder": (3.1, 2.5, 1.5, 1.3, GREY, "<b>encoder</b><br>BERT, MiniLM,<br>CNN, LSTM"),
        "hidden": (5.2, 2.5, 1.6, 1.3, GREY, "<b>hidden states</b><br>h: [N, d]"),
        "select": (7.6, 4.1, 2.1, 1.3, BLUE, "<b>select partners</b><br>§3.2: K nearest and<br>K farthest by cosine"),
        "inputs": (7.6, 2.5, 2.1, 1.1, ORANGE, "<b>mix inputs</b>, Eq. 2<br>v̂₁∘hᵢ + v̂₂∘hⱼ"),
        "labels": (7.6, 0.8, 2.1, 1.3, GREEN, "<b>mix labels</b>, Eq. 3<br>Φ̂ᵢ∘mᵢ + Φ̂ⱼ∘mⱼ<br>Φ from v̂∘h and W"),
        "predict": (10.4, 2.5, 1.7, 1.1, GREY, "<b>predict</b>, Eq. 4<br>m̃ = fc(hᵢⱼ)"),
        "embedding": (5.0, 0.8, 1.9, 1.1, GREEN, "<b>label embeddings</b><br>M: [c, d], learned"),
        "loss": (12.8, 1.65, 1.9, 1.3, PINK, "<b>loss</b>, Eqs. 5, 6<br>mean of<br>(1 − cos(m̃, m̂))²"),
    }
    arrows = [("batch", "encoder"), ("encoder", "hidden"), ("hidden", "select"), ("hidden", "inputs"),
              ("select", "inputs"), ("inputs", "labels"), ("embedding", "labels"), ("inputs", "predict"),
              ("predict", "loss"), ("labels", "loss")]
    for x, y, width, height, colour, text in boxes.values():
        figure.add_shape(type="rect", x0=x - width / 2, x1=x + width / 2, y0=y - height / 2, y1=y + height / 2,
                         line=dict(color=colour, width=2), fillcolor=colour, opacity=0.16)
        figure.add_annotation(x=x, y=y, text=text, showarrow=False, font_size=11)
    for start, end in arrows:
        (x0, y0), (x1, y1) = _edge(boxes[start], boxes[end]), _edge(boxes[end], boxes[start])
        figure.add_annotation(x=x1, y=y1, ax=x0, ay=y0, xref="x", yref="y", axref="x", ayref="y", text="",
                              arrowhead=2, arrowsize=1.3, arrowwidth=1.6, arrowcolor="#444444")
    figure.add_annotation(x=10.4, y=4.1, showarrow=False, align="left", font_size=11, text=(
        "only in training: nothing is<br>mixed at test time, where the<br>class is argmax cos(fc(h), M)"))
    figure.add_scatter(x=[0, 14], y=[0, 5], mode="markers", marker_opacity=0, hoverinfo="skip", showlegend=False)
    figure.update_xaxes(visible=False, range=[0.1, 13.9]).update_yaxes(visible=False, range=[0, 5])
    return titled(figure, "Dynamic nonlinear mixup, from sentences to loss", 440, l=10, r=10, t=60, b=10)


def _edge(box: tuple, other: tuple) -> tuple[float, float]:
    """Where the line between two boxes' centres leaves the first."""
    (x, y, width, height), (dx, dy) = box[:4], (other[0] - box[0], other[1] - box[1])
    scale = min(width / 2 / abs(dx) if dx else np.inf, height / 2 / abs(dy) if dy else np.inf)
    return x + dx * scale, y + dy * scale


# ---------------------------------------------------------------- notebook 01: the mixup playground

_WORDS = np.random.default_rng(5).normal(size=(2, 6, 2)) * 1.1 + np.array([[[-1.2, -0.6]], [[1.2, 0.7]]])
_CHANCES = np.random.default_rng(6).random((400, 6, 2))  # fixed, so that the cloud moves smoothly with alpha


def playground(policy: str = "scalar", alpha: float = 1.0, first_weight: float = 0.7,
               second_weight: float = 0.3) -> go.Figure:
    """Two sentences of six words in two dimensions, and where their mixtures lie (Eq. 1).

    ``first_weight`` is lambda; the policy ``vector`` has ``second_weight`` for the second dimension. The cloud
    shows 400 weights drawn from Beta(alpha, alpha); for ``matrix`` every word and dimension has its own.
    """
    words, ends = _WORDS, _WORDS.mean(axis=1)
    drawn = beta.ppf(_CHANCES, alpha, alpha)
    shown = {"scalar": drawn[:, :1, :1], "vector": drawn[:, :1], "matrix": drawn}[policy]
    cloud = (shown * words[0] + (1 - shown) * words[1]).mean(axis=1)
    chosen = np.array([first_weight, first_weight if policy == "scalar" else second_weight])
    point = cloud[0] if policy == "matrix" else chosen * ends[0] + (1 - chosen) * ends[1]
    x, y = ends.T
    reach = {"scalar": (x, y), "vector": (x[[0, 1, 1, 0, 0]], y[[0, 0, 1, 1, 0]]), "matrix": _box(words)}[policy]
    grid = np.linspace(0.005, 0.995, 120)
    density = beta.pdf(grid, alpha, alpha)
    figure = make_subplots(1, 2, column_widths=[0.66, 0.34], horizontal_spacing=0.09, subplot_titles=(
        "two sentences and their mixtures", "density of Beta(α, α)"))
    figure.add_scatter(x=reach[0], y=reach[1], mode="lines", name="what can be reached", line=dict(color=GREY, width=3),
                       fill="toself", fillcolor="rgba(138,143,152,0.12)", hoverinfo="skip", row=1, col=1)
    figure.add_scatter(x=cloud[:, 0], y=cloud[:, 1], mode="markers", name="drawn from Beta(α, α)",
                       marker=dict(color=GREEN, size=5, opacity=0.45), row=1, col=1)
    figure.add_scatter(x=words[..., 0].ravel(), y=words[..., 1].ravel(), mode="markers", name="their words",
                       marker=dict(color=[BLUE] * 6 + [ORANGE] * 6, size=7, symbol="circle-open"), row=1, col=1)
    figure.add_scatter(x=x, y=y, mode="markers+text", text=["i", "j"], name="sentences",
                       textposition=["bottom center", "top center"], textfont_size=17,
                       marker=dict(color=[BLUE, ORANGE], size=15), row=1, col=1)
    figure.add_scatter(x=point[:1], y=point[1:], mode="markers", name="this mixture",
                       marker=dict(color="#000000", size=18, symbol="star"), row=1, col=1)
    figure.add_scatter(x=grid, y=density, mode="lines", line=dict(color=GREEN, width=3), showlegend=False, row=1, col=2)
    at = np.array([first_weight] if policy == "scalar" else [first_weight, second_weight] if policy == "vector" else [])
    figure.add_scatter(x=at, y=np.interp(at, grid, density), mode="markers", showlegend=False,
                       marker=dict(color="#000000", size=13, symbol="star"), row=1, col=2)
    figure.update_xaxes(range=[-2.9, 2.9], title_text="dimension 1", row=1, col=1)
    figure.update_yaxes(range=[-2.2, 2.2], title_text="dimension 2", row=1, col=1)
    figure.update_xaxes(range=[0, 1], title_text="weight λ of sentence i", row=1, col=2)
    figure.update_yaxes(range=[0, 4], row=1, col=2)
    reached = {"scalar": "one λ reaches a segment", "vector": "one λ a dimension reaches a box",
               "matrix": "one λ a word and dimension reaches a larger box, but draws gather in a cloud"}[policy]
    figure.update_layout(legend=dict(orientation="h", y=-0.18))
    return titled(figure, f"{policy}: {reached} (α = {alpha:g})", 470, t=90)


def _box(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outline of all means of word vectors of which each lies between its pair."""
    (x0, y0), (x1, y1) = words.min(axis=0).mean(axis=0), words.max(axis=0).mean(axis=0)
    return np.array([x0, x1, x1, x0, x0]), np.array([y0, y0, y1, y1, y0])


# ---------------------------------------------------------------- notebook 02: partners

def partners(batch, places: np.ndarray, cosines: np.ndarray, sentence: int = 0, k: int = 5) -> go.Figure:
    """One sentence of a batch, its K nearest and K farthest: where they lie, how similar they are, what they say.

    ``places`` ``[N, 2]`` is the batch in the plane, ``cosines`` ``[N, N]`` its similarities.
    """
    order = np.argsort(-cosines[sentence], kind="stable")
    order = np.concatenate([[sentence], order[order != sentence]])
    k = partners_each(len(order), k)
    role = np.full(len(order), "not chosen")
    role[-k:], role[1:k + 1], role[0] = "farthest", "nearest", "itself"
    colours = {"itself": "#000000", "nearest": BLUE, "not chosen": "#c9cdd3", "farthest": ORANGE}
    colour = [colours[name] for name in role]
    names = [batch.label_names[label] for label in batch.labels[order]]
    hover = [f"{r}, {html.escape(n)}, cosine {cosines[sentence, i]:.2f}<br>{wrapped(batch.texts[i])}"
             for i, r, n in zip(order, role, names, strict=True)]
    figure = make_subplots(1, 2, column_widths=[0.34, 0.66], horizontal_spacing=0.03, subplot_titles=(
        "the batch in the plane of its two<br>main directions (symbol: label)", "by cosine to the chosen sentence"))
    links = np.stack([np.repeat(places[sentence][None], len(order), 0), places[order],
                      np.full((len(order), 2), np.nan)], axis=1)
    links[role == "not chosen"] = np.nan
    figure.add_scatter(x=links[..., 0].ravel(), y=links[..., 1].ravel(), mode="lines", hoverinfo="skip",
                       line=dict(color="#9aa0a8", width=1), row=1, col=1)
    figure.add_scatter(x=places[order, 0], y=places[order, 1], mode="markers", text=hover, row=1, col=1,
                       hovertemplate="%{text}<extra></extra>",
                       marker=dict(color=colour, size=np.where(role == "itself", 18, 11),
                                   symbol=[SYMBOLS[label % len(SYMBOLS)] for label in batch.labels[order]]))
    said = [f"{short(batch.texts[i], 38)} <b>[{short(n, 12)}]</b>" for i, n in zip(order, names, strict=True)]
    _bars(figure, cosines[sentence, order].astype(float), said, hover, colour, col=2)
    figure.update_xaxes(showticklabels=False, row=1, col=1).update_yaxes(showticklabels=False, row=1, col=1)
    shared = np.mean([batch.labels[i] == batch.labels[sentence] for i in order[role != "itself"][:k]])
    title = (f"K = {k}: <span style='color:{BLUE}'>nearest</span> and <span style='color:{ORANGE}'>farthest</span> "
             f"partners of sentence {sentence}; {shared:.0%} of the nearest share its label")
    return titled(figure.update_layout(showlegend=False), title, 220 + 17 * len(order), l=20, t=110)


def _bars(figure: go.Figure, values: np.ndarray, said: list[str], hover: list[str], colour, col: int) -> None:
    """Bars with a sentence before each: as text, not tick labels, which belong to the layout and stay behind."""
    low, at = min(0.0, float(values.min())), np.arange(len(values))
    figure.add_bar(x=values, y=at, orientation="h", marker_color=colour, text=[f"{value:.2f}" for value in values],
                   textposition="outside", textfont_size=11, customdata=hover, showlegend=False,
                   hovertemplate="%{customdata}<extra></extra>", row=1, col=col)
    figure.add_scatter(x=np.full(len(at), low - 0.02), y=at, text=said, mode="text", textposition="middle left",
                       hoverinfo="skip", showlegend=False, textfont=dict(size=11), row=1, col=col)
    figure.update_yaxes(autorange="reversed", showticklabels=False, showgrid=False, zeroline=False, row=1, col=col)
    figure.update_xaxes(range=[low - 1.75, 1.12], tickvals=[-0.5, 0, 0.5, 1], zeroline=True, row=1, col=col)


def cosine_matrix(batch, cosines: np.ndarray) -> go.Figure:
    """The cosine similarities ``[N, N]`` of a batch, sentences in the order of their labels."""
    order = np.argsort(batch.labels, kind="stable")
    names = [f"{i}: {short(batch.texts[i], 36)}" for i in order]
    hover = [[f"{a}<br>{b}" for b in names] for a in names]
    figure = go.Figure(go.Heatmap(z=cosines[np.ix_(order, order)].round(3), text=hover, colorscale="Cividis",
                                  colorbar_title="cosine", hovertemplate="%{text}<br>cosine %{z:.2f}<extra></extra>"))
    for border in np.flatnonzero(np.diff(batch.labels[order])) + 0.5:
        figure.add_hline(y=border, line=dict(color="white", width=3))
        figure.add_vline(x=border, line=dict(color="white", width=3))
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=names, autorange="reversed", tickfont_size=11)
    figure.update_xaxes(title_text="the same sentences (white lines: borders between classes)",
                        tickvals=list(range(len(order))), ticktext=[str(i) for i in order], tickangle=0)
    return titled(figure, "How alike are the sentences of one batch?", 600, l=250, t=80)


def clouds(places: np.ndarray, groups: Sequence[str], texts: Sequence[str], title: str,
           looks: dict[str, tuple[str, str]] | None = None) -> go.Figure:
    """Points ``[n, 2]`` by group, for t-SNE and projections; hovering shows the sentence."""
    figure, names = go.Figure(), list(dict.fromkeys(groups))
    groups, texts = np.asarray(groups), np.asarray(texts, dtype=object)
    for number, name in enumerate(sorted(names, key=lambda n: list(looks).index(n)) if looks else names):
        colour, symbol = looks[name] if looks else (PALETTE[number % len(PALETTE)], SYMBOLS[number % len(SYMBOLS)])
        mine = groups == name
        figure.add_scatter(x=places[mine, 0].round(3), y=places[mine, 1].round(3), mode="markers",
                             name=html.escape(str(name)), text=[wrapped(text) for text in texts[mine]],
                             marker=dict(color=colour, symbol=symbol, size=14 if symbol == "star" else 7, opacity=0.7),
                             hovertemplate="%{text}<extra>%{fullData.name}</extra>")
    figure.update_xaxes(showticklabels=False, zeroline=False).update_yaxes(showticklabels=False, zeroline=False,
                                                                              scaleanchor="x")
    return titled(figure.update_layout(legend=dict(orientation="h", y=-0.06)), title, 560, l=30, t=90)


# ---------------------------------------------------------------- notebook 03: policies over time

def policies(snapshots: Sequence, step: int | None = None) -> go.Figure:
    """DNM's input weights, dimension by dimension, and both weights' distribution at one of the recorded steps."""
    now = next((s for s in snapshots if s.step == step), snapshots[-1])
    start, moved = snapshots[0].input_weight, now.input_weight - snapshots[0].input_weight
    most = max(1e-4, *(np.abs(s.input_weight - start).max() for s in snapshots))
    centres, inputs = np.linspace(0.0125, 0.9875, 40), np.histogram(now.input_weight, 40, (0, 1))[0] / len(start)
    figure = make_subplots(1, 2, column_widths=[0.6, 0.4], horizontal_spacing=0.1, subplot_titles=(
        "each dimension's input weight (Eq. 2)", "how the weights are distributed"))
    figure.add_scatter(x=start.round(4), y=moved.round(5), mode="markers", name="a dimension",
                       text=[f"dimension {i}: {a:.3f} at the start, {b:.3f} now"
                             for i, (a, b) in enumerate(zip(start, now.input_weight, strict=True))],
                       hovertemplate="%{text}<extra></extra>", row=1, col=1,
                       marker=dict(color=ORANGE, size=5, opacity=0.6))
    for shares, name, colour in ((inputs, "input", ORANGE), (now.label_shares, "label", GREEN)):
        figure.add_scatter(x=centres, y=shares.round(4), mode="lines", fill="tozeroy", row=1, col=2,
                           line=dict(color=colour, width=3, shape="hvh"), name=f"{name} weights")
    figure.update_yaxes(range=[-1.05 * most, 1.05 * most], title_text="moved since the start", row=1, col=1)
    figure.update_xaxes(title_text="weight of sentence i at the start", range=[0, 1], row=1, col=1)
    figure.update_xaxes(title_text="weight of sentence i", range=[0, 1], row=1, col=2)
    figure.update_yaxes(title_text="share of the weights", rangemode="tozero", row=1, col=2)
    size = np.abs(moved)
    title = (f"step {now.step}: input weights moved by {size.mean():.4f} on average, {size.max():.4f} at most; "
             f"label weights spread {now.label_spread:.3f}")
    return titled(figure.update_layout(legend=dict(orientation="h", y=-0.2)), title, 450, t=90)


# ---------------------------------------------------------------- notebooks 04 and 07: training, sentences

def so_far(history: Sequence[dict], what: str, steps: int, step: int | None = None) -> go.Figure:
    """Training loss and validation accuracy of one run up to ``step``."""
    rows = [row for row in history if step is None or row["step"] <= step]
    at = [row["step"] for row in rows]
    figure = make_subplots(1, 2, horizontal_spacing=0.12, subplot_titles=("training loss", "validation accuracy (%)"))
    for col, (key, factor) in enumerate((("train_loss", 1), ("validation_accuracy", 100)), start=1):
        figure.add_scatter(x=at, y=[factor * row[key] for row in rows], mode="lines+markers", showlegend=False,
                           line=dict(color=PALETTE[col - 1], width=3), row=1, col=col)
        figure.update_xaxes(title_text="training step", range=[0, steps * 1.03], row=1, col=col)
    figure.update_yaxes(rangemode="tozero", row=1, col=1).update_yaxes(range=[0, 102], row=1, col=2)
    accuracy = f", validation accuracy {rows[-1]['validation_accuracy']:.1%}" if rows else ""
    return titled(figure, f"{html.escape(what)}: step {at[-1] if at else 0} of {steps}{accuracy}", 370, t=90)


def sentence(scores: np.ndarray, label_names: Sequence[str], cosines: np.ndarray, near: Sequence[str],
             text: str, kind: str = "cosine") -> go.Figure:
    """Class scores ``[c]`` of one sentence and its nearest training sentences with their cosines ``[n]``."""
    figure = make_subplots(1, 2, column_widths=[0.3, 0.7], horizontal_spacing=0.03, subplot_titles=(
        f"{kind} to each class", "nearest training sentences (cosine)"))
    best = int(np.argmax(scores))
    figure.add_bar(x=np.asarray(scores), y=np.arange(len(scores)), orientation="h", row=1, col=1, showlegend=False,
                   marker_color=[ORANGE if i == best else GREY for i in range(len(scores))], textposition="outside",
                   text=[f"{score:.3f}" for score in scores])
    said, hover = [short(other, 46) for other in near], [wrapped(other) for other in near]
    _bars(figure, np.asarray(cosines, dtype=float), said, hover, BLUE, col=2)
    figure.update_yaxes(tickvals=list(range(len(scores))), ticktext=[short(n, 20) for n in label_names],
                        autorange="reversed", row=1, col=1)
    low, high = (-1.0, 1.0) if kind == "cosine" else (min(0.0, float(scores.min())), max(0.0, float(scores.max())))
    room = 0.25 * (high - low or 1)  # for the numbers at the ends of the bars
    figure.update_xaxes(range=[low - room, high + room], row=1, col=1)
    title = f"“{short(text, 70)}” → <b>{short(str(label_names[best]), 30)}</b>"
    return titled(figure, title, 200 + 28 * max(len(near), len(scores)), l=110, t=100)


def panels(figures: Sequence[go.Figure], titles: Sequence[str], title: str) -> go.Figure:
    """Several `clouds` in one row, with one legend."""
    whole, seen = make_subplots(1, len(figures), subplot_titles=titles, horizontal_spacing=0.04), set()
    for col, figure in enumerate(figures, start=1):
        for trace in figure.data:
            trace.update(legendgroup=trace.name, showlegend=trace.name not in seen)
            seen.add(trace.name)
            whole.add_trace(trace, row=1, col=col)
    whole.update_xaxes(showticklabels=False, zeroline=False).update_yaxes(showticklabels=False, zeroline=False)
    whole.update_layout(legend=dict(orientation="h", y=-0.05))
    return titled(whole, title, 480, l=30, t=140)
