"""The paper's experiments, the statistics on them, the claims and the report."""

import html
import itertools
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import needs_real_data
from scipy import stats

from dnm.config import RunConfig
from dnm.errors import DnmError
from dnm.methods import METHODS
from dnm.plots.page import chromium
from dnm.runs.results import frame
from dnm.study import claims, controls, report, tables
from dnm.study.beside import beside, comparable_runs, kept_runs, side_by_side
from dnm.study.experiments import DESIGNS, NAMES, SIZES, experiment, published, table_methods, table_rows
from dnm.study.statistics import by_seed, difference, holm, paired, seeds_needed

ROOT = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------- the paper's numbers

def test_the_papers_numbers_are_all_there():
    found = published()
    assert len(found) == 276 and found.groupby("table").size().tolist() == [48, 48, 48, 48, 15, 15, 12, 12, 15, 15]
    cell = found.set_index(["table", "dataset", "method", "encoder", "n_train"]).accuracy
    assert round(found.accuracy.sum(), 1) == 20515.1 and round(found.error.sum(), 1) == 103.4
    assert cell[2, "subj", "dnm", "bert-base-uncased", "50"] == 93.4
    assert cell[5, "sst1", "nonlinearmixup", "cnn or lstm", "all"] == 49.3
    assert cell[6, "mr", "dnm-k3", "bert-base-uncased", "50"] == 78.3
    assert cell[11, "subj", "dnm-no-lds", "bert-base-uncased", "all"] == 93.9
    assert table_methods(8) == ["dnm", "dnm-fow", "dnm-fiw", "dnm-fiw-fow"]
    with pytest.raises(DnmError, match="no ablation"):
        table_methods(3)


def test_ours_stands_beside_the_paper_with_its_difference_to_dnm():
    kept = json.loads((ROOT / "data" / "results" / "subj-50-200-steps.json").read_text())["runs"]
    other = [json.loads(json.dumps(r)) for r in kept if r["config"]["method"] in ("plain", "dnm")]
    for record in other:  # another device, fewer rows: not to be mixed with the first
        record["environment"]["device"], record["test_accuracy"] = "elsewhere", 0.1
    rows = published().query("table == 2 and encoder == 'bert-base-uncased'")
    compared = beside(frame([*other, *kept]), rows)
    accuracy = {m: np.array([100 * r["test_accuracy"] for r in sorted(kept, key=lambda r: r["config"]["seed"])
                             if r["config"]["method"] == m]) for m in ("plain", "dnm")}
    row = compared[compared.n_train == "50"].set_index("method")
    gap = accuracy["plain"] - accuracy["dnm"]
    assert row.runs["plain"] == len(gap) >= 3 and row.ours["dnm"] == pytest.approx(accuracy["dnm"].mean())
    assert row.gap["plain"] == pytest.approx(gap.mean()) and row.gap_error["plain"] == pytest.approx(gap.std(ddof=1) / len(gap) ** 0.5)
    shown = side_by_side(compared)
    assert list(shown.n.unique()) == ["50", "200", "500", "1000", "2000", "all"]
    first = shown[shown.n == "50"].set_index("method").loc["Plain fine-tuning"]
    assert first["paper to DNM"] == "-3.9 ± 0.4" and first["ours to DNM"].startswith(f"{gap.mean():+.1f}")
    nothing = side_by_side(beside(frame([]), published().query("table == 8")))
    assert set(nothing["ours (%)"]) == {"not run"} and len(nothing) == 12
    assert side_by_side(beside(frame(kept), rows.iloc[:0])).empty
    own = json.loads(json.dumps(kept[0]))
    own["config"]["dataset"] = "/somewhere/subj.csv"
    assert beside(frame([own]), rows).runs.sum() == 0


