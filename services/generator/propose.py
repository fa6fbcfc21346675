"""What the examples of a task may differ in, as the LLM proposes it: once, for a person to edit and for all parts.

propose     one request, whose answer is stored as any other's is
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.generator import prompts, variety
from services.generator.variety import Attributes
from services.kit.errors import BudgetExhausted, InvalidArgument
from services.kit.llm import InvalidAnswer, Session
from services.kit.settings import Settings
from services.kit.values import Allowance, Ledger, PromptSpec


@dataclass(frozen=True)
class ProposeRequest:
    """A task whose examples shall differ; the fields are those of the proto's message."""

    request_id: str = ""
    allowance: Allowance = field(default_factory=Allowance)
    spec: PromptSpec = field(default_factory=PromptSpec)
    seed: int = 0


@dataclass(frozen=True)
class Proposed:
    """The proposal, empty where the LLM had none, and what it cost."""

    attributes: Attributes
    ledger: Ledger
    llm: str


async def propose(request: ProposeRequest, session: Session, llm: str, settings: Settings) -> Proposed:
    """Asks the LLM, once. Raises what `Session.ask` does, but for an answer that cannot be read and a spent budget."""
    if not request.spec.own_instruction.strip() and not request.spec.demonstrations:
        raise InvalidArgument(
            "BAD_REQUEST",
            "spec has neither an instruction nor demonstrations; wanted at least one of them.",
            field="spec",
        )
    plan = prompts.plan(request.spec, settings.llm_context_tokens)
    try:
        answer = await session.ask(prompts.proposal(request.spec, plan, request.seed))
    except (InvalidAnswer, BudgetExhausted):
        answer = {}
    return Proposed(variety.from_answer(answer, request.spec.demonstrations), session.ledger, llm)
