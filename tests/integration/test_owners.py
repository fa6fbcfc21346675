"""Callers that are known by name: each has the runs that it started, and nobody else's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from p2m.run.v1 import run_pb2

from orchestrator.client import RunClient
from orchestrator.database import open_engine
from orchestrator.demo import guarded
from orchestrator.runs import Runs
from orchestrator.service import RunService
from orchestrator.session import reached
from services.kit import refused
from services.kit.errors import AlreadyExists, FailedPrecondition, NotFound, P2MError, PermissionDenied, Unauthenticated
from services.kit.server import Server
from services.kit.settings import Settings

ANN, BEN, ADMIN = "token-of-ann-0123456789", "token-of-ben-0123456789", "token-of-nobody-by-name"
# Nothing to train on, and nobody to ask: what becomes of the run is of no interest here.
OPTIONS = run_pb2.RunOptions(skip_datasets=True)
PROMPT = "Write dates as YYYY-MM-DD."
Dial = Callable[[str], RunClient]


@pytest.fixture
def named(settings: Settings, tmp_path: Path) -> Settings:
    """Settings of a RunService that knows two callers by name, and one without."""
    (tmp_path / "tokens").write_text(f"# who may run what\nann {ANN}\n\nben {BEN}   # from next door\n")
    nobody = {f"{name}_target": "127.0.0.1:9" for name in ("parser", "generator", "trainer", "evaluator")}
    others = {f"{name}_target": "127.0.0.1:9" for name in ("dataset_retriever", "model_retriever")}
    return Settings.model_validate(
        settings.reveal() | nobody | others | {"tokens": tmp_path / "tokens", "token": ADMIN, "grace_s": 1.0}
    )


@pytest.fixture
async def dial(named: Settings) -> AsyncIterator[Dial]:
    """Clients by their token."""
    async with AsyncExitStack() as stack:
        server = Server(RunService(named, adopt=False), named)
        stack.push_async_callback(server.stop)
        await server.start(0)

        def client(token: str) -> RunClient:
            made = RunClient(f"127.0.0.1:{server.port}", named.model_copy(update={"token": secret(token)}))
            stack.push_async_callback(made.close)
            return made

        yield client


def secret(token: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(token)


async def test_a_run_bears_the_name_of_who_started_it(dial: Dial) -> None:
    """Get, List and Watch tell the owner; a run started by the token without a name has none."""
    ann, admin = dial(ANN), dial(ADMIN)
    assert (await ann.start("of-ann", PROMPT, OPTIONS)).owner == "ann"
    assert (await admin.start("of-nobody", PROMPT, OPTIONS)).owner == ""
    assert (await admin.get("of-ann")).owner == "ann"
    assert {run.name: run.owner for run in (await admin.list())[0]} == {"of-ann": "ann", "of-nobody": ""}
    async for change in ann.watch("of-ann"):
        if change.HasField("run"):
            assert change.run.owner == "ann"
            break


async def test_another_s_run_is_refused_logged_and_counted(dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    """Every call that names another's run is PERMISSION_DENIED and changes nothing; List leaves it out."""
    ann, ben, admin = dial(ANN), dial(BEN), dial(ADMIN)
    await ann.start("of-ann", PROMPT, OPTIONS)
    before = refused.COUNTS["NOT_YOURS"]

    async def watched() -> None:
        async for _ in ben.watch("of-ann"):
            raise AssertionError("something was told")

    calls = {
        "Get": ben.get("of-ann"), "Cancel": ben.cancel("of-ann"), "Choose": ben.choose("of-ann", "model", "x"),
        "Data": ben.data("of-ann"), "Watch": watched(), "Start": ben.start("of-ann", PROMPT, OPTIONS),
        "Start with another prompt": ben.start("of-ann", "Another.", OPTIONS),
        "improve": ben.start("", "", run_pb2.RunOptions(improve="of-ann")),
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        for name, call in calls.items():
            with pytest.raises(PermissionDenied, match="somebody else"):
                await call
            assert "NOT_YOURS (ben" in caplog.text, name
            caplog.clear()
    assert refused.COUNTS["NOT_YOURS"] == before + len(calls)
    assert (await ben.list())[0] == []
    assert (await ann.get("of-ann")).state == (await admin.get("of-ann")).state != run_pb2.RUN_STATE_CANCELLED
    with pytest.raises(NotFound):
        await ben.get("of-nobody")
    await admin.cancel("of-ann")


async def test_two_who_start_the_same_have_a_run_each(dial: Dial) -> None:
    """Without a name given, the same prompt and options are one run for one caller, and two for two."""
    ann, ben = dial(ANN), dial(BEN)
    first, again, other = [(await who.start("", PROMPT, OPTIONS)).name for who in (ann, ann, ben)]
    assert first == again != other
    with pytest.raises(AlreadyExists):
        await ann.start(first, "Another.", OPTIONS)


async def test_a_wrong_token_is_refused_logged_and_counted(dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    """No token, a name for a token, and one that is nearly right are UNAUTHENTICATED; the log has none of them."""
    before = refused.COUNTS["BAD_TOKEN"]
    for token in ("", "ann", ANN[:-1], ANN + "x", f"ann {ANN}"):
        with caplog.at_level(logging.DEBUG), pytest.raises(Unauthenticated):
            await dial(token).list()
    assert refused.COUNTS["BAD_TOKEN"] == before + 5
    assert caplog.text.count("refused /p2m.run.v1.RunService/List: BAD_TOKEN (ipv4:127.0.0.1") == 5
    assert ANN[:-1] not in caplog.text


async def test_a_token_is_given_and_withdrawn_without_a_restart(dial: Dial, named: Settings) -> None:
    """The file is read anew when it changes; one that cannot be used leaves the tokens as they were."""
    assert named.tokens
    ann, new = dial(ANN), dial("token-of-new-0123456789")
    await ann.list()
    with pytest.raises(Unauthenticated):
        await new.list()
    named.tokens.write_text("new token-of-new-0123456789\n")
    await new.list()
    with pytest.raises(Unauthenticated):
        await ann.list()
    named.tokens.write_text("new\n")
    await new.list()
    named.tokens.unlink()
    await new.list()


async def test_who_works_on_the_database_itself_needs_no_token(named: Settings) -> None:
    """On the machine of the database, `p2m list` shows all runs though every token there has a name."""
    runs = Runs(open_engine(named), "another")
    runs.create_tables()
    runs.add("of-ann", "digest", PROMPT, OPTIONS, "ann")
    runs.finish("of-ann", run_pb2.RUN_STATE_CANCELLED)
    runs.engine.dispose()
    async with reached("", Settings.model_validate(named.reveal() | {"token": ""})) as client:
        assert [run.name for run in (await client.list())[0]] == ["of-ann"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ann", "1 words"),
        ("ann short", "16 characters"),
        (f"a/b {ANN}", "the name is none"),
        (f"x {ANN} y", "3 words"),
        (f"ann {ANN}\nann {BEN}", "line 2: the name was given before"),
        (f"ann {ANN}\nben {ANN}", "line 2: the token was given before"),
    ],
)
def test_a_file_of_tokens_that_is_wrong_is_said(named: Settings, line: str, said: str) -> None:
    """The line and what is wrong with it are told before anything is served, and never a token."""
    assert named.tokens
    named.tokens.write_text(line)
    with pytest.raises(FailedPrecondition, match=said) as raised:
        Server(RunService(named, adopt=False), named)
    assert ANN not in str(raised.value) and "short" not in str(raised.value).replace("too short", "")
    named.tokens.unlink()
    with pytest.raises(P2MError, match="cannot be read"):
        Server(RunService(named, adopt=False), named)


def test_the_page_asks_who_comes(named: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """With named tokens the page of ann's run opens for ann, and for p2m by password or token; others are refused."""
    before, known = refused.COUNTS["BAD_PASSWORD"], guarded("of-the-page", named, "ann")
    assert known is not None
    assert known("ann", ANN) and known("p2m", ADMIN) and known("p2m", "of-the-page")
    wrong = [("ben", BEN), ("ann", BEN), ("ann", ""), ("p2m", ANN), ("p2m", ""), ("ann", "of-the-page"), ("", ADMIN)]
    assert not [one for one in wrong if known(*one)]
    assert refused.COUNTS["BAD_PASSWORD"] == before + len(wrong) and caplog.text.count("BAD_PASSWORD") == len(wrong)
    assert ANN not in caplog.text and "of-the-page" not in caplog.text
    assert guarded("", named.model_copy(update={"tokens": None})) is None
