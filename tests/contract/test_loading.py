"""DatasetRetrieverService with a hub behind it: what its callers see of gates, waits, revisions and limits."""

from __future__ import annotations

import asyncio
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from p2m.common.v1 import common_pb2 as common
from p2m.dataset_retriever.v1 import dataset_retriever_pb2 as pb
from p2m.dataset_retriever.v1 import dataset_retriever_pb2_grpc as rpc

from catalogue.facts import facts
from services.kit import embed, index, locations
from services.kit.artifacts import Artifacts
from services.kit.channel import stream, unary
from services.kit.errors import FailedPrecondition, InvalidArgument, Unavailable
from services.kit.settings import Settings
from services.kit.values import Artifact
from services.kit.wire import from_message
from tests.contract.conftest import Connect
from tests.support.hub import Fault, Hub

TASK = common.PromptSpec(instruction="Answer the question.")


def _rows(number: int) -> bytes:
    return "".join(json.dumps({"question": f"q{n}", "answer": f"a{n}"}) + "\n" for n in range(number)).encode()


async def _stub(connect: Connect, hub: Hub, tmp_path: Path, *names: str) -> rpc.DatasetRetrieverServiceStub:
    """The service, with a catalogue of these hub datasets."""
    entries = [{"id": f"acme/{name}", "description": "Questions and answers.", "downloads": 1} for name in names]
    own = Settings()
    # What is near to what does not matter here: encoding would take longer than all the rest.
    vectors = np.zeros((len(entries), 384), np.float32)
    vectors[:, 0] = 1
    index.save(
        tmp_path / "index" / "datasets", entries, [entry["description"] for entry in entries], vectors,
        facts=facts("datasets", entries), source="given:", encoder=embed.digest(locations.resolve(own.encoder, own)),
    )  # fmt: skip
    changes: dict[str, Any] = {
        "catalogue": str(tmp_path / "index"), "hub_offline": False, "hub_url": hub.url, "hub_token": "",
        "hub_cache": str(tmp_path / "cache"), "hub_patience_s": 2.0, "grace_s": 30.0,
    }  # fmt: skip
    return rpc.DatasetRetrieverServiceStub(await connect("dataset_retriever", **changes))


def _retrieve(id: str, dataset: str, **fields: Any) -> pb.RetrieveRequest:
    return pb.RetrieveRequest(
        request_id=id, dataset=dataset, input_columns=["question"], output_column="answer", **fields
    )


async def test_the_revision_that_was_seen_is_loaded(
    connect: Connect, run_name: str, tmp_path: Path, settings: Settings
) -> None:
    """Inspect tells the hub's commit; Retrieve with it loads those rows though the dataset has changed since."""
    async with Hub() as hub:
        repository = hub.add("datasets", "acme/qa", {"train.jsonl": _rows(3)})
        stub = await _stub(connect, hub, tmp_path, "qa")
        look = await unary(stub.Inspect, pb.InspectRequest(request_id=f"{run_name}/i", dataset="acme/qa", spec=TASK))
        assert look.revision == repository.commit and [*look.input_columns] == ["question"]
        hub.add("datasets", "acme/qa", {"train.jsonl": _rows(9)}, branches={"before": repository.files})
        old = await stream(stub.Retrieve, _retrieve(f"{run_name}/old", "acme/qa", revision=look.revision))
        new = await stream(stub.Retrieve, _retrieve(f"{run_name}/new", "acme/qa"))
    assert (old.revision, new.revision != look.revision) == (look.revision, True)
    assert [split.rows for split in (*old.splits, *new.splits)] == [3, 9]
    rows = Artifacts.open(settings, "dataset_retriever").read_rows(from_message(old.dataset, Artifact))
    assert [(row.input, row.output, row.source, row.split) for row in rows[:1]] == [("q0", "a0", "acme/qa", "train")]


async def test_gates_and_waits(connect: Connect, run_name: str, tmp_path: Path) -> None:
    """Gated is FAILED_PRECONDITION with the page; too long a wait UNAVAILABLE with RetryInfo."""
    async with Hub() as hub:
        hub.add("datasets", "acme/gated", {"train.jsonl": _rows(3)}, gated=True)
        hub.add("datasets", "acme/busy", {"train.jsonl": _rows(3)})
        hub.fault("/datasets/acme/busy/resolve/*/train.jsonl", Fault(status=429, retry_after=90), times=9, method="*")
        stub = await _stub(connect, hub, tmp_path, "gated", "busy")
        with pytest.raises(FailedPrecondition, match=f"accept its terms at {hub.url}/datasets/acme/gated") as gated:
            await stream(stub.Retrieve, _retrieve(f"{run_name}/gated", "acme/gated"))
        assert gated.value.reason == "GATED"
        with pytest.raises(Unavailable) as busy:
            await stream(stub.Retrieve, _retrieve(f"{run_name}/busy", "acme/busy"))
        assert (busy.value.reason, busy.value.retry_after) == ("HUB_BUSY", 90)


async def test_limits_of_a_load(connect: Connect, run_name: str, tmp_path: Path) -> None:
    """A limit in bytes ends a load with a note; one that is none is INVALID_ARGUMENT with the field's name."""
    async with Hub() as hub:
        hub.add("datasets", "acme/large", {"train.jsonl": _rows(200_000)})
        stub = await _stub(connect, hub, tmp_path, "large")
        done = await stream(stub.Retrieve, _retrieve(f"{run_name}/l", "acme/large", max_bytes=1 << 19, max_rows=5))
        assert done.splits[0].rows == 5 and any("limit of 0.5 MB" in note for note in done.notes)
        for field, value in (
            ("max_rows", -1), ("max_rows", 1_000_001), ("max_bytes", -1), ("max_seconds", math.nan),
            ("max_seconds", math.inf),
        ):  # fmt: skip
            with pytest.raises(InvalidArgument) as raised:
                await stream(stub.Retrieve, _retrieve(f"{run_name}/{field}{value}", "acme/large", **{field: value}))
            assert raised.value.field == field


async def test_a_cancelled_call_frees_the_hub_at_once(connect: Connect, run_name: str, tmp_path: Path) -> None:
    """When the caller goes while the hub drips, the slot is free again within 2 s, long before the grace."""
    async with Hub() as hub:
        hub.add("datasets", "acme/slow", {"train.jsonl": _rows(200_000)})
        hub.fault("/api/resolve-cache/*", Fault(bytes_per_s=50.0), times=9)
        stub = await _stub(connect, hub, tmp_path, "slow")
        call = asyncio.ensure_future(stream(stub.Retrieve, _retrieve(f"{run_name}/slow", "acme/slow")))
        async with asyncio.timeout(30):
            while not any("resolve-cache" in one.path and one.method == "GET" for one in hub.asked):
                await asyncio.sleep(0.02)
        begun = time.monotonic()
        children = [one for one in psutil.Process().children() if "load:load" in " ".join(one.cmdline())]
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        [child] = children
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() - begun < 2
            await asyncio.sleep(0.02)
