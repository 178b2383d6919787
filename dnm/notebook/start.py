"""How every notebook begins, and how training tells its progress there. Taught in notebook 04."""

import os
import time
from collections.abc import Callable

from dnm.runs.progress import Status

PLOTLY = "application/vnd.plotly.v1+json"


def setup_notebook() -> None:
    """Interactive figures and wide tables; with ``$DNM_PNG`` set, a PNG beside each figure, which GitHub shows."""
    import pandas as pd
    import plotly.io

    from dnm.plots.page import chromium

    png = os.environ.get("DNM_PNG") and chromium()  # a browser for each picture takes seconds: only for what is kept
    plotly.io.renderers.default = "plotly_mimetype+png" if png else "plotly_mimetype"
    plotly.io.defaults.default_scale, plotly.io.defaults.default_width = 1, 820  # fits JupyterLab at 1280 pixels
    pd.options.display.max_colwidth = 200
    pd.options.display.html.use_mathjax = False  # a dollar sign in a sentence is no formula
    pd.options.styler.html.mathjax = False


def one_line() -> Callable[..., None]:
    """A line of text, perhaps with a plotly figure, that later ones replace."""
    from IPython.display import display

    handle = display({"text/plain": "…"}, raw=True, display_id=True)

    def tell(text: str, figure=None) -> None:
        handle.update({"text/plain": text} | ({PLOTLY: figure.to_plotly_json()} if figure else {}), raw=True)

    return tell


def in_notebook(seconds: float = 1.0) -> Callable[[Status], None]:
    """Learning curves that grow in place, at most every ``seconds``; one line of text when all is done."""
    from dnm.plots.charts import live_curves

    tell, last = one_line(), [0.0]

    def show(status: Status) -> None:
        if status.finished:
            tell("\n".join([status.line, *status.notes]))
        elif time.monotonic() - last[0] >= seconds:
            last[0] = time.monotonic()
            tell(status.line, live_curves(status))

    return show
