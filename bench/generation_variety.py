"""What the generator's strategy does for variety, on a given teacher: one JSON line.

    python -m bench.generation_variety --prompt-spec FILE [--teacher URL] [--num N] [--seed S] [--strategies LIST]

Without --teacher the offline one is started. Of N examples in the order of arrival, before any removal:

random        one example a request, the demonstrations always in full, examples written before drawn at random, one
              temperature (that of the middle of the generator's range)
generator     the generator as it is: sizes of prompts, spread sample, rising temperature, attributes

For each strategy: exact and near (shares of repeats, in percent; near by words, exact ones left out), near_other (the
share that a detector other than the generator's finds: half of the pairs of words in common, numbers and all),
distinct_1 and distinct_2, usable (examples that could be read), requests, seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.generation import _read_spec
from services.generator import prompts, variety
from services.generator.generate import INITIAL_TEMPERATURE, MAX_TEMPERATURE, GenerateRequest, generate
from services.generator.validity import Validity
from services.kit import offline_teacher
from services.kit.artifacts import Artifacts
from services.kit.dedup import NearDuplicates, same_text
from services.kit.llm import Ask, InvalidAnswer, Session, Teacher
from services.kit.settings import Settings
from services.kit.text import words
from services.kit.values import Allowance, Demonstration, PromptSpec

# Another measure than the generator's own, and a laxer one.
_OTHER_THRESHOLD = 0.5


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-spec", required=True, type=Path, metavar="FILE", help="instruction, demonstrations")
    parser.add_argument("--teacher", metavar="URL", help="an OpenAI-compatible server; unset: the offline teacher")
    parser.add_argument("--num", type=int, default=60, metavar="N", help="examples to look at, usable ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategies", default="random,generator", metavar="LIST")
    args = parser.parse_args()
    if not args.teacher and offline_teacher.missing():
        print(json.dumps({"skipped": f"the offline teacher lacks {', '.join(offline_teacher.missing())}"}))
        return 0
    print(json.dumps(asyncio.run(_measure(args))))
    return 0


async def _measure(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    spec = _read_spec(args.prompt_spec)
    found = {}
    for name in args.strategies.split(","):
        async with _session(args.teacher) as (session, settings):
            started = time.perf_counter()
            inputs = await _STRATEGIES[name](session, settings, spec, args.num, args.seed)
            found[name] = _figures(inputs[: args.num]) | {
                "usable": len(inputs),
                "requests": session.ledger.requests,
                "seconds": round(time.perf_counter() - started, 1),
            }
            print(f"{name}: {found[name]}", file=sys.stderr)
    return found


async def _by_random(session: Session, settings: Settings, spec: PromptSpec, number: int, seed: int) -> list[str]:
    plan, validity = prompts.plan(spec, settings.llm_context_tokens), Validity(spec.demonstrations)
    made: list[Demonstration] = []
    rng = random.Random(seed)
    degrees = (INITIAL_TEMPERATURE + MAX_TEMPERATURE) / 2
    slot = 0
    while len(made) < number and slot < 10 * number:
        shown = rng.sample(made, min(prompts.COMPLEX.written, len(made)))
        text = prompts.messages(spec, prompts.COMPLEX, shown, plan, 1)
        ask = Ask(f"random/{slot}", text, prompts.schema(1), degrees, plan.limit(1), rng.getrandbits(31))
        slot += 1
        try:
            answer = await session.ask(ask)
        except InvalidAnswer:
            continue
        for example in answer["examples"][:1]:
            given, wanted, fault = validity.judge(example)
            if not fault:
                made.append(Demonstration(given, wanted))
    return [one.input for one in made]


async def _by_generator(session: Session, settings: Settings, spec: PromptSpec, number: int, seed: int) -> list[str]:
    """The inputs of the stored answers, in the order in which they were asked for."""
    inputs: list[str] = []
    validity, enough = Validity(spec.demonstrations), asyncio.Event()

    class Recorded:
        """The session, with a look at what it answers."""

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        async def ask(self, ask: Ask) -> Any:
            answer = await session.ask(ask)
            for example in answer.get("examples", []):
                given, _, fault = validity.judge(example)
                if not fault:
                    inputs.append(given)
            if len(inputs) >= number:
                enough.set()
            return answer

    # A job of many examples, cut off at the number that is looked at: so the strategy is that of a real job.
    request = GenerateRequest("bench/variety", Allowance(), spec, max(100, number), seed=seed)
    job = asyncio.create_task(generate(request, Recorded(), "bench", (), settings))  # type: ignore[arg-type]
    watch = asyncio.create_task(enough.wait())
    await asyncio.wait([job, watch], return_when=asyncio.FIRST_COMPLETED)
    job.cancel()
    watch.cancel()
    await asyncio.gather(job, return_exceptions=True)
    return inputs


_STRATEGIES = {"random": _by_random, "generator": _by_generator}


@asynccontextmanager
async def _session(url: str | None) -> AsyncIterator[tuple[Session, Settings]]:
    offline = None if url else await offline_teacher.start()
    try:
        with tempfile.TemporaryDirectory(prefix="p2m-bench-") as home:
            settings = Settings(home=Path(home), store="", openai_base_url=url or (offline and offline.base_url) or "")
            if offline:
                update = {"llm_concurrency": offline_teacher.PARALLEL, "llm_timeout_s": 600.0}
                update |= {"llm_context_tokens": offline_teacher.CONTEXT_TOKENS, "llm": offline_teacher.NAME}
                settings = settings.model_copy(update=update)
            teacher = Teacher(settings, Artifacts.open(settings, "generator"))
            try:
                yield teacher.session("bench/variety", Allowance()), settings
            finally:
                await teacher.close()
    finally:
        if offline:
            await offline.stop()


def _figures(inputs: list[str]) -> dict[str, float]:
    near, seen, bags = NearDuplicates(), set[str](), list[frozenset[tuple[str, str]]]()
    exact = close = other = 0
    for text in map(same_text, inputs):
        found = words(text)
        bag = frozenset(itertools.pairwise(found))
        if text in seen:
            exact += 1
        elif text in near:
            close += 1
        other += any(len(bag & earlier) >= _OTHER_THRESHOLD * max(1, len(bag | earlier)) for earlier in bags)
        seen.add(text)
        near.add(text)
        bags.append(bag)
    share = {"exact": exact, "near": close, "near_other": other}
    shares = {name: round(100 * count / max(1, len(inputs)), 1) for name, count in share.items()}
    return shares | {f"distinct_{n}": round(variety.distinct(inputs, n), 1) for n in (1, 2)}


if __name__ == "__main__":
    sys.exit(main())
