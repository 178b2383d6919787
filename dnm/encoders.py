"""Sentences to hidden states ``[N, d]``: BERT-family transformers, a CNN and an LSTM behind one interface.

An encoder takes word embeddings in rows (`dnm.packing`), so that word-level mixing is the same for all.
Taught in notebook 04.
"""

import copy
import logging
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnm.config import RunConfig
from dnm.data import hub
from dnm.errors import DnmError, mendable
from dnm.packing import NOTHING, Layout
from dnm.words import Tokenizer, Words, word_vectors

# Model families whose forward pass takes embeddings, positions and a full attention mask; the number is
# the position of a sentence's first word piece (RoBERTa counts from after its padding index).
FAMILIES = {"bert": 0, "electra": 0, "ernie": 0, "roberta": 2, "xlm-roberta": 2, "camembert": 2}
CNN_WINDOWS, CNN_FILTERS, LSTM_SIZE = (3, 4, 5), 100, 150


class Transformer(nn.Module):
    """An unmodified BERT-family model over packed rows, its states pooled per sentence."""

    share_rows = True

    def __init__(self, model: nn.Module, pooling: str, table: Tensor | None = None):
        super().__init__()
        self.words = Words(model.get_input_embeddings().weight if table is None else table)
        model.set_input_embeddings(nn.Identity())  # `words` has the table now
        self.model, self.pooling = model, pooling
        self.hidden_size = model.config.hidden_size
        self.compute_dtype: torch.dtype | None = None  # of the transformer alone; None: float32

    def forward(self, embeddings: Tensor, layout: Layout) -> Tensor:
        """Hidden states ``[N, d]`` of word embeddings ``[R, T, e]``."""
        with torch.autocast(embeddings.device.type, self.compute_dtype or torch.bfloat16,
                            enabled=self.compute_dtype is not None):
            states = self.model(
                inputs_embeds=embeddings, attention_mask=layout.attention_mask(),
                position_ids=layout.position + FAMILIES[self.model.config.model_type],
            ).last_hidden_state.float().flatten(0, 1)
        if self.pooling == "cls":
            return states[layout.first]
        owner = layout.owner.flatten()
        member = owner == torch.arange(len(layout.first), device=owner.device).unsqueeze(-1)
        return (member.float() @ states) / layout.lengths.unsqueeze(-1)


class CNN(nn.Module):
    """Kim (2014): windows of 3, 4 and 5 word pieces, 100 filters each, max over time, dropout."""

    share_rows = False

    def __init__(self, words: Words, dropout: float):
        super().__init__()
        self.words, size = words, words.table.shape[1]
        self.convolutions = nn.ModuleList(nn.Conv1d(size, CNN_FILTERS, window) for window in CNN_WINDOWS)
        self.dropout, self.hidden_size = nn.Dropout(dropout), CNN_FILTERS * len(CNN_WINDOWS)

    def forward(self, embeddings: Tensor, layout: Layout) -> Tensor:
        sentences, real = embeddings.transpose(1, 2), (layout.owner != NOTHING).unsqueeze(1)
        features = []
        for convolution in self.convolutions:
            # Zeros behind the sentence, and only windows that begin inside it: the same states as alone.
            found = F.relu(convolution(F.pad(sentences, (0, convolution.kernel_size[0] - 1))))
            features.append(found.masked_fill(~real, 0.0).amax(-1))
        return self.dropout(torch.cat(features, dim=-1))


class LSTM(nn.Module):
    """A bidirectional LSTM; a sentence is the pair of its final states."""

    share_rows = False

    def __init__(self, words: Words, dropout: float):
        super().__init__()
        self.words = words
        self.lstm = nn.LSTM(words.table.shape[1], LSTM_SIZE, batch_first=True, bidirectional=True)
        self.dropout, self.hidden_size = nn.Dropout(dropout), 2 * LSTM_SIZE

    def forward(self, embeddings: Tensor, layout: Layout) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(embeddings), layout.lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (final, _) = self.lstm(packed)
        return self.dropout(torch.cat([final[0], final[1]], dim=-1))


def build_encoder(config: RunConfig, folder: Path | None = None,
                  table: Tensor | None = None) -> tuple[nn.Module, Tokenizer]:
    """The encoder and tokenizer of a run.

    For a saved model, ``folder`` holds its architecture and tokenizer and ``table`` ``[V, e]`` its word
    embeddings; the other weights are then loaded by the caller. CNN and LSTM take the packaged MiniLM's
    WordPiece vocabulary, and random word vectors unless ``word_vectors`` names a text file of them (GloVe's format).
    """
    folder = folder or hub.model_folder("minilm" if config.from_scratch else config.encoder)
    tokenizer = Tokenizer(folder, config.max_length)
    if config.from_scratch:
        words = Words(word_vectors(tokenizer, config.word_vectors) if table is None else table)
        return (CNN if config.encoder == "cnn" else LSTM)(words, config.dropout), tokenizer
    digest = hub.weights_digest(folder) if table is None else ""
    model = _transformer(config.encoder, config.max_length, config.dropout, folder, digest)
    return Transformer(copy.deepcopy(model), config.pooling, table), tokenizer


@lru_cache(maxsize=1)
def _transformer(encoder: str, max_length: int, dropout: float, folder: Path, digest: str) -> nn.Module:
    """A model as it starts, read once for all runs of a process; without weights if there is no ``digest`` of them."""
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with mendable(f"cannot load encoder {encoder!r} from {folder}: {{}}"):
        settings = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if settings.model_type not in FAMILIES:
            raise DnmError(f"encoder {encoder!r} is a {settings.model_type!r} model; supported families: {[*FAMILIES]}")
        room = settings.max_position_embeddings - FAMILIES[settings.model_type]
        if max_length > room:
            raise DnmError(f"max_length={max_length} is more than encoder {encoder!r} can read ({room})")
        settings.hidden_dropout_prob = settings.attention_probs_dropout_prob = dropout
        # The plain attention: as fast as the fused one at these sizes, and deterministic.
        if not digest:
            return AutoModel.from_config(settings, attn_implementation="eager", dtype=torch.float32)
        model, found = AutoModel.from_pretrained(
            folder, config=settings, attn_implementation="eager", dtype=torch.float32, local_files_only=True,
            use_safetensors=True, trust_remote_code=False, output_loading_info=True)
        if missing := [name for name in found["missing_keys"] if "pooler" not in name]:
            raise DnmError(f"encoder {encoder!r}: its weights lack {missing[0]} and {len(missing) - 1} more; "
                           "they would start from random numbers")
        return model
