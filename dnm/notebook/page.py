"""Executed notebooks as one page that opens offline, its figures still interactive. Taught in notebook 00."""

import contextlib
import html
import math
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

import nbformat
import pandas as pd
import plotly.graph_objects as go
from latex2mathml.converter import convert
from nbconvert.filters import markdown2html
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from dnm.disk import write_atomically
from dnm.errors import DnmError, project_root
from dnm.methods import METHODS
from dnm.plots import plain
from dnm.plots.charts import accuracies
from dnm.plots.look import number, standard_error
from dnm.plots.page import figure_html, page, table_html
from dnm.runs.results import COMPARABLE
from dnm.study import beside, controls, tables
from dnm.study.claims import SIGNIFICANT
from dnm.study.statistics import MOST, by_seed, difference, seeds_needed

PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
FEWEST = math.ceil(math.log2(2 / SIGNIFICANT))  # pairs with which a sign-flip test can tell anything from chance


def write_report(executed: list[Path], runs: pd.DataFrame | None, target: Path, about: str = "the study") -> Path:
    """One HTML page with the answer that ``runs`` give, if there are any, and every notebook; nothing from outside."""
    sections, here = {}, {path.stem for path in executed}
    if runs is not None and len(runs):
        sections["answer"] = "The answer", opening(runs)
    for path in executed:
        cells = nbformat.read(path, as_version=4).cells
        body = re.sub(r'<(h\d) id=.*?>(.*?)<a class="anchor-link".*?</a>', r"<\1>\2",  # notebooks share headings
                      "\n".join(map(_cell, cells)))
        body = re.sub(r'(?s)<a href="([^"]+)">(.*?)</a>', lambda link: _link(link, here, target.parent), body)
        title = re.search("<h1>([^:<]+)", body)
        sections[path.stem] = html.unescape(title[1]) if title else path.stem, body
    colours, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    css = f"{colours}@media (prefers-color-scheme: dark) {{{dark}}} .highlight {{ background: none }}"
    write_atomically(target, page(f"Dynamic nonlinear mixup: {about}", "", sections, css).encode())
    return target


def opening(runs: pd.DataFrame) -> str:
    """The answer in words, picture and table, for the setting (of `COMPARABLE`) that most runs have."""
    groups, table = [mine for _, mine in runs.groupby(COMPARABLE, sort=False)], tables.summary(runs)
    most = max(groups, key=len)
    picture = accuracies(most)
    picture.update_layout(height=130 + 50 * most.title.nunique(), margin_t=70)  # so that the table is in sight
    known = ""  # where no runs are kept, one's own are told of alone
    with contextlib.suppress(DnmError):
        known = (told := controls.finding(beside.kept_runs())) and f"The study itself, {told}"
    return (f"<p>{html.escape(known)}</p><p>{html.escape(answer(most))}</p>{figure_html(picture)}"
            f"{table_html(tables.readable(table), tables.caption(table)).to_html()}"
            "<p>Mean ± standard error over the runs of each method; “to plain” is paired by seed." +
            " The built-in notes are the project's own: what its kept runs say on the paper's data sets stands in "
            "notebooks 00 and 05." * most["data"].iloc[0].startswith("builtin") + "</p>")


