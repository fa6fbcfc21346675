"""Which of several configurations is a task's."""

from __future__ import annotations

from typing import Any

import pytest

from services.dataset_retriever.configs import best_config, best_named, said
from services.kit.values import Demonstration, PromptSpec


@pytest.mark.parametrize(
    ("names", "task", "best"),
    [
        ("emoji emotion hate irony offensive sentiment", "Detect hate speech in tweets.", "hate"),
        ("emoji emotion hate irony offensive sentiment", "Is the tweet ironic?", "irony"),
        ("emoji emotion hate irony offensive sentiment", "Say the sentiment of a tweet.", "sentiment"),
        ("ar bg de el en es fr", "Decide whether the premise entails the hypothesis in German.", "de"),
        ("xquad.ar xquad.de xquad.en", "Answer the question from the Arabic paragraph.", "xquad.ar"),
        ("xquad.ar xquad.de xquad.en", "Answer the question from the paragraph.", "xquad.en"),
        ("arabic chinese english french", "Summarize a how-to article.", "english"),
        ("cs-en de-en fi-en", "Translate German to English.", "de-en"),
        ("cs-en de-en fi-en", "Translate English into Czech.", "cs-en"),
        ("iwslt2017-en-it iwslt2017-en-nl", "Translate from English to Dutch.", "iwslt2017-en-nl"),
        ("1.0.0 2.0.0 3.0.0", "Summarize a news article.", "3.0.0"),
        ("raw simplified", "Name the emotions in a comment.", "simplified"),
        ("all high middle", "Answer reading questions.", "all"),
        ("go java php python", "Describe what a Python function does.", "python"),
        ("rc rc.nocontext unfiltered unfiltered.nocontext", "Answer trivia questions.", "rc"),
        ("en_core en_ewt sv_lines", "Tag each word with its part of speech.", "en_core"),
        ("plain_text", "Anything.", "plain_text"),
        ("b a", "x", "b"),
    ],
)
def test_names_tell(names: str, task: str, best: str) -> None:
    """Words, languages, pairs of languages, versions and sizes in the names decide; the first where nothing does."""
    assert best_named(names.split(), PromptSpec(task)) == best


def _config(name: str, features: dict[str, str], labels: str = "", **splits: int) -> dict[str, Any]:
    return {
        "name": name, "features": features, "class_names": {"label": labels.split()} if labels else {},
        "splits": splits or {"train": 1000},
    }  # fmt: skip


PAIR = {"sentence1": "string", "sentence2": "string"}
TASKS = [
    _config("cola", {"sentence": "string", "label": "class_label"}, "unacceptable acceptable"),
    _config("sst2", {"sentence": "string", "label": "class_label"}, "negative positive"),
    _config("qqp", {"question1": "string", "question2": "string", "label": "class_label"}, "not_duplicate duplicate"),
    _config("stsb", PAIR | {"label": "float32"}),
    _config("mnli", {"premise": "string", "hypothesis": "string", "label": "class_label"}, "entailment contradiction"),
    _config("ax", {"premise": "string", "hypothesis": "string", "label": "class_label"}, "entailment", test=1100),
]


@pytest.mark.parametrize(
    ("task", "shown", "best"),
    [
        ("What is the opinion of the sentence?", "positive", "sst2"),
        ("Is the sentence fine?", "Acceptable", "cola"),
        ("Say whether two questions are duplicates of each other.", "", "qqp"),
        ("Rate how similar two sentences are from 0 to 5.", "", "stsb"),
        ("Tell whether the premise entails the hypothesis or is a contradiction of it.", "", "mnli"),
    ],
)
def test_columns_and_labels_tell(task: str, shown: str, best: str) -> None:
    """Where names say nothing, columns, label names, demonstrations and splits do: the task, with a train split."""
    demonstrations = (Demonstration("a b", shown),) if shown else ()
    assert best_config(TASKS, PromptSpec(task, demonstrations)) == best


def test_the_prompts_language_tells() -> None:
    """A prompt in Japanese takes the Japanese configuration, by the catalogue and by names alone."""
    spec = PromptSpec("Rate a product review.", language="ja")
    features = {"review": "string", "stars": "int32"}
    assert best_config([_config(name, features) for name in ("de", "en", "ja")], spec) == "ja"
    assert best_named(["de", "en", "ja"], PromptSpec(said(spec))) == "ja"
