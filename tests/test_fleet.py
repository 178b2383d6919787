"""Fleets: every member is the run it would be alone; members do not influence each other; resume; CUDA graphs."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from reference import dnm_loss
from transformers import AutoModel

from dnm.errors import DnmError
from dnm.packing import NOTHING, pack_alike
from dnm.runs.fleet import Fleet, fit_fleet, fleets, kind, usual_shape
from dnm.runs.scheduler import RunsFailed, run_all
from dnm.runs.store import RunStore
from dnm.training import Interrupted, Run, fit

SENTENCE_LEVEL = ["plain", "dnm", "dnm", "senmixup", "dnm-fiw", "dnm-k1", "dnm-no-dnm", "dnm-no-dss", "dnm-random"]


def members(tiny, methods, **settings):
    return [tiny(method=method, seed=seed, **settings) for seed, method in enumerate(methods)]


def gradients(trainer) -> list[torch.Tensor]:
    """Gradients of a step, caught where the optimiser would use them."""
    caught = []
    trainer.optimiser.step = lambda: caught.extend(
        torch.zeros_like(p) if p.grad is None else p.grad.clone()  # the last of these: a parameter that a method leaves alone
        for group in trainer.optimiser.param_groups for p in group["params"])
    trainer.train_step()
    return caught


def essence(record: dict) -> dict:
    return {name: record[name] for name in ("config", "test_accuracy", "history", "test_predictions")}


@pytest.mark.parametrize("settings", [{}, dict(encoder="cnn", pooling="own")], ids=["bert", "cnn"])
@pytest.mark.parametrize("methods", [SENTENCE_LEVEL, ["wordmixup"] * 3, ["nonlinearmixup"] * 3], ids=["sentence", "word", "matrix"])
def test_a_member_without_dropout_is_the_run_alone(tiny, methods, settings):
    """Losses, policies, predictions of every evaluation, and the parameters at the end."""
    configs = members(tiny, methods, dropout=0.0, **settings)
    assert len({kind(config) for config in configs}) == 1
    alone, together = [fit(config) for config in configs], fit_fleet(configs)
    for (record, run), (fleet_record, fleet_run) in zip(alone, together, strict=True):
        for row, fleet_row in zip(record["history"], fleet_record["history"], strict=True):
            assert row == pytest.approx(fleet_row, rel=1e-5, abs=1e-5)
        used = torch.isin(fleet_run.model.encoder.words.ids, run.model.encoder.words.ids)
        for name, p in run.trained.items():
            theirs = fleet_run.trained[name]
            if name == "encoder.words.rows":  # the fleet's hold those of the other members, too: untouched
                before = fleet_run.model.encoder.words.table[fleet_run.model.encoder.words.ids]
                assert torch.equal(theirs[:-1][~used], before[~used]) and (theirs[-1] == 0).all()
                theirs = torch.cat([theirs[:-1][used], theirs[-1:]])
            # AdamW turns the rounding of gradients near zero into whole steps of 1e-3 here and there
            assert ((p - theirs).abs() < 1e-5).float().mean() > 0.9, name


def test_members_are_the_runs_alone_beyond_one_window_of_inputs(tiny, monkeypatch):
    """Windows of four steps, the last one shorter; and a shape too small, so that some windows need another."""
    from dnm.runs import fleet

    monkeypatch.setattr(fleet, "WINDOW", 4)
    configs = members(tiny, ["dnm", "plain"], dropout=0.0, steps=10, eval_every=5, n_train=60)
    alone = [fit(config)[0] for config in configs]
    for shape in (None, (2, 8)):
        if shape:
            monkeypatch.setattr(fleet, "usual_shape", lambda *_: (2, 8))
        for record, (fleet_record, _) in zip(alone, fit_fleet(configs), strict=True):
            for row, fleet_row in zip(record["history"], fleet_record["history"], strict=True):
                assert row == pytest.approx(fleet_row, rel=1e-4, abs=1e-4)
                assert fleet_record["environment"]["fleet"] == 2


@pytest.mark.parametrize("methods", [["plain", "senmixup", "dnm", "dnm"], ["wordmixup"] * 2], ids=["sentence", "word"])
def test_gradients_of_members_equal_those_of_each_run_alone(tiny, methods):
    configs = members(tiny, methods, dropout=0.0)
    fleet, alone = Fleet([Run(config) for config in configs]), [Run(config) for config in configs]
    together = dict(zip([*fleet.encoder, *(f"{i}{name}" for i, (*_, p) in enumerate(fleet.heads) for name in p)],
                        gradients(fleet), strict=True))
    for i, run in enumerate(alone):
        for name, own in zip(run.trained, gradients(run), strict=True):
            group, place = next((g, m.tolist().index(i)) for g, (_, m, _) in enumerate(fleet.heads) if i in m)
            theirs = together[name][i] if name in together else together[f"{group}{name.removeprefix('head.')}"][place]
            if name == "encoder.words.rows":
                used = torch.isin(fleet.first.model.encoder.words.ids, run.model.encoder.words.ids)
                assert (theirs[:-1][~used] == 0).all()
                theirs = torch.cat([theirs[:-1][used], theirs[-1:]])
            torch.testing.assert_close(theirs, own, atol=1e-5, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_a_member_agrees_with_an_eager_loop_on_the_unmodified_encoder(tiny, tiny_models):
    """Loss against NumPy on the unmodified model's states of single sentences; encoder gradients by its own backward."""
    configs = members(tiny, ["dnm", "dnm"], dropout=0.0)
    fleet = Fleet([Run(config) for config in configs])
    found = dict(zip(fleet.encoder, gradients(fleet), strict=False))
    for i, run in enumerate(fleet.members):
        model, hidden = AutoModel.from_pretrained(tiny_models["bert"]).eval(), []
        for position in run.batches(0):
            ids = torch.from_numpy(run.batches.sentences[position]).unsqueeze(0)
            hidden.append(model(ids).last_hidden_state[0].mean(0))
        hidden = torch.stack(hidden)
        head, labels = run.model.head, run.batches.labels[run.batches(0)]
        arrays = {"v": head.input_policy, "W": head.label_policy, "M": head.label_embedding, "fc_w": head.fc.weight, "fc_b": head.fc.bias}
        expected = dnm_loss(hidden.detach().double().numpy(), labels, {n: p.detach().double().numpy() for n, p in arrays.items()}, run.k)
        assert fleet.losses[i].item() == pytest.approx(expected, rel=1e-5)
        head.loss(hidden, torch.from_numpy(labels), fleet.first.batches.inputs([0]).draws).backward()
        for name, parameter in model.named_parameters():
            if name.startswith("encoder.layer"):
                torch.testing.assert_close(found[f"encoder.model.{name}"][i], parameter.grad, atol=1e-5, rtol=1e-4)


