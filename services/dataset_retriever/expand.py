"""HyDE for datasets: the LLM says what the card of a fitting dataset would say, which is searched with beside the task.

    expansion    the LLM's card, in words; "" where there is none to be had
    blended      one vector of the task's and the card's
    joined       the card's words for BM25

Gao et al., Precise Zero-Shot Dense Retrieval without Relevance Labels (2022). The card is an addition, never a
replacement: the task keeps most of the weight, so that a poor card moves little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.kit.errors import BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable
from services.kit.llm import Ask, Message, Schema, Session
from services.kit.text import words
from services.kit.values import PromptSpec

WEIGHT = 0.3
"""The card's part of the vector that is searched with."""
_TOKENS = 300
# So many words of the card join the task's for BM25: more would drown them.
_JOINED_WORDS = 40
_MOST_CHARACTERS = 2_000
_LISTED, _LISTED_CHARACTERS = 6, 60

SCHEMA = Schema(
    "dataset_card",
    {
        "type": "object",
        "properties": {
            "description": {"type": "string", "description": "What the dataset's card would say, 20 to 60 words."},
            "tasks": {"type": "array", "items": {"type": "string"}, "description": "Names of the task, 1 to 3."},
            "datasets": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Names of public datasets for this task, where any are known; at most 5.",
            },
        },
        "required": ["description", "tasks", "datasets"],
        "additionalProperties": False,
    },
)

_SYSTEM = (
    "Somebody looks for an existing dataset to train a model with. Given the task, write what the card of the dataset "
    "that fits best would say, in English: what a row holds, the kind of text and its domain, its language, what is "
    "annotated. Name the task as researchers do, and public datasets that are known for it; where none are, name none."
)


@dataclass(frozen=True)
class Expansion:
    """What to search with beside the task, and a sentence where the LLM had nothing usable. `answers` is false where
    the LLM cannot be reached, so that nothing more is asked of it."""

    text: str = ""
    note: str = ""
    answers: bool = True


async def expansion(spec: PromptSpec, query: str, session: Session | None) -> Expansion:
    """The LLM's card for the task; an empty one, with a note, where it cannot be had."""
    if session is None:
        return Expansion()
    try:
        value = await session.ask(Ask("dataset_card", _messages(spec, query), SCHEMA, 0.0, _TOKENS))
    except Unavailable as error:
        return Expansion("", f"The LLM neither widened the search nor chose: {error.message}", False)
    except (BudgetExhausted, FailedPrecondition, InvalidArgument) as error:
        return Expansion("", f"The search was not widened by the LLM: {error.message}")
    listed = [*value["tasks"][:_LISTED], *value["datasets"][:_LISTED]]
    names = ", ".join(" ".join(name.split())[:_LISTED_CHARACTERS] for name in listed if name.strip())
    description = " ".join(value["description"].split())
    text = f"{names}. {description}" if names else description
    if not words(text):
        return Expansion("", "The search was not widened by the LLM: it had nothing to say of such a dataset.")
    return Expansion(text[:_MOST_CHARACTERS])


def blended(task: Sequence[float], card: Sequence[float], weight: float = WEIGHT) -> tuple[float, ...]:
    """(1 - weight) task + weight card, of length 1; both come with length 1. The task's own where they cancel out."""
    both = (1 - weight) * np.asarray(task, np.float64) + weight * np.asarray(card, np.float64)
    length = float(np.linalg.norm(both))
    return tuple((both / length).tolist()) if length > 1e-6 else tuple(task)


def joined(card: str) -> str:
    """The card's first words, which join the task's for BM25."""
    return " ".join(card.split()[:_JOINED_WORDS])


def _messages(spec: PromptSpec, query: str) -> tuple[Message, ...]:
    examples = "\n".join(f"Input: {one.input[:300]}\nOutput: {one.output[:300]}" for one in spec.demonstrations[:3])
    language = f"(its texts are in the language {spec.language[:8]!r})" if spec.language else ""
    content = f"Task {language}:\n{query[:2000]}\n\n{examples}".strip()
    return (Message(role="system", content=_SYSTEM), Message(role="user", content=content))
