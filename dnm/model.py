"""Encoder and head as one model, its optimiser, and the device it runs on. Taught in notebook 04."""

import platform
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from dnm.batches import Inputs
from dnm.config import RunConfig
from dnm.errors import DnmError
from dnm.heads import Head
from dnm.mixing import mix
from dnm.related import spans

DEPTHS = (7 / 12, 9 / 12, 1.0)  # where TMix mixes, as shares of the encoder's layers


class Model(nn.Module):
    """Encoder and head of one run."""

    def __init__(self, encoder: nn.Module, head: Head):
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("states", None, persistent=False)  # at rate 0 ``[n, d]``, of all training sentences

    def forward(self, inputs: Inputs) -> Tensor:
        """Hidden states ``[N, d]`` of a batch, of mixed word embeddings where the method mixes words.

        Without draws, as at test time, nothing is mixed.
        """
        words, draws, level = self.encoder.words, inputs.draws, self.head.method.level
        if not inputs.layout:  # at rate 0
            return self.states[inputs.ids]
        if draws is not None and level == "layer":
            return self.encoder.mixed(words(inputs.ids), inputs.layout, inputs.pairs, draws.permutation, draws.weight,
                                      DEPTHS[min(int(len(DEPTHS) * draws.layer), len(DEPTHS) - 1)])
        if draws is None or level != "word":
            return self.encoder(words(inputs.ids), inputs.layout)
        weight = draws.weight[inputs.layout.position] if draws.weight.dim() else draws.weight  # a matrix has places
        return self.encoder(mix(words(inputs.ids[0]), words(inputs.ids[1]), weight), inputs.layout)

    def loss(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The training loss of a batch, and hidden states ``[N, d]``, of its unmixed sentences if they are at hand."""
        unmixed = None
        if inputs.draws is not None and self.head.method.level == "token":
            inputs, unmixed = spans.probed(self, inputs)
        hidden = self(inputs)
        loss = self.head.loss(hidden, inputs.labels, inputs.draws, unmixed)
        return loss, hidden if unmixed is None else unmixed


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
    if config.from_scratch or config.precision == "float32":
        return device, None
    # On a CPU it pays with AMX. AVX-512's instructions for bfloat16 double the speed on an AMD EPYC, but on an Intel
    # Xeon without AMX they are slower than float32 (data/results/bench-cpu-*.json), and without either all is emulated.
    # A rule, no stopwatch: a run that goes on has to be computed as it began.
    about = cpu_info()
    pays = torch.cuda.is_bf16_supported() if device.type == "cuda" else (
        "amx_bf16" in about or ("avx512_bf16" in about and "AuthenticAMD" in about))
    return device, torch.bfloat16 if config.precision == "bfloat16" or pays else None


@lru_cache
def cpu_info() -> str:
    """What Linux says of the first core; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return ""


def device_name(device: torch.device) -> str:
    """The device as records name it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
