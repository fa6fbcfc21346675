"""Every contestant answers the same locked test rows; then they are scored, compared and judged.

evaluate ─┬─ student, base          predict.answer, each in a child; the student answers the validation split too
          ├─ nearest neighbour      neighbours.answer, in a child
          ├─ teacher                teacher.answer, while the others work
          ├─ score.score            metrics, intervals and how alike generated and real rows rank, in a child
          ├─ verdict.judge
          ├─ slices.find            where the student fails, in a child
          └─ notes.notes            what a person should know
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from services.evaluator import teacher as teachers
from services.evaluator.neighbours import NeighbourJob, Neighbours
from services.evaluator.notes import notes
from services.evaluator.predict import AnswerJob, Answers
from services.evaluator.score import ScoreJob, Scores, right_answers
from services.evaluator.slices import MOST_ROWS, SliceJob, Slices
from services.evaluator.values import BEFORE, DEFAULT_MARGIN, STUDENT, Contestant, EvaluateRequest, EvaluateResult
from services.evaluator.verdict import judge
from services.kit import worker
from services.kit.artifacts import Artifacts
from services.kit.errors import Cancelled, FailedPrecondition, InvalidArgument, P2MError
from services.kit.llm import Session, Teacher
from services.kit.settings import Settings
from services.kit.tables import table_to_rows
from services.kit.values import Artifact, Ledger, Progress, Row

Report = Callable[[Progress], None]
Predictions = tuple[str | None, ...]

# Once everybody else is done, the teacher has so many seconds left; what it has answered by then is measured.
TEACHER_PATIENCE_S = 900.0


@dataclass(frozen=True)
class TestSplit:
    """The locked rows, and whether each is real; without that column all are."""

    rows: tuple[Row, ...]
    real: tuple[bool, ...]

    __test__ = False  # for pytest: no test class

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(row.input for row in self.rows)


@dataclass(frozen=True)
class Answered:
    """Predictions by contestant in the request's order, the student's for the validation rows and its ceiling, and what
    became of the teacher."""

    predictions: dict[str, Predictions]
    validation: tuple[str, ...]
    ceiling: float
    taught: teachers.TeacherAnswers


async def evaluate(
    request: EvaluateRequest, artifacts: Artifacts, settings: Settings, llm: Teacher | None, report: Report
) -> EvaluateResult:
    """Scores, comparisons, verdict and predictions.

    Raises InvalidArgument for contestants that make no sense, FailedPrecondition for an empty test split or a model
    that cannot be loaded. A teacher that cannot be measured is left out and noted.
    """
    _check(request)
    test = await asyncio.to_thread(_read, artifacts, request.test)
    asked = next((one for one in request.contestants if one.teacher is not None), None)
    session = llm.session(request.request_id, request.allowance) if llm and asked else None
    validation = await asyncio.to_thread(_validation, artifacts, request.validation)
    answered = await _everyone_answers(request, test, validation, artifacts, settings, asked, session, report)
    predictions = answered.predictions
    scored = await worker.run(
        "services.evaluator.score:score",
        ScoreJob(test.rows, test.real, predictions, request.seed),
        Scores,
        settings,
        report,
    )
    # Whether it ships and whether it is better than the one before are two questions.
    rivals = [one.name for one in request.contestants if one.teacher is None and one.name not in (STUDENT, BEFORE)]
    margin = DEFAULT_MARGIN if request.margin is None else request.margin
    judgement = judge(scored.comparisons, rivals, asked.name if asked else "", margin)
    split, job = _slice_job(test, validation, predictions[STUDENT], answered.validation)
    if validation and request.slices:
        others = {name: said for name, said in predictions.items() if name != STUDENT}
        job = replace(job, named=request.slices, others=others, seed=request.seed)
    found = await _slices(job, settings, report)
    return EvaluateResult(
        scored.scores, scored.comparisons, judgement.verdict, judgement.reason,
        await asyncio.to_thread(_store, artifacts, test, predictions),
        answered.ceiling, scored.bertscore_encoder, session.ledger if session else Ledger(),
        tuple(notes(request, test.rows, test.real, predictions, scored, answered.ceiling, answered.taught, found)),
        judgement.more_rows, scored.agreements, found.slices, split, found.wrong, found.comparisons,
    )  # fmt: skip


def _check(request: EvaluateRequest) -> None:
    contestants = request.contestants
    if request.margin is not None and not 0 <= request.margin <= 100:
        raise InvalidArgument(
            "BAD_MARGIN", f"The margin is {request.margin:g}; wanted 0 to 100 points.", field="margin"
        )
    names = [contestant.name for contestant in contestants]
    for name in names:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) or names.count(name) > 1:
            raise InvalidArgument(
                "BAD_CONTESTANT",
                f"A contestant is named {name!r}; wanted distinct names of a-z, 0-9 and _.",
                field="contestants",
            )
    for one in contestants:
        if [one.model, one.nearest_neighbour, one.teacher].count(None) != 2:
            raise InvalidArgument(
                "BAD_CONTESTANT",
                f"The contestant {one.name} is nobody; wanted a model, nearest_neighbour or teacher.",
                field="contestants",
            )
    if not any(one.name == STUDENT and one.model for one in contestants):
        raise InvalidArgument(
            "NO_STUDENT",
            f"Nobody is to be judged: wanted a model named {STUDENT!r} among {', '.join(names) or 'the contestants'}.",
            field="contestants",
        )
    if sum(one.teacher is not None for one in contestants) > 1:
        raise InvalidArgument("TWO_TEACHERS", "There are two teachers; at most one can be asked.", field="contestants")
    if any(one.teacher and one.teacher.max_rows < 0 for one in contestants):
        raise InvalidArgument("BAD_ROWS", "The teacher's max_rows is negative; wanted 0 or more.", field="contestants")


def _read(artifacts: Artifacts, test: Artifact) -> TestSplit:
    table = artifacts.read_table(test)
    rows = tuple(table_to_rows(table, test.uri))
    if not rows:
        raise FailedPrecondition(
            "EMPTY_TEST_SPLIT", f"The test split {test.uri} has no rows; there is nothing to measure on."
        )
    if "real" not in table.column_names:
        return TestSplit(rows, (True,) * len(rows))
    return TestSplit(rows, tuple(bool(value) for value in table.column("real").to_pylist()))


def _validation(artifacts: Artifacts, validation: Artifact | None) -> tuple[Row, ...]:
    """The rows that slices are found on, as many as are looked at; none where there is no such split."""
    if validation is None or not validation.uri:
        return ()
    return tuple(artifacts.read_rows(validation)[:MOST_ROWS])


def _slice_job(
    test: TestSplit, validation: tuple[Row, ...], on_test: Predictions, on_validation: tuple[str, ...]
) -> tuple[str, SliceJob]:
    """Which split slices are found on, and the job: on validation rows where there are any."""
    said = tuple(text or "" for text in on_test)
    if validation:
        return "validation", SliceJob(validation, on_validation, test.rows, said)
    return "test", SliceJob(test.rows, said)


async def _slices(job: SliceJob, settings: Settings, report: Report) -> Slices:
    """The slices; scores and verdict are not lost where these cannot be found."""
    try:
        return await worker.run("services.evaluator.slices:find", job, Slices, settings, report)
    except Cancelled:
        raise
    except P2MError as error:
        return Slices(failure=error.message)


async def _everyone_answers(
    request: EvaluateRequest,
    test: TestSplit,
    validation: tuple[Row, ...],
    artifacts: Artifacts,
    settings: Settings,
    asked: Contestant | None,
    session: Session | None,
    report: Report,
) -> Answered:
    models_done, enough = asyncio.Event(), asyncio.Event()

    def teacher_answered(done: int) -> None:
        if session and models_done.is_set():  # until then the models' progress is shown
            report(Progress(done, unit="rows", message="the teacher answers", ledger=session.ledger))

    # The teacher and the nearest neighbour leave most of this machine to the models, so they go on beside them.
    asking = asyncio.ensure_future(_teacher_answers(asked, session, request, test, settings, teacher_answered, enough))
    copying = asyncio.ensure_future(_neighbours_answer(request, test, artifacts, settings))
    found: dict[str, Predictions] = {}
    students = Answers()
    try:
        for contestant in request.contestants:
            if contestant.model is not None:
                more = validation if contestant.name == STUDENT else ()
                answers = await _model_answers(contestant, request, test, more, artifacts, settings, report)
                found[contestant.name] = answers.outputs[: len(test.rows)]
                students = answers if contestant.name == STUDENT else students
        models_done.set()
        found |= await copying
        await asyncio.wait({asking}, timeout=TEACHER_PATIENCE_S)
        enough.set()
        taught = await asking
    finally:
        asking.cancel()
        copying.cancel()
        await asyncio.gather(asking, copying, return_exceptions=True)
    if asked and any(output is not None for output in taught.outputs):
        found[asked.name] = taught.outputs
    predictions = {one.name: found[one.name] for one in request.contestants if one.name in found}
    return Answered(predictions, students.outputs[len(test.rows) :], students.ceiling, taught)


async def _model_answers(
    contestant: Contestant,
    request: EvaluateRequest,
    test: TestSplit,
    more: tuple[Row, ...],
    artifacts: Artifacts,
    settings: Settings,
    report: Report,
) -> Answers:
    """The answers to the test rows, then to those of `more`."""
    assert contestant.model is not None
    inputs = (*test.inputs, *(row.input for row in more))
    report(Progress(0, len(inputs), "rows", f"{contestant.name} is loaded"))
    with tempfile.TemporaryDirectory(prefix="p2m-evaluator-", ignore_cleanup_errors=True) as folder:
        model = await asyncio.to_thread(artifacts.fetch, contestant.model, Path(folder) / "model")
        answers = tuple(right_answers(row) for row in test.rows) if contestant.name == STUDENT else ()
        job = AnswerJob(contestant.name, str(model), request.spec, inputs, answers)
        return await worker.run("services.evaluator.predict:answer", job, Answers, settings, report)


async def _neighbours_answer(
    request: EvaluateRequest, test: TestSplit, artifacts: Artifacts, settings: Settings
) -> dict[str, Predictions]:
    found: dict[str, Predictions] = {}
    for contestant in request.contestants:
        if contestant.nearest_neighbour is None:
            continue
        train = await asyncio.to_thread(artifacts.read_rows, contestant.nearest_neighbour)
        if not train:
            raise FailedPrecondition("EMPTY_TRAINING_SPLIT", "The nearest neighbour has no training rows to copy from.")
        job = NeighbourJob(tuple(row.input for row in train), tuple(row.output for row in train), test.inputs)
        copied = await worker.run("services.evaluator.neighbours:answer", job, Neighbours, settings)
        found[contestant.name] = copied.outputs
    return found


async def _teacher_answers(
    asked: Contestant | None,
    session: Session | None,
    request: EvaluateRequest,
    test: TestSplit,
    settings: Settings,
    after_answer: Callable[[int], None],
    enough: asyncio.Event,
) -> teachers.TeacherAnswers:
    """The teacher's answers to the first rows, None for the others."""
    if asked is None or asked.teacher is None:
        return teachers.TeacherAnswers()
    if session is None:
        return teachers.TeacherAnswers(note="The teacher was not measured: no LLM is configured (OPENAI_BASE_URL).")
    first = test.inputs[: asked.teacher.max_rows or None]
    found = await teachers.answer(session, request.spec, first, settings.llm_concurrency, after_answer, enough)
    rest = (None,) * (len(test.rows) - len(first))
    return replace(found, outputs=found.outputs + rest)


def _store(artifacts: Artifacts, test: TestSplit, predictions: dict[str, Predictions]) -> Artifact:
    columns = {
        "input": [row.input for row in test.rows],
        "output": [row.output for row in test.rows],
        "source": [row.source for row in test.rows],
        "real": list(test.real),
    }
    types = [(name, pa.string()) for name in ("input", "output", "source")] + [("real", pa.bool_())]
    for name, outputs in predictions.items():
        columns[f"prediction_{name}"] = list(outputs)
        types.append((f"prediction_{name}", pa.string()))
    return artifacts.put_table(pa.table(columns, schema=pa.schema(types)))
