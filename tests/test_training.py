"""The trainer: determinism, resuming, SIGKILL, Ctrl-C, the run store, saved models, the headline."""

import contextlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import termios
import threading
import time

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_map

from dnm.batches import Batches
from dnm.classify.estimator import DNMClassifier
from dnm.data.datasets import limited, load_dataset
from dnm.disk import read_json, write_json
from dnm.errors import DnmError
from dnm.runs.scheduler import run_all
from dnm.runs.store import RunStore
from dnm.training import Interrupted, Run, fit

ENCODERS = {"bert": {}, "cnn": dict(encoder="cnn", pooling="own"), "lstm": dict(encoder="lstm", pooling="own")}


def essence(record: dict) -> dict:
    """A record without what may differ between two equal runs: times."""
    return {key: value for key, value in record.items() if key != "seconds"}


def stop_after(step: int):
    event = threading.Event()
    return event, lambda progress: event.set() if progress.step >= step else None


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("method", ["plain", "wordmixup", "senmixup", "nonlinearmixup", "dnm"])
def test_same_config_same_history_and_a_stopped_run_ends_the_same(tiny, tmp_path, method, encoder):
    config = tiny(method=method, **ENCODERS[encoder])
    whole = essence(fit(config)[0])
    assert essence(fit(config)[0]) == whole
    path = tmp_path / "run.checkpoint.safetensors"
    for step in (1, 4):
        event, tell = stop_after(step)
        with pytest.raises(Interrupted, match=f"stopped at step {step} of 6"):
            fit(config, checkpoint=path, stop=event, on_progress=tell)
    assert essence(fit(config, checkpoint=path)[0]) == whole


@pytest.mark.parametrize("method", ["dnm-k3", "dnm-fow", "dnm-fiw", "dnm-fiw-fow", "dnm-no-dss", "dnm-no-lds",
                                    "dnm-no-sds", "dnm-no-dnm", "dnm-random"])
def test_every_other_row_trains(tiny, method):
    record, _ = fit(tiny(method=method, steps=3))
    assert record["history"][-1]["step"] == 3 and 0 <= record["test_accuracy"] <= 1


def test_training_learns(tiny):
    """With all labels and real steps, far above chance: the loop really descends."""
    record, _ = fit(tiny(encoder="cnn", pooling="own", method="plain", n_train="all", steps=150, batch_size=40,
                         eval_every=150, eval_limit=0, dropout=0.0))
    assert record["test_accuracy"] > 0.7


def test_sigkill_at_any_moment_and_resume_is_bitwise_equal(tiny, tmp_path):
    config = tiny(method="dnm", steps=60, eval_every=10, precision="auto", dropout=0.1)
    expected = essence(fit(config)[0])
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    script = tmp_path / "train.py"
    script.write_text("""
import json, sys
from pathlib import Path
from dnm.config import RunConfig
from dnm.training import fit
here = Path(sys.argv[1])
config = RunConfig.create(**json.loads((here / "config.json").read_text()))
result, _ = fit(config, checkpoint=here / "c.safetensors", checkpoint_seconds=0,
                on_progress=lambda p: print(p.step, flush=True))
(here / "result.json").write_text(json.dumps(result))
""")
    rng, kills = random.Random(time.time_ns()), 0
    for target in (5, 20, 41):
        process = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if int(line) >= target:
                time.sleep(rng.random() * 0.05)  # anywhere in a step, an evaluation or a write
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 3 and not (tmp_path / "result.json").exists()
    subprocess.run([sys.executable, script, tmp_path], check=True, stdout=subprocess.DEVNULL)
    resumed = essence(json.loads((tmp_path / "result.json").read_text()))
    assert resumed == json.loads(json.dumps(expected))


