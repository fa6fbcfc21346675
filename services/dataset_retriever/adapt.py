"""Has the LLM rewrite a dataset's rows to a task's format, in the plain form: one question a row.

Rows that cannot be rewritten are left out and counted. When the budget ends, what was rewritten is kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.kit.errors import BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable
from services.kit.llm import Ask, InvalidAnswer, Message, Schema, Session
from services.kit.values import Progress, PromptSpec, Row

MAX_ROWS = 500
_TOKENS = 512
_CHARACTERS = 6_000

_SCHEMA = Schema(
    "examples",
    {
        "type": "object",
        "properties": {
            "examples": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": {
                    "type": "object",
                    "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
                    "required": ["input", "output"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["examples"],
        "additionalProperties": False,
    },
)


@dataclass(frozen=True)
class Adapted:
    """The rewritten rows, in the order of their sources; those left out by reason."""

    rows: tuple[Row, ...]
    dropped: dict[str, int]


async def adapt(
    rows: Sequence[Row],
    spec: PromptSpec,
    max_rows: int,
    session: Session,
    concurrency: int,
    report: Callable[[Progress], None] = lambda _: None,
) -> Adapted:
    """Rewrites at most `max_rows` rows, a sample (seed 0) where there are more.

    BudgetExhausted where not one row could be paid for; FailedPrecondition (NO_ROWS) where none could be rewritten.
    """
    picked = sorted(random.Random(0).sample(range(len(rows)), min(max_rows, len(rows))))
    dropped: Counter[str] = Counter()
    rewritten: dict[int, Row] = {}
    waiting = iter(picked)
    failures: list[Exception] = []

    async def work() -> None:
        for number in waiting:
            if failures:
                dropped["not rewritten when it ended"] += 1
                continue
            try:
                row = await _rewritten(number, rows[number], spec, session)
            except (BudgetExhausted, Unavailable) as error:
                failures.append(error)
                dropped["not rewritten when it ended"] += 1
                continue
            except (InvalidAnswer, InvalidArgument):
                row = None
            if row is None:
                dropped["no usable answer"] += 1
            else:
                rewritten[number] = row
            done = len(rewritten) + sum(dropped.values())
            report(Progress(done, len(picked), "rows", "Rewriting rows", ledger=session.ledger))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(max(1, min(concurrency, len(picked)))):
            tasks.create_task(work())
    if len(rows) > len(picked):
        dropped["more than max_rows"] += len(rows) - len(picked)
    if not rewritten:
        if failures:
            raise failures[0]
        raise FailedPrecondition("NO_ROWS", f"The LLM rewrote none of {len(picked):,} rows in a usable way.")
    return Adapted(tuple(rewritten[number] for number in sorted(rewritten)), dict(dropped))


async def _rewritten(number: int, row: Row, spec: PromptSpec, session: Session) -> Row | None:
    value = await session.ask(Ask(f"row-{number}", _messages(row, spec), _SCHEMA, 0.0, _TOKENS))
    one = value["examples"][0]
    given, wanted = one["input"].strip(), one["output"].strip()
    if not given or not wanted:
        return None
    # Other right answers were right for the row as it was.
    return Row(given, wanted, row.source, row.split)


def _messages(row: Row, spec: PromptSpec) -> tuple[Message, ...]:
    examples = "\n\n".join(f"Input: {one.input[:2000]}\nOutput: {one.output[:2000]}" for one in spec.demonstrations[:3])
    system = (
        "You turn a row of a dataset into one training example for a task: an input as in the task's examples and the "
        "right output for it. Keep the row's content; change its form to the task's. Invent nothing."
    )
    task = f"Task:\n{spec.own_instruction[:_CHARACTERS]}\n\n{examples}"
    content = f"{task}\n\nThe row:\nInput: {row.input[:_CHARACTERS]}\nOutput: {row.output[:_CHARACTERS]}"
    return (Message(role="system", content=system), Message(role="user", content=content))
