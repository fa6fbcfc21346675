"""What a run would cost, before anything is spent: low, expected and high for each stage that asks the LLM.

    estimate(job, ...)      plain numbers
    dry_run(...)            `p2m run --dry-run`

A prompt's tokens are its UTF-8 bytes / 4 for English and more for other scripts, so the numbers are an order of
magnitude, not an offer; `--budget` is what holds.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.adaptation import BY_ITSELF
from orchestrator.amounts import dollars_text
from orchestrator.terminal import DONE, Terminal

if TYPE_CHECKING:
    from orchestrator.commands import Job
    from services.kit.prices import Price
    from services.kit.settings import Settings

NUMBER, TEACHER_ROWS, ADAPTED_ROWS = 200, 100, 500
# Rows that one request rewrites.
_ADAPTED_AT_ONCE = 5
# Examples that one request yields: the five that are asked for, most of them, or few where many repeat what was there.
_ASKED_FOR = 5
_EXAMPLES_PER_REQUEST = {"low": 5.0, "expected": 4.0, "high": 1.5}
_LEVELS = ("low", "expected", "high")
_PER_ROW_TOKENS = 60


@dataclass(frozen=True)
class Cost:
    """What a stage would spend."""

    requests: int
    prompt_tokens: int
    completion_tokens: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


def estimate(job: Job) -> dict[str, dict[str, Cost]]:
    """Costs by stage, then by level ("low", "expected", "high")."""
    options = job.options
    prompt = math.ceil(len(job.prompt.encode()) / 4)
    number = options.number if options.HasField("number") else NUMBER
    teacher_rows = options.teacher_rows if options.HasField("teacher_rows") else TEACHER_ROWS
    stages = {"parse": _levels((1, 1, 2), prompt + 400, prompt + 60)}
    if not options.skip_datasets:
        # What such a dataset's card says, the choice among the candidates, the columns; a second look where they fail.
        stages["datasets"] = _levels((2, 3, 5), prompt + 2500, 150)
        # What nobody asked for is done where the dataset fits only in part, which is not known before.
        levels = _LEVELS if options.adapt else () if options.HasField("adapt") else ("high",)
        for level in levels:
            rows = ADAPTED_ROWS if options.adapt else BY_ITSELF
            requests = 1 + rows // _ADAPTED_AT_ONCE
            tokens = requests * (prompt + 400) + rows * _PER_ROW_TOKENS
            stages["datasets"][level] += Cost(requests, tokens, rows * _PER_ROW_TOKENS)
    if not options.skip_generation and number:
        asked = {level: math.ceil(number / each) for level, each in _EXAMPLES_PER_REQUEST.items()}
        # The prompt goes along with every request, with a sample of what was made before.
        stages["generate"] = {
            level: Cost(
                requests,
                requests * (prompt + 500),
                requests * _PER_ROW_TOKENS * _ASKED_FOR,
            )
            for level, requests in asked.items()
        }
    if not options.model:
        stages["models"] = _levels((1, 1, 2), prompt + 300, 300)
    if teacher_rows:
        low, high = max(1, teacher_rows // 4), math.ceil(teacher_rows * 1.1)
        stages["evaluate"] = {
            level: Cost(rows, rows * (prompt + 150), rows * 40)
            for level, rows in zip(_LEVELS, (low, teacher_rows, high), strict=True)
        }
    return stages


async def dry_run(terminal: Terminal, settings: Settings, job: Job) -> int:
    """Prints the estimate; nothing is started and nothing is spent."""
    from orchestrator import constraints
    from services.kit.prices import Price, price_of

    given = bool(settings.openai_base_url or settings.openai_api_key.get_secret_value())
    price = price_of(settings.llm, settings.openai_base_url, settings) if given else Price(0.0, 0.0)
    stages = estimate(job)
    total = {level: _sum(costs[level] for costs in stages.values()) for level in _LEVELS}
    if job.as_json:
        plain = {
            stage: {level: _plain(cost, price) for level, cost in costs.items()} for stage, costs in stages.items()
        }
        plain["total"] = {level: _plain(cost, price) for level, cost in total.items()}
        print(json.dumps(plain), file=terminal.out)
        return DONE
    print(f"{'':<10}{'requests':>24}{'tokens':>30}{'dollars':>34}", file=terminal.out)
    print(f"{'':<10}" + "".join(f"{'low · expected · high':>{width}}" for width in (24, 30, 34)), file=terminal.out)
    for stage, costs in [*stages.items(), ("in all", total)]:
        print(f"{stage:<10}{_cells(costs, price)}", file=terminal.out)
    llm = settings.llm if given else "the small LLM that ships with the packages: no dollars, but time"
    print(f"\nBy {llm}. {price.note}".rstrip(), file=terminal.out)
    limits = _limits(job)
    print(
        f"The budget stops it at {limits}." if limits else "No budget is set: --budget 2 stops at 2 dollars.",
        file=terminal.out,
    )
    for what, asked in constraints.asked_for(job.options).items():
        if asked:
            print(f"Asked of the {what}: {asked}.", file=terminal.out)
    print("Nothing was started and nothing was spent.", file=terminal.out)
    return DONE


def _levels(requests: tuple[int, int, int], prompt_tokens: int, completion_tokens: int) -> dict[str, Cost]:
    return {
        level: Cost(count, count * prompt_tokens, count * completion_tokens)
        for level, count in zip(_LEVELS, requests, strict=True)
    }


def _sum(costs: object) -> Cost:
    return sum(costs, Cost(0, 0, 0))  # type: ignore[call-overload, no-any-return]


def _cells(costs: dict[str, Cost], price: Price) -> str:
    requests = " · ".join(f"{costs[level].requests:,}" for level in _LEVELS)
    tokens = " · ".join(f"{costs[level].prompt_tokens + costs[level].completion_tokens:,}" for level in _LEVELS)
    dollars = " · ".join(dollars_text(_dollars(costs[level], price)) for level in _LEVELS)
    return f"{requests:>24}{tokens:>30}{dollars:>34}"


def _plain(cost: Cost, price: Price) -> dict[str, float]:
    return {
        "requests": cost.requests,
        "tokens": cost.prompt_tokens + cost.completion_tokens,
        "dollars": _dollars(cost, price),
    }


def _dollars(cost: Cost, price: Price) -> float:
    return price.dollars(cost.prompt_tokens, cost.completion_tokens)


def _limits(job: Job) -> str:
    if not job.options.HasField("budget"):
        return ""
    budget = job.options.budget
    named = [(field.name.replace("_", " "), value) for field, value in budget.ListFields()]
    return ", ".join(dollars_text(value) if name == "dollars" else f"{value:,} {name}" for name, value in named)