def test_ctrl_c_saves_and_says_how_to_go_on(tiny, tmp_path):
    config = tiny(method="dnm", steps=200, eval_every=200)
    arguments = ["--profile", "smoke", "--runs", str(tmp_path), "--methods", "dnm", "--seeds", "0"]
    for name in ("encoder", "steps", "batch_size", "eval_every", "eval_limit", "n_train", "lr", "precision", "max_length",
                 "pooling"):
        arguments += ["--" + name.replace("_", "-"), str(getattr(config, name))]
    command = [sys.executable, "-m", "dnm", "train", *arguments]
    ours, theirs = pty.openpty()  # a terminal of 80 columns, so that progress is shown at once
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    while not re.search(rb"step [1-9]", seen):  # it trains
        seen += os.read(ours, 1000)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the terminal is gone when the process is
        while chunk := os.read(ours, 1000):
            seen += chunk
    assert process.wait(timeout=60) == 130 and b"Traceback" not in seen
    assert b"run the same command again to go on" in seen
    assert (tmp_path / f"{config.hash}.checkpoint.safetensors").exists()
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    stored = read_json(tmp_path / f"{config.hash}.json")
    assert essence(stored) == json.loads(json.dumps(essence(fit(config)[0])))
    assert not (tmp_path / f"{config.hash}.checkpoint.safetensors").exists()


def test_finished_runs_are_reused_and_bad_files_trained_again(tiny, tmp_path):
    store, configs = RunStore(tmp_path), [tiny(method=m) for m in ("plain", "dnm")]
    states = []
    first = run_all(configs, store, workers=1, on_status=lambda s: states.append((s.reused, s.trained)))
    assert states[-1] == (0, 2)
    again = run_all(configs, store, workers=1, on_status=lambda s: states.append((s.reused, s.trained)))
    assert states[-1] == (2, 0) and again == json.loads(json.dumps(first))
    path = store.result_path(configs[0])
    for damage in (path.read_text()[:200], "[]", json.dumps(first[1])):  # truncated, foreign, another run's
        path.write_text(damage)
        with pytest.warns(UserWarning, match="trained again"):
            run_all(configs, store, workers=1, on_status=lambda s: states.append((s.reused, s.trained)))
        assert states[-1] == (1, 1)
        assert essence(read_json(path)) == json.loads(json.dumps(essence(first[0])))
    changed = read_json(path)
    changed["data"]["fingerprint"] = "other"
    write_json(path, changed)
    with pytest.warns(UserWarning, match="data set has changed"):
        run_all(configs, store, workers=1)
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == sorted(f"{c.hash}.json" for c in configs)


