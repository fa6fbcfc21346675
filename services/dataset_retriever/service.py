"""DatasetRetrieverService: proto <-> plain values around `search`, `columns`, `load` and `adapt`."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet as pq
from p2m.common.v1 import common_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2 as pb
from p2m.dataset_retriever.v1 import dataset_retriever_pb2_grpc

from catalogue.live import Live
from services.dataset_retriever import load
from services.dataset_retriever.adapt import MAX_ROWS, adapt
from services.dataset_retriever.choice import choose, rerank
from services.dataset_retriever.columns import Fit, propose
from services.dataset_retriever.configs import best_config, said
from services.dataset_retriever.expand import blended, expansion, joined
from services.dataset_retriever.filters import Filters, check
from services.dataset_retriever.fit import shape
from services.dataset_retriever.flatten import first_option, flatten, has_options
from services.dataset_retriever.ranking import query_vector, without_opening
from services.dataset_retriever.search import check_k, query_of, search
from services.kit import embed, worker
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.kit.index import Index
from services.kit.llm import Session, Teacher
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Report, Stage
from services.kit.values import Allowance, Artifact, Ledger, PromptSpec
from services.kit.wire import from_message, to_message


class DatasetRetrieverService(dataset_retriever_pb2_grpc.DatasetRetrieverServiceServicer):
    """Finds datasets, shows what is in them, brings them in."""

    name = "dataset_retriever"
    full_name = "p2m.dataset_retriever.v1.DatasetRetrieverService"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.artifacts = Artifacts.open(settings, self.name)
        self.stage = Stage(self.artifacts, Slots(settings.slots))
        self.teacher = Teacher.from_settings(settings, self.artifacts)
        self.encoder = worker.Resident("services.kit.embed:Encoder", settings)
        self._index: Live[Index] = Live("datasets", settings, lambda index: index, self.encoder)

    def register(self, server: grpc.aio.Server) -> None:
        dataset_retriever_pb2_grpc.add_DatasetRetrieverServiceServicer_to_server(self, server)

    async def warm(self) -> None:
        """Loads the encoder and opens the index; of the starter catalogue, builds it first where need be."""
        await self._index.start()

    async def close(self) -> None:
        await self._index.stop()
        await self.encoder.stop()
        if self.teacher:
            await self.teacher.close()

    async def Search(self, request: pb.SearchRequest, context: object) -> pb.SearchResponse:
        return await self.stage.unary(request, pb.SearchResponse, lambda: self._search(request))

    async def Inspect(self, request: pb.InspectRequest, context: object) -> pb.InspectResponse:
        return await self.stage.unary(request, pb.InspectResponse, lambda: self._inspect(request))

    async def Retrieve(self, request: pb.RetrieveRequest, context: object) -> AsyncIterator[pb.RetrieveResponse]:
        async for response in self.stage.stream(
            request, pb.RetrieveResponse, pb.RetrieveResult, lambda report: self._retrieve(request, report)
        ):
            yield response

    async def Adapt(self, request: pb.AdaptRequest, context: object) -> AsyncIterator[pb.AdaptResponse]:
        async for response in self.stage.stream(
            request, pb.AdaptResponse, pb.AdaptResult, lambda report: self._adapt(request, report),
            lambda result: result.complete,
        ):  # fmt: skip
            yield response

    async def _search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        spec = from_message(request.spec, PromptSpec)
        query, filters = query_of(spec), check(from_message(request.filters, Filters))
        k, session = check_k(request.k), self._session(request) if request.rerank else None
        card = await expansion(spec, query, session)
        bare = without_opening(query)
        texts = tuple(dict.fromkeys(text for text in (query, bare, card.text) if text))
        encoded = dict(zip(texts, (await self.encoder.ask(embed.Texts(texts), embed.Vectors)).vectors, strict=True))
        vector: Sequence[float] = query_vector(encoded[query], encoded[bare])
        if card.text:
            vector = blended(vector, encoded[card.text])
        index = self._index.get()
        found = await asyncio.to_thread(search, index, query, vector, k, self.settings, filters, joined(card.text))
        asked = session if card.answers else None
        choice = await rerank(found.candidates, spec, asked) if asked else choose(found.candidates)
        response = await asyncio.to_thread(to_message, found, pb.SearchResponse)
        response.chosen, response.chosen_by_llm, response.expansion = choice.chosen, choice.by_llm, card.text
        response.notes.extend([*([card.note] if card.note else []), *choice.notes])
        _account(response, session)
        return response

    async def _inspect(self, request: pb.InspectRequest) -> pb.InspectResponse:
        spec, entry = from_message(request.spec, PromptSpec), self._entry(request.dataset)
        contents = await self._look(entry, request.config, spec)
        rows = [json.loads(row) for row in contents.rows]
        session = self._session(request)
        proposal = await propose(contents.columns, rows, spec, session)
        response = pb.InspectResponse(
            configs=contents.configs, config=contents.config, sample_rows=contents.rows, input_columns=proposal.inputs,
            output_column=proposal.output, why=proposal.why, licence=contents.licence, revision=contents.revision,
            notes=contents.notes, fit=pb.Fit.ValueType(proposal.fit), fit_why=proposal.fit_why,
            columns=[to_message(column, pb.Column) for column in contents.columns],
            splits=[pb.SplitSize(split=split, rows=rows) for split, rows in contents.splits.items()],
        )  # fmt: skip
        if proposal.output:
            by_name = {column.name: column for column in contents.columns}
            inputs, output = [by_name[name] for name in proposal.inputs], by_name[proposal.output]
            first = first_option(rows, inputs, output)
            flat = [one for one in (flatten(row, inputs, output, first) for row in rows) if one.input and one.output]
            response.flattened.extend(common_pb2.Demonstration(input=one.input, output=one.output) for one in flat)
            fit, why = shape(flat, () if has_options(inputs, output) else output.class_names, spec.demonstrations)
            if proposal.fit != Fit.PART and fit != Fit.UNSPECIFIED:
                response.fit, response.fit_why = pb.Fit.ValueType(fit), why
        _account(response, session)
        return response

    async def _look(self, entry: dict[str, Any], config: str, spec: PromptSpec) -> load.Contents:
        """Looks into a dataset, in the configuration that fits best by what the catalogue knows, else by name."""

        async def look(config: str) -> load.Contents:
            wanted = load.Wanted(entry, config, said(spec))
            return await worker.run("services.dataset_retriever.load:look", wanted, load.Contents, self.settings)

        known = entry.get("configs") or ()
        best = config or (best_config(known, spec) if len(known) > 1 else "")
        try:
            return await look(best)
        except NotFound as error:
            if config or error.reason != "NO_SUCH_CONFIG":
                raise
            return await look("")  # the catalogue is older than the dataset

    async def _retrieve(self, request: pb.RetrieveRequest, report: Report) -> pb.RetrieveResult:
        if not 0 <= request.max_rows <= load.MOST_ROWS:
            raise InvalidArgument(
                "BAD_MAX_ROWS",
                f"max_rows is {request.max_rows}; wanted 0 (3,000) to {load.MOST_ROWS:,}.",
                field="max_rows",
            )
        for field in ("max_bytes", "max_seconds"):
            if not 0 <= getattr(request, field) < math.inf:
                raise InvalidArgument("BAD_CAP", f"{field} is no limit; wanted 0 (the default) or more.", field=field)
        with tempfile.TemporaryDirectory(prefix="p2m-retrieve-") as folder:
            loading = load.Loading(
                load.Wanted(self._entry(request.dataset), request.config, revision=request.revision),
                tuple(request.input_columns), request.output_column, request.max_rows or load.MAX_ROWS,
                f"{folder}/rows.parquet", request.max_bytes or load.MAX_BYTES, request.max_seconds or load.MAX_SECONDS,
            )  # fmt: skip
            loaded = await worker.run(
                "services.dataset_retriever.load:load", loading, load.Loaded, self.settings, report
            )
            artifact = await asyncio.to_thread(self._store, Path(loading.out))
        result = pb.RetrieveResult(
            dropped=loaded.dropped, licence=loaded.licence, revision=loaded.revision, notes=loaded.notes
        )
        result.dataset.CopyFrom(to_message(artifact, type(result.dataset)))
        result.splits.extend(pb.SplitSize(split=split, rows=rows) for split, rows in loaded.splits.items())
        return result

    async def _adapt(self, request: pb.AdaptRequest, report: Report) -> pb.AdaptResult:
        session = self._session(request)
        if session is None or self.teacher is None:
            raise FailedPrecondition("NO_LLM", "Rewriting rows needs an LLM: set OPENAI_BASE_URL or OPENAI_API_KEY.")
        if request.max_rows < 0:
            raise InvalidArgument("BAD_MAX_ROWS", "max_rows is negative; wanted 0 (500) or more.", field="max_rows")
        rows = await asyncio.to_thread(self.artifacts.read_rows, from_message(request.dataset, Artifact))
        spec = from_message(request.spec, PromptSpec)
        adapted = await adapt(
            rows, spec, request.max_rows or MAX_ROWS, session, self.teacher.concurrency,
            self.settings.llm_context_tokens, report,
        )  # fmt: skip
        artifact = await asyncio.to_thread(self.artifacts.put_rows, adapted.rows)
        result = pb.AdaptResult(
            rows=len(adapted.rows), dropped=adapted.dropped, plan=to_message(adapted.plan, pb.AdaptPlan),
            complete=adapted.complete,
        )  # fmt: skip
        result.dataset.CopyFrom(to_message(artifact, type(result.dataset)))
        _account(result, session)
        return result

    def _store(self, path: Path) -> Artifact:
        return self.artifacts.put_table(pq.read_table(path))

    def _session(self, request: Any) -> Session | None:
        if self.teacher is None:
            return None
        return self.teacher.session(request.request_id, from_message(request.allowance, Allowance))

    def _entry(self, id: str) -> dict[str, Any]:
        entry = self._index.get().find(id)
        if entry is None:
            raise NotFound("NO_SUCH_DATASET", f"The catalogue has no dataset {id[:120]!r}.", field="dataset")
        return entry


def _account(response: Any, session: Session | None) -> None:
    response.ledger.CopyFrom(to_message(session.ledger if session else Ledger(), type(response.ledger)))
