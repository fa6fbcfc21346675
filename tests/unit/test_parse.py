"""A prompt in parts, by the rules alone and with an LLM."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.kit.artifacts import Artifacts
from services.kit.errors import InvalidArgument, Unauthenticated
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance
from services.parser.parse import Method, Parsed, parse
from services.parser.rules import split
from tests.support.teacher import EMPTY, NONSENSE, TOY_PROMPT, WRONG_KEY, ScriptedTeacher

Pairs = list[tuple[str, str]]


def _pairs(parsed: Any) -> Pairs:
    return [(one.input, one.output) for one in parsed.demonstrations]


# -- by the rules


def test_the_squad_prompt(shared: Path) -> None:
    """The prompt with quotes inside its inputs gives its three demonstrations and its first paragraph, exactly."""
    prompt = (shared / "data/tasks/squad/prompt.txt").read_text()
    parts = split(prompt)
    assert parts.instruction == prompt.split("\n\n")[0]
    assert [output for _, output in _pairs(parts)] == ["Santa Clara", "Vistula River", "Europe"]
    for demonstration in parts.demonstrations:
        assert demonstration.input.startswith("Question: ")
        assert f'input="{demonstration.input}"\noutput="{demonstration.output}"' in prompt


def test_the_temporal_prompt(shared: Path) -> None:
    """The prompt whose rules mention output="N/A" gives its twelve demonstrations and keeps all its rules."""
    prompt = (shared / "data/tasks/temporal/prompt.txt").read_text()
    parts = split(prompt)
    assert len(parts.demonstrations) == 12
    assert parts.instruction == prompt.split("\n\nHere are some examples:")[0]
    assert [output for _, output in _pairs(parts)].count("N/A") == 5
    assert _pairs(parts)[-2][1] == "the end of next month == 2022-05-31"


@pytest.mark.parametrize(
    ("prompt", "instruction", "pairs"),
    [
        pytest.param(
            'Do it.\n\ninput="a"\noutput="b"\n\ninput="c"\noutput="d"', "Do it.", [("a", "b"), ("c", "d")], id="quoted"
        ),
        pytest.param(
            'Sort. input="3 1" output="1 3", input="9 8" output="8 9".', "Sort.", [("3 1", "1 3"), ("9 8", "8 9")],
            id="quoted on one line",
        ),
        pytest.param(
            "Do it.\n\ninput=“a “b” c”\noutput=“d”\n\ninput=“e\nf”\noutput=“g”", "Do it.",
            [("a “b” c", "d"), ("e\nf", "g")], id="curly quotes, quotes within, several lines",
        ),
        pytest.param(
            'Cite. input="He asked the question: "why?" and left" output="why"', "Cite.",
            [('He asked the question: "why?" and left', "why")], id="a label within",
        ),
        pytest.param(
            'Rate it.\n\nInput: Great!\nOutput: good\n\nInput: Bad "x"\nOutput: bad\n\nAnswer in one word.',
            "Rate it.\n\nAnswer in one word.", [("Great!", "good"), ('Bad "x"', "bad")], id="blocks, rules after them",
        ),
        pytest.param(
            "Multi.\n\nInput: a\n\nOutput: one\n\ntwo\n\nInput: b\n\nOutput: three\n\nThanks.", "Multi.\n\nThanks.",
            [("a", "one\n\ntwo"), ("b", "three")], id="outputs of several paragraphs",
        ),
        pytest.param("Answer.\nQ: one?\nA: 1\nQ: two?\nA: 2", "Answer.", [("one?", "1"), ("two?", "2")], id="Q and A"),
        pytest.param(
            "Answer.\n\nQuestion: Who?\nContext: Bob did.\nAnswer: Bob", "Answer.",
            [("Question: Who?\nContext: Bob did.", "Bob")], id="an input of two fields",
        ),
        pytest.param(
            "Answer.\n\nInput: Question: Who? Context: Bob.\nOutput: Bob", "Answer.",
            [("Question: Who? Context: Bob.", "Bob")], id="a field within an input",
        ),
        pytest.param(
            "# Task\nTranslate.\n\n## Examples\n\n### Example 1\n**Input:** hello\n**Output:** bonjour\n\n"
            "### Example 2\n**Input:** cat\n**Output:** chat\n",
            "# Task\nTranslate.", [("hello", "bonjour"), ("cat", "chat")], id="Markdown",
        ),
        pytest.param(
            "Run.\nExample 1:\nInput: ```\nx\n  y\n```\nOutput: ```\nz\n```\nExample 2:\nInput: a\nOutput: b", "Run.",
            [("x\n  y", "z"), ("a", "b")], id="fences",
        ),
        pytest.param(
            "Do.\nInput: a\nOutput: b\n---\nInput: c\nOutput: d\n---", "Do.", [("a", "b"), ("c", "d")], id="rulers"
        ),
        pytest.param(
            "Table.\n\n| Input | Output |\n|---|:-:|\n| a b | c |\n| d | e |\n\nEnd.", "Table.\n\nEnd.",
            [("a b", "c"), ("d", "e")], id="a table",
        ),
        pytest.param(
            'Do.\n[{"input": "a\\n b", "output": "c"},\n {"input": "d", "output": "e"}]\nDone.', "Do.\n\nDone.",
            [("a\n b", "c"), ("d", "e")], id="JSON",
        ),
        pytest.param(
            'Map words.\n"cat" -> "animal"\n"rose" => "plant"', "Map words.", [("cat", "animal"), ("rose", "plant")],
            id="arrows",
        ),
        pytest.param(
            "Map words. For example:\n- cat → animal", "Map words.", [("cat", "animal")], id="one arrow, announced"
        ),
        pytest.param(
            "Rate films.\n\nFilm: Alien\nVerdict: good\n\nFilm: Cats\nVerdict: bad\n\nBe brief.",
            "Rate films.\n\nBe brief.", [("Alien", "good"), ("Cats", "bad")], id="labels of one's own",
        ),
        pytest.param(
            "文から日付を抜き出してください。\n\n例：\n入力：「会議は3月5日です」\n出力：「3月5日」\n\n入力：「明日休み」\n出力：「なし」",
            "文から日付を抜き出してください。", [("会議は3月5日です", "3月5日"), ("明日休み", "なし")], id="Japanese",
        ),
        pytest.param(
            "会社名を答えてください。\n入力「A社の請求書」 出力「A社」\n入力「B社」 出力「B社」",
            "会社名を答えてください。",
            [("A社の請求書", "A社"), ("B社", "B社")], id="Japanese without colons",
        ),
        pytest.param(
            "Finde das Datum.\n\nBeispiele:\n\nEingabe: Am 3. Mai 2021\nAusgabe: 2021-05-03\n\n"
            "Eingabe: Heute\nAusgabe: N/A",
            "Finde das Datum.", [("Am 3. Mai 2021", "2021-05-03"), ("Heute", "N/A")], id="German",
        ),
        pytest.param(
            "Donne le pluriel.\n\nExemples :\nEntrée : cheval\nSortie : chevaux", "Donne le pluriel.",
            [("cheval", "chevaux")], id="French",
        ),
    ],
)  # fmt: skip
def test_ways_of_writing(prompt: str, instruction: str, pairs: Pairs) -> None:
    """Every usual way to write demonstrations is read; what stands around them is the instruction."""
    parts = split(prompt)
    assert _pairs(parts) == pairs
    assert parts.instruction == instruction
    assert not parts.unanswered


@pytest.mark.parametrize(
    "prompt",
    [
        "Just summarise the text in one line.",
        'Write input="x" when asked.',
        "Convert A -> B in the text.",
        "The output should be 'N/A', i.e., output=\"N/A\".",
        "Note: be brief.\nRule: no names.",
        "Translate {text} into French.",
    ],
)
def test_no_demonstrations(prompt: str) -> None:
    """Where there are none, none is made up, and the whole prompt is the instruction."""
    parts = split(prompt)
    assert parts.demonstrations == ()
    assert parts.instruction == prompt


def test_an_input_without_output_is_no_demonstration() -> None:
    """A form to be filled in at the prompt's end belongs neither to the demonstrations nor to the instruction."""
    parts = split("Add.\n\nInput: 1 1\nOutput: 2\n\nInput: {input}\nOutput:")
    assert (_pairs(parts), parts.instruction, parts.unanswered) == ([("1 1", "2")], "Add.", True)


