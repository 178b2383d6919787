"""Executed notebooks as one page that opens offline, its figures still interactive. Taught in notebook 00."""

import html
import math
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

import pandas as pd
import plotly.graph_objects as go

from dnm.disk import write_atomically
from dnm.errors import project_root
from dnm.methods import METHODS
from dnm.notebook.start import PLOTLY
from dnm.plots.charts import accuracies
from dnm.plots.look import number, standard_error
from dnm.plots.page import figure_html, page, table_html
from dnm.runs.results import COMPARABLE
from dnm.study import tables
from dnm.study.claims import SIGNIFICANT
from dnm.study.statistics import by_seed, difference, paired, seeds_needed

WIDGET = "application/vnd.jupyter.widget-view+json"
FEWEST = math.ceil(math.log2(2 / SIGNIFICANT))  # pairs with which a sign-flip test can tell anything from chance


def write_report(executed: list[Path], runs: pd.DataFrame | None, target: Path, about: str = "the study") -> Path:
    """One HTML page with the answer that ``runs`` give, if there are any, and every notebook; nothing from outside."""
    import nbformat
    from pygments.formatters import HtmlFormatter

    sections, here = {}, {path.stem for path in executed}
    if runs is not None and len(runs):
        sections["answer"] = "The answer", opening(runs)
    for path in executed:
        cells = nbformat.read(path, as_version=4).cells
        titles = re.findall("^# ([^:\n]+)", "\n".join(c.source for c in cells if c.cell_type == "markdown"), flags=re.M)
        body = "\n".join(map(_cell, cells))
        body = re.sub(r'<a href="([^"#][^"]*)">(.*?)</a>', lambda link: _link(link, here, target.parent), body, flags=re.S)
        sections[path.stem] = [*titles, path.stem][0], re.sub(r'<(h\d) id="[^"]*"', r"<\1", body)
    colours, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    css = f"{colours}@media (prefers-color-scheme: dark) {{{dark}}} .highlight {{ background: none }}"
    write_atomically(target, page(f"Dynamic nonlinear mixup: {about}", "", sections, css).encode())
    return target


def opening(runs: pd.DataFrame) -> str:
    """The answer in words, picture and table, for the setting (of `COMPARABLE`) that most runs have."""
    groups, table = [mine for _, mine in runs.groupby(COMPARABLE, sort=False)], tables.summary(runs)
    most = max(groups, key=len)
    return (f"<p>{html.escape(' '.join(answer(most)))}</p>{figure_html(accuracies(most))}"
            f"{table_html(tables.readable(table), tables.caption(table)).to_html()}"
            "<p>Mean ± standard error over the runs of each method; “to plain” is paired by seed.</p>")


def answer(runs: pd.DataFrame) -> list[str]:
    """Sentences on DNM beside plain fine-tuning in runs of one setting: what came out, and how sure that is."""
    names = [METHODS[name].title for name in ("dnm", "plain")]
    ours, theirs = ([*runs[runs.title == name].drop_duplicates("seed").accuracy] for name in names)
    if not (ours and theirs):
        return ["These runs hold no DNM beside plain fine-tuning, so they do not answer the study's question."]
    first, counts = runs.iloc[0], sorted({len(ours), len(theirs)})
    seeds = f"{' and '.join(map(str, counts))} seed{'s' * (counts != [1])}"
    guess = f"; guessing gives {100 / len(first['labels']):.0f}%" if len(first["labels"]) else ""
    shares = [f"{number(sum(mine) / len(mine), standard_error(mine))}%" for mine in (ours, theirs)]
    said = [f"On {first['data']}, with {first.n_train} labelled sentences, DNM gives {shares[0]} of the test sentences "
            f"their class, plain fine-tuning {shares[1]} (mean ± standard error, {seeds}{guess})."]
    gap = difference([paired(by_seed(runs, "title"), (1, names[0]), (-1, names[1])).to_numpy()])
    if gap.pairs < 2:
        return [*said, f"They share {gap.pairs or 'no'} seed{'s' * (gap.pairs != 1)}.",
                "Whether DNM helps cannot be told from that: a single pair says nothing of chance."]
    where = "above" if gap.mean > 0 else "below"
    said += [f"Seed by seed DNM is {abs(gap.mean):.1f} points {where} plain fine-tuning (95% interval {gap.low:+.1f} to "
             f"{gap.high:+.1f}, {gap.pairs} pairs)."]
    chance = f"chance alone brings a difference this large in {gap.p:.{int(gap.p < 0.1)}%} of such comparisons"
    if gap.p < SIGNIFICANT:
        return [*said, f"So DNM {'helps' if gap.mean > 0 else 'does harm'} here: {chance} (sign-flip test)."]
    needed = seeds_needed(gap.mean, gap.spread)
    if gap.pairs < FEWEST:
        chance = (f"fewer than {FEWEST} pairs tell nothing from chance, wherever their interval lies")
    return [*said, f"Whether DNM helps cannot be told: {chance}; to tell a difference of this size takes "
            f"{f'about {needed:.0f}' if needed < math.inf else 'more than 1000'} seeds."]


def _cell(cell) -> str:
    """A notebook's cell as HTML: its code folded, what it shows below."""
    from nbconvert.filters import markdown2html
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    if cell.cell_type != "code":
        return markdown2html(mathml(cell.source)) if cell.cell_type == "markdown" else ""
    code, before = highlight(cell.source, PythonLexer(), HtmlFormatter()), ""
    if "injected-parameters" in cell.metadata.get("tags", []):
        before = ("<p>This page was made with the values below; they replace those of the same name in the cell before. "
                  f"All others hold as they stand there.</p>{code}")
    elif cell.source.strip():
        before = f'<details class="code"><summary>code, {len(cell.source.splitlines())} lines</summary>{code}</details>'
    return before + "".join(map(_output, cell.outputs))


def _output(output) -> str:
    """What a cell shows, as HTML: figures interactive, and of a widget, which needs a kernel, nothing: see its twin."""
    from nbconvert.filters import ansi2html

    data = output.get("data", {"text/plain": output.get("text", "")})
    if WIDGET in data:
        return ""
    if PLOTLY in data:
        return figure_html(go.Figure(data[PLOTLY]))
    if "text/html" in data:
        return f"<div>{data['text/html']}</div>"
    if "image/png" in data:
        return f'<div class="figure"><img alt="figure" src="data:image/png;base64,{data["image/png"]}"></div>'
    return f"<pre>{ansi2html(data['text/plain'])}</pre>" if data.get("text/plain", "").strip() else ""


def _link(link: re.Match, here: set[str], folder: Path) -> str:
    """A notebook's link as it works from the page's folder: to a section, to what exists, or none but its text."""
    if re.match(r"[a-z]+:", link[1]):
        return link[0]
    file = project_root() / "notebooks" / unquote(link[1].partition("#")[0])
    if file.stem in here:
        return f'<a href="#{file.stem}">{link[2]}</a>'
    return f'<a href="{quote(os.path.relpath(file, folder))}">{link[2]}</a>' if file.exists() else link[2]


def mathml(markdown: str) -> str:
    """TeX formulas of a Markdown text as MathML, which browsers draw without a script."""
    from latex2mathml.converter import convert

    def formula(tex: re.Match) -> str:
        block = f'<span class="formula">{convert(tex[1], display="block")}</span>' if tex[1] else ""
        return block or convert(tex[2], display="inline")

    pieces = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.S)  # code stays as it is
    return "".join(piece if piece.startswith("`") else
                   re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", formula, piece, flags=re.S) for piece in pieces)
