"""GeneratorService: proto <-> plain values around `generate`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from p2m.common.v1 import common_pb2 as common
from p2m.generator.v1 import generator_pb2 as pb
from p2m.generator.v1 import generator_pb2_grpc

from services.generator.generate import GenerateRequest, check, generate
from services.generator.judge import judged
from services.generator.propose import ProposeRequest, propose
from services.generator.salvage import SalvageRequest, salvage
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Report, Stage
from services.kit.values import Artifact
from services.kit.wire import from_message, to_message

# Jobs at once, unless P2M_SLOTS says otherwise.
JOBS = 64


class GeneratorService(generator_pb2_grpc.GeneratorServiceServicer):
    """Has the LLM write examples."""

    name = "generator"
    full_name = "p2m.generator.v1.GeneratorService"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.artifacts = Artifacts.open(settings, self.name)
        # A job waits for the LLM and takes hardly any of this machine, unlike those that the usual number is made for.
        self.stage = Stage(self.artifacts, Slots(settings.slots if "slots" in settings.model_fields_set else JOBS))
        self._jobs = 0
        self.teacher = Teacher.from_settings(settings, self.artifacts)

    def register(self, server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)

    async def warm(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        if self.teacher:
            await self.teacher.close()

    async def Generate(self, request: pb.GenerateRequest, context: object) -> AsyncIterator[pb.GenerateResponse]:
        plain = from_message(request, GenerateRequest)
        check(plain)
        # What the allowance cut short is not stored: a larger one goes on with the same id.
        async for response in self.stage.stream(
            request,
            pb.GenerateResponse,
            pb.GenerateResult,
            lambda report: self._generate(plain, report),
            keep=lambda result: result.stop_reason != pb.STOP_REASON_BUDGET,
        ):
            yield response

    async def Propose(self, request: pb.ProposeRequest, context: object) -> pb.ProposeResponse:
        plain = from_message(request, ProposeRequest)
        # An empty one may be a spent allowance's.
        return await self.stage.unary(
            request, pb.ProposeResponse, lambda: self._propose(plain), lambda made: made.HasField("attributes")
        )

    async def _propose(self, request: ProposeRequest) -> pb.ProposeResponse:
        teacher = self._asked()
        session = teacher.session(request.request_id, request.allowance)
        made = await propose(request, session, teacher.name, self.settings)
        return pb.ProposeResponse(
            attributes=to_message(made.attributes, pb.Attributes) if made.attributes else None,
            ledger=to_message(made.ledger, common.Ledger),
            llm=made.llm,
        )

    def _asked(self) -> Teacher:
        if self.teacher is None:
            raise FailedPrecondition(
                "NO_LLM",
                "No LLM is configured, so nothing can be generated. Set OPENAI_API_KEY, or OPENAI_BASE_URL to an "
                "OpenAI-compatible server, or skip generation.",
            )
        return self.teacher

    async def _generate(self, request: GenerateRequest, report: Report) -> pb.GenerateResult:
        teacher = self._asked()
        excluded = await asyncio.to_thread(self._inputs, request.exclude)
        session = teacher.session(request.request_id, request.allowance)
        self._jobs += 1
        try:
            make = judged if request.judge else generate
            made = await make(request, session, teacher.name, excluded, self.settings, report, lambda: self._jobs)
        finally:
            self._jobs -= 1
        dataset = await asyncio.to_thread(self.artifacts.put_rows, made.rows)
        return pb.GenerateResult(
            dataset=to_message(dataset, common.Artifact),
            rows=len(made.rows),
            dropped=made.dropped,
            stop_reason=pb.StopReason.ValueType(made.stop_reason),
            ledger=to_message(made.ledger, common.Ledger),
            llm=teacher.name,
            metrics=[to_message(metric, common.Metric) for metric in made.metrics],
            repeats=[to_message(share, pb.RepeatShare) for share in made.repeats],
            attributes=to_message(made.attributes, pb.Attributes),
            outcomes=[to_message(outcome, pb.Outcome) for outcome in made.outcomes],
            notes=made.notes,
            batched=made.batched,
        )

    async def Salvage(self, request: pb.SalvageRequest, context: object) -> pb.SalvageResponse:
        plain = from_message(request, SalvageRequest)
        excluded = await asyncio.to_thread(self._inputs, plain.exclude)
        made = await asyncio.to_thread(salvage, plain, self.artifacts, excluded)
        dataset = await asyncio.to_thread(self.artifacts.put_rows, made.rows)
        return pb.SalvageResponse(
            dataset=to_message(dataset, common.Artifact), rows=len(made.rows), dropped=made.dropped
        )

    def _inputs(self, datasets: tuple[Artifact, ...]) -> list[str]:
        return [row.input for dataset in datasets for row in self.artifacts.read_rows(dataset)]
