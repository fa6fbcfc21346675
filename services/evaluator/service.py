"""EvaluatorService: proto <-> plain values; the work is in `evaluate` and `resident`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from p2m.evaluator.v1 import evaluator_pb2 as pb
from p2m.evaluator.v1 import evaluator_pb2_grpc

from services.evaluator.evaluate import evaluate
from services.evaluator.measure import measure
from services.evaluator.resident import ResidentModel
from services.evaluator.values import EvaluateRequest, MeasureRequest, PredictRequest
from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Report, Stage, with_progress
from services.kit.values import Progress
from services.kit.wire import from_message, to_message


class EvaluatorService(evaluator_pb2_grpc.EvaluatorServiceServicer):
    """Measures models, and answers with one."""

    name = "evaluator"
    full_name = "p2m.evaluator.v1.EvaluatorService"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._artifacts = Artifacts.open(settings, self.name)
        self._slots = Slots(settings.slots)
        self._stage = Stage(self._artifacts, self._slots)
        self._teacher = Teacher.from_settings(settings, self._artifacts)
        self._resident = ResidentModel(self._artifacts, settings)

    def register(self, server: grpc.aio.Server) -> None:
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(self, server)

    async def warm(self) -> None:
        """Nothing: models come with the requests."""

    async def close(self) -> None:
        await self._resident.close()
        if self._teacher:
            await self._teacher.close()

    async def Evaluate(self, request: pb.EvaluateRequest, context: Any) -> AsyncIterator[pb.EvaluateResponse]:
        async def work(report: Report) -> pb.EvaluateResult:
            plain = from_message(request, EvaluateRequest)
            result = await evaluate(plain, self._artifacts, self._settings, self._teacher, report)
            return to_message(result, pb.EvaluateResult)

        async for response in self._stage.stream(request, pb.EvaluateResponse, pb.EvaluateResult, work):
            yield response

    async def Measure(self, request: pb.MeasureRequest, context: Any) -> AsyncIterator[pb.MeasureResponse]:
        async def work(report: Report) -> pb.MeasureResult:
            plain = from_message(request, MeasureRequest)
            return to_message(await measure(plain, self._artifacts, self._settings, report), pb.MeasureResult)

        async for response in self._stage.stream(request, pb.MeasureResponse, pb.MeasureResult, work):
            yield response

    async def Predict(self, request: pb.PredictRequest, context: Any) -> AsyncIterator[pb.PredictResponse]:
        async def work(report: Report) -> pb.PredictResult:
            plain = from_message(request, PredictRequest)
            return to_message(await self._resident.predict(plain, report), pb.PredictResult)

        with self._slots.take():
            async with contextlib.aclosing(with_progress(work)) as events:
                async for event in events:
                    if isinstance(event, Progress):
                        yield pb.PredictResponse(progress=to_message(event, type(pb.PredictResponse().progress)))
                    else:
                        yield pb.PredictResponse(result=event)