@pytest.mark.parametrize(
    "piece",
    [
        'input="', 'input="a" output="', '\ninput="', " ", '{"input":"', '{"input":"a","output":', "\n####",
        "\nInput: a", "\nab: x", "\nInput: a\nOutput: b", '"', "a -> b\n", "|a|b|\n", "1.", "# ",
        "*", "```", 'question: "', "例：",
    ],
)  # fmt: skip
def test_hostile_prompts_take_no_time(piece: str) -> None:
    """No prompt of the greatest length takes long, whatever marks it repeats."""
    started = time.perf_counter()
    split(("Input: x\n" + piece * 200_000)[:200_000])
    assert time.perf_counter() - started < 8


# -- with an LLM


@asynccontextmanager
async def _session(settings: Settings, teacher: ScriptedTeacher, **changes: Any) -> AsyncIterator[tuple[Any, Settings]]:
    own = settings.model_copy(update={"openai_base_url": teacher.url, **changes})
    asked = Teacher(own, Artifacts.open(own, "parser"))
    try:
        yield asked.session(f"{uuid.uuid4().hex}/parse", Allowance()), own
    finally:
        await asked.close()


async def _parsed(prompt: str, settings: Settings, spec: Any = None, **scripted: Any) -> Parsed:
    answers = {} if spec is None else {"prompt_spec": spec}
    translation = scripted.pop("translation", None)
    if translation is not None:
        answers["translation"] = {"translation": translation}
    async with ScriptedTeacher(answers, **scripted) as teacher, _session(settings, teacher) as (session, own):
        return await parse(prompt, session, own)


