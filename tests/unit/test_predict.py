"""Contestants answer: models in batches, the nearest neighbour by copying, the teacher within its allowance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.evaluator import neighbours, predict, teacher
from services.kit import encoding
from services.kit.artifacts import Artifacts
from services.kit.errors import Cancelled, FailedPrecondition
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, PromptSpec
from services.kit.worker import WorkerContext
from tests.support import models
from tests.support.teacher import EMPTY, NONSENSE, ScriptedTeacher, prompt_of

SPEC = PromptSpec(instruction="say the first word", demonstrations=(Demonstration("word1 word2", "word1"),))
# Of many lengths, so that batches need padding.
INPUTS = tuple(" ".join(f"word{(n * k) % 20}" for k in range(1, 2 + n % 9)) for n in range(23))


def with_short_outputs(folder: Path) -> Path:
    """The same model, told to write at most 6 tokens, as the trainer tells its own."""
    from transformers import GenerationConfig

    config = GenerationConfig.from_pretrained(folder)
    config.max_new_tokens = 6
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 whose weights are large enough that its outputs depend on its inputs."""
    import torch
    from transformers import T5ForConditionalGeneration

    folder = models.tiny_t5(tmp_path_factory.mktemp("t5"))
    model = T5ForConditionalGeneration.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    model.save_pretrained(folder)
    return with_short_outputs(folder)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_short_outputs(models.tiny_gpt2(tmp_path_factory.mktemp("gpt2")))


# -- models


def test_an_encoder_decoder_answers_as_transformers_alone_does(t5: Path, settings: Settings) -> None:
    """Each answer is what `generate` gives for that input by itself, whatever else is in its batch."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(t5), AutoModelForSeq2SeqLM.from_pretrained(t5)
    wanted = []
    for text in INPUTS:
        tokens = tokenizer(f"{SPEC.instruction}\n{text}", return_tensors="pt")
        tokens.pop("token_type_ids", None)
        wanted += encoding.decode(tokenizer, model.generate(**tokens, max_new_tokens=6).tolist())
    found = predict.Model(t5, settings)
    assert found.answer(SPEC, INPUTS, batch_size=5) == wanted
    assert found.answer(SPEC, INPUTS, batch_size=64) == wanted
    assert len(set(wanted)) > 1


def test_a_decoder_answers_as_transformers_alone_does(gpt2: Path, settings: Settings) -> None:
    """A decoder-only model's answers do not depend on padding, and hold nothing of the prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(gpt2), AutoModelForCausalLM.from_pretrained(gpt2)
    wanted = []
    for tokens in encoding.encode_prompts(tokenizer, SPEC, INPUTS, 100):
        import torch

        ids = torch.tensor([tokens])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, pad_token_id=0)
        wanted += encoding.decode(tokenizer, out[:, len(tokens) :].tolist())
    found = predict.Model(gpt2, settings)
    assert found.decoder_only
    assert found.answer(SPEC, INPUTS, batch_size=5) == wanted
    assert len(set(wanted)) > 1


@pytest.mark.parametrize(("able", "read"), [({"amx_tile": False}, "bf16"), ({"amx_tile": True}, "ieee"), ({}, "ieee")])
def test_inputs_are_read_by_the_faster_library_where_it_does_not_round(
    t5: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], read: str
) -> None:
    """oneDNN multiplies where inputs are read and the processor would not round; each token is written by the other."""
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    model = predict.Model(t5, settings)
    seen: dict[str, list[str]] = {"encoder": [], "decoder": []}
    for name, calls in seen.items():
        part = getattr(model.model, name)
        part.register_forward_pre_hook(lambda *_, calls=calls: calls.append(products.fp32_precision))
    model.answer(SPEC, INPUTS[:4])
    assert seen["encoder"] == [read]
    assert (seen["decoder"][0], set(seen["decoder"][1:])) == (read, {"ieee"})
    assert products.fp32_precision == before


