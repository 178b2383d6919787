"""Encoder and head as one model: where it runs, how it is kept on disk, how it predicts."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dnm.batches import Encoded, Inputs
from dnm.config import RunConfig
from dnm.encoders import Tokenizer, build_encoder
from dnm.errors import DnmError
from dnm.heads import Head
from dnm.methods import get_method
from dnm.mixing import mix
from dnm.store import load_tensors, save_tensors, write_atomically


class Model(nn.Module):
    """Encoder and head of one run: ``head(model(inputs), inputs.labels, inputs.draws)`` is the loss of a step."""

    def __init__(self, encoder: nn.Module, head: Head):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, inputs: Inputs) -> Tensor:
        """Hidden states ``[N, d]`` of a batch, of mixed word embeddings where the method mixes words.

        Without draws, as at test time, nothing is mixed.
        """
        words, draws, method = self.encoder.words, inputs.draws, self.head.method
        if draws is None or method.level != "word":
            return self.encoder(words(inputs.ids), inputs.layout)
        weight = draws.weight[inputs.layout.position] if method.inputs == "matrix" else draws.weight
        return self.encoder(mix(words(inputs.ids[0]), words(inputs.ids[1]), weight), inputs.layout)


def adamw(encoder: list[Tensor], head: list[Tensor], config: RunConfig, **settings) -> torch.optim.AdamW:
    """The study's optimiser: constant rates, no weight decay."""
    groups = [{"params": encoder, "lr": config.lr}, {"params": head, "lr": config.head_lr}]
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True, **settings)


def resolve_device(config: RunConfig) -> tuple[torch.device, torch.dtype | None]:
    """The device of a run and the type its encoder computes in (None: float32 throughout)."""
    name = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DnmError(f"device {name!r} asked for, but torch sees no CUDA GPU; use device 'auto' or 'cpu'")
    if config.encoder in ("cnn", "lstm") or config.precision == "float32":
        return device, None
    pays = torch.cuda.is_bf16_supported() if device.type == "cuda" else _bfloat16_pays_on_cpu()
    return device, torch.bfloat16 if config.precision == "bfloat16" or pays else None


def _bfloat16_pays_on_cpu() -> bool:
    """Whether this CPU trains faster in bfloat16.

    With AMX it does. AVX-512's instructions for it double the speed on an AMD EPYC, but on an Intel Xeon without AMX
    they are slower than float32 (data/results/bench-cpu-*.json), and without either all is emulated. A rule, no
    stopwatch: a run that goes on has to be computed as it began.
    """
    about = cpu_info()
    return "amx_bf16" in about or ("avx512_bf16" in about and "AuthenticAMD" in about)


@lru_cache
def cpu_info() -> str:
    """What Linux says of the first core; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return ""


@dataclass(frozen=True)
class Classifier:
    """A trained model that takes sentences: what is saved, loaded and asked for predictions."""

    model: Model
    tokenizer: Tokenizer
    config: RunConfig
    label_names: tuple[str, ...]

    @torch.no_grad()
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
            raise DnmError(f"{folder} is not a saved model: it has no model.safetensors")
        try:
            about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config = RunConfig(**about["config"] | {"device": device})
            tensors = load_tensors(folder / "model.safetensors")[0]
            table = tensors.pop("encoder.words.table")
            encoder, tokenizer = build_encoder(config, folder / "encoder", table[:-1])
            model = Model(encoder, Head(get_method(config.method), encoder.hidden_size, len(about["labels"]),
                                        about["k"], config.original_weight))
            missing = model.load_state_dict(tensors, strict=False)
            if missing.unexpected_keys or set(missing.missing_keys) > {"encoder.words.rows", "encoder.words.table"}:
                raise ValueError("weights do not fit the model")
        except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
            raise DnmError(f"{folder} is not a readable model: {str(error).splitlines()[0]}") from None
        where, encoder.compute_dtype = resolve_device(config)
        return cls(model.to(where).eval(), tokenizer, config, tuple(about["labels"]))
