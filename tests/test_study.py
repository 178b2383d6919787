"""Notebooks through papermill, figures, tables and the report: what they made, not only that they ran."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import needs_real_data, solutions
from nbconvert import HTMLExporter

from dnm.cli import parser
from dnm.data.datasets import limited, load_dataset
from dnm.errors import DnmError
from dnm.notebook import batch
from dnm.notebook import page as report
from dnm.notebook.batch import execute, notebooks, run_batch, runs_of
from dnm.notebook.page import mathml, write_report
from dnm.notebook.parameters import declared
from dnm.plots import charts, page
from dnm.runs.plan import grid
from dnm.runs.results import frame, load
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.study import beside, tables
from dnm.study.experiments import experiment
from dnm.study.statistics import difference
from dnm.training import fit

TRAINING = next(path for path in notebooks() if "training" in path.name)


@pytest.fixture(scope="module")
def records(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [json.loads(json.dumps(fit(tiny(method=method, seed=seed))[0]))
                for seed in (0, 1, 2) for method in ("plain", "dnm", "logreg")]


def test_the_summary_agrees_with_numpy(records):
    table = tables.summary(frame(records)).set_index("method")
    accuracy = {m: np.array([100 * r["test_accuracy"] for r in records if r["config"]["method"] == m])
                for m in ("plain", "dnm", "logreg")}
    for method, values in accuracy.items():
        row = table.loc[method]
        assert row.runs == 3 and row.accuracy == pytest.approx(values.mean())
        assert row.error == pytest.approx(values.std(ddof=1) / np.sqrt(3))
    difference = accuracy["dnm"] - accuracy["plain"]
    assert table.loc["dnm"].to_plain == pytest.approx(difference.mean())
    assert table.loc["dnm"].to_plain_error == pytest.approx(difference.std(ddof=1) / np.sqrt(3))


def test_a_pictures_heading_counts_the_seeds_of_its_rows(records):
    runs = frame(records)
    assert ", 3 seeds, " in charts.accuracies(runs).layout.title.text
    assert ", 2 to 3 seeds, " in charts.accuracies(runs[(runs.method != "dnm") | (runs.seed > 0)]).layout.title.text


def test_runs_of_different_settings_are_never_averaged(records):
    other = json.loads(json.dumps(records[0]))
    other["environment"]["precision"] = "bfloat16"
    table = tables.summary(frame([*records, other]))
    assert sorted(table[table.method == "plain"].runs) == [1, 3]


def test_a_single_run_has_no_error(records):
    table = tables.readable(tables.summary(frame(records[:1])))
    assert "±" not in table["accuracy (%)"].iloc[0]


def test_figures_draw_the_records(records, tmp_path):
    figure = charts.learning_curves(frame(records))
    lines = {trace.name: trace for trace in figure.data if trace.name and trace.showlegend}
    history = [r["history"] for r in records if r["config"]["method"] == "dnm"]
    expected = 100 * np.mean([[row["test_accuracy"] for row in h] for h in history], axis=0)
    np.testing.assert_allclose(lines["DNM"].y, expected)
    assert set(lines) == {"Plain fine-tuning", "DNM"}  # logistic regression has no steps
    dots = [t for t in charts.accuracies(frame(records)).data if t.mode == "markers"]
    assert sorted(x for t in dots for x in t.x) == sorted(100 * r["test_accuracy"] for r in records)
    counts = np.array([[5, 1], [2, 8]])
    heat = charts.confusion(counts, ["<b>no</b>", "yes"], "t").data[0]
    np.testing.assert_allclose(heat.z, counts / counts.sum(axis=1, keepdims=True))
    assert heat.x[0] == "&lt;b&gt;no&lt;/b&gt;"
    for path in page.save(figure, tmp_path / "curves"):
        assert path.stat().st_size > 10_000
    text = (tmp_path / "curves.html").read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=.https?:", text)


@pytest.mark.skipif(not page.chromium(), reason="no Chromium on this machine: figures are HTML only")
def test_png_where_a_chromium_is_found(records, tmp_path):
    paths = page.save(charts.accuracies(frame(records)), tmp_path / "accuracy")
    assert [p.suffix for p in paths] == [".html", ".png"] and paths[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("browser, said", [("", "no Chromium found"), ("/bin/false", "draws no PNG")])
def test_without_a_chromium_that_draws_figures_are_html_and_it_is_said(records, tmp_path, monkeypatch, capsys, browser, said):
    monkeypatch.setenv("BROWSER_PATH", browser)
    monkeypatch.setattr(page.shutil, "which", lambda name: None)
    page.chromium.cache_clear()
    paths = tables.write_figures(frame(records), tmp_path)
    page.chromium.cache_clear()
    assert {p.suffix for p in paths} == {".html"} and said in capsys.readouterr().out


def test_mistakes_are_the_sentences_most_runs_got_wrong_and_are_escaped(records):
    test = limited(load_dataset("builtin"), "test", 40)
    wrong = (np.array([r["test_predictions"] for r in records]) != test.labels).mean(axis=0)
    table = tables.mistakes(frame(records), test, rows=5)
    assert [test.texts.index(s) for s in table.sentence] == list(np.argsort(-wrong, kind="stable")[:5])
    table.loc[0, "sentence"] = "<script>alert(1)</script>"
    assert "<script>" not in page.table_html(table).to_html()


def test_formulas_become_mathml_and_code_stays():
    text = mathml("a $x_1$ and `cost $5 or $6` and $$\\hat v \\circ h$$")
    assert text.count("<math") == 2 and "`cost $5 or $6`" in text and 'display="block"' in text


def compared(*gaps: float) -> pd.DataFrame:
    """Runs of plain fine-tuning at 80%, and of DNM with the same seeds that many points above."""
    return pd.DataFrame([dict(data="subj", n_train=50, labels=["a", "b"], title=title, seed=seed, accuracy=80 + more)
                         for seed, gap in enumerate(gaps) for title, more in (("Plain fine-tuning", 0), ("DNM", gap))])


@pytest.mark.parametrize("gaps, said", [
    ([2, 1, 3, 2, 1, 3, 2, 2], ["82.0 ± 0.3% of", "fine-tuning 80.0 ± 0.0% (", "8 seeds; guessing: 50%", "2.0 points above", "So DNM helps here", "0.8% of"]),
    ([-2, -1, -3, -2, -1, -3, -2, -2], ["2.0 points below", "So DNM does harm here"]),
    ([2, -1, 3, -2, 1, -3, 2, 0], ["0.2 points above", "cannot be told: chance alone", "takes about 568 seeds"]),
    ([2, 1, 3], ["2.0 points above plain fine-tuning (+2.0, +1.0, +3.0)", "cannot be told: fewer than 6 pairs", "takes about 6 seeds"]),
    ([2], ["82.0%", "1 seed;", "2.0 points above plain fine-tuning. ", "cannot be told: fewer than 6 pairs tell nothing from chance."]),
])
def test_the_reports_three_sentences_follow_from_its_runs(gaps, said):
    text = report.answer(compared(*gaps))
    assert all(part in text for part in said), text
    assert len(re.findall(r"[a-z)]\. |\.$", text)) == 3 and "nan" not in text
    if len(gaps) >= 6:  # of fewer an interval would be too short
        gap = difference([gaps])
        assert f"{gap.low:+.1f} to {gap.high:+.1f}" in text and ("helps here" in text) == (gap.p < 0.05 and gap.mean > 0)
    assert "cannot tell" in report.answer(compared(*gaps)[lambda runs: runs.title == "DNM"])


def test_a_report_is_written_where_no_runs_are_kept(monkeypatch, runs, tiny):
    records = run_all([tiny(method="plain"), tiny(method="dnm")], runs, workers=1)
    told = report.opening(frame(records))
    assert "The study itself, 50 labels" in told
    monkeypatch.setattr(beside, "project_root", lambda: Path("/nowhere"))
    assert "The study itself" not in report.opening(frame(records)) and "cannot be told" in told
    monkeypatch.setattr(beside, "kept_runs", lambda: frame(records))  # without the control
    assert "The study itself" not in report.opening(frame(records))


def test_a_reports_links_lead_somewhere_from_where_it_lies_or_are_text(tmp_path):
    cells = [nbformat.v4.new_markdown_cell(
        "# 04 · Training: why?\n\n[data](../data/report/paper.md) [page](04_training.ipynb) [other](07_your_data.ipynb#End) "
        "[gone](no/such.md) [below](#End) [web](https://aclanthology.org)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "04_training.ipynb")
    text = write_report([tmp_path / "04_training.ipynb"], None, tmp_path / "out" / "report.html").read_text()
    links = {name: unquote(link) for link, name in re.findall(r'<a href="([^"]+)">(\w+)</a>', text)}
    assert links.pop("page") == "#04_training" and links.pop("web") == "https://aclanthology.org" and " gone below " in text
    for name, path in dict(data="data/report/paper.md", other="notebooks/07_your_data.ipynb").items():
        assert (tmp_path / "out" / links[name]).resolve() == TRAINING.parents[1] / path
    assert '<a href="#04_training">04 · Training</a>' in text


def test_a_page_folds_code_says_what_was_injected_and_drops_widgets(tmp_path):
    make, path = nbformat.v4, tmp_path / "04_training.ipynb"
    given = make.new_code_cell("seeds = [7]", metadata=dict(tags=["injected-parameters"]))
    shown = [make.new_output("display_data", {"text/plain": "A widget: run this", report.WIDGET: {"model_id": "0"}}),
             make.new_output("stream", text="<b> \x1b[31mred"), make.new_output("display_data", {"image/png": "AAAA"})]
    nbformat.write(make.new_notebook(cells=[given, make.new_code_cell("print(1 < 2)", outputs=shown)]), path)
    text = write_report([path], None, tmp_path / "report.html", "notebooks on subj").read_text()
    body = text[text.index("<section"):text.index("</section>")]
    assert "Dynamic nonlinear mixup: notebooks on subj</h1>" in text and "A widget" not in body
    assert body.index("made with the values below") < body.index("seeds") and body.count('<details class="code">') == 1
    assert '&lt;b&gt; \\x1b[31mred' in body and "data:image/png;base64,AAAA" in body


def test_sentences_of_a_table_keep_a_readable_width_and_numbers_stand_to_the_right_on_one_line():
    numbers = {"ours": ["87.5 ± 1.0", "not run"], "gap": ["-1.2 [-3.0, +0.6]", "–"], "n": [50, "all"], "seeds": [3, 12],
               "rate": [1e-5, np.nan], "in pictures": ["0.52 to 0.55", "−0.00 to +0.02"], "needed": ["", "> 1000"], "share": ["100%", "7%"]}
    texts = {"sentence": ["слово 12 " * 12, "short"], "class": ["1", "no"], "profile": ["quick (steps=100)", "quick"], "none": ["", "a_1"]}
    text = page.table_html(pd.DataFrame(numbers | texts)).to_html()
    looks = [(selector.split()[-1], props) for selector, props in re.findall(r"([^{}]+)\{([^}]+)\}", text[:text.index("</style>")])]
    assert all("text-align: left" in props and "white-space: nowrap" in props for _, props in looks[:2])
    assert {where for where, props in looks if "right" in props} == {f"{cell}.col{i}" for cell in ("th", "td") for i in range(len(numbers))}
    assert [where for where, props in looks if "min-width: 17em" in props] == [f"td.col{len(numbers)}"]


def test_tables_and_reports_are_rebuilt_from_stored_runs_by_the_command_line(records, tmp_path):
    from dnm.cli import main

    (tmp_path / "runs.json").write_text(json.dumps({"runs": records}))
    assert main(["report", str(tmp_path / "runs.json"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "results.md").read_text().count("\n| ") == 5
    with pytest.raises(DnmError, match="no finished runs"):
        (tmp_path / "empty").mkdir()
        load(tmp_path / "empty")


def test_the_readmes_python_runs_as_written(tmp_path, monkeypatch):
    snippet, shown = re.search(r"```python\n(.+?)```\n+```\n(.+?)```", (TRAINING.parents[1] / "README.md").read_text(), flags=re.S).groups()
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown == "['pleased' 'disappointed']\n"  # as a person would say it, too
    assert (tmp_path / "notes-model" / "head.safetensors").exists()


def test_a_folder_named_like_the_package_does_not_hide_it(tmp_path):
    for room in ("data", "runs", "notebooks"):
        (tmp_path / "dnm" / room).mkdir(parents=True)
    done = subprocess.run([sys.executable, "-m", "dnm", "list"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- papermill

def run_papermill(tmp_path, cwd, *parameters):
    out = tmp_path / "out.ipynb"
    arguments = [str(part) for name, value in parameters for part in ("-p", name, value)]
    done = subprocess.run([sys.executable, "-m", "papermill", str(TRAINING), str(out), *arguments, "-p", "store",
                           str(tmp_path / "runs")], cwd=cwd, capture_output=True, text=True, timeout=400)
    return done, out


@pytest.mark.parametrize("where", ["root", "elsewhere"])
def test_papermill_from_the_root_and_from_elsewhere(tmp_path, where, tiny_models):
    cwd = TRAINING.parents[1] if where == "root" else tmp_path
    dataset = ("dataset", "subj") if os.environ.get("DNM_DATA_DIR") else ("dataset", "builtin5")
    done, out = run_papermill(tmp_path, cwd, dataset, ("sizes", 50), ("encoder", tiny_models["bert"]),
                              ("methods", "plain,dnm"), ("seeds", 0))
    assert done.returncode == 0, done.stderr[-2000:]
    outputs = [o for cell in json.loads(out.read_text())["cells"] for o in cell.get("outputs", [])]
    figures = [o["data"]["application/vnd.plotly.v1+json"] for o in outputs
               if "application/vnd.plotly.v1+json" in o.get("data", {})]
    assert len(figures) == 5 and all(figure["data"] for figure in figures)
    tables = [o for o in outputs if "text/html" in o.get("data", {})]
    assert any("DNM" in "".join(o["data"]["text/html"]) for o in tables)
    stored = [json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*.json")]
    assert {(r["data"]["name"], r["config"]["method"], r["config"]["n_train"]) for r in stored} == {
        (dataset[1], name, 50) for name in ("plain", "dnm", "nonlinearmixup")}


@pytest.fixture(scope="module")
def kernel():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("name, value, message", [("dataset", "sbj", "did you mean 'subj'"), ("methods", "dmn", "dnm"),
                                                  ("sizes", "few", "n_train must be"), ("datset", "subj", "did you mean 'dataset'"), ("seeds", "a,b", "whole numbers"),
                                                  ("profile", "quik", "quick"), ("encoder", "lstmm/", "did you mean 'lstm'")])
def test_a_wrong_parameter_stops_the_notebook_before_training(tmp_path, kernel, name, value, message):
    """Injected by papermill; the cells run in one kernel for all of these tests, which forgets one before the next."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = parameterize_notebook(load_notebook_node(str(TRAINING)), {name: value, "store": str(tmp_path / "runs")})
    kernel.execute_interactive("get_ipython().reset(new_session=True)", timeout=60)
    for source in [cell.source for cell in notebook.cells if cell.cell_type == "code"]:
        reply = kernel.execute_interactive(source, timeout=120, output_hook=lambda message: None)["content"]
        if reply["status"] == "error":
            break
    assert reply["status"] == "error" and reply["ename"] == "DnmError" and message in reply["evalue"]
    assert not list(tmp_path.glob("runs/*.json"))


