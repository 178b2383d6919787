"""The report on the paper: every table with ours beside it, tests, claims with verdicts; page, Markdown, CSV, LaTeX.

Made from stored runs alone, without training. Taught in notebook 05.
"""

import html
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from dnm import claims, paper, plots, report
from dnm.methods import METHODS
from dnm.statistics import Difference, holm
from dnm.store import write_atomically

LEGEND = (
    "Accuracies in percent, mean ± standard error over the seeds. *off*: ours minus the paper's. *to plain*, *to best "
    "baseline*, *to DNM*: mean paired difference in points, with the 95% bootstrap interval (over five seeds it is "
    "somewhat too narrow, over two it says little); p is that of a paired "
    "permutation test (sign flips, two-sided) under Holm's correction within the table. With five seeds the smallest "
    "p there is, before correction, is 0.0625: a table of five seeds can show, but not prove; the claims pool the data "
    "sets. The best baseline is the one with the highest mean of these very test accuracies, a little unfair to DNM.")


_ENCODERS = {"": -1, "cnn": 0, "lstm": 1}  # the paper's rows without BERT first; what is not run before what is


def tables(records: list[dict]) -> list[tuple[str, pd.DataFrame]]:
    """Title and `dnm.paper.beside` frame of every table that has runs, with ``p_*`` columns after Holm's correction."""
    runs, found = paper.comparable_runs(records), []
    for design, (numbers, _) in paper.DESIGNS.items():
        for data in sorted(dict.fromkeys(runs.dataset), key=paper.place):
            sizes = list(dict.fromkeys(sorted(runs[runs.dataset == data].n_train, key=_size)))
            frames = []
            for size in sizes:
                rows = paper.table_rows(design, data, size)
                here = runs[(runs.dataset == data) & (runs.n_train == size)]
                about = {row.method for row in rows.itertuples()} - ({"dnm"} if design != "systems" else set())
                if len(about & set(here.method)) > (design == "systems"):
                    frames.append(paper.beside(records, rows))
            if frames:
                frame = pd.concat(frames).sort_values("encoder", kind="stable", ignore_index=True,
                                                      key=lambda encoder: encoder.map(_ENCODERS).fillna(2))
                theirs = sorted(set(frame.table) - {0})
                where = f"Table {', '.join(map(str, theirs))}" if theirs else f"as Tables {min(numbers)}–{max(numbers)}"
                found.append((f"{where}: {design} on {Path(data).stem}", _tested(frame, design)))
    return found


def _size(n: str) -> float:
    return float("inf") if n == "all" else float(n)


def _tested(frame: pd.DataFrame, design: str) -> pd.DataFrame:
    columns = ("to_plain", "to_best") if design == "systems" else ("to_dnm",)
    same = (frame.best == "plain").to_numpy()  # then "to best" repeats "to plain": no second test
    corrected = holm([np.nan if column == "to_best" and again else d.p for column in columns
                      for d, again in zip(frame[column], same, strict=True)])
    for column, p in zip(columns, corrected.reshape(len(columns), len(frame)), strict=True):
        frame[f"p_{column}"] = p
    return frame.assign(design=design)


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """One of `tables`, as people read it."""
    shown = frame[(frame.runs > 0) | frame.paper.notna()]
    out = {}
    if shown.n_train.nunique() > 1:
        out["n"] = shown.n_train
    if shown.encoder[shown.runs > 0].nunique() > 1:
        out["encoder"] = [e or "–" for e in shown.encoder]
    out |= {
        "method": shown.title,
        "paper": [paper.number(a, e) for a, e in zip(shown.paper, shown.paper_error, strict=True)],
        "ours": [paper.number(a, e, missing="not run") for a, e in zip(shown.ours, shown.error, strict=True)],
        "seeds": shown.runs, "off": [paper.number(a, np.nan, "+") for a in shown.off]}
    for column, name in (("to_plain", "to plain"), ("to_best", "to best baseline"), ("to_dnm", "to DNM")):
        if f"p_{column}" in shown:
            best = [f" ({METHODS[b].title})" if column == "to_best" and d.pairs and b else ""
                    for b, d in zip(shown.best, shown[column], strict=True)]
            out[name] = [d.text() + b for d, b in zip(shown[column], best, strict=True)]
            out[f"p, {name}"] = ["–" if np.isnan(p) else f"{p:.3f}" for p in shown[f"p_{column}"]]
    return pd.DataFrame(out)


