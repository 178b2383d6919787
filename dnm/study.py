"""The main job: run the notebooks in order through papermill, then write one report that opens offline.

Taught in notebook 00.
"""

import base64
import html
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

from dnm import report
from dnm.config import DATASETS, RunConfig, as_list
from dnm.data import load_dataset
from dnm.errors import DnmError, project_root, unknown
from dnm.parameters import check, declared
from dnm.runs import clock, grid, run_all
from dnm.store import RunStore, write_atomically

PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
STUDY = dict(methods=["plain", "senmixup", "dnm", "logreg"], seeds=[0, 1, 2])
# What single notebooks get instead, so that the whole walk takes minutes on two cores.
ONLY = {"05_ablations": dict(tables=[8], seeds=[0]), "06_tsne": dict(methods=["plain", "dnm"], seeds=[0, 1]),
        "07_your_data": dict(methods=["plain", "dnm", "logreg"], seeds=[0], profile="smoke")}


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
    store = RunStore.open(runs)
    settings = dict(dataset=config.dataset, encoder=config.encoder, profile=config.profile)
    executed = execute_all(notebooks(), out / "notebooks", {
        **STUDY, **settings, "sizes": [config.n_train], "n_train": config.n_train, "store": str(store.folder)}, ONLY)
    # The same runs as the training notebook's: all stored by now, so none is trained here.
    records = run_all(grid(STUDY["methods"], STUDY["seeds"], n_train=config.n_train, **settings), store)
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


def run_batch(names: list[str], datasets: list[str], out: Path, parameters: dict) -> list[Path]:
    """Execute chosen notebooks once for each data set; parameters are checked before the first one starts.

    Every parameter must be known to at least one of the notebooks; each gets those it has. Writes, for each data
    set, the executed notebooks and one HTML page with all of them.
    """
    chosen = [_named(name) for name in names]
    known = {path: declared(path) for path in chosen}
    everything = {name: kind for kinds in known.values() for name, kind in kinds.items()}
    check(parameters, everything, " or ".join(path.stem for path in chosen))
    # Notebooks run in a folder of their own; a wrong name of a data set is told now, not after an hour.
    places = {name: str(Path(value).expanduser().resolve()) for name, value in parameters.items()
              if name in ("store", "file") or (name == "encoder" and Path(value).is_dir())}
    configs, written = [RunConfig.create(dataset=dataset) for dataset in dict.fromkeys(datasets)], []
    blind = [path.name for path in chosen if "dataset" not in known[path]]
    for data in [config.dataset for config in configs]:
        if data != RunConfig.dataset and data in DATASETS and blind:
            raise DnmError(f"{', '.join(blind)} cannot take data set {data!r}: it reads a file of your own, or none")
        _try(data, parameters | places)
    for number, config in enumerate(configs):
        stem, given = Path(config.dataset).stem, {"dataset": config.dataset}
        if config.dataset not in DATASETS:
            given["file"] = config.dataset
        folder = out / (stem if stem not in [Path(c.dataset).stem for c in configs[:number]] else f"{stem}-{number}")
        print(f"{stem}:", flush=True)
        executed = execute_all(chosen, folder, {**given, **parameters, **places})
        written += [*executed, write_report(executed, [], folder / "report.html")]
    return written


def _try(dataset: str, parameters: dict) -> None:
    """Make configurations like those the notebooks will, so that a wrong value or a missing data set is told first."""
    settings = {name: parameters[name] for name in ("encoder", "n_train", "k", "alpha") if name in parameters}
    config = grid(as_list(parameters.get("methods", "dnm")), as_list(parameters.get("seeds", 0), int),
                  parameters.get("profile", "quick"), dataset=dataset, **settings)[0]
    for size in as_list(parameters.get("sizes", [])):
        config.with_(n_train=size)
    if config.dataset in DATASETS:  # a file's columns may be named by the notebook
        load_dataset(config.dataset)


def _named(name: str) -> Path:
    """A notebook by number, name or path."""
    for path in notebooks():
        if name.zfill(2) in (path.stem, path.name, path.stem.split("_")[0], str(path)) or Path(name).resolve() == path:
            return path
    raise unknown("notebook", name, [path.stem for path in notebooks()])