def test_an_input_that_is_too_long_is_cut_and_answered(t5: Path, gpt2: Path, settings: Settings) -> None:
    """Ten thousand words, and nothing at all, get an answer each; the prompt leaves a decoder room to write."""
    for folder in (t5, gpt2):
        model = predict.Model(folder, settings)
        assert model.max_input_tokens <= 128
        assert len(model.answer(SPEC, ("word1 " * 10_000, "", "word2"))) == 3


def test_the_ceiling_is_the_share_of_outputs_that_the_tokenizer_can_write(t5: Path, settings: Settings) -> None:
    """Upper case does not survive an uncased tokenizer: two of four rows have an answer that does."""
    model = predict.Model(t5, settings)
    assert model.ceiling((("word1",), ("Word1",), ("Word1", "word1"), ("N/A",))) == 50
    assert model.ceiling(()) == 0


def test_what_is_too_long_to_write_lowers_the_ceiling(t5: Path, settings: Settings) -> None:
    """Five tokens and the end fit into six, six and the end do not."""
    model = predict.Model(t5, settings)
    assert model.ceiling(((" ".join(["word1"] * 5),), (" ".join(["word1"] * 6),))) == 50


def test_answering_reports_progress_and_stops_when_told(t5: Path, settings: Settings) -> None:
    """Progress counts rows up to all; a stop ends the job between two batches."""
    seen: list[Any] = []
    context = WorkerContext(settings, seen.append)
    job = predict.AnswerJob("student", str(t5), SPEC, INPUTS, tuple((text.split()[0],) for text in INPUTS))
    answers = predict.answer(job, context)
    assert len(answers.outputs) == len(INPUTS)
    assert answers.ceiling == 100
    assert seen[-1]["progress"]["done"] == len(INPUTS)
    context.stop()
    with pytest.raises(Cancelled):
        predict.answer(job, context)


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_a_folder_without_a_model_is_refused(tmp_path: Path, settings: Settings, content: str | None) -> None:
    """An empty folder and a broken configuration are FAILED_PRECONDITION, BAD_MODEL."""
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(FailedPrecondition) as caught:
        predict.Model(tmp_path, settings)
    assert caught.value.reason == "BAD_MODEL"


def test_pickled_weights_are_never_read(t5: Path, tmp_path: Path, settings: Settings) -> None:
    """A model whose weights are a pickle is refused, not unpickled."""
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(t5, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FailedPrecondition) as caught:
        predict.Model(folder, settings)
    assert caught.value.reason == "BAD_MODEL"


def test_the_predictor_keeps_its_model_and_changes_it_when_asked(t5: Path, gpt2: Path, settings: Settings) -> None:
    """The second question to a model does not load it again; another model's does."""
    predictor = predict.Predictor(settings)
    first = predictor.answer(predict.AnswerJob("model", str(t5), SPEC, INPUTS))
    loaded = predictor._model
    assert predictor.answer(predict.AnswerJob("model", str(t5), SPEC, INPUTS)).outputs == first.outputs
    assert predictor._model is loaded
    other = predictor.answer(predict.AnswerJob("model", str(gpt2), SPEC, INPUTS))
    assert predictor._model is not loaded
    assert other.outputs != first.outputs


# -- the nearest neighbour


def test_the_nearest_neighbour_copies_the_most_similar_rows_output(settings: Settings) -> None:
    """By meaning, not by words; of equal rows the first."""
    job = neighbours.NeighbourJob(
        ("The dog barks.", "How much is the ticket?", "How much is the ticket?", "It rains today."),
        ("animal", "price", "second", "weather"),
        ("What does the fare cost?", "A puppy is barking.", "How much is the ticket?", "Heavy rain again."),
    )
    found = neighbours.answer(job, WorkerContext(settings))
    assert found.outputs == ("price", "animal", "price", "weather")


# -- the teacher


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedTeacher]:
    async with ScriptedTeacher({"answer": first_word}) as server:
        yield server


def first_word(body: dict[str, Any], _: Any) -> dict[str, str]:
    return {"answer": body["messages"][-1]["content"].split()[0]}


