"""An LLM that copies its prompt is kept from it, where its server can."""

from __future__ import annotations

import pytest

from services.kit.artifacts import Artifacts
from services.kit.llm import Ask, Schema, Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance
from tests.support.teacher import ScriptedTeacher

ANSWER = Schema("answer", {"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]})


@pytest.mark.parametrize(("slots", "fresh", "sent"), [(2, True, True), (2, False, False), (None, True, False)])
async def test_llama_cpp_alone_is_told(settings: Settings, slots: int | None, fresh: bool, sent: bool) -> None:
    """What only llama.cpp understands is sent to a server that answers as llama.cpp does, and for such questions."""
    async with ScriptedTeacher(tells_slots=slots) as server:
        own = settings.model_copy(update={"openai_base_url": server.url})
        teacher = Teacher(own, Artifacts.open(own, "generator"))
        try:
            message = {"role": "user", "content": "lamp red door"}
            await teacher.session("run", Allowance()).ask(Ask("a", (message,), ANSWER, fresh=fresh))
        finally:
            await teacher.close()
        assert ("dry_multiplier" in server.requests[-1]) == sent
        assert not any(key.startswith("dry_") for key in server.requests[-1]) or sent
