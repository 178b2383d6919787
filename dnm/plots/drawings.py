"""Pictures of the method: what it mixes, with whom, and what comes of it; data in, `plotly` figure out.

A drawing keeps the number and kind of its traces whatever its arguments, so that `dnm.notebook.widgets` can move one in
place and `with_slider` can make a figure that moves without Python. Taught in notebooks 00 to 03, 06 and 07.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from plotly.utils import PlotlyJSONEncoder
from scipy.stats import beta

from dnm.plots import plain
from dnm.plots.look import PALETTE, SYMBOLS, short, titled, wrapped
from dnm.selection import partners_each

BLUE, ORANGE, GREEN, PINK, GREY = *PALETTE[:4], "#8a8f98"
LEFT, RIGHT = dict(row=1, col=1), dict(row=1, col=2)
_text = partial(json.dumps, cls=PlotlyJSONEncoder)  # of a part of a figure
_BARE = dict(showticklabels=False, zeroline=False, range=[-1.08, 1.08])  # of `clouds`, whose numbers mean nothing


def _row(panels: dict[str, float], spacing: float) -> go.Figure:
    """Panels side by side: their titles (a blank is none), and which shares of the width they have."""
    return make_subplots(1, len(panels), column_widths=list(panels.values()), horizontal_spacing=spacing,
                         subplot_titles=list(panels)).update_annotations(font_size=14)


def with_slider(draw: Callable[..., go.Figure], name: str, values: Sequence, active: int = 0, **fixed) -> go.Figure:
    """``draw(name=value, **fixed)`` for each value as one figure with a slider, which needs no Python to move."""
    drawn = [draw(**{name: value}, **fixed) for value in values]
    figure, parts = drawn[active], [picture.to_plotly_json()["data"] for picture in drawn]
    ranges = [axis_ranges(picture) for picture in drawn]  # one that never differs stays as Plotly has fitted it
    moving = [axis for axis, ends in ranges[0].items() if any(theirs[axis] != ends for theirs in ranges)]
    figure.frames = [go.Frame(  # with what differs from the first picture only
        name=str(value), layout=dict(title_text=other.layout.title.text, **{
            axis: dict(range=other.layout[axis].range) for axis in moving}),
        data=[{key: new[key] for key in new if key == "type" or _text(new[key]) != _text(old.get(key))}
              for old, new in zip(parts[active], theirs, strict=True)])
        for value, other, theirs in zip(values, drawn, parts, strict=True)]
    step = dict(mode="immediate", frame=dict(duration=0, redraw=True), transition=dict(duration=0))
    below = 95 if figure.layout.legend.orientation else 45  # names stand there
    slider = dict(active=active, currentvalue=dict(prefix=f"{name.replace('_', ' ')}: "), pad=dict(t=below),
                  steps=[dict(method="animate", label=plain.figure(v), args=[[v], step]) for v in map(str, values)])
    return figure.update_layout(sliders=[slider], height=figure.layout.height + below + 10,
                                margin_b=figure.layout.margin.b + below)


def axis_ranges(figure: go.Figure) -> dict[str, tuple]:
    """The ranges of the axes that have a fixed one, by the axis's name in the layout."""
    axes = {name: figure.layout[name] for name in figure.layout if name.startswith(("xaxis", "yaxis"))}
    return {name: axis.range for name, axis in axes.items() if axis.range is not None}


def architecture() -> go.Figure:
    """The method from sentences to loss: the paper's Figure 1, drawn anew with the equations' numbers."""
    def edge(box: tuple, other: tuple) -> tuple[float, float]:  # where the line between their centres leaves the first
        (x, y, width, height), (dx, dy) = box[:4], (other[0] - box[0], other[1] - box[1])
        scale = min(width / 2 / abs(dx) if dx else np.inf, height / 2 / abs(dy) if dy else np.inf)
        return x + dx * scale, y + dy * scale

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
    arrows = ("batch>encoder encoder>hidden hidden>select hidden>inputs select>inputs inputs>labels embedding>labels "
              "inputs>predict predict>loss labels>loss")
    for x, y, width, height, colour, text in boxes.values():
        figure.add_shape(type="rect", x0=x - width / 2, x1=x + width / 2, y0=y - height / 2, y1=y + height / 2,
                         line=dict(color=colour, width=2), fillcolor=colour, opacity=0.16)
        figure.add_annotation(x=x, y=y, text=text, showarrow=False, font_size=11)
    for start, end in (arrow.split(">") for arrow in arrows.split()):
        (x0, y0), (x1, y1) = edge(boxes[start], boxes[end]), edge(boxes[end], boxes[start])
        figure.add_annotation(x=x1, y=y1, ax=x0, ay=y0, xref="x", yref="y", axref="x", ayref="y", text="",
                              arrowhead=2, arrowsize=1.3, arrowwidth=1.6, arrowcolor="#444444")
    figure.add_annotation(x=10.4, y=4.1, showarrow=False, align="left", font_size=11, text=(
        "only in training: nothing is<br>mixed at test time, where the<br>class is argmax cos(fc(h), M)"))
    figure.add_scatter(x=[0, 14], y=[0, 5], mode="markers", marker_opacity=0, hoverinfo="skip", showlegend=False)
    figure.update_xaxes(visible=False, range=[0.1, 13.9]).update_yaxes(visible=False, range=[0, 5])
    return titled(figure, "Dynamic nonlinear mixup, from sentences to loss", 440, l=10, r=10, t=60, b=10)


