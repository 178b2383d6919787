"""The main job: run the notebooks in order through papermill, then write one report that opens offline."""

import base64
import html
import os
import re
import tempfile
import threading
import time
from pathlib import Path

from dnm import report
from dnm.config import RunConfig
from dnm.errors import DnmError, project_root
from dnm.runs import clock, grid, run_all
from dnm.store import RunStore, write_atomically

PLOTLY = "application/vnd.plotly.v1+json"
STUDY = dict(methods=["plain", "senmixup", "dnm", "logreg"], seeds=[0, 1, 2])
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --page: #ffffff; --soft: #f3f4f6; --line: #d0d4da; --link: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --page: #16181b; --soft: #22262b; --line: #3b4149; --link: #7ab8f5 } }
body { max-width: 68rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; color: var(--ink); background: var(--page);
  font: 17px/1.6 Helvetica, Arial, sans-serif } a { color: var(--link) } a.anchor-link { display: none }
h1, h2, h3 { line-height: 1.25; margin-top: 2em } section { border-top: 1px solid var(--line); margin-top: 3rem }
pre { background: var(--soft); padding: .7rem 1rem; overflow-x: auto; font-size: 14px; line-height: 1.45 }
code { font-size: .92em } .jp-InputPrompt, .jp-OutputPrompt, .prompt { display: none } figure, img { max-width: 100% }
table { border-collapse: collapse; margin: 1rem 0; font-size: 15px; display: block; overflow-x: auto }
caption { text-align: left; opacity: .8; padding-bottom: .4rem }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: left; vertical-align: top }
.plotly-graph-div, .picture { background: #ffffff; overflow-x: auto; margin: 1rem 0 }
"""


def notebooks() -> list[Path]:
    """The study's notebooks, in order."""
    found = sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise DnmError(f"no notebooks under {project_root() / 'notebooks'}; run the study from a checkout of the "
                       "project, or set DNM_HOME to one")
    return found


def run_study(out: Path | None, config: RunConfig, runs: str | None = None) -> Path:
    """Execute every notebook, write report, figures and tables to ``out`` and print where they are.

    ``config`` gives data set, encoder and profile of the notebooks that have such parameters.
    """
    started, out = time.perf_counter(), (out or project_root() / "runs" / "study").resolve()
    for name in ("DNM_DATA_DIR", "DNM_HOME"):  # notebooks run in a folder of their own
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())
    store = RunStore.open(runs)
    wanted = {**STUDY, "dataset": config.dataset, "n_train": config.n_train, "encoder": config.encoder,
              "profile": config.profile, "store": str(store.folder)}
    executed = []
    for number, path in enumerate(todo := notebooks(), start=1):
        print(f"[{number}/{len(todo)}] {path.name}", flush=True)
        executed.append(execute(path, out / "notebooks" / path.name, wanted))
    # The same runs as the training notebook's: all stored by now, so none is trained here.
    records = run_all(grid(STUDY["methods"], STUDY["seeds"], config.profile, dataset=config.dataset,
                           n_train=config.n_train, encoder=config.encoder), store)
    print("figures, tables and report …", flush=True)
    figures = report.write_figures(records, out / "figures")
    tables = report.write_tables(records, out)
    page = write_report(executed, records, out / "report.html")
    table = report.summary(records)
    print(f"\n{report.caption(table)}\n{report.readable(table).to_string(index=False)}\n")
    print(f"done in {clock(time.perf_counter() - started)}")
    for what, paths in {"report": [page], "notebooks": executed, "tables": tables, "figures": figures}.items():
        print(f"{what}:", *(f"\n  {_short(path)}" for path in paths), sep="")
    return page


