"""The prompt, as instruction and demonstrations."""

from __future__ import annotations

from p2m.parser.v1 import parser_pb2

from orchestrator.plain import plain
from orchestrator.steps.step import Outcome, Step, message_of
from services.kit.values import Ledger
from services.kit.wire import from_message


async def parse(step: Step) -> Outcome:
    """The prompt, as instruction and demonstrations."""
    request = parser_pb2.ParseRequest(
        request_id=f"{step.name}/parse", allowance=message_of(step.left()), prompt=step.prompt
    )
    answer = await step.stages.parse(request)
    method = plain(answer)["method"]
    count = len(answer.spec.demonstrations)
    shown = f"{count} demonstration{'' if count == 1 else 's'}, language {answer.spec.language or 'unknown'}"
    return Outcome(
        f"{shown}, parsed by {'the LLM' if method == 'llm' else 'rules'}",
        {"spec": plain(answer.spec), "method": method, "notes": [*answer.notes]},
        from_message(answer.ledger, Ledger),
    )
