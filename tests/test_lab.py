"""Rate 0: heads on hidden states that are computed once, alone and as a stack; the ablation lab."""

import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import reference as ref
import torch
from test_fleet import essence
from test_training import stop_after
from torch.utils._pytree import tree_map
from transformers import AutoModel

from dnm import states
from dnm.classify.estimator import DNMClassifier
from dnm.config import PROFILES, RunConfig
from dnm.errors import DnmError, Interrupted
from dnm.heads import Draws, Head
from dnm.methods import METHODS
from dnm.notebook import lab
from dnm.plots.lab import trial
from dnm.runs.fleet import fit_fleet, fleet_size, fleets, kind
from dnm.runs.results import frame
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.study.statistics import difference
from dnm.training import Run, fit

HIDDEN = [name for name, row in METHODS.items() if row.level in ("none", "sentence") and not row.augment]


@pytest.fixture
def head(tiny):
    """A configuration at rate 0 that trains in a moment."""
    return lambda **settings: tiny(**dict(lr=0, k=None) | settings)


def alone(folder, run, sentences) -> torch.Tensor:
    """Hidden states of single sentences by the unmodified model, its mean over word pieces."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.stack([model(torch.from_numpy(ids).unsqueeze(0)).last_hidden_state[0].mean(0) for ids in sentences])


# ---------------------------------------------------------------- what rate 0 means

def test_the_profile_trains_a_head_and_says_so():
    config = RunConfig.create("head")
    assert config.frozen and config.lr == 0 == config.dropout and config.label == "head (frozen encoder)"
    assert RunConfig.create("head", steps=50).label == "head (frozen encoder, steps=50)"
    assert RunConfig.create("quick", lr=0).label == "quick (frozen encoder)"
    assert config.hash == RunConfig.create("head", dropout=0.3).hash  # dropout makes no other run of it
    assert not any(RunConfig.create(profile).frozen for profile in PROFILES if profile != "head")
    assert not RunConfig.create("head", lr=1e-5).frozen and RunConfig.create("head", lr=1e-5).dropout == 0.1


@pytest.mark.parametrize("settings, message", [
    (dict(method="wordmixup"), "wordmixup changes what the encoder reads: take an lr above 0"),
    (dict(method="nonlinearmixup"), "nonlinearmixup changes what the encoder reads"),
    (dict(encoder="cnn"), "lr=0 needs a pre-trained encoder"), (dict(encoder="lstm"), "lr=0 needs a pre-trained encoder"),
    (dict(lr=-1), "lr cannot be negative")])
def test_what_needs_an_encoder_that_learns_is_refused_in_one_line(settings, message):
    with pytest.raises(DnmError, match=message) as refused:
        RunConfig.create("head", **settings)
    assert "\n" not in str(refused.value)


def test_new_levels_and_rows_that_rewrite_texts_are_refused(monkeypatch):
    for name, changes in (("deep", dict(level="layer")), ("rewritten", dict(augment="eda"))):
        monkeypatch.setitem(METHODS, name, replace(METHODS["senmixup"], name=name, **changes))
        with pytest.raises(DnmError, match=f"{name} changes what the encoder reads"):
            RunConfig.create("head", method=name)


# ---------------------------------------------------------------- a run

@pytest.mark.parametrize("method", ["dnm", "plain"])
def test_a_steps_loss_and_gradients_are_those_of_the_unmodified_encoder(head, tiny_models, method):
    """The loss against NumPy, some gradients by central differences, all against the ordinary loss of a head."""
    run = Run(head(method=method))
    index, parameters = run.batches(0), {name: p.detach().clone() for name, p in run.model.head.named_parameters()}
    hidden, labels = alone(tiny_models["bert"], run, [run.batches.sentences[i] for i in index]), run.batches.labels[index]
    names = {"v": "input_policy", "W": "label_policy", "M": "label_embedding", "fc_w": "fc.weight", "fc_b": "fc.bias"}
    p = {short: parameters[name].double().numpy() for short, name in names.items() if name in parameters}
    h, caught = hidden.double().numpy(), {}
    run.optimiser.step = lambda: caught.update({name: q.grad.clone() for name, q in run.trained.items()})

    def value() -> float:
        if method == "dnm":
            return ref.dnm_loss(h, labels, p, run.k)
        return float(np.mean([ref.cross_entropy(p["fc_w"] @ one + p["fc_b"], y) for one, y in zip(h, labels, strict=True)]))

    assert run.train_step().item() == pytest.approx(value(), rel=1e-5)
    for short in {"M", "v", "fc_b"} & p.keys():
        np.testing.assert_allclose(caught[f"head.{names[short]}"], ref.gradient(value, p[short]), atol=1e-5)
    usual = Head(run.method, hidden.shape[1], 2, run.k, seed=run.config.seed)
    assert run.model.head.by_role and not usual.by_role
    usual.loss(hidden, torch.from_numpy(labels), tree_map(lambda one: one[0], run.batches.inputs([0]).draws)).backward()
    assert caught.keys() == {f"head.{name}" for name, _ in usual.named_parameters()}  # and nothing of the encoder
    for name, q in usual.named_parameters():
        torch.testing.assert_close(caught[f"head.{name}"], q.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", HIDDEN)
def test_every_row_that_mixes_hidden_states_is_the_ordinary_run_at_a_rate_too_small_to_move(head, tiny, method):
    ordinary, frozen = fit(tiny(method=method, lr=1e-30, dropout=0.0))[0], fit(head(method=method))[0]
    for row, other in zip(ordinary["history"], frozen["history"], strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_the_encoder_is_at_the_end_what_it_was(head, tiny_models):
    _, run = fit(head(method="dnm"))
    untouched, encoder = AutoModel.from_pretrained(tiny_models["bert"]), run.model.encoder
    words = untouched.get_input_embeddings().weight
    assert torch.equal(encoder.words.whole()[:-1], words) and all(name.startswith("head.") for name in run.trained)
    assert not any(p.requires_grad for p in encoder.parameters())
    ours = dict(encoder.model.named_parameters())
    assert all(torch.equal(ours[name], p) for name, p in untouched.named_parameters() if p is not words and name in ours)
    torch.testing.assert_close(run.model.states, alone(tiny_models["bert"], run, run.batches.sentences), atol=1e-5, rtol=1e-4)


def test_a_stopped_run_ends_the_same_bit_for_bit_whatever_ran_before(head, tmp_path):
    config, path = head(method="dnm", eval_every=2), tmp_path / "c.safetensors"
    whole = essence(fit(config)[0])
    states._built.cache_clear()
    for step in (1, 4):
        event, tell = stop_after(step)
        with pytest.raises(Interrupted):
            fit(config, checkpoint=path, stop=event, on_progress=tell)
        fit(head(method="plain", seed=step))  # other sentences are encoded in between
    assert essence(fit(config, checkpoint=path)[0]) == whole


def test_states_are_computed_once_for_all_runs_of_a_process(head):
    states._built.cache_clear()
    first = Run(head(method="plain", n_train="all"))
    seen = []
    first.model.encoder.register_forward_hook(lambda *_: seen.append(1))
    fit(first.config)
    held = len(seen)
    for seed in range(1, 4):  # all sentences in another order
        run = fit(head(method="dnm", n_train="all", seed=seed))[1]
    assert 0 < held == len(seen) and run.model.encoder is first.model.encoder
    fit(head(method="dnm", n_train=24))
    assert held < len(seen) < 2 * held  # a part of them is computed by itself
    place = {run.batches.sentences[i].tobytes(): i for i in range(len(run.batches.sentences))}
    other = [place[sentence.tobytes()] for sentence in first.batches.sentences]
    assert other != sorted(other) and torch.equal(first.model.states, run.model.states[other])


def test_no_more_than_a_few_sets_of_states_are_kept(head, monkeypatch):
    states._built.cache_clear()
    monkeypatch.setattr(states, "MOST", 3)
    records = [essence(fit(head(method="plain", seed=seed))[0]) for seed in (0, 1, 2, 0)]
    assert records[0] == records[-1] and len(states.KNOWN[Run(head()).model.encoder]) == 3


def test_a_model_is_saved_with_its_encoder_and_predicts_as_it_did(head, tmp_path):
    _, run = fit(head(method="dnm"))
    DNMClassifier.of(run).save(tmp_path / "model")
    loaded = DNMClassifier.load(tmp_path / "model")
    texts = run.data.test.texts[:60]
    np.testing.assert_allclose(loaded.scores(texts), DNMClassifier.of(run).scores(texts), atol=1e-6)
    assert fit(head(method="logreg"))[0]["test_accuracy"] == fit(head(method="logreg", lr=1e-3))[0]["test_accuracy"]


# ---------------------------------------------------------------- a stack

def test_a_fleet_of_heads_is_the_runs_alone(head):
    """Seeds, K, partners and policies in one stack, some with fewer training sentences than others."""
    configs = [head(method=method, seed=seed, n_train=24 + 6 * (seed % 3)) for seed, method in enumerate(HIDDEN)
               if METHODS[method].stacks and METHODS[method].partners != "batch"]
    configs += [head(method="dnm", seed=3, k=k) for k in (1, 2, 3)] + [head(method="dnm", seed=3, original_weight=0.5)]
    assert len({kind(config) for config in configs}) == 1
    for config, (record, run) in zip(configs, fit_fleet(configs), strict=True):
        single, other = fit(config)
        for row, fleet_row in zip(single["history"], record["history"], strict=True):
            assert row == pytest.approx(fleet_row, rel=1e-4, abs=1e-5), config.method
        assert record["environment"]["fleet"] == len(configs)
        for name, p in other.trained.items():
            assert ((p - run.trained[name]).abs() < 1e-5).float().mean() > 0.9, (config.method, name)


def test_the_scheduler_shares_heads_out_as_fleets_and_their_records_say_what_they_are(head, tmp_path):
    configs = [head(method=method, seed=seed) for method in ("dnm", "plain") for seed in range(12)]
    assert fleet_size(configs[0]) == 16 and [len(group) for group in fleets(configs)] == [16, 8]
    assert kind(head(method="logreg")) is None and fleet_size(head(method="logreg")) == 1
    records = run_all(configs[10:14], RunStore(tmp_path), workers=1)
    assert {record["environment"]["fleet"] for record in records} == {4}
    assert set(frame(records).profile.str.contains("frozen encoder")) == {True}
    again = run_all(configs[10:14], RunStore(tmp_path), workers=1)
    assert json.dumps(again) == json.dumps(records)


def test_a_fleet_of_heads_stopped_goes_on_bitwise(head, tmp_path):
    configs, path = [head(method=method) for method in ("dnm", "plain", "dnm-fiw")], tmp_path / "c.safetensors"
    expected = [essence(record) for record, _ in fit_fleet(configs)]
    event, tell = stop_after(4)
    with pytest.raises(Interrupted):
        fit_fleet(configs, checkpoint=path, stop=event, on_progress=tell)
    assert [essence(record) for record, _ in fit_fleet(configs, checkpoint=path)] == expected


def test_runs_of_a_frozen_encoder_stand_beside_the_paper_only_where_there_are_no_others(head, tiny):
    from dnm.study.beside import comparable_runs

    records = [fit(config)[0] for config in (head(method="plain"), head(method="dnm"), tiny(method="plain"))]
    assert list(comparable_runs(frame(records)).method) == ["plain"] and list(comparable_runs(frame(records[:2])).method) == ["plain", "dnm"]
    assert comparable_runs(frame([])).empty


def test_a_frozen_run_is_less_work_than_one_that_trains_its_encoder(head, tiny):
    from dnm.runs.plan import expected_seconds, units

    frozen, trained = head(steps=300), tiny(steps=300)
    assert 0 < units(frozen) < units(trained) / 5
    records = [dict(config=config.to_dict(), seconds=seconds) for config, seconds in ((frozen, 1.0), (frozen, 1.0), (trained, 60.0))]
    assert expected_seconds([trained, frozen.with_(seed=3)], records) == pytest.approx(61)  # the rates of each kind are its own


# ---------------------------------------------------------------- the ablation lab

FULL = dict(partners="both", K="5", inputs="learned", labels="learned", loss="cosine")
NAMED = {"dnm": {}, "dnm-k1": dict(K="1"), "dnm-k3": dict(K="3"), "dnm-k7": dict(K="7"), "dnm-k9": dict(K="9"),
         "dnm-fow": dict(labels="fixed"), "dnm-fiw": dict(inputs="fixed"), "dnm-fiw-fow": dict(inputs="fixed", labels="fixed"),
         "dnm-no-dss": dict(partners="one"), "dnm-no-lds": dict(partners="nearest"), "dnm-no-sds": dict(partners="farthest"),
         "dnm-no-dnm": dict(inputs="drawn λ", labels="as inputs"), "dnm-random": dict(partners="random"),
         "label-embedding": dict(partners="none"), "plain": dict(partners="none", loss="cross-entropy"),
         "senmixup": dict(partners="shuffled", loss="cross-entropy", inputs="fixed", labels="fixed")}  # these play no part then


def test_buttons_make_the_rows_of_the_table():
    for name, buttons in NAMED.items():
        assert lab.row_of(**FULL | buttons) is METHODS[name]
    made = lab.row_of(**FULL | dict(partners="nearest", K="3", labels="as inputs"))
    expected = replace(METHODS["dnm-no-lds"], k=3, labels="scalar", title=made.title, name="dnm", source=METHODS["dnm"].source)
    assert made == expected and made.title == "partners nearest, K 3, inputs learned, labels as inputs, loss cosine"
    assert lab.row_of(**FULL | dict(partners="one", K="3", inputs="fixed")).title == "partners one, inputs fixed, labels learned, loss cosine"


def test_every_combination_of_buttons_has_a_loss():
    hidden, labels, draws = torch.randn(12, 6), torch.arange(12) % 3, Draws(torch.tensor(0.3), torch.randperm(12), torch.rand(12, 12))
    rows = {lab.row_of(**dict(zip(lab.BUTTONS, buttons, strict=True))) for buttons in product(*lab.BUTTONS.values())}
    assert len(rows) > 200
    for row in rows:
        head = Head(row, 6, 3, row.k)
        usual = head.loss(hidden, labels, draws).item()
        head.by_role = True
        loss = head.loss(hidden, labels, draws)
        loss.backward()
        assert math.isfinite(usual) and loss.item() == pytest.approx(usual, rel=1e-4)


def test_a_click_trains_in_the_background_what_is_not_known_yet(head, monkeypatch):
    config, calls, train = head(method="plain", n_train=50), [], lab.fit_fleet
    monkeypatch.setattr(lab, "fit_fleet", lambda configs, **options: calls.append(configs[0].row) or train(configs, **options))
    widget = lab.AblationLab(config, seeds=range(3))
    assert calls == [] and [len(trace.x) for trace in widget.figure.data] == [0] * 6  # nothing before the click
    widget.controls["partners"].value = "nearest"
    widget.thread.join(60)
    assert calls == [METHODS["dnm"], METHODS["dnm-no-lds"]] and "3 seeds in" in widget.line.value
    full, mine = ([100 * fit(head(method=method, n_train=50, seed=seed))[0]["test_accuracy"] for seed in range(3)]
                  for method in ("dnm", "dnm-no-lds"))
    data, gaps = widget.figure.data, np.subtract(mine, full)
    for place, values in ((0, full), (2, mine), (4, gaps)):
        np.testing.assert_allclose(data[place].x, values)
        np.testing.assert_allclose(data[place + 1].x, [np.mean(values)])
    gap = difference([gaps])
    np.testing.assert_allclose([data[5].x[0] - data[5].error_x.arrayminus[0], data[5].x[0] + data[5].error_x.array[0]], [gap.low, gap.high])
    assert widget.figure.layout.title.text.startswith("DNM w/o LDS") and "3 pairs" in widget.figure.layout.title.text
    widget.controls["partners"].value = "both"
    widget.thread.join(60)
    assert len(calls) == 2 and "trained before" in widget.line.value and data[2].x == data[0].x
    widget.controls["partners"].value = "none"
    assert all(widget.controls[name].disabled for name in ("K", "inputs", "labels")) and not widget.controls["loss"].disabled
    widget.thread.join(60)
    widths = [int(control.layout.width[:-2]) for control in widget.controls.values()]
    assert widget.figure.layout.height + 36 * 3 <= 560 and max(widths) <= 820  # three rows of buttons


def test_a_combination_is_the_run_that_a_row_of_the_table_would_be(head, monkeypatch):
    widget = lab.AblationLab(head(method="dnm"), seeds=[4])
    widget.controls["partners"].value = "farthest"
    widget.controls["labels"].value = "fixed"
    widget.thread.join(60)
    monkeypatch.setitem(METHODS, "made", replace(METHODS["dnm-no-sds"], name="made", train_label_policy=False))
    assert widget.figure.data[2].x[0] == pytest.approx(100 * fit(head(method="made", seed=4))[0]["test_accuracy"])


def test_a_newer_click_ends_an_older_training_and_errors_are_told(head, tmp_path):
    widget = lab.AblationLab(head(method="dnm", steps=5000, eval_every=5000), seeds=[0])
    widget.controls["inputs"].value = "fixed"
    older = widget.thread
    widget.config = widget.config.with_(steps=3, eval_every=3)
    widget.controls["labels"].value = "fixed"
    older.join(30)
    widget.thread.join(30)
    assert not older.is_alive() and set(widget.known) == {METHODS["dnm"], METHODS["dnm-fiw-fow"]}
    broken = lab.AblationLab(head(method="plain", dataset=str(tmp_path / "none.csv")), seeds=[0])
    broken.begin()
    broken.thread.join(30)
    assert "error: no such data file" in broken.line.value
    with pytest.raises(DnmError, match="lr=0"):
        lab.AblationLab(RunConfig.create("quick"))


def test_what_is_trained_is_known_to_the_lab_and_shown_by_its_twin(head):
    runs = frame([fit(head(method=method, seed=seed))[0] for method in ("dnm", "plain") for seed in (0, 1)])
    widget = lab.AblationLab(head(method="dnm"), [0, 1], runs)
    assert set(widget.known) == {METHODS["dnm"], METHODS["plain"]} and list(widget.figure.data[0].x) == list(runs.accuracy[:2])
    assert set(lab.AblationLab(head(method="dnm"), [0, 1, 2], runs).known) == set()  # a seed is missing
    figure = lab.twin(runs)
    full, plain = runs.accuracy[:2].to_numpy(), runs.accuracy[2:].to_numpy()
    assert [frame.name for frame in figure.frames] == ["plain", "dnm"]
    shown = trial("Plain fine-tuning", "", full, plain, difference([plain - full]))
    for trace, expected in zip(figure.data, shown.data, strict=True):
        assert list(trace.x) == list(expected.x) and list(trace.y) == list(expected.y)