def test_a_wrong_parameter_at_papermills_own_command_line(tmp_path):
    done, _ = run_papermill(tmp_path, tmp_path, ("datset", "subj"))
    assert done.returncode != 0 and "did you mean 'dataset'" in done.stderr
    assert not list(tmp_path.glob("runs/*.json"))


def test_run_all_after_the_study_trains_nothing():
    """What the notebooks come with is what `make study` trains, and 06 looks at models of 04."""
    studied = dict(dataset="builtin", profile=parser().parse_args(["study"]).profile)
    needs = {path.stem[:2]: runs_of(path, {}) for path in notebooks()}
    for path in notebooks():
        given = {name: value for name, value in studied.items() if name in declared(path)}
        assert runs_of(path, given) == needs[path.stem[:2]], path.stem
    assert len(needs["04"]["configs"]) == 12 and needs["06"]["models"]
    assert {config.hash for config in needs["06"]["models"]} <= {config.hash for config in needs["04"]["configs"]}


def test_the_study_executes_and_reports_offline(tmp_path, executed, runs, tiny_models):
    done, status = executed(TRAINING), []
    assert "widgets" not in json.loads(done.read_text())["metadata"]
    configs = grid(["plain", "logreg"], [0], "lesson", encoder=str(tiny_models["bert"]))
    records = run_all(configs, runs, on_status=status.append)
    assert status[-1].reused == 2 and status[-1].trained == 0  # all there: nothing trains
    text = write_report([done], frame(records), tmp_path / "report.html").read_text()
    assert text.count("plotly-graph-div") >= 5 and "Plain fine-tuning" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", text)
    with pytest.raises(DnmError, match="unknown parameter of 04_training.ipynb 'method'; did you mean 'methods'"):
        execute(TRAINING, tmp_path / "never.ipynb", {"method": "plain"})
    with pytest.raises(DnmError, match="seeds must be list"):
        execute(TRAINING, tmp_path / "never.ipynb", {"seeds": 1.5})
    assert not (tmp_path / "never.ipynb").exists()
    damaged = json.loads(done.read_text())
    damaged["cells"][2]["source"] = damaged["cells"][4]["source"] = ["raise ValueError('on purpose')"]
    (tmp_path / "bad.ipynb").write_text(json.dumps(damaged))
    with pytest.raises(DnmError, match="ValueError: on purpose"):
        execute(tmp_path / "bad.ipynb", tmp_path / "bad_out.ipynb", {})


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_the_exercises_solutions_run(path, executed):
    """A copy of the notebook with its folded solutions as cells, on small settings."""
    codes = solutions(path)
    assert len(codes) >= 3
    done = json.loads(executed(path).read_text())["cells"][-len(codes):]
    assert ["".join(cell["source"]) for cell in done] == codes
    assert all(cell["outputs"] for cell in done), "a solution that shows nothing"
    assert "agrees: False" not in executed(path).read_text()  # what a notebook computes in two ways


