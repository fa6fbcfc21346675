"""`p2m export`: a finished run's model in another format, in a folder, timed and scored beside the student."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict
from p2m.common.v1 import common_pb2
from p2m.evaluator.v1 import evaluator_pb2_grpc
from p2m.trainer.v1 import trainer_pb2_grpc

from orchestrator import exports, results
from orchestrator.amounts import bytes_text
from orchestrator.session import reached, services
from orchestrator.terminal import DONE, Terminal
from services.kit.artifacts import Artifacts
from services.kit.channel import dial, stream
from services.kit.errors import InvalidArgument
from services.kit.settings import Settings, port_of
from services.kit.values import Artifact
from services.kit.wire import from_message

_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Wanted:
    """What `p2m export` was asked for."""

    run: str
    format: str
    out: Path
    connect: str = ""
    as_json: bool = False


async def export(terminal: Terminal, settings: Settings, wanted: Wanted) -> int:
    """Writes the folder. What the run has exported already is not done again."""
    if wanted.out.exists() and (not wanted.out.is_dir() or any(wanted.out.iterdir())):
        raise InvalidArgument("OUT_EXISTS", f"{wanted.out} is there already and not empty; name another --out.")
    async with reached(wanted.connect, settings) as client:
        run = await client.get(wanted.run)
    record = await asyncio.to_thread(results.record, settings, run)

    def artifact(name: str) -> common_pb2.Artifact:
        return ParseDict(record["artifacts"][name], common_pb2.Artifact())

    spec = ParseDict(
        {key: record["spec"][key] for key in ("instruction", "demonstrations", "language", "original_instruction")},
        common_pb2.PromptSpec(),
    )
    seed = int(record["options"].get("seed") or 0)
    terminal.say(f"Writing {run.name} as {wanted.format}, then measuring it …")
    async with _targets(settings, wanted.connect) as targets:
        trainer, evaluator = (dial(targets[name], settings) for name in ("trainer", "evaluator"))
        try:
            writing = trainer_pb2_grpc.TrainerServiceStub(trainer).Export
            measuring = evaluator_pb2_grpc.EvaluatorServiceStub(evaluator).Measure
            found = await exports.one(
                wanted.format, artifact("model"), run.name,
                exports.measure_request(spec, artifact("test"), artifact("predictions"), seed),
                lambda request: stream(writing, request, timeout_s=_TIMEOUT_S),
                lambda request: stream(measuring, request, timeout_s=_TIMEOUT_S),
            )  # fmt: skip
        finally:
            await asyncio.gather(trainer.close(), evaluator.close())
    model = from_message(ParseDict(found["model"], common_pb2.Artifact()), Artifact)
    store = Artifacts.open(settings, "orchestrator")
    await asyncio.to_thread(store.fetch, model, wanted.out)
    _tell(terminal, found, wanted)
    return DONE


def _tell(terminal: Terminal, found: dict[str, Any], wanted: Wanted) -> None:
    if wanted.as_json:
        told = {"folder": str(wanted.out.absolute()), **found}
        print(json.dumps(told, ensure_ascii=False), file=terminal.out, flush=True)
        return
    measured = found["measured"]
    latency = measured["latency"]
    terminal.say(f"{wanted.out}: {bytes_text(found['model']['size_bytes'])}, by {measured['runtime']}")
    terminal.say(
        f"  an answer: p50 {latency['p50_ms']:.1f} ms, p95 {latency['p95_ms']:.1f} ms ({latency['inputs']} inputs, one "
        f"at a time, {latency['threads']} threads)"
    )
    difference = exports.exact_match_difference(found)
    if difference is not None:
        terminal.say(
            f"  exact match against the student: {difference['value']:+.1f} ({difference['low']:+.1f} to "
            f"{difference['high']:+.1f}); {measured['same']:.1f} % of the answers are the same"
        )


@contextlib.asynccontextmanager
async def _targets(settings: Settings, connect: str) -> AsyncIterator[dict[str, str]]:
    """Where trainer and evaluator are: those that are set, those beside the RunService there, else started here."""
    if connect:
        host = connect.rpartition(":")[0]
        yield {
            name: getattr(settings, f"{name}_target") or f"{host}:{port_of(name)}" for name in ("trainer", "evaluator")
        }
        return
    async with services(settings, "trainer", "evaluator") as targets:
        yield targets
