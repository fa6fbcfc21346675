"""What is known of a model from its entry: from its keys, and where it has none from its card's header and its id.

    traits(entry) ── Traits      languages, licence, tasks, the translation it makes, what speaks against using it
    model_facts(entries)         the same as arrays [entries], for an index

A catalogue that was built from the Hub has the keys; one that is cards alone, as prompt2model's, has headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalogue import languages, tasks
from catalogue.architectures import ENCODER_DECODERS, ENCODERS, KINDS
from catalogue.cards import model_text

# More languages than this make a model multilingual, whatever it calls itself.
_MANY = 5
_SAID_AT_THE_START = 1_500
_NAMED_AT_THE_START = 400
_HEADER = re.compile(r"\A\s*---\s*\n(.*?)\n---", re.DOTALL)
# Some hold whole documents as examples.
_HEADER_CHARACTERS = 100_000

# What a card's header or id says of models that read or write something else than text.
_OTHER_MEDIA = re.compile(
    r"(image-to-text|image-captioning|visual-question-answering|automatic-speech-recognition|speech-recognition|"
    r"speech-translation|text-to-speech|text-to-audio|text-to-music|musicgen|document-question-answering|image-to-image|"
    r"text-to-image|audio|vision|protein language model)\b.*",
    re.IGNORECASE,
)
_OTHER_IDS = re.compile(
    r"(^|[-_/])(blip2?|instructblip|musicgen|pix2struct|matcha|deplot|donut|trocr|vit[-_]gpt2|whisper|wav2vec2?|speecht5|"
    r"s2t|speech[-_]encoder|nougat|ankh|prot[-_]?t5)([-_/]|$)",
    re.IGNORECASE,
)
_KEY = re.compile(r"([A-Za-z_][\w-]*)\s*:(?:\s+(.*))?\s*$")
_ITEM = re.compile(r"\s*-\s+(.+)$")
_ADAPTERS = ("peft", "adapter-transformers")


@dataclass(frozen=True)
class Traits:
    """What is known of a model; what is not known is empty."""

    languages: tuple[str, ...] = ()
    source: str = ""
    """The language that it translates from."""
    target: str = ""
    licence: str = ""
    tasks: frozenset[str] = frozenset()
    """Tasks that its id, its keys or its header name."""
    mentioned: frozenset[str] = frozenset()
    """Tasks that the beginning of its card speaks of."""
    unfit: str = ""
    """What the trainer could not use it for: "image-to-text", "no safetensors", an architecture."""


def traits(entry: Mapping[str, Any]) -> Traits:
    """What is known of the model."""
    text = model_text(entry)
    header = _header(entry["description"])
    tags = [*_list(entry.get("tags")), *_list(entry.get("tasks")), *_list(header.get("tags"))]
    tags += _list(header.get("pipeline_tag"))
    source, target = languages.pair_of_id(entry["id"])
    labels = " ; ".join((entry["id"].rpartition("/")[2], *tags, *_list(header.get("datasets"))))
    return Traits(
        _languages(entry, header, tags, text),
        source,
        target,
        _licence(entry, header),
        frozenset(tasks.of(labels)),
        frozenset(tasks.of(text[:_SAID_AT_THE_START])),
        unfit(entry, header),
    )


def unfit(entry: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
    """What speaks against the model whatever the settings are: the kind it is of; "" where nothing does."""
    if entry.get("safetensors") is False:
        return "no safetensors"
    architecture, model_type = entry.get("architecture") or "", entry.get("model_type") or ""
    if architecture:
        return "" if architecture in KINDS else str(architecture)
    if model_type in ENCODER_DECODERS or model_type in ENCODERS:
        return ""
    header = _header(entry["description"]) if header is None else header
    for label in (*_list(header.get("pipeline_tag")), *_list(header.get("tags")), *_list(entry.get("tasks"))):
        if found := _OTHER_MEDIA.match(label.strip()):
            return found[1].lower()
    if set(_ADAPTERS).intersection(_list(header.get("library_name"))):
        return "an adapter without its base model"
    named = _OTHER_IDS.search(entry["id"])
    return named[2].lower() if named else ""


def model_facts(entries: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    """The traits as arrays [entries]; 0 and -1 (source, target) and b"" (licence) where they are not known.

    languages_0.. and tasks, mentioned are sets of bits (languages.bits, tasks.bits); source and target places in
    languages.CODES; unfit and located (it has a location of its own) are 0 or 1; licence is the Hub's id.
    """
    known = [traits(entry) for entry in entries]
    sets = np.asarray([languages.bits(one.languages) for one in known], np.uint64).reshape(-1, languages.BITS)
    return {
        **{f"languages_{place}": np.ascontiguousarray(sets[:, place]) for place in range(languages.BITS)},
        "source": np.asarray([languages.place(one.source) for one in known], np.int16),
        "target": np.asarray([languages.place(one.target) for one in known], np.int16),
        "licence": np.asarray([one.licence.encode()[:32] for one in known], "S32"),
        "tasks": np.asarray([tasks.bits(one.tasks) for one in known], np.uint64),
        "mentioned": np.asarray([tasks.bits(one.mentioned) for one in known], np.uint64),
        # What is taken by name alone counts as unfit in a search; naming it asks `unfit` itself.
        "unfit": np.asarray(
            [bool(one.unfit or entry.get("by_name")) for one, entry in zip(known, entries, strict=True)], np.int8
        ),
        "located": np.asarray([bool(entry.get("location")) for entry in entries], np.int8),
        "parameters": np.asarray([_parameters(entry) for entry in entries], np.int64),
    }


def _languages(entry: Mapping[str, Any], header: Mapping[str, Any], tags: Sequence[str], text: str) -> tuple[str, ...]:
    written = [one for key in ("language", "languages") for one in _list(header.get(key))]
    said = languages.known([*_list(entry.get("languages")), *written])
    by_id = [code for code in languages.of_id(entry["id"]) if not said or code != languages.MULTILINGUAL]
    found = list(dict.fromkeys([*said, *by_id, *languages.named(" ".join(tags))]))
    found = found or languages.named(text[:_NAMED_AT_THE_START])
    if len(found) >= _MANY and languages.MULTILINGUAL not in found:
        found.append(languages.MULTILINGUAL)
    return tuple(found)


def _licence(entry: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    named = _list(entry.get("licence")) or _list(header.get("license")) or _list(header.get("licence"))
    return ", ".join(named).strip().lower()


def _parameters(entry: Mapping[str, Any]) -> int:
    """Weights: as the entry says, else by their bytes, four each."""
    return int(entry.get("parameters") or (entry.get("size_bytes") or 0) // 4)


def _header(card: str) -> dict[str, list[str]]:
    """The texts of a card's header, by their keys; empty where it has none.

    Read line by line: many headers are broken YAML, in YAML "no" (Norwegian) is False, and of nested values none is
    wanted.
    """
    found = _HEADER.match(card[:_HEADER_CHARACTERS])
    values: dict[str, list[str]] = {}
    key = ""
    for line in found[1].splitlines() if found else ():
        if item := _ITEM.match(line):
            values.setdefault(key, []).append(_bare(item[1]))
        elif named := _KEY.match(line):
            key, value = named[1].lower(), (named[2] or "").strip()
            inside = value[1:-1].split(",") if value.startswith("[") and value.endswith("]") else [value]
            values[key] = [bare for one in inside if (bare := _bare(one))]
    return values


def _bare(value: str) -> str:
    return value.strip().strip("\"'").strip()


def _list(value: object) -> list[str]:
    """A text as a list of one; of a list its texts."""
    return [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, str) and one]