def test_the_batch_job_of_the_teachers_page_runs_on_a_hundred_rows(tmp_path, tiny_models, monkeypatch, capsys):
    """Every `dnm` command of the page, as written but for a tiny model and a size that the table does not have."""
    from dnm.cli import main

    page = (TRAINING.parent / "TEACHING.md").read_text()
    commands = [command.split() for command in re.findall(r"`(?:python -m )?dnm (.+?)`", page)]
    assert ["run", "02", "04", "06", "--datasets", "reviews.csv"] in commands
    train = load_dataset("builtin").train
    rows = [f'"{text}",{("bad", "good")[label]}\n' for text, label in zip(train.texts[:100], train.labels, strict=False)]
    (tmp_path / "reviews.csv").write_text("review,verdict\n" + "".join(rows))
    monkeypatch.chdir(tmp_path)
    small = dict(encoder=tiny_models["bert"], store="runs", methods="plain,dnm", seeds="0", perplexities="5", sentences="40", sizes="50,200")
    for command in commands:
        options = [part for name, value in small.items() for part in ("-p", name, str(value))]
        assert main([*command, "--out", "out", *options]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.partition("reviews.csv")[2] for line in told] == [  # each once
        ": only 10 test sentences, so one more right or wrong is 10 points of accuracy",
        " has 80 training sentences, so n_train of 200 becomes all"]
    stored = [json.loads(path.read_text())["config"] for path in tmp_path.glob("runs/*.json")]
    assert {config["n_train"] for config in stored} == {50, "all"}
    assert {path.name for path in tmp_path.glob("out/reviews/*")} == {
        "02_distance_selection.ipynb", "04_training.ipynb", "06_tsne.ipynb", "report.html"}


