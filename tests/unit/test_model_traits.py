"""What is known of a model from its entry, its card and its config; what a text asks for."""

from __future__ import annotations

from typing import Any

import pytest

from catalogue import architectures, languages, tasks
from catalogue.facts import facts
from catalogue.models import traits


@pytest.mark.parametrize(
    ("text", "named", "way"),
    [
        ("Translate legal text from German into English.", ["de", "en"], ("de", "en")),
        ("Turn English sentences into natural French.", ["en", "fr"], ("en", "fr")),
        ("English to Hindi translation", ["en", "hi"], ("en", "hi")),
        ("Translate from Japanese", ["ja"], ("ja", "")),
        ("Write a poem in Chinese", ["zh"], ("", "zh")),
        ("Make this polite", [], ("", "")),
    ],
)
def test_languages_that_a_text_names(text: str, named: list[str], way: tuple[str, str]) -> None:
    """Languages come in the order of their mention; the direction of a translation is read off "from" and "into"."""
    assert languages.named(text) == named
    assert languages.direction(text) == way


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("次の文の感情を答えてください", "ja"),
        ("给出一段文字", "zh"),
        ("다음 문장을 요약하세요", "ko"),
        ("Напиши ответ", "ru"),
        ("Переклади це речення їй", "uk"),
        ("لخص هذا النص", "ar"),
        ("این متن را خلاصه کنید چرا", "fa"),
        ("इस वाक्य का अनुवाद करें", "hi"),
        ("สรุปข้อความนี้", "th"),
        ("Fasse den Artikel zusammen", ""),
        ("What does 日本 mean in this sentence?", ""),
        ("", ""),
    ],
)
def test_the_language_that_a_script_tells(text: str, code: str) -> None:
    """A script that one language has, or mostly has, tells it; a quoted word and Latin letters tell nothing."""
    assert languages.written(text) == code


@pytest.mark.parametrize(
    ("id", "codes", "pair"),
    [
        ("Helsinki-NLP/opus-mt-de-en", ["de", "en"], ("de", "en")),
        ("Helsinki-NLP/opus-mt-tc-big-en-fr", ["en", "fr"], ("en", "fr")),
        ("Helsinki-NLP/opus-mt-mt-en", ["mt", "en"], ("mt", "en")),
        ("vinai/vinai-translate-en2vi", ["vi", "en"], ("en", "vi")),
        ("masakhane/afribyt5_eng_hau_news", ["en", "ha"], ("en", "ha")),
        ("facebook/mbart-large-50", ["multilingual"], ("", "")),
        ("sonoisa/t5-base-japanese", ["ja"], ("", "")),
        ("lmqg/mt5-base-jaquad-qg", ["ja"], ("", "")),
        ("gogamza/kobart-base-v2", ["ko"], ("", "")),
        ("google/flan-t5-base", [], ("", "")),
    ],
)
def test_languages_in_an_id(id: str, codes: list[str], pair: tuple[str, str]) -> None:
    """Codes in pairs, languages' names and families of one or of all languages are read off an id."""
    assert languages.of_id(id) == codes
    assert languages.pair_of_id(id) == pair


def test_languages_as_cards_write_them() -> None:
    """Codes of two and three letters, with regions, old ones and names are one code; what is none is left out."""
    written = ["eng", "zh-CN", "no", "iw", "Japanese", "multilingual", "unk", "code", "en"]
    assert languages.known(written) == ["en", "zh", "nb", "he", "ja", "multilingual"]
    codes = ("multilingual", "af", "ja", "zu")
    assert languages.of_bits(*languages.bits((*codes, "nonsense"))) == codes


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("Given a paragraph and a question, reply with the words of it that answer.", "qa"),
        ("Fix the grammar of learners' sentences", "grammar"),
        ("Write an SQL query for a question about a table", "sql"),
        ("Turn English sentences into natural French.", "translation"),
        ("ニュース記事を要約する", "summarization"),
    ],
)
def test_tasks_that_a_prompt_asks_for(prompt: str, task: str) -> None:
    """A prompt's task is found by its words, two words in a row, or what stands beside what."""
    assert task in tasks.asked(prompt)


def test_a_text_of_no_task_names_none() -> None:
    """Words that are in no task's row name no task."""
    assert not tasks.asked("xyzzy qwop") and not tasks.asked("")


