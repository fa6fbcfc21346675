"""What each stage of a run asks of its service, and what of the answer the run keeps.

    parse ─┬─ datasets ─┐
           ├─ generate ─┼─ prepare ── train ── evaluate
           └─ models ───┘

A step takes the outcomes of earlier ones and gives its own: plain JSON values, so that they can be stored. A stage that
cannot help is SKIPPED with the reason; one that must succeed raises. The report is `outcome`'s.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.json_format import ParseDict
from p2m.common.v1 import common_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2
from p2m.evaluator.v1 import evaluator_pb2
from p2m.generator.v1 import generator_pb2
from p2m.model_retriever.v1 import model_retriever_pb2
from p2m.parser.v1 import parser_pb2
from p2m.run.v1 import run_pb2
from p2m.trainer.v1 import trainer_pb2

from orchestrator import adaptation, attributes, attribution, constraints, leases, mixing, searching, variety
from orchestrator.choices import columns_question, dataset_question, fitting, model_question, parse_columns
from orchestrator.plain import plain
from orchestrator.stages import Report, Stages
from services.kit.errors import BudgetExhausted, FailedPrecondition, P2MError
from services.kit.settings import Settings
from services.kit.values import Allowance, Ledger, Progress
from services.kit.wire import from_message, to_message

DEFAULT_NUMBER = 200
DEFAULT_TEACHER_ROWS = 100
SHOWN_DATASETS = 25
SHOWN_MODELS = 10

_ROWS_A_PART = 500
_MOST_PARTS = 4
# Of these a run recovers by going on without the stage; anything else would only hide a fault.
_CAN_GO_ON = (
    "UNAVAILABLE",
    "FAILED_PRECONDITION",
    "NOT_FOUND",
    "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED",
)


@dataclass(frozen=True)
class Outcome:
    """What a step gives: one line for a person, what was spent, and values that later steps and the record take."""

    message: str
    values: dict[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    skipped: bool = False


@dataclass(frozen=True)
class Step:
    """What a step has at hand."""

    name: str
    """The run's name."""
    prompt: str
    options: run_pb2.RunOptions
    done: dict[str, dict[str, Any]]
    """The values of earlier steps, by stage."""
    spent: dict[str, Ledger]
    """What earlier stages spent."""
    standing: run_pb2.Run
    """The run as it stood when the step began."""
    stages: Stages
    settings: Settings
    report: Report
    ask: Callable[[run_pb2.Question], Awaitable[str]]
    """Waits, durably, for a person's answer."""
    parent: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The values of the run that this one improves, by stage; none for a run of its own."""

    @property
    def spec(self) -> common_pb2.PromptSpec:
        return ParseDict(self.done["parse"]["spec"], common_pb2.PromptSpec())

    def artifact(self, stage: str, key: str) -> common_pb2.Artifact:
        return ParseDict(self.done[stage][key], common_pb2.Artifact())

    def left(self) -> Allowance:
        """What of the budget the stages before have left."""
        budget = from_message(self.options.budget, Allowance) if self.options.HasField("budget") else Allowance()
        return leases.left(budget, self.spent.values())

    def lease(self, stage: str) -> Allowance:
        """This stage's part of what parsing left, disjoint from those of the stages beside it."""
        idle = {
            "datasets": self.options.skip_datasets,
            "generate": wanted_examples(self.options) == 0,
            "evaluate": teacher_rows(self.options) == 0,
        }
        weights = {name: share for name, share in leases.SHARES.items() if not idle.get(name)}
        return leases.split(self.left(), weights)[stage]