def execute_all(paths: list[Path], folder: Path, wanted: dict, only: dict[str, dict] | None = None) -> list[Path]:
    """Execute notebooks in order, each with those of the ``wanted`` parameters that it has.

    ``only`` holds, by notebook, parameters that come before the wanted ones.
    """
    for name in ("DNM_DATA_DIR", "DNM_HOME"):  # notebooks run in a folder of their own
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())
    executed = []
    for number, path in enumerate(paths, start=1):
        started, kinds = time.perf_counter(), declared(path)
        given = {name: value for name, value in (wanted | (only or {}).get(path.stem, {})).items() if name in kinds}
        print(f"[{number}/{len(paths)}] {path.name} ", end="", flush=True)
        executed.append(execute(path, folder / path.name, given))
        print(clock(time.perf_counter() - started), flush=True)
    return executed


def execute(path: Path, target: Path, parameters: dict) -> Path:
    """Run one notebook, its parameters checked before anything starts; progress on standard output."""
    import papermill

    check(parameters, declared(path), path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "progress"
        os.environ["DNM_PROGRESS_FILE"] = str(told)
        finished = threading.Event()
        watcher = threading.Thread(target=_show_progress, args=(told, finished), daemon=True)
        watcher.start()
        try:
            papermill.execute_notebook(str(path), str(target), parameters=parameters, cwd=str(path.parent),
                                       kernel_name="python3", progress_bar=False, store_widget_state=False,
                                       extra_arguments=["--IPKernelApp.log_level=40"])  # no word on how it connects
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
    """One line that is written over in a terminal; in a log file a line now and then."""
    live, shown = sys.stdout.isatty(), ""
    while not finished.wait(1.0 if live else 15.0):
        line = file.read_text(encoding="utf-8") if file.exists() else ""
        if line and line != shown:
            print(f"\r  {line:<90}" if live else f"\n  {line}", end="", flush=True)
            shown = line
    print("\r" + " " * 92 + "\r" if live and shown else "", end="", flush=True)


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# ---------------------------------------------------------------- the report

def write_report(executed: list[Path], records: list[dict], target: Path) -> Path:
    """One HTML page with the results table and every notebook; figures interactive, nothing loaded from outside."""
    import nbformat
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    exporter, sections, contents = HTMLExporter(template_name="basic"), [], []
    for path in executed:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = mathml(cell.source)
            for output in cell.get("outputs", []):
                _embed_figure(output)
                output.get("data", {}).pop(WIDGET, None)  # needs a kernel; a line of text stays, and its twin follows
        body, _ = exporter.from_notebook_node(notebook)
        title = next((line[2:] for cell in notebook.cells for line in cell.source.splitlines()
                      if cell.cell_type == "markdown" and line.startswith("# ")), path.stem)
        for link in re.findall(r'<a href="(\w+)\.(?:ipynb|md)">', body):  # to notebooks of this page only
            on_page = link in [other.stem for other in executed]
            body = re.sub(rf'<a href="{link}\.(ipynb|md)">', f'<a href="#{link}">' if on_page else "<a>", body)
        contents.append(f'<li><a href="#{path.stem}">{html.escape(title)}</a></li>')
        sections.append(f'<section id="{path.stem}">{body}</section>')
    results = ""
    if records:
        summary = report.summary(records)
        table = report.as_html(report.readable(summary), report.caption(summary)).to_html()
        results = ("<p>Results of this run: mean ± standard error over the runs of each method; \"to plain\" is paired "
                   f"by seed.</p>{table}")
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    css = f"{colours}@media (prefers-color-scheme: dark) {{{dark}}} .highlight {{ background: none }}"
    body = f'{results}<ol>{"".join(contents)}</ol>{"".join(sections)}'
    page = report.page("Dynamic nonlinear mixup: the study", body, css)
    write_atomically(target, page.encode())
    return target


def _embed_figure(output: dict) -> None:
    """Make a plotly output an interactive figure of the page; a picture stays where there is only that."""
    data = output.get("data", {})
    if PLOTLY in data:
        import plotly.graph_objects as go

        figure = go.Figure(data[PLOTLY].get("data"), data[PLOTLY].get("layout"), data[PLOTLY].get("frames"))
        data.clear()
        data["text/html"] = figure.to_html(include_plotlyjs=False, full_html=False, auto_play=False,
                                            config={"responsive": True})
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