def test_the_papers_figures_are_made_by_one_command(tmp_path, tiny_models, capsys):
    from dnm.cli import main

    out = tmp_path / "figures"
    small = ["--encoder", str(tiny_models["bert"]), "--datasets", "builtin", "--seeds", "0", "--profile", "smoke"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["paper", "figure1", "figure2", "figure3", "figure4", *small, "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert {p.stem for p in out.glob("*.html")} == {"figure1", "figure2", "figure3", "figure4"}
    for page in out.glob("*.html"):
        assert not re.search(r"<(script|link)[^>]+(src|href)=.https?:", page.read_text())
        assert not chromium() or page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main(["paper", "figure5"]) == 2 and "unknown table or figure 'figure5'" in capsys.readouterr().err


@pytest.fixture
def no_png(monkeypatch):
    """Figures without pictures of them, which cost seconds, where a test looks at none."""
    monkeypatch.setattr("dnm.plots.page.chromium", lambda: None)


def made_up(accuracies: dict, encoder: str = "minilm", profile: str = "quick", **settings) -> list[dict]:
    """Records with the accuracies (in percent) of ``{(dataset, n_train, method): [seed 0, seed 1, …]}``."""
    records = []
    for (dataset, n_train, method), values in accuracies.items():
        for seed, value in enumerate(values):
            config = RunConfig.create(profile, dataset=dataset, n_train=n_train, method=method, seed=seed, encoder=encoder, **settings)
            records.append({"format": 2, "hash": config.hash, "config": config.to_dict(), "label": config.label,
                            "title": config.title, "encoder_weights": config.word_vectors or "w", "test_accuracy": value / 100,
                            "last_test_accuracy": value / 100, "best_step": 50, "seconds": 1.0,
                            "data": {"name": dataset, "fingerprint": dataset, "ceiling": None, "labels": []},
                            "history": [], "test_predictions": [],
                            "environment": {"device": "CPU", "precision": "float32"}})
    return records


# ---------------------------------------------------------------- statistics

def test_the_permutation_test_is_the_exact_one_and_the_interval_the_bootstraps():
    values = np.array([1.0, 2.0, 3.0, -1.0, 2.5])
    signs = np.array(list(itertools.product([1, -1], repeat=5)))
    exact = np.mean(np.abs((signs * values).mean(axis=1)) >= abs(values.mean()) - 1e-12)
    found = difference([values])
    assert found.mean == pytest.approx(1.5) and found.p == pytest.approx(exact) and found.pairs == 5
    draws = np.random.default_rng(1).choice(values, (20000, 5)).mean(axis=1)
    assert (found.low, found.high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.15)
    assert difference([np.arange(1.0, 6)]).p == 2 / 2**5  # the least there is with five seeds


def test_data_sets_count_the_same_however_many_seeds_they_have():
    small, large = np.array([4.0, 6.0]), np.array([0.0, 1.0, 2.0, 1.0])
    found = difference([small, large])
    assert found.mean == pytest.approx((5 + 1) / 2) and found.pairs == 6
    weights = np.array([1 / 4] * 2 + [1 / 8] * 4)
    signs = np.array(list(itertools.product([1, -1], repeat=6)))
    sums = np.abs((signs * np.concatenate([small, large]) * weights).sum(axis=1))
    assert found.p == pytest.approx(np.mean(sums >= 3 - 1e-12))
    assert difference([small, np.array([])]).mean == 5  # a data set without pairs does not count
    draws = np.random.default_rng(1)
    both = (draws.choice(small, (20000, 2)).mean(1) + draws.choice(large, (20000, 4)).mean(1)) / 2
    assert (found.low, found.high) == pytest.approx(np.percentile(both, [2.5, 97.5]), abs=0.15)


def test_too_little_to_tell_is_told_as_such():
    assert difference([]).pairs == 0 and difference([]).text() == "–"
    one = difference([np.array([1.5])])
    assert one.mean == 1.5 and np.isnan(one.p) and np.isnan(one.low) and one.text() == "+1.5"
    assert difference([np.zeros(5)]).p == 1
    alike = difference([np.full(5, 2.0)])
    assert alike.p == 2 / 32 and alike.low == alike.high == 2


def test_sums_that_tie_but_for_rounding_count_as_ties():
    values = np.array([-1, -1, 0, 1, -1])
    for scale in (1000, 1821, 2210):
        exact = 100 * ((700 + values) / scale) - 100 * (700 / scale)
        assert difference([exact]).p == difference([values]).p == 0.625


def test_one_seed_of_one_data_set_silences_nothing():
    whole = [np.arange(1.0, 6), np.arange(2.0, 7)]
    assert difference([*whole, np.array([50.0])]) == difference(whole)


def test_seeds_needed_give_the_power_they_promise():
    for effect, spread in ((1.0, 1.0), (0.5, 1.5)):
        n = seeds_needed(effect, spread)
        power = [stats.nct.sf(stats.t.ppf(0.975, m - 1), m - 1, effect / spread * m**0.5) for m in (n - 1, n, n + 1)]
        assert power[2] > 0.8 and power[0] < 0.83, (effect, spread, n, power)
    assert seeds_needed(1.0, 4.0, 4) == -(-seeds_needed(1.0, 4.0) // 4)
    assert seeds_needed(10, 0.1) == 6 and seeds_needed(10, 0.1, tests=10) == 9  # 2 / 2**5 is above 5%, 2 / 2**8 above 0.5%
    assert seeds_needed(0.001, 5) == np.inf == seeds_needed(0, 1)


def test_holms_correction_is_the_textbook_one():
    # Holm (1979): sorted p values times m, m-1, …, never falling, at most one
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, np.nan, 0.005]), [0.03, 0.06, 0.06, np.nan, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert len(holm([])) == 0


# ---------------------------------------------------------------- which runs make which table

def test_tables_are_the_papers_grid():
    full = experiment("table2")
    assert {c.dataset for c in full} == {"subj"} and {str(c.n_train) for c in full} == set(SIZES) and {c.seed for c in full} == set(range(5))
    here = [c for c in full if c.n_train == 50 and c.seed == 0]
    assert sorted((c.encoder, c.method) for c in here) == sorted(
        [(e, m) for e in ("cnn", "lstm") for m in ("plain", "wordmixup", "senmixup", "nonlinearmixup")]
        + [("minilm", m) for m in ("plain", "wordmixup", "senmixup", "nonlinearmixup", "dnm", "label-embedding", "logreg")])
    assert len(full) == len(here) * 6 * 5
    assert {c.method for c in experiment("table7")} == {"dnm", "dnm-k1", "dnm-k3", "dnm-k7", "dnm-k9"}
    assert {c.n_train for c in experiment("table7")} == {"all"} and {c.dataset for c in experiment("table7")} == {"subj", "mr", "sst1"}
    other = experiment("table10", datasets=["builtin"], sizes=["200"], seeds=(7,), encoder="bert-base-uncased", profile="paper")
    assert {(c.dataset, c.n_train, c.seed, c.encoder, c.profile) for c in other} == {("builtin", 200, 7, "bert-base-uncased", "paper")}
    assert {c.method for c in other} == {"dnm", "dnm-no-dss", "dnm-no-lds", "dnm-no-sds", "dnm-no-dnm", "dnm-random"}
    assert not [c for c in experiment("table2", encoder="cnn", sizes=["50"]) if c.method == "logreg"]
    assert {(c.steps, c.eval_every) for c in experiment("figure2", steps="200", eval_every="50")} == {(200, 50)}
    curve = experiment("figure2", profile="paper")
    assert {(c.dataset, c.method, c.eval_every) for c in curve} == {(d, m, 200) for d in ("subj", "sst1") for m in ("nonlinearmixup", "dnm")}
    everything = {c.hash for name in NAMES for c in experiment(name)}
    assert len(everything) > 1000  # "about a thousand runs"


def test_every_published_number_has_its_row():
    found = 0
    for design, (numbers, _) in DESIGNS.items():
        for table in numbers:
            cells = published().query("table == @table")
            for (data, n), theirs in cells.groupby(["dataset", "n_train"]):
                rows = table_rows(design, data, n)
                key = ["method", "encoder"]
                merged = theirs.merge(rows, on=key, suffixes=("", "_row"))
                assert len(merged) == len(theirs) and (merged.accuracy == merged.accuracy_row).all() and (merged.table_row == table).all()
                found += len(merged)
    assert found == 276
    own = table_rows("parts", "/somewhere/mine.csv", "50")
    assert own.accuracy.isna().all() and set(own.table) == {0} and "dnm-random" in set(own.method)


# ---------------------------------------------------------------- the report

def test_the_report_pairs_ours_with_the_papers_numbers(tmp_path):
    plain, dnm, mix = [80.0, 82, 84, 83, 81], [85.0, 84, 86, 88, 83], [81.0, 81, 85, 82, 80]
    records = made_up({("subj", 50, "plain"): plain, ("subj", 50, "dnm"): dnm, ("subj", 50, "senmixup"): mix})
    records += made_up({("subj", 50, "plain"): [60.0] * 5, ("subj", 50, "senmixup"): [62.0] * 5}, encoder="lstm")
    (title, found), = report.tables(frame(records))
    assert title == "Table 2: systems on subj"
    row = found[(found.method == "dnm")].iloc[0]
    assert row.paper == 93.4 and row.ours == pytest.approx(85.2) and row.off == pytest.approx(-8.2) and row.runs == 5
    gap = np.array(dnm) - np.array(plain)
    assert row.to_plain.mean == pytest.approx(gap.mean()) and row.to_plain.p == difference([gap]).p
    assert row.best == "plain" and row.to_best.mean == pytest.approx(gap.mean())
    lstm = found[found.encoder == "lstm"].set_index("method")
    assert lstm.to_plain["senmixup"].mean == 2 and lstm.paper["senmixup"] == 73.1 and np.isnan(lstm.paper["plain"])
    np.testing.assert_allclose(found.p_to_plain, holm(d.p for d in found.to_plain))  # the best is plain: one family of tests
    assert found.p_to_best.isna().all()
    files = report.write(frame(records), tmp_path, [("x.json", len(records), "dnm paper table2")])
    assert {f.name for f in files} >= {"paper.html", "paper.md", "paper.csv", "claims.csv"}
    text = (tmp_path / "paper.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| minilm | DNM |"))
    assert "| 93.4 ± 0.2 | 85.2 ± 0.9 | 5 | -8.2 | +3.2 [" in line and "not run" in text and "44 of the 48 cells of Table 2" in text
    page = (tmp_path / "paper.html").read_text()
    assert "85.2 ± 0.9" in page and not re.search(r"<(script|link)[^>]+(src|href)=.https?:", page)
    stored = pd.read_csv(tmp_path / "paper.csv")
    assert stored[stored.method == "dnm"].to_plain_mean.iloc[0] == pytest.approx(gap.mean())


def test_versions_devices_and_files_of_one_name_are_kept_apart(tmp_path, no_png):
    records = made_up({("subj", 50, m): [80.0, 81, 82] for m in ("plain", "dnm")})
    other = [json.loads(json.dumps(r)) for r in records[:2]]
    for record in other:  # an older version of the sentences
        record["data"]["fingerprint"], record["test_accuracy"] = "older", 0.1
    assert comparable_runs(frame([*other, *records])).accuracy.min() == 80
    assert len(claims.verdicts(frame([*other, *records]))) > 10
    threads = [json.loads(json.dumps(r)) for r in records]
    for number, record in enumerate(threads):
        record["environment"]["device"] = f"CPU (x86_64, {1 + number % 2} threads)"
    assert set(tables.summary(frame(threads)).runs) == {3} and set(tables.summary(frame(threads)).device) == {"CPU (x86_64)"}
    two = [*records, *(json.loads(json.dumps(r)) for r in records)]
    for number, record in enumerate(two):
        record["config"]["dataset"] = f"/{number // len(records)}/mine.csv"
        record["data"]["fingerprint"] = str(number // len(records))
    assert all(path.stat().st_size for path in report.write(frame(two), tmp_path))


def test_settings_reach_the_rows_they_fit():
    rows = experiment("table2", sizes=["50"], seeds=(0,), lr="1e-4", pooling="cls")
    assert {(c.encoder in ("cnn", "lstm"), c.lr, c.pooling) for c in rows} == {(True, 1e-3, "own"), (False, 1e-4, "cls")}
    with pytest.raises(DnmError, match="defined by their k"):
        experiment("table6", k="3")


def test_ablations_are_compared_to_full_dnm_and_own_data_need_no_paper(tmp_path, no_png):
    records = made_up({("builtin", 24, "dnm"): [70.0, 72, 74], ("builtin", 24, "dnm-fow"): [69.0, 70, 71]})
    (title, found), = report.tables(frame(records))
    assert title == "as Tables 8–9: policies on builtin"
    row = found.set_index("method").loc["dnm-fow"]
    assert row.gap == pytest.approx(-2) and row.to_dnm.p == row.p_to_dnm == 0.25 and row.to_dnm.pairs == 3
    assert "TIW + FOW | – | 70.0 ± 0.6 | 3 | – | -2.0 [" in tables.markdown(report.readable(found))
    assert all(path.stat().st_size for path in report.write(frame(records), tmp_path))


def test_verdicts_follow_the_evidence():
    seeds = np.arange(5.0)
    cells = {}
    for data, level in (("subj", 80.0), ("mr", 60.0), ("sst2", 70.0), ("sst1", 30.0)):
        cells |= {(data, 50, "plain"): level + seeds, (data, 50, "dnm"): level + 2 + seeds + 0.1 * seeds % 0.3,
                  (data, 50, "senmixup"): level + seeds + np.array([1, -1, 0.5, -0.5, 0.1]),
                  (data, 50, "wordmixup"): level - 1 + seeds + 0.2 * (seeds % 2), (data, 50, "nonlinearmixup"): level - 2 + seeds + 0.1 * seeds,
                  (data, 50, "dnm-no-sds"): level + seeds * 0.9, (data, 50, "dnm-no-lds"): level + 3 + seeds}
    table = claims.verdicts(frame(made_up(cells))).set_index("part")
    assert table.verdict["DNM > Plain fine-tuning (n = 50)"] == "holds" and table.seeds["DNM > Plain fine-tuning (n = 50)"] == 5
    gap = [cells[d, 50, "dnm"] - cells[d, 50, "plain"] for d in ("subj", "mr", "sst2", "sst1")]
    assert table.ours["DNM > Plain fine-tuning (n = 50)"].mean == pytest.approx(np.mean(gap))
    theirs = published().query("n_train == '50' and encoder != 'cnn or lstm' and table < 6").pivot(index="dataset", columns="method", values="accuracy")
    assert table.paper["DNM > Plain fine-tuning (n = 50)"] == pytest.approx((theirs.dnm - theirs.plain).mean())
    assert table.verdict["SenMixup > Plain fine-tuning (n = 50)"] == "cannot be told"
    assert table.verdict["WordMixup > Plain fine-tuning (n = 50)"] == "does not hold"
    together = table.groupby("claim").claim_verdict.first()
    assert together["Mixup beats plain fine-tuning"] == "does not hold" and together["DNM beats every other mixup"] == "holds"
    assert together["Farthest partners matter more than nearest"] == "does not hold"
    assert together["K = 5 is the best K"] == "not run" and together["More data helps"] == "not run"
    shown = claims.readable(table.reset_index())
    assert shown[shown["what is compared"] == "SenMixup > Plain fine-tuning (n = 50)"]["seeds needed"].iloc[0] != ""
    only = claims.verdicts(frame(made_up({("subj", 50, "dnm"): [80.0, 81, 82, 83, 84], ("subj", 50, "plain"): [70.0, 71, 72.5, 73, 74]})))
    assert only.set_index("part").verdict["DNM > Plain fine-tuning (n = 50)"] == "cannot be told"  # five pairs cannot
    assert (claims.verdicts(frame([])).verdict == "not run").all()


def test_every_system_stands_beside_the_controls():
    """Two data sets, three seeds: differences by hand, averaged over the data sets, Holm over all six known tests."""
    values = {"plain": ([80, 81, 82], [60, 62, 61]), "label-embedding": ([82, 82, 85], [61, 64, 62]), "dmix": ([79, 83, 84], [60, 61, 63]),
              "dnm-k1": ([1, 2, 3], [4, 5, 6])}
    runs = made_up({(data, 50, name): both[i] for name, both in values.items() for i, data in enumerate(("subj", "mr"))})
    table = controls.beside_controls(frame(runs)).set_index("method")
    assert list(table.index) == ["plain", "label-embedding", "dmix"]  # an ablation is none of them, DNM has no runs
    gap = np.mean([np.subtract(a, b).mean() for a, b in zip(values["dmix"], values["plain"], strict=True)])
    assert table.to_plain["dmix"].mean == pytest.approx(gap) and table.to_plain["dmix"].pairs == 6
    assert table["to_label-embedding"]["plain"].mean == pytest.approx(-table.to_plain["label-embedding"].mean)
    raw = [table[f"to_{control}"][name].p for name in table.index for control in ("plain", "label-embedding")]
    np.testing.assert_allclose(table[["p_plain", "p_label-embedding"]].to_numpy().ravel(), holm(raw))
    shown = controls.readable(table).set_index("system")
    assert shown.subj["DMix"] == "82.0 ± 1.5" and shown.seeds["DMix"] == "3" and shown["to DNM"]["DMix"] == "–"
    assert controls.beside_controls(frame([])).empty
    parts = made_up({("subj", 50, "plain"): [60, 61], ("subj", 50, "dnm"): [61, 62], ("mr", 50, "dnm"): [63, 64]})  # the first row has no MR
    assert list(controls.readable(controls.beside_controls(frame(parts))).mr) == ["–", "63.5 ± 0.5"]


def test_what_was_found_is_said_from_the_runs():
    values = {"plain": [60, 61, 62], "label-embedding": [62, 62, 64], "dnm": [61, 63, 63]}
    told = controls.finding(frame(made_up({(data, 50, name): v for name, v in values.items() for data in ("subj", "mr")})))
    assert "2 data sets, 6 pairs" in told and "fine-tuning +1.3 [" in told and "mixing +1.7 [" in told and "beside these -0.3 [" in told
    assert controls.finding(frame(made_up({("subj", 50, "plain"): [60, 61]}))) == "" and controls.finding(frame([])) == ""
    assert difference([np.array([-0.02, 0.0, 0.01])]).text().startswith("+0.0 [+0.0")  # no minus zero


def test_the_systems_in_words_are_those_of_the_table():
    told = controls.systems()
    assert sorted(told.system) == sorted(METHODS[name].title for name in controls.SYSTEMS)
    assert not told.isna().any().any() and not told.apply(lambda column: column.str.contains("<")).any().any()


def test_the_gain_with_few_labels_is_a_difference_of_differences():
    values = {("subj", 50, "dnm"): [80.0, 82], ("subj", 50, "nonlinearmixup"): [75.0, 76], ("subj", "all", "dnm"): [90.0, 91],
              ("subj", "all", "nonlinearmixup"): [89.0, 88]}
    row = claims.verdicts(frame(made_up(values))).set_index("part").loc["DNM − NonlinearMixup: n = 50 > n = all"]
    assert row.ours.mean == pytest.approx(((80 - 75 - 90 + 89) + (82 - 76 - 91 + 88)) / 2)
    assert row.paper == pytest.approx((93.4 - 92.4) - (98.0 - 97.3)) and row["data"] == "subj"


def test_a_claim_over_two_sizes_is_judged_where_both_have_most_runs():
    """The setting with most runs of 50 labels has none of all; of two that have both, the one with more pairs counts."""
    small = made_up({("subj", 50, "dnm"): np.arange(6) + 80.0, ("subj", 50, "plain"): np.arange(6) + 79.0})
    cells = {("subj", 50, "dnm"): [70.0, 71, 73], ("subj", "all", "dnm"): [90.0, 93, 92]}
    fewer = made_up({key: [v + 9 * (key[1] == "all") for v in values[:2]] for key, values in cells.items()}, steps=77)  # named before
    fewer += made_up({("subj", 50, "plain"): [60.0, 61, 62, 63, 64], ("mr", 50, "plain"): [60.0, 61, 62, 63, 64]}, steps=77)  # and with more runs
    single = made_up({(data, n, "dnm"): [50.0] for data in ("subj", "mr", "sst2", "sst1") for n in (50, "all")}, steps=66)  # tells nothing of chance
    table = claims.verdicts(frame([*small, *fewer, *single, *made_up(cells, steps=88)])).set_index("part")
    more, dnm = table.loc["DNM: n = all > n = 50"], table.loc["DNM > Plain fine-tuning (n = 50)"]
    assert more.ours.mean == pytest.approx((20 + 22 + 19) / 3) and more.ours.pairs == 3 and dnm.ours.mean == 1 and dnm.ours.pairs == 6
    assert set(table.setting) == {"minilm, quick, CPU, float32; over two sizes: minilm, quick (steps=88), CPU, float32"}
    assert "two sizes" not in claims.verdicts(frame(small)).setting.iloc[0]
    both = [*small, *made_up({key: values for key, values in cells.items() if key[1] == "all"}), *made_up(cells, steps=88)]
    assert claims.verdicts(frame(both)).set_index("part").ours["DNM: n = all > n = 50"].mean == pytest.approx((10 + 12 + 10) / 3)  # of equals the usual one


def test_each_size_is_judged_by_the_setting_that_has_most_of_its_runs(tmp_path, no_png):
    """Many runs of a larger size with other settings neither replace those of 50 labels nor mix with them."""
    from dnm.plots import charts

    seeds, gap = np.arange(4.0), {50: 3.0, 200: 2.0, 1000: -1.0, 2000: 5.0}
    def cells(*sizes, data=("subj", "mr", "sst2")):
        return {(name, n, method): seeds + 60 + n / 100 + 10 * (name == "subj") + (gap[n] + 0.1 * seeds % 0.3) * (method == "dnm")
                for n in sizes for name in data for method in ("plain", "label-embedding", "dnm", "senmixup")}
    small = cells(50)
    runs = frame([*made_up(small), *made_up(cells(200, 1000), profile="smoke"), *made_up({**cells(2000, data=("sst1",))}, profile="smoke")])
    table = claims.by_size(runs)
    assert list(dict.fromkeys(table.n_train)) == ["50", "200", "1000", "2000"]
    assert {n: set(mine.setting) for n, mine in table.groupby("n_train")} == {
        n: {f"minilm, {profile}, CPU, float32"} for n, profile in (("50", "quick"), ("200", "smoke"), ("1000", "smoke"), ("2000", "smoke"))}
    large = table[table.n_train == "200"]  # of a claim that has runs all parts are there, as its verdict is that of all
    assert set(large[large.verdict == "not run"].part) == {f"{who} > Plain fine-tuning (n = 200)" for who in ("WordMixup", "NonlinearMixup")} | {
        f"DNM > {who} (n = 200)" for who in ("WordMixup", "NonlinearMixup")}
    assert "K = 5 is the best K" in set(table.claim[table.n_train == "50"]) - set(large.claim)
    rows = table.set_index("part")
    for n, verdict, data in (("50", "holds", {"subj", "mr", "sst2"}), ("200", "holds", {"subj", "mr", "sst2"}), ("1000", "does not hold", {"subj", "mr", "sst2"})):
        row = rows.loc[f"DNM > Plain fine-tuning (n = {n})"]
        own = (0.1 * seeds % 0.3).mean() + gap[int(n)]
        assert row.verdict == verdict and row.ours.mean == pytest.approx(own) and row.each == pytest.approx(dict.fromkeys(data, own))
    theirs = published().query("n_train == '200' and encoder != 'cnn or lstm' and table < 6 and dataset != 'sst1'").pivot(index="dataset", columns="method", values="accuracy")
    assert rows.paper["DNM > Plain fine-tuning (n = 200)"] == pytest.approx((theirs.dnm - theirs.plain).mean())
    several = claims.ahead(runs)  # n = 2000 has another data set
    assert list(dict.fromkeys(several["where"])) == [f"{n} labels, 0 steps" for n in (50, 200, 1000)] and set(several.data) == {"subj mr sst2"}
    longer = made_up({key: [value + 10 + (key[2] == "dnm") for value in values] for key, values in small.items()}, steps=77)
    for record in longer:  # another setting of n = 50 stands beside it
        record["history"] = [{"step": 77, "validation_accuracy": 0.5}]
    beside_it = claims.ahead(pd.concat([runs, frame(longer)], ignore_index=True)).set_index(["where", "part"]).ours
    assert beside_it["50 labels, 77 steps", "DNM > Plain fine-tuning (n = 50)"].mean == pytest.approx(
        beside_it["50 labels, 0 steps", "DNM > Plain fine-tuning (n = 50)"].mean + 1)
    ahead = charts.gains(several)
    symbols = {(trace.name, trace.marker.symbol) for trace in ahead.data}
    assert {("subj", "circle-open"), ("mr", "diamond-open"), ("sst2", "square-open")} < symbols and len(symbols) == 5
    assert [note.text for note in ahead.layout.annotations[:2]] == ["SenMixup &gt; Plain fine-tuning", "DNM &gt; SenMixup"]
    shown = next(trace for trace in ahead.data if trace.name == "ours, over the data sets" and list(trace.y) == pytest.approx(
        [rows.ours[f"DNM > Plain fine-tuning (n = {n})"].mean for n in (50, 200, 1000)]))
    assert list(shown.x) == [0, 1, 2] and list(ahead.layout.xaxis3.ticktext) == [f"{n}<br>0" for n in (50, 200, 1000)]
    found = pd.concat([part for _, part in report.tables(runs)])
    found = found[(found.runs > 0) & (found.design == "systems")]
    curves = charts.by_labels(found)
    mean = next(trace for trace in curves.data if trace.name == "DNM" and trace.line.width == 2.5)
    assert list(mean.text) == ["50"] and mean.y[0] == pytest.approx(np.mean(small["subj", 50, "dnm"]))  # others have other settings: no line
    line = next(trace for trace in curves.data if trace.name == "DNM" and list(trace.text) == ["200", "1000"] and trace.line.width == 2.5)
    assert list(line.y) == pytest.approx([np.mean(cells(n)["subj", n, "dnm"]) for n in (200, 1000)])
    assert not len(claims.ahead(frame(made_up(small)))) and not len(claims.ahead(frame([]))) and charts.by_labels(found[found.n_train == "50"]) is None
    report.write(runs, tmp_path)
    text, stored = (tmp_path / "paper.md").read_text(), pd.read_csv(tmp_path / "claims.csv")
    assert "\nOf the paper's claims, with 50 labels: 7 × *not run*, 2 × *cannot be told*, 1 × *holds*.\n" in text
    assert "## The claims with n = 200" in text and "## Is it the mixing? n = 1000" in text
    assert "| DNM > Plain fine-tuning | subj mr sst2 | +3.1 [" in text and (tmp_path / "paper.html").read_text().count(r"Who is ahead, by labels and, below, steps\u003cbr") == 1
    assert stored.set_index("part").each_mr["DNM > Plain fine-tuning (n = 200)"] == pytest.approx(rows.each["DNM > Plain fine-tuning (n = 200)"]["mr"])


def test_runs_with_wrong_labels_or_other_word_vectors_stand_apart(tmp_path, no_png):
    cells = {("subj", 50, method): [80.0 + gap, 82 + gap, 81.5 + gap] for method, gap in (("plain", 0), ("dnm", 2.0), ("label-embedding", 1))}
    wrong = {key: [value - 5 + (key[2] == "dnm") for value in values] for key, values in cells.items()}
    alone = {("subj", 50, "plain"): [60.0, 61, 62], ("subj", 50, "senmixup"): [62.0, 63, 64]}
    better = {key: [value + 10 for value in values] for key, values in alone.items()}
    runs = frame([*made_up(cells), *made_up({**wrong, ("subj", 50, "nonlinearmixup"): [70.0, 71, 72]}, wrong_labels=0.1),
                  *made_up({**wrong, ("subj", 50, "wordmixup"): [70.0, 71, 72]}, wrong_labels=0.3),
                  *made_up(alone, encoder="cnn"), *made_up(better, encoder="cnn", word_vectors="glove")])
    (_, found), = report.tables(runs)
    ours = found[found.runs > 0].set_index(["encoder", "method"]).ours
    assert ours["minilm", "dnm"] == pytest.approx(np.mean(cells["subj", 50, "dnm"])) and ("minilm", "nonlinearmixup") not in ours
    assert ours["cnn", "plain"] == pytest.approx(61) and ours["cnn + glove", "plain"] == pytest.approx(71)
    assert list(dict.fromkeys(found.encoder[found.runs > 0])) == ["cnn", "cnn + glove", "minilm"]
    report.write(runs, tmp_path)
    parts = (tmp_path / "paper.md").read_text().split("\n## ")
    of = {part.partition("\n")[0]: part for part in reversed(parts)}
    assert [re.search(r"wrong_labels=([\d.]+)", part)[1] for part in parts if part.startswith("Is it the mixing, with wrong labels?")] == ["0.1", "0.3"]
    assert "| DNM | 3 | 83.2 ± 0.6 | +2.0 [" in of["Is it the mixing?"]
    assert "| DNM | 3 | 79.2 ± 0.6 | +3.0 [" in of["Is it the mixing, with wrong labels?"] and "wrong_labels=0.1" in of["Is it the mixing, with wrong labels?"]
    report.write(frame(made_up(wrong, wrong_labels=0.1)), tmp_path / "only")  # where there are no others, they are what there is
    assert "## Is it the mixing?\n" in (tmp_path / "only" / "paper.md").read_text()
    still = made_up(cells, profile="head")
    assert set(comparable_runs(frame([*still, *made_up(wrong, wrong_labels=0.1)])).profile) == {"head (frozen encoder)"}


def test_claims_are_in_plain_words_and_holm_is_explained_beside_the_picture(tmp_path):
    from dnm.plots import charts
    from dnm.study.beside import kept_runs

    judged = claims.verdicts(kept_runs())
    assert "DNM, farthest only > DNM, nearest only (n = 50)" in set(judged.part)
    own = re.compile(r"\b(dnm-\w+|\w+mixup\b|plain >|[LSD]DS|SDS|DSS)\b")  # names of rows and abbreviations; titles have capitals
    assert not [text for text in (*judged.part, *judged.claim) if own.search(text)]
    figure = charts.verdicts(judged)
    ours = pd.DataFrame(map(vars, judged.ours))
    assert ((judged.verdict == "cannot be told") & (ours.low * ours.high > 0)).any()  # such a bar needs the words
    assert "Holm" in figure.layout.title.text and f"of {(judged.verdict != 'not run').sum()}," in figure.layout.title.text
    shown = [re.sub(r"<br>|\s", "", html.unescape(text)) for text in figure.layout.yaxis.ticktext]  # escaped, and in lines
    assert shown == [re.sub(r"\s", "", part) for part in judged.part[judged.verdict != "not run"]]
    text = (ROOT / "data" / "report" / "paper.md").read_text()
    assert text.split("\n")[2] == controls.finding(kept_runs())
    minilm, cnn = (RunConfig.create("quick", encoder=encoder) for encoder in ("minilm", "cnn"))
    assert (f"{minilm.steps} steps of {minilm.batch_size} sentences at a rate of {minilm.lr:.0e}".replace("e-0", "e-") in report.LEGEND
            and f"the head's {minilm.head_lr:.0e} (CNN, LSTM: {cnn.steps} steps at {cnn.lr:.0e})".replace("e-0", "e-") in report.LEGEND)
    assert "a bar can lie clear of zero and its comparison still *cannot be told*" in text


@needs_real_data
def test_a_dry_run_tells_of_kept_runs_beside_those_done(tmp_path, capsys):
    """Kept runs are not in the store, so they are to do; that they can be read is said."""
    from dnm.cli import main
    from dnm.study.beside import comparable_runs, kept_runs

    usual = comparable_runs(kept_runs()).query("dataset == 'subj' and n_train == '50' and encoder == 'minilm' and profile == 'quick'")
    kept = sum((c.method, c.seed) in set(zip(usual.method, usual.seed, strict=True)) for c in experiment("table8", datasets=["subj"]))
    assert kept >= 10 and main(["paper", "table8", "--datasets", "subj", "--dry-run", "--runs", str(tmp_path)]) == 0
    assert f"20 runs, 0 done, 20 to do ({kept} of them kept in data/results, in some precision, for `dnm paper report`): " in capsys.readouterr().out
    assert main(["train", "--dataset", "subj", "--seeds", "0", "1", "--dry-run", "--runs", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "dnm, quick: done: none; to do: seeds 0 1" in told and "4 runs, 0 done, 4 to do (4 of them kept in data/results, " in told
    assert not [*tmp_path.glob("*.json")]


def test_the_kept_report_is_that_of_the_kept_runs(tmp_path, no_png):
    from dnm.cli import main

    assert main(["paper", "report", "--out", str(tmp_path)]) == 0
    for kept in sorted(path for path in (ROOT / "data" / "report").glob("[pc]*.*") if path.suffix in (".md", ".csv")):
        assert (tmp_path / kept.name).read_text() == kept.read_text(), f"{kept.name}: run `dnm paper report --out data/report`"
    assert {path.name for path in (ROOT / "data" / "report").glob("*.*")} >= {"paper.md", "claims.csv"}
    of = {part.partition("\n")[0]: part for part in (tmp_path / "paper.md").read_text().split("\n## ")}
    still = {title for title, part in of.items() if "profile head" in part.partition("|")[0]}  # runs without a trained encoder
    assert still == {title for title in of if title.endswith(", frozen encoder")} and len(still) == 9


def test_the_readmes_accuracies_are_those_of_the_kept_runs():
    """Every number of the table, ours from the kept runs, the paper's from its own."""
    table = tables.readable(tables.summary(kept_runs().query(
        "n_train == 50 and encoder == 'minilm' and profile == 'quick' and precision == 'float32' and usual")))
    ours = table.set_index(["data", "method"])["accuracy (%)"]
    paper = published().query("table < 6 and n_train == '50' and encoder == 'bert-base-uncased'")
    paper, rows = paper.set_index(["dataset", "method"]).accuracy, 0
    to_plain = controls.beside_controls(kept_runs()).set_index("method").to_plain
    for line in re.findall(r"^\| (.+ \|(?: \d.+? \|){4} .+) \|$", (ROOT / "README.md").read_text(), flags=re.M):
        title, *cells = [cell.strip() for cell in line.strip("|").split("|")][:5]
        name, rows = next(row for row in METHODS.values() if title.startswith(row.title)), rows + 1
        assert line.strip("| ").split("|")[-1].strip() == (f"{to_plain[name.name].mean:+.1f}" if name.name != "plain" else "–")
        for data, cell in zip(("subj", "mr", "sst2", "sst1"), cells, strict=True):
            theirs = f" ({paper[data, name.name]:.1f})" if (data, name.name) in paper.index else ""
            assert cell == ours[data, name.title] + theirs, (title, data)
    assert rows == 7


def costs_of_wrong_labels(runs):
    """Points that a tenth of wrong labels costs each method, paired by seed, over Subj and SST-2."""
    usual = "quick (steps=200, eval_every=200"
    few = runs[(runs.n_train == 200) & runs.dataset.isin(["subj", "sst2"]) & runs.profile.isin([f"{usual})", f"{usual}, wrong_labels=0.1)"])]
    table = few.pivot(index=["dataset", "seed", "method"], columns="profile", values="accuracy").dropna()
    assert {*table.index.get_level_values('method')} == {'plain', 'senmixup', 'nonlinearmixup', 'dnm', 'label-embedding'} and len(table) >= 30
    return (table[f"{usual})"] - table[f"{usual}, wrong_labels=0.1)"]).groupby("method").mean().to_dict()


def test_what_the_readme_says_in_words_is_what_the_kept_runs_say():
    kept, text = kept_runs(), " ".join((ROOT / "README.md").read_text().split())
    ours = claims.verdicts(kept).set_index("part")
    gaps = claims.ahead(kept).set_index(["where", "pair"]).ours
    dnm, alone, over = (ours.ours[f"{pair} (n = 50)"] for pair in (
        "DNM > Plain fine-tuning", "Label embeddings, no mixing > Plain fine-tuning", "DNM > Label embeddings, no mixing"))
    lead, over_alone, nonlinearly = ([f"{round(gaps[f'{n} labels, 200 steps', pair].mean, 1) + 0.0:.1f}" for n in ("50", "200", "500", "1000", "2000", "all")]
                                     for pair in ("DNM > Plain fine-tuning", "DNM > Label embeddings, no mixing", "NonlinearMixup > Plain fine-tuning"))
    each = ours.each["DNM > Label embeddings, no mixing (n = 50)"]
    random, nonlinear = ours.ours["DNM > DNM, random partners (n = 50)"], ours.ours["NonlinearMixup > Plain fine-tuning (n = 50)"]
    assert set(ours.verdict[[f"DNM > {who} (n = 50)" for who in ("Plain fine-tuning", "WordMixup", "SenMixup", "NonlinearMixup")]]) == {"holds"}
    most = claims.verdicts(kept, "2000").set_index("part").verdict
    assert {most[f"DNM > {who} (n = 2000)"] for who in ("SenMixup", "WordMixup")} == {"does not hold"}
    longer = {who: gaps["2000 labels, 400 steps", f"DNM > {who}"] for who in ("Plain fine-tuning", "Label embeddings, no mixing", "SenMixup", "WordMixup")}
    assert [found.low > 0 for found in longer.values()] == [True, False, False, False] and all(found.high > 0 for found in longer.values())
    more = longer["Plain fine-tuning"]
    wrong = {f"{cost:.0f}" for cost in costs_of_wrong_labels(kept).values()}
    assert len(wrong) == 1
    assert gaps["500 labels, 200 steps", "DNM > Plain fine-tuning"].pairs == gaps["all labels, 200 steps", "DNM > Plain fine-tuning"].pairs == 12
    few = comparable_runs(kept).query("encoder == 'minilm' and n_train == '50' and profile == 'quick' and precision == 'float32'")
    first, last, five = (difference([mine.to_numpy() for _, mine in paired(by_seed(few[few.seed.isin(seeds)], "method", rows=("dataset", "seed")),
                                                                     (1, "dnm"), (-1, "plain")).groupby(level=0)])
                   for seeds in (range(6), range(6, 12), range(5)))
    assert first.pairs == last.pairs == 24 and {"WordMixup", "SenMixup"} & {*ours.verdict[lambda v: v == "cannot be told"].index.str.split(" > ").str[0]} == {
        "WordMixup", "SenMixup"}
    for told in (f"after 50 steps DNM beats plain fine-tuning by {dnm.mean:.1f} points, and so do its label embeddings",
                 f"by {dnm.mean:.1f} points ({dnm.pairs} pairs, 95% interval {dnm.low:.1f} to {dnm.high:.1f}; seeds "
                 f"0 to 5 alone {first.mean:.1f}, the other six {last.mean:.1f}; the paper {ours.paper['DNM > Plain fine-tuning (n = 50)']:.1f})",
                 f"alone gain the same** {alone.mean:.1f}:", f"{round(over.mean, 1) + 0.0:.1f} on average ({over.low:.1f} to {over.high:+.1f}), "
                 f"{each['mr']:.1f} on MR, {each['sst1']:+.1f} on SST-1", f"({round(random.mean, 1) + 0.0:.1f}, {random.low:.1f} to {random.high:+.1f})",
                 f"NonlinearMixup is {-nonlinear.mean:.1f} points *behind* plain fine-tuning (after 200 steps {nonlinearly[0][1:]}, "
                 f"with 2000 labels {nonlinearly[4][1:]})", "it is ahead of plain fine-tuning by {} points with 50 labels, {} with 200, {} with 500, {} with "
                 "1000, {} with 2000, {} with all; of label embeddings by {}, {}, {}, {}, {} and {}.".format(*lead, *over_alone),
                 f"after 400 steps it leads plain fine-tuning by {more.mean:.1f} ({more.low:.1f} to {more.high:.1f}), the others by nothing that can be told.",
                 f"A tenth of 200 labels wrong (Subj, SST-2) costs five methods {min(wrong)} points each.",
                 f"on the first five DNM has {five.mean:+.1f}"):
        assert told in text, told
    cells = json.loads((ROOT / "notebooks" / "05_ablations.ipynb").read_text())["cells"]
    prose = " ".join(" ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown").split())
    shown = {f"{n} labels, {steps} steps": f"with {n}" for n, steps in ((500, 200), (1000, 200), (2000, 200), ("all", 200))}
    for (where, pair), gap in gaps.items():  # notebook 05 says the same
        if pair == "DNM > Plain fine-tuning" and where in shown:
            assert re.search(rf"{re.escape(gap.text())} {shown[where]}", prose), (where, gap.text())
        if where == "2000 labels, 400 steps" and pair.startswith("DNM > "):
            assert f"{gap.text()} to {pair.removeprefix('DNM > ').replace('Plain', 'plain').replace('Label embeddings, no mixing', 'label embeddings')}" in prose, pair
        if pair == "NonlinearMixup > Plain fine-tuning" and where in shown:
            assert gap.text() in prose, where


def test_the_page_on_speed_tells_what_was_measured():
    kept = [json.loads((ROOT / "data" / "results" / f"bench-cpu-{name}.json").read_text()) for name in ("xeon-both-precisions", "epyc")]
    rows = [row for part in (kept[0]["steps"], kept[0]["evaluation"], kept[1]["rows"]) for row in part]
    measured = {(f"{row['milliseconds']:.0f} ms", f"{row.get('faster_than_trainer', 0):.2f}") for row in rows}
    measured |= {(f"{row['milliseconds'] / 1000:.1f} s", f"{row.get('faster_than_trainer', 0):.2f}") for row in rows}
    told = re.findall(r"([\d.]+ m?s) \(([\d.]+) x\)", (ROOT / "data" / "report" / "speed.md").read_text())
    assert len(told) >= 17 and set(told) <= measured


def test_a_run_kept_with_one_thread_and_with_two_counts_once(tmp_path):
    from dnm.runs.results import load

    source = json.loads((ROOT / "data" / "results" / "choice-sst2-lr1e-4-head1e-3.json").read_text())
    (tmp_path / "one.json").write_text(json.dumps(source))
    for record in source["runs"]:
        record["environment"]["device"] = record["environment"]["device"].replace("1 threads", "2 threads")
    (tmp_path / "two.json").write_text(json.dumps(source))
    assert len(load(tmp_path)) == len(source["runs"]) == 4
