"""The notes of an evaluation: a teacher's failures are told apart, a slow one is not waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from services.evaluator import evaluate, teacher
from services.evaluator.notes import notes
from services.evaluator.score import Scores
from services.evaluator.slices import SliceJob, Slices
from services.evaluator.teacher import TeacherAnswers
from services.evaluator.values import Agreement, Contestant, Estimate, EvaluateRequest, TeacherRows
from services.kit.errors import ResourceExhausted
from services.kit.llm import InvalidAnswer
from services.kit.settings import Settings
from services.kit.values import PromptSpec, Row

ROWS = [Row(f"input {n}", f"{n}") for n in range(10)]
REQUEST = EvaluateRequest(contestants=(Contestant("teacher", teacher=TeacherRows()),))


NO_TEACHER, NOTHING_SCORED, NO_SLICES = TeacherAnswers(), Scores(), Slices()


def told(
    taught: TeacherAnswers = NO_TEACHER, real: int = 10, scored: Scores = NOTHING_SCORED, found: Slices = NO_SLICES
) -> list[str]:
    """The notes on a student that wrote x ten times, with `real` real rows."""
    said: dict[str, tuple[str | None, ...]] = {"student": ("x",) * len(ROWS)}
    if taught.outputs:
        said["teacher"] = taught.outputs
    return notes(REQUEST, ROWS, [n < real for n in range(len(ROWS))], said, scored, 100, taught, found)


class Slow:
    """A session whose answers take their time; each third one cannot be used."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked = seconds, 0

    async def ask(self, ask: Any) -> Any:
        self.asked += 1
        number = self.asked
        await asyncio.sleep(self.seconds)
        if number % 3 == 0:
            raise InvalidAnswer("no JSON")
        return {"answer": ask.key.rpartition("/")[2]}


async def test_answers_that_could_not_be_used_are_told_beside_the_score_without_them() -> None:
    """Ten answers of which three are refusals: exact match 70 with them, 100 over the seven; both are said, and the
    three are not counted a second time as empty predictions."""
    taught = await teacher.answer(Slow(0), PromptSpec(), [row.input for row in ROWS], 1)  # type: ignore[arg-type]
    assert taught.unusable == (2, 5, 8)
    assert [taught.outputs[number] for number in taught.unusable] == ["", "", ""]
    found = [note for note in told(taught) if "teacher" in note]
    assert found == [
        "3 answers of the teacher could not be used and count as wrong: its exact match is 70.0 so, and over the 7 "
        "that it answered 100.0."
    ]


async def test_a_slow_teacher_is_measured_on_what_it_answered() -> None:
    """Told that it is enough, it is asked no more rows: those under way are awaited, the others are left out, and the
    note says how many."""
    enough, session = asyncio.Event(), Slow(0.02)
    asking = asyncio.ensure_future(
        teacher.answer(session, PromptSpec(), [row.input for row in ROWS], 2, enough=enough)  # type: ignore[arg-type]
    )
    await asyncio.sleep(0.03)
    enough.set()
    taught = await asking
    answered = sum(output is not None for output in taught.outputs)
    assert 2 <= answered == session.asked < 10
    assert taught.note == (
        f"The teacher answered {answered} of 10 rows and was not asked for the others, since it was slow."
    )


def test_agreement_is_told_or_why_it_cannot_be() -> None:
    """With real and generated rows: the tau with its interval, or what is missing; with real rows alone, neither."""
    tau = Agreement("exact_match", Estimate(0.67, 0.33, 1.0), 4, 40, 60)
    assert any(
        "a Kendall's tau of 0.67 (95 % interval 0.33 to 1.00" in note
        for note in told(real=6, scored=Scores(agreements=(tau,)))
    )
    missing = [note for note in told(real=6) if "rank models alike cannot be told" in note]
    assert len(missing) == 1 and "there are 1 contestants, 4 generated and 6 real rows" in missing[0]
    assert not any("rank" in note for note in told(real=10))


def test_no_slice_is_said_where_some_were_tried() -> None:
    """That nothing stands out is a finding; that nothing could be tried is not."""
    assert "Of 12 slices of the rows none has clearly more errors than the rest." in told(found=Slices((), "", 12))
    assert not any("slices" in note for note in told())
    assert "Where the student fails was not looked for: No encoder." in told(found=Slices(failure="No encoder."))


def test_a_spent_budget_is_an_error_that_others_can_be_too() -> None:
    """Both causes are told where both hold: the inputs that were too long, and what stopped it."""
    note = teacher._note(["a", None, None], [ResourceExhausted("BUSY", "It is busy.")], 1)
    assert note.startswith("The teacher answered 1 of 3 rows; then it failed: It is busy.")
    assert note.endswith("could not read 1 of 3 inputs, which are too long for it.")


async def test_scores_are_kept_where_slices_cannot_be_found(settings: Settings) -> None:
    """A child that fails (here: for want of its encoder) leaves its message, and nothing else is lost."""
    rows = tuple(Row(f"text {n}", f"{n}") for n in range(60))
    job = SliceJob(rows, ("0",) * 30 + tuple(row.output for row in rows[30:]))
    found = await evaluate._slices(job, settings.model_copy(update={"encoder": "/nowhere"}), lambda _: None)
    assert found.slices == ()
    assert "/nowhere" in found.failure
