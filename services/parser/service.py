"""ParserService: proto <-> plain values around `parse`."""

from __future__ import annotations

import asyncio

import grpc
from p2m.parser.v1 import parser_pb2 as pb
from p2m.parser.v1 import parser_pb2_grpc

from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Stage
from services.kit.text import check_prompt, detect_language
from services.kit.values import Allowance
from services.kit.wire import from_message, to_message
from services.parser.parse import parse


class ParserService(parser_pb2_grpc.ParserServiceServicer):
    """Splits prompts."""

    name = "parser"
    full_name = "p2m.parser.v1.ParserService"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        artifacts = Artifacts.open(settings, self.name)
        self.stage = Stage(artifacts, Slots(settings.slots))
        self.teacher = Teacher.from_settings(settings, artifacts)

    def register(self, server: grpc.aio.Server) -> None:
        parser_pb2_grpc.add_ParserServiceServicer_to_server(self, server)

    async def warm(self) -> None:
        """Loads the language models."""
        await asyncio.to_thread(detect_language, "Which language is this sentence written in?")

    async def close(self) -> None:
        if self.teacher:
            await self.teacher.close()

    async def Parse(self, request: pb.ParseRequest, context: object) -> pb.ParseResponse:
        check_prompt(request.prompt)
        return await self.stage.unary(request, pb.ParseResponse, lambda: self._parse(request))

    async def _parse(self, request: pb.ParseRequest) -> pb.ParseResponse:
        session = None
        if self.teacher:
            session = self.teacher.session(request.request_id, from_message(request.allowance, Allowance))
        return to_message(await parse(request.prompt, session, self.settings), pb.ParseResponse)
