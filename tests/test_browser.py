"""The notebooks in a real JupyterLab, used through headless Chromium as a reader would; the report from disk, offline."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import drive
import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from dnm.data.datasets import load_dataset
from dnm.methods import METHODS
from dnm.notebook.batch import notebooks
from dnm.notebook.page import write_report
from dnm.plots import charts, drawings
from dnm.plots import lab as lab_picture
from dnm.plots.page import figure_html, save, table_html
from dnm.plots.page import page as write_page
from dnm.plots.plain import visible
from dnm.runs.results import load
from dnm.study import compare
from dnm.study import report as paper_report
from dnm.study.explore import Batch
from dnm.study.statistics import Difference

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: nothing to drive JupyterLab with")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
FOLDERS = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
           "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight may be detached
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
NOTEBOOKS = {path.stem[:2]: path for path in notebooks()}
# Each widget of a notebook: the keys for each of its controls, every one of which has to change what is drawn.
CONTROLS = {
    "01": [[("toggle", 1, "Space"), ("slider", 0, "ArrowRight"), ("slider", 1, "ArrowLeft"), ("slider", 2, "ArrowRight")]],
    "02": [[("slider", 0, "ArrowRight"), ("slider", 1, "ArrowLeft")]],
    "03": [[("slider", 0, "ArrowLeft")], [("text", 0, "End", "!")]],
    "06": [[("slider", 0, "ArrowRight"), ("slider", 1, "ArrowRight")], [("slider", 2, "ArrowRight"), ("slider", 3, "ArrowRight")]],
    "07": [[("text", 0, "End", "!")]],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab that leaves the user's own settings alone: a notebook's address less its name, and its folder."""
    home, token = tmp_path_factory.mktemp("lab"), secrets.token_hex()
    for plugin, values in SETTINGS.items():
        path = home / f"JUPYTERLAB_SETTINGS_DIR/@jupyterlab/{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    (root := home / "root").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], stdout=log, stderr=log,
                                  env=os.environ | {name: str(home / name) for name in FOLDERS})

    def answers() -> bool:
        assert server.poll() is None, (home / "log").read_text()
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token={token}", timeout=5).status == 200
        except OSError:
            return False

    try:
        drive.changed(answers, False, 120)
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?reset&token={token}", root
    finally:
        server.terminate()  # at which it ends its kernels
        server.wait(60)


@pytest.fixture(scope="module")  # no longer: while Playwright is up, asyncio.run fails in this thread
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def opened(lab, browser, small):
    """Opens and runs a notebook with a small encoder and gives its page; at the end, no callback may have failed."""
    def open_notebook(number: str, **more):
        path, target = NOTEBOOKS[number], lab[1] / f"{number}.ipynb"
        given = small(path, **{"methods": ["plain", "dnm"]} | more)
        nbformat.write(parameterize_notebook(load_notebook_node(str(path)), given), target)
        return drive.run(context, lab, target)

    with browser.new_context(viewport=drive.SIZE) as context:
        yield open_notebook
        assert drive.close(context) == []


@pytest.mark.parametrize("number", CONTROLS)
def test_every_control_moves_its_widget_and_the_twins_move_without_a_kernel(opened, number):
    page = opened(number)
    for n, controls in enumerate(CONTROLS[number]):
        plot = drive.figure(page, n, drive.WIDGET)
        seen = drive.drawn(plot)
        for kind, place, *keys in controls:
            drive.press(page, kind, *keys, n=place)
            seen = drive.changed(lambda plot=plot: drive.drawn(plot), seen)
        drive.shown(plot, f"{number}-{n}")
        if kind == "slider":
            print(number, "milliseconds from key to picture:", round(drive.milliseconds(plot, kind, "ArrowLeft", place)))
    assert drive.close(page.context) == []
    twins_move(page, len(CONTROLS[number]))


def twins_move(page: Any, least: int) -> None:
    twins = drive.interactive(page)
    assert twins >= least
    for n in range(twins):
        plot = drive.figure(page, n, drive.TWIN)
        before = drive.drawn(plot)
        for share in (0.99, 0.5, 0.01):  # it stands at one of these at most
            drive.slide(plot, share)
            if drive.moves(lambda plot=plot: drive.drawn(plot), before):
                break
        else:
            pytest.fail(f"the {n}. figure with a slider does not move")


