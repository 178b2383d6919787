"""The notebooks in a real JupyterLab, used through headless Chromium as a reader would; the report from disk, offline."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drive
import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from dnm.notebook.batch import notebooks
from dnm.notebook.page import write_report
from dnm.plots.page import save

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
        if kind == "slider":
            print(number, "milliseconds from key to picture:", round(drive.milliseconds(plot, kind, "ArrowLeft", place)))
    assert drive.close(page.context) == []
    twins = drive.interactive(page)
    assert twins >= len(CONTROLS[number])
    for n in range(twins):
        plot = drive.figure(page, n, drive.TWIN)
        before = drive.drawn(plot)
        for share in (0.99, 0.5, 0.01):  # it stands at one of these at most
            drive.slide(plot, share)
            if drive.moves(lambda plot=plot: drive.drawn(plot), before):
                break
        else:
            pytest.fail(f"the {n}. figure with a slider does not move")


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
    assert points() == 5 and "1/1 runs" in said.inner_text()  # the lesson profile evaluates five times


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
