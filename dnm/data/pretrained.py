"""A pre-trained encoder as its folder holds it, checked against what the trainer needs of it.

Whatever would silently be another model than the folder's, or could not be trained as the study trains, is refused.
Taught in notebook 04.
"""

import inspect
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dnm.errors import DnmError, mendable, say_once

# Families whose forward pass takes positions and a full attention mask, so that several sentences can share a row.
PACKED = ("bert", "electra", "ernie", "roberta", "xlm-roberta", "camembert")
FLOAT32 = ("deberta",)  # families whose own code fails in bfloat16
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "hidden_dropout",
             "embedding_dropout", "mlp_dropout")  # what the families call it
_INSTEAD = "take an encoder, such as BERT, RoBERTa or DeBERTa"
TRIED = "5.23.0"  # the version of `transformers` that constraints.txt pins


@lru_cache(maxsize=1)
def load_model(encoder: str, max_length: int, dropout: float, folder: Path, digest: str) -> tuple[nn.Module, str]:
    """A model as it starts and its `way`, read once for all runs of a process.

    ``digest`` names its weights; without one the model is made without them, for the caller to load.
    """
    with by_transformers(f"cannot load encoder {encoder!r} from {folder}: {{}}"):
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        logging.getLogger("transformers").setLevel(logging.ERROR)
        settings = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if settings.is_encoder_decoder:
            raise DnmError(f"encoder {encoder!r} is a {settings.model_type!r} model, encoder and decoder; {_INSTEAD}")
        _sized(settings, encoder, folder)
        for name in _DROPOUTS:
            if hasattr(settings, name):
                setattr(settings, name, dropout)
        # The plain attention: as fast as the fused one at these sizes, and deterministic.
        plain = dict(attn_implementation="eager", dtype=torch.float32)
        if digest:
            model, found = AutoModel.from_pretrained(
                folder, config=settings, local_files_only=True, use_safetensors=True, trust_remote_code=False,
                output_loading_info=True, **plain)
            _complete(model, encoder, found["missing_keys"], found["unexpected_keys"])
        else:
            model = AutoModel.from_config(settings, **plain)
    room = (getattr(settings, "max_position_embeddings", None) or 0) - first_position(model)
    if 0 < room < max_length:  # XLNet says -1: any length
        raise DnmError(f"max_length={max_length} is more than encoder {encoder!r} can read ({room})")
    with by_transformers(f"encoder {encoder!r} ({settings.model_type!r}) gives no hidden states of a plain sentence: "
                         "{}"):
        found = way(model.eval(), encoder)
        if settings.model_type in PACKED and found != "packed" and (newer := untried()):
            say_once(f"a {settings.model_type!r} model should take several sentences a row, but does not{newer}")
        return model, found


def untried() -> str:
    """What to add where `transformers` may have failed: of a version newer than the pinned one, how to get that."""
    have = version("transformers")
    numbers, tried = ([int(part) for part in re.findall(r"\d+", text)[:3]] for text in (have, TRIED))
    return "" if numbers <= tried else (f"; transformers {have} is newer than {TRIED}, with which the study was tried: "
                                        f"pip install transformers=={TRIED}")


@contextmanager
def by_transformers(text: str) -> Iterator[None]:
    """`mendable` for what `transformers` does: errors say it where its version is newer than the pinned one."""
    try:
        with mendable(text):
            yield
    except DnmError as error:
        raise DnmError(f"{error}{untried()}") from None


def first_position(model: nn.Module) -> int:
    """The position of a sentence's first word piece: RoBERTa and its kin count from after their padding index."""
    found = [part.padding_idx for name, part in model.named_modules()
             if name.endswith("position_embeddings") and isinstance(part, nn.Embedding)]
    return found[0] + 1 if found and found[0] is not None else 0


