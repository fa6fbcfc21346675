"""The trainer's contract: what every implementation of TrainerService does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from p2m.common.v1 import common_pb2 as common
from p2m.trainer.v1 import trainer_pb2 as pb
from p2m.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

from services.kit.artifacts import FOLDER, Artifacts
from services.kit.channel import stream
from services.kit.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from services.kit.settings import Settings
from services.kit.values import Artifact, Progress, Row
from services.kit.wire import from_message, to_message
from tests.contract.conftest import Connect
from tests.support.models import copy_rows, tiny_encoder

SPEC = common.PromptSpec(instruction="Copy the first word.", language="en")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """One thread: two wait for each other when other tests take the cores."""
    return settings.model_copy(update={"threads": 1})


@pytest.fixture
def artifacts(settings: Settings) -> Artifacts:
    return Artifacts.open(settings, "tests")


def _put(artifacts: Artifacts, rows: list[Row]) -> common.Artifact:
    return to_message(artifacts.put_rows(rows), common.Artifact)


def _prepare_request(artifacts: Artifacts, run_name: str, rows: list[Row]) -> pb.PrepareRequest:
    source = pb.TrainingSource(dataset=_put(artifacts, rows), kind=pb.DATASET_KIND_USER)
    return pb.PrepareRequest(request_id=f"{run_name}/prepare", sources=[source], spec=SPEC)


def _train_request(artifacts: Artifacts, run_name: str, model: Path, **asked: Any) -> pb.TrainRequest:
    asked = {"learning_rate": 3e-3, "epochs": 2, "batch_tokens": 512} | asked
    return pb.TrainRequest(
        request_id=f"{run_name}/train",
        train=_put(artifacts, copy_rows(100)),
        validation=_put(artifacts, copy_rows(20, seed=1)),
        spec=SPEC,
        model=f"folder:{model}",
        hyper_parameters=pb.HyperParameters(**asked),
    )


def _names(artifacts: Artifacts, folder: common.Artifact, into: Path) -> set[str]:
    return {path.name for path in artifacts.fetch(from_message(folder, Artifact), into).iterdir()}


async def test_from_rows_to_an_exported_model(
    connect: Connect, artifacts: Artifacts, run_name: str, tmp_path: Path
) -> None:
    """Prepare, Train and Export pass artifacts on to each other; the model is a folder beside its base."""
    stub = TrainerServiceStub(await connect("trainer"))
    seen: list[Progress] = []
    prepared = await stream(stub.Prepare, _prepare_request(artifacts, run_name, copy_rows(100)))
    request = _train_request(artifacts, run_name, tiny_encoder(tmp_path / "model"))
    request.train.CopyFrom(prepared.train)
    request.validation.CopyFrom(prepared.validation)
    trained = await stream(stub.Train, request, seen.append)
    files = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"}
    assert files <= _names(artifacts, trained.model, tmp_path / "trained")
    assert files <= _names(artifacts, trained.base, tmp_path / "base")
    assert trained.model.media_type == FOLDER and trained.model.sha256 != trained.base.sha256
    assert trained.history[-1].HasField("validation_loss") and trained.best_step > 0
    assert len(trained.weights_sha256) == 64
    names = {metric.name for progress in seen for metric in progress.metrics}
    assert {"train_loss", "validation_loss", "resumed_from_step"} <= names
    exporting = pb.ExportRequest(
        request_id=f"{run_name}/export", model=trained.model, format=pb.EXPORT_FORMAT_SAFETENSORS_BF16
    )
    exported = await stream(stub.Export, exporting)
    assert exported.model.size_bytes < trained.model.size_bytes * 0.8


async def test_splits_share_nothing(connect: Connect, artifacts: Artifacts, run_name: str) -> None:
    """The counts, what was removed and the artifacts agree, and no input is in two splits."""
    rows = [*copy_rows(100), *copy_rows(10), Row("", "word1")]
    stub = TrainerServiceStub(await connect("trainer"))
    result = await stream(stub.Prepare, _prepare_request(artifacts, run_name, rows))
    splits = {
        name: artifacts.read_rows(from_message(getattr(result, name), Artifact))
        for name in ("train", "validation", "test")
    }
    assert {count.split: count.rows for count in result.counts} == {name: len(got) for name, got in splits.items()}
    inputs = [row.input for got in splits.values() for row in got]
    assert len(set(inputs)) == len(inputs)
    assert result.removed["empty"] == 1 and result.removed["duplicate"] == 10
    assert len(inputs) + sum(result.removed.values()) == len(rows)
    assert artifacts.read_table(from_message(result.test, Artifact))["real"].to_pylist() == [True] * len(splits["test"])


async def test_same_request_is_answered_from_the_store(
    connect: Connect, artifacts: Artifacts, run_name: str, tmp_path: Path
) -> None:
    """The same id and content give the same result without training again; other content is ALREADY_EXISTS."""
    stub = TrainerServiceStub(await connect("trainer"))
    request = _train_request(artifacts, run_name, tiny_encoder(tmp_path / "model"))
    first = await stream(stub.Train, request)
    seen: list[Progress] = []
    assert await stream(stub.Train, request, seen.append) == first
    assert not seen
    request.hyper_parameters.epochs = 3
    with pytest.raises(AlreadyExists):
        await stream(stub.Train, request)


async def test_a_cancelled_training_goes_on_where_it_was(
    connect: Connect, artifacts: Artifacts, run_name: str, tmp_path: Path
) -> None:
    """A caller who leaves loses nothing: the same request goes on from a later step than the first, and its checkpoints
    are gone once the result is there."""
    stub = TrainerServiceStub(await connect("trainer"))
    request = _train_request(artifacts, run_name, tiny_encoder(tmp_path / "model"), epochs=60, patience=0)
    call = stub.Train(request)
    async for response in call:
        if response.progress.total and response.progress.done >= 1:
            break
    call.cancel()
    prefix = f"trainer/checkpoints/{run_name}/train/"
    for _ in range(100):
        if any(key.endswith("manifest.json") for key in artifacts.store.list(prefix)):
            break
        await asyncio.sleep(0.1)
    seen: list[Progress] = []
    request_again = pb.TrainRequest()
    request_again.CopyFrom(request)
    await stream(stub.Train, request_again, seen.append)
    resumed = [m.value for progress in seen for m in progress.metrics if m.name == "resumed_from_step"]
    assert min(resumed) >= 1
    assert artifacts.store.list(prefix) == []


async def test_what_is_asked_for_must_exist(
    connect: Connect, artifacts: Artifacts, run_name: str, tmp_path: Path
) -> None:
    """A dataset or a model that is not there is NOT_FOUND, a location that is none INVALID_ARGUMENT."""
    stub = TrainerServiceStub(await connect("trainer"))
    absent = _train_request(artifacts, f"{run_name}-a", tmp_path / "nowhere")
    with pytest.raises(NotFound):
        await stream(stub.Train, absent)
    unread = _train_request(artifacts, f"{run_name}-b", tiny_encoder(tmp_path / "model"))
    unread.train.uri = "p2m://tests/blobs/sha256/" + "0" * 64
    unread.train.sha256 = ""
    with pytest.raises(NotFound):
        await stream(stub.Train, unread)
    unread.model = "the best model"
    with pytest.raises(InvalidArgument):
        await stream(stub.Train, unread)


async def test_damaged_data_is_noticed(connect: Connect, artifacts: Artifacts, run_name: str, tmp_path: Path) -> None:
    """A training split whose bytes changed in the store is DATA_LOSS, not trained on."""
    stub = TrainerServiceStub(await connect("trainer"))
    request = _train_request(artifacts, run_name, tiny_encoder(tmp_path / "model"))
    key = request.train.uri.removeprefix("p2m://")
    artifacts.store.put(key, artifacts.store.get(key)[:-20] + b"x" * 20)
    with pytest.raises(DataLoss):
        await stream(stub.Train, request)


@pytest.mark.parametrize("name, value", [("learning_rate", -1.0), ("epochs", float("nan")), ("batch_tokens", 0)])
async def test_senseless_hyper_parameters(
    connect: Connect, artifacts: Artifacts, run_name: str, tmp_path: Path, name: str, value: float
) -> None:
    """A value that cannot be meant is INVALID_ARGUMENT and the error names the field."""
    stub = TrainerServiceStub(await connect("trainer"))
    with pytest.raises(InvalidArgument) as caught:
        await stream(stub.Train, _train_request(artifacts, run_name, tmp_path, **{name: value}))
    assert caught.value.field == f"hyper_parameters.{name}"


async def test_too_few_rows(connect: Connect, artifacts: Artifacts, run_name: str) -> None:
    """Data too small to split is FAILED_PRECONDITION, with the counts and what to do."""
    stub = TrainerServiceStub(await connect("trainer"))
    with pytest.raises(FailedPrecondition) as caught:
        await stream(stub.Prepare, _prepare_request(artifacts, run_name, copy_rows(12)))
    assert caught.value.reason == "TOO_FEW_ROWS"
    assert "wanted at least" in caught.value.message and "Generate more" in caught.value.message
