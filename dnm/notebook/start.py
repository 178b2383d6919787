"""How every notebook begins, and how training tells its progress there. Taught in notebook 04."""

import os
import time
import warnings
from collections.abc import Callable

from dnm.runs.progress import Status


def setup_notebook() -> None:
    """Interactive figures and wide tables; with ``$DNM_PNG`` set, a PNG beside each figure, which GitHub shows."""
    import pandas as pd
    import plotly.io

    from dnm.plots.page import chromium

    png = os.environ.get("DNM_PNG") and chromium()  # a browser for each picture takes seconds: only for what is kept
    if not os.environ.get("PLOTLY_RENDERER"):  # the second form is for exports: nbconvert knows nothing of plotly's own
        plotly.io.renderers.default = f"plotly_mimetype+{'png' if png else 'notebook_connected'}"
        plotly.io.renderers["notebook_connected"].global_init = False  # it would come as an output of its own
    plotly.io.defaults.default_scale, plotly.io.defaults.default_width = 1, 820  # fits JupyterLab at 1280 pixels
    pd.options.display.max_colwidth = 200
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # without the place in our code
    pd.options.display.html.use_mathjax = False  # a dollar sign in a sentence is no formula
    pd.options.styler.html.mathjax = False


def one_line() -> Callable[[str], None]:
    """A line of text that later ones replace."""
    from IPython.display import display

    handle = display({"text/plain": "…"}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)


def in_notebook(seconds: float = 1.0) -> Callable[[Status], None]:
    """A line that says how far the runs are, anew at most every ``seconds``; at the end, what there is to note, too."""
    tell, last = one_line(), [0.0]

    def show(status: Status) -> None:
        if status.finished:
            tell("\n".join([status.line, *status.notes]))
        elif time.monotonic() - last[0] >= seconds:
            last[0] = time.monotonic()
            tell(status.line)

    return show
