"""What pictures and tables share: colours (Okabe and Ito's, safe for the colour-blind) and how numbers are written."""

import textwrap

import numpy as np
import plotly.graph_objects as go

from dnm.methods import METHODS
from dnm.plots import plain

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B6914")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x")
_CHOSEN = {"plain": 0, "dnm": 1, "senmixup": 2, "wordmixup": 3, "nonlinearmixup": 4, "logreg": 6, "label-embedding": 7}
LAYOUT = dict(template="plotly_white", font=dict(size=14, family="Helvetica, Arial, sans-serif"),
              paper_bgcolor="white", plot_bgcolor="white", margin=dict(l=70, r=30, t=120, b=60),
              hoverlabel_namelength=-1)


def titled(figure: go.Figure, title: str | dict, height: int, width: int | None = None,
           legend: float | None = None, **margin) -> go.Figure:
    """The figure in the study's look, as wide as the page unless ``width`` (pixels) is set; ``legend`` is the height
    at which its names stand side by side."""
    title = title if isinstance(title, dict) else dict(text=title, font_size=16)
    figure.update_layout(**LAYOUT, title=title, width=width, height=height).update_layout(margin=margin)
    return figure if legend is None else figure.update_layout(legend=dict(orientation="h", y=legend))


def short(text: str, width: int = 60) -> str:
    """A text for a figure: cut to ``width`` characters and escaped."""
    return plain.figure(text if len(text) <= width else text[:width - 1].rstrip() + "…")


def wrapped(text: str, width: int = 70, lines: int | None = None) -> str:
    """A text for a figure: escaped, in lines of ``width`` characters, cut where there are more than ``lines``."""
    return "<br>".join(map(plain.figure, textwrap.wrap(plain.visible(text), width, max_lines=lines, placeholder=" …")))


def style(method: str) -> tuple[str, str]:
    """Colour and dash of a method: the same in every figure."""
    place = _CHOSEN.get(method, 5 + list(METHODS).index(method))
    return PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]


def by_title(runs):
    """A frame of runs grouped by method and its settings, in the order of the table of methods."""
    order = runs.assign(order=runs.method.map(list(METHODS).index)).sort_values(["order", "title"])
    return order.drop(columns="order").groupby("title", sort=False)


def standard_error(values) -> float | np.ndarray:
    """Standard error of the mean over the first dimension; not a number for a single run."""
    values = np.asarray(values, dtype=float)
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def number(value: float, error: float = np.nan, sign: str = "", missing: str = "–", digits: int = 1) -> str:
    """A mean and its standard error as people read them: ``87.5 ± 1.0``."""
    if np.isnan(value):
        return missing
    value = round(value, digits) + 0.0  # no minus zero
    return f"{value:{sign}.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")


def numbers(values, *errors, **form) -> list[str]:
    """A column of values, perhaps with their errors, each as a `number`."""
    return [number(*cell, **form) for cell in zip(values, *errors, strict=True)]
