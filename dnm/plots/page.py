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

from dnm.plots.plain import visible

_PARTS = {kind: Path(__file__).with_suffix(f".{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}
_NUMBER = r"[\W\d]*\d[\W\d]*(?: to [\W\d]*)?|–|all|not run|"  # and what stands in its place


def page(title: str, lead: str, sections: dict[str, tuple[str, str]], css: str = "") -> str:
    """A whole page that opens without a network, in light and dark; plotly is in it where a figure needs it.

    ``lead`` is HTML; ``sections``: the HTML of each with its name for the navigation, by its id.
    """
    body = "".join(f'<section id="{name}">{content}</section>' for name, (_, content) in sections.items())
    body, title = visible(lead + body), visible(title)
    links = "".join(f'<a href="#{name}">{html.escape(shown)}</a>' for name, (shown, _) in sections.items())
    library = f"<script>{get_plotlyjs()}</script>" if "plotly-graph-div" in body else ""
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>{html.escape(title)}</title><style>{_PARTS["css"]}{css}</style></head>'
            f'<body><nav><label hidden><input type="checkbox"> show all code</label>{links}</nav><main>'
            f"<h1>{html.escape(title)}</h1>\n{body}</main>\n{library}<script>{_PARTS['js']}</script></body></html>")


def table_html(table, heading: str = ""):
    """A data frame for a page or notebook, numbers to the right, text to the left and escaped; no row numbers."""
    looks = [dict(selector="th, td", props="text-align: left; white-space: nowrap")]
    for i, (_, column) in enumerate(table.items()):
        cells = column.map(str)
        if column.dtype.kind in "iuf" or cells.str.fullmatch(_NUMBER).all():
            looks.append(dict(selector=f"th.col{i}, td.col{i}", props="text-align: right"))
        elif cells.str.len().max() > 45:  # sentences
            looks.append(dict(selector=f"td.col{i}", props="white-space: normal; min-width: 17em"))
    return (table.style.hide(axis="index").format(escape="html", precision=1)
            .format_index(escape="html", axis=1).set_caption(html.escape(heading))
            .set_table_styles(looks))


def figure_html(figure: go.Figure) -> str:
    """A figure as a part of a `page`, whose script draws it."""
    spec = figure.to_json().replace("<", "\\u003c")  # so that no text of it ends the script
    return (f'<div class="figure"><div class="plotly-graph-div" style="height: {figure.layout.height or 450}px"></div>'
            f'<script type="application/json">{spec}</script></div>')


def save(figure: go.Figure, path: Path, with_html: bool = True) -> list[Path]:
    """Write ``path``.html (a folder's pages share one library), and ``path``.png where a Chromium is found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(path.name + kind) for kind in [".html"] * with_html + [".png"] * bool(chromium())]
    for file in written:
        if file.suffix == ".png":
            figure.write_image(file, width=figure.layout.width or 1000, scale=2)
        else:
            figure.write_html(file, include_plotlyjs="directory", auto_play=False, config={"responsive": True})
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
