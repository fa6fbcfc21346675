"""The evaluator's contract: what every implementation of EvaluatorService does."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from p2m.common.v1 import common_pb2
from p2m.evaluator.v1 import evaluator_pb2 as pb
from p2m.evaluator.v1.evaluator_pb2_grpc import EvaluatorServiceStub

from services.kit import encoding
from services.kit.artifacts import Artifacts
from services.kit.channel import stream
from services.kit.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, P2MError
from services.kit.settings import Settings
from services.kit.tables import rows_to_table
from services.kit.values import Artifact, Progress, PromptSpec, Row
from services.kit.wire import from_message, to_message
from tests.contract.conftest import Connect
from tests.support import models
from tests.support.teacher import ScriptedTeacher

METRICS = {"exact_match", "exact_match_normalised", "token_f1", "chrf", "bertscore"}
TRAIN, TEST = models.copy_rows(4000)[:3900], models.copy_rows(4000)[3900:]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has not learned the task: an output is the first word of the input."""
    from transformers import GenerationConfig

    folder = models.tiny_t5(tmp_path_factory.mktemp("base"))
    config = GenerationConfig.from_pretrained(folder)
    config.max_new_tokens = 4
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def student_folder(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after 3 seconds of training: right on nearly all rows that it never saw."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer, model = (
        AutoTokenizer.from_pretrained(base_folder),
        T5ForConditionalGeneration.from_pretrained(base_folder),
    )
    inputs = torch.tensor(encoding.encode_inputs(tokenizer, PromptSpec(), [row.input for row in TRAIN], 64))
    outputs = torch.tensor(encoding.encode_outputs(tokenizer, [row.output for row in TRAIN], 16, eos=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a model is slower with more
    for _ in range(250):
        batch = torch.randint(len(TRAIN), (64,))
        model(input_ids=inputs[batch], labels=outputs[batch]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("student")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def artifacts(settings: Settings) -> Artifacts:
    return Artifacts.open(settings, "tests")


def message(artifact: Artifact) -> common_pb2.Artifact:
    return to_message(artifact, common_pb2.Artifact)


def model(name: str, artifact: Artifact) -> pb.Contestant:
    return pb.Contestant(name=name, model=message(artifact))


def with_real(rows: list[Row], real: list[bool]) -> pa.Table:
    return rows_to_table(rows).append_column("real", pa.array(real))


def scores(result: pb.EvaluateResult) -> dict[tuple[str, str, str], pb.Score]:
    return {(one.contestant, one.slice, one.metric): one for one in result.scores}


async def test_everyone_answers_the_same_rows(
    connect: Connect, artifacts: Artifacts, run_name: str, base_folder: Path, student_folder: Path
) -> None:
    """Student, base and nearest neighbour are scored by every metric on every slice, compared on real rows and judged;
    all predictions are stored; the same request again gives the stored result."""
    stub = EvaluatorServiceStub(await connect("evaluator"))
    rows = [Row(row.input, row.output, "web" if n < 60 else "llm") for n, row in enumerate(TEST[:80])]
    real = [True] * 60 + [False] * 20
    request = pb.EvaluateRequest(
        request_id=f"{run_name}/evaluate",
        contestants=[
            model("student", artifacts.put_folder(student_folder)),
            model("base", artifacts.put_folder(base_folder)),
            pb.Contestant(name="nearest_neighbour", nearest_neighbour=message(artifacts.put_rows(TRAIN[:50]))),
        ],
        test=message(artifacts.put_table(with_real(rows, real))),
        seed=1,
    )
    progress: list[Progress] = []
    result = await stream(stub.Evaluate, request, progress.append)

    found = scores(result)
    assert {key[0] for key in found} == {"student", "base", "nearest_neighbour"}
    assert {key[2] for key in found} == METRICS
    sizes = {"all": 80, "real": 60, "generated": 20, "web": 60, "llm": 20}
    assert {(one.slice, one.rows) for one in result.scores} == set(sizes.items())
    for one in result.scores:
        assert 0 <= one.estimate.low <= one.estimate.value <= one.estimate.high <= 100.001
    student, neighbour = found["student", "real", "exact_match"], found["nearest_neighbour", "real", "exact_match"]
    assert student.estimate.low > neighbour.estimate.high

    compared = {(one.against, one.metric): one for one in result.comparisons}
    assert set(compared) == {(name, metric) for name in ("base", "nearest_neighbour") for metric in METRICS}
    assert all(one.rows == 60 for one in result.comparisons)
    difference = compared["nearest_neighbour", "exact_match"].difference
    assert difference.value == pytest.approx(student.estimate.value - neighbour.estimate.value)
    assert result.verdict == pb.VERDICT_SHIP
    assert "nearest neighbour" in result.verdict_reason
    assert result.ceiling == 100
    assert result.bertscore_encoder

    table = artifacts.read_table(from_message(result.predictions, Artifact))
    assert table.column_names == [
        "input", "output", "source", "real", "prediction_student", "prediction_base", "prediction_nearest_neighbour",
    ]  # fmt: skip
    assert table.column("input").to_pylist() == [row.input for row in rows]
    right = [
        a == b for a, b in zip(*(table.column(c).to_pylist() for c in ("prediction_student", "output")), strict=True)
    ]
    assert 100 * sum(right[:60]) / 60 == pytest.approx(student.estimate.value)
    assert any(one.unit == "rows" and one.done == one.total == 80 for one in progress)

    assert await stream(stub.Evaluate, request) == result
    request.seed = 2
    with pytest.raises(AlreadyExists):
        await stream(stub.Evaluate, request)


async def test_where_the_student_fails_is_found_on_validation_rows(
    connect: Connect, artifacts: Artifacts, run_name: str, base_folder: Path, student_folder: Path
) -> None:
    """With a validation split the student answers it too: its slices are found there, test rows are only counted into
    them, and no text of a test row is in them; generated and real rows' rankings of three contestants are compared."""
    stub = EvaluatorServiceStub(await connect("evaluator"))
    # What the student has learned fails on rows that want the last word: those of two words begin with word0.
    odd = [Row(f"word0 {row.output}", row.output, "odd") for row in TRAIN[100:140]]
    validation = [*TRAIN[:60], *odd]
    test = [*TEST[:60], *(Row(f"word0 {row.output} word0", row.output, "odd") for row in TEST[60:90])]
    real = [n % 2 == 0 for n in range(90)]
    request = pb.EvaluateRequest(
        request_id=f"{run_name}/evaluate",
        contestants=[
            model("student", artifacts.put_folder(student_folder)),
            model("base", artifacts.put_folder(base_folder)),
            pb.Contestant(name="nearest_neighbour", nearest_neighbour=message(artifacts.put_rows(TRAIN[:50]))),
        ],
        test=message(artifacts.put_table(with_real(test, real))),
        validation=message(artifacts.put_rows(validation)),
    )
    result = await stream(stub.Evaluate, request)
    assert result.slices_split == "validation"
    assert result.slices_wrong
    assert result.slices
    worst = result.slices[0]
    assert worst.difference.low > 0
    assert 0 <= worst.error_rate.low <= worst.error_rate.value <= worst.error_rate.high <= 100
    assert worst.rest_error_rate.value < worst.error_rate.value
    assert worst.rows >= 10 and worst.test_rows > 0 and worst.HasField("test_error_rate")
    known = {row.input for row in validation}
    assert all(example.input in known for one in result.slices for example in one.examples)
    assert {one.metric for one in result.agreements} == METRICS
    for one in result.agreements:
        assert (one.contestants, one.generated_rows, one.real_rows) == (3, 45, 45)
        assert -1 <= one.tau.low <= one.tau.value <= one.tau.high <= 1
    table = artifacts.read_table(from_message(result.predictions, Artifact))
    assert table.num_rows == len(test)

    request.request_id, request.validation.uri = f"{run_name}/evaluate-again", ""
    again = await stream(stub.Evaluate, request)
    assert again.slices_split == "test"
    assert list(again.scores) == list(result.scores)


async def test_the_teacher_answers_the_first_rows(
    connect: Connect, artifacts: Artifacts, run_name: str, student_folder: Path
) -> None:
    """The teacher is asked for `max_rows` rows, compared with the student on those, and its cost is in the ledger; rows
    without the column `real` count as real, and any of several answers is right."""

    def say(body: dict[str, Any], _: Any) -> dict[str, str]:
        return {"answer": body["messages"][-1]["content"].split()[0].upper()}

    rows = [Row(row.input, "another", answers=("Other", row.output.upper())) for row in TEST[:40]]
    async with ScriptedTeacher({"answer": say}) as server:
        stub = EvaluatorServiceStub(await connect("evaluator", openai_base_url=server.url, openai_api_key="sk-test"))
        request = pb.EvaluateRequest(
            request_id=f"{run_name}/evaluate",
            contestants=[
                model("student", artifacts.put_folder(student_folder)),
                pb.Contestant(name="teacher", teacher=pb.Teacher(max_rows=25)),
            ],
            test=message(artifacts.put_rows(rows)),
        )
        result = await stream(stub.Evaluate, request)
        assert server.count["requests"] == 25
    found = scores(result)
    assert found["teacher", "real", "exact_match"].estimate.value == 100
    assert found["teacher", "real", "exact_match"].rows == 25
    assert found["student", "real", "exact_match"].estimate.value == 0
    assert found["student", "real", "exact_match_normalised"].estimate.value > 90
    assert found["student", "real", "exact_match"].rows == 40
    assert {(one.against, one.rows) for one in result.comparisons} == {("teacher", 25)}
    assert result.ledger.requests == 25
    assert result.verdict == pb.VERDICT_NOT_ENOUGH_EVIDENCE
    assert result.ceiling == 0
    assert any("The student cannot give" in note for note in result.notes)
    answers = artifacts.read_table(from_message(result.predictions, Artifact)).column("prediction_teacher").to_pylist()
    assert answers == [row.input.split()[0].upper() for row in rows[:25]] + [None] * 15


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["base"], "NO_STUDENT"),
        ([], "NO_STUDENT"),
        (["student", "student"], "BAD_CONTESTANT"),
        (["student", "Base line"], "BAD_CONTESTANT"),
    ],
)
async def test_contestants_that_make_no_sense(
    connect: Connect, artifacts: Artifacts, run_name: str, names: list[str], reason: str
) -> None:
    """No student, two of a name, or a name that is none: INVALID_ARGUMENT that names the field."""
    stub = EvaluatorServiceStub(await connect("evaluator"))
    stored = artifacts.put_bytes(b'{"files": []}', "application/vnd.p2m.folder+json")
    contestants = [model(name, stored) for name in names]
    test = message(artifacts.put_rows(TEST[:3]))
    with pytest.raises(InvalidArgument) as caught:
        await stream(
            stub.Evaluate, pb.EvaluateRequest(request_id=f"{run_name}/evaluate", contestants=contestants, test=test)
        )
    assert (caught.value.reason, caught.value.field) == (reason, "contestants")