def overview(found: list[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """The systems at a glance: a row a method, encoder and size, a column a data set; the paper's in brackets."""
    frames = [frame for _, frame in found if frame.design.iloc[0] == "systems"]
    if not frames:
        return pd.DataFrame()
    every = pd.concat(frames, ignore_index=True).query("runs > 0")
    every["cell"] = [paper.number(a, e) + ("" if np.isnan(p) else f" ({p:.1f})")
                     for a, e, p in zip(every.ours, every.error, every.paper, strict=True)]
    wide = every.pivot(index=["n_train", "encoder", "title"], columns="dataset", values="cell").fillna("–")
    wide = wide.loc[list(dict.fromkeys(zip(every.n_train, every.encoder, every.title, strict=True))),
                    list(dict.fromkeys(every.dataset))]
    wide = wide.rename(columns=lambda name: Path(name).stem).reset_index()
    return wide.rename(columns={"n_train": "n", "title": "method"}).rename_axis(None, axis=1)


def about(frame: pd.DataFrame) -> str:
    """Which of our settings stand in a table."""
    mine = frame[frame.runs > 0]
    settings: dict[tuple, dict] = {}
    for encoder, size, *setting in zip(mine.encoder, mine.n_train, mine.profile, mine.device, strict=True):
        settings.setdefault((size, *setting), {})[encoder] = None
    return "Ours: " + "; ".join(f"n = {size}: {', '.join(encoders)}, profile {profile}, {device}"
                                for (size, profile, device), encoders in settings.items())


def write(records: list[dict], folder: Path, sources: Iterable[tuple[str, int, str]] = ()) -> list[Path]:
    """``paper.html``, ``paper.md``, ``paper.tex``, ``paper.csv``, ``claims.csv`` and ``claims.png`` in ``folder``.

    ``sources`` are (file, runs, command) of the records, for the page's end.
    """
    found, judged = tables(records), claims.verdicts(records)
    verdicts = claims.readable(judged)
    heading = f"Setting: {judged.setting.iloc[0]}."
    made = pd.DataFrame(sources, columns=["file", "runs", "command"])
    missing = _not_run(found)
    picture = plots.verdicts(judged)
    parts = [("The paper's claims", f"{heading} {_CLAIMS_LEGEND}", verdicts, picture)]
    if len(glance := overview(found)):
        text = "Ours, and in brackets the paper's numbers (with BERT-base; with CNN or LSTM)."
        parts.append(("The systems at a glance", text, glance, None))
    parts += [(title, about(frame), readable(frame), _figure(frame)) for title, frame in found]
    end = f"Not run by us: {missing}." if missing else ""
    markdown = "\n".join([
        "# Ours beside the paper\n", f"{LEGEND}\n",
        *(f"## {title}\n\n{text}\n\n{report.markdown(table)}" for title, text, table, _ in parts), f"{end}\n",
        *(["## The runs and the commands that repeat them\n", report.markdown(made)] if len(made) else [])])
    latex = "\n".join(_latex(title, table) for title, _, table, _ in parts)
    rows = pd.concat([frame for _, frame in found], ignore_index=True) if found else pd.DataFrame()
    files = {"paper.md": markdown, "paper.tex": latex, "paper.csv": _flat(rows).to_csv(index=False),
             "claims.csv": _flat(judged).to_csv(index=False), "paper.html": _page(parts, end, made)}
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return [*(folder / name for name in files), *plots.save(picture, folder / "claims", with_html=False)]


_CLAIMS_LEGEND = (
    "A comparison *holds* or *does not hold* where the permutation test, under Holm's correction over all rows, gives "
    "p < 0.05 for or against it, else it *cannot be told*; *seeds needed* is then how many seeds a data set would show "
    "a difference of the size of ours (80% power, with the correction, normal approximation). A claim holds if all "
    "its comparisons do, and does not if one does not.")


def _figure(frame: pd.DataFrame):
    """The paper's and our differences to DNM, of an ablation's smallest size; none for the systems."""
    if frame.design.iloc[0] == "systems" or not frame.gap.notna().any():
        return None
    return plots.beside_paper(frame[frame.n_train == frame.n_train.iloc[0]])


def _not_run(found: list[tuple[str, pd.DataFrame]]) -> str:
    """How many of each published table's numbers have none of ours beside them."""
    counts = paper.published().groupby("table").size()
    rows = pd.concat([frame for _, frame in found]) if found else pd.DataFrame(columns=["table", "runs", "paper"])
    rows = rows[(rows.runs > 0) & rows.paper.notna()]
    ours = rows.drop_duplicates(["table", "dataset", "n_train", "method", "paper"]).groupby("table").size()
    left = {table: count - ours.get(table, 0) for table, count in counts.items()}
    return ", ".join(f"{n} of the {counts[table]} cells of Table {table}" for table, n in left.items() if n)


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Differences as columns of their own, for CSV."""
    for column in [c for c in ("ours", "to_plain", "to_best", "to_dnm") if c in frame]:
        if frame[column].map(lambda value: isinstance(value, Difference)).any():
            spread = pd.DataFrame([vars(d) for d in frame[column]], index=frame.index).add_prefix(f"{column}_")
            frame = frame.drop(columns=column).join(spread)
    return frame


def _latex(title: str, table: pd.DataFrame) -> str:
    text = table.map(str).style.hide(axis="index").format(escape="latex")
    text = text.format_index(escape="latex", axis=1).to_latex(hrules=True, caption=title.replace("&", r"\&"))
    signs = (("±", r"$\pm$"), ("−", "$-$"), ("–", "--"))
    for sign, macro in signs:
        text = text.replace(sign, macro)
    return text


def _page(parts: list[tuple], end: str, made: pd.DataFrame) -> str:
    """Everything on one page that opens without a network; figures interactive."""
    def emphasis(text: str) -> str:
        pieces = html.escape(text).split("*")
        return "".join(f"<em>{piece}</em>" if i % 2 else piece for i, piece in enumerate(pieces))

    sections, contents = [], []
    for number, (title, text, table, figure) in enumerate(parts):
        picture = figure.to_html(include_plotlyjs=False, full_html=False, config={"responsive": True}) if figure else ""
        contents.append(f'<li><a href="#s{number}">{html.escape(title)}</a></li>')
        sections.append(f'<section id="s{number}"><h2>{html.escape(title)}</h2><p>{emphasis(text)}</p>'
                        f"{report.as_html(table).to_html()}{picture}</section>")
    runs = f"<section><h2>The runs</h2>{report.as_html(made).to_html()}</section>" if len(made) else ""
    body = f"<p>{emphasis(LEGEND)}</p><ol>{''.join(contents)}</ol>{''.join(sections)}<p>{html.escape(end)}</p>{runs}"
    return report.page("Ours beside the paper", body)