def test_replacing_a_member_leaves_the_others_bitwise_alike(tiny):
    configs = members(tiny, ["dnm", "plain", "dnm-fow", "senmixup"], dropout=0.1)
    first = fit_fleet(configs)
    configs[1] = tiny(method="dnm", seed=77, k=2, dropout=0.1)
    second = fit_fleet(configs)
    for i in (0, 2, 3):
        assert essence(first[i][0]) == essence(second[i][0])
    assert first[1][0]["history"] != second[1][0]["history"]


def test_a_member_whose_loss_is_no_number_fails_alone(tiny, tmp_path, monkeypatch):
    configs = members(tiny, ["dnm"] * 3)
    healthy = fit_fleet(configs)
    begin = Run.__init__

    def poisoned(self, config, data=None):
        begin(self, config, data)
        if config.seed == 1:
            self.model.head.fc.weight.data.fill_(float("nan"))

    monkeypatch.setattr(Run, "__init__", poisoned)
    with pytest.raises(RunsFailed) as failed:
        run_all(configs, RunStore(tmp_path), workers=1, fleet=3)
    records, errors = failed.value.records, failed.value.errors
    assert [essence(r) for r in records] == [json.loads(json.dumps(essence(healthy[i][0]))) for i in (0, 2)]
    assert list(errors) == [configs[1].hash] and "no longer a finite number" in errors[configs[1].hash]
    both = fit_fleet([configs[1], configs[1].with_(method="plain")])
    assert all(isinstance(record, DnmError) and run.step == 3 for record, run in both)  # nothing is left to train


