"""What the generator's strategy does for variety, on a given teacher: one JSON line.

    python -m bench.generation_variety --prompt-spec FILE [--teacher URL] [--num N] [--seed S] [--strategies LIST]
                                       [--home DIR] [--seconds T] [--show N]

Without --teacher the offline one is started. Of N examples in the order of arrival, before any removal:

plain         the same question again and again: all demonstrations, one example a request, one temperature (that of
              the middle of the generator's range)
random        as plain, but with examples written before, drawn at random, in each request
generator     the generator as it is: sizes of prompts, spread sample, rising temperature, attributes, and what keeps
              the LLM from copying, where its server can; it goes on until it has N rows

For each strategy: exact and near (shares of repeats in percent, of the first N usable examples; near by words, exact
ones left out), near_other (the share that a laxer detector finds: half of the pairs of words in common, numbers and
all), distinct_1 and distinct_2, usable (examples that could be read), requests, seconds (of this call).

Of the rows that the generator kept: kept (how many), kept_characters and kept_meaning (how many of them are near to an
earlier one by detectors that did not filter: 0.8 of the runs of five characters in common, datasketch's MinHash; cosine
0.95 of sentence embeddings), stop.

With --home the answers are stored there, as a run's are: the same command goes on where --seconds cut it off, and tells
"unfinished" until it is done. So a long measurement may be taken in pieces.
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

import numpy as np
from datasketch import MinHash, MinHashLSH

from services.generator import prompts, variety
from services.generator.generate import INITIAL_TEMPERATURE, MAX_TEMPERATURE, GenerateRequest, generate
from services.generator.validity import Validity
from services.kit import offline_teacher
from services.kit.artifacts import Artifacts
from services.kit.dedup import NearDuplicates, same_text
from services.kit.embed import Encoder, Texts
from services.kit.errors import P2MError
from services.kit.llm import Ask, InvalidAnswer, Session, Teacher
from services.kit.settings import Settings
from services.kit.text import words
from services.kit.values import Allowance, Demonstration, PromptSpec
from services.parser import rules

# Other measures than the generator's own, and laxer ones.
_OTHER_THRESHOLD = 0.5
_CHARACTERS, _MEANING = 0.8, 0.95


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-spec", required=True, type=Path, metavar="FILE", help="a prompt, or JSON")
    parser.add_argument("--teacher", metavar="URL", help="an OpenAI-compatible server; unset: the offline teacher")
    parser.add_argument("--num", type=int, default=60, metavar="N", help="examples to look at, usable ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strategies", default="plain,random,generator", metavar="LIST")
    parser.add_argument("--home", type=Path, metavar="DIR", help="keep the answers there; unset: nowhere")
    parser.add_argument("--seconds", type=float, metavar="T", help="stop after so long; go on with the same --home")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="write N examples to standard error")
    args = parser.parse_args()
    if not args.teacher and offline_teacher.missing():
        print(json.dumps({"skipped": f"the offline teacher lacks {', '.join(offline_teacher.missing())}"}))
        return 0
    print(json.dumps(asyncio.run(_measure(args))))
    return 0


async def _measure(args: argparse.Namespace) -> dict[str, Any]:
    spec = _read(args.prompt_spec)
    found: dict[str, Any] = {}
    ends = time.monotonic() + args.seconds if args.seconds else None
    for name in args.strategies.split(","):
        if ends and time.monotonic() >= ends:
            found[name] = {"unfinished": True}
            continue
        started = time.perf_counter()
        async with _session(args, name) as (session, settings):
            inputs: list[str] = []
            kept: dict[str, Any] = {}
            work = asyncio.create_task(_STRATEGIES[name](session, settings, spec, args, inputs))
            done, _ = await asyncio.wait([work], timeout=ends and max(0.0, ends - time.monotonic()))
            if done:
                kept = work.result()
            else:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                kept = {"unfinished": True}
            for text in inputs[: args.show]:
                print(f"{name}: {text[:160]!r}", file=sys.stderr)
            found[name] = _figures(inputs[: args.num]) | {
                "usable": len(inputs),
                "requests": session.ledger.requests,
                "seconds": round(time.perf_counter() - started, 1),
            }
            found[name] |= kept
            print(f"{name}: {found[name]}", file=sys.stderr)
    return found


def _read(path: Path) -> PromptSpec:
    """A prompt as text, split by its marks, or as JSON: {"instruction", "demonstrations": [{"input", "output"}]}."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        found = rules.split(text)
        return PromptSpec(found.instruction, found.demonstrations)
    plain = json.loads(text)
    return PromptSpec(
        plain["instruction"], tuple(Demonstration(one["input"], one["output"]) for one in plain["demonstrations"])
    )