class NoWords(nn.Module):
    """In the place of a model's word embeddings; Longformer asks for some to fill a row up, which nobody attends to."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, self.size, device=ids.device)


@torch.no_grad()
def way(model: nn.Module, encoder: str = "") -> str:
    """How to ask a model for its states, so that every sentence has those it has alone; tried on two sentences.

    ``packed``: several in a row; ``padded``: a row each, with a mask; ``alone``: one at a time, where padding changes a
    sentence's states in spite of the mask. A model without a door for word embeddings, and a decoder, are refused.
    """
    def states(**given) -> Tensor:
        return model(**given).last_hidden_state

    def alike(found) -> bool:
        return all(torch.allclose(row[:len(own)], own, rtol=0, atol=1e-5 * float(own.abs().max()))
                   for row, own in zip(found, alone, strict=True))

    kind = f"encoder {encoder!r} is a {model.config.model_type!r} model"
    takes, table = inspect.signature(model.forward).parameters, None
    with suppress(NotImplementedError, AttributeError):
        table = model.get_input_embeddings().weight
    if "inputs_embeds" not in takes or table is None:
        raise DnmError(f"{kind}, which takes no word embeddings (inputs_embeds): they could not be trained or mixed")
    ids = [i for i in range(1, len(table), max(1, len(table) // 9)) if i != model.config.pad_token_id]
    sentences = [torch.tensor(ids[:7]), torch.tensor(ids[2:5])]
    alone = [states(input_ids=one[None])[0] for one in sentences]
    if not alike(states(inputs_embeds=table[one][None])[0] for one in sentences):
        raise DnmError(f"{kind}, which changes word embeddings on their way in: they could not be trained or mixed")
    other = torch.cat([sentences[0][:1], sentences[0][1:].flip(0)])
    if torch.equal(states(input_ids=other[None])[0, 0], alone[0][0]):
        raise DnmError(f"{kind} that reads forwards only, as a decoder does: its first word knows no other; {_INSTEAD}")
    if model.config.model_type in PACKED:
        places = [torch.arange(len(one)) for one in sentences]
        owner, position = torch.arange(2).repeat_interleave(torch.tensor([*map(len, places)])), torch.cat(places)
        mask = torch.where(owner == owner[:, None], 0.0, torch.finfo(torch.float32).min)[None, None]
        with suppress(Exception):  # another version of `transformers` may take no such mask, or not heed it
            row = states(inputs_embeds=table[torch.cat(sentences)][None], attention_mask=mask,
                         position_ids=position[None] + first_position(model))[0]
            if alike(row[owner == i] for i in range(2)):
                return "packed"
    if "attention_mask" in takes:
        rows = pad_sequence([table[one] for one in sentences], batch_first=True)
        mask = pad_sequence([torch.ones_like(one) for one in sentences], batch_first=True)
        if alike(states(inputs_embeds=rows, attention_mask=mask)):
            return "padded"
    return "alone"


def _sized(settings, encoder: str, folder: Path) -> None:
    """Refuse, before there is memory for it, a model that ``config.json`` makes larger than its weights are."""
    from safetensors import safe_open
    from transformers import AutoModel

    sizes = []
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            sizes += [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 (not a dict)
    wanted, layers = sum(sizes) + 1, getattr(settings, "num_hidden_layers", 0)
    if layers <= len(sizes):
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            model = AutoModel.from_config(settings)
        wanted = sum(part.numel() for part in model.state_dict().values()) / 2  # a pooler may be missing
    if wanted > sum(sizes):
        raise DnmError(f"encoder {encoder!r}: config.json in {folder} tells of a larger model than its weights are: "
                       "copy the folder again")


def _complete(model: nn.Module, encoder: str, missing: set[str], unexpected: set[str]) -> None:
    """Refuse weights that are not those of the whole model; a head, which is not used, may be there or not."""
    if missing := sorted(name for name in missing if "pooler" not in name):
        raise DnmError(f"encoder {encoder!r}: its weights lack {missing[0]} and {len(missing) - 1} more; "
                       "they would start from random numbers")
    parts = {name for name, _ in model.named_children()}
    bare = (name.removeprefix(f"{model.base_model_prefix}.") for name in unexpected)
    if lost := sorted(name for name in bare if name.split(".")[0] in parts and name.endswith((".weight", ".bias"))):
        raise DnmError(f"encoder {encoder!r}: no place for its weights {lost[0]} and {len(lost) - 1} more in the model "
                       "that `transformers` makes, which has no such relative positions: it would be another model")
