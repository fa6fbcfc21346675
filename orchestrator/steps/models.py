"""The pretrained model."""

from __future__ import annotations

from p2m.model_retriever.v1 import model_retriever_pb2

from orchestrator import constraints
from orchestrator.choices import model_question
from orchestrator.plain import plain
from orchestrator.steps.step import Outcome, Step, message_of
from services.kit.errors import FailedPrecondition
from services.kit.values import Ledger
from services.kit.wire import from_message

SHOWN_MODELS = 10


async def models(step: Step) -> Outcome:
    """The pretrained model. FailedPrecondition where none is left."""
    search = await step.stages.search_models(
        model_retriever_pb2.SearchRequest(
            request_id=f"{step.name}/model_search", allowance=message_of(step.lease("models")), spec=step.spec,
            k=SHOWN_MODELS,
            constraints=constraints.of_models(step.options),
        )
    )  # fmt: skip
    ledger = from_message(search.ledger, Ledger)
    if not search.candidates:
        asked = constraints.asked_for(step.options)["model"] or "a model of at most 3 GB"
        reasons = "; ".join(f"{model.id}: {model.reason}" for model in search.excluded[:5]) or "the catalogue has none"
        raise FailedPrecondition(
            "NO_MODEL",
            f"No model can be used ({reasons}). Name one with --model, or ask for less than: {asked}.",
            field="model",
        )
    candidate, by = search.candidates[0], "option" if step.options.model else "score"
    if step.options.ask and not step.options.model:
        answer = await step.ask(model_question(search))
        candidate, by = next(c for c in search.candidates if c.id == answer), "person"
    found = plain(search)
    return Outcome(
        f"{candidate.id}, {len(search.candidates)} considered, {len(search.excluded)} excluded",
        {
            "chosen": {**plain(candidate), "by": by},
            "candidates": found["candidates"],
            "excluded": found["excluded"],
            "hypothetical_card": search.hypothetical_card,
            "notes": found["notes"],
        },
        ledger,
    )
