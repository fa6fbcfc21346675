"""HyDE: the LLM writes the card of the model that would be right; it is searched with in the place of the instruction.

Gao et al., Precise Zero-Shot Dense Retrieval without Relevance Labels (2022); for models, Viswanathan et al.,
Prompt2Model (2023). A card shares more words with cards than an instruction does.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalogue import languages
from services.kit.errors import BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable
from services.kit.llm import Ask, Message, Schema, Session
from services.kit.values import PromptSpec

# Fewer words than this are no card.
_FEWEST_WORDS = 8
_DEMONSTRATIONS, _CHARACTERS = 3, 600
_TOKENS = 400

SCHEMA = Schema(
    "hypothetical_model_card",
    {
        "type": "object",
        "properties": {
            "model_card": {"type": "string", "description": "The description in the model's card, 60 to 150 words."}
        },
        "required": ["model_card"],
        "additionalProperties": False,
    },
)

_SYSTEM = (
    "You write the description that stands in the card of a pretrained model on a model hub. Given a task, describe "
    "the model that would be the best one to fine-tune for it: its kind of architecture, what it was pretrained and "
    "fine-tuned on, the tasks, datasets, domain and languages it is for. Write as such cards do, in English. Do not "
    "repeat the task's wording, do not address the reader."
)


@dataclass(frozen=True)
class Card:
    """What to search with, and a sentence where it is not the LLM's."""

    text: str
    note: str = ""


async def hypothetical_card(spec: PromptSpec, session: Session | None) -> Card:
    """The LLM's card for the task; the instruction itself where there is none to be had."""
    instruction = instruction_of(spec)
    if session is None:
        return Card(instruction, "No LLM is configured: models were searched with the instruction itself.")
    try:
        value = await session.ask(Ask("hypothetical_model_card", _messages(spec, instruction), SCHEMA, 0.0, _TOKENS))
    except (BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable) as error:
        return Card(instruction, f"Models were searched with the instruction itself: {error.message}")
    text = " ".join(value["model_card"].split())
    if len(text.split()) < _FEWEST_WORDS:
        return Card(
            instruction, "Models were searched with the instruction itself: the LLM's card said next to nothing."
        )
    return Card(text)


def instruction_of(spec: PromptSpec) -> str:
    """The English instruction; without one, what there is. InvalidArgument where there is nothing."""
    for text in (spec.instruction, spec.original_instruction, *(one.input for one in spec.demonstrations)):
        if text.strip():
            return text
    raise InvalidArgument("EMPTY_SPEC", "spec holds neither an instruction nor a demonstration.", field="spec")


def language_of(spec: PromptSpec) -> str:
    """The language of the prompt, and so of the task's texts; "" where it is English or its script does not tell."""
    return spec.language if spec.language != "en" else languages.written(spec.own_instruction)


def _messages(spec: PromptSpec, instruction: str) -> tuple[Message, ...]:
    examples = "\n".join(
        f"Input: {one.input[:_CHARACTERS]}\nOutput: {one.output[:_CHARACTERS]}\n"
        for one in spec.demonstrations[:_DEMONSTRATIONS]
    )
    task = f"Task (its texts are in the language {spec.language or 'en'!r}):\n{instruction[: 4 * _CHARACTERS]}"
    return (Message(role="system", content=_SYSTEM), Message(role="user", content=f"{task}\n\n{examples}".strip()))
