"""The report on the paper, made from stored runs; `run_paper` trains what is missing. Taught in notebook 05."""

import html
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from dnm.errors import DnmError, project_root
from dnm.methods import METHODS
from dnm.plots import charts, plain
from dnm.plots.look import numbers
from dnm.plots.page import figure_html, page, save, table_html
from dnm.runs.results import frame, keep, load
from dnm.runs.store import RunStore, load_files
from dnm.study import claims, controls
from dnm.study.beside import FROZEN, WRONG, beside, comparable_runs, marked
from dnm.study.experiments import DESIGNS, NAMES, SIZES, experiment, place, published, size, table_rows
from dnm.study.statistics import Difference, holm
from dnm.study.tables import markdown, write_files

LEGEND = (
    "Profile *quick*: 50 steps of 20 sentences at a rate of 5e-5, the head's 1e-3 (CNN, LSTM: 100 steps at 1e-3). "
    "Accuracies in percent, mean ± standard error over the seeds. *off*: ours minus the paper's. *to plain*, *to best "
    "baseline*, *to DNM*: mean paired difference in points, with the 95% bootstrap interval (over five seeds it is "
    "somewhat too narrow, over two it says little); p is that of a paired "
    "permutation test (sign flips, two-sided) under Holm's correction within the table. With five seeds the smallest "
    "p there is, before correction, is 0.0625: a table of five seeds can show, but not prove; the claims pool the data "
    "sets. The best baseline is the one with the highest mean of these very test accuracies, a little unfair to DNM.")
CLAIMS_LEGEND = (
    "A comparison *holds* or *does not hold* where the permutation test, under Holm's correction over all rows, gives "
    "p < 0.05 for or against it, else it *cannot be told*, or is *not run*: not all that it compares has runs in one "
    "setting; *seeds needed* is how many seeds a data set would show a difference of the size of ours (80% "
    "power, with the correction, normal approximation). A claim holds if all its comparisons do, and does not if one "
    "does not. Each bar is the 95% interval of its comparison alone. Of many bars some may miss zero by chance (and "
    "over few seeds they are too short), so Holm's correction asks more of each: a bar can lie clear of zero and its "
    "comparison still *cannot be told*.")
_ENCODERS = {"": -1, "cnn": 0, "lstm": 1}  # the paper's rows without BERT first; what is not run before what is


def _place(encoder: str) -> float:
    name, _, vectors = encoder.partition(" + ")
    return _ENCODERS.get(name, 2) + 0.5 * bool(vectors)