async def _by_question(
    written: int, session: Session, settings: Settings, spec: PromptSpec, args: argparse.Namespace, inputs: list[str]
) -> dict[str, Any]:
    """The same question, with so many examples written before; as many at once as the offline teacher serves."""
    plan, validity = prompts.plan(spec, settings.llm_context_tokens), Validity(spec.demonstrations)
    made: list[Demonstration] = []
    rng = random.Random(args.seed)
    degrees = (INITIAL_TEMPERATURE + MAX_TEMPERATURE) / 2
    slot = 0
    while len(made) < args.num and slot < 10 * args.num:
        asks = []
        for _ in range(offline_teacher.PARALLEL):
            shown = rng.sample(made, min(written, len(made)))
            text = prompts.messages(spec, prompts.COMPLEX, shown, plan, 1)
            asks.append(Ask(f"random/{slot}", text, prompts.schema(1), degrees, plan.limit(1), rng.getrandbits(31)))
            slot += 1
        for answer in await asyncio.gather(*map(session.ask, asks), return_exceptions=True):
            if isinstance(answer, InvalidAnswer):
                continue
            if isinstance(answer, BaseException):
                raise answer
            for example in answer["examples"][:1]:
                given, wanted, fault = validity.judge(example)
                if not fault:
                    made.append(Demonstration(given, wanted))
                    inputs.append(given)
    return {}


async def _plain(*given: Any) -> dict[str, Any]:
    return await _by_question(0, *given)


async def _random(*given: Any) -> dict[str, Any]:
    return await _by_question(prompts.COMPLEX.written, *given)


async def _generator(
    session: Session, settings: Settings, spec: PromptSpec, args: argparse.Namespace, inputs: list[str]
) -> dict[str, Any]:
    """A whole job, with a look at what the LLM answered."""
    validity = Validity(spec.demonstrations, spec.own_instruction)

    class Watched:
        """The session, with a look at what it answers."""

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        async def ask(self, ask: Ask) -> Any:
            answer = await session.ask(ask)
            for example in answer.get("examples", []):
                given, _, fault = validity.judge(example)
                if not fault:
                    inputs.append(given)
            return answer

    request = GenerateRequest("bench/variety", Allowance(), spec, args.num, seed=args.seed)
    made = await generate(request, Watched(), "bench", (), settings)  # type: ignore[arg-type]
    rows = [row.input for row in made.rows]
    return {
        "kept": len(rows),
        "kept_characters": _near_by_characters(rows),
        "kept_meaning": await asyncio.to_thread(_near_by_meaning, rows, settings),
        "stop": made.stop_reason.name.lower(),
        "dropped": made.dropped,
        "topics": len(made.attributes.topics),
    }


_STRATEGIES = {"plain": _plain, "random": _random, "generator": _generator}


@asynccontextmanager
async def _session(args: argparse.Namespace, strategy: str) -> AsyncIterator[tuple[Session, Settings]]:
    url = args.teacher
    offline = None if url else await offline_teacher.start()
    try:
        with tempfile.TemporaryDirectory(prefix="p2m-bench-") as temporary:
            home = args.home or Path(temporary)
            settings = Settings(home=home, store="", openai_base_url=url or (offline and offline.base_url) or "")
            if offline:
                update: dict[str, Any] = {"llm_concurrency": offline_teacher.PARALLEL, "llm_timeout_s": 600.0}
                update |= {"llm_context_tokens": offline_teacher.CONTEXT_TOKENS, "llm": offline_teacher.NAME}
                settings = settings.model_copy(update=update)
            teacher = Teacher(settings, Artifacts.open(settings, "generator"))
            try:
                yield teacher.session(f"{args.prompt_spec.stem}/{strategy}/{args.seed}", Allowance()), settings
            finally:
                await teacher.close()
    finally:
        if offline:
            await offline.stop()


def _near_by_characters(texts: list[str]) -> int:
    """Texts that share at least 0.8 of their runs of five characters with an earlier one, numbers and all."""
    index, found = MinHashLSH(threshold=_CHARACTERS, num_perm=256), 0
    runs: dict[str, frozenset[str]] = {}
    for number, text in enumerate(texts):
        mine = frozenset(text[n : n + 5] for n in range(max(1, len(text) - 4)))
        sketch = MinHash(num_perm=256, seed=7)
        sketch.update_batch([run.encode() for run in mine])
        found += any(len(mine & runs[key]) >= _CHARACTERS * len(mine | runs[key]) for key in index.query(sketch))
        runs[str(number)] = mine
        index.insert(str(number), sketch)
    return found


def _near_by_meaning(texts: list[str], settings: Settings) -> int | None:
    """Texts whose embedding has a cosine of at least 0.95 with an earlier one's; None without an encoder."""
    try:
        vectors = np.array(Encoder(settings).answer(Texts(tuple(texts))).vectors)
    except (ImportError, P2MError):
        return None
    near = np.tril(vectors @ vectors.T, k=-1) >= _MEANING
    return int(near.any(axis=1).sum())


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
