"""A prompt in parts: instruction, demonstrations, language, and an English instruction for the retrievers.

    parse
    ├── _ask_llm       the LLM's split of the prompt
    ├── _merge         what of it holds against the prompt and the rules (`rules.split`)
    └── _in_english    DeepL, else the LLM, else as it is

The LLM reads what no rule foresees; the rules never invent. So the LLM's demonstrations count where they stand in the
prompt literally, and those that the rules found and the LLM left out are put back. Without an LLM, without allowance,
with the LLM out of reach or talking nonsense, the rules parse alone and a note says so. Only a wrong key is an error:
every later stage would meet it again.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import islice

from services.kit.errors import BudgetExhausted, FailedPrecondition, InvalidArgument, P2MError, Unavailable
from services.kit.llm import Ask, Session
from services.kit.settings import Settings
from services.kit.text import check_prompt, detect_language
from services.kit.values import Demonstration, Ledger, PromptSpec
from services.parser.prompts import PROMPT_SPEC, TRANSLATION, split_messages, translation_messages
from services.parser.rules import Split, split, without

# Tokens that the question around the prompt takes.
_FRAME_TOKENS = 600
# The LLM's instruction is as long as what stands outside of the demonstrations, or this much of it: with less it has
# dropped a rule, with more it has kept a demonstration.
_ENOUGH_OF_THE_INSTRUCTION = 0.6
# Places of an input that are looked at; a demonstration that occurs more often is none.
_PLACES = 50
# DeepL takes 128 KiB a request.
_DEEPL_BYTES = 100_000

_NO_INSTRUCTION = "Give the output for the input, as in the examples."


class Method(IntEnum):
    """How a prompt was parsed."""

    UNSPECIFIED = 0
    LLM = 1
    RULES = 2


@dataclass(frozen=True)
class Parsed:
    """A parsed prompt; `notes` are sentences for a person."""

    spec: PromptSpec
    method: Method
    notes: tuple[str, ...] = ()
    ledger: Ledger = field(default_factory=Ledger)


async def parse(prompt: str, session: Session | None, settings: Settings) -> Parsed:
    """Parses a prompt, with the LLM where `session` is one.

    Raises InvalidArgument (EMPTY_PROMPT, PROMPT_TOO_LONG, PROMPT_NUL) and Unauthenticated (WRONG_KEY).
    """
    check_prompt(prompt)
    notes: list[str] = []
    found = await asyncio.to_thread(split, prompt)
    said = await _ask_llm(prompt, session, settings, notes)
    method = Method.RULES if said is None else Method.LLM
    instruction, demonstrations = (found.instruction, found.demonstrations)
    if said is not None:
        instruction, demonstrations = await asyncio.to_thread(_merge, prompt, found, said, notes)
    if found.unanswered:
        notes.append("An input without an output was left out: a demonstration needs both.")
    if not instruction:
        instruction = _NO_INSTRUCTION
        notes.append(f'The prompt has demonstrations only; "{_NO_INSTRUCTION}" stands for its instruction.')
    if not demonstrations:
        notes.append("The prompt has no demonstrations: two or three worked examples make generated data much better.")
    spec = PromptSpec(instruction, demonstrations, await asyncio.to_thread(detect_language, instruction))
    if spec.language != "en":
        spec = await _in_english(spec, session, settings, notes)
    return Parsed(spec, method, tuple(notes), session.ledger if session else Ledger())


# -- the LLM's split


async def _ask_llm(prompt: str, session: Session | None, settings: Settings, notes: list[str]) -> PromptSpec | None:
    """What the LLM says; None, with a note, where the rules must do."""
    if session is None:
        notes.append("No LLM is configured: the prompt was parsed by rules alone.")
        return None
    # The answer repeats the prompt.
    tokens = len(prompt.encode()) // 3
    if _FRAME_TOKENS + 2 * tokens + 200 > settings.llm_context_tokens:
        notes.append("The prompt is too long for the LLM to split: it was parsed by rules alone.")
        return None
    try:
        value = await session.ask(Ask("prompt_spec", split_messages(prompt), PROMPT_SPEC, 0.0, tokens + 200))
    except _RECOVERABLE as error:
        notes.append(f"The prompt was parsed by rules alone: {_because(error)}")
        return None
    demonstrations = tuple(Demonstration(item["input"], item["output"]) for item in value["demonstrations"])
    return PromptSpec(value["instruction"], demonstrations)


# A wrong key is none of them, and neither is a full disk.
_RECOVERABLE = (BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable)


def _because(error: P2MError) -> str:
    return error.message[:1].lower() + error.message[1:] if error.message[1:2].islower() else error.message


def _merge(prompt: str, found: Split, said: PromptSpec, notes: list[str]) -> tuple[str, tuple[Demonstration, ...]]:
    """The LLM's split, as far as the prompt bears it out, and the rules' where it does not."""
    spans = [(one.start, one.end) for one in found.found]
    placed = {(one.start, one.end): one.demonstration for one in found.found}
    by_rules = {_folded(one.input): one for one in found.demonstrations}
    for number, demonstration in enumerate(said.demonstrations, 1):
        same = by_rules.get(_folded(demonstration.input))
        if same is not None:
            if _folded(same.output) != _folded(demonstration.output):
                notes.append(f"For {_short(same.input)} the LLM read another output; the prompt's own was kept.")
            continue
        span = _literal(prompt, demonstration)
        if span is None:
            given = _short(demonstration.input)
            notes.append(f"Demonstration {number} of the LLM was refused, for it is not in the prompt: {given}")
        elif not any(span[0] < end and start < span[1] for start, end in placed):
            placed[span] = demonstration
            spans.append(span)
    demonstrations = tuple(placed[span] for span in sorted(placed))
    remainder = found.instruction if len(spans) == len(found.found) else without(prompt, spans)
    return _instruction(prompt, remainder, said.instruction, bool(found.found), notes), demonstrations


def _instruction(prompt: str, remainder: str, said: str, marked: bool, notes: list[str]) -> str:
    """The LLM's instruction where it is the prompt's own words and most of them; else what is left of the prompt.

    Where the rules found demonstrations, what is left around them is exact, and nothing is better.
    """
    if marked or _folded(said) == _folded(remainder):
        return remainder
    share = len(_folded(said)) / max(1, len(_folded(remainder)))
    enough = _ENOUGH_OF_THE_INSTRUCTION <= share <= 1 / _ENOUGH_OF_THE_INSTRUCTION
    if enough and all(_folded(part) in _folded(prompt) for part in said.split("\n") if part.strip()):
        return said.strip()
    notes.append(
        "The LLM's instruction is not the prompt's own text; what stands outside of the demonstrations was kept."
    )
    return remainder


def _literal(prompt: str, demonstration: Demonstration) -> tuple[int, int] | None:
    """Where the demonstration stands: its input and, after it, its output. None where it does not."""
    given, wanted = demonstration.input.strip(), demonstration.output.strip()
    if not given or not wanted:
        return None
    spans = []
    output = _spaced(wanted)
    for place in islice(_spaced(given).finditer(prompt), _PLACES):
        after = output.search(prompt, place.end())
        if after is None:
            break
        spans.append((place.start(), after.end()))
    # The instruction may name the input too: where the two stand closest is where they are a demonstration.
    return min(spans, key=lambda span: span[1] - span[0], default=None)


def _spaced(text: str) -> re.Pattern[str]:
    """The text as whole words, whatever the spaces between them."""
    body = r"\s+".join(re.escape(word) for word in text.split())
    return re.compile((r"(?<!\w)" if text[0].isalnum() else "") + body + (r"(?!\w)" if text[-1].isalnum() else ""))


def _folded(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


# -- English, for the retrievers


async def _in_english(spec: PromptSpec, session: Session | None, settings: Settings, notes: list[str]) -> PromptSpec:
    """The spec with an English instruction and the original kept; as it is, with a note, where nobody translates."""
    own = spec.instruction
    english = await _by_deepl(own, settings, notes) or await _by_llm(own, session, settings, notes)
    if not english:
        notes.append(
            f"The instruction is in language {spec.language!r} and was not translated: retrieval will be poorer."
        )
        return spec
    return replace(spec, instruction=english, original_instruction=own)


async def _by_deepl(text: str, settings: Settings, notes: list[str]) -> str:
    key = settings.deepl_api_key.get_secret_value()
    if not key or len(text.encode()) > _DEEPL_BYTES:
        return ""
    import deepl

    # Its own number, five, is a minute of waiting for a server that is not there.
    deepl.http_client.max_network_retries = 1
    client = deepl.DeepLClient(key, server_url=settings.deepl_url or None, send_platform_info=False)
    try:
        answer = await asyncio.to_thread(client.translate_text, text, target_lang="EN-US")
    except deepl.DeepLException as error:
        notes.append(f"DeepL did not translate the instruction ({str(error)[:120]}); look at DEEPL_API_KEY.")
        return ""
    finally:
        client.close()
    return str(answer.text).strip()


async def _by_llm(text: str, session: Session | None, settings: Settings, notes: list[str]) -> str:
    # A script without spaces has about a token a character, and so may its translation.
    tokens = len(text) + 100
    if session is None or _FRAME_TOKENS + 2 * tokens > settings.llm_context_tokens:
        return ""
    try:
        value = await session.ask(Ask("translation", translation_messages(text), TRANSLATION, 0.0, tokens))
    except _RECOVERABLE as error:
        notes.append(f"The LLM did not translate the instruction: {_because(error)}")
        return ""
    english = str(value["translation"]).strip()
    if not english or detect_language(english) != "en":
        notes.append("The LLM's translation of the instruction is not English and was refused.")
        return ""
    return english