def test_a_corrupt_checkpoint_is_reported_not_used(tiny, tmp_path):
    config, path = tiny(method="plain"), tmp_path / "c.safetensors"
    event, tell = stop_after(2)
    with pytest.raises(Interrupted):
        fit(config, checkpoint=path, stop=event, on_progress=tell)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1000] ^= 255
    for damaged in (whole[:len(whole) // 2], b"", bytes(flipped), b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(DnmError, match="corrupt.*delete it"):
            fit(config, checkpoint=path)
    path.write_bytes(whole)
    with pytest.raises(DnmError, match="belongs to another run"):
        fit(config.with_(seed=1), checkpoint=path)


@pytest.mark.parametrize("method", ["dnm", "logreg"])
def test_a_run_learns_from_the_labels_that_were_made_wrong_and_is_tested_on_the_right_ones(tiny, method):
    clean, noisy = (Run(tiny(method=method, wrong_labels=share)) for share in (0.0, 0.25))
    assert (clean.train.labels != noisy.train.labels).sum() == (clean.batches.labels != noisy.batches.labels).sum() == 6
    for split in ("validation", "test"):
        assert torch.equal(clean.evaluated[split][1], noisy.evaluated[split][1])
    one, other = (fit(run.config)[0] for run in (clean, noisy))
    assert one["history"] != other["history"] and one["hash"] != other["hash"]


@pytest.mark.parametrize("method, settings", [("plain", {}), ("dnm", {}), ("logreg", {}),
                                              ("plain", ENCODERS["lstm"]), ("dnm", ENCODERS["cnn"])])
def test_a_saved_model_predicts_the_same_when_loaded(tiny, tmp_path, method, settings):
    config = tiny(method=method, **settings)
    _, run = fit(config)
    texts = run.data.test.texts[:60]
    before = DNMClassifier.of(run).scores(texts)
    DNMClassifier.of(run).save(tmp_path / "model")
    loaded = DNMClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.scores(texts), before)
    assert {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()} <= {".safetensors", ".json", ".txt", ".md"}
    assert all(loaded.scores([text]).argmax() == row.argmax() for text, row in zip(texts[:5], before, strict=False))
    with pytest.raises(DnmError, match=r"texts\[0\] is empty"):
        loaded.predict([" "])


def test_the_headline_is_the_test_accuracy_at_the_best_validation(tiny):
    config = tiny(method="plain", steps=12, eval_every=2)
    record, run = fit(config)
    validation = [row["validation_accuracy"] for row in record["history"]]
    best = record["history"][validation.index(max(validation))]
    assert record["best_step"] == best["step"] and record["test_accuracy"] == best["test_accuracy"]
    assert record["last_test_accuracy"] == record["history"][-1]["test_accuracy"]
    labels = run.evaluated["test"][1].numpy()
    assert np.mean(np.array(record["test_predictions"]) == labels) == record["test_accuracy"]
    hidden = run.evaluated["test"][0].hidden(run.model.encoder)  # the run is handed back at its best
    assert run.model.head.scores(hidden).argmax(-1).tolist() == record["test_predictions"]


def test_of_evaluations_that_tie_the_one_with_the_lowest_validation_loss_counts(tiny):
    """Ten validation sentences tie often, and the first of the best is often of a model that has hardly begun."""
    ties = 0
    for seed in range(6):
        record, _ = fit(tiny(method="dnm", seed=seed, steps=12, eval_every=2, eval_limit=4))
        top = max(row["validation_accuracy"] for row in record["history"])
        best = [row for row in record["history"] if row["validation_accuracy"] == top]
        kept = min(best, key=lambda row: row["validation_loss"])
        assert (record["best_step"], record["test_accuracy"]) == (kept["step"], kept["test_accuracy"])
        ties += len(best) > 1 and kept is not best[0]
    assert ties


def test_evaluation_records_what_it_promises(tiny):
    history = fit(tiny(method="dnm"))[0]["history"]
    assert set(history[0]) >= {"step", "train_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy",
                               "label_cosine", "input_policy_spread", "label_policy_spread"}


def test_evaluation_never_mixes_and_matches_sentences_alone(tiny):
    """Test-time predictions of a batch equal those of each sentence by itself."""
    _, run = fit(tiny(method="dnm"))
    texts = run.data.test.texts[:20]
    classifier = DNMClassifier.of(run)
    alone = np.concatenate([classifier.scores([text]) for text in texts])
    np.testing.assert_allclose(classifier.scores(texts), alone, atol=1e-5)


def test_methods_of_one_seed_see_the_same_batches_and_start_from_the_same_encoder(tiny):
    runs = [Run(tiny(method=method, seed=3)) for method in ("plain", "dnm")]
    for step in range(8):
        assert np.array_equal(runs[0].batches(step), runs[1].batches(step))
    ours, theirs = (dict(run.model.encoder.named_parameters()) for run in runs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_batches_show_every_sentence_once_an_epoch_and_none_twice_in_a_batch(tiny):
    sentences = [np.arange(3)] * 25
    batches = Batches(sentences, np.zeros(25), tiny(batch_size=8))
    for epoch in range(3):
        seen = np.concatenate([batches(epoch * 3 + turn) for turn in range(3)])
        assert len(set(seen)) == 24
    assert np.array_equal(batches(4), Batches(sentences, np.zeros(25), tiny(batch_size=8))(4))


def test_a_small_batch_shrinks_k_with_a_warning_and_a_batch_of_one_is_refused(tiny):
    with pytest.warns(UserWarning, match="K = 5 needs more than 10 .* it becomes 3"):
        assert fit(tiny(method="dnm", batch_size=8))[0]["k"] == 3
    with pytest.raises(DnmError, match="a batch of one sentence"):
        tiny(method="dnm", batch_size=1)


def test_a_loss_that_is_no_number_stops_the_run(tiny):
    with pytest.raises(DnmError, match="no longer a finite number"):
        fit(tiny(method="plain", lr=1e6, head_lr=1e6, steps=4, eval_every=2))


def test_collapsed_label_embeddings_are_reported(tiny):
    run = Run(tiny(method="dnm", batch_size=20))
    with torch.no_grad():
        run.model.head.label_embedding.copy_(torch.ones_like(run.model.head.label_embedding))
    run.train_step()
    with pytest.warns(UserWarning, match="collapsed"):
        run.evaluate()


def test_logistic_regression_equals_scikit_learn_on_features_of_the_unmodified_model(tiny, tiny_models):
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    config = tiny(method="logreg")
    record, run = fit(config)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_models["bert"]), AutoModel.from_pretrained(tiny_models["bert"])

    def features(texts):
        with torch.no_grad():
            return np.stack([model.eval()(**tokenizer(t, return_tensors="pt", truncation=True, max_length=64))
                             .last_hidden_state[0].mean(0).numpy() for t in texts])

    from dnm.data.datasets import subset
    data = load_dataset("builtin")
    train, test = data.train.take(subset(data, 24, 0)), limited(data, "test", 40)
    expected = LogisticRegression(max_iter=2000).fit(features(train.texts), train.labels).predict(features(test.texts))
    assert np.mean(expected == np.array(record["test_predictions"])) > 0.97  # rounding may flip a sentence on the edge
    assert DNMClassifier.of(run).scores(test.texts).argmax(-1).tolist() == record["test_predictions"]


@pytest.mark.parametrize("method", ["wordmixup", "nonlinearmixup"])
def test_a_word_level_batch_agrees_with_mixing_pair_by_pair(tiny, tiny_models, method):
    """The trainer's own mixed batch against the unmodified model on each pair: partners, weights, positions."""
    from transformers import AutoModel

    from dnm.heads import draw
    run = Run(tiny(method=method, dropout=0.0, seed=2))
    index = run.batches(0)
    run.model.train()
    with torch.no_grad():
        inputs = tree_map(lambda steps: steps[0], run.batches.inputs([0]))
        hidden, draws = run.model(inputs), inputs.draws
    expected_draws = draw(run.method, len(index), 1.0, (64, 32), (2, 0))
    assert torch.equal(draws.weight, expected_draws.weight) and torch.equal(draws.permutation, expected_draws.permutation)
    model = AutoModel.from_pretrained(tiny_models["bert"]).eval()
    embed = model.get_input_embeddings()
    for i, position in enumerate(index):
        one, two = run.batches.sentences[position], run.batches.sentences[index[draws.permutation[i]]]
        length = max(len(one), len(two))
        matrices = torch.zeros(2, length, 32)
        with torch.no_grad():
            matrices[0, :len(one)], matrices[1, :len(two)] = embed(torch.from_numpy(one)), embed(torch.from_numpy(two))
            weight = draws.weight[:length] if method == "nonlinearmixup" else draws.weight
            mixed = weight * matrices[0] + (1 - weight) * matrices[1]
            expected = model(inputs_embeds=mixed.unsqueeze(0)).last_hidden_state[0].mean(0)
        torch.testing.assert_close(hidden[i], expected, atol=2e-6, rtol=1e-5)


def test_encoder_and_head_have_their_own_rates_and_the_optimiser_is_as_published(tiny):
    run = Run(tiny(method="dnm", lr=1e-5, head_lr=1e-3))
    (encoder, head), names = run.optimiser.param_groups, dict(run.model.named_parameters())
    assert (encoder["lr"], head["lr"]) == (1e-5, 1e-3)
    assert {id(p) for p in head["params"]} == {id(p) for n, p in names.items() if n.startswith("head.")}
    assert len(encoder["params"]) + len(head["params"]) == len(names)
    for group in (encoder, head):
        assert type(run.optimiser) is torch.optim.AdamW and group["weight_decay"] == 0 and group["betas"] == (0.9, 0.999)


def test_the_paper_profile_is_the_papers_and_hashes_are_stable():
    from dnm.config import RunConfig

    paper = RunConfig.create("paper", dataset="subj", encoder="bert-base-uncased", method="dnm", n_train="all")
    published = dict(steps=4000, batch_size=20, lr=2e-5, head_lr=2e-5, dropout=0.1, max_length=128, k=5, alpha=1.0,
                     pooling="cls", original_weight=0.0, eval_limit=0)
    assert {name: getattr(paper, name) for name in published} == published and paper.label == "paper"
    assert paper.hash == "b02a7feb55b7"
    assert paper.with_(seed=1).hash != paper.hash and paper.with_(method="dnm-k3").k == 3
    assert RunConfig.create("paper", method="plain", k=9, alpha=2, original_weight=1) == RunConfig.create("paper", method="plain")
    weighted = RunConfig.create("quick", method="dnm", original_weight=0.5, steps=100)
    assert weighted.title == "DNM (original_weight=0.5)" and weighted.label == "quick (steps=100)"
    assert RunConfig.create("quick", encoder="cnn").label == RunConfig.create("quick").label == "quick"


def test_other_weights_or_a_result_of_them_are_noticed(tiny, tiny_models, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "encoder"
    shutil.copytree(tiny_models["bert"], folder)
    config, store = tiny(method="plain", steps=2, eval_every=2, encoder=str(folder)), RunStore(tmp_path / "runs")
    run_all([config], store, workers=1)
    weights = load_file(folder / "model.safetensors")
    save_file({name: t + 0.01 for name, t in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match="the encoder has changed"):
        run_all([config], store, workers=1)
    save_file({name: t for name, t in weights.items() if "layer.1.output" not in name}, folder / "model.safetensors",
              {"format": "pt"})
    with pytest.raises(DnmError, match="its weights lack"):
        fit(config)


def test_the_benchmark_times_everybody(tiny_models, tmp_path):
    from dnm.bench.race import run_bench

    table = run_bench("builtin", str(tiny_models["bert"]), blocks=1, steps=2, sizes=[1, 2], out=tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text()) == table
    names = ["plain", "dnm", "plain, no packing", "plain, whole vocabulary", "dnm, fleet of 1", "dnm, fleet of 2", "Trainer",
             "Trainer, tuned"]
    assert [row["contestant"] for row in table["steps"]][:len(names)] == names
    assert all(row["milliseconds"] > 0 and row["faster_than_trainer"] > 0 for row in table["steps"] + table["evaluation"])
    assert all(row["times_alone"] > 0 for row in table.get("busy", []))


def test_the_benchmark_of_methods_times_steps_that_mix(tiny_models, tmp_path, monkeypatch):
    from dnm.bench import race

    mixed = []
    monkeypatch.setattr(race.Run, "train_step", lambda run, step=race.Run.train_step: mixed.append((run.method.name, run.step >= run.start)) or step(run))
    table = race.run_methods("builtin", str(tiny_models["bert"]), 1, 2, ["dnm", "ssmix", "aum-saliency", "dmix", "tmix", "logreg"], tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == table and all(started for _, started in mixed)
    assert [row["contestant"] for row in table["steps"]] == ["plain", "dnm", "ssmix", "aum-saliency", "dmix", "tmix"]
    assert table["steps"][0]["faster_than_plain"] == 1 and all(row["faster_than_plain"] > 0 for row in table["steps"])


def test_the_rival_sees_the_same_batches_in_the_same_order(tiny, monkeypatch):
    from dnm.bench import race

    run, seen = Run(tiny(method="plain", n_train="all")), []

    class Recording(race.hf.DataCollatorWithPadding):
        def __call__(self, examples):
            seen.append([example["input_ids"] for example in examples])
            return super().__call__(examples)

    monkeypatch.setattr(race.hf, "DataCollatorWithPadding", Recording)
    assert race.rival(run)[0](2) > 0
    assert seen[:3] == [[run.batches.sentences[i].tolist() for i in run.batches(step)] for step in range(3)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
@pytest.mark.parametrize("method", ["plain", "wordmixup", "nonlinearmixup", "dnm"])
def test_a_gpu_trains_like_the_cpu(tiny, method):
    """float32 without dropout: the same losses, step by step, from the same code."""
    losses = {}
    for device in ("cpu", "cuda"):
        run = Run(tiny(method=method, device=device, dropout=0.0))
        losses[device] = [run.train_step().item() for _ in range(4)]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-4)
