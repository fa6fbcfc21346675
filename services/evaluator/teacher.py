"""The LLM as a contestant: it answers the first test rows, many at once, within its allowance.

Whatever goes wrong with it, the evaluation goes on: what it answered is measured, and a note says what it did not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.kit.errors import BudgetExhausted, DiskFull, InvalidArgument, P2MError
from services.kit.llm import Ask, InvalidAnswer, Message, Schema, Session
from services.kit.values import PromptSpec

ANSWER = Schema("answer", {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]})
_MAX_TOKENS = 256


@dataclass(frozen=True)
class TeacherAnswers:
    """Outputs in the order of the inputs, None where it was not asked or gave no answer; what a person should know;
    the numbers of the rows whose answer could not be used."""

    outputs: tuple[str | None, ...] = ()
    note: str = ""
    unusable: tuple[int, ...] = ()


async def answer(
    session: Session,
    spec: PromptSpec,
    inputs: Sequence[str],
    at_once: int,
    after_answer: Callable[[int], None] = lambda done: None,
    enough: asyncio.Event | None = None,
) -> TeacherAnswers:
    """Asks for each input, until `enough` is set. An answer that cannot be used counts as an empty one.

    Raises DiskFull alone.
    """
    outputs: list[str | None] = [None] * len(inputs)
    waiting = iter(range(len(inputs)))
    stopped: list[P2MError] = []
    unusable: list[int] = []
    done = too_long = 0

    async def work() -> None:
        nonlocal done, too_long
        for number in waiting:
            if stopped or (enough and enough.is_set()):
                return
            try:
                value = await session.ask(
                    Ask(f"answer/{number}", messages(spec, inputs[number]), ANSWER, 0.0, _MAX_TOKENS)
                )
                outputs[number] = value["answer"].strip()
            except InvalidAnswer:
                outputs[number] = ""
                unusable.append(number)
            except InvalidArgument:
                too_long += 1
            except DiskFull:
                raise
            except P2MError as error:
                stopped.append(error)
                return
            done += 1
            after_answer(done)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(inputs))):
                group.create_task(work())
    except* DiskFull as group_of_errors:
        raise group_of_errors.exceptions[0] from None
    return TeacherAnswers(tuple(outputs), _note(outputs, stopped, too_long), tuple(sorted(unusable)))


def messages(spec: PromptSpec, text: str) -> tuple[Message, ...]:
    """The instruction, the demonstrations as earlier turns, then the input as it stands."""
    turns: list[Message] = [{"role": "system", "content": spec.own_instruction}] if spec.own_instruction else []
    for shown in spec.demonstrations:
        turns.append({"role": "user", "content": shown.input})
        turns.append({"role": "assistant", "content": as_json(shown.output)})
    turns.append({"role": "user", "content": text})
    return tuple(turns)


def as_json(answer: str) -> str:
    """An answer as the schema has it."""
    return json.dumps({"answer": answer}, ensure_ascii=False)


def _note(outputs: Sequence[str | None], stopped: list[P2MError], too_long: int) -> str:
    answered, wanted = sum(output is not None for output in outputs), len(outputs)
    told = []
    if stopped and isinstance(stopped[0], BudgetExhausted):
        told.append(f"The teacher answered {answered} of {wanted} rows; then its budget was spent.")
    elif stopped and not answered:
        told.append(f"The teacher was not measured: {stopped[0].message}")
    elif stopped:
        told.append(f"The teacher answered {answered} of {wanted} rows; then it failed: {stopped[0].message}")
    elif answered + too_long < wanted:
        told.append(
            f"The teacher answered {answered} of {wanted} rows and was not asked for the others, since it was slow."
        )
    if too_long:
        told.append(f"The teacher could not read {too_long} of {wanted} inputs, which are too long for it.")
    return " ".join(told)
