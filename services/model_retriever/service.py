"""ModelRetrieverService: proto <-> plain values around `hypothetical` and `search`."""

from __future__ import annotations

import asyncio
from functools import partial

import grpc
from p2m.model_retriever.v1 import model_retriever_pb2 as pb
from p2m.model_retriever.v1 import model_retriever_pb2_grpc

from catalogue.live import Live
from services.kit import embed, worker
from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Stage
from services.kit.values import Allowance, Ledger, PromptSpec
from services.kit.wire import from_message, to_message
from services.model_retriever.configs import SPARE, Configs
from services.model_retriever.hypothetical import hypothetical_card, language_of
from services.model_retriever.limits import Constraints, checked
from services.model_retriever.search import DEFAULT_K, MOST_K, Models, check_k


class ModelRetrieverService(model_retriever_pb2_grpc.ModelRetrieverServiceServicer):
    """Finds pretrained models."""

    name = "model_retriever"
    full_name = "p2m.model_retriever.v1.ModelRetrieverService"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        artifacts = Artifacts.open(settings, self.name)
        self.stage = Stage(artifacts, Slots(settings.slots))
        self.teacher = Teacher.from_settings(settings, artifacts)
        # An image without the encoder's packages serves models by words, tasks and languages.
        self.encoder = worker.Resident("services.kit.embed:Encoder", settings) if settings.encode_models else None
        self._models = Live("models", settings, Models, self.encoder)
        self._configs = Configs(settings)

    def register(self, server: grpc.aio.Server) -> None:
        model_retriever_pb2_grpc.add_ModelRetrieverServiceServicer_to_server(self, server)

    async def warm(self) -> None:
        """Opens the index; of the starter catalogue, builds it first where need be."""
        await self._models.start()

    async def close(self) -> None:
        await self._models.stop()
        if self.encoder:
            await self.encoder.stop()
        if self.teacher:
            await self.teacher.close()

    async def Search(self, request: pb.SearchRequest, context: object) -> pb.SearchResponse:
        return await self.stage.unary(request, pb.SearchResponse, lambda: self._search(request))

    async def _search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        models = self._models.get()
        session = None
        constraints, spec = from_message(request.constraints, Constraints), from_message(request.spec, PromptSpec)
        check_k(request.k)
        checked(constraints)
        if self.teacher and not constraints.model:
            session = self.teacher.session(request.request_id, from_message(request.allowance, Allowance))
        card = await hypothetical_card(spec, session)
        k = request.k or DEFAULT_K
        # Some to spare, in the place of those whose config says that they do not fit.
        more = k if self.settings.hub_offline else min(k + SPARE, MOST_K)
        vector = (await self.encoder.ask(embed.Texts((card.text,)), embed.Vectors)).vectors[0] if self.encoder else ()
        search = partial(models.search, card.text, more, constraints, self.settings, language_of(spec), vector)
        found = await self._configs.confirmed(await asyncio.to_thread(search), k)
        response = to_message(found, pb.SearchResponse)
        response.hypothetical_card = card.text
        if card.note and not constraints.model:
            response.notes.append(card.note)
        response.ledger.CopyFrom(to_message(session.ledger if session else Ledger(), type(response.ledger)))
        return response
