"""The picture of the ablation lab: a row's seeds beside full DNM's, and their differences. Taught in notebook 05."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dnm.plots.look import PALETTE, number, standard_error, titled, wrapped


def trial(title: str, setting: str, full: np.ndarray, chosen: np.ndarray, gap) -> go.Figure:
    """Accuracies of full DNM and of a row by seed, in percent (none: not known yet), and what a pair differs by.

    ``gap`` is their `dnm.study.statistics.Difference`. There are always six traces, as in `dnm.plots.drawings`.
    """
    figure = make_subplots(1, 2, column_widths=[0.6, 0.4], horizontal_spacing=0.05, subplot_titles=[
        "test accuracy (%): seeds, mean ± standard error", "points to full DNM: pairs, 95% interval"])
    figure.update_annotations(font_size=13)
    gaps, reach = chosen - full if gap.pairs else np.array([]), (gap.mean - gap.low, gap.high - gap.mean)
    for values, place, colour, col in ((full, 0, 1, 1), (chosen, 1, 0, 1), (gaps, 0.5, 6, 2)):
        mean, error = ([values.mean()], standard_error(values)) if len(values) else ([], np.nan)
        low, high = reach if col == 2 else (error, error)
        panel, look = dict(row=1, col=col), dict(color=PALETTE[colour])
        figure.add_scatter(x=values, y=place + 0.24 + np.linspace(-0.06, 0.06, len(values)), mode="markers", **panel,
                           marker=dict(size=7, opacity=0.45, **look), hovertemplate="%{x:.1f}<extra></extra>")
        figure.add_scatter(x=mean, y=[place] * len(mean), mode="markers+text", textposition="top center", **panel,
                           text=[f"{value:+.1f}" if col == 2 else number(value, error) for value in mean],
                           marker=dict(size=13, symbol="diamond", **look), hoverinfo="skip",
                           error_x=dict(array=[high], arrayminus=[low], symmetric=False, thickness=2, **look))
    shown = np.r_[full, chosen, [0, 100] * (not len(full))]
    widest = 1.1 * np.nanmax([1, *abs(gaps), -gap.low, gap.high])
    figure.update_xaxes(range=[shown.min() - 1, shown.max() + 1], col=1).update_xaxes(range=[-widest, widest], col=2)
    figure.update_xaxes(zerolinecolor="#555555", col=2)
    figure.update_yaxes(range=[1.5, -0.5], tickvals=[0, 1], ticktext=["full DNM", "chosen"], zeroline=False,
                        showgrid=False).update_yaxes(showticklabels=False, col=2)
    apart = f": {gap.text()} points to full DNM, {gap.pairs} pairs" if gap.pairs else ""
    heading = f"{wrapped(title + apart, 95, 2)}<br><sub>{wrapped(setting, 120, 1)}</sub>"
    return titled(figure.update_layout(showlegend=False), heading, 395, l=85, r=60, t=140, b=40)