def test_the_ablation_lab_answers_a_click_and_the_keyboard(opened):
    """Rows that are trained already at once; others, three seeds of a tiny encoder, a moment later."""
    page = opened("05")
    plot, said = drive.figure(page, 0, drive.WIDGET), page.locator(".widget-html-content").first
    before = drive.drawn(plot)
    assert len(before[0]["x"]) == 3 and before[0]["x"] == before[2]["x"]  # full DNM beside itself
    page.locator(drive.KINDS["toggle"]).nth(1).click()  # nearest
    assert len(drive.changed(lambda: drive.drawn(plot)[2]["x"], before[2]["x"])) == 3
    for place in (8, 13, 16, 19):  # K = 3, inputs fixed, labels fixed, cross-entropy
        begun = time.monotonic()
        drive.press(page, "toggle", "Space", n=place)
        for before in (True, False):  # what it said of the last, then of this one
            drive.changed(lambda: "3 seeds in" in said.inner_text(), before)
        drive.changed(lambda: len(drive.drawn(plot)[2]["x"] or []) == 3, False)
        print("05: seconds from click to picture:", round(time.monotonic() - begun, 2))
    drive.shown(plot, "05-lab")
    assert drive.close(page.context) == []
    twins_move(page, 1)


def test_live_training_starts_stops_and_goes_on(opened, tmp_path, tiny_models):
    import transformers as hf

    slow, tokenizer = tmp_path / "slow", hf.AutoTokenizer.from_pretrained(tiny_models["bert"])  # time enough to press Stop
    hf.BertModel(hf.BertConfig(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=256,
                               vocab_size=tokenizer.vocab_size, max_position_embeddings=140)).save_pretrained(slow)
    tokenizer.save_pretrained(slow)
    page = opened("04", profile="lesson", methods=["plain"], seeds=[0], encoder=str(slow), store=str(tmp_path / "runs"))
    plot = drive.figure(page, 0, drive.WIDGET)
    said, start = page.locator(".widget-html-content").first, page.get_by_role("button", name="Start", exact=True)

    def points() -> int:
        return len(drive.drawn(plot)[0]["x"] or [])

    drive.click(page, "Start")
    drive.changed(points, 0)
    drive.click(page, "Stop")
    drive.changed(start.is_enabled, False)
    stopped = points()
    assert 0 < stopped < 4 and "press Start" in said.inner_text()
    drive.click(page, "Start")
    drive.changed(points, stopped)
    drive.changed(start.is_enabled, False, 60)
    drive.shown(plot, "04-live")
    assert points() == 5 and "1/1 runs" in said.inner_text()  # the lesson profile evaluates five times


def test_pasted_rows_become_a_classifier(opened):
    """The notebook's own sentence box comes first, the one that the widget brings once it has trained second."""
    page = opened("07", method="plain", folds=2)
    data = load_dataset("builtin")
    rows = "Remark\tVerdict\n" + "".join(f"{text}\t{data.label_names[y]}\n" for text, y in zip(data.train.texts[:80], data.train.labels[:80], strict=True))
    said = page.locator(".widget-html-content")
    page.locator(".widget-textarea textarea").fill(rows)
    drive.changed(lambda: "80 rows: 45 pleased, 35 disappointed" in said.all_inner_texts()[0], False)
    drive.click(page, "Train")
    drive.changed(lambda: "test accuracy" in said.all_inner_texts()[1], False, 120)
    plot = drive.figure(page, 2, drive.WIDGET)
    before = drive.drawn(plot)
    drive.press(page, "text", "End", "!", n=1)
    drive.changed(lambda: drive.drawn(plot), before)
    drive.shown(plot, "07-table")


def test_the_report_draws_every_figure_with_the_network_off(browser, tmp_path, executed):
    walked = [executed(path) for path in notebooks()]
    figures = [output for path in walked for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])
               if "application/vnd.plotly.v1+json" in output.get("data", {})]
    page, counts, errors = drive.offline(browser, write_report(walked, None, tmp_path / "report.html"))
    assert len(counts) == len(figures) >= 25 and all(counts) and errors == []
    assert page.locator("math").count() > 10
    plot = drive.figure(page, 0, drive.TWIN)
    before = drive.drawn(plot)
    drive.slide(plot, 0.99)
    drive.changed(lambda: drive.drawn(plot), before)


def test_a_figure_file_draws_with_the_network_off(browser, tmp_path):
    from dnm.plots.drawings import architecture, playground

    for name, figure in {"architecture": architecture(), "playground": playground()}.items():
        save(figure, tmp_path / name)
        _, counts, errors = drive.offline(browser, tmp_path / f"{name}.html")
        assert len(counts) == 1 and errors == []