def test_a_fleet_stopped_or_killed_goes_on_bitwise(tiny, tmp_path):
    configs = members(tiny, ["dnm", "plain", "dnm-fiw"], steps=40, eval_every=10, dropout=0.1, precision="auto")
    expected = [json.loads(json.dumps(essence(record))) for record, _ in fit_fleet(configs)]
    (tmp_path / "configs.json").write_text(json.dumps([config.to_dict() for config in configs]))
    script = tmp_path / "train.py"
    script.write_text("""
import json, sys
from pathlib import Path
from dnm.config import RunConfig
from dnm.runs.fleet import fit_fleet, usual_shape
here = Path(sys.argv[1])
configs = [RunConfig.create(**config) for config in json.loads((here / "configs.json").read_text())]
pairs = fit_fleet(configs, checkpoint=here / "c.safetensors", checkpoint_seconds=0, on_progress=lambda p: print(p.step, flush=True))
(here / "results.json").write_text(json.dumps([record for record, _ in pairs]))
""")
    rng, kills = random.Random(time.time_ns()), 0
    for target in (3, 29):
        process = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if int(line) >= target:
                time.sleep(rng.random() * 0.05)
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 2 and not (tmp_path / "results.json").exists()
    subprocess.run([sys.executable, script, tmp_path], check=True, stdout=subprocess.DEVNULL)
    assert [essence(record) for record in json.loads((tmp_path / "results.json").read_text())] == expected
    with pytest.raises(DnmError, match="belongs to another run"):
        fit_fleet(configs[::-1], checkpoint=tmp_path / "c.safetensors")


def test_accuracy_of_fleet_and_single_runs_agrees_within_noise(tiny):
    """Five seeds with dropout, well above chance: other masks, the same training."""
    configs = [tiny(method="plain", seed=seed, n_train="all", steps=100, batch_size=20, eval_every=100, eval_limit=0, dropout=0.1)
               for seed in range(5)]
    alone, together = (np.array([record["test_accuracy"] for record, _ in pairs])
                       for pairs in ([fit(config) for config in configs], fit_fleet(configs)))
    assert min(alone.min(), together.min()) > 0.6 and not np.array_equal(alone, together)
    assert abs((alone - together).mean()) < 2 * alone.std() / 5 ** 0.5


def test_which_runs_share_a_fleet(tiny):
    configs = [*members(tiny, SENTENCE_LEVEL), *members(tiny, ["wordmixup", "nonlinearmixup", "wordmixup"]), tiny(lr=1e-4),
               tiny(method="logreg"), tiny(encoder="lstm", pooling="own")]
    found = fleets(configs, 4)
    assert sorted(config.hash for group in found for config in group) == sorted(config.hash for config in configs)
    assert [[c.method for c in group] for group in found] == [
        SENTENCE_LEVEL[:4], SENTENCE_LEVEL[4:8], SENTENCE_LEVEL[8:], ["wordmixup"] * 2, ["nonlinearmixup"], ["dnm"], ["logreg"], ["dnm"]]
    assert kind(tiny(n_train=50)) == kind(tiny(n_train=200)) != kind(tiny(n_train=8))  # a batch of eight is another shape
    assert all(len(group) == 1 for group in fleets(configs)) or torch.cuda.is_available()  # on a CPU each alone
    with pytest.raises(DnmError, match="cannot be trained together"):
        Fleet([Run(tiny()), Run(tiny(lr=1e-4))])


