"""What of a model's card is searched: its words about the model, without what every card says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Hub cards are long-tailed; what matters stands at the beginning.
_CHARACTERS = 20_000
# A header may hold whole documents as examples.
_HEADER_CHARACTERS = 100_000

_FRONT_MATTER = re.compile(r"\A\s*---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
# Of the YAML header: the words that say what the model is for.
_HEADER_VALUES = re.compile(
    r"^[ \t]*(?:-|(?:language|tags|datasets|pipeline_tag|task_categories)[ \t]*:)[ \t]+(.+)$", re.MULTILINE
)
_HEADER_NOISE = {
    "generated_from_trainer",
    "transformers",
    "pytorch",
    "autotrain",
    "model_index",
    "endpoints_compatible",
}
_CODE = re.compile(r"```.*?(```|\Z)", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_URL = re.compile(r"https?://\S+")
_TAG = re.compile(r"<[^<>]{1,500}>")
_TABLE = re.compile(r"^\s*\|.*$", re.MULTILINE)
# Sections and lines that training scripts write by themselves.
_BOILERPLATE_SECTION = re.compile(
    r"^#+\s*(training hyperparameters|framework versions|training results|training procedure|citation.*|bibtex.*|"
    r"environmental impact|technical specifications.*|model card (authors|contact).*|contact|licen[cs]e.*|"
    r"acknowledge?ments?)"
    r"\s*:?\s*$.*?(?=^#|\Z)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_BOILERPLATE_LINE = re.compile(
    r"^.*(more information needed|needs more information|this model card has been generated automatically|"
    r"it achieves the following results on the evaluation set|should probably proofread|^\s*-\s*(loss|gen len)\s*:).*$",
    re.IGNORECASE | re.MULTILINE,
)


def model_text(entry: Mapping[str, Any]) -> str:
    """The searched text of a model."""
    languages = " ".join(str(language) for language in entry.get("languages") or ())
    return f"{entry['id']}\n{without_boilerplate(entry['description'])}\n{languages}".strip()


def without_boilerplate(card: str) -> str:
    """A hub card without its header's keys, code, tables, addresses and what training scripts fill in."""
    card = card.replace("\r\n", "\n")
    header = _FRONT_MATTER.match(card[:_HEADER_CHARACTERS])
    words = ""
    if header:
        card = card[header.end() :]
        values = (value.strip(" '\"") for value in _HEADER_VALUES.findall(header[1].split("model-index")[0]))
        words = " ".join(dict.fromkeys(value for value in values if value not in _HEADER_NOISE))
    card = card[:_CHARACTERS]
    for pattern, with_what in (
        (_CODE, " "), (_BOILERPLATE_SECTION, " "), (_BOILERPLATE_LINE, " "), (_TABLE, " "), (_LINK, r"\1"), (_URL, " "),
        (_TAG, " "),
    ):  # fmt: skip
        card = pattern.sub(with_what, card)
    return f"{words}\n{card}".strip()
