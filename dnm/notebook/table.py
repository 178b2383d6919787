"""The widget for people's own tables: paste or upload rows, see what is read, train, try sentences. Taught in 07."""

import html
import tempfile
import threading
from collections import Counter
from pathlib import Path

import ipywidgets as w
import plotly.graph_objects as go

from dnm.classify.estimator import DNMClassifier
from dnm.config import FILE_SUFFIXES
from dnm.data.datasets import numbered
from dnm.data.files import Table, read_table
from dnm.data.formats import opened
from dnm.errors import DnmError, reason
from dnm.notebook.widgets import WIDE, WIDTH, Explorer, sentence_box
from dnm.plots import drawings
from dnm.study import explore, own

_LONG = w.Layout(width=f"{WIDTH - 10}px")


class TableTraining(Explorer):
    """Rows in, a classifier out: ``classifier`` once it is trained; ``settings`` are those of `dnm.DNMClassifier`."""

    def __init__(self, **settings):
        self.settings, self.table, self.classifier, self.thread = settings, None, None, None
        self.given, self.filling = ("", b""), False
        self.history, self.steps, self.asked = [], 1, threading.Event()
        self.file = w.FileUpload(accept=",".join((*FILE_SUFFIXES, ".gz")), description="A file")
        self.pasted = w.Textarea(placeholder="or paste rows here, as copied from a spreadsheet, names of columns first",
                                 layout=w.Layout(width=f"{WIDTH - 10}px", height="90px"))
        self.columns = {kind: w.Dropdown(description=kind, **WIDE) for kind in ("text", "label")}
        self.start = w.Button(description="Train", button_style="primary", disabled=True)
        self.stop = w.Button(description="Stop", disabled=True)
        self.said, self.line, self.tried = w.HTML(layout=_LONG), w.HTML(layout=_LONG), w.VBox()
        self.file.observe(lambda _: self.file.value and self.take(**self.file.value[-1]), names="value")
        self.pasted.observe(lambda _: self.take("pasted rows", self.pasted.value.encode("utf-8", "replace")),
                            names="value")
        for box in self.columns.values():
            box.observe(lambda _: self.read(chosen=True), names="value")
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.asked.set())
        super().__init__(self._picture, {}, [self.file, self.pasted, w.HBox([*self.columns.values()]), self.said,
                                             w.HBox([self.start, self.stop]), self.line])
        self.children = (*self.children, self.tried)

    def _picture(self) -> go.Figure:
        return drawings.so_far(self.history, "your table", self.steps)

    def take(self, name: str, content: bytes, **_) -> None:
        """Read a file's content, its columns guessed."""
        self.given = Path(name).name, bytes(content)
        self.read()

    def read(self, chosen: bool = False) -> None:
        """Read the rows once more, with the columns as ``chosen``, else guessed; say what was found."""
        if self.filling:
            return
        names, header = [box.value or "" for box in self.columns.values()] if chosen else [], []
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / self.given[0]
                path.write_bytes(self.given[1])
                header = opened(path).names
                self.table = table = own.one_spelling(read_table(path, *names))
        except (DnmError, OSError) as error:
            self.table, self.said.value, self.start.disabled = None, html.escape(f"error: {reason(error)}"), True
            self.filling = True
            for box in self.columns.values():  # so that the columns can be chosen
                if [*box.options] != header:
                    box.options, box.value = header, None
            self.filling = False
            return
        self.filling = True
        for box, name in zip(self.columns.values(), (table.text, table.label), strict=True):
            box.options, box.value = [*table.columns], name
        self.filling, self.start.disabled = False, bool(self.thread and self.thread.is_alive())
        counts = Counter(table.labels)
        told = [f"{len(table.texts)} rows: " + ", ".join(f"{count} {name}" for name, count in counts.most_common(10)),
                *table.notes, f"the first: {table.texts[0][:100]} → {table.labels[0]}"]
        self.said.value = "<br>".join(map(html.escape, told))

    def begin(self) -> None:
        """Train in the background, so that the notebook stays usable."""
        if not self.start.disabled and self.table:
            self.asked.clear()
            self.start.disabled, self.stop.disabled = True, False
            self.thread = threading.Thread(target=self._train, args=[self.table], daemon=True)
            self.thread.start()

    def _train(self, table: Table) -> None:
        try:
            names, parts = numbered(Path(table.file), {"all": table})
            learn, held = own.set_aside(parts["all"], parts["all"].take([]))
            self.history, self.line.value = [], "training starts …"
            made = DNMClassifier(**self.settings)
            made.fit(learn.texts, [names[y] for y in learn.labels], on_progress=self._show, stop=self.asked)
            score = own.score(made, names, held)
            self.classifier, self.line.value = made, html.escape(f"trained for {made.n_iter_} steps; {score}")
            known = learn.take(range(min(300, len(learn))))
            self.tried.children = [sentence_box(made, explore.Batch.of(made, known), learn.texts[0])]
        except Exception as error:  # a thread's error would otherwise be lost
            self.line.value = html.escape(f"stopped: {reason(error)}")
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def _show(self, run) -> None:
        self.line.value = f"step {run.step} of {run.config.steps}"
        rows = [row for row in run.history if "validation_accuracy" in row]
        if len(rows) != len(self.history):
            self.history, self.steps = rows, run.config.steps
            self.redraw()


table_training = TableTraining  # called as the other widgets are