# ---------------------------------------------------------------- the report

SMALL = {"viewport": {"width": 400, "height": 800}}
# Texts of a figure that lie on each other, or run over its left or upper edge.
COLLIDING = """gd => {
  const texts = [...gd.querySelectorAll('.gtitle, .annotation-text')].map(e => [e.textContent, e.getBoundingClientRect()])
  const edge = gd.getBoundingClientRect(), bad = texts.filter(([, r]) => r.left < edge.left - 1 || r.top < edge.top - 1)
  texts.forEach(([a, r], i) => texts.slice(i + 1).forEach(([b, s]) => {
    if (r.left < s.right - 1 && s.left < r.right - 1 && r.top < s.bottom - 1 && s.top < r.bottom - 1) bad.push([a, b])
  }))
  return bad.map(([a, b]) => `${a} | ${b}`)
}"""
# The lowest contrast (WCAG's) of a figure's words with the page behind it, and what lies between them.
CONTRAST = """gd => {
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], .05)
  const parts = colour => colour.match(/[\\d.]+/g).map(Number), page = light(parts(getComputedStyle(document.body).backgroundColor))
  const words = [...gd.querySelectorAll(':is(.gtitle, .xtick text, .ytick text, .annotation-text, .legendtext)')]
  return Math.min(...words.map(e => light(parts(getComputedStyle(e).fill))).map(v => Math.max(v, page) / Math.min(v, page)))
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report of the committed notebooks and of kept runs."""
    return write_report(notebooks(), load(NOTEBOOKS["00"].parents[1] / "data" / "results" / "subj-50-200-steps.json"),
                        tmp_path_factory.mktemp("report") / "report.html")


def figures(page: Any) -> list[Any]:
    return page.locator(".plotly-graph-div").all()


@pytest.mark.parametrize("settings", [{}, SMALL], ids=["wide", "narrow"])
def test_the_first_screen_holds_the_answer_and_the_navigation(browser, report, settings):
    page, _, errors = drive.offline(browser, report, **settings)
    height, width = page.viewport_size["height"], page.viewport_size["width"]
    study, said = page.locator("#answer p").all()[:2]
    assert study.inner_text().startswith("The study itself, 50 labels, 4 data sets")
    assert "cannot be told" in said.inner_text() and re.search(r"plain fine-tuning \([-+]\d\.\d, [-+]\d\.\d", said.inner_text())
    seen = height * (0.65 if settings else 0.5)  # two paragraphs take more of a narrow screen
    assert said.bounding_box()["y"] + said.bounding_box()["height"] < seen
    assert page.locator("#answer .plotly-graph-div").bounding_box()["y"] < seen
    if not settings:
        assert page.locator("#answer tbody tr").first.bounding_box()["y"] < height
    marked = page.locator("nav [aria-current]")
    assert marked.inner_text() == "The answer"
    for link in page.locator("nav a").all()[3:6]:
        name = link.inner_text()
        link.click()
        drive.changed(lambda name=name: marked.all_inner_texts() == [name], False)
        box = marked.bounding_box()  # the navigation stays, and what is marked in it is in sight
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and 0 <= box["y"] < height
    assert errors == []


def test_on_a_narrow_screen_nothing_runs_over(browser, report, tmp_path):
    page, _, errors = drive.offline(browser, report, **SMALL)
    page.locator("nav input").check()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400 and errors == []
    wide = [plot for plot in figures(page) if plot.bounding_box()["width"] > 400]  # these scroll in their box
    assert 0 < len(wide) < len(figures(page)) / 2
    method = page.locator(".figure:has-text('label embeddings')").first
    method.evaluate("box => box.scrollBy(500, 0)")
    assert method.evaluate("box => box.scrollLeft") > 200
    assert page.locator("nav").bounding_box()["height"] < 60
    text = table_html(pd.DataFrame({"sentence": ["a rather long sentence of many words " * 3] * 3, "class": ["no"] * 3})).to_html()
    (tmp_path / "table.html").write_text(write_page("Mistakes", text + figure_html(go.Figure(go.Pie(values=[1, 2])).update_layout(height=300)), {}))
    page, counts, errors = drive.offline(browser, tmp_path / "table.html", **SMALL)
    assert counts[0] > 2 and errors == []  # a figure of another make, too
    assert page.locator("td").first.bounding_box()["width"] > 250
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("width", [400, 768, 961, 1280])
def test_the_words_of_a_figure_never_lie_on_each_other(browser, report, width):
    page, _, errors = drive.offline(browser, report, viewport={"width": width, "height": 800})
    assert [text for plot in figures(page) for text in plot.evaluate(COLLIDING)] == [] and errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_code_is_folded_one_switch_opens_it_and_all_can_be_read_without_a_script(browser, report):
    page, _, _ = drive.offline(browser, report)
    folded, opened = page.locator("details.code"), page.locator("details.code[open]")
    assert folded.count() > 80 and opened.count() == 0 and not folded.first.locator("pre").is_visible()
    for step in (folded.count(), 0):
        page.locator("nav input").click()
        assert opened.count() == step
    assert not page.locator("main :text('run this notebook in JupyterLab')").count()
    bare = browser.new_page(java_script_enabled=False)
    bare.goto(report.as_uri())
    assert not bare.locator("nav input").is_visible() and bare.locator("#answer td").first.is_visible()
    bare.locator("details.code summary").first.click()
    assert bare.locator("details.code pre").first.is_visible()