async def test_a_contestant_who_is_nobody(connect: Connect, artifacts: Artifacts, run_name: str) -> None:
    """A contestant with no kind set is INVALID_ARGUMENT."""
    stub = EvaluatorServiceStub(await connect("evaluator"))
    request = pb.EvaluateRequest(
        request_id=f"{run_name}/evaluate",
        contestants=[pb.Contestant(name="student")],
        test=message(artifacts.put_rows(TEST[:3])),
    )
    with pytest.raises(InvalidArgument):
        await stream(stub.Evaluate, request)


@pytest.mark.parametrize("damage", ["no rows", "no output", "absent", "flipped", "no model"])
async def test_what_is_stored_is_wrong(
    connect: Connect, artifacts: Artifacts, run_name: str, student_folder: Path, damage: str
) -> None:
    """An empty split, a missing column, an absent or damaged blob, a folder without a model: the right status each."""
    stub = EvaluatorServiceStub(await connect("evaluator"))
    student, test = artifacts.put_folder(student_folder), artifacts.put_rows(TEST[:3])
    wanted: type[P2MError] = FailedPrecondition
    if damage == "no rows":
        test = artifacts.put_rows([])
    elif damage == "no output":
        test = artifacts.put_table(pa.table({"input": ["a"]}))
    elif damage == "absent":
        test, wanted = Artifact(f"p2m://tests/blobs/sha256/{'0' * 64}", "0" * 64, 1), NotFound
    elif damage == "flipped":
        key = test.uri.removeprefix("p2m://")
        data = artifacts.store.get(key)
        artifacts.store.put(key, bytes([data[0] ^ 1]) + data[1:])
        wanted = DataLoss
    else:
        student = artifacts.put_bytes(b'{"files": []}', "application/vnd.p2m.folder+json")
    request = pb.EvaluateRequest(
        request_id=f"{run_name}/evaluate", contestants=[model("student", student)], test=message(test)
    )
    try:
        with pytest.raises(wanted):
            await stream(stub.Evaluate, request)
    finally:
        if damage == "flipped":
            artifacts.store.put(key, data)