_WORDS = np.random.default_rng(5).normal(size=(2, 6, 2)) * 1.1 + np.array([[[-1.2, -0.6]], [[1.2, 0.7]]])
_CHANCES = np.random.default_rng(6).random((400, 6, 2))  # fixed, so that the cloud moves smoothly with alpha


def playground(policy: str = "scalar", alpha: float = 1.0, first_weight: float = 0.7,
               second_weight: float = 0.3) -> go.Figure:
    """Two sentences of six words in two dimensions, and where they mix (Eq. 1) by 400 weights ~ Beta(alpha, alpha)."""
    def box(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return np.array([low, [high[0], low[1]], high, [low[0], high[1]], low]).T

    words, ends, drawn = _WORDS, _WORDS.mean(axis=1), beta.ppf(_CHANCES, alpha, alpha)
    weights, at, reach, reached = {
        "scalar": (drawn[:, :1, :1], [first_weight], ends.T, "one λ reaches a segment"),
        "vector": (drawn[:, :1], [first_weight, second_weight], box(*ends), "one λ a dimension reaches a box"),
        "matrix": (drawn, [], box(words.min(axis=0).mean(axis=0), words.max(axis=0).mean(axis=0)),
                   "one λ a word and dimension reaches a larger box, but draws gather in a cloud")}[policy]
    cloud = (weights * words[0] + (1 - weights) * words[1]).mean(axis=1)
    point = np.array(at) * ends[0] + (1 - np.array(at)) * ends[1] if at else cloud[0]
    grid = np.linspace(0.005, 0.995, 120)
    density, star = beta.pdf(grid, alpha, alpha), dict(color="#000000", symbol="star")
    figure = _row({"two sentences and their mixtures": 0.66, "density of Beta(α, α)": 0.34}, 0.09)
    figure.add_scatter(x=reach[0], y=reach[1], mode="lines", name="what can be reached", line=dict(color=GREY, width=3),
                       fill="toself", fillcolor="rgba(138,143,152,0.12)", hoverinfo="skip", **LEFT)
    figure.add_scatter(x=cloud[:, 0], y=cloud[:, 1], mode="markers", name="drawn from Beta(α, α)",
                       marker=dict(color=GREEN, size=5, opacity=0.45), **LEFT)
    figure.add_scatter(x=words[..., 0].ravel(), y=words[..., 1].ravel(), mode="markers", name="their words",
                       marker=dict(color=[BLUE] * 6 + [ORANGE] * 6, size=7, symbol="circle-open"), **LEFT)
    figure.add_scatter(x=ends[:, 0], y=ends[:, 1], mode="markers+text", text=["i", "j"], name="sentences",
                       textposition=["middle left", "middle right"], textfont_size=17,
                       marker=dict(color=[BLUE, ORANGE], size=15), **LEFT)
    figure.add_scatter(x=point[:1], y=point[1:], mode="markers", marker=star, marker_size=18, name="this mixture",
                       **LEFT)
    figure.add_scatter(x=grid, y=density, mode="lines", line=dict(color=GREEN, width=3), showlegend=False, **RIGHT)
    figure.add_scatter(x=np.array(at), y=np.interp(at, grid, density), mode="markers", marker=star, marker_size=13,
                       showlegend=False, **RIGHT)
    figure.update_xaxes(range=[-2.9, 2.9], title_text="dimension 1", **LEFT)
    figure.update_yaxes(range=[-2.2, 2.2], title_text="dimension 2", **LEFT)
    figure.update_xaxes(range=[0, 1], title_text="weight λ of sentence i", **RIGHT).update_yaxes(range=[0, 4], **RIGHT)
    return titled(figure, f"{policy}: {reached} (α = {alpha:.2g})", 440, legend=-0.19, t=80)


def partners(batch, places: np.ndarray, cosines: np.ndarray, sentence: int = 0, k: int = 5) -> go.Figure:
    """One sentence, its K nearest and K farthest of a batch: places ``[N, 2]``, cosines ``[N, N]``, what they say."""
    order = np.argsort(-cosines[sentence], kind="stable")
    order = np.concatenate([[sentence], order[order != sentence]])
    k, role, labels = partners_each(len(order), k), np.full(len(order), "not chosen"), batch.labels[order]
    role[-k:], role[1:k + 1], role[0] = "farthest", "nearest", "itself"
    colours = {"itself": "#000000", "nearest": BLUE, "not chosen": "#c9cdd3", "farthest": ORANGE}
    colour, names = np.array([colours[name] for name in role]), [batch.label_names[label] for label in labels]
    hover = [f"{r}, {plain.figure(n)}, cosine {cosines[sentence, i]:.2f}<br>{wrapped(batch.texts[i])}"
             for i, r, n in zip(order, role, names, strict=True)]
    figure = _row({"the batch (symbol: label)": 0.28,
                   "cosine to the chosen sentence, and what its partners say": 0.6, "": 0.12}, 0.01)
    links, chosen = np.full((len(order), 3, 2), np.nan), role != "not chosen"
    links[chosen, 0], links[chosen, 1], shared = places[sentence], places[order[chosen]], np.mean(
        labels[1:k + 1] == labels[0])
    figure.add_scatter(x=links[..., 0].ravel(), y=links[..., 1].ravel(), mode="lines", hoverinfo="skip",
                       line=dict(color="#9aa0a8", width=1), **LEFT)
    figure.add_scatter(x=places[order, 0], y=places[order, 1], mode="markers", text=hover, **LEFT,
                       hovertemplate="%{text}<extra></extra>",
                       marker=dict(color=colour, size=np.where(role == "itself", 18, 11),
                                   symbol=[SYMBOLS[label % len(SYMBOLS)] for label in labels]))
    few = min(k, 13)  # more cannot be read in one picture
    listed = np.unique(np.r_[:few + 1, len(order) - few:len(order)])
    said = [f"[{names[i][:20]}] {batch.texts[order[i]]}" for i in listed]
    _bars(figure, 2, cosines[sentence, order[listed]].astype(float), said, [hover[i] for i in listed], colour[listed],
          (float(cosines.min()), 1.0), 390, 86)
    figure.update_xaxes(showticklabels=False, **LEFT).update_yaxes(showticklabels=False, **LEFT)
    title = (f"K = {k}: <span style='color:{BLUE}'>nearest</span> and <span style='color:{ORANGE}'>farthest</span> "
             f"partners of sentence {sentence}; {shared:.0%} of the nearest share its label")
    return titled(figure.update_layout(showlegend=False), title, 500, l=20, r=20, t=80, b=30)


def _bars(figure: go.Figure, col: int, values: np.ndarray, said: list[str], hover: list[str], colour,
          ends: tuple[float, float], tall: int, wide: int) -> None:
    """Bars in the panel behind ``col``, which says of each its number and text in lines of ``wide`` characters.

    A text has a panel of its own: tick labels belong to the layout and would not move, and what stands at the ends of
    bars is clipped there. ``tall`` is the panels' height in pixels, of which a line takes 14.
    """
    slots, words, bars = max(5, len(values)), dict(row=1, col=col), dict(row=1, col=col + 1)
    numbers, at = [f"{value:z.3f}".replace("-", "−") for value in values], np.arange(len(values))
    lines = [wrapped(f"{number} {text}", wide, max(1, tall // slots // 14)).replace(number, f"<b>{number}</b>", 1)
             for number, text in zip(numbers, said, strict=True)]
    figure.add_bar(x=values, y=at, orientation="h", marker_color=colour, customdata=hover, showlegend=False, width=0.6,
                   hovertemplate="%{customdata}<extra></extra>", **bars)
    figure.add_scatter(x=np.zeros(len(at)), y=at, text=lines, mode="text", textposition="middle right",
                       hoverinfo="skip", showlegend=False, textfont_size=11, **words)
    for panel in (words, bars):
        figure.update_yaxes(range=[slots - 0.5, -0.5], visible=False, **panel)
    figure.update_xaxes(visible=False, range=[0, 1], **words)
    figure.update_xaxes(range=[1.05 * min(0, ends[0]), 1.05 * max(0, ends[1])], nticks=4, tickfont_size=11, **bars)


def cosine_matrix(batch, cosines: np.ndarray) -> go.Figure:
    """The cosine similarities ``[N, N]`` of a batch, sentences in the order of their labels."""
    order = np.argsort(batch.labels, kind="stable")
    names, at = [wrapped(f"{i}: {batch.texts[i]}", 46, 2) for i in order], list(range(len(order)))
    figure = go.Figure(go.Heatmap(z=cosines[np.ix_(order, order)].round(3), colorscale="Cividis",
                                  text=[[f"{a}<br>{b}" for b in names] for a in names], colorbar_title="cosine",
                                  hovertemplate="%{text}<br>cosine %{z:.2f}<extra></extra>"))
    for border in np.flatnonzero(np.diff(batch.labels[order])) + 0.5:
        for line in (figure.add_hline, figure.add_vline):
            line(border, line=dict(color="white", width=3))
    told = len(at) <= 30  # the texts of more do not find room: hovering shows them
    figure.update_yaxes(tickvals=at, ticktext=names, autorange="reversed", tickfont_size=10, showticklabels=told)
    figure.update_xaxes(title_text="the same sentences (white lines: borders between classes)", tickvals=at,
                        ticktext=[str(i) for i in order], tickangle=0, tickfont_size=11, showticklabels=told)
    return titled(figure, "How alike are the sentences of one batch?", 680, l=260 if told else 70, r=10, t=80)


def clouds(places: np.ndarray, groups: Sequence[str], texts: Sequence[str], title: str,
           looks: dict[str, tuple[str, str]] | None = None) -> go.Figure:
    """Points ``[n, 2]`` by group, for t-SNE and projections, each picture as large as fits; hovering shows the text."""
    figure, names = go.Figure(), list(dict.fromkeys(groups))
    groups, texts = np.asarray(groups), np.asarray(texts, dtype=object)
    places = (2 * places - places.min(axis=0) - places.max(axis=0)) / (np.ptp(places, axis=0).max() or 1)
    for number, name in enumerate(sorted(names, key=list(looks).index) if looks else names):
        colour, symbol = looks[name] if looks else (PALETTE[number % len(PALETTE)], SYMBOLS[number % len(SYMBOLS)])
        x, y = places[groups == name].round(3).T
        figure.add_scatter(x=x, y=y, mode="markers", name=short(str(name), 30), legendgroup=str(name),
                           text=[wrapped(text) for text in texts[groups == name]],
                           marker=dict(color=colour, symbol=symbol, size=14 if symbol == "star" else 7, opacity=0.7),
                           hovertemplate="%{text}<extra>%{fullData.name}</extra>")
    figure.update_xaxes(_BARE).update_yaxes(_BARE, scaleanchor="x")
    return titled(figure, title, 490, legend=-0.05, l=30, t=70)


def panels(figures: Sequence[go.Figure], titles: Sequence[str], title: str) -> go.Figure:
    """Several `clouds`, three in a row, with one legend."""
    columns, rows = min(3, len(figures)), -(-len(figures) // 3)
    titles = ["<br>".join(wrapped(line, 34) for line in title.split("<br>")) for title in titles]
    whole = make_subplots(rows, columns, subplot_titles=titles, horizontal_spacing=0.04, vertical_spacing=0.24 / rows)
    for place, figure in enumerate(figures):
        for trace in figure.data:
            named = trace.legendgroup in {other.legendgroup for other in whole.data}
            whole.add_trace(trace.update(showlegend=not named), row=place // 3 + 1, col=place % 3 + 1)
    whole.update_xaxes(_BARE).update_yaxes(_BARE).update_annotations(font_size=13)
    return titled(whole, title, 180 + 300 * rows, legend=-0.05, l=30, t=140)


def policies(snapshots: Sequence, step: int | None = None) -> go.Figure:
    """DNM's input weights, dimension by dimension, and both weights' distribution at one of the recorded steps."""
    now, start = next((s for s in snapshots if s.step == step), snapshots[-1]), snapshots[0].input_weight
    moved, most = now.input_weight - start, max(1e-4, *(np.abs(s.input_weight - start).max() for s in snapshots))
    inputs, size = [np.histogram(s.input_weight, 40, (0, 1))[0] / len(start) for s in (now, *snapshots)], np.abs(moved)
    high = max(map(np.max, (*inputs, *(s.label_shares for s in snapshots))))
    figure = _row({"each dimension's input weight (Eq. 2)": 0.6, "how the weights are distributed": 0.4}, 0.1)
    figure.add_scatter(x=start.round(4), y=moved.round(5), mode="markers", name="a dimension",
                       text=[f"dimension {i}: {a:.3f} at the start, {b:.3f} now"
                             for i, (a, b) in enumerate(zip(start, now.input_weight, strict=True))],
                       hovertemplate="%{text}<extra></extra>", marker=dict(color=ORANGE, size=5, opacity=0.6), **LEFT)
    for shares, name, colour in ((inputs[0], "input", ORANGE), (now.label_shares, "label", GREEN)):
        figure.add_scatter(x=np.linspace(0.0125, 0.9875, 40), y=shares.round(4), mode="lines", fill="tozeroy",
                           line=dict(color=colour, width=3, shape="hvh"), name=f"{name} weights", **RIGHT)
    figure.update_yaxes(range=[-1.05 * most, 1.05 * most], title_text="moved since the start", **LEFT)
    figure.update_xaxes(title_text="weight of sentence i at the start", range=[0, 1], **LEFT)
    figure.update_xaxes(title_text="weight of sentence i", range=[0, 1], **RIGHT)
    figure.update_yaxes(title_text="share of the weights", range=[0, 1.05 * high], **RIGHT)
    title = (f"step {now.step}: input weights moved by {size.mean():.4f} on average (at most {size.max():.4f}),<br>"
             f"label weights spread {now.label_spread:.3f}")
    return titled(figure, title, 450, legend=-0.2, t=90)


def so_far(history: Sequence[dict], what: str, steps: int, step: int | None = None) -> go.Figure:
    """Training loss and validation accuracy of one run up to ``step``."""
    rows = [row for row in history if step is None or row["step"] <= step]
    at, figure = [row["step"] for row in rows], _row({"training loss": 0.5, "validation accuracy (%)": 0.5}, 0.12)
    for place, key, factor, colour in ((LEFT, "train_loss", 1, BLUE), (RIGHT, "validation_accuracy", 100, ORANGE)):
        y = [factor * row.get(key, np.nan) for row in rows]
        figure.add_scatter(x=at, y=y, mode="lines+markers", showlegend=False, line=dict(color=colour, width=3), **place)
    figure.update_xaxes(title_text="training step", range=[0, steps * 1.03])
    figure.update_yaxes(rangemode="tozero", **LEFT).update_yaxes(range=[0, 102], **RIGHT)
    known = rows and "validation_accuracy" in rows[-1]
    accuracy = f", validation accuracy {rows[-1]['validation_accuracy']:.1%}" if known else ""
    return titled(figure, f"{wrapped(what, 60)}: step {at[-1] if at else 0} of {steps}{accuracy}", 370, t=90)


def sentence(scores: np.ndarray, label_names: Sequence[str], cosines: np.ndarray, near: Sequence[str],
             text: str, kind: str = "cosine") -> go.Figure:
    """Class scores ``[c]`` of one sentence and its nearest training sentences with their cosines ``[n]``."""
    figure = _row({f"{kind} to each class": 0.17, "": 0.12, "nearest training sentences (cosine)": 0.59, " ": 0.12},
                  0.01)
    best, names = int(np.argmax(scores)), [str(name) for name in label_names]
    at = np.argsort(-scores, kind="stable")[:10] if len(scores) > 10 else np.arange(len(scores))  # of many the best
    ends = (-1.0, 1.0) if kind == "cosine" else (float(scores.min()), float(scores.max()))
    _bars(figure, 1, np.asarray(scores)[at], [names[i] for i in at], [wrapped(names[i]) for i in at],
          np.where(at == best, ORANGE, GREY), ends, 300, 20)
    _bars(figure, 3, np.asarray(cosines, dtype=float), near, list(map(wrapped, near)), [BLUE] * len(near),
          (float(min(cosines)), 1.0), 300, 86)
    title = f"“{short(text, 60)}” → <b>{short(names[best], 30)}</b>"
    return titled(figure, title, 420, l=20, r=20, t=80, b=40)
