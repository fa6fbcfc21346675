"""Artifacts that are damaged, of the wrong kind or made to harm: refused by a canonical status, and nothing is left.

P2M_FAULTS=full: 1,000 of them, at every call that reads one. Otherwise some dozens.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from p2m.common.v1 import common_pb2 as common
from p2m.dataset_retriever.v1 import dataset_retriever_pb2 as datasets
from p2m.evaluator.v1 import evaluator_pb2 as evaluator
from p2m.generator.v1 import generator_pb2 as generator
from p2m.trainer.v1 import trainer_pb2 as trainer

from services.kit.artifacts import FOLDER, PARQUET, Artifacts
from services.kit.channel import wait_until_serving
from services.kit.values import Artifact
from services.kit.wire import to_message
from tests.faults.test_fuzz import CANONICAL, Fuzzed, fuzzed, indexes, model, until_gone  # noqa: F401
from tests.support.fuzzing import bent
from tests.support.models import copy_rows

FULL = os.environ.get("P2M_FAULTS") == "full"
SHARDS, ARTIFACTS = (10, 100) if FULL else (1, 24)
AT_ONCE = 4
SPEC = common.PromptSpec(instruction="Name the colour.", language="en")

# Said to be text by whoever wrote it.
NO_UTF8 = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.array([0, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfea")]
)


class Damage:
    """Draws artifacts that are not what they should be."""

    def __init__(self, rng: random.Random, store: Artifacts, model: Path) -> None:  # noqa: F811
        self._rng = rng
        self._store = store
        self.path = model
        self.rows = store.put_rows(copy_rows(40, seed=1))
        self.folder = store.put_folder(model)

    def dataset(self) -> Artifact:
        deeds = (self._stored_and_changed, self._bent_rows, self._wrong_kind, self._parquet_bomb, self._odd_table)
        return self._rng.choice(deeds)()

    def model(self) -> Artifact:
        deeds = (self._bent_model, self._bent_model, self._bad_manifest, self._wrong_kind, self._stored_and_changed)
        return self._rng.choice(deeds)()

    def _stored_and_changed(self) -> Artifact:
        """As a disk damages it: the bytes at the digest's place are others, fewer or none."""
        made = self._store.put_rows(copy_rows(20, seed=self._rng.randrange(10**6)))
        key = made.uri.removeprefix("p2m://")
        data = self._store.store.get(key)
        self._store.store.put(key, bent(self._rng, data) if self._rng.random() < 0.9 else b"")
        return made

    def _bent_rows(self) -> Artifact:
        """As a service with a bug stores it: the digest is right and the Parquet is not."""
        data = self._store.read_bytes(self.rows)
        return self._store.put_bytes(bent(self._rng, data), PARQUET)

    def _wrong_kind(self) -> Artifact:
        deep = b"[" * 200_000 + b"]" * 200_000
        data = self._rng.choice((b"", b"{}", b"null", b"PAR1", deep, self._rng.randbytes(300), b'{"files": 7}'))
        made = self._rng.choice((self._store.put_bytes(data), self.rows, self.folder))
        return replace(made, media_type=self._rng.choice((PARQUET, FOLDER, "application/json", "")))

    def _parquet_bomb(self) -> Artifact:
        """A few kilobytes that unpack to gigabytes."""
        times, text = self._rng.choice(((1_000_000, "x" * 100_000), (9_000_000, "y"), (100, "z" * 40_000_000)))
        column = pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([text]))
        return self._table({"input": column, "output": column})

    def _odd_table(self) -> Artifact:
        odd: list[Any] = [
            pa.array([1, 2]), pa.array([None, None], pa.string()), pa.array([[["a"]], []]), pa.array([{"a": 1}, None]),
            pa.array([b"\xff\xfe", b"\0"]), pa.array(["\0", "a" * 500_000]), pa.array(["a", "b"], pa.large_string()),
            pa.array([float("nan"), 1.0]), pa.array([None, None]), pa.array([["a"], None]), NO_UTF8,
        ]  # fmt: skip
        names = self._rng.sample(("input", "output", "source", "split", "answers", "real", ""), self._rng.randrange(7))
        return self._table({name: self._rng.choice(odd) for name in names})

    def _table(self, columns: dict[str, Any]) -> Artifact:
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer, compression="zstd", store_schema=False)
        return self._store.put_bytes(buffer.getvalue(), PARQUET)

    def _bent_model(self) -> Artifact:
        """One of the model's files is damaged, absent, or says what cannot be."""
        manifest = json.loads(self._store.read_bytes(self.folder))
        entry = self._rng.choice(manifest["files"])
        blob = self.folder.uri.rpartition("/")[0] + "/" + entry["sha256"]
        data = self._store.read_bytes(Artifact(blob, entry["sha256"]))
        deed = self._rng.randrange(4)
        if deed == 0:
            manifest["files"].remove(entry)
        else:
            if deed == 1 and entry["path"] == "config.json":
                huge = {"vocab_size": 10**9, "d_model": 10**9, "num_heads": 0, "model_type": "no-such", "d_kv": -1}
                name = self._rng.choice([*huge])
                data = json.dumps(json.loads(data) | {name: huge[name]}).encode()
            elif deed == 2 and entry["path"].endswith(".safetensors"):
                data = (2**62).to_bytes(8, "little") + data[8:]
            else:
                data = bent(self._rng, data)
            entry["sha256"] = self._store.put_bytes(data).sha256
        return self._store.put_bytes(json.dumps(manifest).encode(), FOLDER)

    def _bad_manifest(self) -> Artifact:
        entry = json.loads(self._store.read_bytes(self.folder))["files"][0]
        paths: list[Any] = [
            "../out", "/etc/passwd", "a\0b", "", ".", "x" * 300, "/".join("d" * 400), "\ud800", 7, None, "a/../../b",
        ]  # fmt: skip
        files: Any = self._rng.choice(
            (
                [entry | {"path": self._rng.choice(paths)}],
                [entry, entry], [entry | {"path": "a"}, entry | {"path": "a/b"}], [{}], {}, "x", [entry] * 20_000,
                [entry | {"path": str(number)} for number in range(11_000)], [entry | {"size_bytes": "many"}],
                [entry | {"sha256": "0" * 64}], [entry | {"sha256": "../x"}], [entry | {"size_bytes": -1}],
            )
        )  # fmt: skip
        return self._store.put_bytes(json.dumps({"files": files}).encode(), FOLDER)


