"""The folder a classifier is kept in.

``encoder/`` is an ordinary `transformers` folder: architecture, tokenizer, all weights. Beside it ``config.json`` says
what the model is, ``head.safetensors`` holds what the method adds (and a CNN or LSTM), ``model.safetensors.index.json``
tells `transformers` which weights lie where, ``README.md`` is the model card. Nothing is pickled.
"""

import html
import json
import platform
import re
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnm import __version__
from dnm.config import RunConfig
from dnm.data.hub import file_sha256
from dnm.disk import DiskError, load_tensors, read_json, save_tensors, sealed, unsealed, write_atomically
from dnm.encoders import build_encoder
from dnm.errors import DnmError, mendable
from dnm.heads import Head
from dnm.model import Model, resolve_device

HEAD = "head.safetensors"
# What lies beside a tokenizer and is none of it.
_OTHERS = ("config.json", "generation_config.json", "modules.json", "sentence_bert_config.json",
           "config_sentence_transformers.json", "data_config.json", "README.md")
_KINDS = (".safetensors", ".json", ".txt", ".model", ".md", ".tmp")  # of files that a model of ours may have
_WORDS = ("encoder.words.rows", "encoder.words.table")


def save(classifier, folder: Path, about: dict) -> None:
    """Write a fitted `dnm.DNMClassifier` into a new folder, or in the place of another model of ours.

    ``config.json``, which says so, comes first; ``head.safetensors`` comes last, so a folder that has it is whole.
    """
    encoder, settings = classifier.model_.encoder, None
    tokenizer = _tokenizer(classifier.tokenizer_.folder, classifier.config_.max_length)  # which may lie in there
    _clear(folder)
    tensors = {name: t for name, t in classifier.model_.state_dict().items() if name not in _WORDS}
    if classifier.config_.from_scratch:
        tensors["encoder.words.table"], shard = encoder.words.whole(), {}
    else:
        shard = encoder_weights(encoder)
        tensors = {name: t for name, t in tensors.items() if not name.startswith("encoder.")}
        settings = json.loads(encoder.model.config.to_json_string()) | {
            "architectures": [type(encoder.model).__name__], "dtype": "float32"}
    if settings:
        tokenizer["encoder/config.json"] = _json(settings)
    write_atomically(folder / "config.json", _json(description(classifier, settings, tokenizer)))
    for name, content in tokenizer.items():
        write_atomically(folder / name, content)
    if settings:
        save_tensors(folder / "encoder" / "model.safetensors", shard, {})
    files = {f"encoder.{name}": "encoder/model.safetensors" for name in shard} | dict.fromkeys(tensors, HEAD)
    size = sum(t.numel() * t.element_size() for t in (*shard.values(), *tensors.values()))
    index = _json({"metadata": {"total_size": size}, "weight_map": files})
    write_atomically(folder / "model.safetensors.index.json", index)
    write_atomically(folder / "README.md", card(classifier, about).encode())
    save_tensors(folder / HEAD, tensors, {})