async def parse(step: Step) -> Outcome:
    """The prompt, as instruction and demonstrations."""
    request = parser_pb2.ParseRequest(
        request_id=f"{step.name}/parse", allowance=_allowance(step.left()), prompt=step.prompt
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
                    request_id=f"{step.name}/dataset_search", allowance=_allowance(lease), spec=step.spec,
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
        if by_hand or not _may_go_on(error):
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
            if not _may_go_on(error):
                raise
            found["notes"].append(f"{pick}: {error.message}")
            refused = error
    assert refused is not None
    raise refused


async def _load(step: Step, pick: str, by: str, found: dict[str, Any], ledger: Ledger, lease: Allowance) -> Outcome:
    look = await step.stages.inspect(
        dataset_retriever_pb2.InspectRequest(
            request_id=f"{step.name}/inspect/{_word(pick)}",
            # An LLM that is too weak to rank is too weak to tell columns apart.
            allowance=_allowance(leases.left(lease, [ledger]) if step.settings.rerank else Allowance(requests=0)),
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
            request_id=f"{step.name}/retrieve/{_word(pick)}", dataset=pick, config=look.config, input_columns=inputs,
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
        request_id=f"{step.name}/adapt/{_word(pick)}", allowance=_allowance(lease), dataset=dataset, spec=step.spec,
        max_rows=decision.max_rows,
    )  # fmt: skip
    try:
        result = await step.stages.adapt(request, report)
    except P2MError as error:
        if not _may_go_on(error):
            raise
        return None, replace(decision, why=error.message), newest
    return result, decision, from_message(result.ledger, Ledger)


async def generate(step: Step) -> Outcome:
    """Examples by the LLM, in parts that replicas work on at once; SKIPPED where there is no LLM to ask."""
    number = wanted_examples(step.options)
    if number == 0:
        return Outcome("switched off", skipped=True)
    parts = step.options.parts or min(_MOST_PARTS, math.ceil(number / _ROWS_A_PART))
    parts = min(parts, number)
    lease = step.lease("generate")
    steering = await attributes.of_run(step, number, parts, lease)
    lease = leases.left(lease, [steering.ledger])
    allowances = leases.split(lease, {str(part): 1.0 for part in range(parts)})
    requests = [
        generator_pb2.GenerateRequest(
            request_id=f"{step.name}/generate/{part}", allowance=_allowance(allowances[str(part)]), spec=step.spec,
            number=number // parts + (part < number % parts), part=part, parts=parts, seed=step.options.seed,
            exclude=step.options.data, attributes=steering.attributes, judge=step.options.judge,
            prefer=step.options.prefer,
        )
        for part in range(parts)
    ]  # fmt: skip
    return await generated(step, requests, steering)


async def generated(
    step: Step, requests: Sequence[generator_pb2.GenerateRequest], steering: attributes.Steering
) -> Outcome:
    """What the parts of a generation gave, as one; SKIPPED where that is nothing, and why."""
    number, parts = sum(request.number for request in requests), len(requests)
    progress = _Parts(step.report, parts)
    calls = [asyncio.ensure_future(step.stages.generate(r, progress.of(i))) for i, r in enumerate(requests)]
    try:
        answers = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        await _ended(calls)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        if not _may_go_on(error):
            raise error
    results = [answer for answer in answers if not isinstance(answer, BaseException)]
    rows = sum(result.rows for result in results)
    failed = [part for part, answer in enumerate(answers) if isinstance(answer, BaseException)]
    ledger = steering.ledger + _total(results) + progress.spent(failed)
    if rows == 0:
        why = str(errors[0]) if errors else _stopped(results) or "nothing was generated"
        return Outcome(why, {}, ledger, skipped=True)
    llm = results[0].llm
    short = _stopped(results) if rows < number and not errors else ""
    message = f"{rows} examples by {llm}" + (f"; {short}" if short else "")
    if batched := sum(result.batched for result in results):
        message += f"; {batched} of {ledger.requests} requests by batch"
    return Outcome(
        message + (f"; a part failed: {errors[0]}" if errors else ""),
        {
            "datasets": [plain(result.dataset) for result in results if result.rows],
            "rows": rows,
            "rows_by_part": [0 if isinstance(answer, BaseException) else answer.rows for answer in answers],
            "dropped": _added([plain(result)["dropped"] for result in results]),
            "stop_reason": max((result.stop_reason, plain(result)["stop_reason"]) for result in results)[1],
            "llm": llm,
            "parts": parts,
            "outcomes": _by_outcome(results),
            "batched": batched,
            "notes": [*dict.fromkeys(note for result in results for note in result.notes)],
            **variety.of_parts(results),
            "attributes_by": steering.by,
        },
        ledger,
    )


async def models(step: Step) -> Outcome:
    """The pretrained model. FailedPrecondition where none is left."""
    search = await step.stages.search_models(
        model_retriever_pb2.SearchRequest(
            request_id=f"{step.name}/model_search", allowance=_allowance(step.lease("models")), spec=step.spec,
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


async def prepare(step: Step) -> Outcome:
    """Locked splits. FailedPrecondition where there are no rows at all."""
    kinds = trainer_pb2.DatasetKind
    sources = [trainer_pb2.TrainingSource(dataset=data, kind=kinds.DATASET_KIND_USER) for data in step.options.data]
    if step.done["datasets"].get("dataset"):
        retrieved = step.artifact("datasets", "dataset")
        rewritten = step.done["datasets"]["chosen"].get("adapted", {}).get("rows")
        kind = kinds.DATASET_KIND_ADAPTED if rewritten else kinds.DATASET_KIND_RETRIEVED
        sources.append(trainer_pb2.TrainingSource(dataset=retrieved, kind=kind))
    for generated in step.done["generate"].get("datasets", []):
        dataset = ParseDict(generated, common_pb2.Artifact())
        sources.append(trainer_pb2.TrainingSource(dataset=dataset, kind=kinds.DATASET_KIND_GENERATED))
    if not sources:
        raise FailedPrecondition(
            "NO_DATA",
            "There is nothing to train on. "
            f"Datasets: {step.done['datasets']['message'].rstrip('.')}. "
            f"Generation: {step.done['generate']['message'].rstrip('.')}. "
            "Set OPENAI_API_KEY or OPENAI_BASE_URL so that examples can be generated, name a --dataset, or give your "
            "own rows with --data; then give the same command again.",
        )
    request = trainer_pb2.PrepareRequest(
        request_id=f"{step.name}/prepare", sources=sources, spec=step.spec, seed=step.options.seed,
        test=step.options.test if step.options.HasField("test") else None,
        max_rows_per_source=step.options.max_rows_per_source, caps=step.options.caps, mix=step.options.mix,
        keep_near_duplicates=step.options.keep_near_duplicates,
    )  # fmt: skip
    return await prepared(step, request)


async def prepared(step: Step, request: trainer_pb2.PrepareRequest) -> Outcome:
    """What splitting gave."""
    result = await step.stages.prepare(request, step.report)
    values = plain(result)
    split = {name: sum(c.rows for c in result.counts if c.split == name) for name in ("train", "validation", "test")}
    removed = sum(result.removed.values())
    return Outcome(
        f"{split['train']} train, {split['validation']} validation, {split['test']} test rows"
        + (f"; {removed} taken out" if removed else ""),
        values,
    )


async def train(step: Step) -> Outcome:
    """The fine-tuned model, by what a search has found where one was asked for."""
    usual = hyper_parameters(step.options, step.done["models"]["chosen"])
    found = await searching.find(step, usual, hyper_parameters(step.options, {}))
    parameters = found.parameters
    request = trainer_pb2.TrainRequest(
        request_id=f"{step.name}/train", train=step.artifact("prepare", "train"),
        validation=step.artifact("prepare", "validation"), spec=step.spec, seed=step.options.seed,
        model=found.model["location"], hyper_parameters=parameters,
    )  # fmt: skip
    resumed: list[int] = []

    def report(progress: Progress) -> None:
        resumed.extend(int(one.value) for one in progress.metrics if one.name == "resumed_from_step" and one.value)
        step.report(progress)

    result = await step.stages.train(request, report)
    shown = f"{result.parameters / 1e6:.1f} M parameters, best at step {result.best_step}, {result.seconds:.0f} s"
    given = {key: value for key, value in plain(parameters).items() if value is not None}
    return Outcome(
        shown + (f", resumed from step {resumed[0]}" if resumed else "") + searching.line(found),
        {
            **plain(result), "hyper_parameters": given, "resumed_from_step": resumed[0] if resumed else None,
            **({"chosen": found.model, "search": found.search} if found.search else {}),
        },
    )  # fmt: skip


async def evaluate(step: Step) -> Outcome:
    """Scores with intervals, and the verdict."""
    return await evaluated(step, evaluation(step))


def evaluation(step: Step) -> evaluator_pb2.EvaluateRequest:
    """Who is measured, on what."""
    contestant = evaluator_pb2.Contestant
    contestants = [
        contestant(name="student", model=step.artifact("train", "model")),
        contestant(name="base", model=step.artifact("train", "base")),
        contestant(name="nearest_neighbour", nearest_neighbour=step.artifact("prepare", "train")),
    ]
    rows = teacher_rows(step.options)
    if rows:
        contestants.append(contestant(name="teacher", teacher=evaluator_pb2.Teacher(max_rows=rows)))
    return evaluator_pb2.EvaluateRequest(
        request_id=f"{step.name}/evaluate", allowance=_allowance(step.left()), spec=step.spec, contestants=contestants,
        test=step.artifact("prepare", "test"), validation=step.artifact("prepare", "validation"),
        seed=step.options.seed,
    )  # fmt: skip


async def evaluated(step: Step, request: evaluator_pb2.EvaluateRequest) -> Outcome:
    """What measuring gave."""
    result = await step.stages.evaluate(request, step.report)
    values = plain(result)
    if (told := await attribution.of_run(step, values)) is not None:
        values["attribution"] = told
    return Outcome(result.verdict_reason, values, from_message(result.ledger, Ledger))


def wanted_examples(options: run_pb2.RunOptions) -> int:
    """How many examples to generate."""
    if options.skip_generation:
        return 0
    return int(options.number) if options.HasField("number") else DEFAULT_NUMBER


def teacher_rows(options: run_pb2.RunOptions) -> int:
    """How many test rows the teacher answers at most."""
    return int(options.teacher_rows) if options.HasField("teacher_rows") else DEFAULT_TEACHER_ROWS


def hyper_parameters(options: run_pb2.RunOptions, model: Mapping[str, Any]) -> trainer_pb2.HyperParameters:
    """What the options say, else what the model's entry is known to want; the rest is the trainer's default."""
    parameters = trainer_pb2.HyperParameters(head=options.head)
    if options.lora:
        parameters.lora = True
    if options.qlora:
        parameters.qlora = True
    for name in ("learning_rate", "epochs", "batch_tokens"):
        if options.HasField(name):
            setattr(parameters, name, getattr(options, name))
        elif model.get(name):
            setattr(parameters, name, model[name])
    if options.HasField("checkpoint_steps"):
        parameters.checkpoint_steps = options.checkpoint_steps
    if options.HasField("max_train_seconds"):
        parameters.max_seconds = options.max_train_seconds
    return parameters


def _may_go_on(error: BaseException) -> bool:
    """Whether a run goes on without the stage that failed so: not where a service is down, which is no answer."""
    if not isinstance(error, P2MError) or error.reason == "SERVICE_UNREACHABLE":
        return False
    return error.code in _CAN_GO_ON or isinstance(error, BudgetExhausted)


def _allowance(allowance: Allowance) -> common_pb2.Allowance:
    return to_message(allowance, common_pb2.Allowance)


def _word(name: str) -> str:
    """A dataset's name as a part of a request id: what a key may not have becomes "_"."""
    return "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "_" for c in name)[:100].strip(".") or "_"


class _Parts:
    """Reports of several parts as one, added up."""

    def __init__(self, report: Report, parts: int) -> None:
        self._report = report
        self._newest: list[Progress | None] = [None] * parts

    def of(self, part: int) -> Report:
        """Where one part reports to."""

        def forward(progress: Progress) -> None:
            self._newest[part] = progress
            known = [one for one in self._newest if one is not None]
            done, total = sum(one.done for one in known), sum(one.total for one in known)
            self._report(replace(progress, done=done, total=total, ledger=self.spent(range(len(self._newest)))))

        return forward

    def spent(self, parts: Iterable[int]) -> Ledger:
        """What these parts had spent when they last reported."""
        newest = (self._newest[part] for part in parts)
        return sum((one.ledger for one in newest if one is not None and one.ledger is not None), Ledger())


def _total(results: list[Any]) -> Ledger:
    return sum((from_message(result.ledger, Ledger) for result in results), Ledger())


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    return {reason: sum(count.get(reason, 0) for count in counts) for reason in sorted({r for c in counts for r in c})}


def _by_outcome(results: list[Any]) -> dict[str, dict[str, float]]:
    """What the parts spent, by what became of it."""
    found: dict[str, dict[str, float]] = {}
    for outcome in (outcome for result in results for outcome in plain(result)["outcomes"]):
        sums = found.setdefault(outcome.pop("name"), dict.fromkeys(outcome, 0.0))
        for name, value in outcome.items():
            sums[name] += value
    return found


def _stopped(results: list[Any]) -> str:
    """Why there are fewer than wanted; "" where no part says so."""
    reasons = {plain(result)["stop_reason"] for result in results}
    if "budget" in reasons:
        return "the budget was spent; raise --budget and give the same command again"
    return "the LLM had nothing new to say" if "nothing_new" in reasons else ""


async def _ended(calls: Sequence[asyncio.Future[Any]]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
