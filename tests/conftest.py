"""Shared ground: real data where it is at hand, a tiny BERT-family model, and small helpers."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs a network

from dnm.config import RunConfig
from dnm.data import REAL, data_folders, load_dataset
from dnm.hub import minilm_folder


def has_real_data(name: str) -> bool:
    return any((folder / name).is_dir() for folder in data_folders())


needs_real_data = pytest.mark.skipif(
    not all(map(has_real_data, REAL)),
    reason="the real data sets are not at hand: set DNM_DATA_DIR or run `python -m dnm fetch subj mr sst2 sst1`")


@pytest.fixture(autouse=True)
def _fresh_datasets():
    load_dataset.cache_clear()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> dict[str, Path]:
    """A random two-layer model of every supported architecture, saved as a local folder would be."""
    import torch
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(minilm_folder())
    size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                vocab_size=tokenizer.vocab_size, max_position_embeddings=140)
    models = {"bert": (hf.BertModel, hf.BertConfig(**size)), "roberta": (hf.RobertaModel, hf.RobertaConfig(**size, pad_token_id=1)),
              "electra": (hf.ElectraModel, hf.ElectraConfig(**size, embedding_size=16))}
    folders = {}
    for name, (kind, config) in models.items():
        torch.manual_seed(3)
        folders[name] = tmp_path_factory.mktemp(name)
        kind(config).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def tiny(tiny_models):
    """A run configuration that trains in a second: a tiny random BERT on the built-in corpus."""
    def make(**settings) -> RunConfig:
        values = dict(encoder=str(tiny_models["bert"]), steps=6, batch_size=12, eval_every=3, eval_limit=40, n_train=24,
                      lr=1e-3, precision="float32", max_length=64, pooling="mean")
        return RunConfig.create("smoke", **values | settings)
    return make
