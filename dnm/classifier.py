"""A trained model that takes sentences: what is kept, loaded and asked for predictions. Taught in notebook 07."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dnm.batches import Encoded
from dnm.config import RunConfig
from dnm.disk import load_tensors, save_tensors, write_atomically
from dnm.encoders import build_encoder
from dnm.errors import DnmError, mendable
from dnm.heads import Head
from dnm.model import Model, resolve_device
from dnm.training import Run
from dnm.words import Tokenizer


@dataclass(frozen=True)
class Classifier:
    """A model with its tokenizer, settings and the classes' names."""

    model: Model
    tokenizer: Tokenizer
    config: RunConfig
    label_names: tuple[str, ...]

    @classmethod
    def of(cls, run: Run) -> "Classifier":
        """A run's model as it stands."""
        return cls(run.model, run.tokenizer, run.config, run.data.label_names)

    def hidden(self, texts: list[str]) -> Tensor:
        """Hidden states ``[n, d]`` of sentences, without dropout, on the CPU."""
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise DnmError("nothing to predict: give at least one sentence, and no empty ones")
        encoder = self.model.encoder
        device = next(self.model.parameters()).device
        encoded = Encoded(self.tokenizer(list(texts)), encoder.share_rows, self.config.max_length, device)
        return encoded.hidden(encoder).cpu()

    @torch.no_grad()
    def scores(self, texts: list[str]) -> np.ndarray:
        """Class scores ``[n, c]``: cosines to the label embeddings, or logits. Never mixes."""
        head = self.model.head
        return head.scores(self.hidden(texts).to(next(head.parameters()).device)).cpu().numpy()

    def predict(self, texts: list[str]) -> list[str]:
        """The class of each sentence, by name."""
        return [self.label_names[i] for i in self.scores(texts).argmax(-1)]

    def save(self, folder: str | Path) -> None:
        """Weights as safetensors, settings as JSON, and the encoder's architecture and tokenizer."""
        folder, encoder = Path(folder).expanduser(), self.model.encoder
        tensors = {name: t for name, t in self.model.state_dict().items() if name != "encoder.words.rows"}
        tensors["encoder.words.table"] = encoder.words.whole()
        for file in self.tokenizer.folder.iterdir():
            if file.is_file() and file.suffix in (".json", ".txt", ".model"):
                write_atomically(folder / "encoder" / file.name, file.read_bytes())
        about = {"config": self.config.to_dict(), "labels": list(self.label_names), "k": self.model.head.k}
        write_atomically(folder / "config.json", json.dumps(about, indent=1).encode())
        save_tensors(folder / "model.safetensors", tensors, about)  # last: a folder that has it is whole

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> "Classifier":
        """A saved model; its predictions are those it had when it was saved."""
        folder = Path(folder).expanduser()
        if not (folder / "model.safetensors").is_file():
            why = "it has no model.safetensors" if folder.is_dir() else "there is no such folder"
            raise DnmError(f"{folder} is not a saved model: {why}")
        with mendable(f"{folder} is not a readable model: {{}}"):
            about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config = RunConfig(**about["config"] | {"device": device})
            tensors = load_tensors(folder / "model.safetensors")[0]
            table = tensors.pop("encoder.words.table")
            encoder, tokenizer = build_encoder(config, folder / "encoder", table[:-1])
            model = Model(encoder, Head(config.row, encoder.hidden_size, len(about["labels"]), about["k"],
                                        config.original_weight))
            words = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.words.")}
            model.load_state_dict(tensors | words)
        where, encoder.compute_dtype = resolve_device(config)
        return cls(model.to(where).eval(), tokenizer, config, tuple(about["labels"]))
