"""What a model's config.json says of it: whether it reads and writes text, and how.

    kind(config)      "encoder-decoder" | "decoder-only" | "encoder"; "" where the trainer could not use it
    unfit(config)     why it could not, in a few words; "" where nothing speaks against it

`config` is the JSON object of transformers' config.json. No weights are needed, and nothing of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = ("encoder-decoder", "decoder-only", "encoder")

# Those of transformers' sequence-to-sequence models that read text alone.
ENCODER_DECODERS = frozenset(
    (
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "encoder-decoder", "fsmt", "led", "longt5",
        "m2m_100", "marian", "mbart", "mt5", "mvp", "nllb-moe", "pegasus", "pegasus_x", "plbart", "prophetnet",
        "switch_transformers", "t5", "t5gemma", "umt5",
    )
)  # fmt: skip
# Encoders of which transformers has a decoder with cross-attention.
ENCODERS = frozenset(("bert", "camembert", "electra", "ernie", "megatron-bert", "rembert", "roberta", "xlm-roberta"))
_GENERATES = ("ForCausalLM", "LMHeadModel")
# Their text halves go by the names of text models, their architectures do not.
_OTHER_MEDIA = ("Vision", "Image", "Speech", "Audio", "CTC", "Whisper", "Wav2Vec", "Pix2Struct", "Blip", "Llava")


def kind(config: Mapping[str, Any]) -> str:
    """How the trainer would use the model; "" where it could not."""
    model_type, architectures = _type(config), _architectures(config)
    if any(mark in name for name in architectures for mark in _OTHER_MEDIA):
        return ""
    untyped = not model_type and any(name.endswith("ForConditionalGeneration") for name in architectures)
    if model_type in ENCODER_DECODERS or untyped:
        return "encoder-decoder"
    if any(name.endswith(_GENERATES) for name in architectures):
        # Code of its own is not run; a text model has no half for images or sounds.
        media = any(key in config for key in ("vision_config", "audio_config", "speech_config"))
        return "" if media or _own_code(config) else "decoder-only"
    return "encoder" if model_type in ENCODERS else ""


def unfit(config: Mapping[str, Any]) -> str:
    """Why the trainer could not use the model: its type, or that it runs code of its own."""
    if kind(config):
        return ""
    named = _type(config) or next(iter(_architectures(config)), "")
    if not named:
        return "its config.json names no model type"
    return f"{named}, which runs code of its own" if _own_code(config) else named


def _type(config: Mapping[str, Any]) -> str:
    found = config.get("model_type")
    return found if isinstance(found, str) else ""


def _architectures(config: Mapping[str, Any]) -> list[str]:
    found = config.get("architectures")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _own_code(config: Mapping[str, Any]) -> bool:
    return bool(config.get("auto_map"))
