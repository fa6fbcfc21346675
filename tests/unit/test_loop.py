"""The training loop's parts: tokens, losses, steps, learning rate, and which weights are the best."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from services.kit.artifacts import Artifacts
from services.kit.settings import Settings
from services.kit.values import PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer import loop, pretrained
from services.trainer.batches import Plan, passes
from services.trainer.calls import HyperParameters, TrainRequest
from services.trainer.checkpoint import Progress
from services.trainer.losses import OutputLoss, score
from services.trainer.parallel import Team
from services.trainer.pretrained import Student
from services.trainer.tokens import tokenise
from services.trainer.train import train
from tests.support.models import copy_rows, tiny_encoder, tiny_gpt2, tiny_t5

SPEC = PromptSpec("Copy the first word.")
MODELS = pytest.mark.parametrize("make", [tiny_encoder, tiny_gpt2, tiny_t5])


def _mixed_rows(number: int) -> list[Row]:
    """Rows of very different lengths."""
    return [
        Row(f"{row.input} " * (1 + n % 5), f"{row.output} " * (1 + n % 3)) for n, row in enumerate(copy_rows(number))
    ]


def _encoded(student: Student, rows: list[Row]) -> list[tuple[list[int], list[int]]]:
    return student.encode(SPEC, [row.input for row in rows], [row.output for row in rows])


# -- tokens


@MODELS
def test_mapped_tokens_are_the_encoded_rows(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """What is read back from the file is what the student encodes, cut rows included, and the cut ones are counted."""
    student = pretrained.load(make(tmp_path / "model"), 0, 20, 3)
    rows = _mixed_rows(50)
    tokens = tokenise(student, SPEC, rows, tmp_path / "tokens")
    expected = _encoded(student, rows)
    assert [tuple(part.tolist() for part in tokens[row]) for row in range(50)] == expected
    assert isinstance(tokens.flat, np.memmap)
    whole = pretrained.load(tmp_path / "model", 0, 90, 30).encode(
        SPEC, [r.input for r in rows], [r.output for r in rows]
    )
    assert tokens.inputs_cut == sum(len(read) > 20 for read, _ in whole) > 0
    assert tokens.outputs_cut == sum(len(written) > 3 for _, written in whole) > 0


def test_a_plan_goes_on_where_it_was(tmp_path: Path) -> None:
    """From any step on come the batches that come there in one go; each epoch has every row once."""
    lengths = [(5 + n % 40, 2 + n % 3) for n in range(300)]
    plan = Plan(lengths, 256, 0, 2.5)
    whole = list(plan.from_step(0))
    assert len(whole) == plan.steps == round(2.5 * plan.epoch_steps)
    assert list(plan.from_step(plan.epoch_steps + 3)) == whole[plan.epoch_steps + 3 :]
    assert sorted(row for batch in whole[: plan.epoch_steps] for row in batch) == list(range(300))


def test_large_batches_are_mixed_and_small_ones_are_alike() -> None:
    """A step of many tokens has rows of unlike length; where another pass would cost too much of it, it has none."""
    lengths = [(10, 2)] * 4000 + [(100, 2)] * 400
    shares = []
    for batch_tokens in (768, 4096):
        steps = list(Plan(lengths, batch_tokens, 0, 1).from_step(0))
        mixed = sum(len({lengths[row] for row in batch}) > 1 for batch in steps)
        shares.append(mixed / len(steps))
    small, large = shares
    assert small < 0.05
    assert large > 0.3


def test_passes_trade_padding_for_passes() -> None:
    """Parts are as many as pay: one where passes are dear, more where padding costs more, none over the limit."""
    lengths = [(10, 2)] * 6 + [(100, 2)] * 2 + [(100, 90)]
    batch = list(range(9))
    assert passes(batch, lengths, 1 << 30, 1 << 20) == [batch]
    assert passes(batch, lengths, 1 << 30, 100) == [batch[:6], batch[6:8], batch[8:]]
    assert passes(batch, lengths, 24, 1 << 20) == [[0, 1], [2, 3], [4, 5], [6], [7], [8]]


# -- losses


@MODELS
def test_only_the_output_and_its_end_are_learnt(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A batch's loss is the sum of its rows', each over the output's tokens and the end, none over the input's."""
    student = pretrained.load(make(tmp_path / "model"), 0)
    student.model.eval()
    encoded = _encoded(student, _mixed_rows(6))
    assert all(written[-1] == student.eos for _, written in encoded)
    by_hand = 0.0
    for read, written in encoded:
        if student.decoder_only:
            logits = student.model(input_ids=torch.tensor([read + written])).logits[0, len(read) - 1 : -1]
        else:
            before = torch.tensor([[student.start, *written[:-1]]])
            logits = student.model(input_ids=torch.tensor([read]), decoder_input_ids=before).logits[0]
        by_hand += cross_entropy(logits, torch.tensor(written), reduction="sum").item()
    assert score(student, encoded).loss == pytest.approx(by_hand, rel=1e-4)
    assert OutputLoss(student)(encoded).item() == pytest.approx(by_hand, rel=1e-4)
    assert score(student, encoded).tokens == sum(len(written) for _, written in encoded)


