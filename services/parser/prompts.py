"""What the parser says to the LLM: short and with examples, so that a small LLM can follow too."""

from __future__ import annotations

import json

from services.kit.llm import Message, Schema

PROMPT_SPEC = Schema(
    "prompt_spec",
    {
        "type": "object",
        "properties": {
            "instruction": {"type": "string"},
            "demonstrations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
                    "required": ["input", "output"],
                },
            },
        },
        "required": ["instruction", "demonstrations"],
    },
)

TRANSLATION = Schema(
    "translation",
    {"type": "object", "properties": {"translation": {"type": "string"}}, "required": ["translation"]},
)

_SPLIT = (
    "You are given a prompt that describes a task. Split it into its instruction and its demonstrations. "
    "The instruction is all that says how the task is done, copied word for word. "
    "A demonstration is a worked example: an input and its output, each copied word for word. "
    "Invent nothing, translate nothing, answer nothing. Where the prompt has no worked example, the list is empty."
)

# Two ways of writing, and a prompt with no demonstration: what goes wrong most is to make one up.
_SPLIT_EXAMPLES = (
    (
        "Tell whether a film review is good or bad. Answer in one word.\n\nFor example:\n"
        'review: "I laughed all the way through." gives "good"\nreview: "Two hours I will not get back." gives "bad"',
        "Tell whether a film review is good or bad. Answer in one word.",
        (("I laughed all the way through.", "good"), ("Two hours I will not get back.", "bad")),
    ),
    ("Shorten the headline to at most five words. Keep all names.", None, ()),
    (
        "Give the plural.\n\nmouse becomes mice, and for child it would be children.\n\nProper names stay as they are.",
        "Give the plural.\n\nProper names stay as they are.",
        (("mouse", "mice"), ("child", "children")),
    ),
)

_TRANSLATE = "Translate the text into English. Keep names, quotations and code as they are. Answer nothing else."
_TRANSLATE_EXAMPLE = ("Fasse den Absatz in einem Satz zusammen.", "Summarise the paragraph in one sentence.")


def split_messages(prompt: str) -> tuple[Message, ...]:
    """Asks for the parts of a prompt; the prompt itself is the last message."""
    messages: list[Message] = [{"role": "system", "content": _SPLIT}]
    for example, instruction, demonstrations in _SPLIT_EXAMPLES:
        answer = {
            "instruction": instruction or example,
            "demonstrations": [{"input": given, "output": wanted} for given, wanted in demonstrations],
        }
        messages.append({"role": "user", "content": example})
        messages.append({"role": "assistant", "content": json.dumps(answer, ensure_ascii=False)})
    return (*messages, {"role": "user", "content": prompt})


def translation_messages(text: str) -> tuple[Message, ...]:
    """Asks for a text in English; the text itself is the last message."""
    given, wanted = _TRANSLATE_EXAMPLE
    return (
        {"role": "system", "content": _TRANSLATE},
        {"role": "user", "content": given},
        {"role": "assistant", "content": json.dumps({"translation": wanted})},
        {"role": "user", "content": text},
    )