def test_every_link_of_the_report_leads_somewhere(browser, report):
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    links = page.eval_on_selector_all("main a[href], nav a", "all => all.map(a => a.getAttribute('href'))")
    assert len(links) > 20
    for link in links:
        assert (page.locator(f"[id='{link[1:]}']").count() if link.startswith("#") else
                link.startswith("https://") or (report.parent / unquote(link)).exists()), link


def test_figures_are_dark_in_the_dark_and_change_with_it(browser, report):
    page, _, _ = drive.offline(browser, report, color_scheme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert min(plot.evaluate(CONTRAST) for plot in figures(page)) > 4.5
    grounds = {plot.locator(".main-svg").first.evaluate("svg => svg.style.background") for plot in figures(page)}
    assert grounds == {dark}
    page.emulate_media(color_scheme="light")
    last = figures(page)[-1].locator(".main-svg").first
    drive.changed(lambda: last.evaluate("svg => svg.style.background"), dark)
    assert min(plot.evaluate(CONTRAST) for plot in figures(page)) > 4.5


# ---------------------------------------------------------------- text is text

# Each would set `window.hacked`, or be something else than its own characters: HTML, a formula, Markdown, a template, a colour.
PAYLOADS = ["<script>hacked=1</script>", "<img src=x onerror=hacked=2>", "<svg onload=hacked=3>", "</script><script>hacked=4//",
            "</title><b onclick=hacked=5>", '" onmouseover="hacked=6" x="', "<a href='javascript:hacked=7'", "[a](javascript:hacked=8)",
            "$x^2$ and \\(y\\) $$z$$", "%{x} and %{fullData.name}", "&lt;b&gt; <b>b</b> **c** `d`", "\x1b[31mred\x1b]0;t\x07 \x08\x08",
            "=cmd()", "#000000"]
SEEN = "() => [...document.querySelectorAll('text, body')].map(e => e.localName === 'body' ? e.innerText : e.textContent).join(' ')"
# What a page would run, by any event or link; JupyterLab's own links to its settings and those of Plotly's buttons are none.
ARMED = """() => [...document.querySelectorAll('*')].filter(e => [...e.attributes].some(({ name, value }) =>
  /hacked/.test(value) && (/^on/.test(name) || /^\\s*javascript:/.test(value)))).map(e => e.outerHTML)"""
HOVERED = """gd => {
  const seen = [], real = Date.now
  let now = real()
  Date.now = () => now += 1000 // else Plotly draws one hover in 50 ms
  for (const trace of gd._fullData) {
    const most = Math.min(60, (trace.x ?? trace.y ?? []).length)
    for (let point = 0; point < most && trace.hoverinfo !== 'skip'; point++) {
      const at = trace.type === 'heatmap' ? { xval: point, yval: point } : [{ curveNumber: trace.index, pointNumber: point }]
      Plotly.Fx.hover(gd, at, trace.xaxis + trace.yaxis)
      seen.push(...[...gd.querySelectorAll('.hoverlayer text')].map(e => e.textContent))
    }
  }
  Date.now = real
  return seen.join(' ')
}"""


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def shows(page: Any, texts: list[str]) -> int:
    """Every figure is hovered; nothing has run or could run, and each text can be read; how many were looked for."""
    seen = page.evaluate(SEEN) + " ".join(plot.evaluate(HOVERED) for plot in page.locator(".js-plotly-plot").all())
    assert page.evaluate("window.hacked") is None and page.evaluate(ARMED) == []
    missing = [text for text in texts if squeezed(visible(text)) not in squeezed(seen)]
    assert not missing, missing
    return len(texts)


def evil_figures(runs: pd.DataFrame) -> dict[str, tuple[go.Figure, list[str]]]:
    """Every drawing of `dnm.plots` that shows texts from data, and those it must show."""
    n, one, rng = len(PAYLOADS), PAYLOADS[10], np.random.default_rng(0)
    points, matrix = rng.normal(size=(n, 2)), np.eye(n)
    batch = Batch(PAYLOADS, np.arange(n), tuple(PAYLOADS), torch.from_numpy(points))
    clouds, history = drawings.clouds(points, PAYLOADS, PAYLOADS, ""), [dict(step=1, train_loss=1.0, validation_accuracy=0.5)]
    named = {name: runs.assign(data=name).head(2) for name in PAYLOADS[:6]}
    fits = pd.DataFrame([dict(title=title, method="dnm", accuracy=50.0 + fold, repeat=0, fold=fold) for title in PAYLOADS for fold in (0, 1)])
    beside = pd.DataFrame([dict(table=6, dataset=name, method="plain", title=PAYLOADS[2], paper_gap=1.0, gap=0.0, paper_gap_error=0.1,
                                gap_error=0.1, n_train=50) for name in PAYLOADS[9:11]])
    verdicts = pd.DataFrame([dict(part=part, verdict="holds", paper=1.0, setting=one, ours=Difference(1.0, 0.5, 1.5, 0.01, 5, 1.0, 1))
                             for part in PAYLOADS])
    return {
        "learning_curves": (charts.learning_curves(runs), [*runs.title.unique()]), "accuracies": (charts.accuracies(runs), [*runs.title.unique()]),
        "regularisation": (charts.regularisation(pd.concat(named.values())), [f"{name[:20]}" for name in named]),
        "folds": (charts.folds(fits, one), [one, *PAYLOADS]), "beside_paper": (charts.beside_paper(beside), [PAYLOADS[2], *PAYLOADS[9:11]]),
        "verdicts": (charts.verdicts(verdicts), PAYLOADS), "lines": (charts.lines([1, 2], {name: [1, 2] for name in PAYLOADS}, one, "x", "y"), PAYLOADS),
        "confusion": (charts.confusion(matrix, PAYLOADS, one), [*PAYLOADS]), "trial": (lab_picture.trial(
            one, PAYLOADS[2], np.array([1.0]), np.array([2.0]), Difference(1.0, 0.5, 1.5, 0.1, 1, 1.0, 1)), [one, PAYLOADS[2]]),
        "partners": (drawings.partners(batch, points, np.corrcoef(points), 1, 3), PAYLOADS), "clouds": (clouds, PAYLOADS),
        "cosine_matrix": (drawings.cosine_matrix(batch, np.corrcoef(points)), PAYLOADS), "panels": (drawings.panels([clouds], [one], ""), [one, *PAYLOADS]),
        "so_far": (drawings.so_far(history, one, 2), [one]), "sentence": (drawings.sentence(points[:, 0], PAYLOADS, points[:6, 1], PAYLOADS[:6], one),
                                                                         [*PAYLOADS[:6], one]),
        "with_slider": (drawings.with_slider(lambda name: drawings.so_far(history, name, 2), "name", PAYLOADS[:3]), [PAYLOADS[0]])}


def test_no_text_from_data_is_more_than_its_characters_in_any_picture_or_page(browser, tmp_path, monkeypatch):
    """Sentences, labels, titles, names of columns, files and data sets that would run, be formatted or be formulas."""
    monkeypatch.setattr("dnm.plots.page.chromium", lambda: None)
    runs = load(NOTEBOOKS["00"].parents[1] / "data" / "results" / "subj-50-200-steps.json")
    runs = runs[runs.method.isin(["plain", "dnm"])].assign(data=PAYLOADS[1], encoder=PAYLOADS[2])
    runs = runs.assign(title=[METHODS[name].title + " " + PAYLOADS[9 + (name == "dnm")] for name in runs.method])
    drawn = evil_figures(runs)
    (tmp_path / "figures.html").write_text(write_page(PAYLOADS[4], "".join(figure_html(figure) for figure, _ in drawn.values()), {}))
    page, counts, errors = drive.offline(browser, tmp_path / "figures.html")
    assert errors == [] and all(counts) and page.title() == PAYLOADS[4]
    places = 0
    for plot, (name, (_, texts)) in zip(page.locator(".js-plotly-plot").all(), drawn.items(), strict=True):
        seen = squeezed(" ".join(plot.locator("text").all_text_contents()) + plot.evaluate(HOVERED))
        assert [text for text in texts if squeezed(visible(text)) not in seen] == [], name
        places += len(texts)
    shows(page, [])
    # Pages: every table, heading and note.
    rows = pd.DataFrame(dict.fromkeys(PAYLOADS, PAYLOADS))
    table = table_html(rows, PAYLOADS[1]).to_html()
    make = nbformat.v4
    outputs = [make.new_output("stream", text="\n".join(PAYLOADS)), make.new_output("display_data", {"text/html": table}),
               make.new_output("display_data", {"application/vnd.plotly.v1+json": json.loads(drawn["clouds"][0].to_json())})]
    nbformat.write(make.new_notebook(cells=[make.new_code_cell("x = " + repr(PAYLOADS), outputs=outputs)]), tmp_path / "00_evil.ipynb")
    fits = pd.DataFrame([dict(title=title, method=name, accuracy=50.0 + fold, repeat=0, fold=fold, f1=1.0, sure=[0.5], right=[True], seconds=1.0,
                              n_train=9, n_test=1, calibrated=True) for name, title in (("plain", PAYLOADS[0]), ("dnm", PAYLOADS[1])) for fold in (0, 1)])
    kept = load(NOTEBOOKS["00"].parents[1] / "data" / "results" / "subj-50-200-steps.json")
    pages = {
        write_report([tmp_path / "00_evil.ipynb"], runs, tmp_path / "report.html", PAYLOADS[3]): [*PAYLOADS, PAYLOADS[3]],
        compare.write(fits, PAYLOADS[1], " ".join(PAYLOADS), tmp_path / "compare")[1]: [*PAYLOADS, PAYLOADS[0], PAYLOADS[1]],
        next(path for path in paper_report.write(kept.assign(dataset=PAYLOADS[1]), tmp_path / "paper", [(PAYLOADS[0], 1, PAYLOADS[2])])
             if path.suffix == ".html"): PAYLOADS[:3],
        save(drawn["clouds"][0], tmp_path / "<img src=x onerror=hacked=9>")[0]: PAYLOADS}
    for path, texts in pages.items():
        page, _, errors = drive.offline(browser, path)
        places += shows(page, texts)
        assert errors == [], path
    print(f"{len(PAYLOADS)} payloads, {len(drawn)} figures, {len(pages)} pages: {places} texts read as their characters")


def test_a_table_of_payloads_stays_text_in_jupyterlab_in_widgets_and_in_the_exported_page(opened, browser, tmp_path):
    file, rng = tmp_path / f"{PAYLOADS[1]}.csv", np.random.default_rng(0)
    classes, names = (PAYLOADS[0], PAYLOADS[2]), [PAYLOADS[1], PAYLOADS[3]]
    rows = [(f"{PAYLOADS[i % 11]} tea {i} {' '.join(rng.choice(['bus', 'sea', 'hall', 'loaf'], 4))}", classes[i % 2]) for i in range(90)]
    pd.DataFrame(rows, columns=names).to_csv(file, index=False)
    page = opened("07", file=str(file), text_column=names[0], label_column=names[1], method="plain", methods=["logreg"], folds=2, steps=4,
                  store=str(tmp_path / "runs"))
    page.locator(".widget-textarea textarea").fill(file.read_text())
    said = page.locator(".widget-html-content").first
    drive.changed(lambda: "90 rows" in said.inner_text() and all(text in said.inner_text() for text in classes), False)
    twins = drive.interactive(page)
    places = shows(page, [file.name, *classes, *(text for text in PAYLOADS[:11] if text in page.evaluate(SEEN)), *names])
    written = page.evaluate("() => jupyterapp.shell.currentWidget.content.model.toJSON()")
    for cell in written["cells"]:
        cell.pop("attachments", None)
    (tmp_path / "07_your_data.ipynb").write_text(json.dumps(written))
    exported, _, errors = drive.offline(browser, write_report([tmp_path / "07_your_data.ipynb"], None, tmp_path / "report.html"))
    places += shows(exported, [file.name, *classes])
    assert errors == [] and twins >= 1
    print(f"notebook 07: {places} texts read as their characters")
