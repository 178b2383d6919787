"""The same model for `transformers`: its pipeline, its Trainer, its ``from_pretrained``; importing this registers it.

It takes what a tokenizer gives, a row a sentence, and has the class scores that `dnm.DNMClassifier` has.
"""

import inspect

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from dnm.config import RunConfig
from dnm.errors import DnmError
from dnm.heads import Head


class DNMConfig(PreTrainedConfig):
    """What ``config.json`` of `dnm.classify.saved` holds: ``encoder``, settings of its family, and ``dnm``, ours."""

    model_type = "dnm"

    def __init__(self, encoder: dict | None = None, dnm: dict | None = None, **settings):
        super().__init__(**settings)
        self.encoder, self.dnm = encoder or {}, dnm or {}


class DNMForSequenceClassification(PreTrainedModel):
    """An unmodified encoder, its pooled states, and the head of one method; trained here, it never mixes."""

    config_class, base_model_prefix, input_modalities = DNMConfig, "encoder", ("text",)
    _supports_sdpa = _supports_flash_attn = _supports_attention_backend = True

    def __init__(self, config: DNMConfig):
        super().__init__(config)
        if not config.encoder:
            raise DnmError("a CNN or LSTM has no class in transformers: load this folder with dnm.DNMClassifier.load")
        run = RunConfig(**config.dnm["config"])
        settings = AutoConfig.for_model(**config.encoder)
        try:
            self.encoder = AutoModel.from_config(settings, attn_implementation=config._attn_implementation)
        except ValueError:  # not every family has every attention
            self.encoder = AutoModel.from_config(settings, attn_implementation="eager")
        self.pooling, self.last = run.pooling, getattr(settings, "summary_type", "") == "last"
        self.head = Head(run.row, settings.hidden_size, config.num_labels, config.dnm["k"], run.original_weight)
        self.post_init()

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
                labels: Tensor | None = None, **inputs) -> SequenceClassifierOutput:
        """Class scores ``[N, c]`` of word pieces ``[N, T]``, and with ``labels`` ``[N]`` the head's plain loss."""
        for name in ("return_dict", "num_items_in_batch"):
            inputs.pop(name, None)
        if "attention_mask" in inspect.signature(self.encoder.forward).parameters:  # FNet has none
            inputs["attention_mask"] = attention_mask
        states = self.encoder(input_ids=input_ids, **inputs).last_hidden_state
        mask = states.new_ones(states.shape[:2]) if attention_mask is None else attention_mask.to(states.dtype)
        if self.pooling == "cls":  # the first word piece (XLNet's last), on whichever side the padding is
            place = mask.shape[1] - 1 - mask.flip(-1).argmax(-1) if self.last else mask.argmax(-1)
            hidden = states[torch.arange(len(states), device=states.device), place]
        else:
            hidden = (mask.unsqueeze(1) @ states).squeeze(1) / mask.sum(-1, keepdim=True)
        loss = None if labels is None else self.head.plain_loss(hidden, labels)
        return SequenceClassifierOutput(loss=loss, logits=self.head.scores(hidden))


AutoConfig.register("dnm", DNMConfig, exist_ok=True)
AutoModelForSequenceClassification.register(DNMConfig, DNMForSequenceClassification, exist_ok=True)