def test_the_store_takes_fleets_apart(tiny, tmp_path):
    """Finished members are reused, the others trained together; every run has its own file; a stopped fleet goes on."""
    configs, store = members(tiny, ["dnm", "plain", "dnm", "senmixup"]), RunStore(tmp_path)
    run_all(configs[:1], store, workers=1)
    states, events = [], []
    records = run_all(configs, store, workers=1, fleet=8, on_status=lambda s: (states.append((s.reused, s.trained)), events.append(s.line)))
    assert states[-1] == (1, 3) and [r["hash"] for r in records] == [c.hash for c in configs]
    assert [essence(r) for r in records[1:]] == [essence(r) for r, _ in fit_fleet(configs[1:])]
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == sorted(f"{c.hash}.json" for c in configs)

    import threading
    more, stop = members(tiny, ["dnm", "plain"], steps=8, eval_every=4), threading.Event()
    with pytest.raises(Interrupted):
        run_all(more, store, workers=1, fleet=2, stop=stop, on_status=lambda s: stop.set() if s.step >= 3 else None)
    assert store.checkpoint_path(*more).exists()
    notes = []
    resumed = run_all(more, store, workers=1, fleet=2, on_status=lambda s: notes.append(list(s.notes)))
    assert "goes on from its checkpoint" in notes[-1][0] and not store.checkpoint_path(*more).exists()
    assert [essence(r) for r in resumed] == [essence(r) for r, _ in fit_fleet(more)]


def test_one_shape_holds_every_batch_word_for_word():
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 40, size=(30, 12))
    shape = usual_shape(lengths.ravel(), 12, 64, True, False)
    for share_rows in (True, False):
        layout = pack_alike(lengths, 64, share_rows, shape)
        rows, width = layout.owner.shape[1:]
        assert (rows >= shape[0] and width == shape[1]) if share_rows else (rows >= 12 and width >= 39)
        sentences = [rng.integers(0, 999, size=length) for length in lengths.ravel()]
        ids = layout.place(sentences)
        assert (ids != NOTHING).sum() == lengths.sum() == (layout.owner != NOTHING).sum()
        for b in range(30):
            for i in range(12):
                where = (layout.owner[b] == i).flatten().nonzero().flatten()
                assert where[0] == layout.first[b, i] and ids[b].flatten()[where].tolist() == sentences[12 * b + i].tolist()
                assert layout.position[b].flatten()[where].tolist() == list(range(lengths[b, i]))
    assert pack_alike(lengths, 64, True, (1, 8)).owner.shape[2] == lengths.max()  # too small a shape grows


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")


@needs_gpu
@pytest.mark.parametrize("methods", [["dnm", "plain", "senmixup"], ["wordmixup"] * 2, ["nonlinearmixup"] * 2])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_graph_replay_equals_eager_step_by_step(tiny, methods, dropout):
    losses = []
    for graph in (False, True):
        fleet, seen = Fleet([Run(c) for c in members(tiny, methods, dropout=dropout, device="cuda")], graph=graph), []
        for _ in range(6):
            fleet.train_step()
            seen.append(fleet.losses.tolist())
        assert (fleet.graph is not None) == graph
        losses.append(seen)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@needs_gpu
def test_a_member_on_a_gpu_is_the_run_alone_on_the_cpu(tiny):
    configs = members(tiny, ["dnm", "plain"], dropout=0.0)
    alone = [fit(config.with_(device="cpu"))[0] for config in configs]
    for record, (fleet_record, _) in zip(alone, fit_fleet([config.with_(device="cuda") for config in configs]), strict=True):
        for row, fleet_row in zip(record["history"], fleet_record["history"], strict=True):
            assert row["train_loss"] == pytest.approx(fleet_row["train_loss"], rel=1e-3)
