"""Pictures of results. Those of runs take a frame of `dnm.runs.results`; a mean stands with its standard error."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dnm.methods import METHODS
from dnm.plots import plain
from dnm.plots.look import DASHES, PALETTE, SYMBOLS, by_title, number, short, standard_error, style, titled, wrapped

_RULE = dict(line=dict(color="#555555", dash="dash"))


def learning_curves(runs) -> go.Figure:
    """Training loss (a panel for each kind of loss) and accuracies over steps: mean over seeds, band ± its error."""
    trained, panels = runs[[history[0]["step"] > 0 for history in runs.history]], {}  # without steps: no curve
    for loss in ("cross-entropy", "cosine"):
        mine = trained[[METHODS[method].loss == loss for method in trained.method]]
        panels |= {f"Training loss ({loss})": ("train_loss", mine)} if len(mine) else {}
    panels |= {"Validation accuracy": ("validation_accuracy", trained), "Test accuracy": ("test_accuracy", trained)}
    figure, rows = _curves(panels, 0.2, named=len(panels) - 1), -(-len(panels) // 2)
    if (ceiling := runs.ceiling.iloc[0]) > 0:
        figure.add_hline(y=ceiling, **_RULE, annotation_text=f"best possible {ceiling:.1f}%", row=rows,
                         annotation_position="bottom right", col=2 - len(panels) % 2)
    return titled(figure, _heading("Learning curves", runs), 200 + 320 * rows, legend=-0.12)


def regularisation(runs) -> go.Figure:
    """Training loss and test accuracy by data set (the paper's Figure 2): mean over seeds, band ± standard error."""
    data = {short(name, 22): runs[runs.data == name] for name in dict.fromkeys(runs.data)}
    figure = _curves({f"{name}: {what}": (key, mine) for name, mine in data.items() for what, key in (
        ("training loss", "train_loss"), ("test accuracy", "test_accuracy"))}, 0.32 / len(data), named=0)
    return titled(figure.update_yaxes(rangemode="tozero", col=1), _heading(
        "Training loss and test accuracy (Figure 2)", runs), 220 + 300 * len(data), legend=-0.28 / len(data), b=90)


def _curves(panels: dict[str, tuple], spacing: float, named: int) -> go.Figure:
    """A panel for each title: one key of the histories of the runs beside it; panel ``named`` has the legend."""
    figure = make_subplots(-(-len(panels) // 2), 2, subplot_titles=list(panels), horizontal_spacing=0.1,
                           vertical_spacing=spacing)
    for panel, (key, runs) in enumerate(panels.values()):
        place = dict(row=panel // 2 + 1, col=panel % 2 + 1)
        figure.update_xaxes(title_text="training step", rangemode="tozero", **place)
        figure.update_yaxes(title_text="loss" if "loss" in key else "accuracy (%)", **place)
        for title, mine in by_title(runs):
            steps, (colour, dash) = [row["step"] for row in mine.history.iloc[0]], style(mine.method.iloc[0])
            values = np.array([[row[key] for row in history] for history in mine.history])
            values = values if "loss" in key else 100 * values
            mean, error = values.mean(axis=0), standard_error(values)
            if len(values) > 1:
                figure.add_scatter(x=[*steps, *steps[::-1]], y=[*(mean + error), *(mean - error)[::-1]], fill="toself",
                                   fillcolor=colour, opacity=0.15, mode="lines", line_width=0, hoverinfo="skip",
                                   showlegend=False, legendgroup=title, **place)
            figure.add_scatter(x=steps, y=mean, mode="lines+markers", line=dict(color=colour, dash=dash, width=2.5),
                               name=plain.figure(title), legendgroup=title, showlegend=panel == named, **place)
    return figure


def accuracies(runs) -> go.Figure:
    """Test accuracy of each method: every seed a dot, the mean with its standard error, the ceiling a line."""
    figure = _dots(by_title(runs), lambda run: f"seed {run.seed}", standard_error)
    if (ceiling := runs.ceiling.iloc[0]) > 0:
        figure.add_vline(x=ceiling, **_RULE, annotation_text=f"best possible {ceiling:.1f}%",
                         annotation_position="bottom left")
    figure.update_xaxes(title_text="test accuracy (%)<br>dots: seeds; diamonds: mean ± standard error")
    return titled(figure, _heading("Test accuracy", runs), 220 + 62 * runs.title.nunique(), l=190, b=80)


def folds(fits, name: str) -> go.Figure:
    """Accuracy of each method in a cross-validation (`dnm.study.compare`): every fold a dot, the mean a diamond."""
    figure = _dots(fits.groupby("title", sort=False), lambda fit: f"repeat {fit.repeat + 1}, fold {fit.fold + 1}")
    figure.update_xaxes(title_text="accuracy on the fold set aside (%)<br>dots: folds; diamonds: means")
    heading = wrapped(f"Which method for {name}? {fits.groupby('title').size().min()} folds", 95, 2)
    return titled(figure, heading, 220 + 62 * fits.title.nunique(), l=190, b=80)


def _dots(groups, told: Callable[..., str], error: Callable[..., float] = lambda values: np.nan) -> go.Figure:
    """The ``accuracy`` of each group's rows as dots, hovering `told`, above their mean with its ``error``."""
    figure, groups = go.Figure(), [*groups]
    for place, (title, mine) in enumerate(groups):
        values, colour = mine.accuracy.to_numpy(), style(mine.method.iloc[0])[0]
        mean, reach, spread = values.mean(), error(values), 0.06 * (len(values) > 1)
        figure.add_scatter(x=values, y=place + 0.22 + np.linspace(-spread, spread, len(values)), mode="markers",
                           marker=dict(color=colour, size=7, opacity=0.45), text=[*map(told, mine.itertuples())],
                           hovertemplate="%{text}: %{x:.1f}%<extra></extra>")
        figure.add_scatter(x=[mean], y=[place], mode="markers+text", text=[number(mean, reach)],
                           marker=dict(color=colour, size=13, symbol="diamond"), textposition="top center",
                           error_x=dict(array=[reach], color=colour, thickness=2), name=plain.figure(title),
                           hovertemplate="%{fullData.name}: %{x:.1f}%<extra></extra>")
    return _down(figure.update_traces(showlegend=False), [title for title, _ in groups], -0.7, showgrid=False,
                 zeroline=False)


def beside_paper(frame) -> go.Figure:
    """Differences to full DNM in points, the paper's and ours, for a frame of `dnm.study.beside` of one table."""
    data, others = list(dict.fromkeys(frame.dataset)), frame[frame.method != "dnm"]
    titles = list(dict.fromkeys(others.title))
    figure = make_subplots(1, len(data), subplot_titles=[*map(short, data)], shared_yaxes=True, horizontal_spacing=0.04)
    for col, name in enumerate(data, start=1):
        mine = others[others.dataset == name]
        for who, gap, colour, symbol, shift in (("paper", "paper_gap", PALETTE[6], "diamond-open", -0.13),
                                                ("ours", "gap", PALETTE[1], "circle", 0.13)):
            figure.add_scatter(x=mine[gap], y=[titles.index(t) + shift for t in mine.title], row=1, col=col, name=who,
                               mode="markers", marker=dict(color=colour, size=11, symbol=symbol), legendgroup=who,
                               showlegend=col == 1, error_x=dict(array=mine[f"{gap}_error"], thickness=2),
                               hovertemplate="%{x:+.1f} points<extra>" + who + "</extra>")
    _down(figure.add_vline(x=0, **_RULE), titles, zeroline=False)
    heading = (f"Table {frame.table.iloc[0]}: what each change costs (n = {frame.n_train.iloc[0]})<br>"
               "<sub>points to full DNM ± their standard error</sub>")
    return titled(figure, heading, 230 + 45 * len(titles), legend=-0.12, l=150, t=100)


def verdicts(table) -> go.Figure:
    """Ours with 95% intervals and the paper's difference for each comparison of a `dnm.study.claims.verdicts` table."""
    looks = {"holds": (PALETTE[0], "circle"), "does not hold": (PALETTE[1], "x"),
             "cannot be told": ("#767676", "circle-open")}
    shown, figure = table[table.verdict != "not run"], go.Figure()
    parts = list(shown.part)
    figure.add_scatter(x=shown.paper, y=list(range(len(parts))), mode="markers", name="the paper's difference",
                       marker=dict(symbol="diamond", color=PALETTE[6], size=9))
    for verdict, mine in shown.groupby("verdict", sort=False):
        (colour, symbol), ours = looks[verdict], pd.DataFrame(map(vars, mine.ours))
        figure.add_scatter(x=ours["mean"], y=[parts.index(part) + 0.25 for part in mine.part], mode="markers",
                           name=f"ours: {verdict}", marker=dict(symbol=symbol, color=colour, size=10),
                           hovertemplate="%{x:+.1f} points<extra></extra>", error_x=dict(
                               array=ours.high - ours["mean"], arrayminus=ours["mean"] - ours.low, thickness=2))
    _down(figure.add_vline(x=0, **_RULE), parts).update_layout(legend_yanchor="bottom")
    figure.update_xaxes(title_text="mean paired difference, points (bar: 95% interval)")
    heading = (f"The paper's claims, tested<br><sub>{wrapped(table.setting.iloc[0], 120, 2)}<br>A bar is for one "
               f"comparison alone; of {len(parts)}, some may miss zero by chance. One that does is<br>still “cannot be "
               "told” where its p value, after Holm's correction for all of them, is 0.05 or more.</sub>")
    title = dict(text=heading, y=1, yref="container", yanchor="top", pad=dict(t=24))
    return titled(figure, title, 275 + 32 * len(parts), legend=1.0, l=340, t=180, b=60)


def by_labels(rows) -> go.Figure | None:
    """Accuracy over the number of labelled sentences, a panel a data set, of an encoder's rows of `dnm.study.beside`.

    Ours with their standard errors, in lines where settings are the same; the paper's thin and open. None where no data
    set has two sizes.
    """
    several = rows.groupby("dataset", sort=False).n_train.nunique()
    if not len(data := list(several[several > 1].index)):
        return None
    heading = (f"Accuracy by number of labels, {plain.figure(rows.encoder.iloc[0])}<br><sub>thick: ours ± standard "
               "error, joined where steps, rates and precision are the same; thin, open: the paper's</sub>")
    sizes = sorted(set(rows.n_train), key=lambda n: float(n.replace("all", "inf")))
    figure = _panels([*map(short, data)], "accuracy (%)", 340, heading, [f"n = {n}" for n in sizes])
    named, titles, told = set(), [title for title, _ in by_title(rows)], "n = %{text}: %{y:.1f}%<extra>%{fullData.name}"
    for place, name in enumerate(data):
        for title, every in by_title(rows[rows.dataset == name]):
            (colour, dash), shift = style(every.method.iloc[0]), 0.07 * (titles.index(title) - (len(titles) - 1) / 2)
            look = dict(name=plain.figure(title), legendgroup=title, mode="lines+markers", row=place // 2 + 1,
                        col=place % 2 + 1)
            for _, mine in every.groupby(["profile", "device"], sort=False):
                figure.add_scatter(x=mine.n_train.map(sizes.index) + shift, y=mine.ours, text=mine.n_train, **look,
                                   error_y=dict(array=mine.error), hovertemplate=f"{told}</extra>", marker_size=8,
                                   line=dict(color=colour, dash=dash, width=2.5), showlegend=title not in named)
                named.add(title)
            figure.add_scatter(x=every.n_train.map(sizes.index), y=every.paper, text=every.n_train, **look, opacity=0.5,
                               hovertemplate=f"{told}, the paper's</extra>", showlegend=False,
                               line=dict(color=colour, dash=dash, width=1), marker=dict(size=8, symbol="diamond-open"))
    return figure


def gains(table) -> go.Figure:
    """What one system is ahead of another by labels and steps, for `dnm.study.claims.ahead`; a panel a comparison.

    The mean over the data sets with its 95% interval, each data set's mean, the paper's.
    """
    pairs, names = list(dict.fromkeys(table.pair)), list(dict.fromkeys(n for each in table.each for n in each))
    heading = "Who is ahead, by labels and, below, steps<br><sub>above 0: the first named; bars: 95% intervals</sub>"
    labels = list(dict.fromkeys(table["where"]))
    figure = _panels([wrapped(pair, 52) for pair in pairs], "points", 250, heading,
                     [where.replace(" labels, ", "<br>").removesuffix(" steps") for where in labels])
    named, told = set(), "%{text}: %{y:+.1f} points<extra>%{fullData.name}</extra>"
    for place, pair in enumerate(pairs):
        mine = table[table.pair == pair]
        ours = pd.DataFrame(map(vars, mine.ours))
        bars = dict(array=ours.high - ours["mean"], arrayminus=ours["mean"] - ours.low, thickness=2)
        looks = [("the paper's", mine.paper, dict(color=PALETTE[6], symbol="diamond", size=8), None)]
        looks += [(short(name), [each.get(name) for each in mine.each], dict(
            color="#767676", symbol=f"{SYMBOLS[i % len(SYMBOLS)]}-open", size=8), None) for i, name in enumerate(names)]
        looks.append(("ours, over the data sets", ours["mean"], dict(color=PALETTE[0], size=11), bars))
        for name, values, marker, error in looks:
            figure.add_scatter(x=mine["where"].map(labels.index), y=values, text=mine["where"], name=name,
                               legendgroup=name, showlegend=name not in named, mode="markers", marker=marker,
                               error_y=error, row=place // 2 + 1, col=place % 2 + 1, hovertemplate=told)
            named.add(name)
    return figure.update_xaxes(tickfont_size=12, tickangle=0).add_hline(y=0, **_RULE)


def _panels(titles: list[str], y_title: str, height: int, heading: str, labels: list[str]) -> go.Figure:
    """Two panels a row, each ``height`` pixels; ``labels`` stand at 0, 1, … of the x axis."""
    rows = -(-len(titles) // 2)
    figure = make_subplots(rows, 2, subplot_titles=titles, horizontal_spacing=0.1, vertical_spacing=0.3 / rows)
    figure.update_xaxes(tickvals=[*range(len(labels))], ticktext=labels, range=[-0.5, len(labels) - 0.5])
    figure.update_yaxes(title_text=y_title)
    return titled(figure, heading, 230 + height * rows, legend=-0.32 / rows, t=110, b=90)


def lines(x: Sequence, series: dict[str, Sequence], title: str, x_title: str, y_title: str) -> go.Figure:
    """One line for each entry of ``series``, told apart by markers and dashes as well as by colour."""
    figure, methods = go.Figure(), {row.title: row.name for row in METHODS.values()}
    for place, (name, y) in enumerate(series.items()):
        looks = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
        colour, dash = style(methods[name]) if name in methods else looks
        figure.add_scatter(x=list(x), y=np.asarray(y, dtype=float).round(4), mode="lines+markers",
                           line=dict(color=colour, dash=dash, width=2.5), name=short(name, 45),
                           marker=dict(symbol=SYMBOLS[place % len(SYMBOLS)], size=8))
    figure.update_xaxes(title_text=x_title).update_yaxes(title_text=y_title)
    return titled(figure, wrapped(title, 95, 2), 430, legend=-0.22, t=80)


def confusion(matrix: np.ndarray, labels: list[str], title: str) -> go.Figure:
    """A confusion matrix ``[c, c]`` of counts (rows: true class), shaded by the share of the true class."""
    shares, names = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), [plain.figure(str(n)) for n in labels]
    cell = "{:.0f}<br>{:.0%}" if len(labels) <= 12 else ""  # of more one can only see the colours
    text = [[cell.format(*both) for both in zip(*row, strict=True)] for row in zip(matrix, shares, strict=True)]
    figure = go.Figure(go.Heatmap(z=shares, x=names, y=names, text=text, texttemplate="%{text}", zmin=0, zmax=1,
                                  colorscale="Cividis_r", colorbar=dict(title="share", tickformat=".0%"),
                                  hovertemplate="true %{y}, predicted %{x}: %{z:.1%}<extra></extra>"))
    ticks = dict(type="category", tickvals=names, ticktext=[short(str(n), 22) for n in labels])
    figure.update_yaxes(ticks, autorange="reversed", title_text="true class")
    figure.update_xaxes(ticks, title_text="predicted class")
    return titled(figure, wrapped(title, 60, 2), min(360 + 35 * len(labels), 800), min(480 + 45 * len(labels), 820))


def _down(figure: go.Figure, names: list[str], top: float = -0.6, **axis) -> go.Figure:
    """Names down the y axis, the first on top."""
    names = [wrapped(name, 46) for name in names]
    return figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.4, top], **axis)


def _heading(what: str, runs) -> dict:
    """A title that names data, size, encoder, profile and device."""
    first, counts = runs.iloc[0], runs.groupby(["data", "title"]).seed.nunique()
    least, seeds = int(counts.min()), int(counts.max())
    about = (f"{', '.join(dict.fromkeys(runs.data))}, n = {first.n_train}, {first.encoder}, profile {first.profile}, "
             f"{f'{least} to ' * (least < seeds)}{seeds} seed{'s' * (seeds > 1)}, {first.device}, {first.precision}")
    return dict(text=f"{what}<br><sub>{wrapped(about, 125)}</sub>", y=1, yref="container", yanchor="top", pad_t=24)
