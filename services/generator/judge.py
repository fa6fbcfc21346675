"""Has the LLM look over the rows that it wrote, and leaves out those whose output it holds to be wrong.

    judged      generate, judge, and generate again for what was left out
    Judge       scores: rows in requests of a few at a time, each stored and paid for as any other

A score is given once for a row, whatever stands beside it in a later request: the key of a request names its rows, so
an attempt that was cut off goes on with the scores that it has. What was not scored stays, for want of a reason to drop
it: the allowance was spent, the answer could not be read, or left the row out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from services.generator import outcomes, prompts, variety
from services.generator.generate import generate
from services.generator.values import MOST_EXAMPLES, Generated, GenerateRequest, StopReason
from services.kit.errors import BudgetExhausted
from services.kit.llm import Ask, InvalidAnswer, Message, Schema, Session
from services.kit.settings import Settings
from services.kit.values import Progress, Row

# A row with less is left out: 1 wrong, 2 mostly, 3 in doubt, 4 right but for its form, 5 right.
LEAST_SCORE = 3

_ROWS = 10
_TOKENS_A_SCORE = 20
# So many times the number are generated, one after another, while too few are left. They are fixed, not fitted to what
# was found: so an attempt that goes on asks for nothing that the one before had not needed.
_ROUNDS = (1.0, 1.25, 1.6, 2.2, 3.2)
_DIGITS = 12
_KEY = re.compile(rf"judge/((?:[0-9a-f]{{{_DIGITS}}}-?)+)")


async def judged(
    request: GenerateRequest,
    session: Session,
    llm: str,
    excluded: Sequence[str],
    settings: Settings,
    report: Callable[[Progress], None] = lambda _: None,
    jobs: Callable[[], int] = lambda: 1,
) -> Generated:
    """`generate`, less the rows that are held to be wrong; a few rounds, until there are as many as were wanted.

    Raises what `generate` does.
    """
    judge = Judge(request, session, settings)
    await judge.replay()
    for growth in _ROUNDS:
        number = min(MOST_EXAMPLES, math.ceil(request.number * growth))
        made = await generate(replace(request, number=number), session, llm, excluded, settings, report, jobs)
        await judge.look_over(made.rows, report, jobs)
        good = [row for row in made.rows if judge.score(row) >= LEAST_SCORE]
        missing = request.number - len(good)
        if missing <= 0 or made.stop_reason != StopReason.NUMBER or not judge.within_budget:
            break
    rows = tuple(good[: request.number])
    # Rows come in an order of their own, not that of their making. Those behind the last one that is taken would be
    # surplus, right or wrong: so the counts too depend on the answers alone.
    needed = made.rows.index(rows[-1]) + 1 if missing <= 0 else len(made.rows)
    wrong = needed - len(rows)
    dropped = dict(sorted((Counter(made.dropped) + Counter(judged=wrong, surplus=len(made.rows) - needed)).items()))
    reason = made.stop_reason if made.stop_reason != StopReason.NUMBER else StopReason.NOTHING_NEW
    labels = made.attributes.labels or variety.implied_labels(request.spec.own_instruction, request.spec.demonstrations)
    return replace(
        made,
        rows=rows,
        dropped=dropped,
        stop_reason=StopReason.NUMBER if missing <= 0 else reason if judge.within_budget else StopReason.BUDGET,
        ledger=session.ledger,
        metrics=variety.measured(rows, labels),
        outcomes=outcomes.of(session, len(rows), dropped),
        notes=(*made.notes, judge.note(llm, wrong, needed)),
    )


class Judge:
    """Scores by row. `within_budget` is False once the allowance does not pay for another request."""

    def __init__(self, request: GenerateRequest, session: Session, settings: Settings) -> None:
        self.within_budget = True
        self._request, self._session = request, session
        self._plan = prompts.plan(request.spec, settings.llm_context_tokens)
        self._scores: dict[str, int] = {}

    async def replay(self) -> None:
        """Takes the scores that are stored."""
        for key in await self._session.replay():
            if match := _KEY.fullmatch(key):
                names = match[1].split("-")
                self._take(names, await self._session.ask(Ask(key, (), _schema(len(names)))))

    def score(self, row: Row) -> int:
        """1 to 5; 5 of a row that was not scored."""
        return self._scores.get(_name(row), 5)

    async def look_over(
        self, rows: Sequence[Row], report: Callable[[Progress], None], jobs: Callable[[], int] = lambda: 1
    ) -> None:
        """Scores those of the rows that are not yet scored."""
        batches = iter([*self._batches([row for row in rows if _name(row) not in self._scores])])
        done = sum(_name(row) in self._scores for row in rows)

        async def work() -> None:
            nonlocal done
            for batch in batches:
                if not self.within_budget:
                    return
                await self._ask(batch)
                done += len(batch)
                message = f"{done:,} of {len(rows):,} examples looked over"
                report(Progress(done, len(rows), "examples", message, (), self._session.ledger))

        workers = [asyncio.create_task(work()) for _ in range(max(1, self._session.places // jobs()))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def note(self, llm: str, wrong: int, rows: int) -> str:
        """What a person should know."""
        unscored = "" if self.within_budget else " The allowance did not suffice to look over all."
        return f"{llm} looked over {rows:,} of its own examples and held {wrong:,} to be wrong.{unscored}"

    async def _ask(self, batch: Sequence[Row]) -> None:
        names = [_name(row) for row in batch]
        limit = min(self._plan.max_tokens, 50 + _TOKENS_A_SCORE * len(batch))
        text = _messages(self._request, batch, self._plan)
        try:
            answer = await self._session.ask(
                Ask(f"judge/{'-'.join(names)}", text, _schema(len(batch)), max_tokens=limit, seed=self._request.seed)
            )
        except InvalidAnswer:
            return
        except BudgetExhausted:
            self.within_budget = False
            return
        self._take(names, answer)

    def _take(self, names: Sequence[str], answer: dict[str, list[dict[str, int]]]) -> None:
        for one in answer["scores"]:
            if 1 <= one["number"] <= len(names):
                self._scores[names[one["number"] - 1]] = one["score"]

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """The rows, a few at a time: as many as take half of what the LLM reads."""
        batch: list[Row] = []
        room = size = self._plan.prompt_tokens // 2
        for row in rows:
            size -= prompts.tokens(row.input) + prompts.tokens(row.output)
            if batch and (size < 0 or len(batch) == _ROWS):
                yield batch
                batch, size = [], room
            batch.append(row)
        if batch:
            yield batch


def _messages(request: GenerateRequest, batch: Sequence[Row], plan: prompts.Plan) -> tuple[Message, ...]:
    lines = [
        f"{number}. {json.dumps({'input': row.input, 'output': row.output}, ensure_ascii=False)}"
        for number, row in enumerate(batch, 1)
    ]
    parts = prompts.task(request.spec, plan, "\n".join(lines))
    parts.append("Somebody wrote these further examples:\n" + "\n".join(lines))
    parts.append(
        "Work out for each what the right output to its input is, then score the output that stands there: 5 right, 4 "
        "right but for its form, 3 in doubt, 2 mostly wrong, 1 wrong, or the input is none of this task. Score all "
        f"{len(batch)}, by their numbers."
    )
    system = 'You check examples for training a model. Answer in JSON: {"scores": [{"number": 1, "score": 5}]}'
    return ({"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(parts)})


def _schema(number: int) -> Schema:
    one = {
        "type": "object",
        "properties": {"number": {"type": "integer"}, "score": {"type": "integer", "enum": [1, 2, 3, 4, 5]}},
        "required": ["number", "score"],
    }
    scores = {"type": "array", "items": one, "minItems": 1, "maxItems": number}
    return Schema("scores", {"type": "object", "properties": {"scores": scores}, "required": ["scores"]})


def _name(row: Row) -> str:
    """Of an input with its output: another output of the same input is judged anew."""
    return hashlib.sha256(f"{row.input}\0{row.output}".encode()).hexdigest()[:_DIGITS]