def answer(runs: pd.DataFrame) -> str:
    """Three sentences on DNM beside plain fine-tuning in runs of one setting: what came out, and how sure that is."""
    names, first = [METHODS[name].title for name in ("dnm", "plain")], runs.iloc[0]
    pairs = by_seed(runs, "title").reindex(columns=names).dropna()
    if pairs.empty:
        return "These runs hold no DNM and plain fine-tuning with the same seed, so they cannot tell whether it helps."
    ours, theirs = (number(mine.mean(), standard_error(mine)) for _, mine in pairs.items())
    guess = f"; guessing: {100 / len(first['labels']):.0f}%" if first["labels"] else ""
    gap, seeds = difference([pairs[names[0]] - pairs[names[1]]]), f"{len(pairs)} seed{'s' * (len(pairs) > 1)}"
    where = f"{abs(gap.mean):.1f} points {'above' if gap.mean > 0 else 'below'}"
    each = ", ".join(f"{value:+.1f}" for value in pairs[names[0]] - pairs[names[1]])
    interval = f" (95% interval: {gap.low:+.1f} to {gap.high:+.1f})" if gap.pairs >= FEWEST else (
        f" ({each})" if gap.pairs > 1 else "")  # of so few an interval is too short
    chance = f"chance alone brings a difference this large in {gap.p:.1%} of such comparisons (sign-flip test)"
    if gap.p < SIGNIFICANT:
        verdict = f"So DNM {'helps' if gap.mean > 0 else 'does harm'} here: {chance}."
    else:
        told = chance if gap.pairs >= FEWEST else f"fewer than {FEWEST} pairs tell nothing from chance"
        needed = f"about {seeds_needed(gap.mean, gap.spread):.0f}".replace("about inf", f"more than {MOST}")
        told += f"; a difference of this size takes {needed} seeds" if gap.pairs > 1 else ""
        verdict = f"Whether DNM helps cannot be told: {told}."
    return (f"On {first['data']}, with {first.n_train} labelled sentences, DNM classifies {ours}% of the test "
            f"sentences correctly, plain fine-tuning {theirs}% (mean ± standard error, {seeds}{guess}). "
            f"Seed by seed, DNM is {where} plain fine-tuning{interval}. {verdict}")


def _cell(cell) -> str:
    """A notebook's cell as HTML: its code folded, what it shows below."""
    if cell.cell_type != "code":
        return markdown2html(mathml(cell.source)) if cell.cell_type == "markdown" else ""
    code, tags, before = highlight(cell.source, PythonLexer(), HtmlFormatter()), cell.metadata.get("tags", []), ""
    if "injected-parameters" in tags:
        before = f"<p>This page was made with the values below instead of those of the same name above.</p>{code}"
    elif cell.source.strip():
        kind = "parameters" if "parameters" in tags else "code"
        before = f'<details class="code"><summary>{kind}</summary>{code}</details>'
    return before + "".join(map(_output, cell.outputs))


def _output(output) -> str:
    """What a cell shows, as HTML: figures interactive, and of a widget, which needs a kernel, nothing: see its twin."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    if WIDGET in data:
        return ""
    if PLOTLY in data:
        return figure_html(go.Figure(data[PLOTLY]))
    if "text/html" in data:
        return f"<div>{data['text/html']}</div>"
    if "image/png" in data:  # a picture stays where there is only that
        return f'<div class="figure"><img alt="figure" src="data:image/png;base64,{data["image/png"]}"></div>'
    return f"<pre>{html.escape(plain.visible(data['text/plain']))}</pre>" if data.get("text/plain", "").strip() else ""


def _link(link: re.Match, here: set[str], folder: Path) -> str:
    """A notebook's link as it works from the page's folder: to a section, to what exists, or none but its text."""
    if re.match(r"[a-z]+:", link[1]):
        return link[0]
    name = unquote(link[1].partition("#")[0])
    file = project_root() / "notebooks" / name
    if file.stem in here:
        return f'<a href="#{file.stem}">{link[2]}</a>'
    return f'<a href="{quote(os.path.relpath(file, folder))}">{link[2]}</a>' if name and file.exists() else link[2]


def mathml(markdown: str) -> str:
    """TeX formulas of a Markdown text as MathML, which browsers draw without a script."""
    def formula(tex: re.Match) -> str:
        block = tex[1] and f'<span class="formula">{convert(tex[1], display="block")}</span>'
        return block or convert(tex[2], display="inline")

    pieces = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.S)  # code stays as it is
    return "".join(piece if piece.startswith("`") else
                   re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", formula, piece, flags=re.S) for piece in pieces)