def taken(folder: Path) -> bool:
    """Whether a folder, made if need be, holds a model of ours; a `DnmError` where it cannot take one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (probe := folder / ".config.json.probe").touch()  # what cannot be written is said before a training
        probe.unlink()
        if all(file.name.startswith(".config.json.") for file in folder.iterdir()):  # what a killed process leaves
            return False
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            if read_json(folder / "config.json")["model_type"] == "dnm":
                return True
    except OSError as error:
        raise DiskError(f"cannot write to {folder}: {error.strerror}; name another folder") from None
    raise DnmError(f"{folder} holds other things than a model of dnm; name a new folder")


def _clear(folder: Path) -> None:
    """Empty a folder of the model that it holds, but for ``config.json``; what holds anything else is not touched."""
    parts = (*folder.glob(HEAD), *folder.iterdir(), *(folder / "encoder").glob("*")) if taken(folder) else ()
    for file in dict.fromkeys(parts):  # the head first: without it, what is left is no model
        if file.is_file() and file.suffix in _KINDS and file != folder / "config.json":
            with mendable(f"cannot write to {folder}: {{}}; name another folder"):
                file.unlink()


def encoder_weights(encoder) -> dict[str, Tensor]:
    """All weights of a transformer under the names that its own family gives them, trained word embeddings included."""
    return encoder.model.state_dict() | {_words_name(encoder.model): encoder.words.whole()[:-1]}


def _words_name(model) -> str:
    inputs = model.get_input_embeddings()  # an identity, as `encoder.words` has the table
    return next(f"{name}.weight" for name, module in model.named_modules() if module is inputs)


def description(classifier, encoder: dict | None, files: dict[str, bytes]) -> dict:
    """``config.json``: what `transformers` asks of it, and under ``dnm`` all that `load` needs, with checksums.

    ``files`` are those of the folder that hold no weights, which have checksums of their own.
    """
    names, parameters = classifier.label_names, classifier.get_params(deep=False)
    state, weight = parameters.pop("random_state"), parameters.pop("class_weight")
    parameters["encoder"] = str(parameters["encoder"])
    parameters["random_state"] = state if state is None or isinstance(state, int | np.integer) else None
    parameters["class_weight"] = [[*pair] for pair in weight.items()] if isinstance(weight, dict) else weight
    own = {"version": __version__, "config": classifier.config_.to_dict(), "classes": classifier.classes_.tolist(),
           "words": encoder and _words_name(classifier.model_.encoder.model), "k": classifier.model_.head.k,
           "parameters": parameters, "temperature": classifier.temperature_, "steps": classifier.n_iter_,
           "text_column": classifier.text_column_, "validation_score": classifier.validation_score_,
           "history": classifier.history_, "counts": classifier.counts_,
           "files": {name: zlib.crc32(content) for name, content in files.items()}}
    return {
        "model_type": "dnm", "architectures": ["DNMForSequenceClassification"], "dtype": "float32",
        "id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": "single_label_classification", "encoder": encoder,
        "dnm": sealed(json.loads(_json(own)))}


def load(kind: type, folder: Path, device: str):
    """The classifier in a folder, of class ``kind``; a `DnmError` where it is none or damaged."""
    if not (folder / HEAD).is_file():
        earlier = "; it was saved by an earlier version: save it again" * (folder / "model.safetensors").is_file()
        why = f"it has no {HEAD}{earlier}" if folder.is_dir() else "there is no such folder; `dnm fit` makes one"
        raise DnmError(f"{folder} is not a saved model: {why}")
    with mendable(f"{folder} is not a readable model: {{}}"):
        about = unsealed(read_json(folder / "config.json")["dnm"])
        for name, checksum in about.get("files", {}).items():
            part = folder / name
            if name.startswith("encoder/") and not (part.is_file() and zlib.crc32(part.read_bytes()) == checksum):
                raise DnmError(f"{folder} is not a readable model: {name} is not as it was saved; copy the folder "
                               "again, or save the model again")
        config = RunConfig(**about["config"] | {"device": device})
        tensors, shard = _read(folder / HEAD), {}
        if config.from_scratch:
            table = tensors.pop("encoder.words.table")[:-1]
        else:
            shard = _read(folder / "encoder" / "model.safetensors")
            table = shard.pop(about["words"])
        encoder, tokenizer = build_encoder(config, folder / "encoder", table)
        model = Model(encoder, Head(config.row, encoder.hidden_size, len(about["classes"]), about["k"],
                                    config.original_weight))
        tensors |= {f"encoder.model.{name}": tensor for name, tensor in shard.items()}
        words = {name: value for name, value in model.state_dict().items() if name in _WORDS}
        model.load_state_dict(tensors | words)
        made = _restored(kind, about, device)
        made.classes_ = np.array(about["classes"])
    where, encoder.compute_dtype = resolve_device(config)
    made.model_, made.tokenizer_, made.config_ = model.to(where).eval(), tokenizer, config
    return made


def digest(folder: Path) -> str:
    """Names a saved model: its weights, settings and tokenizer."""
    files = (folder / name for name in (HEAD, "config.json", "encoder/model.safetensors", "encoder/tokenizer.json"))
    return " ".join(file_sha256(file)[:16] for file in files if file.is_file())


def _restored(kind: type, about: dict, device: str):
    parameters = about["parameters"] | {"device": device}
    if isinstance(parameters["class_weight"], list):
        parameters["class_weight"] = dict(parameters["class_weight"])
    made = kind(**parameters)
    made.n_iter_, made.history_, made.validation_score_ = about["steps"], about["history"], about["validation_score"]
    made.temperature_, made.counts_, made.text_column_ = about["temperature"], about["counts"], about["text_column"]
    return made


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DnmError(f"{path} is missing: copy the folder again, or save the model again")
    return load_tensors(path, "copy the folder again, or save the model again")[0]


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=1, default=lambda value: value.item()) + "\n").encode()


def _tokenizer(source: Path, max_length: int) -> dict[str, bytes]:
    """The tokenizer's files, in ``encoder/`` as they are; at the top with the length that the model reads."""
    found = {}
    for file in source.iterdir():
        other = file.name in _OTHERS or ".index." in file.name
        if file.is_file() and file.suffix in (".json", ".txt", ".model") and not other:
            found[f"encoder/{file.name}"] = content = file.read_bytes()
            if file.name == "tokenizer_config.json":
                content = json.dumps(json.loads(content) | {"model_max_length": max_length}, indent=1).encode()
            found[file.name] = content
    return found


