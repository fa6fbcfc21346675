"""The dataset that fits best: found, looked at, loaded, and rewritten where that helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from p2m.common.v1 import common_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2

from orchestrator import adaptation, constraints, leases, mixing
from orchestrator.choices import columns_question, dataset_question, fitting, parse_columns
from orchestrator.plain import plain
from orchestrator.steps.step import Outcome, Step, key_part, may_go_on, message_of
from services.kit.errors import FailedPrecondition, P2MError
from services.kit.values import Allowance, Ledger, Progress
from services.kit.wire import from_message

SHOWN_DATASETS = 25


async def datasets(step: Step) -> Outcome:
    """The dataset that fits best, flattened to text; SKIPPED where none fits or none can be had."""
    if step.options.skip_datasets:
        return Outcome("switched off", skipped=True)
    by_hand = step.options.dataset
    lease = step.lease("datasets")
    found: dict[str, Any] = {"candidates": [], "excluded": [], "notes": []}
    ledger = Ledger()
    try:
        if by_hand:
            picks, by = [by_hand], "option"
        else:
            search = await step.stages.search_datasets(
                dataset_retriever_pb2.SearchRequest(
                    request_id=f"{step.name}/dataset_search", allowance=message_of(lease), spec=step.spec,
                    k=SHOWN_DATASETS, rerank=step.settings.rerank, filters=constraints.of_datasets(step.options),
                )
            )  # fmt: skip
            ledger += from_message(search.ledger, Ledger)
            found = {key: plain(search)[key] for key in ("candidates", "excluded", "notes")}
            picks, by = fitting(search)
            if step.options.ask:
                picks, by = [await step.ask(dataset_question(search, picks))], "person"
        return await _first_usable(step, picks, by, found, ledger, lease)
    except P2MError as error:
        if by_hand or not may_go_on(error):
            raise
        return Outcome(error.message, found, ledger, skipped=True)


async def _first_usable(
    step: Step, picks: list[str], by: str, found: dict[str, Any], ledger: Ledger, lease: Allowance
) -> Outcome:
    """The first of `picks` that has usable columns and can be loaded."""
    if not picks or picks == ["none"]:
        why = {"person": "A person chose none.", "llm": "The LLM says that none fits."}.get(
            by, "None fits well enough."
        )
        said = found["notes"][-1] if found["notes"] and by != "person" else why
        return Outcome(f"{len(found['candidates'])} looked at. {said}", found, ledger, skipped=True)
    refused: P2MError | None = None
    for pick in picks:
        try:
            return await _load(step, pick, by, found, ledger, lease)
        except P2MError as error:
            if not may_go_on(error):
                raise
            found["notes"].append(f"{pick}: {error.message}")
            refused = error
    assert refused is not None
    raise refused


async def _load(step: Step, pick: str, by: str, found: dict[str, Any], ledger: Ledger, lease: Allowance) -> Outcome:
    look = await step.stages.inspect(
        dataset_retriever_pb2.InspectRequest(
            request_id=f"{step.name}/inspect/{key_part(pick)}",
            # An LLM that is too weak to rank is too weak to tell columns apart.
            allowance=message_of(leases.left(lease, [ledger]) if step.settings.rerank else Allowance(requests=0)),
            dataset=pick, spec=step.spec,
        )
    )  # fmt: skip
    ledger += from_message(look.ledger, Ledger)
    if other := constraints.other_licence(pick, look.licence, step.options):
        if by != "option":
            raise FailedPrecondition("OTHER_LICENCE", other)
        found["notes"].append(f"{other} It is used all the same, since you named it.")
    inputs, output = [*look.input_columns], look.output_column
    if step.options.ask:
        answer = await step.ask(columns_question(pick, look))
        if answer == "none":
            raise FailedPrecondition("NO_COLUMNS", f"A person chose none of the columns of {pick}.")
        inputs, output = parse_columns(answer)
    if not inputs or not output:
        raise FailedPrecondition("NO_COLUMNS", f"{pick} has no columns that fit the task. {look.why}".strip())
    result = await step.stages.retrieve(
        dataset_retriever_pb2.RetrieveRequest(
            request_id=f"{step.name}/retrieve/{key_part(pick)}", dataset=pick, config=look.config, input_columns=inputs,
            output_column=output, max_rows=mixing.rows_to_load(step.options, pick), revision=look.revision,
        ),
        step.report,
    )  # fmt: skip
    dataset, rows = result.dataset, sum(split.rows for split in result.splits)
    proposed = (inputs, output) == ([*look.input_columns], look.output_column)
    decision = adaptation.decide(step.options, step.settings, look, proposed=proposed)
    adapted = None
    if decision.adapt:
        adapted, decision, spent = await _adapt(step, pick, dataset, decision, leases.left(lease, [ledger]))
        ledger += spent
    if adapted is not None:
        dataset, rows = adapted.dataset, adapted.rows
    rewritten = plain(adapted) if adapted is not None else None
    found["notes"].extend(adaptation.told(look, decision, rewritten))
    candidate = next((c for c in found["candidates"] if c["id"] == pick), None)
    chosen = {
        "id": pick, "config": look.config, "input_columns": inputs, "output_column": output, "rows": rows, "by": by,
        "why": (candidate["why"] if candidate else "") or look.why, "score": candidate["score"] if candidate else None,
        "licence": result.licence or look.licence, "revision": result.revision, "dropped": plain(result)["dropped"],
        "sample": [plain(row) for row in look.flattened], "fit": plain(look)["fit"], "fit_why": look.fit_why,
        "adapted": {
            "rows": adapted.rows if adapted is not None else 0, "why": decision.why,
            "dropped": rewritten["dropped"] if rewritten else {}, "plan": rewritten["plan"] if rewritten else None,
        },
    }  # fmt: skip
    found["notes"].extend(dict.fromkeys([*look.notes, *result.notes]))
    values = {**found, "chosen": chosen, "dataset": plain(dataset)}
    how = " rewritten" if adapted is not None else ""
    return Outcome(f"{pick}: {rows} rows{how}, {' + '.join(inputs)} → {output}", values, ledger)


async def _adapt(
    step: Step, pick: str, dataset: common_pb2.Artifact, decision: adaptation.Decision, lease: Allowance
) -> tuple[dataset_retriever_pb2.AdaptResult | None, adaptation.Decision, Ledger]:
    """The rewritten dataset and what it cost; None, with the reason in the decision, where nothing came of it."""
    newest = Ledger()

    def report(progress: Progress) -> None:
        nonlocal newest
        newest = progress.ledger or newest
        step.report(progress)

    request = dataset_retriever_pb2.AdaptRequest(
        request_id=f"{step.name}/adapt/{key_part(pick)}", allowance=message_of(lease), dataset=dataset, spec=step.spec,
        max_rows=decision.max_rows,
    )  # fmt: skip
    try:
        result = await step.stages.adapt(request, report)
    except P2MError as error:
        if not may_go_on(error):
            raise
        return None, replace(decision, why=error.message), newest
    return result, decision, from_message(result.ledger, Ledger)
