"""Sentences to hidden states ``[N, d]``: BERT-family transformers, a CNN and an LSTM behind one interface.

An encoder takes word embeddings in rows (`dnm.packing`), so that word-level mixing is the same for all.
Taught in notebook 04.
"""

import copy
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnm import hub
from dnm.config import RunConfig
from dnm.errors import DnmError
from dnm.packing import NOTHING, Layout

# Model families whose forward pass takes embeddings, positions and a full attention mask; the number is
# the position of a sentence's first word piece (RoBERTa counts from after its padding index).
FAMILIES = {"bert": 0, "electra": 0, "ernie": 0, "roberta": 2, "xlm-roberta": 2, "camembert": 2}
WORD_SIZE, CNN_WINDOWS, CNN_FILTERS, LSTM_SIZE = 300, (3, 4, 5), 100, 150


class Words(nn.Module):
    """The word-embedding table, of which only the rows in use are trained.

    A word piece that is not in the training sentences never receives a gradient, and with no weight decay
    AdamW leaves it where it was; so training the rows in use alone is exact and saves memory and time.
    ``table`` ``[V + 1, e]`` is the whole vocabulary as it was and a last row of zeros for `NOTHING`; ``rows``
    ``[U + 1, e]`` are the trained ones.
    """

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("table", torch.cat([table.detach(), table.new_zeros(1, table.shape[1])]))
        self.use(torch.arange(len(table)))

    def use(self, ids: Tensor) -> None:
        """Make ``ids`` the rows that are trained."""
        device, ids = self.table.device, ids.to(self.table.device)
        local = torch.full((len(self.table),), len(ids), device=device)
        local[ids] = torch.arange(len(ids), device=device)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("local", local, persistent=False)
        self.rows = nn.Parameter(torch.cat([self.table[ids], self.table[-1:]]))

    def whole(self) -> Tensor:
        """The whole table ``[V + 1, e]`` with the trained rows in their places."""
        return self.table.index_copy(0, self.ids, self.rows.detach()[:-1])

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings ``[..., e]`` of word pieces ``[...]``; zeros at `NOTHING`."""
        local = self.local[ids]
        words = F.embedding(local, self.rows)
        if not self.training:  # held-out sentences hold other words, too
            unused = (local == len(self.rows) - 1).unsqueeze(-1)
            return torch.where(unused, F.embedding(ids % len(self.table), self.table), words)
        return words.masked_fill((ids == NOTHING).unsqueeze(-1), 0.0)  # so that the row of zeros gets no gradient


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


@dataclass(frozen=True)
class Tokenizer:
    """Sentences to word-piece ids, at most ``max_length`` with the special ones."""

    folder: Path
    max_length: int

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        known = _pieces(self.folder, self.max_length)
        if len(known) > 100_000:
            known.clear()
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            ids = _tokenizer(self.folder)(new, truncation=True, max_length=self.max_length)["input_ids"]
            known.update((text, np.array(sentence)) for text, sentence in zip(new, ids, strict=True))
        return [known[text] for text in texts]


@lru_cache(maxsize=2)
def _pieces(folder: Path, max_length: int) -> dict[str, np.ndarray]:
    """Sentences that have been split already: runs of one process share most of theirs."""
    return {}


@lru_cache(maxsize=4)
def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged or missing file can fail in many ways inside the library
        raise DnmError(f"cannot load the tokenizer in {folder}: {type(error).__name__}") from None


def build_encoder(config: RunConfig, folder: Path | None = None,
                  table: Tensor | None = None) -> tuple[nn.Module, Tokenizer]:
    """The encoder and tokenizer of a run.

    For a saved model, ``folder`` holds its architecture and tokenizer and ``table`` ``[V, e]`` its word
    embeddings; the other weights are then loaded by the caller. CNN and LSTM take the packaged MiniLM's
    WordPiece vocabulary, and random word vectors unless ``word_vectors`` names a text file of them (GloVe's format).
    """
    scratch = config.encoder in ("cnn", "lstm")
    folder = folder or hub.model_folder("minilm" if scratch else config.encoder)
    tokenizer = Tokenizer(folder, config.max_length)
    if scratch:
        words = Words(_word_vectors(tokenizer, config.word_vectors) if table is None else table)
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
    try:
        settings = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if settings.model_type not in FAMILIES:
            raise DnmError(f"encoder {encoder!r} is a {settings.model_type!r} model; supported families: "
                           + ", ".join(FAMILIES))
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
    except DnmError:
        raise
    except Exception as error:  # a damaged file can fail in many ways inside the library
        raise DnmError(f"cannot load encoder {encoder!r} from {folder}: "
                       f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from None


@lru_cache(maxsize=4)
def _vocabulary(folder: Path) -> dict[str, int]:
    return _tokenizer(folder).get_vocab()


def _word_vectors(tokenizer: Tokenizer, path: str) -> Tensor:
    """Word vectors ``[V, e]``: small and random, those of the file's words where one is given."""
    vocabulary = _vocabulary(tokenizer.folder)
    size = max(vocabulary.values()) + 1
    if not path:
        return torch.randn(size, WORD_SIZE).mul_(0.1)
    table, number = None, 0
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007 (told in the error)
                parts = line.rstrip().split(" ")
                if table is None:
                    table = torch.randn(size, len(parts) - 1).mul_(0.1)
                if len(parts) <= table.shape[1]:
                    raise ValueError(f"{len(parts) - 1} numbers instead of {table.shape[1]}")
                values = parts[-table.shape[1]:]
                word = " ".join(parts[:-table.shape[1]])  # a few words of the large files hold blanks
                if word in vocabulary:
                    table[vocabulary[word]] = torch.tensor([float(value) for value in values])
    except (OSError, ValueError, RuntimeError) as error:
        raise DnmError(f"cannot read word vectors {path}, line {number}: {error}; expected lines of a word and "
                       "the same count of numbers, separated by blanks") from None
    if table is None:
        raise DnmError(f"{path} holds no word vectors")
    return table
