"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings


@pytest.fixture
async def open_teacher(settings: Settings, artifacts: Artifacts) -> AsyncIterator[Callable[..., Any]]:
    """f(server or url, **settings) -> Teacher, with little patience; all are closed at the end."""
    opened = []

    def open_(server: Any, **changes: Any) -> Any:
        url = server if isinstance(server, str) else server.url
        changes = {"openai_base_url": url, "llm_patience_s": 2.0, "llm_timeout_s": 5.0} | changes
        teacher = Teacher.from_settings(settings.model_copy(update=changes), artifacts)
        opened.append(teacher)
        return teacher

    yield open_
    for teacher in opened:
        await teacher.close()
