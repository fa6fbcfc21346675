"""Another implementation of ParserService, in forty lines: `python -m tests.support.swapped_parser`."""

from __future__ import annotations

import asyncio
import re
import sys

from p2m.common.v1.common_pb2 import Demonstration, PromptSpec
from p2m.parser.v1 import parser_pb2 as pb
from p2m.parser.v1.parser_pb2_grpc import ParserServiceServicer, add_ParserServiceServicer_to_server

from services.kit.artifacts import Artifacts
from services.kit.server import serve
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Stage
from services.kit.text import check_prompt, detect_language

_PAIR = re.compile(
    r'(?:input|入力)\s*[=:：]\s*["「](.*?)["」]\s*\n(?:output|出力)\s*[=:：]\s*["「](.*?)["」]', re.DOTALL
)


class SwappedParser(ParserServiceServicer):
    name, full_name = "parser", "p2m.parser.v1.ParserService"

    def __init__(self, settings: Settings) -> None:
        self.stage = Stage(Artifacts.open(settings, self.name), Slots(settings.slots))

    def register(self, server):
        add_ParserServiceServicer_to_server(self, server)

    async def warm(self): ...
    async def close(self): ...

    async def Parse(self, request, context):
        check_prompt(request.prompt)
        return await self.stage.unary(request, pb.ParseResponse, lambda: self.parse(request.prompt))

    async def parse(self, prompt):
        shown = [Demonstration(input=pair[1], output=pair[2]) for pair in _PAIR.finditer(prompt)]
        instruction = prompt.strip().split("\n\n")[0] if shown else prompt.strip()
        spec = PromptSpec(instruction=instruction, demonstrations=shown, language=detect_language(prompt))
        notes = ["Parsed by swapped rules alone.", *([] if shown else ["There is no demonstration: add some."])]
        return pb.ParseResponse(spec=spec, method=pb.PARSE_METHOD_RULES, notes=notes)


if __name__ == "__main__":
    settings = Settings()
    sys.exit(asyncio.run(serve(SwappedParser(settings), settings)))