def tables(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Title and `beside` frame of every table that has runs, with ``p_*`` columns after Holm's correction."""
    usual, found = comparable_runs(runs), []
    for design, data in product(DESIGNS, sorted(dict.fromkeys(usual.dataset), key=place)):
        systems, published_as = design == "systems", DESIGNS[design][0]
        run = usual[usual.dataset == data].groupby("n_train").method.agg(set)
        rows = {n: table_rows(design, data, n) for n in sorted(run.index, key=size)}
        # An ablation is worth a table if there is more than full DNM, a table of systems if there are two.
        rows = [row for n, row in rows.items() if len(run[n] & set(row.method) - {"" if systems else "dnm"}) > systems]
        if not rows:
            continue
        table = beside(runs, pd.concat(rows)).sort_values(
            "encoder", kind="stable", ignore_index=True, key=lambda names: names.map(_place))
        columns = ["to_plain", "to_best"] if systems else ["to_dnm"]
        p = table[columns].map(lambda difference: difference.p)
        if systems:
            p.loc[table.best == "plain", "to_best"] = np.nan  # it repeats "to plain": no second test
        table[[f"p_{column}" for column in columns]] = holm(p.to_numpy().T.ravel()).reshape(len(columns), -1).T
        theirs = ", ".join(map(str, sorted(set(table.table) - {0})))
        where = f"Table {theirs}" if theirs else f"as Tables {min(published_as)}–{max(published_as)}"
        found.append((f"{where}: {design} on {Path(data).stem}", table.assign(design=design)))
    return found


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """One of `tables`, as people read it."""
    shown, out = table[(table.runs > 0) | table.paper.notna()], {}
    if shown.n_train.nunique() > 1:
        out["n"] = shown.n_train
    if shown.encoder[shown.runs > 0].nunique() > 1:
        out["encoder"] = shown.encoder.replace("", "–")
    out |= {"method": shown.title, "paper": numbers(shown.paper, shown.paper_error),
            "ours": numbers(shown.ours, shown.error, missing="not run"), "seeds": shown.runs,
            "off": numbers(shown.off, sign="+")}
    for column, name in (("to_plain", "to plain"), ("to_best", "to best baseline"), ("to_dnm", "to DNM")):
        if f"p_{column}" in shown:
            best = [f" ({METHODS[b].title})" if column == "to_best" and d.pairs and b else ""
                    for b, d in zip(shown.best, shown[column], strict=True)]
            out[name] = [d.text() + b for d, b in zip(shown[column], best, strict=True)]
            out[f"p, {name}"] = numbers(shown[f"p_{column}"], digits=3)
    return pd.DataFrame(out)


def overview(rows: pd.DataFrame) -> pd.DataFrame:
    """The systems at a glance: a row a method and size, a column a data set; the paper's in brackets."""
    theirs = ["" if np.isnan(paper) else f" ({paper:.1f})" for paper in rows.paper]
    rows = rows.assign(cell=np.add(numbers(rows.ours, rows.error), theirs, dtype=object))
    wide = rows.pivot_table(index=["n_train", "title"], columns="dataset", values="cell", aggfunc="first",
                            sort=False).fillna("–").rename(columns=lambda name: Path(name).stem).reset_index()
    return wide.rename(columns={"n_train": "n", "title": "method"}).rename_axis(None, axis=1)


def about(table: pd.DataFrame) -> str:
    """Which of our settings stand in a table."""
    mine = table[table.runs > 0].groupby(["n_train", "profile", "device"], sort=False).encoder.unique()
    return "Ours: " + "; ".join(f"n = {n}: {', '.join(encoders)}, profile {profile}, {device}"
                                for (n, profile, device), encoders in mine.items())


def write(runs: pd.DataFrame, folder: Path, sources: Iterable[tuple[str, int, str]] = ()) -> list[Path]:
    """``paper.html``, ``.md``, ``.csv``, ``claims.csv``, ``.png``; ``sources``: (file, runs, command) for the end.

    Runs with a frozen encoder have tables of their own, without the paper's numbers, and no rows in ``paper.csv``.
    """
    made = pd.DataFrame(sources, columns=["file", "runs", "command"])
    found, judged = tables(runs), claims.by_size(runs)
    rows, parts = pd.concat([pd.DataFrame(), *(t for _, t in found)], ignore_index=True), []
    for n, mine in sorted(judged.groupby("n_train"), key=lambda group: (group[0] != claims.SMALL, size(group[0]))):
        title = "The paper's claims" if n == claims.SMALL else f"The claims with n = {n}"
        text = f"Setting: {mine.setting.iloc[0]}." + f" {CLAIMS_LEGEND}" * (not parts)
        parts.append((title, text, claims.readable(mine), charts.verdicts(mine)))
    glance = rows[(rows.design == "systems") & (rows.runs > 0)] if len(rows) else rows
    for encoder in sorted({*glance.get("encoder", ())}, key=_place, reverse=True):
        mine = glance[glance.encoder == encoder]
        text = f"{about(mine)}. In brackets the paper's: BERT-base, or what it calls CNN or LSTM, one number for both."
        parts.append((f"The systems at a glance: {encoder}", text, overview(mine), charts.by_labels(mine)))
    if len(several := claims.ahead(runs)):
        settings = several.drop_duplicates("where")[["where", "setting"]].itertuples(index=False)
        text = ("Mean paired difference in points [95% interval], over the same data sets. Columns differ in more than "
                "labels and steps: " + "; ".join(f"{where}: {setting}" for where, setting in settings) + ".")
        parts.append(("Who is ahead, by number of labels and steps", text, claims.ahead_readable(several),
                      charts.gains(several)))
    asked, wrong = [("Is it the mixing?", runs)], runs[marked(runs, WRONG)]
    if len(wrong) < len(runs):
        asked += [("Is it the mixing, with wrong labels?", mine) for _, mine in wrong.groupby("profile")]
    for (title, some), n in product(asked, SIZES):
        if len(every := controls.beside_controls(some, n)) > 1:
            text = (f"Every system with n = {n} labelled sentences ({every.setting.iloc[0]}): accuracies, and the mean "
                    "difference to each control over data sets, paired by seed; p after Holm's correction over this "
                    "table, not over the claims.")
            parts.append((title + f" n = {n}" * (n != claims.SMALL), text, controls.readable(every), None))
    for title, table in found:  # of an ablation the differences to DNM are drawn, for its smallest size
        drawn = table.design.iloc[0] != "systems" and table.gap.notna().any()
        smallest = table[table.n_train == table.n_train.iloc[0]]
        parts.append((title, about(table), readable(table), charts.beside_paper(smallest) if drawn else None))
    if len(still := runs[marked(runs, FROZEN)]) < len(runs):  # else they have the tables above
        for title, table in tables(still):
            shown = readable(table[table.runs > 0]).drop(columns=["paper", "off"])
            parts.append((f"{title}, frozen encoder", about(table), shown, None))
    each = judged[~judged.claim.str.startswith("Ours") & (judged.n_train == claims.SMALL)].drop_duplicates("claim")
    counts = ", ".join(f"{n} × *{verdict}*" for verdict, n in each.claim_verdict.value_counts().items())
    counts = f"Of the paper's claims, with {claims.SMALL} labels: {counts}."
    lead, end = [*filter(None, (controls.finding(runs), counts, LEGEND))], _not_run(rows)  # the answer first
    text = "\n".join([
        "# Ours beside the paper\n", *(f"{text}\n" for text in lead),
        *(f"## {plain.markdown(title)}\n\n{text}\n\n{markdown(table)}" for title, text, table, _ in parts), f"{end}\n",
        *(["## The runs and the commands that repeat them\n", markdown(made)] if len(made) else [])])
    written = write_files(folder, {
        "paper.md": text, "paper.csv": _flat(rows), "claims.csv": _flat(judged),
        "paper.html": _page(lead, parts, end, made)})
    return [*written, *save(parts[0][-1], folder / "claims", with_html=False)]


def _not_run(rows: pd.DataFrame) -> str:
    """How many of each published table's numbers have none of ours beside them."""
    counts = published().groupby("table").size()
    ours = rows[(rows.runs > 0) & rows.paper.notna()] if len(rows) else published().iloc[:0]
    ours = ours.drop_duplicates(["table", "dataset", "n_train", "method", "paper"]).table.value_counts()
    left = counts.sub(ours, fill_value=0).astype(int)
    cells = ", ".join(f"{n} of the {counts[table]} cells of Table {table}" for table, n in left.items() if n)
    return f"Not run by us: {cells}." if cells else ""


def _flat(table: pd.DataFrame) -> str:
    """As CSV: differences, and what each data set has, as columns of their own; no digits that versions differ in."""
    table = table.reset_index(drop=True)
    for column in [name for name in table if isinstance(next(iter(table[name]), None), Difference | dict)]:
        found = [value if isinstance(value, dict) else vars(value) for value in table[column]]
        spread = pd.DataFrame(found, index=table.index).add_prefix(f"{column}_")
        table = table.drop(columns=column).join(spread)
    return table.to_csv(index=False, float_format="%.10g")


def _page(lead: list[str], parts: list[tuple], end: str, made: pd.DataFrame) -> str:
    """Everything on one page that opens without a network; figures interactive."""
    def emphasis(text: str) -> str:
        return "".join(f"<em>{piece}</em>" if i % 2 else piece for i, piece in enumerate(html.escape(text).split("*")))

    parts = [*parts, ("The runs", end, made, None)] if end or len(made) else parts
    return page("Ours beside the paper", "".join(f"<p>{emphasis(text)}</p>" for text in lead), {
        f"s{number}": (title, f"<h2>{html.escape(title)}</h2><p>{emphasis(text)}</p>{table_html(table).to_html()}"
                              f"{figure_html(figure) if figure else ''}")
        for number, (title, text, table, figure) in enumerate(parts)})


def run_paper(names: list[str], out: Path, runs: str | None, seeds: list[str], parameters: list, dry_run: bool,
              workers: int | None, cluster: str, fleet: int | None, results: Path | None, **choice) -> None:
    """What ``dnm paper`` does for a ``choice`` of `experiment`: train, write the report, draw what has not failed."""
    if "report" in names:
        if len(names) > 1:
            raise DnmError("`dnm paper report` reads kept runs and goes alone; tables write their report themselves")
        kept = Path(runs) if runs else project_root() / "data" / "results"
        sources = [(file, len(found), command) for file, command, found in load_files(kept) if command]
        return print(*write(load(kept), out, sources), sep="\n")
    given = dict(parameters)
    own = {"dataset", "n_train", "method", "encoder", "seed", "profile", "name", "datasets", "sizes", "seeds"}
    if taken := own & set(given):
        raise DnmError(f"{min(taken)} is no setting of all runs here; see the options of `dnm paper --help`")
    choice |= dict(seeds=seeds, **given)
    wanted = {name: experiment(name, **choice) for name in (NAMES if "all" in names else dict.fromkeys(names))}
    models = wanted.get("figure4", [])  # figure 3 shows a model before training
    others = (config for name, configs in wanted.items() if name != "figure3" for config in configs)
    every = list(dict.fromkeys([*models, *sorted(others, key=lambda config: config.seed)]))
    from dnm.runs.plan import tell  # only now: what is wrong with the settings is said at once
    from dnm.runs.progress import in_terminal
    from dnm.runs.scheduler import RunsFailed, run_all
    from dnm.study import figures

    store, failed = RunStore.open(runs), None
    if dry_run:
        return tell(every, store, workers)
    try:
        with in_terminal() if every else nullcontext() as show:
            run_all(every, store, workers=workers, cluster=cluster, fleet=fleet, save_models=models, on_status=show)
    except RunsFailed as error:
        failed = error
    records = [found for config in every if (found := store.stored(config))]
    if results and records:
        print(keep(records, results))
    if any(name.startswith("table") for name in wanted) and records:
        print(*write(frame(records), out), sep="\n")
    for name, configs in wanted.items():
        if name.startswith("figure") and not (failed and failed.errors.keys() & {config.hash for config in configs}):
            with in_terminal() as show:
                print(*figures.draw(name, out, store, show, **choice), sep="\n")
    if failed:
        raise failed
