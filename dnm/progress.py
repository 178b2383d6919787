"""Progress where the reader is: a bar in the terminal, a live figure in a notebook, a file for `dnm study`."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dnm.runs import Status


@contextmanager
def in_terminal() -> Iterator[Callable[[Status], None]]:
    """A tqdm bar on standard error, over the steps of all runs; a line now and then where it is no terminal."""
    from tqdm import tqdm

    bar = tqdm(total=0, unit="step", dynamic_ncols=True, bar_format="{percentage:3.0f}% |{bar:10}| {desc}",
               mininterval=0.2 if sys.stderr.isatty() else 15, delay=0.5)
    told = 0

    def show(status: Status) -> None:
        nonlocal told
        for note in status.notes[told:]:
            bar.write(note, file=sys.stderr)
        told = len(status.notes)
        bar.total = max(1, status.steps_total)
        bar.n = status.steps_done + status.step if status.steps_total else 1
        bar.set_description_str(status.line, refresh=False)
        bar.update(0)

    with bar:
        yield show
        bar.refresh()


def setup_notebook() -> None:
    """Interactive figures and wide tables; with ``$DNM_PNG`` set, a PNG beside each figure, which GitHub shows."""
    import pandas as pd
    import plotly.io

    from dnm.plots import chromium

    png = os.environ.get("DNM_PNG") and chromium()  # a browser for each picture takes seconds: only for what is kept
    plotly.io.renderers.default = "plotly_mimetype+png" if png else "plotly_mimetype"
    plotly.io.defaults.default_scale, plotly.io.defaults.default_width = 1, 820  # fits JupyterLab at 1280 pixels
    pd.options.display.max_colwidth = 200
    pd.options.display.html.use_mathjax = False  # a dollar sign in a sentence is no formula
    pd.options.styler.html.mathjax = False


def one_line() -> Callable[[str], None]:
    """A line of text in a notebook that later texts replace; also told to `dnm study`."""
    from IPython.display import display

    handle, file = display({"text/plain": "…"}, raw=True, display_id=True), os.environ.get("DNM_PROGRESS_FILE")

    def tell(text: str) -> None:
        handle.update({"text/plain": text}, raw=True)
        if file:
            Path(file).write_text(text, encoding="utf-8")

    return tell


def in_notebook(seconds: float = 1.0) -> Callable[[Status], None]:
    """Learning curves that grow in place, at most every ``seconds``; one line of text when all is done."""
    from IPython.display import display

    from dnm.plots import live_curves

    handle, last = display({"text/plain": "…"}, raw=True, display_id=True), [0.0]
    file = os.environ.get("DNM_PROGRESS_FILE")

    def show(status: Status) -> None:
        finished = status.config is None and status.trained + status.reused == len(status.configs)
        if not finished and time.monotonic() - last[0] < seconds:
            return
        last[0] = time.monotonic()
        if file:
            Path(file).write_text(status.line, encoding="utf-8")
        if finished:
            handle.update({"text/plain": "\n".join([status.line, *status.notes])}, raw=True)
        else:
            figure = live_curves(status)
            handle.update({"application/vnd.plotly.v1+json": figure.to_plotly_json(), "text/plain": status.line},
                          raw=True)

    return show