CARD = """---
language: no
license: MIT
tags:
- summarization
datasets: [samsum]
---
A model for short chats. """


def test_a_card_tells_what_the_keys_do_not() -> None:
    """Header, id and text give languages ("no" is Norwegian), licence and tasks; keys of the entry come first."""
    entry: dict[str, Any] = {"id": "acme/bart-samsum", "description": CARD}
    known = traits(entry)
    assert known.languages == ("nb",) and known.licence == "mit" and not known.unfit
    assert "summarization" in known.tasks and "dialogue" not in known.tasks and "dialogue" in known.mentioned
    keyed = traits(entry | {"languages": ["en", "ja"], "licence": "apache-2.0", "tasks": ["translation"]})
    assert set(keyed.languages) >= {"en", "ja"} and keyed.licence == "apache-2.0" and "translation" in keyed.tasks


@pytest.mark.parametrize("header", ["- [", "a: &a [*a]", "just text", "language: {a: b}", "tags: 3\nlicense: [1, {}]"])
def test_a_header_that_is_odd_says_nothing(header: str) -> None:
    """A header that is no YAML, or holds other things than texts, takes nothing down."""
    known = traits({"id": "acme/x", "description": f"---\n{header}\n---\nText."})
    assert known.languages == () and not known.unfit


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"id": "a/b", "description": "---\ntags:\n- vision\n---\n"}, "vision"),
        ({"id": "a/b", "description": "---\npipeline_tag: image-to-text\n---\n"}, "image-to-text"),
        ({"id": "a/b", "description": "", "tasks": ["automatic-speech-recognition"]}, "automatic-speech-recognition"),
        ({"id": "a/whisper-small", "description": ""}, "whisper"),
        ({"id": "a/b", "description": "---\nlibrary_name: peft\n---\n"}, "an adapter without its base model"),
        ({"id": "a/b", "description": "", "safetensors": False}, "no safetensors"),
        ({"id": "a/b", "description": "", "architecture": "rwkv"}, "rwkv"),
        ({"id": "a/vision-summaries", "description": "On television.", "architecture": "encoder"}, ""),
        ({"id": "a/b", "description": "---\ntags:\n- vision\n---\n", "model_type": "t5"}, ""),
    ],
)
def test_what_speaks_against_a_model(entry: dict[str, Any], kind: str) -> None:
    """Models of images and sounds, adapters, pickles and unknown architectures are told; a known one is believed."""
    assert traits(entry).unfit == kind


def test_facts_are_one_for_each_entry() -> None:
    """Each array has an entry's value at its place, 0 or -1 where nothing is known; no entries make empty arrays."""
    known = facts("models", [{"id": "a/opus-mt-de-en", "description": CARD}, {"id": "b/c", "description": ""}])
    assert known["licence"].tolist() == [b"mit", b""]
    assert languages.CODES[known["source"][0]] == "de" and known["source"][1] == -1
    assert known["languages_0"][0] and not known["languages_0"][1] and known["tasks"][0] and not known["tasks"][1]
    assert all(len(values) == 0 for values in facts("models", []).values())


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "encoder-decoder"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "decoder-only"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "encoder"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "decoder-only"),
        ({"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}, ""),
        ({"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}, ""),
        ({"model_type": "phi3_v", "architectures": ["Phi3VForCausalLM"], "vision_config": {}}, ""),
        ({"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": {"AutoModel": "own.Own"}}, ""),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, ""),
        ({"model_type": 3, "architectures": "x"}, ""),
        ({}, ""),
    ],
)
def test_what_a_config_says(config: dict[str, Any], kind: str) -> None:
    """A config tells how the trainer would use the model, or, in a few words, why it could not."""
    assert architectures.kind(config) == kind
    assert bool(architectures.unfit(config)) == (not kind)


def test_the_kinds_are_the_trainers() -> None:
    """What is called an encoder-decoder or an encoder here, transformers and the trainer load as one."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as known

    from services.trainer.pretrained import ENCODERS

    assert set(known) >= architectures.ENCODER_DECODERS
    assert set(ENCODERS) == architectures.ENCODERS
    sounds = ("audio", "speech", "asr", "voxtral", "flamingo", "transcribe", "seamless", "gemma2")
    left_out = set(known) - architectures.ENCODER_DECODERS
    assert all(any(sound in name for sound in sounds) for name in left_out), left_out
