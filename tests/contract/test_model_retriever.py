"""ModelRetrieverService, by its proto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from p2m.common.v1 import common_pb2 as common
from p2m.model_retriever.v1 import model_retriever_pb2 as pb
from p2m.model_retriever.v1 import model_retriever_pb2_grpc as rpc

from catalogue.facts import facts
from services.kit import embed, index
from services.kit.channel import unary
from services.kit.errors import AlreadyExists, InvalidArgument
from services.kit.settings import Settings
from tests.contract.conftest import Connect
from tests.support.teacher import ScriptedTeacher

SQUAD = common.PromptSpec(instruction="Answer the question with a short span of the context passage.")


async def _stub(connect: Connect, **changes: Any) -> rpc.ModelRetrieverServiceStub:
    return rpc.ModelRetrieverServiceStub(await connect("model_retriever", **changes))


async def test_models_are_ranked(connect: Connect, run_name: str) -> None:
    """Candidates come best first, each once, within the size limit, with what the trainer is to load."""
    stub = await _stub(connect)
    request = pb.SearchRequest(request_id=f"{run_name}/model_search", spec=SQUAD, k=5)
    found = await unary(stub.Search, request)
    scores = [candidate.score for candidate in found.candidates]
    assert len(scores) <= 5 and scores == sorted(scores, reverse=True)
    assert len({candidate.id for candidate in found.candidates}) == len(scores)
    for candidate in found.candidates:
        assert candidate.size_bytes <= 3_000_000_000 and candidate.why and candidate.architecture
        assert candidate.location.split(":")[0] in ("hub", "package", "folder")
    assert all(excluded.reason for excluded in found.excluded) and len(found.excluded) <= 100
    assert found.hypothetical_card


async def test_the_same_request_has_the_same_answer(connect: Connect, run_name: str) -> None:
    """The same id with the same content gives the stored answer; with other content it is ALREADY_EXISTS."""
    stub = await _stub(connect)
    request = pb.SearchRequest(request_id=f"{run_name}/model_search", spec=SQUAD)
    first = await unary(stub.Search, request)
    assert await unary(stub.Search, request) == first
    request.k = 3
    with pytest.raises(AlreadyExists):
        await unary(stub.Search, request)


async def test_constraints_in_words_are_kept(connect: Connect, run_name: str) -> None:
    """Every candidate satisfies licence, languages and time of an answer, or is flagged; what fails has its reason."""
    stub = await _stub(connect, hub_offline=False)
    request = pb.SearchRequest(request_id=f"{run_name}/model_search", spec=SQUAD, k=20)
    request.constraints.licence = "permissive"
    request.constraints.languages.append("de")
    request.constraints.cpu_latency_ms = 2000
    found = await unary(stub.Search, request)
    assert found.candidates and found.excluded
    for candidate in found.candidates:
        assert {"de", "multilingual"} & set(candidate.languages) or candidate.flags
        assert candidate.cpu_latency_ms <= 2000 and "-nc" not in candidate.licence
    assert any("licence" in one.reason or "wanted de" in one.reason for one in found.excluded)


@pytest.mark.parametrize(
    ("constraints", "field"),
    [
        (pb.Constraints(licence="free"), "constraints.licence"),
        (pb.Constraints(languages=["klingon"]), "constraints.languages"),
        (pb.Constraints(cpu_latency_ms=-1), "constraints.cpu_latency_ms"),
        (pb.Constraints(max_size_bytes=-1), "constraints.max_size_bytes"),
    ],
)
async def test_a_constraint_that_is_none(
    connect: Connect, run_name: str, constraints: pb.Constraints, field: str
) -> None:
    """Another word, a language that is none, a negative number: INVALID_ARGUMENT with the field."""
    stub = await _stub(connect)
    with pytest.raises(InvalidArgument) as raised:
        request = pb.SearchRequest(request_id=f"{run_name}/model_search", spec=SQUAD, constraints=constraints)
        await unary(stub.Search, request)
    assert raised.value.field == field


async def test_a_japanese_prompt_finds_models_of_its_language(connect: Connect, run_name: str) -> None:
    """Untranslated, or translated with its language beside it: each candidate is for Japanese or for many languages."""
    stub = await _stub(connect, hub_offline=False)
    for number, spec in enumerate(
        (
            common.PromptSpec(instruction="次の文の感情を答えてください。", language="ja"),
            common.PromptSpec(
                instruction="Say what the sentence feels.", original_instruction="感情を答えてください。", language="ja"
            ),
        )
    ):
        found = await unary(stub.Search, pb.SearchRequest(request_id=f"{run_name}/{number}", spec=spec, k=3))
        assert found.candidates and all(one.score > 0 for one in found.candidates)
        assert {"ja", "multilingual"} & set(found.candidates[0].languages)


async def test_cards_are_searched_by_what_they_mean(
    connect: Connect, run_name: str, settings: Settings, tmp_path: Path
) -> None:
    """With the models encoded, the card that says the same in other words comes first, by its meaning."""
    cards = {
        "a/first": "Recipes: flour, eggs and an oven. A sentence.",
        "b/second": "Bandages, fever and doctors. A sentence.",
    }
    entries = [{"id": id, "description": card, "architecture": "encoder-decoder"} for id, card in cards.items()]
    encoder = embed.Encoder(settings)
    made = encoder.answer(embed.Texts(tuple(cards.values())))
    index.save(
        tmp_path / "models", entries, list(cards.values()), np.asarray(made.vectors, np.float32),
        facts=facts("models", entries), source="given:test", encoder=made.encoder,
    )  # fmt: skip
    stub = await _stub(connect, encode_models=True, catalogue=tmp_path, hub_offline=False)
    spec = common.PromptSpec(instruction="Write a sentence that a physician would say to an ill patient.")
    found = await unary(stub.Search, pb.SearchRequest(request_id=f"{run_name}/search", spec=spec))
    assert [one.id for one in found.candidates] == ["b/second", "a/first"]
    assert {part.name: part.value for part in found.candidates[0].parts}["meaning"] > 0


async def test_a_limit_that_nothing_meets_leaves_an_empty_list(connect: Connect, run_name: str) -> None:
    """No model within the limit is an answer, and those left out have their reasons."""
    stub = await _stub(connect)
    request = pb.SearchRequest(request_id=f"{run_name}/model_search", spec=SQUAD)
    request.constraints.max_size_bytes = 1
    found = await unary(stub.Search, request)
    assert not [candidate for candidate in found.candidates if candidate.size_bytes] and found.excluded


async def test_a_named_model_that_does_not_fit_is_excluded(connect: Connect, run_name: str) -> None:
    """A model asked for by name and above the limit: no candidate, and the reason."""
    stub = await _stub(connect)
    first = await unary(stub.Search, pb.SearchRequest(request_id=f"{run_name}/any", spec=SQUAD, k=1))
    name = first.candidates[0].id
    request = pb.SearchRequest(request_id=f"{run_name}/named", spec=SQUAD, constraints=pb.Constraints(model=name))
    assert [candidate.id for candidate in (await unary(stub.Search, request)).candidates] == [name]
    request.request_id = f"{run_name}/small"
    request.constraints.max_size_bytes = 1
    found = await unary(stub.Search, request)
    assert not found.candidates and [excluded.id for excluded in found.excluded] == [name]


@pytest.mark.parametrize(
    "request_", [pb.SearchRequest(spec=SQUAD, k=-1), pb.SearchRequest(spec=SQUAD, k=1001), pb.SearchRequest()]
)
async def test_a_search_that_cannot_be(connect: Connect, run_name: str, request_: pb.SearchRequest) -> None:
    """k out of bounds, and a spec with nothing in it, are INVALID_ARGUMENT."""
    stub = await _stub(connect)
    request_.request_id = f"{run_name}/model_search"
    with pytest.raises(InvalidArgument):
        await unary(stub.Search, request_)


async def test_offline_the_model_of_this_machine_is_found(connect: Connect, run_name: str) -> None:
    """With no hub the packaged model is the candidate, whatever the prompt and its language."""
    stub = await _stub(connect, hub_offline=True)
    for number, instruction in enumerate((SQUAD.instruction, "次の文の感情を答えてください。")):
        spec = common.PromptSpec(instruction=instruction)
        found = await unary(stub.Search, pb.SearchRequest(request_id=f"{run_name}/{number}", spec=spec))
        assert [candidate.id for candidate in found.candidates] == ["p2m/minilm-encoder-decoder"]
        assert found.candidates[0].learning_rate > 0 and found.candidates[0].architecture == "encoder"


async def test_with_a_hub_t5_and_bart_answer_questions(connect: Connect, run_name: str) -> None:
    """For question answering over a passage the best five are T5 and BART models."""
    stub = await _stub(connect, hub_offline=False)
    found = await unary(stub.Search, pb.SearchRequest(request_id=f"{run_name}/search", spec=SQUAD, k=5))
    assert all("t5" in one.id.lower() or "bart" in one.id.lower() or "qa" in one.id for one in found.candidates)


async def test_the_llms_card_is_searched_with(connect: Connect, run_name: str) -> None:
    """HyDE: the LLM's card, not the instruction, finds the model; what it cost is in the ledger."""
    card = "A Marian translation model that translates sentences from Japanese to English, trained on OPUS data."
    async with ScriptedTeacher({"hypothetical_model_card": {"model_card": card}}) as teacher:
        stub = await _stub(connect, openai_base_url=teacher.url, hub_offline=False)
        found = await unary(stub.Search, pb.SearchRequest(request_id=f"{run_name}/search", spec=SQUAD, k=3))
    assert found.hypothetical_card == card and found.ledger.requests == 1
    assert "Helsinki-NLP/opus-mt-ja-en" in {candidate.id for candidate in found.candidates}
