"""TrainerService: messages in, messages out; a child process does the work, by prepare, search, train and export."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
from p2m.trainer.v1 import trainer_pb2 as pb
from p2m.trainer.v1 import trainer_pb2_grpc

from services.kit import worker
from services.kit.artifacts import Artifacts
from services.kit.errors import InvalidArgument
from services.kit.locations import split
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Report, Stage
from services.kit.wire import from_message, to_message
from services.trainer.calls import (
    ExportRequest,
    ExportResult,
    PrepareRequest,
    PrepareResult,
    SearchRequest,
    SearchResult,
    TrainRequest,
    TrainResult,
    checkpoint_prefix,
)


class TrainerService:
    """The trainer as a gRPC service."""

    name = "trainer"
    full_name = "p2m.trainer.v1.TrainerService"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._artifacts = Artifacts.open(settings, self.name)
        self._stage = Stage(self._artifacts, Slots(settings.slots))

    def register(self, server: grpc.aio.Server) -> None:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server)  # type: ignore[arg-type]

    async def warm(self) -> None:
        """Nothing to load: each call has a process of its own."""

    async def close(self) -> None:
        """Nothing to end: a child ends with its call."""

    async def Prepare(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for response in self._stage.stream(
            request, pb.PrepareResponse, pb.PrepareResult, lambda report: self._prepare(request, report)
        ):
            yield response

    async def Search(self, request: Any, context: Any) -> AsyncIterator[Any]:
        _check_hyper_parameters(request.hyper_parameters)
        for number, candidate in enumerate(request.candidates):
            _check_hyper_parameters(candidate.start, f"candidates[{number}].start")
        async for response in self._stage.stream(
            request, pb.SearchResponse, pb.SearchResult, lambda report: self._search(request, report)
        ):
            if response.WhichOneof("event") == "result":
                await asyncio.to_thread(self._delete_checkpoints, request.request_id)
            yield response

    async def Train(self, request: Any, context: Any) -> AsyncIterator[Any]:
        _check(request)
        async for response in self._stage.stream(
            request, pb.TrainResponse, pb.TrainResult, lambda report: self._train(request, report)
        ):
            if response.WhichOneof("event") == "result":
                # Only now is the result recorded and the checkpoint of no more use.
                await asyncio.to_thread(self._delete_checkpoints, request.request_id)
            yield response

    async def Export(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for response in self._stage.stream(
            request, pb.ExportResponse, pb.ExportResult, lambda report: self._export(request, report)
        ):
            yield response

    async def _prepare(self, request: Any, report: Report) -> Any:
        asked = from_message(request, PrepareRequest)
        result = await worker.run("services.trainer.prepare:prepare", asked, PrepareResult, self._settings, report)
        return to_message(result, pb.PrepareResult)

    async def _search(self, request: Any, report: Report) -> Any:
        asked = from_message(request, SearchRequest)
        result = await worker.run("services.trainer.search:search", asked, SearchResult, self._settings, report)
        return to_message(result, pb.SearchResult)

    async def _train(self, request: Any, report: Report) -> Any:
        asked = from_message(request, TrainRequest)
        result = await worker.run("services.trainer.train:train", asked, TrainResult, self._settings, report)
        return to_message(result, pb.TrainResult)

    async def _export(self, request: Any, report: Report) -> Any:
        asked = from_message(request, ExportRequest)
        result = await worker.run("services.trainer.export:export", asked, ExportResult, self._settings, report)
        return to_message(result, pb.ExportResult)

    def _delete_checkpoints(self, request_id: str) -> None:
        for key in self._artifacts.store.list(checkpoint_prefix(self._artifacts, request_id) + "/"):
            self._artifacts.store.delete(key)


def _check(request: Any) -> None:
    """InvalidArgument where a value of a TrainRequest cannot be meant."""
    split(request.model)
    _check_hyper_parameters(request.hyper_parameters)


def _check_hyper_parameters(asked: Any, where: str = "hyper_parameters") -> None:
    least = {
        "learning_rate": 0.0, "epochs": 0.0, "batch_tokens": 0, "max_input_tokens": 7, "max_output_tokens": 1,
        "checkpoint_steps": 0, "patience": -1, "max_seconds": 0.0, "micro_batch_tokens": 0,
    }  # fmt: skip
    for name, bound in least.items():
        value = getattr(asked, name)
        if asked.HasField(name) and not (math.isfinite(value) and value > bound):
            raise InvalidArgument(
                "BAD_HYPER_PARAMETER",
                f"{name} is {value:g}; wanted a number above {bound:g}.",
                field=f"{where}.{name}",
            )
    if not 0 <= asked.label_smoothing < 1:
        raise InvalidArgument(
            "BAD_HYPER_PARAMETER",
            f"label_smoothing is {asked.label_smoothing:g}; wanted a number from 0 to below 1.",
            field=f"{where}.label_smoothing",
        )
