"""Where pictures and tables go: files of their own, or one page that opens without a network."""

import html
import logging
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --page: #ffffff; --soft: #f3f4f6; --line: #d0d4da; --link: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --page: #16181b; --soft: #22262b; --line: #3b4149; --link: #7ab8f5 } }
body { max-width: 72rem; box-sizing: border-box; margin: 0 auto; padding: 1rem 1.5rem 4rem; color: var(--ink);
  background: var(--page); font: 17px/1.6 Helvetica, Arial, sans-serif } figure, img { max-width: 100% }
h1, h2, h3 { line-height: 1.25; margin-top: 2em } section { border-top: 1px solid var(--line); margin-top: 3rem }
pre { white-space: pre-wrap; background: var(--soft); padding: .7rem 1rem; font-size: 14px; line-height: 1.45 }
a { color: var(--link) } code { font-size: .92em }
a.anchor-link, .jp-InputPrompt, .jp-OutputPrompt, .prompt { display: none }
table { border-collapse: collapse; margin: 1rem 0; font-size: 15px; display: block; overflow-x: auto }
caption { text-align: left; opacity: .8; padding-bottom: .4rem }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: left; vertical-align: top }
.plotly-graph-div, .picture { background: #ffffff; overflow-x: auto; margin: 1rem 0 }
"""
_SHOWN = dict(auto_play=False, config={"responsive": True})


def page(title: str, body: str, css: str = "") -> str:
    """A whole page that opens without a network, in light and dark; plotly is in it where a figure needs it."""
    library = f"<script>{get_plotlyjs()}</script>" if "plotly-graph-div" in body else ""
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>{html.escape(title)}</title><style>{STYLE}{css}</style></head>'
            f"<body><h1>{html.escape(title)}</h1>\n{library}{body}</body></html>")


def table_html(table, heading: str = ""):
    """A data frame for a page or notebook, without row numbers; whatever text it holds is escaped."""
    return table.style.hide(axis="index").format(escape="html", precision=1).set_caption(html.escape(heading))


def figure_html(figure: go.Figure) -> str:
    """A figure as a part of a `page`, which brings plotly."""
    return figure.to_html(include_plotlyjs=False, full_html=False, **_SHOWN)


def save(figure: go.Figure, path: Path, with_html: bool = True) -> list[Path]:
    """Write ``path``.html (a folder's pages share one library), and ``path``.png where a Chromium is found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(path.name + kind) for kind in [".html"] * with_html + [".png"] * bool(chromium())]
    for file in written:
        if file.suffix == ".png":
            figure.write_image(file, width=figure.layout.width or 1000, scale=2)
        else:
            figure.write_html(file, include_plotlyjs="directory", full_html=True, **_SHOWN)
            head = f"<head><title>{html.escape(path.name)}</title>"
            file.write_text(file.read_text(encoding="utf-8").replace("<head>", head, 1), encoding="utf-8")
    return written


@lru_cache(maxsize=1)
def chromium() -> str | None:
    """The browser that draws PNG files, or None where there is none or it does not draw (said once)."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, names)), None)
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)  # a browser's last words as it ends are no error
    try:
        if found:
            subprocess.run([found, "--version"], check=True, capture_output=True, timeout=60)  # kaleido waits for ever
            go.Figure().to_image(width=50, height=50)
            return found
        print("no Chromium found, so no PNG figures: install one, or set BROWSER_PATH")
    except Exception as error:  # the browser, its driver or the system can fail in many ways
        print(f"{found} draws no PNG figures ({type(error).__name__}); figures are interactive only")
    return None