async def test_predict_answers_in_order(connect: Connect, artifacts: Artifacts, student_folder: Path) -> None:
    """Each input has its output, in order, as often as it is asked; its process is kept."""
    stub = EvaluatorServiceStub(await connect("evaluator"))
    inputs = [row.input for row in TEST[:70]]
    request = pb.PredictRequest(model=message(artifacts.put_folder(student_folder)), inputs=inputs)
    progress: list[Progress] = []
    first = await stream(stub.Predict, request, progress.append)
    right = sum(output == row.output for output, row in zip(first.outputs, TEST[:70], strict=True))
    assert right > 60
    assert progress
    process = children()
    again = await stream(stub.Predict, request)
    assert list(again.outputs) == list(first.outputs)
    assert children() == process, "it was loaded again"


@pytest.mark.parametrize("number", [0, 1001])
async def test_predict_takes_1_to_1000_inputs(
    connect: Connect, artifacts: Artifacts, student_folder: Path, number: int
) -> None:
    """No input and 1,001 of them are INVALID_ARGUMENT."""
    stub = EvaluatorServiceStub(await connect("evaluator"))
    stored = message(artifacts.put_folder(student_folder))
    with pytest.raises(InvalidArgument) as caught:
        await stream(stub.Predict, pb.PredictRequest(model=stored, inputs=["word1"] * number))
    assert caught.value.field == "inputs"