def _spec(instruction: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    return {
        "instruction": instruction,
        "demonstrations": [{"input": given, "output": wanted} for given, wanted in pairs],
    }


async def test_the_llm_reads_what_no_rule_foresees(settings: Settings) -> None:
    """Demonstrations that are marked in no usual way come from the LLM, as they stand in the prompt."""
    prompt = "Give the plural. Names stay as they are.\n\nmouse becomes mice\nchild becomes children"
    spec = _spec("Give the plural. Names stay as they are.", ("mouse", "mice"), ("child", "children"))
    parsed = await _parsed(prompt, settings, spec)
    assert parsed.method == Method.LLM
    assert _pairs(parsed.spec) == [("mouse", "mice"), ("child", "children")]
    assert parsed.spec.instruction == "Give the plural. Names stay as they are."
    assert parsed.ledger.requests == 1


async def test_an_invented_demonstration_is_refused(settings: Settings) -> None:
    """What the LLM says stands in the prompt and does not is left out, and a note says so."""
    spec = _spec("Add the numbers.", ("1 1", "2"), ("40 2", "42"), ("1 1", "11"))
    parsed = await _parsed("Add the numbers.\n\nInput: 1 1\nOutput: 2", settings, spec)
    assert _pairs(parsed.spec) == [("1 1", "2")]
    assert any("refused" in note and "40 2" in note for note in parsed.notes)
    assert any("another output" in note for note in parsed.notes)


async def test_what_the_llm_forgot_is_put_back(settings: Settings) -> None:
    """Demonstrations and rules of the prompt that the LLM dropped are kept."""
    parsed = await _parsed(TOY_PROMPT, settings, _spec("Name a colour."))
    assert len(parsed.spec.demonstrations) == 3
    assert parsed.spec.instruction == TOY_PROMPT.split("\n\n")[0]


async def test_an_instruction_of_the_llm_s_own_is_refused(settings: Settings) -> None:
    """An instruction that is not the prompt's text, or a fraction of it, gives way to the prompt's own."""
    prompt = "Shorten the headline to at most five words. Keep all names."
    for said in ("Write a poem about headlines and keep every name in it.", "Keep all names."):
        parsed = await _parsed(prompt, settings, _spec(said))
        assert parsed.spec.instruction == prompt
        assert any("own text" in note for note in parsed.notes)
    parsed = await _parsed(prompt, settings, _spec(prompt))
    assert not any("own text" in note for note in parsed.notes)


@pytest.mark.parametrize("fault", [NONSENSE, EMPTY])
async def test_nonsense_falls_back(settings: Settings, fault: Any) -> None:
    """An answer that cannot be used costs a note and one request, not the parse."""
    parsed = await _parsed(TOY_PROMPT, settings, always=fault)
    assert parsed.method == Method.RULES
    assert len(parsed.spec.demonstrations) == 3
    assert parsed.ledger.invalid == 1
    assert any("rules alone" in note for note in parsed.notes)


async def test_a_wrong_key_propagates(settings: Settings) -> None:
    """A key that is refused is an error."""
    with pytest.raises(Unauthenticated):
        await _parsed(TOY_PROMPT, settings, always=WRONG_KEY)


async def test_an_unreachable_llm_falls_back(settings: Settings) -> None:
    """With the LLM out of reach the rules parse, and a note names the cause."""
    async with ScriptedTeacher() as teacher:
        pass
    async with _session(settings, teacher, llm_patience_s=0.1) as (session, own):
        parsed = await parse(TOY_PROMPT, session, own)
    assert parsed.method == Method.RULES
    assert any("out of reach" in note for note in parsed.notes)


async def test_a_prompt_too_long_for_the_llm(settings: Settings) -> None:
    """A prompt that the LLM cannot read and repeat is parsed by rules, without a request."""
    async with ScriptedTeacher() as teacher, _session(settings, teacher) as (session, own):
        parsed = await parse(TOY_PROMPT + "x" * 20_000, session, own)
        assert teacher.count["requests"] == 0
    assert parsed.method == Method.RULES
    assert any("too long" in note for note in parsed.notes)


async def test_demonstrations_only(settings: Settings) -> None:
    """A prompt of demonstrations alone gets an instruction, and a note says which."""
    parsed = await parse('input="1 1"\noutput="2"', None, settings)
    assert parsed.spec.instruction
    assert any(parsed.spec.instruction in note for note in parsed.notes)


async def test_no_prompt(settings: Settings) -> None:
    """What is no prompt is refused before anything is asked."""
    async with ScriptedTeacher() as teacher, _session(settings, teacher) as (session, own):
        with pytest.raises(InvalidArgument):
            await parse(" ", session, own)
        assert teacher.count["requests"] == 0


# -- languages

GERMAN = "Finde das Datum im Satz und gib es im ISO-Format aus.\n\nEingabe: Am 3. Mai 2021\nAusgabe: 2021-05-03"
ENGLISH = "Find the date in the sentence and give it in ISO format."


async def test_translation_by_the_llm(settings: Settings) -> None:
    """An instruction in another language is translated for the retrievers, and the original is kept."""
    spec = (await _parsed(GERMAN, settings, _spec("", ("Am 3. Mai 2021", "2021-05-03")), translation=ENGLISH)).spec
    assert (spec.language, spec.instruction) == ("de", ENGLISH)
    assert spec.own_instruction == spec.original_instruction == GERMAN.split("\n")[0]


@pytest.mark.parametrize("translation", ["", "Finde das Datum im Satz und gib es im ISO-Format aus."])
async def test_a_bad_translation_is_refused(settings: Settings, translation: str) -> None:
    """What is empty or not English is no translation: the instruction stays as it is, with a note."""
    parsed = await _parsed(GERMAN, settings, _spec("", ("Am 3. Mai 2021", "2021-05-03")), translation=translation)
    assert parsed.spec.instruction == GERMAN.split("\n")[0]
    assert parsed.spec.original_instruction == ""
    assert any("not translated" in note for note in parsed.notes)


async def test_nobody_translates(settings: Settings) -> None:
    """Without DeepL and LLM the instruction stays as it is, and a note says what follows."""
    parsed = await parse(GERMAN, None, settings)
    assert parsed.spec.own_instruction == parsed.spec.instruction == GERMAN.split("\n")[0]
    assert any("not translated" in note for note in parsed.notes)


@asynccontextmanager
async def _deepl(status: int = 200) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server that speaks DeepL's protocol and knows one sentence."""
    asked: list[dict[str, Any]] = []

    async def translate(request: web.Request) -> web.Response:
        body = await request.text()
        asked.append({"body": body, "key": request.headers.get("Authorization", "")})
        translation = {"detected_source_language": "DE", "text": ENGLISH, "billed_characters": len(GERMAN)}
        answer = {"translations": [translation]}
        return web.Response(text=json.dumps(answer), status=status, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v2/translate", translate)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def test_translation_by_deepl(settings: Settings) -> None:
    """With a DeepL key DeepL translates, and no LLM is asked to."""
    async with _deepl() as (url, asked):
        own = Settings.model_validate(settings.reveal() | {"deepl_api_key": "k:fx", "deepl_url": url})
        parsed = await parse(GERMAN, None, own)
    assert parsed.spec.instruction == ENGLISH
    assert parsed.spec.original_instruction == GERMAN.split("\n")[0]
    assert len(asked) == 1
    assert "k:fx" in asked[0]["key"]
    assert "EN-US" in asked[0]["body"]


async def test_deepl_refuses_the_key(settings: Settings) -> None:
    """Where DeepL fails the LLM translates, and a note tells what DeepL said."""
    async with _deepl(status=403) as (url, _), ScriptedTeacher({"translation": {"translation": ENGLISH}}) as teacher:
        base = Settings.model_validate(settings.reveal() | {"deepl_api_key": "k:fx", "deepl_url": url})
        async with _session(base, teacher) as (session, own):
            parsed = await parse(GERMAN, session, own)
    assert parsed.spec.instruction == ENGLISH
    assert any("DeepL" in note for note in parsed.notes)
