"""Mention replacement: what counts as copied, what stands for it, and that unseen words are copied after it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from services.kit.artifacts import Artifacts
from services.kit.settings import Settings
from services.kit.values import PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer import pretrained
from services.trainer.calls import HyperParameters, TrainRequest
from services.trainer.losses import score
from services.trainer.pretrained import Student
from services.trainer.replacement import Mentions, mentions_of
from services.trainer.tokens import Tokens, tokenise
from services.trainer.train import train
from tests.support.models import tiny_encoder, tiny_gpt2, tiny_t5

SPEC = PromptSpec("word19 word18")
ALWAYS = HyperParameters(replaced_share=1.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """One thread, so that results are the same on any machine."""
    return Settings(home=tmp_path / "home", openai_base_url="", openai_api_key="", hub_offline=True, threads=1)


@pytest.fixture
def student(tmp_path: Path) -> Student:
    return pretrained.load(tiny_encoder(tmp_path / "model"), 0)


def _tokens(student: Student, rows: list[Row], folder: Path) -> Tokens:
    return tokenise(student, SPEC, rows, folder / "tokens")


def _names(student: Student, numbers: np.ndarray) -> list[str]:
    return [str(name) for name in student.tokenizer.convert_ids_to_tokens(numbers.tolist())]


def _copied(student: Student, mentions: Mentions) -> set[str]:
    return set(_names(student, np.flatnonzero(mentions.pool_of >= 0)))


def test_copied_is_what_outputs_have_from_inputs(student: Student, tmp_path: Path) -> None:
    """Not what is written and not read, what is read alone, or what every input has, as the instruction's words."""
    rows = [Row(f"word{n % 9} word9", f"word{n % 9} word19 word{10 + n % 2}") for n in range(90)]
    assert _copied(student, mentions_of(student, _tokens(student, rows, tmp_path), ALWAYS)) == {
        f"word{n}" for n in range(9)
    }


def test_a_label_that_is_sometimes_read_stays(student: Student, tmp_path: Path) -> None:
    """ "word17" is named in a tenth of the inputs that it is the answer to: it is an answer, and no copy."""
    rows = [Row("word17" if n == 0 else f"word{n}", f"word17 word{n}") for n in range(10)]
    assert "word17" not in _copied(student, mentions_of(student, _tokens(student, rows, tmp_path), ALWAYS))


def test_a_word_has_one_other_wherever_it_stands(student: Student, tmp_path: Path) -> None:
    """The same in what is read and in what is written; all else is as it was, the special tokens too."""
    rows = [Row(f"word{n % 9} word9 word{n % 9}", f"word10 word{n % 9}") for n in range(90)]
    tokens = _tokens(student, rows, tmp_path)
    mentions = mentions_of(student, tokens, ALWAYS)
    drawn = set()
    for row in range(len(tokens)):
        (read, written), (read_now, written_now) = tokens[row], mentions.at(3, tokens, 0)[row]
        name, other = _names(student, written)[1], _names(student, written_now)[1]
        drawn.add(other)
        for before, now in ((read, read_now), (written, written_now)):
            assert _names(student, now) == [other if token == name else token for token in _names(student, before)]
    assert len(drawn) > 12
    assert drawn <= set(student.tokenizer.get_vocab()) - set(student.tokenizer.all_special_tokens)


def test_what_a_row_does_not_read_stays(student: Student, tmp_path: Path) -> None:
    """A word that is nearly always copied, in the one row that writes it and does not read it."""
    rows = [Row(f"word{n % 9} word9", f"word{n % 9}") for n in range(180)] + [Row("word9", "word3")]
    tokens = _tokens(student, rows, tmp_path)
    mentions = mentions_of(student, tokens, ALWAYS)
    assert "word3" in _copied(student, mentions)
    assert [part.tolist() for part in mentions.at(0, tokens, 0)[180]] == [part.tolist() for part in tokens[180]]


def test_digits_stay_digits(student: Student, tmp_path: Path) -> None:
    rows = [Row(f"word1 {n % 10}", f"{n % 10}") for n in range(100)]
    tokens = _tokens(student, rows, tmp_path)
    mentions = mentions_of(student, tokens, ALWAYS)
    written = [_names(student, mentions.at(0, tokens, 0)[row][1])[0] for row in range(100)]
    assert all(token.isdigit() and len(token) == 1 for token in written)
    assert written != [row.output for row in rows]


