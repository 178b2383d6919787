"""Sentences to hidden states ``[N, d]``: encoders of `transformers`, a CNN and an LSTM behind one interface.

An encoder takes word embeddings in rows (`dnm.packing`), so that word-level mixing is the same for all.
Taught in notebook 04.
"""

import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from dnm.config import RunConfig
from dnm.data import hub, vectors
from dnm.data.pretrained import FLOAT32, NoWords, first_position, load_model
from dnm.errors import DnmError, say_once
from dnm.mixing import mix
from dnm.packing import NOTHING, Layout
from dnm.words import Tokenizer, Words

CNN_WINDOWS, CNN_FILTERS, LSTM_SIZE = (3, 4, 5), 100, 150


class Transformer(nn.Module):
    """An unmodified encoder of `transformers`, its states pooled per sentence.

    ``way`` says how it is asked: ``packed`` rows, ``padded`` rows of one sentence each, or one sentence at a time
    (``alone``) where padding would change a sentence's states.
    """

    def __init__(self, model: nn.Module, pooling: str, table: Tensor | None = None, way: str = "packed"):
        super().__init__()
        self.words = Words(model.get_input_embeddings().weight if table is None else table)
        model.set_input_embeddings(NoWords(self.words.table.shape[1]))  # `words` has the table now
        self.model, self.pooling, self.way, self.share_rows = model, pooling, way, way == "packed"
        self.hidden_size, self.start = model.config.hidden_size, first_position(model)
        self.takes_bfloat16 = model.config.model_type not in FLOAT32
        self.compute_dtype: torch.dtype | None = None  # of the transformer alone; None: float32

    def forward(self, embeddings: Tensor, layout: Layout) -> Tensor:
        """Hidden states ``[N, d]`` of word embeddings ``[R, T, e]``."""
        with self._precision(embeddings):
            states = self._states(embeddings, layout)
        return self._pooled(states, layout)

    def mixed(self, embeddings: Tensor, layout: Layout, pairs: Layout, partners: Tensor, weight: Tensor,
              depth: float) -> Tensor:
        """Hidden states ``[N, d]`` of sentences mixed with ``partners`` ``[N]`` within the encoder, place by place.

        Its lower layers, ``depth`` of all, see each sentence alone; the others the mixtures, in the layout ``pairs``.
        What a shorter sentence lacks is zero. TMix (Chen et al. 2020).
        """
        model, layers = self.model, self.model.encoder.layer
        at, lower, upper = math.ceil(depth * len(layers) - 1e-9), layout.attention_mask(), pairs.attention_mask()
        with self._precision(embeddings):
            states = model.embeddings(inputs_embeds=embeddings, position_ids=layout.position + self.start)
            if hasattr(model, "embeddings_project"):  # ELECTRA's
                states = model.embeddings_project(states)
            for layer in layers[:at]:
                states = layer(states, lower)
            own = torch.arange(len(partners), device=partners.device)
            states = mix(*(layout.moved(states, pairs, who) for who in (own, partners)), weight)
            for layer in layers[at:]:
                states = layer(states, upper)
        return self._pooled(states, pairs)

    def _precision(self, embeddings: Tensor) -> torch.autocast:
        return torch.autocast(embeddings.device.type, self.compute_dtype or torch.bfloat16,
                              enabled=self.compute_dtype is not None and self.takes_bfloat16)

    def _pooled(self, states: Tensor, layout: Layout) -> Tensor:
        """A state ``[N, d]`` of each sentence from those of its places ``[R, T, d]``."""
        states = states.float().flatten(0, 1)
        if self.pooling == "cls":  # XLNet's comes last
            last = getattr(self.model.config, "summary_type", "") == "last"
            return states[layout.first + layout.lengths - 1 if last else layout.first]
        owner = layout.owner.flatten()
        member = owner == torch.arange(len(layout.first), device=owner.device).unsqueeze(-1)
        return (member.float() @ states) / layout.lengths.unsqueeze(-1)

    def _states(self, embeddings: Tensor, layout: Layout) -> Tensor:
        """States ``[R, T, d]`` of the places in the rows."""
        if self.way == "packed":
            places = dict(attention_mask=layout.attention_mask(), position_ids=layout.position + self.start)
        elif self.way == "padded":
            places = dict(attention_mask=(layout.owner != NOTHING).long())
        else:
            rows = zip(embeddings, layout.lengths.tolist(), strict=True)  # the longest fills its row
            return pad_sequence([self.model(inputs_embeds=row[None, :length]).last_hidden_state[0]
                                 for row, length in rows], batch_first=True)
        return self.model(inputs_embeds=embeddings, **places).last_hidden_state


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
    WordPiece vocabulary, and random word vectors unless ``word_vectors`` is ``glove`` or names a text file of them.
    """
    folder = folder or hub.model_folder("minilm" if config.from_scratch else config.encoder)
    tokenizer = Tokenizer(folder, config.max_length)
    if config.from_scratch:
        if table is None:
            table = vectors.word_vectors(tokenizer.loaded.get_vocab(), tokenizer.size, config.word_vectors)
        words = Words(table)
        return (CNN if config.encoder == "cnn" else LSTM)(words, config.dropout), tokenizer
    digest = hub.weights_digest(folder) if table is None else ""
    model, way = load_model(config.encoder, config.max_length, config.dropout, folder, digest)
    encoder = Transformer(copy.deepcopy(model), config.pooling, table, way)
    if tokenizer.size > (rows := len(encoder.words.table) - 1):
        raise DnmError(f"encoder {config.encoder!r}: its tokenizer has {tokenizer.size} tokens, its model {rows} word "
                       "embeddings; save it again after `model.resize_token_embeddings(len(tokenizer))`")
    if way != "packed":
        say_once(f"encoder {config.encoder!r} runs slower than others: the sentences of a {model.config.model_type!r} "
                 f"model cannot be packed, so each is computed {'in a row of its own' if way == 'padded' else way}")
    return encoder, tokenizer
