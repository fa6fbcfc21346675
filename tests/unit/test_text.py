"""What all stages share about text."""

from __future__ import annotations

import pytest

from services.kit.errors import InvalidArgument
from services.kit.text import check_prompt, detect_language, model_input, normalise, words
from services.kit.values import PromptSpec


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Vistula River.", "vistula river"),
        ("  a  New York ", "New York"),
        ("“Santa Clara”", "Santa Clara"),
        ("Nov. 1, 2009", "nov 1 2009"),
        ("ﬁve", "five"),
        ("「東京」", "東京"),
    ],
)
def test_same_answers_normalise_alike(one: str, other: str) -> None:
    """Case, punctuation of any script, English articles and spaces do not tell answers apart."""
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"), [("+", "-"), ("A", "B"), ("five", "six"), ("5 €", "5 £"), ("an apple", "a pear")]
)
def test_other_answers_stay_apart(one: str, other: str) -> None:
    """What is another answer normalises otherwise, even where it is nothing but a symbol or an article."""
    assert normalise(one) != normalise(other)
    assert normalise(one)


def test_normalising_again_changes_nothing() -> None:
    """normalise is idempotent."""
    for text in ("The A.B.-C, d!", "...", "the the", "Ünïcode — dash"):
        assert normalise(normalise(text)) == normalise(text)


def test_words() -> None:
    """Words are lower case and bare; a script without spaces gives overlapping pairs."""
    assert words("The Cat's 3rd hat_box!") == ["the", "cat", "s", "3rd", "hat", "box"]
    assert words("東京都へ行く now") == ["東京", "京都", "都へ", "へ行", "行く", "now"]
    assert words("要") == ["要"]
    assert words("...") == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Your task is to answer the question.", "en"),
        ("Finde das Datum im Satz und gib es im ISO-Format aus.", "de"),
        ("Extrais le montant de la phrase suivante.", "fr"),
        ("文から日付を抜き出してください。", "ja"),
        ("문장에서 날짜를 찾으세요.", "ko"),
        ("Ваша задача: найти в предложении дату и записать её цифрами.", "ru"),
        ("Classify sentiment.", "en"),
        ("Convert SQL to English", "en"),
        ("SQL", "en"),
        ("1 + 1 = 2", "en"),
        ("", "en"),
    ],
)
def test_detect_language(text: str, language: str) -> None:
    """A sentence's language is found; a few terms or no letters at all count as English."""
    assert detect_language(text) == language


def test_model_input() -> None:
    """The student reads the instruction as the person wrote it, then the input."""
    spec = PromptSpec("Find the date.", language="de", original_instruction="Finde das Datum.")
    assert model_input(spec, "Am 3. Mai") == "Finde das Datum.\nAm 3. Mai"
    assert model_input(PromptSpec(), "Am 3. Mai") == "Am 3. Mai"


@pytest.mark.parametrize(
    ("prompt", "reason", "told"),
    [
        ("", "EMPTY_PROMPT", "at least one sentence"),
        (" \n\u3000", "EMPTY_PROMPT", "at least one sentence"),
        ("x" * 200_001, "PROMPT_TOO_LONG", "200,001"),
        ("ab\0cd", "PROMPT_NUL", "character 2"),
    ],
)
def test_no_prompt(prompt: str, reason: str, told: str) -> None:
    """What is no prompt is refused, and the message tells what was given or wanted."""
    with pytest.raises(InvalidArgument) as caught:
        check_prompt(prompt)
    assert caught.value.reason == reason
    assert caught.value.field == "prompt"
    assert told in caught.value.message


def test_a_prompt_at_the_limit() -> None:
    """200,000 characters are a prompt."""
    check_prompt("x" * 200_000)
