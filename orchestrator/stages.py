"""One typed call per stage, over gRPC; nothing of a stage's work is here.

    Stages(settings)     channels to the six services
    ├── parse, search_datasets, inspect, retrieve, adapt, propose, generate, search_models
    └── prepare, search, train, evaluate, export, measure

A call waits for its service to be ready, and a stream that breaks is asked again with the same request_id: the service
goes on where it was. So is one whose service has lost its store, for as long as `store_patience_s`, or an LLM that has
answered this process's runs before, for as long as `llm_patience_s`: one that never has is more likely a wrong address.
Errors are those of `services.kit.errors`; one that names the service says how to reach it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message
from p2m.common.v1 import common_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2, dataset_retriever_pb2_grpc
from p2m.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from p2m.generator.v1 import generator_pb2, generator_pb2_grpc
from p2m.model_retriever.v1 import model_retriever_pb2, model_retriever_pb2_grpc
from p2m.parser.v1 import parser_pb2, parser_pb2_grpc
from p2m.trainer.v1 import trainer_pb2, trainer_pb2_grpc

from services.kit import channel
from services.kit.errors import DeadlineExceeded, P2MError, Unavailable
from services.kit.settings import SERVICES, Settings
from services.kit.values import Progress

if TYPE_CHECKING:
    from grpc.aio import UnaryUnaryMultiCallable as Method

Report = Callable[[Progress], None]
R = TypeVar("R", bound=Message)
M = TypeVar("M", bound=Message)

# How long a service may take to be ready before the run fails, and how often a broken call is asked again.
READY_TIMEOUT_S = 60.0
# A short stage may ask a small LLM on a busy machine, which answers in minutes.
CALL_TIMEOUT_S = 1800.0
# A batch may take a day, and generation by batches needs a few of them.
BATCHES_TIMEOUT_S = 7 * 24 * 3600.0
_ATTEMPTS = 5
# Between two tries of a stage whose service does not reach its store, or the LLM.
_AWAY_WAIT_S = 2.0
# Codes of a connection that broke. A service's own errors bear a reason that is not just the code's name.
_BROKEN = ("UNAVAILABLE", "CANCELLED", "INTERNAL", "UNKNOWN", "WORKER_KILLED")


class Stages:
    """The six services, as `settings.target` names them."""

    def __init__(self, settings: Settings) -> None:
        self._targets = {service: settings.target(service) for service in SERVICES}
        self._channels = {service: channel.dial(target, settings) for service, target in self._targets.items()}
        self._patience_s = {"STORE_UNREACHABLE": settings.store_patience_s, "LLM_UNREACHABLE": 0.0}
        self._llm_patience_s = settings.llm_patience_s
        self._parser = parser_pb2_grpc.ParserServiceStub(self._channels["parser"])
        self._datasets = dataset_retriever_pb2_grpc.DatasetRetrieverServiceStub(self._channels["dataset_retriever"])
        self._generator = generator_pb2_grpc.GeneratorServiceStub(self._channels["generator"])
        self._models = model_retriever_pb2_grpc.ModelRetrieverServiceStub(self._channels["model_retriever"])
        self._trainer = trainer_pb2_grpc.TrainerServiceStub(self._channels["trainer"])
        self._evaluator = evaluator_pb2_grpc.EvaluatorServiceStub(self._channels["evaluator"])

    async def parse(self, request: parser_pb2.ParseRequest) -> parser_pb2.ParseResponse:
        return await self._unary("parser", self._parser.Parse, request)

    async def search_datasets(
        self, request: dataset_retriever_pb2.SearchRequest
    ) -> dataset_retriever_pb2.SearchResponse:
        return await self._unary("dataset_retriever", self._datasets.Search, request)

    async def inspect(self, request: dataset_retriever_pb2.InspectRequest) -> dataset_retriever_pb2.InspectResponse:
        return await self._unary("dataset_retriever", self._datasets.Inspect, request)

    async def retrieve(
        self, request: dataset_retriever_pb2.RetrieveRequest, report: Report
    ) -> dataset_retriever_pb2.RetrieveResult:
        return await self._stream(
            "dataset_retriever", self._datasets.Retrieve, request, report, dataset_retriever_pb2.RetrieveResult
        )

    async def adapt(
        self, request: dataset_retriever_pb2.AdaptRequest, report: Report
    ) -> dataset_retriever_pb2.AdaptResult:
        return await self._stream(
            "dataset_retriever", self._datasets.Adapt, request, report, dataset_retriever_pb2.AdaptResult
        )

    async def salvage(self, request: generator_pb2.SalvageRequest) -> generator_pb2.SalvageResponse:
        return await self._unary("generator", self._generator.Salvage, request)

    async def generate(self, request: generator_pb2.GenerateRequest, report: Report) -> generator_pb2.GenerateResult:
        waits = request.prefer == common_pb2.PREFER_COST
        return await self._stream(
            "generator", self._generator.Generate, request, report, generator_pb2.GenerateResult,
            BATCHES_TIMEOUT_S if waits else channel.STREAM_TIMEOUT_S,
        )  # fmt: skip

    async def propose(self, request: generator_pb2.ProposeRequest) -> generator_pb2.ProposeResponse:
        return await self._unary("generator", self._generator.Propose, request)

    async def search_models(self, request: model_retriever_pb2.SearchRequest) -> model_retriever_pb2.SearchResponse:
        return await self._unary("model_retriever", self._models.Search, request)

    async def prepare(self, request: trainer_pb2.PrepareRequest, report: Report) -> trainer_pb2.PrepareResult:
        return await self._stream("trainer", self._trainer.Prepare, request, report, trainer_pb2.PrepareResult)

    async def search(self, request: trainer_pb2.SearchRequest, report: Report) -> trainer_pb2.SearchResult:
        return await self._stream(
            "trainer", self._trainer.Search, request, report, trainer_pb2.SearchResult,
            max(channel.STREAM_TIMEOUT_S, 2 * request.budget_seconds),
        )  # fmt: skip

    async def train(self, request: trainer_pb2.TrainRequest, report: Report) -> trainer_pb2.TrainResult:
        return await self._stream("trainer", self._trainer.Train, request, report, trainer_pb2.TrainResult)

    async def evaluate(self, request: evaluator_pb2.EvaluateRequest, report: Report) -> evaluator_pb2.EvaluateResult:
        return await self._stream("evaluator", self._evaluator.Evaluate, request, report, evaluator_pb2.EvaluateResult)

    async def export(self, request: trainer_pb2.ExportRequest, report: Report) -> trainer_pb2.ExportResult:
        return await self._stream("trainer", self._trainer.Export, request, report, trainer_pb2.ExportResult)

    async def measure(self, request: evaluator_pb2.MeasureRequest, report: Report) -> evaluator_pb2.MeasureResult:
        return await self._stream("evaluator", self._evaluator.Measure, request, report, evaluator_pb2.MeasureResult)

    async def close(self) -> None:
        """Closes the channels; calls in flight are cancelled."""
        await asyncio.gather(*(opened.close() for opened in self._channels.values()))

    async def _unary(self, service: str, method: Method[R, M], request: R) -> M:
        return await self._asked_again(service, request, lambda asked: channel.unary(method, asked, CALL_TIMEOUT_S))

    async def _stream(
        self, service: str, method: Any, request: Any, report: Report, result: type[M],
        timeout_s: float = channel.STREAM_TIMEOUT_S,
    ) -> M:  # fmt: skip
        """The call's `result` message, which is of the type that `result` names."""

        def noted(progress: Progress) -> None:
            if progress.ledger is not None and progress.ledger.requests:
                self._patience_s["LLM_UNREACHABLE"] = self._llm_patience_s
            report(progress)

        return await self._asked_again(service, request, lambda asked: channel.stream(method, asked, noted, timeout_s))

    async def _asked_again(self, service: str, request: R, call: Callable[[R], Awaitable[M]]) -> M:
        attempt, away_since = 0, None
        while True:
            await self._ready(service)
            try:
                return await call(request)
            except P2MError as error:
                attempt += 1
                if error.reason == "OTHER_CONTENT" and attempt < _ATTEMPTS:
                    request = _renamed(request)
                    continue
                if error.reason == "DEADLINE_EXCEEDED":
                    raise DeadlineExceeded(
                        "SERVICE_SLOW",
                        f"The {service} service at {self._targets[service]} did not answer in time. What it has "
                        "done is kept: give the same command again to go on.",
                    ) from error
                if error.reason in self._patience_s:
                    # No answer to the stage: the service has given up waiting, or has just started and found nobody.
                    away_since = away_since or time.monotonic()
                    if time.monotonic() - away_since >= self._patience_s[error.reason]:
                        raise
                    attempt -= 1
                    await asyncio.sleep(_AWAY_WAIT_S)
                    continue
                broken = error.reason in _BROKEN
                if not broken or attempt == _ATTEMPTS:
                    raise self._explained(service, error) if broken else error from error
            await asyncio.sleep(0.1 * 2**attempt)

    async def _ready(self, service: str) -> None:
        try:
            await channel.wait_until_serving(self._channels[service], READY_TIMEOUT_S)
        except P2MError as error:
            raise self._explained(service, error) from error

    def _explained(self, service: str, error: P2MError) -> P2MError:
        return Unavailable(
            "SERVICE_UNREACHABLE",
            f"The {service} service at {self._targets[service]} cannot be reached ({error.message.rstrip('.')}). "
            "See that it runs, then give the same command again.",
        )


def _renamed(request: R) -> R:
    """The request under an id of its content's own.

    A run that failed and is tried again may have more data than before; what its later stages then ask for is not what
    was asked for under their usual ids.
    """
    content = type(request)()
    content.CopyFrom(request)
    for name in ("request_id", "allowance", "prefer"):
        if name in content.DESCRIPTOR.fields_by_name:
            content.ClearField(name)
    digest = hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()[:16]
    renamed = type(request)()
    renamed.CopyFrom(request)
    renamed.request_id = f"{request.request_id}/{digest}"  # type: ignore[attr-defined]
    return renamed