@pytest.mark.parametrize("dataset", ["builtin5", *(pytest.param(name, marks=needs_real_data) for name in ("subj", "mr", "sst2", "sst1"))])
def test_the_batch_job_leaves_its_artifacts_for_every_data_set(dataset, tmp_path, tiny_models, capsys):
    parameters = dict(encoder=str(tiny_models["bert"]), store=str(tmp_path / "runs"), methods=["plain", "dnm"], sizes=[50],
                      seeds=[0], perplexities=[10], sentences=40)
    written = run_batch(["02", "04", "06"], [dataset], tmp_path / "out", parameters)
    assert [p.name for p in written] == ["02_distance_selection.ipynb", "04_training.ipynb", "06_tsne.ipynb", "report.html"]
    for path, least in zip(written, (4, 5, 4), strict=False):
        outputs = [o for cell in json.loads(path.read_text())["cells"] for o in cell.get("outputs", [])]
        assert not any(o["output_type"] == "error" for o in outputs)
        figures = [o["data"]["application/vnd.plotly.v1+json"] for o in outputs if "application/vnd.plotly.v1+json" in o.get("data", {})]
        assert len(figures) >= least and all(figure["data"] for figure in figures)
        assert dataset in path.read_text() and "builtin - " not in path.read_text()
    assert written[-1].stat().st_size > 1_500_000
    assert f"notebooks on {dataset}</h1>" in written[-1].read_text() and f"On {dataset}, with 50 labelled" in written[-1].read_text()


