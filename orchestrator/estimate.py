"""What a run would cost, before anything is spent: low, expected and high for each stage that asks the LLM.

    estimate(job)           requests and tokens by stage and level
    dry_run(...)            `p2m run --dry-run`: the same in dollars, as asked for and by the other preference

How long rows will be is told by the prompt's demonstrations, where it has some. Tokens are UTF-8 bytes / 4 for English
and more for other scripts, so the numbers are an order of magnitude, not an offer; `--budget` is what holds.
"""

from __future__ import annotations

import json
import math
import re
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
# Rows that one request rewrites, or judges.
_ADAPTED_AT_ONCE, _JUDGED_AT_ONCE = 5, 10
_LEVELS = ("low", "expected", "high")
_ASKED_FOR = 5
_PER_ROW_TOKENS = 60
_DEMONSTRATION = re.compile(r"\boutput\b\s*[=:]", re.IGNORECASE)


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


@dataclass(frozen=True)
class Sizes:
    """What is known of the task before it is parsed, in tokens: the prompt, and a row at each level."""

    prompt: int
    row: dict[str, float]


def sizes(prompt: str) -> Sizes:
    """Rows are as long as the prompt's demonstrations; without any, anything from a line to a paragraph."""
    tokens = math.ceil(len(prompt.encode()) / 4)
    shown = len(_DEMONSTRATION.findall(prompt))
    each = (0.3 * tokens / shown, 0.7 * tokens / shown, 1.5 * tokens / shown) if shown else (10.0, 60.0, 250.0)
    return Sizes(tokens, dict(zip(_LEVELS, each, strict=True)))