def _request(damage: Damage, rng: random.Random, number: int) -> tuple[str, str, Any]:
    """A service, its call, and a request that has it read a damaged artifact. One in seven takes a child process."""
    good, bad = _message(damage.rows), _message(damage.dataset())
    own: dict[str, Any] = {"request_id": f"corrupt-{number}/x", "spec": SPEC}

    def neighbour(rows: Any) -> Any:
        return evaluator.Contestant(name="student", nearest_neighbour=rows)

    if rng.random() < 0.85:
        return rng.choice(
            (
                ("generator", "Salvage", generator.SalvageRequest(**own, exclude=[bad])),
                ("generator", "Generate", generator.GenerateRequest(**own, number=2, exclude=[good, bad])),
                ("dataset_retriever", "Adapt", datasets.AdaptRequest(**own, dataset=bad, max_rows=2)),
                ("evaluator", "Evaluate", evaluator.EvaluateRequest(**own, test=bad, contestants=[neighbour(good)])),
                ("evaluator", "Evaluate", evaluator.EvaluateRequest(**own, test=good, contestants=[neighbour(bad)])),
            )
        )
    source = trainer.TrainingSource(dataset=bad, kind=trainer.DATASET_KIND_USER)
    broken, whole, folder = _message(damage.model()), _message(damage.folder), f"folder:{damage.path}"
    half = trainer.EXPORT_FORMAT_SAFETENSORS_BF16
    return rng.choice(
        (
            ("trainer", "Prepare", trainer.PrepareRequest(**own, sources=[source])),
            ("trainer", "Train", trainer.TrainRequest(**own, train=bad, validation=good, model=folder)),
            ("trainer", "Export", trainer.ExportRequest(request_id=own["request_id"], model=broken, format=half)),
            ("evaluator", "Predict", evaluator.PredictRequest(model=broken, spec=SPEC, inputs=["red"])),
            ("evaluator", "Predict", evaluator.PredictRequest(model=broken, spec=SPEC, inputs=["red"])),
            ("evaluator", "Measure", evaluator.MeasureRequest(**own, name="x", model=whole, test=bad)),
        )
    )


@pytest.mark.parametrize("shard", range(SHARDS))
async def test_no_artifact_harms(fuzzed: Fuzzed, model: Path, shard: int) -> None:  # noqa: F811
    """Never UNKNOWN or INTERNAL, never a server that is gone or swollen, and no process is left."""
    rng = random.Random(f"corrupt {shard}")
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    damage = Damage(rng, Artifacts.open(fuzzed.settings, "orchestrator"), model)
    codes: Counter[str] = Counter()
    bugs: list[str] = []

    async def ask(number: int) -> None:
        service, method, request = await asyncio.to_thread(_request, damage, rng, number)
        name = service.title().replace("_", "")
        path = f"/p2m.{service}.v1.{name}Service/{method}"
        streaming = method not in ("Salvage", "Propose")
        code, reason, said = await fuzzed.ask(service, path, request.SerializeToString(), streaming, 60.0)
        codes[code] += 1
        if code not in CANONICAL or (code == "UNAVAILABLE" and reason == code) or "BUG" in reason:
            bugs.append(f"{code} {reason} ({said}) of {path} for {request}"[:2_000])

    for begin in range(0, ARTIFACTS, AT_ONCE):
        await asyncio.gather(*(ask(number) for number in range(begin, begin + AT_ONCE)))
    print(json.dumps({"shard": shard, "artifacts": codes.total(), "codes": codes, "bugs": len(bugs)}), file=sys.stderr)
    assert not bugs, "\n".join(bugs[:20])
    for channel in fuzzed.channels.values():
        await wait_until_serving(channel, 60)
    await until_gone(before, most=1)


def _message(artifact: Artifact) -> Any:
    return to_message(artifact, common.Artifact)
