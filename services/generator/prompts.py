"""What the generator says to the LLM.

    task, demonstrations          the same in every request of a size, first, so that the server's prefix cache helps
    examples written already      drawn anew each time: to show variety, and to move away from what is there
    the wish                      last

Three sizes, as in prompt2model (Viswanathan et al., 2023), show more or fewer demonstrations: the many keep the LLM to
the task, the few leave it room. The demonstrations of a smaller size are the first of a larger one's.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from services.kit.llm import Message, Schema
from services.kit.values import Demonstration, PromptSpec

EXAMPLES_PER_REQUEST = 5

# Tokens of an example where no demonstration tells; of what stands around one; of what stands around all.
_USUAL_TOKENS, _AROUND_ONE, _AROUND_ALL = 150, 20, 250
_BYTES_PER_TOKEN = 3


@dataclass(frozen=True)
class Size:
    """How much a prompt shows: a share of the demonstrations, at most `most`, and so many examples written already."""

    share: float
    most: int
    written: int


COMPLEX, MIDDLE, SIMPLE = Size(1.0, 12, 5), Size(0.5, 6, 3), Size(0.25, 3, 1)
SIZES = (COMPLEX, MIDDLE, SIMPLE)


@dataclass(frozen=True)
class Plan:
    """What a request asks for: `examples` of them in at most `max_tokens`, told in at most `prompt_tokens`."""

    examples: int
    max_tokens: int
    prompt_tokens: int


def plan(spec: PromptSpec, context_tokens: int) -> Plan:
    """Five examples a request; fewer where that many would not fit into half of what the LLM reads and writes."""
    shown = (tokens(one.input) + tokens(one.output) for one in spec.demonstrations)
    one = 2 * (max(shown, default=_USUAL_TOKENS) + _AROUND_ONE)
    room = context_tokens // 2
    number = max(1, min(EXAMPLES_PER_REQUEST, room // one))
    most = max(1, min(room, number * one + 50))
    return Plan(number, most, context_tokens - most)


def messages(spec: PromptSpec, size: Size, written: Sequence[Demonstration], plan: Plan) -> tuple[Message, ...]:
    """A request for new examples. What does not fit into the plan is left out: written examples first."""
    number = min(size.most, math.ceil(len(spec.demonstrations) * size.share))
    shown = list(spec.demonstrations[:number])
    already = list(written)
    room = plan.prompt_tokens - _AROUND_ALL - tokens(spec.own_instruction)
    while already and _size(shown) + _size(already) > room:
        already.pop()
    while shown and _size(shown) > room:
        shown.pop()
    parts = [f"Task:\n{spec.own_instruction}"]
    if shown:
        parts.append(f"Examples of the task:\n{_lines(shown)}")
    if already:
        parts.append(f"These were written already; write others:\n{_lines(already)}")
    many = "one new example" if plan.examples == 1 else f"{plan.examples} new examples"
    parts.append(
        f"Write {many} of the task, in the language and the form of the task. Make each input different in content, "
        "length and difficulty from those above and from one another. Each output is the right answer to its input."
    )
    system = (
        'You write examples for training a model. Answer in JSON: {"examples": [{"input": "...", "output": "..."}]}'
    )
    return ({"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(parts)})


def schema(plan: Plan) -> Schema:
    """The schema of an answer."""
    example = {
        "type": "object",
        "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
        "required": ["input", "output"],
    }
    examples = {"type": "array", "items": example, "minItems": 1, "maxItems": plan.examples}
    return Schema("examples", {"type": "object", "properties": {"examples": examples}, "required": ["examples"]})


def choose_size(rng: random.Random) -> Size:
    """One of the three, each as likely."""
    return rng.choice(SIZES)


def tokens(text: str) -> int:
    """An estimate that is rather too high: three bytes a token."""
    return math.ceil(len(text.encode()) / _BYTES_PER_TOKEN)


def _lines(examples: Sequence[Demonstration]) -> str:
    return "\n".join(json.dumps({"input": one.input, "output": one.output}, ensure_ascii=False) for one in examples)


def _size(examples: Sequence[Demonstration]) -> int:
    return sum(tokens(one.input) + tokens(one.output) + _AROUND_ONE for one in examples)