async def ask(
    server: ScriptedTeacher, artifacts: Artifacts, allowance: Allowance | None = None, at_once: int = 4, **settings: Any
) -> tuple[teacher.TeacherAnswers, Any]:
    """The server's answers to INPUTS, and the session that asked."""
    known = Settings(openai_base_url=server.url, openai_api_key="sk-test", hub_offline=True, **settings)
    llm = Teacher.from_settings(known, artifacts)
    assert llm is not None
    try:
        session = llm.session("run/evaluate", allowance or Allowance())
        return await teacher.answer(session, SPEC, INPUTS, at_once), session
    finally:
        await llm.close()


async def test_the_teacher_gets_instruction_demonstrations_and_the_input_as_it_stands(
    scripted: ScriptedTeacher, artifacts: Artifacts
) -> None:
    """Every input is asked once, verbatim, after the instruction and the demonstrations; answers are in order."""
    found, session = await ask(scripted, artifacts)
    assert found.outputs == tuple(text.split()[0] for text in INPUTS)
    assert found.note == ""
    assert session.ledger.requests == len(INPUTS) == scripted.count["requests"]
    prompts = [prompt_of(body) for body in scripted.requests]
    assert all("say the first word" in prompt and "word1 word2" in prompt for prompt in prompts)
    assert sorted(body["messages"][-1]["content"] for body in scripted.requests) == sorted(INPUTS)


async def test_answers_that_were_paid_are_not_asked_again(scripted: ScriptedTeacher, artifacts: Artifacts) -> None:
    """A second evaluation of the same request takes all answers from the journal."""
    first, _ = await ask(scripted, artifacts)
    again, session = await ask(scripted, artifacts)
    assert again == first
    assert scripted.count["requests"] == len(INPUTS)
    assert session.ledger.replayed == len(INPUTS)


async def test_a_spent_budget_leaves_the_rest_out(scripted: ScriptedTeacher, artifacts: Artifacts) -> None:
    """With 9 requests allowed, the first 9 rows are answered; the rest are None, not empty, and a note says so."""
    found, _ = await ask(scripted, artifacts, Allowance(requests=9))
    assert [output is not None for output in found.outputs] == [True] * 9 + [False] * (len(INPUTS) - 9)
    assert found.note == f"The teacher answered 9 of {len(INPUTS)} rows; then its budget was spent."


async def test_a_budget_of_zero_asks_nothing(scripted: ScriptedTeacher, artifacts: Artifacts) -> None:
    """An allowance of no dollars and no requests sends no request."""
    found, _ = await ask(scripted, artifacts, Allowance(requests=0))
    assert set(found.outputs) == {None}
    assert scripted.count["requests"] == 0


@pytest.mark.parametrize("fault", [NONSENSE, EMPTY])
async def test_an_answer_that_cannot_be_used_counts_as_empty(fault: Any, artifacts: Artifacts) -> None:
    """A refusal in place of an answer is an empty prediction, which scores 0; the other rows are answered."""
    async with ScriptedTeacher({"answer": first_word}, faults=[fault]) as server:
        found, session = await ask(server, artifacts, at_once=1)
    assert found.outputs[0] == ""
    assert found.outputs[1:] == tuple(text.split()[0] for text in INPUTS[1:])
    assert session.ledger.invalid == 1


async def test_a_wrong_key_and_a_closed_port_leave_the_teacher_out(artifacts: Artifacts) -> None:
    """What keeps the teacher from answering is a note with the cause, never an error."""
    from tests.support.teacher import WRONG_KEY

    async with ScriptedTeacher(always=WRONG_KEY) as server:
        refused, _ = await ask(server, artifacts)
    assert set(refused.outputs) == {None}
    assert refused.note.startswith("The teacher was not measured:")
    unreachable, _ = await ask(server, artifacts, llm_patience_s=0.1)
    assert set(unreachable.outputs) == {None}
    assert unreachable.note.startswith("The teacher was not measured:")
    assert unreachable.note != refused.note
