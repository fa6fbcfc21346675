"""Encoders with a head for labels: one forward pass answers, where a decoder takes one a token.

    load(folder, labels, shares, ...)       the model, as AutoModelForSequenceClassification loads it

A sentence encoder was trained to mean something by the mean of its tokens, which transformers' heads do not take: they
look at the first token. So a layer is put on top whose attention starts uniform: the first token's output then is that
mean, the architecture stays BERT's, and no code of ours is needed to load it. The head starts from the labels' own
names: before training it answers with the label whose name is nearest in meaning. Any other encoder's head starts
with the labels' shares in the training rows: before training it answers with the most frequent.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import AutoModelForSequenceClassification

from services.kit import encoding

# The mean stands so much above the first token's own state, which the residual connection adds to it.
_ABOVE_RESIDUAL = 8.0
# Logits are differences of cosines times this, as sentence encoders are trained (Reimers and Gurevych, 2019).
_COSINE_SCALE = 20.0
_MEAN_LAYER_TYPES = ("bert", "camembert", "roberta", "xlm-roberta")


def load(folder: Path, labels: Sequence[str], shares: Sequence[float], config: Any, tokenizer: Any) -> Any:
    """The encoder in `folder` with a head for `labels`, whose `shares` of the training rows add up to 1."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.num_labels = len(labels)
    config.problem_type = "single_label_classification"
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
        ignore_mismatched_sizes=True,
    )  # fmt: skip
    model.config.pad_token_id = tokenizer.pad_token_id
    head = _head(model)
    if _means_its_mean(folder) and config.model_type in _MEAN_LAYER_TYPES:
        _add_mean_layer(model)
        _start_from_names(model, head, tokenizer, labels)
    else:
        torch.nn.init.zeros_(head.weight)
        with torch.no_grad():
            head.bias.copy_(torch.tensor(shares).clamp_min(1e-4).log())
    return model


def _head(model: Any) -> torch.nn.Linear:
    """The layer that gives the logits: the last linear one."""
    *_, last = (layer for layer in model.modules() if isinstance(layer, torch.nn.Linear))
    return last


def _means_its_mean(folder: Path) -> bool:
    """Whether the folder says, as sentence-transformers writes it, that the mean of the tokens is the sentence."""
    try:
        pooling = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(pooling, dict) and pooling.get("pooling_mode_mean_tokens") is True


@torch.no_grad()  # type: ignore[untyped-decorator]
def _add_mean_layer(model: Any) -> None:
    """A last layer that starts as the mean over the tokens; what follows it starts as the identity."""
    layers = model.base_model.encoder.layer
    layer = copy.deepcopy(layers[-1])
    attention = layer.attention
    for projection in (attention.self.query, attention.self.key, layer.output.dense):
        torch.nn.init.zeros_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    dense = model.base_model.pooler.dense if getattr(model.base_model, "pooler", None) else model.classifier.dense
    for projection in (attention.self.value, attention.output.dense, dense):
        torch.nn.init.eye_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    attention.output.dense.weight.mul_(_ABOVE_RESIDUAL)
    # A tanh follows: a vector of length 1 has numbers so small that it leaves them as they are.
    dense.weight.mul_(model.config.hidden_size**-0.5)
    for norm in (attention.output.LayerNorm, layer.output.LayerNorm):
        torch.nn.init.ones_(norm.weight)
        torch.nn.init.zeros_(norm.bias)
    layers.append(layer)
    model.config.num_hidden_layers += 1


@torch.no_grad()  # type: ignore[untyped-decorator]
def _start_from_names(model: Any, head: torch.nn.Linear, tokenizer: Any, labels: Sequence[str]) -> None:
    """Sets the head so that the label whose name means most nearly what the input does has the greatest logit."""
    before: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: before.append(given[0]))
    model.eval()
    for tokens in encoding.encode_alone(tokenizer, labels, 64):
        model(input_ids=torch.tensor([tokens]))
    hook.remove()
    names = normalize(torch.cat(before), dim=-1)
    head.weight.copy_(_COSINE_SCALE * (names - names.mean(0)))
    torch.nn.init.zeros_(head.bias)
