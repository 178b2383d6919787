"""Tables: mean ± standard error with the number of runs, as a data frame, CSV and Markdown."""

import html
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from dnm.config import RunConfig
from dnm.data import Split
from dnm.errors import DnmError
from dnm.methods import METHODS
from dnm.plots import deferred, standard_error
from dnm.store import RESULT_FORMAT, RunStore, write_atomically

COMPARABLE = ["data", "fingerprint", "n_train", "encoder", "weights", "profile", "device", "precision"]
STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --page: #ffffff; --soft: #f3f4f6; --line: #d0d4da; --link: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --page: #16181b; --soft: #22262b; --line: #3b4149; --link: #7ab8f5 } }
body { max-width: 72rem; box-sizing: border-box; margin: 0 auto; padding: 1rem 1.5rem 4rem; color: var(--ink);
  background: var(--page); font: 17px/1.6 Helvetica, Arial, sans-serif }
a { color: var(--link) } a.anchor-link { display: none }
h1, h2, h3 { line-height: 1.25; margin-top: 2em } section { border-top: 1px solid var(--line); margin-top: 3rem }
pre { white-space: pre-wrap; background: var(--soft); padding: .7rem 1rem; font-size: 14px; line-height: 1.45 }
code { font-size: .92em } .jp-InputPrompt, .jp-OutputPrompt, .prompt { display: none } figure, img { max-width: 100% }
table { border-collapse: collapse; margin: 1rem 0; font-size: 15px; display: block; overflow-x: auto }
caption { text-align: left; opacity: .8; padding-bottom: .4rem }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: left; vertical-align: top }
.plotly-graph-div, .picture { background: #ffffff; overflow-x: auto; margin: 1rem 0 }
"""
_UNSEEN = ("fingerprint", "weights")  # they keep runs apart, but are nothing to read


def runs_table(records: list[dict]) -> pd.DataFrame:
    """One row a run; accuracies in percent."""
    return pd.DataFrame([{
        "data": r["data"]["name"], "fingerprint": r["data"]["fingerprint"], "weights": r["encoder_weights"],
        "n_train": r["config"]["n_train"], "encoder": r["config"]["encoder"],
        "profile": r["label"], "device": _device(r), "precision": r["environment"]["precision"],
        "method": r["config"]["method"], "title": r["title"], "seed": r["config"]["seed"],
        "accuracy": 100 * r["test_accuracy"], "last_accuracy": 100 * r["last_test_accuracy"],
        "best_step": r["best_step"], "ceiling": 100 * r["data"]["ceiling"] if r["data"]["ceiling"] else np.nan,
        "seconds": r["seconds"], "hash": r["hash"]} for r in records])


def _device(record: dict) -> str:
    """The device's name without its count of threads, which changes times, not what may be averaged."""
    return re.sub(r", \d+ threads?\b", "", record["environment"]["device"])


def summary(records: list[dict]) -> pd.DataFrame:
    """One row a method and setting: mean, standard error, runs, and the difference to plain, paired by seed.

    Only runs that share data, size, encoder, weights, settings, device and precision are averaged.
    """
    runs = runs_table(records)
    rows = []
    for setting, group in runs.groupby(COMPARABLE, sort=False):
        plain = group[group.method == "plain"].set_index("seed").accuracy
        order = group.method.map(list(METHODS).index)
        for title, mine in group.assign(order=order).sort_values(["order", "title"]).groupby("title", sort=False):
            method, mine = mine.method.iloc[0], mine.drop_duplicates("seed").set_index("seed")
            difference = (mine.accuracy - plain).dropna() if method != "plain" else pd.Series(dtype=float)
            rows.append({**dict(zip(COMPARABLE, setting, strict=True)), "method": method, "title": title,
                         "runs": len(mine),
                         "accuracy": mine.accuracy.mean(), "error": standard_error(mine.accuracy.to_numpy()),
                         "last_accuracy": mine.last_accuracy.mean(),
                         "to_plain": difference.mean() if len(difference) else np.nan,
                         "to_plain_error": standard_error(difference.to_numpy()) if len(difference) else np.nan,
                         "ceiling": mine.ceiling.iloc[0], "seconds_a_run": mine.seconds.mean()})
    return pd.DataFrame(rows)


def caption(table: pd.DataFrame) -> str:
    """What all rows of a `summary` share: data, size, encoder, profile, device, precision."""
    shared = [f"{name} {table[name].iloc[0]}" for name in COMPARABLE
              if table[name].nunique() == 1 and name not in _UNSEEN]
    if table.ceiling.nunique() == 1:
        shared.append(f"best possible accuracy {table.ceiling.iloc[0]:.1f}%")
    return "; ".join(shared).replace("n_train", "n =")


def as_html(table: pd.DataFrame, heading: str = "") -> Styler:
    """A table for a page or notebook, without row numbers; whatever text it holds is escaped."""
    return table.style.hide(axis="index").format(escape="html", precision=1).set_caption(html.escape(heading))


def page(title: str, body: str, css: str = "") -> str:
    """A whole page that opens without a network, in light and dark; plotly is packed in where a figure needs it."""
    body = deferred(body) if "plotly-graph-div" in body else body
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>{html.escape(title)}</title><style>{STYLE}{css}</style></head>'
            f"<body><h1>{html.escape(title)}</h1>\n{body}</body></html>")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A `summary` with the columns and signs people read; what all rows share is left to the `caption`."""
    def with_error(value: float, error: float, sign: str = "") -> str:
        if np.isnan(value):
            return "–"
        return f"{value:{sign}.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")

    varied = [name for name in COMPARABLE if table[name].nunique() > 1 and name not in _UNSEEN]
    shown = table[varied].rename(columns={"n_train": "n"}).assign(**{
        "method": table.title,
        "accuracy (%)": [with_error(a, e) for a, e in zip(table.accuracy, table.error, strict=True)],
        "to plain": [with_error(a, e, "+") for a, e in zip(table.to_plain, table.to_plain_error, strict=True)],
        "last step (%)": [f"{a:.1f}" for a in table.last_accuracy], "runs": table.runs,
        "seconds a run": [f"{s:.0f}" for s in table.seconds_a_run]})
    return shown if table.to_plain.notna().any() else shown.drop(columns="to plain")


def markdown(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    def line(cells) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(frame.columns), line("---" for _ in frame.columns),
                      *(line(row) for row in frame.itertuples(index=False))]) + "\n"


def mistakes(records: list[dict], test: Split, rows: int = 10) -> pd.DataFrame:
    """The test sentences that most of the runs got wrong, with the class most of them gave."""
    predictions = np.array([record["test_predictions"] for record in records])
    names = records[0]["data"]["labels"]
    wrong = (predictions != test.labels).mean(axis=0)
    found = np.argsort(-wrong, kind="stable")[:rows]
    found = found[wrong[found] > 0]
    given = [np.bincount(column[column != label]).argmax()
             for column, label in zip(predictions.T[found], test.labels[found], strict=True)]
    table = pd.DataFrame({
        "sentence": [test.texts[i] for i in found], "true class": [names[test.labels[i]] for i in found],
        "given": [names[i] for i in given], "runs that got it wrong": [f"{share:.0%}" for share in wrong[found]]})
    if test.probabilities is not None:
        table["p(true class)"] = [f"{test.probabilities[i, test.labels[i]]:.2f}" for i in found]
    return table


def write_tables(records: list[dict], folder: Path) -> list[Path]:
    """``results.csv`` (a row a method), ``runs.csv`` (a row a run) and ``results.md`` in ``folder``."""
    table = summary(records)
    files = {"results.csv": table.to_csv(index=False), "runs.csv": runs_table(records).to_csv(index=False),
             "results.md": f"{caption(table)}\n\n{markdown(readable(table))}"}
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in files]


def write_figures(records: list[dict], folder: Path, with_html: bool = True) -> list[Path]:
    """Learning curves and accuracies of every setting in the records, as HTML and PNG."""
    from dnm import plots

    groups: dict[tuple, list[dict]] = {}
    seen: set[str] = set()
    for row, record in zip(runs_table(records)[COMPARABLE].itertuples(index=False), records, strict=True):
        groups.setdefault(tuple(row), []).append(record)
    paths = []
    for number, group in enumerate(groups.values()):
        first = group[0]
        parts = (first["data"]["name"], first["config"]["n_train"], first["config"]["encoder"], first["label"])
        name = "-".join(re.sub(r"[^\w.=]+", "_", str(part).rsplit("/", 1)[-1]).strip("_") for part in parts)
        name += f"-{number}" if name in seen else ""
        seen.add(name)
        paths += plots.save(plots.accuracies(group), folder / f"accuracy-{name}", with_html)
        if any(record["history"][0]["step"] for record in group):
            paths += plots.save(plots.learning_curves(group), folder / f"learning-curves-{name}", with_html)
    return paths


def keep(records: list[dict], path: Path) -> str:
    """Write all records to one file, with the command line that repeats them; returns a line that says where."""
    text = json.dumps({"command": "dnm " + shlex.join(sys.argv[1:]), "runs": records}, ensure_ascii=False,
                      separators=(",", ":"))
    write_atomically(path, (text.replace('{"format"', '\n{"format"') + "\n").encode())
    return f"results: {path}"


def load_files(path: Path) -> list[tuple[str, str, list[dict]]]:
    """Name, command and records of every file of runs: a folder of stored runs, of files that hold several, or one."""
    if path.is_dir() and (single := RunStore(path).all_results()):
        return [(path.name, "", single)]
    found = []
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if path.is_dir() and "runs" not in content:  # a benchmark, say
                continue
            if not all(record["format"] == RESULT_FORMAT for record in content["runs"]):
                raise ValueError("another format")
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = "there is no such file" if isinstance(error, FileNotFoundError) else "it is not a file of results"
            raise DnmError(f"{str(file)!r} holds no stored runs: {why}") from None
        found.append((file.name, content.get("command", ""), content["runs"]))
    return found


def load_records(path: Path) -> list[dict]:
    """The records of `load_files`, each once; labels are told anew, in the words of today's profiles."""
    records = {}
    for _, _, runs in load_files(path):
        for record in runs:
            environment = record["environment"]
            key = (record["hash"], record["data"]["fingerprint"], record["encoder_weights"], environment["device"],
                   environment["precision"])
            records.setdefault(key, record | {"label": RunConfig(**record["config"]).label})
    if not records:
        raise DnmError(f"{path} holds no finished runs; train some with `dnm train`")
    return list(records.values())
