"""Six services whose stages do nothing: what is left of a run is what the house itself costs.

    async with idle(settings) as targets: ...     the targets as settings, {"parser_target": "127.0.0.1:50123", ...}

They answer at once with the smallest results that a run can go on with, and count the work they do as
"<service>.<Request>"; what is stored is given again and not counted. `before` names what is awaited before the work.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from p2m.common.v1 import common_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2, dataset_retriever_pb2_grpc
from p2m.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc
from p2m.generator.v1 import generator_pb2, generator_pb2_grpc
from p2m.model_retriever.v1 import model_retriever_pb2, model_retriever_pb2_grpc
from p2m.parser.v1 import parser_pb2, parser_pb2_grpc
from p2m.trainer.v1 import trainer_pb2, trainer_pb2_grpc

from services.kit.artifacts import Artifacts
from services.kit.server import Server
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Stage
from services.kit.values import Row
from services.kit.wire import to_message

Before = Mapping[str, Callable[[Any], Awaitable[None]]]

ROWS = [Row(f"input {i}", f"output {i}", "generated", "", ()) for i in range(4)]


class _Idle:
    """What the six share: a name, a store, a count of calls."""

    name = ""

    def __init__(self, settings: Settings, calls: Counter[str], before: Before) -> None:
        self.artifacts = Artifacts.open(settings, self.name)
        self.stage = Stage(self.artifacts, Slots(100))
        self.calls = calls
        self.before = before

    @property
    def full_name(self) -> str:
        return f"p2m.{self.name}.v1.{''.join(word.capitalize() for word in self.name.split('_'))}Service"

    def rows(self) -> common_pb2.Artifact:
        return to_message(self.artifacts.put_rows(ROWS), common_pb2.Artifact)

    async def count(self, request: Any) -> None:
        what = f"{self.name}.{type(request).__name__}"
        self.calls[what] += 1
        if what in self.before:
            await self.before[what](request)

    async def unary(self, request: Any, response_type: type[Any], response: Any) -> Any:
        async def work() -> Any:
            await self.count(request)
            return response

        return await self.stage.unary(request, response_type, work)

    async def stream(self, request: Any, response_type: type[Any], result: Any) -> AsyncIterator[Any]:
        async def work(_: Any) -> Any:
            await self.count(request)
            return result

        async for event in self.stage.stream(request, response_type, type(result), work):
            yield event

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


class IdleParser(_Idle, parser_pb2_grpc.ParserServiceServicer):
    name = "parser"

    def register(self, server: Any) -> None:
        parser_pb2_grpc.add_ParserServiceServicer_to_server(self, server)

    async def Parse(self, request: Any, context: Any) -> Any:
        spec = common_pb2.PromptSpec(instruction=request.prompt, language="en")
        return await self.unary(request, parser_pb2.ParseResponse, parser_pb2.ParseResponse(spec=spec))


class IdleDatasetRetriever(_Idle, dataset_retriever_pb2_grpc.DatasetRetrieverServiceServicer):
    name = "dataset_retriever"

    def register(self, server: Any) -> None:
        dataset_retriever_pb2_grpc.add_DatasetRetrieverServiceServicer_to_server(self, server)

    async def Search(self, request: Any, context: Any) -> Any:
        candidates = [
            dataset_retriever_pb2.DatasetCandidate(id=f"idle/{name}", score=1, reachable=True)
            for name in ("one", "two")
        ]
        response = dataset_retriever_pb2.SearchResponse(candidates=candidates)
        return await self.unary(request, dataset_retriever_pb2.SearchResponse, response)

    async def Inspect(self, request: Any, context: Any) -> Any:
        columns = [dataset_retriever_pb2.Column(name=name, type="string") for name in ("question", "answer")]
        response = dataset_retriever_pb2.InspectResponse(
            columns=columns, input_columns=["question"], output_column="answer"
        )
        return await self.unary(request, dataset_retriever_pb2.InspectResponse, response)

    async def Retrieve(self, request: Any, context: Any) -> AsyncIterator[Any]:
        splits = [dataset_retriever_pb2.SplitSize(split="train", rows=len(ROWS))]
        result = dataset_retriever_pb2.RetrieveResult(dataset=self.rows(), splits=splits)
        async for event in self.stream(request, dataset_retriever_pb2.RetrieveResponse, result):
            yield event


class IdleGenerator(_Idle, generator_pb2_grpc.GeneratorServiceServicer):
    name = "generator"

    def register(self, server: Any) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)

    async def Propose(self, request: Any, context: Any) -> Any:
        proposed = generator_pb2.Attributes(topics=["tea", "rain"])
        response = generator_pb2.ProposeResponse(attributes=proposed, llm="idle")
        return await self.unary(request, generator_pb2.ProposeResponse, response)

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        steered = request.attributes if request.HasField("attributes") else None
        result = generator_pb2.GenerateResult(
            dataset=self.rows(), rows=len(ROWS), stop_reason=1, llm="idle", attributes=steered
        )
        async for event in self.stream(request, generator_pb2.GenerateResponse, result):
            yield event


class IdleModelRetriever(_Idle, model_retriever_pb2_grpc.ModelRetrieverServiceServicer):
    name = "model_retriever"

    def register(self, server: Any) -> None:
        model_retriever_pb2_grpc.add_ModelRetrieverServiceServicer_to_server(self, server)

    async def Search(self, request: Any, context: Any) -> Any:
        location = request.constraints.model or "folder:nowhere"
        candidate = model_retriever_pb2.ModelCandidate(id="idle/model", score=1, location=location)
        response = model_retriever_pb2.SearchResponse(candidates=[candidate])
        return await self.unary(request, model_retriever_pb2.SearchResponse, response)


class IdleTrainer(_Idle, trainer_pb2_grpc.TrainerServiceServicer):
    name = "trainer"

    def register(self, server: Any) -> None:
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server)

    async def Prepare(self, request: Any, context: Any) -> AsyncIterator[Any]:
        rows = self.rows()
        count = trainer_pb2.SourceCount(source="generated", kind=2, split="train", rows=len(ROWS))
        result = trainer_pb2.PrepareResult(train=rows, validation=rows, test=rows, counts=[count])
        async for event in self.stream(request, trainer_pb2.PrepareResponse, result):
            yield event

    async def Train(self, request: Any, context: Any) -> AsyncIterator[Any]:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text("{}")
            model = to_message(self.artifacts.put_folder(Path(folder)), common_pb2.Artifact)
        result = trainer_pb2.TrainResult(model=model, base=model)
        async for event in self.stream(request, trainer_pb2.TrainResponse, result):
            yield event

    async def Export(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for event in self.stream(
            request, trainer_pb2.ExportResponse, trainer_pb2.ExportResult(model=request.model)
        ):
            yield event


class IdleEvaluator(_Idle, evaluator_pb2_grpc.EvaluatorServiceServicer):
    name = "evaluator"

    def register(self, server: Any) -> None:
        evaluator_pb2_grpc.add_EvaluatorServiceServicer_to_server(self, server)

    async def Evaluate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        columns = [
            {"input": r.input, "output": r.output, "source": r.source, "real": False, "prediction_student": r.output}
            for r in ROWS
        ]
        predictions = to_message(self.artifacts.put_table(pa.Table.from_pylist(columns)), common_pb2.Artifact)
        result = evaluator_pb2.EvaluateResult(
            predictions=predictions, verdict=3, verdict_reason="Not enough evidence: nothing was measured."
        )
        async for event in self.stream(request, evaluator_pb2.EvaluateResponse, result):
            yield event

    async def Measure(self, request: Any, context: Any) -> AsyncIterator[Any]:
        latency = evaluator_pb2.Latency(p50_ms=10, p95_ms=20, mean_ms=12, inputs=100, threads=1)
        result = evaluator_pb2.MeasureResult(same=100, latency=latency, runtime="idle")
        async for event in self.stream(request, evaluator_pb2.MeasureResponse, result):
            yield event


IDLE = (IdleParser, IdleDatasetRetriever, IdleGenerator, IdleModelRetriever, IdleTrainer, IdleEvaluator)


@asynccontextmanager
async def idle(
    settings: Settings, calls: Counter[str] | None = None, before: Before | None = None
) -> AsyncIterator[dict[str, str]]:
    """The six on free loopback ports; yields the settings that name them."""
    counted: Counter[str] = Counter() if calls is None else calls
    async with AsyncExitStack() as stack:
        targets = {}
        for kind in IDLE:
            server = Server(kind(settings, counted, before or {}), settings)
            stack.push_async_callback(server.stop)
            await server.start(0)
            targets[f"{kind.name}_target"] = f"{settings.host}:{server.port}"
        yield targets