@needs_real_data
@pytest.mark.parametrize("dataset", ["mr", "sst2", "sst1"])
def test_the_real_data_sets_train(dataset, tiny_models, tmp_path):
    config = grid(["dnm"], [0], "smoke", dataset=dataset, encoder=str(tiny_models["bert"]), steps=4, eval_every=2)
    record = run_all(config, RunStore(tmp_path))[0]
    assert len(record["test_predictions"]) == 100 and len(record["data"]["labels"]) == (5 if dataset == "sst1" else 2)


# ---------------------------------------------------------------- other surroundings

def test_a_notebook_of_ones_own_runs_in_this_python_and_its_figures_survive_an_export(tmp_path, monkeypatch):
    """Its parameters have no types, and the python3 kernel that is registered is of a Python that cannot run it."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["/bin/false", "{connection_file}"], "display_name": "Other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("DNM_PNG", "PLOTLY_RENDERER"):
        monkeypatch.delenv(name, raising=False)
    new = nbformat.v4
    code = ("import sys\nimport plotly.graph_objects as go\nfrom dnm.notebook.start import setup_notebook\nsetup_notebook()\n"
            "print(sys.executable)\ngo.Figure(go.Bar(y=sizes)).show()")
    cells = [new.new_code_cell('sizes = [50]\nloud = False\nwide: dict = {}', metadata={"tags": ["parameters"]}), new.new_code_cell(code)]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new.new_notebook(cells=cells, metadata=about), tmp_path / "08_mine.ipynb")
    done = nbformat.read(execute(tmp_path / "08_mine.ipynb", tmp_path / "done.ipynb", {"sizes": [71, 72], "loud": True}), 4)
    assert done.cells[-1].outputs[0].text.strip() == sys.executable
    assert [{report.PLOTLY, "text/html"} <= output.data.keys() for output in done.cells[-1].outputs[1:]] == [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = HTMLExporter().from_notebook_node(done)[0]
    assert re.search(r"Plotly\.newPlot\([^)]*71, ?72", text)
    with pytest.raises(DnmError, match="did you mean 'sizes'"):
        execute(tmp_path / "08_mine.ipynb", tmp_path / "never.ipynb", {"size": 3})


def test_a_renderer_that_somebody_chose_stays():
    code = "from dnm.notebook.start import setup_notebook; setup_notebook(); import plotly.io; print(plotly.io.renderers.default)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PLOTLY_RENDERER": "svg"})
    assert done.stdout.strip() == "svg", done.stderr


# ---------------------------------------------------------------- a file's columns, wherever it can be named

@pytest.fixture
def shop(tmp_path):
    """A file whose columns cannot be guessed rightly."""
    train, path = load_dataset("builtin").train, tmp_path / "shop.csv"
    pd.DataFrame({"comment": train.texts[:100], "opinion": [("bad", "good")[y] for y in train.labels[:100]],
                  "verified": ["no", "yes"] * 50}).to_csv(path, index=False)
    return path


COLUMNS = {"text_column": "comment", "label_column": "opinion"}
TAKE_DATA = [path for path in notebooks() if "dataset" in declared(path)]


@pytest.mark.parametrize("path", TAKE_DATA, ids=lambda p: p.stem)
def test_every_notebook_that_takes_a_data_set_takes_its_columns(path, shop, small, tmp_path):
    """Its code until it has made its runs."""
    given, names = small(path, store=str(tmp_path)) | {"dataset": str(shop)} | COLUMNS, {"In": ["", ""]}
    assert len(TAKE_DATA) == 6 and given.keys() <= declared(path).keys()
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code" and not {"config", "configs"} & names.keys():
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= given
    configs = names.get("configs") or [names["config"]]
    assert {(config.dataset, config.text_column, config.label_column) for config in configs + names.get("more", [])} == {
        (str(shop), "comment", "opinion")}


def test_the_batch_job_the_study_and_the_paper_take_a_files_columns(shop, tiny_models, tmp_path, monkeypatch, capsys):
    from dnm.cli import main

    columns = [part for name, value in COLUMNS.items() for part in ("-p", name, value)]
    assert main(["run", "02", "--datasets", str(shop), *columns, "-p", "encoder", str(tiny_models["bert"]), "-p", "n_train", "24",
                 "--out", str(tmp_path / "out")]) == 0
    command = ["paper", "table10", "--sizes", "24", "--seeds", "0", "--encoder", "cnn", "--profile", "smoke", "--dry-run"]
    assert main([*command, "--runs", str(tmp_path / "runs"), "--datasets", str(shop), "builtin", *columns]) == 0
    assert "guessed" not in capsys.readouterr().err
    alone, beside = (experiment("table10", sizes=["24"], datasets=[*more, "builtin"], **columns)
                     for more, columns in (([], {}), ([str(shop)], COLUMNS)))
    assert {config.hash for config in alone} < {config.hash for config in beside}  # a named set's runs stay what they are
    jobs = []

    def train_all(some, store):
        jobs.extend(some)
        raise DnmError("enough")

    monkeypatch.setattr(batch, "train_all", train_all)
    assert main(["study", "--dataset", str(shop), "--text-column", "comment", "--label-column", "opinion", "--out", str(tmp_path)]) == 2
    given = {path.stem[:2]: values for path, _, values in jobs}
    assert all(given[number].items() >= {"dataset": str(shop), **COLUMNS}.items() for number in ("01", "02", "03", "04", "05", "06"))
    assert given["07"].items() >= {"file": str(shop), **COLUMNS}.items() and not COLUMNS.keys() & given["00"].keys()