def execute(path: Path, target: Path, wanted: dict) -> Path:
    """Run one notebook with those of the ``wanted`` parameters that it has; progress on standard output."""
    import papermill

    known = papermill.inspect_notebook(str(path))
    parameters = {name: value for name, value in wanted.items() if name in known}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "progress"
        os.environ["DNM_PROGRESS_FILE"] = str(told)
        finished = threading.Event()
        watcher = threading.Thread(target=_show_progress, args=(told, finished), daemon=True)
        watcher.start()
        try:
            papermill.execute_notebook(str(path), str(target), parameters=parameters, cwd=str(path.parent),
                                       kernel_name="python3", progress_bar=False)
        except papermill.PapermillExecutionError as error:
            raise DnmError(f"{path.name}, cell {error.exec_count}: {error.ename}: {error.evalue} "
                           f"(the notebook so far: {target})") from None
        except Exception as error:  # a kernel that was killed or could not start
            reason = (str(error).splitlines() or [""])[0]
            raise DnmError(f"{path.name}: {type(error).__name__}: {reason}; finished runs are kept, run the same "
                           "command again to go on") from None
        finally:
            finished.set()
            watcher.join()
            del os.environ["DNM_PROGRESS_FILE"]
    return target


def _show_progress(file: Path, finished: threading.Event) -> None:
    shown = ""
    while not finished.wait(1.0):
        line = file.read_text(encoding="utf-8") if file.exists() else ""
        if line and line != shown:
            print(f"\r  {line:<90}", end="", flush=True)
            shown = line
    print("\r" + " " * 92 + "\r" if shown else "", end="", flush=True)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# ---------------------------------------------------------------- the report

def write_report(executed: list[Path], records: list[dict], target: Path) -> Path:
    """One HTML page with the results table and every notebook; figures interactive, nothing loaded from outside."""
    import nbformat
    from nbconvert import HTMLExporter
    from plotly.offline import get_plotlyjs
    from pygments.formatters import HtmlFormatter

    exporter, sections, contents = HTMLExporter(template_name="basic"), [], []
    for path in executed:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = mathml(cell.source)
            for output in cell.get("outputs", []):
                _embed_figure(output)
        body, _ = exporter.from_notebook_node(notebook)
        title = next((line[2:] for cell in notebook.cells for line in cell.source.splitlines()
                      if cell.cell_type == "markdown" and line.startswith("# ")), path.stem)
        contents.append(f'<li><a href="#{path.stem}">{html.escape(title)}</a></li>')
        sections.append(f'<section id="{path.stem}">{body}</section>')
    summary = report.summary(records)
    table = report.as_html(report.readable(summary), report.caption(summary)).to_html()
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Dynamic nonlinear mixup: the study</title>
<style>{_STYLE}{colours}@media (prefers-color-scheme: dark) {{{dark}}} .highlight {{ background: none }}</style>
<script>{get_plotlyjs()}</script></head><body>
<h1>Dynamic nonlinear mixup: the study</h1>
<p>Results of this run: mean ± standard error over the runs of each method; "to plain" is paired by seed.</p>
{table}<ol>{"".join(contents)}</ol>{"".join(sections)}</body></html>"""
    write_atomically(target, page.encode())
    return target


def _embed_figure(output: dict) -> None:
    """Make a plotly output an interactive figure of the page; a picture stays where there is only that."""
    data = output.get("data", {})
    if PLOTLY in data:
        import plotly.graph_objects as go

        figure = go.Figure(data[PLOTLY].get("data"), data[PLOTLY].get("layout"))
        data.clear()
        data["text/html"] = figure.to_html(include_plotlyjs=False, full_html=False)
    elif "image/png" in data:
        picture = data["image/png"]
        picture = picture if isinstance(picture, str) else base64.b64encode(picture).decode()
        data.clear()
        data["text/html"] = f'<div class="picture"><img alt="figure" src="data:image/png;base64,{picture}"></div>'


def mathml(markdown: str) -> str:
    """TeX formulas of a Markdown text as MathML, which browsers draw without a script."""
    from latex2mathml.converter import convert

    def formula(match: re.Match) -> str:
        block, inline = match.group(1), match.group(2)
        return convert(block or inline, display="block" if block else "inline")

    pieces = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.S)  # code stays as it is
    return "".join(piece if piece.startswith("`") else
                   re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", formula, piece, flags=re.S) for piece in pieces)
