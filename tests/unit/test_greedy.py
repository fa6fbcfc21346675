"""Greedy decoding that drops finished rows writes what `generate` writes, in fewer steps of fewer rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from services.evaluator import predict
from services.evaluator.greedy import greedy
from services.kit.settings import Settings
from services.kit.values import PromptSpec
from tests.support import models

ROWS, WIDTH = 24, 12
SPEC = PromptSpec("say it")


def t5(folder: Path) -> Any:
    from transformers import T5ForConditionalGeneration

    return T5ForConditionalGeneration.from_pretrained(models.tiny_t5(folder))


def gpt2(folder: Path) -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(models.tiny_gpt2(folder))


def two_encoders(folder: Path) -> Any:
    from transformers import EncoderDecoderModel

    models.tiny_encoder(folder)
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(folder, folder)
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    return model


@pytest.fixture(params=[t5, two_encoders, gpt2], ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A model with large random weights, whose outputs end after 1 to 40 tokens."""
    made = request.param(tmp_path).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    # Any of these ends an output, so that outputs have many lengths.
    made.generation_config.update(eos_token_id=list(range(5, 14)), pad_token_id=0, max_new_tokens=40)
    return made


def batch(model: Any) -> dict[str, torch.Tensor]:
    """Rows of many lengths, padded on the side that the model wants."""
    torch.manual_seed(0)
    ids = torch.randint(20, 60, (ROWS, WIDTH))
    lengths = torch.arange(ROWS) % WIDTH + 1
    places = torch.arange(WIDTH)[None, :]
    mask = places < lengths[:, None] if model.config.is_encoder_decoder else places >= WIDTH - lengths[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def steps(model: Any, monkeypatch: pytest.MonkeyPatch, **how: Any) -> tuple[list[list[int]], list[int]]:
    """What is written, and the rows of each step."""
    seen: list[int] = []
    plain = type(model).prepare_inputs_for_generation

    def watched(self: Any, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(input_ids))
        return plain(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(model), "prepare_inputs_for_generation", watched)
    with torch.inference_mode():
        written = model.generate(**batch(model), do_sample=False, num_beams=1, **how)
    monkeypatch.undo()
    return written.tolist(), seen


@pytest.mark.parametrize("rules", [{}, {"repetition_penalty": 2.0}, {"no_repeat_ngram_size": 2, "min_new_tokens": 3}])
def test_the_tokens_are_those_of_generate(model: Any, monkeypatch: pytest.MonkeyPatch, rules: dict[str, Any]) -> None:
    """Token for token, padding included, with the generation config's own rules too."""
    wanted, _ = steps(model, monkeypatch, **rules)
    found, _ = steps(model, monkeypatch, custom_generate=greedy, **rules)
    assert found == wanted


def test_finished_rows_leave_the_batch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step has the rows that are still being written, in which `generate` carries all to the end."""
    rules = {"repetition_penalty": 2.0}
    wanted, all_rows = steps(model, monkeypatch, **rules)
    _, fewer_rows = steps(model, monkeypatch, custom_generate=greedy, **rules)
    assert len({sum(token != 0 for token in row) for row in wanted}) > 3
    assert set(all_rows) == {ROWS}
    assert len(fewer_rows) == len(all_rows)
    assert fewer_rows == sorted(fewer_rows, reverse=True)
    assert sum(fewer_rows) < 0.9 * sum(all_rows)


def test_outputs_depend_neither_on_order_nor_on_batch(model: Any, tmp_path: Path, settings: Settings) -> None:
    """Each input has the same answer alone, in batches of 3 or 50, first or last."""
    model.save_pretrained(tmp_path)
    loaded = predict.Model(tmp_path, settings)
    rng = random.Random(0)
    inputs = [" ".join(f"word{rng.randrange(20)}" for _ in range(rng.randrange(1, 9))) for _ in range(30)]
    alone = {text: loaded.answer(SPEC, (text,))[0] for text in inputs}
    assert len(set(alone.values())) > 3
    for size in (3, 50):
        rng.shuffle(inputs)
        assert loaded.answer(SPEC, tuple(inputs), size) == [alone[text] for text in inputs]
