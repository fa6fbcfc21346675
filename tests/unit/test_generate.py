"""The generation loop, against a scripted teacher on a loopback port."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.generator import prompts
from services.generator.generate import Generated, GenerateRequest, StopReason, check, generate, temperature
from services.generator.pace import EXAMPLES_PER_REQUEST
from services.generator.variety import Attributes
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument, P2MError, Unauthenticated, Unavailable
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, Progress, PromptSpec
from tests.support.teacher import NONSENSE, OVERLOADED, WRONG_KEY, Fault, ScriptedTeacher, schema_of

SPEC = PromptSpec(
    "Name the colour among the words.",
    (Demonstration("lamp red door", "red"), Demonstration("blue cat sat", "blue"), Demonstration("a b green", "green")),
)
TRAINS = Attributes(topics=("trains",))
REQUEST = GenerateRequest("run/generate", Allowance(), SPEC, 30)


@asynccontextmanager
async def _session(settings: Settings, url: str, allowance: Allowance = REQUEST.allowance) -> AsyncIterator[Any]:
    own = settings.model_copy(update={"openai_base_url": url})
    teacher = Teacher(own, Artifacts.open(own, "generator"))
    try:
        yield teacher.session(REQUEST.request_id, allowance)
    finally:
        await teacher.close()


async def _made(
    settings: Settings,
    teacher: ScriptedTeacher,
    request: GenerateRequest = REQUEST,
    excluded: Sequence[str] = (),
    report: Callable[[Progress], None] = lambda _: None,
) -> Generated:
    async with _session(settings, teacher.url, request.allowance) as session:
        return await generate(request, session, "scripted", excluded, settings, report)


def _answers(*batches: Sequence[tuple[str, str]]) -> Callable[..., Any]:
    """A script: the batches in order, one a request, starting again at the end."""
    count = iter(range(1_000_000))

    def answer(_body: dict[str, Any], _rng: random.Random) -> Any:
        batch = batches[next(count) % len(batches)]
        return {"examples": [{"input": given, "output": wanted} for given, wanted in batch]}

    return answer


def _recorded(repeated: float = 0.3) -> Callable[..., Any]:
    """A script as a recording gives it: examples in their order, whoever asks; a share of the inputs come again."""
    count = iter(range(1_000_000))

    def example() -> dict[str, str]:
        number = next(count)
        rng = random.Random(number)
        place = rng.randrange(number) if number and rng.random() < repeated else number
        return {"input": f"item {place}", "output": str(rng.randrange(3))}

    return lambda body, _: {"examples": [example() for _ in range(_wanted(body))]}


def _wanted(body: dict[str, Any]) -> int:
    """How many examples a request asks for."""
    return schema_of(body)[1]["properties"]["examples"]["maxItems"]


# -- how it ends


async def test_the_number(settings: Settings) -> None:
    """It makes exactly the number, all different; as all that comes is new, nothing is asked for in vain."""
    async with ScriptedTeacher() as teacher:
        made = await _made(settings, teacher)
        asked = [_wanted(body) for body in teacher.requests]
    assert sum(asked) == 30
    assert made.stop_reason == StopReason.NUMBER
    assert len({row.input for row in made.rows}) == 30
    assert {row.source for row in made.rows} == {"generated"}
    assert made.dropped == {}
    assert made.ledger.requests == len(asked)


async def test_the_budget(settings: Settings) -> None:
    """With the allowance spent it ends with what there is, and says so."""
    async with ScriptedTeacher() as teacher:
        made = await _made(settings, teacher, GenerateRequest("run/generate", Allowance(requests=2), SPEC, 30))
        assert teacher.count["requests"] == 2
    assert (made.stop_reason, len(made.rows), made.ledger.requests) == (StopReason.BUDGET, 10, 2)


async def test_no_budget(settings: Settings) -> None:
    """An allowance of nothing is no error: no request, no rows."""
    async with ScriptedTeacher() as teacher:
        made = await _made(settings, teacher, GenerateRequest("run/generate", Allowance(requests=0), SPEC, 30))
        assert teacher.count["requests"] == 0
    assert (made.stop_reason, made.rows) == (StopReason.BUDGET, ())


async def test_a_larger_budget_goes_on(settings: Settings) -> None:
    """With a larger allowance the same request goes on from the paid answers."""
    async with ScriptedTeacher() as teacher:
        first = await _made(settings, teacher, GenerateRequest("run/generate", Allowance(requests=2), SPEC, 30))
        made = await _made(settings, teacher, GenerateRequest("run/generate", Allowance(requests=10), SPEC, 30))
        assert teacher.count["requests"] == made.ledger.requests <= 12
    assert (made.stop_reason, len(made.rows)) == (StopReason.NUMBER, 30)
    assert {row.input for row in first.rows} <= {row.input for row in made.rows}
    assert made.ledger.replayed == 2


async def test_nothing_new(settings: Settings) -> None:
    """Where the LLM repeats itself it ends after fifty examples in a row that brought nothing, with what there is."""
    batch = [(f"the only input {word}", word) for word in ("one", "two", "three", "four", "five")]
    async with ScriptedTeacher({"examples": _answers(batch)}) as teacher:
        made = await _made(settings.model_copy(update={"llm_concurrency": 1}), teacher)
    assert (made.stop_reason, len(made.rows)) == (StopReason.NOTHING_NEW, 5)
    assert 50 <= made.dropped["duplicate"] < 60


async def test_only_what_is_excluded(settings: Settings) -> None:
    """Where all that comes is excluded or shown in the prompt there are no rows, and that is no error."""
    batch = [("lamp red door", "red"), ("old input", "x")]
    async with ScriptedTeacher({"examples": _answers(batch)}) as teacher:
        made = await _made(settings.model_copy(update={"llm_concurrency": 1}), teacher, excluded=["old input"])
    assert (made.stop_reason, made.rows) == (StopReason.NOTHING_NEW, ())
    assert made.dropped["copied_demonstration"] == made.ledger.requests
    assert made.dropped["excluded"] == made.ledger.requests - 1


@pytest.mark.parametrize("answer", [NONSENSE, Fault(content='{"examples": [{"input": "", "output": "x"}]}')])
async def test_nonsense_is_an_error(settings: Settings, answer: Fault) -> None:
    """An LLM that gives nothing usable is given up after some answers, with what to do."""
    request = GenerateRequest("run/generate", Allowance(), SPEC, 1_000)
    async with ScriptedTeacher(always=answer) as teacher:
        with pytest.raises(FailedPrecondition) as caught:
            await _made(settings, teacher, request)
        assert teacher.count["requests"] < 20 + settings.llm_concurrency
    assert caught.value.reason == "LLM_NONSENSE"
    assert "P2M_LLM" in caught.value.message


async def test_an_invalid_answer_costs_one_request(settings: Settings) -> None:
    """An answer that cannot be used is paid, counted and made up for; the others stay."""
    # One at a time: of several at once, more are asked for in advance where the unusable answers happen to come first.
    one_by_one = settings.model_copy(update={"llm_concurrency": 1})
    async with ScriptedTeacher(faults=[None, NONSENSE, None, NONSENSE]) as teacher:
        made = await _made(one_by_one, teacher)
        asked = [_wanted(body) for body in teacher.requests]
    assert (made.stop_reason, len(made.rows), made.ledger.invalid) == (StopReason.NUMBER, 30, 2)
    assert sum(asked) <= 30 + asked[1] + asked[3] + 2


async def test_a_wrong_key(settings: Settings) -> None:
    """A key that is refused ends it at once."""
    async with ScriptedTeacher(always=WRONG_KEY) as teacher:
        with pytest.raises(Unauthenticated):
            await _made(settings, teacher)


async def test_an_llm_that_goes_away(settings: Settings) -> None:
    """Where the LLM fails after some answers the call is Unavailable; the answers are kept and not asked for again."""
    impatient = settings.model_copy(update={"llm_patience_s": 0.2, "llm_concurrency": 2})
    async with ScriptedTeacher() as teacher:
        answers = Counter[str]()

        def switch(progress: Progress) -> None:
            answers["kept"] = int(progress.done)
            if progress.done >= 10:
                teacher.always = OVERLOADED

        with pytest.raises(Unavailable):
            await _made(impatient, teacher, report=switch)
        teacher.always = None
        made = await _made(impatient, teacher)
        assert teacher.count["answered"] == made.ledger.requests
    assert made.ledger.replayed >= 2
    assert len(made.rows) == 30


async def test_cancelled_and_taken_up_again(settings: Settings) -> None:
    """A cancel keeps the answers that came; the next attempt asks for the rest alone and gives as many rows."""
    slow = settings.model_copy(update={"llm_concurrency": 2})
    async with ScriptedTeacher(latency=0.05) as teacher:
        arrived = asyncio.Event()
        job = asyncio.create_task(_made(slow, teacher, report=lambda p: arrived.set() if p.done >= 10 else None))
        await asyncio.wait_for(arrived.wait(), 10)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        cut_off = teacher.count["requests"] - teacher.count["answered"]
        made = await _made(slow, teacher)
        assert len(made.rows) == 30
        assert teacher.count["requests"] == made.ledger.requests
        assert sum(_wanted(body) for body in teacher.requests) <= 30 + 5 * cut_off
    assert made.ledger.replayed >= 2


# -- what it depends on


async def test_timing_changes_no_request(settings: Settings) -> None:
    """While all that comes is new, the same requests are sent to a server that bears so many at once, in whatever
    order and time the answers come.
    """
    asked = []
    for number, latency in enumerate([0.0, 0.01, 0.03]):
        own = settings.model_copy(update={"home": settings.home / str(number), "llm_concurrency": 8})
        async with ScriptedTeacher(latency=latency) as teacher:
            _jitter(teacher, random.Random(number))
            made = await _made(own, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 60))
            asked.append(sorted((body["seed"], _wanted(body)) for body in teacher.requests))
        assert len(made.rows) == 60
    assert asked[0] == asked[1] == asked[2]


async def test_stored_answers_give_the_same_dataset(settings: Settings) -> None:
    """From the stored answers comes the same dataset, with the same counts, without one request."""
    request = GenerateRequest("run/generate", Allowance(), SPEC, 60)
    async with ScriptedTeacher({"examples": _recorded()}, latency=0.01, faults=[None, NONSENSE]) as teacher:
        _jitter(teacher, random.Random(1))
        first = await _made(settings, teacher, request)
        asked = teacher.count["requests"]
        again = await _made(settings.model_copy(update={"llm_concurrency": 1}), teacher, request)
        assert teacher.count["requests"] == asked
    assert again.rows == first.rows
    assert again.dropped == first.dropped
    assert first.dropped["duplicate"] > 0


async def test_repeats_are_made_up_for_by_a_forecast(settings: Settings) -> None:
    """With three in ten repeated, the number is reached with few examples in surplus."""
    async with ScriptedTeacher({"examples": _recorded()}, latency=0.005) as teacher:
        made = await _made(settings, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 300))
    assert len(made.rows) == 300
    assert made.dropped["duplicate"] > 50
    assert made.dropped.get("surplus", 0) <= 15


def _jitter(teacher: ScriptedTeacher, rng: random.Random) -> None:
    """Later requests are often answered first."""
    original = teacher._answer

    async def jittered(*args: Any) -> Any:
        response = await original(*args)
        await asyncio.sleep(rng.random() * 0.05)
        return response

    teacher._answer = jittered  # type: ignore[method-assign]


async def test_no_barrier(settings: Settings) -> None:
    """One slow answer does not hold up the others: with a place left, they go on."""
    hang = Fault(hang_s=0.6)
    own = settings.model_copy(update={"llm_concurrency": 4})
    async with ScriptedTeacher(faults=[hang], latency=0.02) as teacher:
        seen: list[float] = []
        job = asyncio.create_task(_made(own, teacher, report=lambda progress: seen.append(progress.done)))
        await asyncio.sleep(0.5)
        assert max(seen) >= 25
        made = await job
    assert len(made.rows) == 30


async def test_nobody_waits_for_surplus(settings: Settings) -> None:
    """When the number is reached, an answer that hangs is let go after a second, and booked."""
    topics = {"topics": ["a"], "lengths": [], "difficulties": [], "labels": []}

    async def slow_proposal(request: Any, body: dict[str, Any], fault: Any) -> Any:
        if schema_of(body)[0] == "attributes":
            await asyncio.sleep(30)
        return await answer(request, body, fault)

    async with ScriptedTeacher(lambda body, rng: topics if schema_of(body)[0] == "attributes" else None) as teacher:
        answer = teacher._answer
        teacher._answer = slow_proposal  # type: ignore[method-assign]
        async with asyncio.timeout(10):
            made = await _made(settings, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 100))
        assert made.ledger.requests == teacher.count["requests"]
    assert len(made.rows) == 100


# -- what makes the examples differ


async def test_the_llm_proposes_what_examples_differ_in(settings: Settings) -> None:
    """It is asked once, later requests keep to what it proposed, and the result tells it."""
    proposed = {"topics": ["boats", "birds", "boats"], "lengths": ["short"], "difficulties": [], "labels": []}
    script = {"attributes": proposed}
    own = settings.model_copy(update={"llm_concurrency": 4})
    async with ScriptedTeacher(script, latency=0.01) as teacher:
        made = await _made(own, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 100))
        again = await _made(own, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 100))
        texts = [body["messages"][1]["content"] for body in teacher.requests if schema_of(body)[0] == "examples"]
        assert teacher.by_schema["attributes"] == 1
    assert made.attributes == again.attributes == Attributes(("boats", "birds"), ("short",))
    assert sum("Topics, one for each example: b" in text and "short" in text for text in texts) >= len(texts) - 5
    for topic in ("boats", "birds"):
        assert sum(topic in text for text in texts) >= len(texts) // 2 - 5


async def test_a_person_s_attributes(settings: Settings) -> None:
    """Where the request tells what examples differ in, the LLM is not asked for it."""
    given = Attributes(topics=("trains",), labels=("red", "blue"))
    async with ScriptedTeacher() as teacher:
        made = await _made(settings, teacher, GenerateRequest("r", Allowance(), SPEC, 100, attributes=given))
        assert teacher.by_schema["attributes"] == 0
        assert all("trains" in body["messages"][1]["content"] for body in teacher.requests)
        assert all("Outputs, one for each" in body["messages"][1]["content"] for body in teacher.requests)
    assert made.attributes == given


@pytest.mark.parametrize(
    ("number", "allowance"), [(99, Allowance()), (100, Allowance(requests=19)), (100, Allowance(requests=0))]
)
async def test_no_proposal_where_it_does_not_pay(settings: Settings, number: int, allowance: Allowance) -> None:
    """For few examples or few requests, no request is spent on it."""
    async with ScriptedTeacher() as teacher:
        await _made(settings, teacher, GenerateRequest("run/generate", allowance, SPEC, number))
        assert teacher.by_schema["attributes"] == 0


async def test_a_proposal_that_is_no_use(settings: Settings) -> None:
    """Where the LLM proposes nonsense, generation goes on without."""
    async with ScriptedTeacher({"attributes": "I would rather not."}) as teacher:
        made = await _made(settings, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 100))
        assert teacher.by_schema["attributes"] == 1
    assert (len(made.rows), made.attributes, made.ledger.invalid) == (100, Attributes(), 1)


async def test_how_varied_it_is(settings: Settings) -> None:
    """The result tells distinct-1 and -2 of the rows, and the share of repeats stretch by stretch."""
    async with ScriptedTeacher({"examples": _recorded(0.3)}) as teacher:
        made = await _made(settings, teacher, GenerateRequest("r", Allowance(), SPEC, 99, attributes=TRAINS))
    metrics = {metric.name: metric.value for metric in made.metrics}
    assert metrics["distinct_1"] == pytest.approx(100 * 100 / 198, abs=0.01)  # "item" and 99 numbers
    assert metrics["distinct_2"] == 100
    assert [share.examples for share in made.repeats] == sorted(share.examples for share in made.repeats)
    assert 15 < sum(share.duplicates for share in made.repeats) / len(made.repeats) < 45


async def test_a_budget_of_few_requests_is_filled(settings: Settings) -> None:
    """Where few requests are allowed, each asks for as many examples as it may."""
    async with ScriptedTeacher() as teacher:
        await _made(settings, teacher, GenerateRequest("run/generate", Allowance(requests=6), SPEC, 200))
        assert [_wanted(body) for body in teacher.requests] == [EXAMPLES_PER_REQUEST] * 6


async def test_an_llm_that_loses_the_thread_is_asked_for_less(settings: Settings) -> None:
    """Where only the first two examples of an answer are of use, requests soon ask for no more than two."""
    count = iter(range(1_000_000))

    def answer(body: dict[str, Any], _: random.Random) -> Any:
        number = next(count)
        good = [{"input": f"item {number} {n}", "output": "x"} for n in range(2)]
        return {"examples": (good + [{"input": "...", "output": "..."}] * 3)[: _wanted(body)]}

    own = settings.model_copy(update={"llm_concurrency": 2})
    async with ScriptedTeacher({"examples": answer}) as teacher:
        made = await _made(own, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 90))
        asked = [_wanted(body) for body in teacher.requests]
    assert len(made.rows) == 90
    assert max(asked) > 2
    assert max(asked[10:]) == 2


async def test_consensus(settings: Settings) -> None:
    """The most frequent output of an input wins, over all answers."""
    own = settings.model_copy(update={"llm_concurrency": 1})
    first = [("pick me", "a"), ("x 1", "1"), ("x 2", "2"), ("x 3", "3"), ("x 4", "4")]
    other = [("pick me", "b"), ("y 1", "1"), ("y 2", "2"), ("y 3", "3"), ("y 4", "4")]
    third = [("pick me", "b"), ("z 1", "1"), ("z 2", "2"), ("z 3", "3"), ("z 4", "4")]
    request = GenerateRequest("run/generate", Allowance(), SPEC, 9)
    async with ScriptedTeacher({"examples": _answers(first, other, third)}) as teacher:
        made = await _made(own, teacher, request)
    assert {row.input: row.output for row in made.rows}["pick me"] == "b"
    assert (len(made.rows), made.dropped) == (9, {"duplicate": 2})


async def test_more_than_was_asked_for(settings: Settings) -> None:
    """Examples beyond those that a request asks for are not looked at, so that a count can be relied on."""
    batch = [(f"item {number}", "x") for number in range(9)]
    request = GenerateRequest("run/generate", Allowance(), SPEC, 5)
    own = settings.model_copy(update={"llm_concurrency": 1})
    async with ScriptedTeacher({"examples": _answers(batch)}) as teacher:
        made = await _made(own, teacher, request)
    assert sorted(row.input for row in made.rows) == [f"item {number}" for number in range(5)]


# -- what is asked


async def test_what_the_llm_reads(settings: Settings) -> None:
    """Requests begin alike and end with the wish; few demonstrations are drawn; later ones show what was written."""
    own = settings.model_copy(update={"llm_concurrency": 1})
    async with ScriptedTeacher() as teacher:
        await _made(own, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 90))
        asked = teacher.requests
    texts = [body["messages"][1]["content"] for body in asked]
    assert len({body["messages"][0]["content"] for body in asked}) == 1
    opening = f'Task:\n{SPEC.instruction}\n\nExamples of the task:\n{{"input": '
    assert all(text.startswith(opening) for text in texts)
    shown = [text.partition("\n\nThese were written already")[0].partition("of the task:\n")[2] for text in texts]
    by_number: dict[int, set[str]] = {}
    for one in shown:
        by_number.setdefault(one.count('{"input"'), set()).add(one)
    assert by_number.keys() == {1, 2, 3}
    assert len(by_number[1]) > 1
    assert len(by_number[3]) == 1
    assert "written already" not in texts[0]
    assert all("written already" in text for text in texts[1:])
    assert "Write one new example of the task" in texts[0].split("\n\n")[-1]
    assert all("Write 5 new examples" in text.split("\n\n")[-1] for text in texts[1:-1])
    degrees = [body["temperature"] for body in asked]
    assert degrees == sorted(degrees)
    assert degrees[0] == 0.8
    assert degrees[-1] == pytest.approx(0.8 + 0.4 * 86 / 90)
    assert len({body["seed"] for body in asked}) == len(asked)


@pytest.mark.parametrize(
    ("start", "end", "kept", "expected"),
    [
        (None, None, 0, 0.8),
        (None, None, 100, 1.2),
        (0.0, 2.0, 25, 0.5),
        (1.4, 1.4, 50, 1.4),
        (2.0, 0.0, 100, 0.0),
        (0, 2, 200, 2),
    ],
)
def test_temperature(start: float | None, end: float | None, kept: int, expected: float) -> None:
    """It goes from the first to the last as rows are kept, never beyond 0 and 2."""
    request = GenerateRequest(number=100, initial_temperature=start, max_temperature=end)
    assert temperature(request, kept) == pytest.approx(expected)


def test_an_llm_that_repeats_itself_is_shown_less() -> None:
    """The sizes of prompts are as likely at first; where a twentieth are repeats nothing written before is shown."""
    rng = random.Random(1)
    usual, some, stuck = (Counter(prompts.choose_size(rng, share) for _ in range(300)) for share in (0.0, 0.025, 0.05))
    assert min(usual[size] for size in prompts.SIZES) > 70 and prompts.BARE not in usual
    assert 120 < some[prompts.BARE] < 180
    assert stuck == {prompts.BARE: 300} and prompts.BARE.written == 0


def test_temperature_of_an_llm_that_repeats_itself() -> None:
    """The share of repeats raises it where that is more than the share done."""
    request = GenerateRequest(number=100, initial_temperature=0.0, max_temperature=1.0)
    assert temperature(request, 10, 0.8) == pytest.approx(0.8)
    assert temperature(request, 90, 0.8) == pytest.approx(0.9)


async def test_repeats_raise_the_temperature(settings: Settings) -> None:
    """An LLM that gives the same example again and again is soon asked at nearly the highest temperature."""
    own = settings.model_copy(update={"llm_concurrency": 1})
    async with ScriptedTeacher({"examples": _answers([(f"item {n}", "x") for n in range(5)])}) as teacher:
        await _made(own, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 90))
        degrees = [body["temperature"] for body in teacher.requests]
    assert degrees == sorted(degrees)
    assert degrees[0] == 0.8
    assert degrees[-1] > 1.0


@pytest.mark.parametrize("context", [1_024, 2_048, 8_192, 128_000])
@pytest.mark.parametrize("length", [3, 300, 3_000])
def test_a_prompt_fits_its_context(context: int, length: int) -> None:
    """However long the examples are, the prompt and the longest answer fit into what the LLM can read and write."""
    text = "lorem ipsum " * (length // 12 + 1)
    spec = PromptSpec("Do it.", tuple(Demonstration(text, "x") for _ in range(12)))
    plan = prompts.plan(spec, context)
    assert 1 <= plan.examples <= EXAMPLES_PER_REQUEST
    for size in prompts.SIZES:
        messages = prompts.messages(spec, size, [Demonstration(text, "y")] * 5, plan, plan.examples)
        told = sum(len(message["content"].encode()) for message in messages)
        assert told / 4 + plan.max_tokens <= context
        assert "Do it." in messages[1]["content"]


def test_the_own_language() -> None:
    """The LLM reads the instruction as the person wrote it, not its translation."""
    spec = PromptSpec("Find the date.", SPEC.demonstrations, "de", "Finde das Datum.")
    text = prompts.messages(spec, prompts.COMPLEX, (), prompts.plan(spec, 8_192), 1)[1]["content"]
    assert "Finde das Datum." in text
    assert "Find the date." not in text


def test_the_prompt_is_json_where_examples_are() -> None:
    """Examples are shown in the form in which they are to be answered, quotes and newlines and all."""
    tricky = Demonstration('say "hi"\nnow', "日本")
    text = prompts.messages(PromptSpec("Do.", (tricky,)), prompts.SIMPLE, (), prompts.plan(SPEC, 8_192), 1)[1][
        "content"
    ]
    [line] = re.findall(r"^\{.*\}$", text, re.MULTILINE)
    assert json.loads(line) == {"input": tricky.input, "output": tricky.output}
    assert "日本" in line


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"number": 0}, "number"),
        ({"number": 1_000_001}, "number"),
        ({"spec": PromptSpec()}, "spec"),
        ({"initial_temperature": 2.1}, "initial_temperature"),
        ({"max_temperature": -0.1}, "max_temperature"),
        ({"initial_temperature": float("nan")}, "initial_temperature"),
        ({"part": 2, "parts": 2}, "part"),
        ({"part": 1}, "part"),
        ({"part": -1}, "part"),
    ],
)
def test_a_request_that_cannot_be_done(changes: dict[str, Any], field: str) -> None:
    """What is out of range is refused by the name of its field."""
    plain = {"spec": SPEC, "number": 10} | changes
    with pytest.raises(InvalidArgument) as caught:
        check(GenerateRequest(**plain))
    assert caught.value.field == field


async def test_parts_differ(settings: Settings) -> None:
    """Two parts of one run ask with other seeds, so that replicas do not write the same."""
    seeds = []
    for part in (0, 1):
        own = settings.model_copy(update={"home": settings.home / str(part)})
        async with ScriptedTeacher() as teacher:
            await _made(own, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 10, part, 2))
            seeds.append({body["seed"] for body in teacher.requests})
    assert not seeds[0] & seeds[1]


async def test_errors_are_of_the_tree(settings: Settings) -> None:
    """With nobody at the LLM's address the error says so, in the tree's terms."""
    impatient = settings.model_copy(update={"llm_patience_s": 0.1})
    async with ScriptedTeacher() as teacher:
        pass
    with pytest.raises(P2MError) as caught:
        await _made(impatient, teacher)
    assert caught.value.code == "UNAVAILABLE"


# -- what the money went on


async def test_the_outcomes_are_the_ledger(settings: Settings, tmp_path: Path) -> None:
    """Kept, duplicate, invalid, surplus and lost add up to what was spent; the examples to those that came."""
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"gpt-4o-mini": [1.0, 4.0]}))
    own = settings.model_copy(update={"llm_prices": prices, "llm_concurrency": 8, "llm_timeout_s": 0.3})
    faults = [None, NONSENSE, Fault(hang_s=5.0), None, NONSENSE]
    async with ScriptedTeacher({"examples": _recorded()}, latency=0.01, faults=faults) as teacher:
        made = await _made(own, teacher, GenerateRequest("run/generate", Allowance(), SPEC, 200))
    found = {one.name: one for one in made.outcomes}
    assert {"kept", "duplicate", "invalid", "lost"} <= found.keys()
    for name in ("requests", "prompt_tokens", "completion_tokens", "dollars"):
        assert sum(getattr(one, name) for one in made.outcomes) == pytest.approx(getattr(made.ledger, name))
    assert found["kept"].examples == len(made.rows) == 200
    assert found["duplicate"].examples == made.dropped["duplicate"] + made.dropped.get("near_duplicate", 0)
    assert found["invalid"].requests >= 2
    assert found["lost"].requests >= 1 and found["lost"].completion_tokens > 0
    assert found["kept"].dollars > 0.5 * made.ledger.dollars
