"""Whether the trainer could use a model, as far as it is known before a download.

refusal       why it cannot; "" where it can
unknowns      what the trainer will have to check
from_folder   a catalogue entry for a folder of the user's own
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from services.kit import locations
from services.kit.settings import Settings

MAX_SIZE_BYTES = 3_000_000_000
ARCHITECTURES = ("encoder-decoder", "decoder-only", "encoder")

# What a card's header or id says of models that read or write something else than text.
_OTHER_MEDIA = re.compile(
    r"^\s*(?:-|pipeline_tag\s*:|tags\s*:)\s*[\"']?(image-to-text|image-captioning|visual-question-answering|"
    r"automatic-speech-recognition|speech-recognition|speech-translation|text-to-speech|text-to-audio|text-to-music|musicgen|"
    r"document-question-answering|image-to-image|text-to-image|audio|vision|protein language model)\b",
    re.MULTILINE | re.IGNORECASE,
)
_OTHER_IDS = re.compile(
    r"(^|[-_/])(blip2?|instructblip|musicgen|pix2struct|matcha|deplot|donut|trocr|vit[-_]gpt2|whisper|wav2vec2?|speecht5|"
    r"s2t|speech[-_]encoder|nougat|ankh|prot[-_]?t5)([-_/]|$)",
    re.IGNORECASE,
)
_HEADER = re.compile(r"\A\s*---\s*\n(.*?)\n---", re.DOTALL)
_ADAPTER = re.compile(r"^\s*library_name\s*:\s*(peft|adapter-transformers)\b", re.MULTILINE)


def location_of(entry: dict[str, Any]) -> str:
    """What the trainer loads: the entry's own location, else its id on the hub."""
    return entry.get("location") or f"hub:{entry['id']}"


def refusal(entry: dict[str, Any], max_size_bytes: int, settings: Settings) -> str:
    """Why the model cannot be used, one sentence; "" where nothing known speaks against it."""
    size, architecture = entry.get("size_bytes") or 0, entry.get("architecture") or ""
    if size > max_size_bytes:
        return f"Its weights take {size / 1e9:.2f} GB; the limit is {max_size_bytes / 1e9:.2f} GB."
    if entry.get("safetensors") is False:
        return "It has no safetensors weights; other formats can run code and are not read."
    if architecture and architecture not in ARCHITECTURES:
        return f"Its architecture is not supported: {architecture}; wanted {', '.join(ARCHITECTURES)}."
    other = _other_kind(entry)
    if not architecture and other:
        return f"Its architecture is not supported: {other}; wanted one that reads and writes text."
    if not locations.reachable(location_of(entry), settings):
        return _out_of_reach(location_of(entry))
    return ""


def unknowns(entry: dict[str, Any]) -> tuple[str, ...]:
    """What the card does not say, one sentence each; it is checked before the model is downloaded."""
    said = []
    if not entry.get("size_bytes"):
        said.append("Its size is not known; it is checked before the download.")
    if entry.get("safetensors") is None and location_of(entry).startswith("hub:"):
        said.append("Whether it has safetensors weights is not known; it is checked before the download.")
    if not entry.get("architecture"):
        said.append(
            "Its card does not name the architecture; an encoder-decoder is assumed and checked when it is loaded."
        )
    return tuple(said)


def from_folder(folder: Path) -> dict[str, Any]:
    """A catalogue entry that describes a model folder by what is in it."""
    config = _config(folder)
    return {
        "id": f"folder:{folder}",
        "description": f"The model in {folder}.",
        "location": f"folder:{folder}",
        "size_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "architecture": _architecture(config),
        "safetensors": any(folder.glob("*.safetensors")),
    }


def _other_kind(entry: dict[str, Any]) -> str:
    header = _HEADER.match(entry["description"])
    said = _OTHER_MEDIA.search(header[1]) if header else None
    if said:
        return said[1].lower()
    if header and _ADAPTER.search(header[1]):
        return "an adapter without its base model"
    named = _OTHER_IDS.search(entry["id"])
    return named[2].lower() if named else ""


def _out_of_reach(location: str) -> str:
    kind, rest = locations.split(location)
    if kind == "hub":
        return "It is not on this machine, and the hub is switched off."
    return f"There is no {'Python package' if kind == 'package' else 'model folder'} {rest} on this machine."


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _architecture(config: dict[str, Any]) -> str:
    name = next(iter(config.get("architectures") or ()), "")
    if config.get("is_encoder_decoder") or "ConditionalGeneration" in name:
        return "encoder-decoder"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "decoder-only"
    return (
        "encoder" if config.get("model_type") in ("bert", "roberta", "distilbert", "xlm-roberta", "electra") else name
    )
