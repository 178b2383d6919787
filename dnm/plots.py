"""Pictures: data in, `plotly` figure out, nothing else. Colours are Okabe and Ito's, safe for the colour-blind."""

import base64
import gzip
import html
import os
import re
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from dnm.methods import METHODS

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B6914")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x")
_CHOSEN = {"plain": 0, "dnm": 1, "senmixup": 2, "wordmixup": 3, "nonlinearmixup": 4, "logreg": 6}
LAYOUT = dict(template="plotly_white", font=dict(size=14, family="Helvetica, Arial, sans-serif"),
              paper_bgcolor="white", plot_bgcolor="white", margin=dict(l=70, r=30, t=120, b=60))


def titled(figure: go.Figure, title: str | dict, height: int, width: int | None = None, **margin) -> go.Figure:
    """The figure in the study's look: titled, ``height`` pixels high, as wide as the page unless ``width`` is set."""
    title = title if isinstance(title, dict) else dict(text=title, font_size=16)
    return figure.update_layout(**LAYOUT, title=title, width=width, height=height).update_layout(margin=margin)


def style(method: str) -> tuple[str, str]:
    """Colour and dash of a method: the same in every figure."""
    place = _CHOSEN.get(method, 5 + list(METHODS).index(method))
    return PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]


def learning_curves(records: list[dict]) -> go.Figure:
    """Training loss, validation accuracy and test accuracy over steps: mean over seeds, band ± standard error.

    Losses are comparable only between methods with the same loss: cross-entropy rows and cosine rows get a
    panel each.
    """
    losses = [loss for loss in ("cross-entropy", "cosine")
              if any(METHODS[r["config"]["method"]].loss == loss and r["history"][0]["step"] for r in records)]
    panels = [*(f"Training loss ({loss})" for loss in losses), "Validation accuracy", "Test accuracy"]
    figure = make_subplots(-(-len(panels) // 2), 2, subplot_titles=panels, horizontal_spacing=0.1,
                           vertical_spacing=0.2)
    for title, runs in by_title(records).items():
        method = runs[0]["config"]["method"]
        steps = [row["step"] for row in runs[0]["history"]]
        if steps == [0]:
            continue  # trained without steps: no curve
        keys = {"train_loss": losses.index(METHODS[method].loss), "validation_accuracy": len(losses),
                "test_accuracy": len(losses) + 1}
        for key, panel in keys.items():
            values = np.array([[row[key] for row in run["history"]] for run in runs])
            values = values * 100 if "accuracy" in key else values
            _band(figure, steps, values, title, style(method), _place(panel), legend=key == "test_accuracy")
    for panel in range(len(panels)):
        figure.update_yaxes(title_text="loss" if panel < len(losses) else "accuracy (%)", **_place(panel))
        figure.update_xaxes(title_text="training step", **_place(panel))
        if panel == len(panels) - 1 and (ceiling := records[0]["data"]["ceiling"]):
            figure.add_hline(y=100 * ceiling, line=dict(color="#555555", dash="dash"), **_place(panel),
                             annotation_text=f"best possible {ceiling:.1%}", annotation_position="bottom right")
    figure.update_layout(legend=dict(orientation="h", y=-0.12))
    return titled(figure, _heading("Learning curves", records), 200 + 320 * -(-len(panels) // 2))


def regularisation(records: list[dict]) -> go.Figure:
    """Training loss and test accuracy by data set (the paper's Figure 2): mean over seeds, band ± standard error."""
    data = list(dict.fromkeys(record["data"]["name"] for record in records))
    titles = [f"{html.escape(name)}: {what}" for name in data for what in ("training loss", "test accuracy")]
    figure = make_subplots(len(data), 2, subplot_titles=titles, horizontal_spacing=0.1,
                           vertical_spacing=0.32 / len(data))
    for row, name in enumerate(data, start=1):
        for title, runs in by_title([record for record in records if record["data"]["name"] == name]).items():
            steps = [entry["step"] for entry in runs[0]["history"]]
            for col, (key, factor) in enumerate((("train_loss", 1), ("test_accuracy", 100)), start=1):
                values = factor * np.array([[entry[key] for entry in run["history"]] for run in runs])
                _band(figure, steps, values, title, style(runs[0]["config"]["method"]), dict(row=row, col=col),
                      legend=row == col == 1)
        figure.update_yaxes(title_text="loss", rangemode="tozero", row=row, col=1)
        figure.update_yaxes(title_text="accuracy (%)", row=row, col=2)
        figure.update_xaxes(title_text="training step", row=row)
    heading = _heading("Training loss and test accuracy (Figure 2)", records)
    figure.update_layout(legend=dict(orientation="h", y=-0.28 / len(data)))
    return titled(figure, heading, 220 + 300 * len(data), b=90)


def beside_paper(frame) -> go.Figure:
    """Differences to full DNM in points, the paper's and ours, for a frame of `dnm.paper.beside` of one table."""
    data, others = list(dict.fromkeys(frame.dataset)), frame[frame.method != "dnm"]
    titles = list(dict.fromkeys(others.title))
    figure = make_subplots(1, len(data), subplot_titles=data, shared_yaxes=True, horizontal_spacing=0.04)
    for col, name in enumerate(data, start=1):
        mine = others[others.dataset == name]
        for who, gap, colour, symbol, shift in (("paper", "paper_gap", PALETTE[6], "diamond-open", -0.13),
                                                ("ours", "gap", PALETTE[1], "circle", 0.13)):
            figure.add_scatter(x=mine[gap], y=[titles.index(t) + shift for t in mine.title], row=1, col=col, name=who,
                               mode="markers", marker=dict(color=colour, size=11, symbol=symbol), legendgroup=who,
                               showlegend=col == 1, error_x=dict(array=mine[f"{gap}_error"], thickness=2),
                               hovertemplate="%{x:+.1f} points<extra>" + who + "</extra>")
        figure.add_vline(x=0, line=dict(color="#555555", dash="dash"), row=1, col=col)
    figure.update_xaxes(title_text="points to full DNM<br>(± its standard error)").update_yaxes(
        tickvals=list(range(len(titles))), ticktext=titles, range=[len(titles) - 0.4, -0.6], zeroline=False)
    figure.update_layout(legend=dict(orientation="h", x=1, xanchor="right", y=1.2))
    return titled(figure, f"Table {frame.table.iloc[0]}: what each change costs (n = {frame.n_train.iloc[0]})",
                  260 + 45 * len(titles), l=150, t=100, b=80)


def verdicts(table) -> go.Figure:
    """Ours with 95% intervals and the paper's difference for each comparison of a `dnm.claims.verdicts` table."""
    looks = {"holds": (PALETTE[0], "circle"), "does not hold": (PALETTE[1], "x"),
             "cannot be told": ("#767676", "circle-open")}
    shown, figure = table[table.verdict != "not run"], go.Figure()
    places = {part: number for number, part in enumerate(shown.part)}
    figure.add_scatter(x=shown.paper, y=list(places.values()), mode="markers", name="the paper's difference",
                       marker=dict(symbol="diamond", color=PALETTE[6], size=9))
    for verdict, mine in shown.groupby("verdict", sort=False):
        colour, symbol = looks[verdict]
        mean, low, high = (np.array([getattr(d, name) for d in mine.ours]) for name in ("mean", "low", "high"))
        figure.add_scatter(x=mean, y=[places[part] + 0.25 for part in mine.part], mode="markers",
                           name=f"ours: {verdict}", marker=dict(symbol=symbol, color=colour, size=10),
                           error_x=dict(array=high - mean, arrayminus=mean - low, thickness=2),
                           hovertemplate="%{x:+.1f} points<extra></extra>")
    figure.add_vline(x=0, line=dict(color="#555555", dash="dash"))
    figure.update_yaxes(tickvals=list(places.values()), ticktext=list(places), range=[len(places) - 0.4, -0.6])
    figure.update_xaxes(title_text="mean paired difference, points (bar: 95% interval)")
    figure.update_layout(legend=dict(orientation="h", y=1.0, yanchor="bottom"))
    heading = f"The paper's claims, tested<br><sub>{html.escape(table.setting.iloc[0])}</sub>"
    return titled(figure, heading, 200 + 32 * len(places), l=300, t=110, b=60)


def lines(x: Sequence, series: dict[str, Sequence], title: str, x_title: str, y_title: str) -> go.Figure:
    """One line for each entry of ``series``, told apart by markers and dashes as well as by colour."""
    figure = go.Figure()
    for number, (name, y) in enumerate(series.items()):
        method = next((row.name for row in METHODS.values() if row.title == name), None)
        colour, dash = style(method) if method else (PALETTE[number % len(PALETTE)], DASHES[number % len(DASHES)])
        line = dict(color=colour, dash=dash, width=2.5)
        figure.add_scatter(x=list(x), y=np.asarray(y, dtype=float).round(4), mode="lines+markers", line=line,
                           name=html.escape(name), marker=dict(symbol=SYMBOLS[number % len(SYMBOLS)], size=8))
    figure.update_xaxes(title_text=x_title).update_yaxes(title_text=y_title)
    return titled(figure.update_layout(legend=dict(orientation="h", y=-0.22)), html.escape(title), 430, t=70)


def accuracies(records: list[dict]) -> go.Figure:
    """Test accuracy of each method: every seed a dot, the mean with its standard error, the ceiling a line."""
    groups = by_title(records)
    figure = go.Figure()
    for place, (title, runs) in enumerate(groups.items()):
        values = 100 * np.array([run["test_accuracy"] for run in runs])
        error = standard_error(values)
        shown = f"{values.mean():.1f}" + (f" ± {error:.1f}" if len(values) > 1 else "")
        colour, seeds = style(runs[0]["config"]["method"])[0], [run["config"]["seed"] for run in runs]
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        figure.add_scatter(x=values, y=place + 0.22 + spread / 2, mode="markers", showlegend=False,
                           marker=dict(color=colour, size=7, opacity=0.45), text=[f"seed {seed}" for seed in seeds],
                           hovertemplate="%{text}: %{x:.1f}%<extra></extra>")
        figure.add_scatter(x=[values.mean()], y=[place], mode="markers+text", showlegend=False,
                           marker=dict(color=colour, size=13, symbol="diamond"), textposition="top center",
                           text=[shown], error_x=dict(array=[error], color=colour, thickness=2),
                           hovertemplate=f"{title}: %{{x:.1f}}%<extra></extra>")
    if ceiling := records[0]["data"]["ceiling"]:
        figure.add_vline(x=100 * ceiling, line=dict(color="#555555", dash="dash"),
                         annotation_text=f"best possible {ceiling:.1%}", annotation_position="bottom left")
    figure.update_yaxes(tickvals=list(range(len(groups))), ticktext=list(groups),
                        range=[len(groups) - 0.4, -0.7], showgrid=False, zeroline=False)
    figure.update_xaxes(title_text="test accuracy (%): seeds (dots), mean ± standard error (diamond)")
    return titled(figure, _heading("Test accuracy", records), 170 + 75 * len(groups), l=190)


def confusion(matrix: np.ndarray, labels: list[str], title: str) -> go.Figure:
    """A confusion matrix ``[c, c]`` of counts (rows: true class), shaded by the share of the true class."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    text = [[f"{count:.0f}<br>{share:.0%}" for count, share in zip(*row, strict=True)]
            for row in zip(matrix, shares, strict=True)]
    names = [html.escape(str(label)) for label in labels]
    figure = go.Figure(go.Heatmap(z=shares, x=names, y=names, text=text, texttemplate="%{text}", zmin=0, zmax=1,
                                  colorscale="Cividis_r", colorbar=dict(title="share", tickformat=".0%"),
                                  hovertemplate="true %{y}, predicted %{x}: %{z:.1%}<extra></extra>"))
    figure.update_yaxes(autorange="reversed", title_text="true class", type="category")
    figure.update_xaxes(title_text="predicted class", type="category")
    return titled(figure, html.escape(title), 360 + 35 * len(labels), 480 + 45 * len(labels))


def live_curves(status) -> go.Figure:
    """The runs so far, drawn while they train; the title tells where the training is."""
    figure, named = go.Figure(), set()
    for position, history in sorted(status.histories.items()):
        title, (colour, dash) = status.configs[position].title, style(status.configs[position].method)
        figure.add_scatter(x=[row["step"] for row in history], y=[100 * row["validation_accuracy"] for row in history],
                           mode="lines+markers", line=dict(color=colour, dash=dash), name=title,
                           legendgroup=title, showlegend=title not in named)
        named.add(title)
    figure.update_xaxes(title_text="training step", range=[0, max(config.steps for config in status.configs) * 1.02])
    figure.update_yaxes(title_text="validation accuracy (%)")
    return figure.update_layout(**LAYOUT, height=360, title=dict(text=html.escape(status.line), font_size=14))


def by_title(records: list[dict]) -> dict[str, list[dict]]:
    """Records grouped by method and its settings, in the order of the table of methods."""
    groups: dict[str, list[dict]] = {}
    order = list(METHODS)
    for record in sorted(records, key=lambda r: (order.index(r["config"]["method"]), r["title"])):
        groups.setdefault(record["title"], []).append(record)
    return groups


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean; not a number for a single run."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def save(figure: go.Figure, path: Path, with_html: bool = True) -> list[Path]:
    """Write ``path``.html, which opens without a network, and ``path``.png where a Chromium is found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page, picture, written = path.with_name(path.name + ".html"), path.with_name(path.name + ".png"), []
    if with_html:
        body = figure.to_html(full_html=False, include_plotlyjs=False, auto_play=False, config={"responsive": True})
        head = f'<meta charset="utf-8"><title>{html.escape(path.name)}</title>'
        text = f"<!DOCTYPE html><html><head>{head}</head><body>{deferred(body)}</body></html>"
        page.write_text(text, encoding="utf-8")
        written.append(page)
    if chromium():
        figure.write_image(picture, width=figure.layout.width or 1000, scale=2)
        written.append(picture)
    return written


def deferred(body: str) -> str:
    """A page's ``body`` with plotly in it, packed: its scripts run once the browser has unpacked the library."""
    packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
    body = re.sub(r'<script(?: type="text/javascript")?>', '<script type="text/plain" class="figure">', body)
    return f"""{body}<script type="text/plain" id="packed">{packed}</script><script>
const bytes = Uint8Array.from(atob(document.getElementById("packed").textContent), c => c.charCodeAt(0));
new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text().then(library => {{
  for (const code of [library, ...[...document.querySelectorAll("script.figure")].map(s => s.textContent)]) {{
    const script = document.createElement("script"); script.text = code; document.body.append(script);
  }}
}});</script>"""


@lru_cache(maxsize=1)
def chromium() -> str | None:
    """The browser that draws PNG files, or None where there is none or it does not draw (said once)."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        print("no Chromium found, so no PNG figures: install one, or set BROWSER_PATH")
        return None
    try:
        go.Figure().to_image(width=50, height=50)
    except Exception as error:  # the browser, its driver or the system can fail in many ways
        print(f"{found} draws no PNG figures ({type(error).__name__}); figures are interactive only")
        return None
    return found


def _band(figure: go.Figure, steps: list[int], values: np.ndarray, title: str, look: tuple, place: dict,
          legend: bool) -> None:
    colour, dash = look
    mean = values.mean(axis=0)
    if len(values) > 1:
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        red, green, blue = (int(colour[i:i + 2], 16) for i in (1, 3, 5))
        figure.add_scatter(x=[*steps, *steps[::-1]], y=[*(mean + error), *(mean - error)[::-1]], fill="toself",
                           fillcolor=f"rgba({red},{green},{blue},0.15)", mode="lines", line_width=0, hoverinfo="skip",
                           showlegend=False, legendgroup=title, **place)
    figure.add_scatter(x=steps, y=mean, mode="lines+markers", line=dict(color=colour, dash=dash, width=2.5),
                       name=title, legendgroup=title, showlegend=legend, **place)


def _place(panel: int) -> dict:
    return {"row": panel // 2 + 1, "col": panel % 2 + 1}


def _heading(what: str, records: list[dict]) -> dict:
    """A title that names data, size, encoder, profile and device."""
    first = records[0]
    seeds = len({record["config"]["seed"] for record in records})
    data = ", ".join(dict.fromkeys(record["data"]["name"] for record in records))
    about = (f"{data}, n = {first['config']['n_train']}, {first['config']['encoder']}, profile "
             f"{first['label']}, {seeds} seed{'s' * (seeds > 1)}, {first['environment']['device']}, "
             f"{first['environment']['precision']}")
    return dict(text=f"{what}<br><sub>{html.escape(about)}</sub>", y=1, yref="container", yanchor="top", pad=dict(t=24))