# ---------------------------------------------------------------- the model card

def card(classifier, about: dict) -> str:
    """The model card, Markdown; whatever comes from people's data or settings is escaped."""
    import sklearn
    import transformers

    config, counts = classifier.config_, classifier.counts_
    score, t = classifier.validation_score_, classifier.temperature_
    use = ("which also chose when to stop" if config.row.fine_tunes else
           "before it learned from these, too")
    lines = {
        "Data": config.dataset if config.dataset == "texts" else Path(config.dataset).name,
        "Sentences": ", ".join(f"{n} {part}" for part, n in counts.items() if n) or "unknown",
        "Classes": "; ".join(classifier.label_names),
        "Method": f"{config.row.title} ({config.row.source})",
        "Encoder": Path(config.encoder).name,
        "Steps": classifier.n_iter_,
        "Validation accuracy": "none measured" if score is None else
            f"{100 * score:.1f} % (of {counts['validation']} sentences, {use})",
        "Probabilities": "not calibrated" if t is None else
            f"softmax of scores / {t:.3g}, a temperature fitted on the validation sentences",
        "Longest text": f"{config.max_length} word pieces; the rest is not read",
        "Date": time.strftime("%Y-%m-%d"),
        "Versions": f"dnm {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
                    f"scikit-learn {sklearn.__version__}, Python {platform.python_version()}"} | about
    table = "\n".join(f"| {_plain(name)} | {_plain(value)} |" for name, value in lines.items())
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [dnm, text-classification]
---
# A text classifier

| | |
|---|---|
{table}

```python
import dnm
model = dnm.DNMClassifier.load("this folder")
model.predict(["a sentence"])
```

`transformers.AutoModel.from_pretrained("this folder/encoder")` is the trained encoder of a transformer. After
`import dnm.classify.hf`, `transformers.pipeline("text-classification", "this folder", truncation=True)` serves all of
it. Its probabilities are a softmax of the bare scores; calibrated ones come from `model.predict_proba`.
"""


def _plain(value) -> str:
    """Text as it is, in one line, whatever Markdown or HTML it would be."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~$<>])", r"\\\1", text)