def test_each_step_draws_anew_and_always_the_same(student: Student, tmp_path: Path) -> None:
    """A row is a function of seed, step and row, whatever was drawn before; a negative seed is one as well."""
    rows = [Row(f"word{n % 9} word9", f"word{n % 9}") for n in range(90)]
    tokens = _tokens(student, rows, tmp_path)
    mentions = mentions_of(student, tokens, HyperParameters(replaced_share=0.5))

    def read(step: int, seed: int) -> list[list[int]]:
        now = mentions.at(step, tokens, seed)
        return [now[row][0].tolist() for row in reversed(range(90))]

    assert read(5, -7) == read(5, -7)
    assert len({str(read(step, seed)) for step, seed in itertools.product((1, 2), (0, 1, -7))}) == 6
    plain = [tokens[row][0].tolist() for row in reversed(range(90))]
    assert 25 < sum(before != now for before, now in zip(plain, read(1, 0), strict=True)) < 65


@pytest.mark.parametrize(
    "make, asked, replaces",
    [
        (tiny_encoder, HyperParameters(), True),
        (tiny_encoder, HyperParameters(replaced_share=0.0), False),
        (tiny_t5, HyperParameters(), False),
        (tiny_gpt2, HyperParameters(), False),
        (tiny_t5, ALWAYS, True),
        (tiny_gpt2, ALWAYS, True),
    ],
)
def test_new_decoders_have_it_unasked(
    tmp_path: Path, make: Callable[[Path], Path], asked: HyperParameters, replaces: bool
) -> None:
    """A model that comes with a decoder of its own has it where it is asked for; zero switches it off."""
    student = pretrained.load(make(tmp_path / "model"), 0)
    rows = [Row(f"word{n % 9} word9", f"word{n % 9}") for n in range(90)]
    mentions = mentions_of(student, _tokens(student, rows, tmp_path), asked)
    assert bool(mentions.share) == bool(mentions.note) == replaces


def test_nothing_copied_is_nothing_replaced(student: Student, tmp_path: Path) -> None:
    tokens = _tokens(student, [Row(f"word{n % 9}", f"word{10 + n % 9}") for n in range(90)], tmp_path)
    mentions = mentions_of(student, tokens, ALWAYS)
    assert mentions.at(0, tokens, 0) is tokens
    assert not mentions.note


def test_only_words_that_the_model_knows_stand_for_others(student: Student, tmp_path: Path) -> None:
    """A tokenizer may have been given more words than the model has embeddings."""
    tokens = _tokens(student, [Row(f"word{n % 9} word9", f"word{n % 9}") for n in range(90)], tmp_path)
    before = mentions_of(student, tokens, ALWAYS)
    student.tokenizer.add_tokens([f"more{n}" for n in range(50)])
    after = mentions_of(student, tokens, ALWAYS)
    assert [pool.tolist() for pool in after.pools] == [pool.tolist() for pool in before.pools]
    assert len(after.pool_of) == len(before.pool_of) == len(student.model.get_input_embeddings().weight)


def test_no_rows(student: Student, tmp_path: Path) -> None:
    assert not mentions_of(student, _tokens(student, [], tmp_path), ALWAYS).share


@pytest.mark.parametrize("share", [0.0, None])
def test_words_that_training_lacks_are_copied(
    tmp_path: Path, settings: Settings, artifacts: Artifacts, share: float | None
) -> None:
    """The first of three words, of which four never come in training: with replacement nearly always right on those,
    without it hardly ever."""
    seen, unseen = ([f"word{n}" for n in numbers] for numbers in (range(16), range(16, 20)))

    def rows(words: list[str]) -> list[Row]:
        return [Row(" ".join(three), three[0]) for three in itertools.permutations(words, 3)]

    spec = PromptSpec("Copy the first word.")
    result = train(
        TrainRequest(
            "run/train", artifacts.put_rows(rows(seen)[::5]), artifacts.put_rows([]), spec,
            f"folder:{tiny_encoder(tmp_path / 'tiny')}",
            HyperParameters(learning_rate=3e-3, epochs=8, batch_tokens=512, replaced_share=share),
        ),
        WorkerContext(settings),
    )  # fmt: skip
    trained = pretrained.load(artifacts.fetch(result.model, tmp_path / "trained"), 0)
    trained.model.eval()
    asked = rows(unseen)
    found = score(trained, trained.encode(spec, [row.input for row in asked], [row.output for row in asked]))
    assert (found.right / found.rows > 0.8) == (share is None)
    assert found.right / found.rows < 0.1 or share is None