def estimate(job: Job) -> dict[str, dict[str, Cost]]:
    """Costs by stage, then by level ("low", "expected", "high")."""
    options = job.options
    known = sizes(job.prompt)
    prompt = known.prompt
    number = options.number if options.HasField("number") else NUMBER
    teacher_rows = options.teacher_rows if options.HasField("teacher_rows") else TEACHER_ROWS
    stages = {
        "parse": _levels((1, 1, 2), (prompt + 100, prompt + 300, prompt + 500), (prompt // 2, prompt, prompt + 60))
    }
    if not options.skip_datasets:
        # What such a dataset's card says, the choice among the candidates, the columns; a second look where they fail.
        stages["datasets"] = _levels((2, 3, 5), (prompt + 800, prompt + 2500, prompt + 4000), (50, 150, 300))
        # What nobody asked for is done where the dataset fits only in part, which is not known before.
        levels = _LEVELS if options.adapt else () if options.HasField("adapt") else ("high",)
        for level in levels:
            rows = ADAPTED_ROWS if options.adapt else BY_ITSELF
            requests = 1 + rows // _ADAPTED_AT_ONCE
            tokens = requests * (prompt + 400) + rows * _PER_ROW_TOKENS
            stages["datasets"][level] += Cost(requests, tokens, rows * _PER_ROW_TOKENS)
    if not options.skip_generation and number:
        stages["generate"] = {level: _generation(number, known, level) for level in _LEVELS}
        if options.judge:
            for level in _LEVELS:
                stages["generate"][level] += _judging(number, known, level)
    if not options.model:
        stages["models"] = _levels((1, 1, 2), (prompt // 2 + 80, prompt + 250, prompt + 500), (10, 200, 400))
    if teacher_rows:
        asked = (max(1, teacher_rows // 20), teacher_rows, math.ceil(teacher_rows * 1.1))
        stages["evaluate"] = {level: _answers(rows, known, level) for level, rows in zip(_LEVELS, asked, strict=True)}
    return stages


def _generation(number: int, known: Sizes, level: str) -> Cost:
    """Few examples make small requests, so that the wait is short; many repeats make more of them."""
    usual = 4.0 if number >= 1000 else 3.0 if number >= 100 else 1.5
    each = {"low": float(_ASKED_FOR), "expected": usual, "high": usual / 2.5}[level]
    requests = math.ceil(number / each) + (level != "low")  # one for what the examples may differ in
    # With each goes the task, some of the demonstrations, up to five examples written before, and the wish.
    around = {"low": 0.4 * known.prompt + 60, "expected": 0.7 * known.prompt + 150, "high": known.prompt + 300}[level]
    shown = {"low": 0, "expected": 3, "high": 5}[level]
    written = {"low": number, "expected": 1.3 * number, "high": 2.5 * number}[level]
    completion = written * (known.row[level] + 10)
    return Cost(requests, math.ceil(requests * (around + shown * known.row[level])), math.ceil(completion))


def _judging(number: int, known: Sizes, level: str) -> Cost:
    rows = number * {"low": 1.0, "expected": 1.2, "high": 2.0}[level]
    requests = math.ceil(rows / _JUDGED_AT_ONCE)
    prompt = requests * (0.4 * known.prompt + 100) + rows * known.row[level]
    return Cost(requests, math.ceil(prompt), math.ceil(rows * {"low": 5, "expected": 12, "high": 20}[level]))


def _answers(rows: int, known: Sizes, level: str) -> Cost:
    """The LLM's own answers to test rows. An output is a part of a row, from a word to most of it."""
    around = {"low": 0.6 * known.prompt, "expected": known.prompt + 30, "high": known.prompt + 200}[level]
    output = {"low": 3.0, "expected": 0.3 * known.row["expected"] + 10, "high": known.row["high"] + 30}[level]
    return Cost(rows, math.ceil(rows * (around + known.row[level])), math.ceil(rows * output))


async def dry_run(terminal: Terminal, settings: Settings, job: Job) -> int:
    """Prints the estimate; nothing is started and nothing is spent."""
    from p2m.common.v1 import common_pb2

    from orchestrator import constraints
    from services.kit.prices import Price, price_of

    given = bool(settings.openai_base_url or settings.openai_api_key.get_secret_value())
    price = price_of(settings.llm, settings.openai_base_url, settings) if given else Price(0.0, 0.0)
    stages = estimate(job)
    by_cost = job.options.prefer == common_pb2.PREFER_COST
    if job.as_json:
        told = {
            stage: {level: _plain(stage, cost, price) for level, cost in costs.items()}
            for stage, costs in stages.items()
        }
        print(json.dumps(told | {"total": _added(told)}), file=terminal.out)
        return DONE
    print(f"{'':<10}{'requests':>26}{'tokens':>40}{'dollars':>36}", file=terminal.out)
    print(f"{'':<10}" + "".join(f"{'low · expected · high':>{width}}" for width in (26, 40, 36)), file=terminal.out)
    for stage, costs in stages.items():
        dollars = [_dollars(stage, costs[level], price, by_cost) for level in _LEVELS]
        print(f"{stage:<10}{_cells(costs, dollars)}", file=terminal.out)
    total = {level: _sum(costs[level] for costs in stages.values()) for level in _LEVELS}
    print(f"{'in all':<10}{_cells(total, _totals(stages, price, by_cost))}", file=terminal.out)
    llm = settings.llm if given else "the small LLM that ships with the packages: no dollars, but time"
    print(f"\nBy {llm}. {price.note}".rstrip(), file=terminal.out)
    if "generate" in stages and price.dollars(1, 1):
        print(_other_way(stages, price, by_cost), file=terminal.out)
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


def _levels(
    requests: tuple[int, int, int], prompt_tokens: tuple[int, int, int], completion_tokens: tuple[int, int, int]
) -> dict[str, Cost]:
    """Costs by level; tokens are those of one request."""
    return {
        level: Cost(count, count * prompt, count * completion)
        for level, count, prompt, completion in zip(_LEVELS, requests, prompt_tokens, completion_tokens, strict=True)
    }


def _sum(costs: object) -> Cost:
    return sum(costs, Cost(0, 0, 0))  # type: ignore[call-overload, no-any-return]


def _cells(costs: dict[str, Cost], dollars: list[float]) -> str:
    requests = " · ".join(f"{costs[level].requests:,}" for level in _LEVELS)
    tokens = " · ".join(f"{costs[level].prompt_tokens + costs[level].completion_tokens:,}" for level in _LEVELS)
    return f"{requests:>26}{tokens:>40}{' · '.join(map(dollars_text, dollars)):>36}"


def _totals(stages: dict[str, dict[str, Cost]], price: Price, by_cost: bool) -> list[float]:
    return [sum(_dollars(stage, costs[level], price, by_cost) for stage, costs in stages.items()) for level in _LEVELS]


def _other_way(stages: dict[str, dict[str, Cost]], price: Price, by_cost: bool) -> str:
    """What the run costs with the other preference."""
    other = " · ".join(map(dollars_text, _totals(stages, price, not by_cost)))
    if by_cost:
        return f"That is with --prefer cost, where the LLM's server takes batches; without it: {other}, and no waiting."
    return f"With --prefer cost, by batches, it is {other}, and hours of waiting."


def _plain(stage: str, cost: Cost, price: Price) -> dict[str, float]:
    """`dollars` where time is preferred, `dollars_by_batch` where cost is."""
    return {
        "requests": cost.requests,
        "tokens": cost.prompt_tokens + cost.completion_tokens,
        "dollars": _dollars(stage, cost, price, False),
        "dollars_by_batch": _dollars(stage, cost, price, True),
    }


def _added(told: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    parts = {level: [levels[level] for levels in told.values()] for level in _LEVELS}
    return {level: {unit: sum(part[unit] for part in parts[level]) for unit in parts[level][0]} for level in _LEVELS}


def _dollars(stage: str, cost: Cost, price: Price, by_cost: bool) -> float:
    """Only generation goes by batches."""
    charged = price.by_batch if by_cost and stage == "generate" else price
    return charged.dollars(cost.prompt_tokens, cost.completion_tokens)


def _limits(job: Job) -> str:
    if not job.options.HasField("budget"):
        return ""
    budget = job.options.budget
    named = [(field.name.replace("_", " "), value) for field, value in budget.ListFields()]
    return ", ".join(dollars_text(value) if name == "dollars" else f"{value:,} {name}" for name, value in named)
