"""What a reader does in a page of JupyterLab, and what the page then shows, through Playwright."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = {"width": 1280, "height": 800}
KINDS = {"slider": ".jupyter-widgets .noUi-handle", "text": ".widget-text input", "button": "button.widget-button",
         "toggle": ".widget-toggle-buttons button"}
READY = "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.isReady"
CLOSE = """() => jupyterapp.shell.currentWidget.sessionContext.shutdown()
  .then(() => window.stderr?.includes('Traceback') ? [...complaints, stderr] : window.complaints)"""
# an error in a callback or a thread need not reach any cell's outputs, but does come by the kernel's iopub channel
RUN = """async seconds => {
  const { content, sessionContext } = jupyterapp.shell.currentWidget
  window.complaints = []; window.stderr = ''
  sessionContext.iopubMessage.connect((_, { header, content: { ename, evalue, name, text } }) => {
    if (header.msg_type === 'error') complaints.push(`${ename}: ${evalue}`)
    if (name === 'stderr') stderr += text  // where threads end: in pieces, between warnings
  })
  await Promise.race([jupyterapp.commands.execute('notebook:run-all-cells'),
    new Promise((_, no) => setTimeout(() => no(Error(`cells still run after ${seconds} s`)), seconds * 1000))])
  return content.model.toJSON().cells.filter(cell => cell.cell_type === 'code')
}"""
# plotly draws from _fullData, where base64 specs are arrays by now; in JSON NaN is null, which equals itself
DRAWN = """gd => {
  const plain = v => Array.isArray(v) || ArrayBuffer.isView(v) ? Array.from(v, plain) : v
  return JSON.stringify(gd._fullData.map(({ x, y, z, text, marker, visible }) => (
    { x: plain(x), y: plain(y), z: plain(z), text: plain(text), color: plain(marker?.color), visible })))
}"""
MARKS = """gd => [...gd.querySelectorAll(':is(.mlayer, .trace) :is(path, image, text)')].map(e => e.outerHTML)"""
STOPWATCH = """gd => {
  const seen = window.stopwatch = {}
  addEventListener('keydown', () => { seen.key = performance.now() }, { capture: true, once: true })
  gd.on('plotly_afterplot', () => { if (seen.key) seen.drawn ??= performance.now() })
}"""


def changed(look: Callable[[], Any], before: Any, seconds: float = 60) -> Any:
    """What is seen once it is no longer what it was."""
    end = time.monotonic() + seconds
    while (now := look()) == before:
        assert time.monotonic() < end, f"no change in {seconds} s"
        time.sleep(0.05)
    return now


def moves(look: Callable[[], Any], before: Any, seconds: float = 1) -> bool:
    """Whether what is seen becomes another soon."""
    try:
        return changed(look, before, seconds) != before
    except AssertionError:
        return False


def run(context: Any, lab: tuple[str, Path], path: Path, seconds: float = 300) -> Any:
    """The page of a notebook whose cells have all run to their end, none with an error."""
    if not (lab[1] / path.name).exists():
        shutil.copy(path, lab[1])
    page = context.new_page()
    page.goto(lab[0].format(path.name))
    page.wait_for_function(READY, timeout=90_000)
    for cell in page.evaluate(RUN, seconds):
        errors = [output["traceback"] for output in cell["outputs"] if output["output_type"] == "error"]
        assert not errors, "\n".join(errors[0])
        assert cell["execution_count"] or not "".join(cell["source"]).strip(), f"never ran: {cell['source']}"
    return page


def close(context: Any) -> list[str]:
    """End the kernels of all open notebooks; what they complained of since their cells were started."""
    return [complaint for page in context.pages for complaint in page.evaluate(CLOSE) or ()]


def press(page: Any, kind: str, *keys: str, n: int = 0) -> None:
    """Keys for the n-th control of a kind."""
    page.locator(KINDS[kind]).nth(n).focus()
    for key in keys:
        page.keyboard.press(key)


def click(page: Any, label: str) -> None:
    """Click the button with this label."""
    page.locator(KINDS["button"]).and_(page.get_by_role("button", name=label, exact=True)).click()


WIDGET, TWIN = ".jupyter-widgets .js-plotly-plot", ".js-plotly-plot:has(.slider-rail-touch-rect)"


def figure(page: Any, n: int = 0, kind: str = ".js-plotly-plot") -> Any:
    """The n-th plotly figure (of a widget, or with a slider of its own), once it is drawn."""
    found = page.locator(kind).nth(n)
    found.locator(".main-svg").first.wait_for(state="attached", timeout=60_000)
    return found


def shown(plot: Any, name: str) -> None:
    """Keep what a reader sees around a figure as a PNG in $DNM_SHOTS, where that is set: tests cannot tell beauty."""
    if folder := os.environ.get("DNM_SHOTS"):
        plot.scroll_into_view_if_needed()
        plot.page.screenshot(path=Path(folder) / f"{name}.png")


def interactive(page: Any) -> int:
    """Let the pointer enter every picture of the notebook, which makes a figure of it; how many have a slider."""
    pictures = page.locator(".jp-RenderedPlotly:has(.plot-img)")
    for n in range(pictures.count()):
        pictures.nth(n).locator(".plot-img").dispatch_event("mouseenter")
        pictures.nth(n).locator(".main-svg").first.wait_for(state="attached", timeout=60_000)
    return page.locator(TWIN).count()


def drawn(plot: Any) -> list[dict[str, Any]]:
    """What a figure shows of each trace: x, y, z, text, the markers' colour, visible or not."""
    return json.loads(plot.evaluate(DRAWN))


def marks(plot: Any) -> list[str]:
    """The SVG elements that stand for data; WebGL traces have none. They move when a figure is resized, too."""
    return plot.evaluate(MARKS)


def milliseconds(plot: Any, kind: str, key: str, n: int = 0) -> float:
    """From a key press to the end of the drawing that it causes, by the page's clock."""
    plot.evaluate(STOPWATCH)
    press(plot.page, kind, key, n=n)
    return plot.page.wait_for_function("() => stopwatch.drawn && stopwatch.drawn - stopwatch.key").json_value()


def slide(plot: Any, share: float, n: int = 0) -> None:
    """Press a figure's own slider at a share of its rail's length."""
    rail = plot.locator(".slider-rail-touch-rect").nth(n)
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    plot.page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)


def offline(browser: Any, path: Path, **settings) -> tuple[Any, list[int], list[str]]:
    """An HTML file with the network off: the page, how many SVG elements each figure drew, and the page's errors."""
    page, errors = browser.new_page(offline=True, **{"viewport": SIZE} | settings), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.resolve().as_uri())
    plots = page.locator(".plotly-graph-div")
    for n in range(plots.count()):  # the page holds a library of 5 MB
        plots.nth(n).locator(".main-svg").first.wait_for(state="attached", timeout=30_000)
    return page, [plot.locator("path, text").count() for plot in plots.all()], errors
