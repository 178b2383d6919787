"""Executed notebooks as one page that opens offline, its figures still interactive. Taught in notebook 00."""

import html
import re
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from dnm.disk import write_atomically
from dnm.notebook.start import PLOTLY
from dnm.plots.page import figure_html, page, table_html
from dnm.study import tables

WIDGET = "application/vnd.jupyter.widget-view+json"


def write_report(executed: list[Path], runs: pd.DataFrame | None, target: Path) -> Path:
    """One HTML page with every notebook, below the table of ``runs`` if there are any; nothing loaded from outside."""
    import nbformat
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    exporter, sections, contents = HTMLExporter(template_name="basic"), [], []
    here = {path.stem for path in executed}
    for path in executed:
        notebook, titles = nbformat.read(path, as_version=4), []
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                titles += re.findall("^# (.+)", cell.source, flags=re.M)
                cell.source = mathml(cell.source)
            for output in cell.get("outputs", []):
                _embed_figure(output)
        body = re.sub(r'<a href="(\w+)\.(?:ipynb|md)">',  # links to notebooks of this page only
                      lambda link: f'<a href="#{link[1]}">' if link[1] in here else "<a>",
                      exporter.from_notebook_node(notebook)[0])
        contents.append(f'<li><a href="#{path.stem}">{html.escape([*titles, path.stem][0])}</a></li>')
        sections.append(f'<section id="{path.stem}">{body}</section>')
    results = ""
    if runs is not None and len(runs):
        summary = tables.summary(runs)
        table = table_html(tables.readable(summary), tables.caption(summary)).to_html()
        results = ("<p>Results of this run: mean ± standard error over the runs of each method; \"to plain\" is paired "
                   f"by seed.</p>{table}")
    colours, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    css = f"{colours}@media (prefers-color-scheme: dark) {{{dark}}} .highlight {{ background: none }}"
    body = f'{results}<ol>{"".join(contents)}</ol>{"".join(sections)}'
    write_atomically(target, page("Dynamic nonlinear mixup: the study", body, css).encode())
    return target


def _embed_figure(output: dict) -> None:
    """Make a plotly output an interactive figure of the page; a picture stays where there is only that."""
    data = output.get("data", {})
    data.pop(WIDGET, None)  # needs a kernel; a line of text stays, and its twin follows
    if PLOTLY in data:
        output["data"] = {"text/html": figure_html(go.Figure(data[PLOTLY]))}
    elif "image/png" in data:
        picture = f'<img alt="figure" src="data:image/png;base64,{data["image/png"]}">'
        output["data"] = {"text/html": f'<div class="picture">{picture}</div>'}


def mathml(markdown: str) -> str:
    """TeX formulas of a Markdown text as MathML, which browsers draw without a script."""
    from latex2mathml.converter import convert

    def formula(tex: re.Match) -> str:
        return convert(tex[1] or tex[2], display="block" if tex[1] else "inline")

    pieces = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.S)  # code stays as it is
    return "".join(piece if piece.startswith("`") else
                   re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", formula, piece, flags=re.S) for piece in pieces)