def test_label_smoothing_is_for_training_alone(tmp_path: Path) -> None:
    """It raises the loss that is trained on and leaves the validation loss as it is."""
    student = pretrained.load(tiny_encoder(tmp_path / "model"), 0)
    encoded = student.encode(SPEC, ["word1 word2"], ["word1"])
    plain, smooth = (OutputLoss(student, share)(encoded).item() for share in (0.0, 0.3))
    assert smooth != pytest.approx(plain, rel=1e-3)
    assert score(student, encoded).loss == pytest.approx(plain, rel=1e-4)


# -- steps


@MODELS
def test_passes_add_up_to_the_whole_step(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A batch in parts gives the weights of the batch at once, but for rounding."""
    student = pretrained.load(make(tmp_path / "model"), 0)
    other = copy.deepcopy(student)
    tokens = tokenise(student, SPEC, _mixed_rows(12), tmp_path / "tokens")
    batch = list(range(12))
    assert len(passes(batch, tokens.lengths, 100, 1 << 30)) > 2
    for one, most in ((student, None), (other, 100)):
        optimizer = loop.adamw(one.model, 1e-3)
        loop.step(OutputLoss(one), tokens, batch, optimizer, most, Team())
    for (name, whole), in_parts in zip(student.model.named_parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(whole, in_parts, atol=2e-4), name


def test_learning_rate_rises_and_falls_to_nothing() -> None:
    """A linear warm-up, its peak at 6 %, then down to (nearly) nothing in the last step."""
    rates = [loop.learning_rate(step / 100, 100) for step in range(100)]
    assert rates[:6] == sorted(rates[:6]) and max(rates) == pytest.approx(1.0)
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[0] == pytest.approx(1 / 6) and rates[-1] < 0.011


class _Context(WorkerContext):
    def report(self, progress: Any) -> None: ...


def _settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", openai_base_url="", openai_api_key="", hub_offline=True, threads=1)


def test_learning_rate_falls_to_nothing_at_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off by its time, long before its steps are done, training still ends with hardly any learning rate."""
    shares: list[float] = []
    take = loop.set_learning_rate

    def watched(optimizer: Any, done: float, steps: int) -> None:
        shares.append(done)
        take(optimizer, done, steps)

    monkeypatch.setattr(loop, "set_learning_rate", watched)
    settings = _settings(tmp_path)
    artifacts = Artifacts.open(settings, "tests")
    asked = HyperParameters(epochs=100_000, batch_tokens=256, max_seconds=1.5)
    rows = artifacts.put_rows(copy_rows(60))
    model = f"folder:{tiny_encoder(tmp_path / 'model')}"
    result = train(TrainRequest("run/train", rows, rows, SPEC, model, asked, 0), _Context(settings))
    assert shares == sorted(shares)
    assert shares[-1] > 0.6
    assert loop.learning_rate(shares[-1], 100_000) < 0.45
    assert 3 <= len(result.history) <= 20


def test_slow_validation_leaves_the_time_to_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a round takes as long as a tenth of the time, there are few rounds: most of the time is trained."""
    slow_s, rounds = 0.5, []

    def validate(*_: Any) -> tuple[float, float]:
        time.sleep(slow_s)
        rounds.append(slow_s)
        return 1.0, 0.0

    monkeypatch.setattr(loop, "validate", validate)
    settings = _settings(tmp_path)
    artifacts = Artifacts.open(settings, "tests")
    asked = HyperParameters(epochs=100_000, batch_tokens=256, max_seconds=5.0, patience=0)
    rows = artifacts.put_rows(copy_rows(60))
    model = f"folder:{tiny_encoder(tmp_path / 'model')}"
    result = train(TrainRequest("run/train", rows, rows, SPEC, model, asked, 0), _Context(settings))
    assert 2 <= len(rounds) <= 3  # the last one is at the end
    assert len(result.history) == len(rounds)


@pytest.mark.parametrize(("limit", "step_s", "number"), [(2.0, 0.2, loop.LEAST_ROUND_ROWS), (600.0, 0.0, 200)])
def test_rounds_are_as_small_as_the_time_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, step_s: float, number: int
) -> None:
    """With slow steps and little time a round looks at few rows, the same ones in each; the result says how many."""
    looked: list[list[int]] = []
    take = loop.step

    def slow(*arguments: Any) -> Any:
        time.sleep(step_s)
        return take(*arguments)

    def validate(student: Any, tokens: Any, rows: Any, team: Any) -> tuple[float, float]:
        looked.append(list(rows))
        return 1.0, 0.0

    monkeypatch.setattr(loop, "step", slow)
    monkeypatch.setattr(loop, "validate", validate)
    settings = _settings(tmp_path)
    artifacts = Artifacts.open(settings, "tests")
    asked = HyperParameters(epochs=5, batch_tokens=256, max_seconds=limit, patience=0)
    rows, held_out = artifacts.put_rows(copy_rows(60)), artifacts.put_rows(copy_rows(200))
    model = f"folder:{tiny_encoder(tmp_path / 'model')}"
    result = train(TrainRequest("run/train", rows, held_out, SPEC, model, asked, 0), _Context(settings))
    assert {tuple(one) for one in looked} == {tuple(looked[0])}
    assert len(set(looked[0])) == len(looked[0]) == number
    assert any(f"found with {number} of 200" in note for note in result.notes) == (number < 200)


# -- the best weights


@MODELS
def test_exact_match_is_what_generation_would_give(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """One pass tells how many outputs greedy generation writes to the letter, without generating."""
    student = pretrained.load(make(tmp_path / "model"), 0, 64, 8)
    rows = copy_rows(60)
    tokens = tokenise(student, SPEC, rows, tmp_path / "tokens")
    plan = Plan(tokens.lengths, 256, 0, 12)
    optimizer = loop.adamw(student.model, 4e-3)
    student.model.train()
    for batch in plan.from_step(0):
        loop.step(OutputLoss(student), tokens, batch, optimizer, None, Team())
    found = loop.validate(student, tokens, range(60), Team())
    assert found
    student.model.eval()
    right = 0
    for row in range(60):
        read, written = tokens[row]
        ids = torch.tensor(np.asarray(read, np.int64))[None]
        made = student.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8)[0].tolist()
        made = made[len(read) :] if student.decoder_only else made[1:]
        right += made == written.tolist()
    assert found[1] == pytest.approx(100 * right / 60)
    assert found[1] > 0 or make is tiny_t5


def test_the_best_weights_match_most_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A higher exact match is better than a lower loss; the loss parts equals; either's best puts off the end."""
    rounds = iter([(2.0, 10.0), (1.0, 10.0), (1.5, 20.0), (0.5, 15.0), (0.6, 20.0), (0.7, 19.0), (0.8, 18.0)])
    monkeypatch.setattr(loop, "validate", lambda *_: next(rounds))
    progress = Progress()
    best, stale = [], []
    for step in range(1, 8):
        progress.step = step
        loop._take_stock(progress, None, None, [0], 0.0, Team())  # type: ignore[arg-type]
        best.append(progress.best_step)
        stale.append(progress.stale)
    assert best == [1, 2, 3, 3, 5, 5, 5]
    assert stale == [0, 0, 0, 0, 0, 1, 2]
