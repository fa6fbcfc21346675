"""Six services that do little, but as real ones do it: the journal, the stage, the artifacts are the kit's own.

    python -m tests.support.killable FOLDER generator tests.support.small

All but the trainer ask the LLM, one question after another, each naming its request and its number; the trainer trains
in a child process. The answers become the rows of the artifact, so that a run's data tell which answers it has used.

P2M_FAULTS_SERVICE names the service that a process is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from p2m.common.v1 import common_pb2

from bench.idle import IDLE
from services.kit import logs, worker
from services.kit.llm import Ask, Message, Schema, Teacher
from services.kit.server import serve
from services.kit.settings import Settings
from services.kit.stage import Report
from services.kit.values import Allowance, Progress, Row
from services.kit.wire import to_message
from tests.support.jobs import Order, Outcome

# Questions that a request asks; a unary one asks one.
QUESTIONS = 3
SCHEMA = Schema("answer", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
# The fields of results that take the request's own rows.
_ROWS = ("dataset", "train", "validation")


def service(name: str, settings: Settings) -> Any:
    """The service of that name."""
    kind = next(one for one in IDLE if one.name == name)

    class Small(kind):  # type: ignore[misc, valid-type]
        """An idle service that asks, reports and writes."""

        def __init__(self) -> None:
            from collections import Counter

            super().__init__(settings, Counter(), {})
            self.teacher = Teacher.from_settings(settings, self.artifacts)

        async def unary(self, request: Any, response_type: type[Any], response: Any) -> Any:
            async def work() -> Any:
                await self._answers(request, 1, lambda _: None)
                return response

            return await self.stage.unary(request, response_type, work)

        async def stream(self, request: Any, response_type: type[Any], result: Any) -> AsyncIterator[Any]:
            async def work(report: Report) -> Any:
                return await self._work(request, result, report)

            async for event in self.stage.stream(request, response_type, type(result), work):
                yield event

        async def close(self) -> None:
            if self.teacher:
                await self.teacher.close()

        async def _work(self, request: Any, result: Any, report: Report) -> Any:
            if name == "trainer":
                order = Order("train", os.environ.get("P2M_FAULTS_CHILD", ""), QUESTIONS)
                outcome = await worker.run("tests.support.jobs:work", order, Outcome, settings, report)
                answers = [f"{request.request_id} {outcome.said}"]
            else:
                answers = await self._answers(request, QUESTIONS, report)
            rows = [Row(f"input {i}", text, "generated", "", ()) for i, text in enumerate(answers)]
            artifact = to_message(await asyncio.to_thread(self.artifacts.put_rows, rows), common_pb2.Artifact)
            for field in _ROWS:
                if field in result.DESCRIPTOR.fields_by_name:
                    getattr(result, field).CopyFrom(artifact)
            return result

        async def _answers(self, request: Any, number: int, report: Report) -> list[str]:
            assert self.teacher is not None
            session = self.teacher.session(request.request_id, Allowance())
            answers = []
            for one in range(number):
                asked = (Message(role="user", content=f"{name}/{request.request_id}#{one}"),)
                answer = await session.ask(Ask(str(one), asked, SCHEMA))
                answers.append(answer["text"])
                report(Progress(one + 1, number, "answers", ledger=session.ledger))
            return answers

    return Small()


def main() -> int:
    """Serves until SIGTERM."""
    settings = Settings()
    logs.configure(settings.log_level)
    return asyncio.run(serve(service(os.environ["P2M_FAULTS_SERVICE"], settings), settings))
