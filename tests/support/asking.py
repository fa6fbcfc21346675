"""Questions for tests of the LLM client.

ask             a question named `key`
EXAMPLES, ANSWER    schemas: a list of examples; one answer
"""

from __future__ import annotations

from typing import Any

from services.kit.llm import Ask, Schema

PAIR = {
    "type": "object",
    "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
    "required": ["input", "output"],
}
EXAMPLES = Schema(
    "examples",
    {
        "type": "object",
        "properties": {"examples": {"type": "array", "items": PAIR, "maxItems": 3}},
        "required": ["examples"],
    },
)
ANSWER = Schema("answer", {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]})


def ask(key: str = "a", schema: Schema = EXAMPLES, text: str = "Make some.", **rest: Any) -> Ask:
    """A question; `rest` are other fields of Ask."""
    return Ask(key, ({"role": "user", "content": f"{text} ({key})"},), schema, **rest)
