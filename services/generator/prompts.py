"""What the generator says to the LLM.

    task                          the same in every request, first, so that the server's prefix cache helps
    demonstrations                as many of them as the size says: the largest shows the same, a smaller one draws anew
    examples written already      drawn anew each time: to show variety, and to move away from what is there
    the wish                      last: how many, and what about

Three sizes, as in prompt2model (Viswanathan et al., 2023), show more or fewer demonstrations: the many keep the LLM to
the task, the few leave it room. Were the few always the same, an LLM would write one demonstration again and again.

Before the first of many examples the LLM is asked what they may differ in (`proposal`).
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.generator.pace import EXAMPLES_PER_REQUEST
from services.kit.llm import Ask, Message, Schema
from services.kit.values import Demonstration, PromptSpec

# Tokens of an example where no demonstration tells; of what stands around one; of what stands around all.
_USUAL_TOKENS, _AROUND_ONE, _AROUND_ALL = 150, 20, 250
_BYTES_PER_TOKEN = 3
# Longest examples that the limit of an answer is set by, so that it changes seldom.
_STEP_TOKENS = 128
_PROPOSAL_TOKENS = 700


@dataclass(frozen=True)
class Size:
    """How much a prompt shows: a share of the demonstrations, at most `most`, and so many examples written already."""

    share: float
    most: int
    written: int


COMPLEX, MIDDLE, SIMPLE = Size(1.0, 12, 5), Size(0.5, 6, 3), Size(0.25, 3, 1)
# For an LLM that writes again what it reads: nothing written before, and more than one or two demonstrations.
BARE = Size(1.0, 12, 0)
SIZES = (COMPLEX, MIDDLE, SIMPLE)
# The share of repeats from which on an LLM is one of these.
COPIES = 0.05


@dataclass(frozen=True)
class Plan:
    """What requests ask for: at most `examples`, of `each` tokens, in at most `max_tokens`, told in `prompt_tokens`."""

    examples: int
    each: int
    max_tokens: int
    prompt_tokens: int

    def limit(self, number: int, longest: int = 0) -> int:
        """Most tokens of an answer of `number` examples.

        `longest` of those so far, in tokens, once there are some: twice that is enough for the next, and an LLM that
        runs on is stopped the sooner.
        """
        each = self.each
        if longest:
            each = min(each, _STEP_TOKENS * math.ceil(2 * longest / _STEP_TOKENS) + _AROUND_ONE)
        return max(1, min(self.max_tokens, number * each + 50))


def plan(spec: PromptSpec, context_tokens: int) -> Plan:
    """Five examples a request; fewer where that many would not fit into half of what the LLM reads and writes."""
    shown = (tokens(one.input) + tokens(one.output) for one in spec.demonstrations)
    one = 2 * (max(shown, default=_USUAL_TOKENS) + _AROUND_ONE)
    room = context_tokens // 2
    number = max(1, min(EXAMPLES_PER_REQUEST, room // one))
    most = max(1, min(room, number * one + 50))
    return Plan(number, one, most, context_tokens - most)


def messages(
    spec: PromptSpec,
    size: Size,
    written: Sequence[Demonstration],
    plan: Plan,
    number: int,
    steered: Mapping[str, Sequence[str]] | None = None,
    drawn: random.Random | None = None,
) -> tuple[Message, ...]:
    """A request for `number` new examples that keep to what `steered` says of each attribute.

    What does not fit into the plan is left out: written examples first. The demonstrations are the first ones; where
    `drawn` is given, others each time, so that an LLM that copies them does not copy the same ones.
    """
    most = min(size.most, math.ceil(len(spec.demonstrations) * size.share))
    shown = drawn.sample(spec.demonstrations, most) if drawn else list(spec.demonstrations[:most])
    already = list(written)
    wishes = "".join(f" {_WISHES[kind]}: {'; '.join(values)}." for kind, values in (steered or {}).items())
    room = plan.prompt_tokens - _AROUND_ALL - tokens(spec.own_instruction) - tokens(wishes)
    while already and _size(shown) + _size(already) > room:
        already.pop()
    while shown and _size(shown) > room:
        shown.pop()
    parts = [f"Task:\n{spec.own_instruction}"]
    if shown:
        parts.append(f"Examples of the task:\n{_lines(shown)}")
    if already:
        parts.append(f"These were written already; write others:\n{_lines(already)}")
    many = "one new example" if number == 1 else f"{number} new examples"
    parts.append(
        f"Write {many} of the task, in the language and the form of the task. Make each input different in content, "
        "length and difficulty from those above and from one another. Each output is the right answer to its input."
        + wishes
    )
    system = (
        'You write examples for training a model. Answer in JSON: {"examples": [{"input": "...", "output": "..."}]}'
    )
    return ({"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(parts)})


def schema(number: int) -> Schema:
    """The schema of an answer of `number` examples."""
    example = {
        "type": "object",
        "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
        "required": ["input", "output"],
    }
    examples = {"type": "array", "items": example, "minItems": 1, "maxItems": number}
    return Schema("examples", {"type": "object", "properties": {"examples": examples}, "required": ["examples"]})


def proposal(spec: PromptSpec, plan: Plan, seed: int) -> Ask:
    """Asks what the examples of the task may differ in."""
    parts = task(spec, plan)
    parts.append(
        "Many varied inputs of this task are to be written. List what they may differ in: 20 to 30 concrete topics, as "
        "unlike one another as the task allows, a few words each; 3 kinds of length; 3 levels of difficulty, each in a "
        "few words. Only where the outputs of the task are a small fixed set of labels, list all labels; otherwise "
        "leave that list empty."
    )
    told: tuple[Message, ...] = (
        {"role": "system", "content": "You plan varied data for training a model. Answer in JSON."},
        {"role": "user", "content": "\n\n".join(parts)},
    )
    kinds = {"topics": 30, "lengths": 3, "difficulties": 3, "labels": 30}
    lists = {kind: {"type": "array", "items": {"type": "string"}, "maxItems": most} for kind, most in kinds.items()}
    wanted = Schema("attributes", {"type": "object", "properties": lists, "required": list(lists)})
    return Ask("attributes", told, wanted, 0.7, min(_PROPOSAL_TOKENS, plan.prompt_tokens), seed, fresh=True)


def task(spec: PromptSpec, plan: Plan, rest: str = "") -> list[str]:
    """The parts of a prompt that tell the task, with as many demonstrations as leave room for the `rest`."""
    shown = list(spec.demonstrations)
    room = plan.prompt_tokens - _AROUND_ALL - tokens(spec.own_instruction) - tokens(rest)
    while shown and _size(shown) > room:
        shown.pop()
    return [f"Task:\n{spec.own_instruction}", *([f"Examples of the task:\n{_lines(shown)}"] if shown else [])]


def choose_size(rng: random.Random, repeated: float = 0.0) -> Size:
    """One of the three, each as likely; but BARE the more often, the nearer the share of repeats is to COPIES.

    An LLM that repeats itself mostly copies what it is shown, and what it is told to keep away from.
    """
    return BARE if rng.random() < repeated / COPIES else rng.choice(SIZES)


def tokens(text: str) -> int:
    """An estimate that is rather too high: three bytes a token."""
    return of_bytes(len(text.encode()))


_WISHES = {
    "topics": "Topics, one for each example",
    "length": "Length of the inputs",
    "difficulty": "Difficulty",
    "outputs": "Outputs, one for each example",
}


def of_bytes(size: int) -> int:
    """The estimate for a text of so many bytes."""
    return math.ceil(size / _BYTES_PER_TOKEN)


def _lines(examples: Sequence[Demonstration]) -> str:
    return "\n".join(json.dumps({"input": one.input, "output": one.output}, ensure_ascii=False) for one in examples)


def _size(examples: Sequence[Demonstration]) -> int:
    return sum(tokens(one.input) + tokens(one.output) + _AROUND_ONE for one in examples)
