"""Planted secrets are looked for in everything that a run writes, says and starts."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from aiohttp import web
from p2m.run.v1 import run_pb2

from orchestrator.database import open_engine
from orchestrator.runs import Runs
from services.kit.artifacts import open_store
from services.kit.settings import Settings
from tests.integration.commands import Command
from tests.support.hub import Hub
from tests.support.models import tiny_t5
from tests.support.seaweed import Seaweed, seaweed
from tests.support.teacher import TOY_PROMPT, Fault, ScriptedTeacher

LLM_KEY = "sk-planted/llm+key=0123456789abcdef"
HUB_TOKEN = "hf_planted/hub+token=0123456789abcdef"
RUN_TOKEN = "planted/run+token=0123456789abcdef"


class Listening(ScriptedTeacher):
    """A teacher that knows who asks, and at first repeats the key in what it says."""

    def __init__(self) -> None:
        super().__init__(faults=[Fault(500, f"The key {LLM_KEY} met an error.")] * 2)
        self.shown: set[str] = set()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.shown.add(request.headers.get("authorization", ""))
        return await super()._chat(request)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Seaweed]:
    folder = tmp_path / "weed"
    folder.mkdir()
    with seaweed(folder) as server:
        yield server


async def test_no_secret_is_written_said_or_shown(tmp_path: Path, store: Seaweed) -> None:
    """A run at DEBUG, whose LLM repeats the key in an error, leaves none of five secrets in the home, the store, the
    database, the logs, the report, on the terminal, or in a command line."""
    model = tiny_t5(tmp_path / "tiny")
    s3 = store.settings(tmp_path / "home")
    planted = {
        "OPENAI_API_KEY": LLM_KEY, "HF_TOKEN": HUB_TOKEN, "P2M_TOKEN": RUN_TOKEN,
        "DEEPL_API_KEY": "planted-deepl-0123456789", "P2M_S3_SECRET_KEY": s3.s3_secret_key.get_secret_value(),
    }  # fmt: skip
    async with Listening() as teacher, Hub() as hub:
        told = {
            "OPENAI_BASE_URL": teacher.url, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "P2M_LOG_LEVEL": "DEBUG",
            "P2M_STORE": s3.store, "P2M_S3_ENDPOINT": s3.s3_endpoint, "P2M_S3_ACCESS_KEY": s3.s3_access_key,
            "P2M_HUB_CACHE": str(tmp_path / "cache"), "P2M_HUB_PATIENCE_S": "1", "P2M_DEEPL_URL": hub.url,
        }  # fmt: skip
        arguments = ["--model", f"folder:{model}", "--number", "40", "--epochs", "1", "--teacher-rows", "2"]
        command = Command(tmp_path / "run", "planted", TOY_PROMPT, arguments, told | planted)
        await command.start()
        try:
            lines = await command_lines(command)
        finally:
            await command.stop()
        assert await command.ended() == 0, command.log.read_text()[-3_000:]
    assert teacher.shown == {f"Bearer {LLM_KEY}"}, "the key was not used: this test would see nothing"
    home = tmp_path / "run" / "home"
    assert (home / "p2m.log").stat().st_size > 1_000 and (command.out / "report.html").is_file()
    looked = [tmp_path / "run", tmp_path / "cache"]
    held = {str(path): path.read_bytes() for folder in looked for path in folder.rglob("*") if path.is_file()}
    objects = open_store(s3)
    held |= {key: objects.get(key) for key in objects.list("")}
    held |= {f"{path.name} as text": tables(path) for path in home.glob("*.sqlite")}
    held["command lines"] = "\n".join(lines).encode()
    assert len(held) > 40 and "services.kit.worker" in held["command lines"].decode()
    for name, secret in planted.items():
        for where, data in held.items():
            for form in forms(secret):
                assert form not in data, f"{name} stands in {where}"


async def command_lines(command: Command) -> set[str]:
    """The command lines of a command and of all that it starts, until it ends."""
    lines: set[str] = set()
    process: Any = command._process
    watched = psutil.Process(process.pid)
    while process.returncode is None:
        for one in (watched, *_children(watched)):
            try:
                lines.add(" ".join(one.cmdline()))
            except psutil.Error:
                continue
        await asyncio.sleep(0.1)
    return lines


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def tables(path: Path) -> bytes:
    """Every value of every table, the workflow engine's too."""
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return repr({name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}).encode()


def forms(secret: str) -> list[bytes]:
    """A secret as it may be written: plain, in a URL, in JSON, in hexadecimal, in base64 wherever it begins."""
    plain = secret.encode()
    shifted = [base64.b64encode(b"\0" * shift + plain)[4:-4] for shift in range(3)]
    return [plain, quote(secret, safe="").encode(), plain.hex().encode(), secret.replace("/", "\\/").encode(), *shifted]


def test_what_is_looked_for_would_be_found(tmp_path: Path) -> None:
    """The forms find a secret in a header's base64, and the tables one in a row: the test above can fail."""
    header = base64.b64encode(f"user:{LLM_KEY}".encode())
    assert any(form in header for form in forms(LLM_KEY))
    runs = Runs(open_engine(Settings(home=tmp_path)), "x")
    runs.create_tables()
    runs.add("r", "d", LLM_KEY, run_pb2.RunOptions())
    runs.engine.dispose()
    assert LLM_KEY.encode() in tables(tmp_path / "runs.sqlite")
