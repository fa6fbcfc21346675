"""What the LLM client says, and tries again, where a server fails."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import pytest

from services.kit.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from services.kit.values import Allowance, Ledger
from tests.support.asking import ask
from tests.support.teacher import BUSY, HANG, OVERLOADED, WRONG_KEY, Fault, ScriptedTeacher

KEY = "sk-very-secret-0123456789"


async def test_a_wrong_key_is_said_and_never_shown(open_teacher, caplog):
    """401: WRONG_KEY at once, with what to do; the key is in no message and no log, though the server repeats it."""
    caplog.set_level(logging.DEBUG)
    fault = Fault(401, f"Incorrect API key provided: {KEY}", "invalid_api_key")
    async with ScriptedTeacher(always=fault) as server:
        session = open_teacher(server, openai_api_key=_secret(KEY)).session("run", Allowance())
        with pytest.raises(Unauthenticated, match="OPENAI_API_KEY") as caught:
            await session.ask(ask())
        assert caught.value.reason == "WRONG_KEY"
        assert server.count["requests"] == 1
        assert KEY not in str(caught.value) + caplog.text
        assert session.ledger.requests == 0


async def test_a_key_in_another_error_is_masked(open_teacher, caplog):
    """Whatever a server says back, the key in it is replaced."""
    async with ScriptedTeacher(always=Fault(404, f"no model for {KEY}")) as server:
        session = open_teacher(server, openai_api_key=_secret(KEY)).session("run", Allowance())
        with pytest.raises(NotFound) as caught:
            await session.ask(ask())
        assert KEY not in str(caught.value) + caplog.text
        assert caught.value.reason == "LLM_UNKNOWN"


async def test_no_key_where_one_is_wanted(open_teacher):
    """A 401 with no key set asks for one rather than calling it wrong."""
    async with ScriptedTeacher(always=WRONG_KEY) as server:
        with pytest.raises(Unauthenticated, match="none is set"):
            await open_teacher(server).session("run", Allowance()).ask(ask())


async def test_nobody_at_the_address(open_teacher):
    """A refused connection is LLM_UNREACHABLE within 5 s, and names the URL, without the password in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(Unavailable, match=f"http://127.0.0.1:{port}/v1") as caught:
        await open_teacher(f"http://me:hidden@127.0.0.1:{port}/v1").session("run", Allowance()).ask(ask())
    assert time.monotonic() - began < 5
    assert caught.value.reason == "LLM_UNREACHABLE"
    assert "hidden" not in str(caught.value)


async def test_a_server_that_answers_nothing(open_teacher):
    """Silence ends after P2M_LLM_TIMEOUT_S, tried twice, as LLM_TIMEOUT."""
    async with ScriptedTeacher(always=HANG) as server:
        with pytest.raises(Unavailable, match=r"within 0\.3 s") as caught:
            await open_teacher(server, llm_timeout_s=0.3).session("run", Allowance()).ask(ask())
        assert caught.value.reason == "LLM_TIMEOUT"
        assert server.count["requests"] == 2


async def test_a_server_that_speaks_another_protocol(open_teacher):
    """A 200 that is no chat completion is not taken for an answer."""
    other = Fault(200, "welcome")
    async with ScriptedTeacher(always=other) as server:
        with pytest.raises(Unavailable, match="OPENAI_BASE_URL") as caught:
            await open_teacher(server, llm_patience_s=0.5).session("run", Allowance()).ask(ask())
        assert caught.value.reason == "LLM_PROTOCOL"


async def test_no_credit_is_not_waited_for(open_teacher):
    """429 insufficient_quota will not pass by waiting: it fails at once."""
    async with ScriptedTeacher(always=Fault(429, "You exceeded your quota", "insufficient_quota")) as server:
        with pytest.raises(FailedPrecondition, match="credit") as caught:
            await open_teacher(server).session("run", Allowance()).ask(ask())
        assert (caught.value.reason, server.count["requests"]) == ("LLM_QUOTA", 1)


@pytest.mark.parametrize("where", ["server", "settings"])
async def test_a_prompt_that_is_too_long(open_teacher, where):
    """A context overflow is the prompt's fault: InvalidArgument, whether the server or the setting says so."""
    fault = Fault(400, "This model's maximum context length is 4096 tokens.", "context_length_exceeded")
    async with ScriptedTeacher(always=fault) as server:
        session = open_teacher(server, llm_context_tokens=1000).session("run", Allowance())
        with pytest.raises(InvalidArgument) as caught:
            await session.ask(ask(text="short" if where == "server" else "long " * 1000))
        assert caught.value.reason == "CONTEXT_OVERFLOW"
        assert server.count["requests"] == (where == "server")


async def test_faults_that_pass_are_survived(open_teacher):
    """429, 503 and dropped connections are tried again; every question is answered, none is asked twice for a 200."""
    dropped = Fault(hang_s=0.01)
    async with ScriptedTeacher(faults=[BUSY, OVERLOADED, None, dropped, BUSY, None, OVERLOADED]) as server:
        session = open_teacher(server, llm_patience_s=20).session("run", Allowance())
        values = await asyncio.gather(*(session.ask(ask(str(n))) for n in range(8)))
        assert len(values) == 8
        assert server.count["answered"] == 8
        assert session.ledger.requests == 9, "the dropped one may have been paid for"


async def test_a_server_that_starts_anew_is_waited_for(open_teacher):
    """Three dropped connections in a row, and nobody was answered before: the fourth try answers; each is booked."""
    async with ScriptedTeacher(faults=[Fault(hang_s=0.01)] * 3) as server:
        session = open_teacher(server, llm_patience_s=20).session("run", Allowance())
        await session.ask(ask())
        assert server.count["requests"] == session.ledger.requests == 4


@pytest.mark.parametrize(("fault", "reason"), [(BUSY, "LLM_BUSY"), (OVERLOADED, "LLM_FAILING")])
async def test_faults_that_do_not_pass_end(open_teacher, fault, reason):
    """A server that never recovers is given up after P2M_LLM_PATIENCE_S, and nothing is booked."""
    async with ScriptedTeacher(always=fault) as server:
        session = open_teacher(server, llm_patience_s=1).session("run", Allowance())
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await session.ask(ask())
        assert caught.value.reason == reason
        assert time.monotonic() - began < 3
        assert server.count["requests"] > 1
        assert session.ledger == Ledger()


async def test_retry_after_is_kept(open_teacher):
    """After a 429 with Retry-After no request at all is sent before that time."""
    async with ScriptedTeacher(faults=[Fault(429, retry_after=1.0)]) as server:
        session = open_teacher(server, llm_patience_s=20).session("run", Allowance())
        began = time.monotonic()
        first = asyncio.create_task(session.ask(ask("a")))
        await asyncio.sleep(0.9)
        seen = server.count["requests"]
        await asyncio.gather(first, session.ask(ask("b")))
        assert time.monotonic() - began >= 1.0
        assert (seen, server.count["requests"]) == (1, 3)


def _secret(key: str):
    from pydantic import SecretStr

    return SecretStr(key)
