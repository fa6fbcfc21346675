"""What every trainer does when it searches, and when a training leaves sources out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from p2m.trainer.v1 import trainer_pb2 as pb
from p2m.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

from services.kit.artifacts import Artifacts
from services.kit.channel import stream
from services.kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from services.kit.settings import Settings
from services.kit.values import Progress
from tests.contract.conftest import Connect
from tests.contract.test_trainer import SPEC, _put, _train_request, artifacts, settings  # noqa: F401  the fixtures
from tests.support.models import copy_rows, tiny_encoder


def _request(store: Artifacts, run_name: str, model: Path, **changes: Any) -> pb.SearchRequest:
    """A search of one model, with all set but the tokens in a batch: five choices, of which there are so many."""
    request = pb.SearchRequest(
        request_id=f"{run_name}/search", train=_put(store, copy_rows(40)), validation=_put(store, copy_rows(20, 1)),
        spec=SPEC, budget_seconds=300, seed=1,
        candidates=[pb.SearchCandidate(model=f"folder:{model}", start=pb.HyperParameters(batch_tokens=256))],
        hyper_parameters=pb.HyperParameters(learning_rate=3e-3, epochs=1, checkpoint_steps=2, head="text"),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(request, name, value)
    return request


async def test_a_search_that_is_left_goes_on(
    connect: Connect, settings: Settings, artifacts: Artifacts, run_name: str, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    """A caller who leaves in the third trial loses that one alone; in the end every choice was tried once, the result
    is stored, and the trials' records are gone."""
    stub = TrainerServiceStub(await connect("trainer"))
    request = _request(artifacts, run_name, tiny_encoder(tmp_path / "model"))
    call = stub.Search(request)
    async for response in call:
        if response.progress.message.startswith("trial 3,"):
            break
    call.cancel()
    prefix = f"trainer/checkpoints/{run_name}/search/"
    assert len(artifacts.store.list(prefix)) >= 2
    seen: list[Progress] = []
    result = await stream(stub.Search, request, seen.append)
    assert not [one for one in seen if one.message.startswith(("trial 1,", "trial 2,"))]
    assert {one.unit for one in seen} == {"seconds"} and {one.total for one in seen} == {300.0}
    assert sorted(one.hyper_parameters.batch_tokens for one in result.trials) == [64, 128, 256, 512, 1024]
    assert result.trials[0].hyper_parameters.batch_tokens == 256
    assert result.HasField("best") and artifacts.store.list(prefix) == []
    seen.clear()
    assert await stream(stub.Search, request, seen.append) == result
    assert not seen
    request.seed = 2
    with pytest.raises(AlreadyExists):
        await stream(stub.Search, request)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"budget_seconds": float("nan")}, "budget_seconds"),
        ({"budget_seconds": 0.5}, "budget_seconds"),
        ({"candidates": []}, "candidates"),
        ({"candidates": [pb.SearchCandidate(model="../../etc")]}, "candidates[0].model"),
        (
            {"candidates": [pb.SearchCandidate(model="folder:/a", start=pb.HyperParameters(epochs=float("inf")))]},
            "candidates[0].start.epochs",
        ),
        ({"hyper_parameters": pb.HyperParameters(learning_rate=-1)}, "hyper_parameters.learning_rate"),
    ],
)
async def test_what_cannot_be_searched(
    connect: Connect, settings: Settings, artifacts: Artifacts, run_name: str, tmp_path: Path,  # noqa: F811
    changes: dict[str, Any], field: str,
) -> None:  # fmt: skip
    """A budget, a candidate or a hyper-parameter that cannot be meant is INVALID_ARGUMENT and named."""
    stub = TrainerServiceStub(await connect("trainer"))
    request = _request(artifacts, run_name, tmp_path)
    for name, value in changes.items():
        request.ClearField(name)  # type: ignore[arg-type]
        request.MergeFrom(pb.SearchRequest(**{name: value}))
    with pytest.raises(InvalidArgument) as caught:
        await stream(stub.Search, request)
    assert caught.value.field == field


async def test_a_source_is_left_out_of_training_alone(
    connect: Connect, settings: Settings, artifacts: Artifacts, run_name: str, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    """What is trained without a source is what is trained on a split that never had it, with the same validation rows;
    a source that there is not is INVALID_ARGUMENT, and to leave out all is FAILED_PRECONDITION."""
    stub = TrainerServiceStub(await connect("trainer"))
    model = tiny_encoder(tmp_path / "model")
    one, other = copy_rows(40, source="one"), copy_rows(30, seed=7, source="other")
    never = _train_request(artifacts, f"{run_name}-a", model, epochs=1)
    never.train.CopyFrom(_put(artifacts, one))
    never.validation.CopyFrom(_put(artifacts, other))
    both = pb.TrainRequest()
    both.CopyFrom(never)
    both.request_id = f"{run_name}-b/train"
    both.train.CopyFrom(_put(artifacts, [*one, *other]))
    both.leave_out.append("other")
    left_out = await stream(stub.Train, both)
    assert left_out.weights_sha256 == (await stream(stub.Train, never)).weights_sha256
    both.request_id, both.leave_out[:] = f"{run_name}-c/train", ["nobody"]
    with pytest.raises(InvalidArgument) as caught:
        await stream(stub.Train, both)
    assert caught.value.field == "leave_out" and "one, other" in caught.value.message
    both.request_id, both.leave_out[:] = f"{run_name}-d/train", ["one", "other"]
    with pytest.raises(FailedPrecondition) as refused:
        await stream(stub.Train, both)
    assert refused.value.reason == "NO_ROWS"