async def test_an_idle_model_is_dropped_and_comes_back(
    connect: Connect, artifacts: Artifacts, student_folder: Path
) -> None:
    """Without questions the model's process ends; the next question starts it again."""
    stub = EvaluatorServiceStub(await connect("evaluator", predict_idle_s=0.2))
    request = pb.PredictRequest(model=message(artifacts.put_folder(student_folder)), inputs=["word1 word2 word3"])
    first = await stream(stub.Predict, request)
    assert await gone(within_s=15)
    assert (await stream(stub.Predict, request)).outputs == first.outputs


async def test_a_cancelled_evaluation_leaves_no_process(
    connect: Connect, artifacts: Artifacts, run_name: str, student_folder: Path
) -> None:
    """When the caller goes, the child that answers ends within its grace, and the request can be made again."""
    stub = EvaluatorServiceStub(await connect("evaluator", grace_s=5.0))
    request = pb.EvaluateRequest(
        request_id=f"{run_name}/evaluate",
        contestants=[model("student", artifacts.put_folder(student_folder))],
        test=message(artifacts.put_rows(TEST)),
    )
    call = stub.Evaluate(request)
    while not children():
        await asyncio.wait_for(call.read(), 30)
        await asyncio.sleep(0.05)
    call.cancel()
    assert await gone(within_s=7)
    result = await stream(stub.Evaluate, request)
    assert result.verdict == pb.VERDICT_NOT_ENOUGH_EVIDENCE


def children() -> list[psutil.Process]:
    """The worker processes that the service hosted here has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end while it is looked at
            if "services.kit.worker" in process.cmdline():
                found.append(process)
    return found


async def gone(within_s: float) -> bool:
    """Whether all workers end within the time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while children():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True
