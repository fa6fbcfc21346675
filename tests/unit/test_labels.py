"""A head for labels: when it is chosen, what it learns, and how its model is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, pipeline

from services.evaluator import predict
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.settings import Settings
from services.kit.values import Demonstration, PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer import classify, pretrained
from services.trainer.calls import HyperParameters, TrainRequest
from services.trainer.labels import choose, fitting, named_beside
from services.trainer.train import train
from tests.support.models import copy_rows, tiny_encoder, tiny_gpt2

SPEC = PromptSpec("Say whether the first word is even or odd.")


def parity_rows(number: int, seed: int = 0) -> list[Row]:
    """The first of three words decides the label, which stands nowhere in the input."""
    return [
        Row(row.input, "Odd, as it were" if int(row.output.removeprefix("word")) % 2 else "EVEN")
        for row in copy_rows(number, seed)
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", openai_base_url="", openai_api_key="", hub_offline=True, threads=1)


def _request(artifacts: Artifacts, model: Path, rows: list[Row], **asked: object) -> TrainRequest:
    usual = {"learning_rate": 3e-3, "epochs": 6, "batch_tokens": 512, "patience": 0}
    parameters = HyperParameters(**(usual | asked))  # type: ignore[arg-type]
    return TrainRequest(
        "run/train", artifacts.put_rows(rows[20:]), artifacts.put_rows(rows[:20]), SPEC, f"folder:{model}", parameters
    )


# -- the choice


def _outputs(*counts: tuple[str, int]) -> list[Row]:
    return [Row(f"text {number}", output) for output, count in counts for number in range(count)]


def test_few_outputs_are_labels() -> None:
    """Few outputs, each seen often: a head for labels, with their shares of the rows."""
    choice = choose("auto", SPEC, _outputs(("yes", 30), ("no", 10)), _outputs(("yes", 5)))
    assert choice.shares == {"no": 0.25, "yes": 0.75}
    assert "2 labels" in choice.why


@pytest.mark.parametrize(
    "rows, validation, why",
    [
        (_outputs(*((f"output {n}", 9) for n in range(400))), [], ""),
        (_outputs(*((f"output {n}", 4) for n in range(20))), [], "too few of each"),
        (_outputs(("yes", 50), ("no", 40), *((f"rare {n}", 1) for n in range(5))), [], "once or twice"),
        (_outputs(("yes", 50), ("no", 40)), _outputs(("yes", 9), ("perhaps", 1)), "no training row"),
        ([Row(f"{name} is here", name) for name in ("Ann", "Bob") for _ in range(40)], [], "copied"),
    ],
)
def test_open_outputs_are_text(rows: list[Row], validation: list[Row], why: str) -> None:
    """Where a new output is likely, or outputs are copied, the model writes text, and a near miss says why."""
    choice = choose("", SPEC, rows, validation)
    assert not choice.shares
    assert why in choice.why and bool(choice.why) == bool(why)


def test_a_head_can_be_forced() -> None:
    """ "text" keeps closed outputs text; "labels" takes open ones, but not a single one; another word is refused."""
    closed = _outputs(("yes", 30), ("no", 10))
    assert not choose("text", SPEC, closed, []).shares
    assert len(choose("labels", SPEC, _outputs(("a", 1), ("b", 1)), []).shares) == 2
    with pytest.raises(FailedPrecondition, match="same output"):
        choose("labels", SPEC, _outputs(("yes", 30)), [])
    with pytest.raises(InvalidArgument, match="auto, text, labels"):
        choose("lables", SPEC, closed, [])


def test_what_the_prompt_names_is_a_label() -> None:
    """A label that the instruction lists, or a demonstration shows, is one though no row has it; the choice says so."""
    spec = PromptSpec("Say which team answers (billing, shipping, returns or sales).", (Demonstration("Hi", "none"),))
    choice = choose("auto", spec, _outputs(("billing", 30), ("shipping", 30), ("returns", 30)), [])
    assert set(choice.shares) == {"billing", "shipping", "returns", "sales", "none"}
    assert choice.shares["sales"] == 0
    assert "No training row has 'none', 'sales'." in choice.why


@pytest.mark.parametrize(
    "instruction, labels, found",
    [
        ("Answer with positive, negative, or neutral.", ("negative", "neutral"), ()),
        ("The sentiment: positive, negative or neutral", ("positive", "negative"), ("neutral",)),
        ('Reply "yes" / "not sure" / "no".', ("yes", "no"), ("not sure",)),
        ("Sort apples, pears, plums, nuts and yes by size or no", ("yes", "no"), ()),
    ],
)
def test_lists_in_the_instruction(instruction: str, labels: tuple[str, ...], found: tuple[str, ...]) -> None:
    """What stands in one list with labels is one; the sentence around a list, and other lists, are not."""
    assert named_beside(instruction, labels) == found


def test_validation_rows_of_no_label_are_left_out() -> None:
    """A validation row whose output is no label is left out, and a note says how many."""
    choice = choose("labels", SPEC, _outputs(("yes", 3), ("no", 3)), [])
    kept, notes = fitting(choice, "labels", ("no", "yes"), _outputs(("yes", 2), ("maybe", 1)))
    assert [row.output for row in kept] == ["yes", "yes"]
    assert any(note.startswith("1 of 3 validation rows") for note in notes)


# -- the model


def test_it_learns_labels(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """The real loop trains an encoder on labels; the result, asked by plain transformers and by Predict, knows them.

    Labels come back as they were written, though the tokenizer knows no capitals. The base answers with one label.
    """
    rows = parity_rows(400)
    result = train(_request(artifacts, tiny_encoder(tmp_path / "m"), rows[:320]), WorkerContext(settings))
    assert result.labels == ("EVEN", "Odd, as it were")
    assert any("2 labels" in note for note in result.notes)
    folder = artifacts.fetch(result.model, tmp_path / "model")
    assert AutoConfig.from_pretrained(folder).id2label == {0: "EVEN", 1: "Odd, as it were"}
    inputs, wanted = [row.input for row in rows[320:]], [row.output for row in rows[320:]]
    plain = [one["label"] for one in pipeline("text-classification", model=str(folder))(inputs)]
    model = predict.loaded(folder, settings)
    answers = model.answer(SPEC, tuple(inputs))
    assert answers == plain
    assert sum(a == b for a, b in zip(answers, wanted, strict=True)) / len(wanted) > 0.9
    assert model.answer(SPEC, tuple(inputs), batch_size=7) == answers
    assert model.ceiling((("EVEN", "x"), ("odd",))) == 50.0
    base = predict.loaded(artifacts.fetch(result.base, tmp_path / "base"), settings)
    assert len(set(base.answer(SPEC, tuple(inputs)))) == 1


def test_lora_on_labels_is_merged(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """With LoRA an encoder, here one trained before, gets a new head; the result is a plain model that answers."""
    rows = parity_rows(400)
    before = train(_request(artifacts, tiny_encoder(tmp_path / "m"), rows), WorkerContext(settings))
    encoder = artifacts.fetch(before.model, tmp_path / "encoder")
    turned = [Row(row.input, "left" if row.output == "EVEN" else "right") for row in rows]
    result = train(_request(artifacts, encoder, turned[:320], lora=True), WorkerContext(settings))
    folder = artifacts.fetch(result.model, tmp_path / "model")
    assert not list(folder.glob("adapter*"))
    answers = predict.loaded(folder, settings).answer(SPEC, tuple(row.input for row in turned[320:]))
    assert sum(a == row.output for a, row in zip(answers, turned[320:], strict=True)) / 80 > 0.9


def test_a_decoder_writes_its_labels(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """A decoder-only model keeps writing text; asked for a head for labels it is refused with what to do."""
    rows = parity_rows(60)
    model = tiny_gpt2(tmp_path / "gpt2")
    assert train(_request(artifacts, model, rows), WorkerContext(settings)).labels == ()
    with pytest.raises(FailedPrecondition, match="--head text"):
        train(_request(artifacts, model, rows, head="labels"), WorkerContext(settings))


def _sentence_encoder(folder: Path) -> Path:
    tiny_encoder(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


def test_a_sentence_encoder_starts_from_names(tmp_path: Path) -> None:
    """A sentence encoder's head sees the mean of its tokens: untrained, it gives an input that is a label that label.

    The features before the head point where the mean of the encoder's last states does.
    """
    folder = _sentence_encoder(tmp_path / "m")
    names = {f"word{n} word{n + 3}": 0.25 for n in range(4)}
    student = pretrained.load(folder, 0, labels=names)
    pretrained.save(student, tmp_path / "saved")
    model = predict.loaded(tmp_path / "saved", Settings(home=tmp_path, threads=1))
    assert model.answer(SPEC, tuple(names)) == list(names)
    seen: list[torch.Tensor] = []
    classify._head(student.model).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    tokens = torch.tensor(student.encode_inputs(SPEC, ["word1 word5 word7 word2"], 99))
    with torch.no_grad():
        states = student.model.eval()(input_ids=tokens, output_hidden_states=True).hidden_states
    mean = states[-2][0].mean(0)
    assert torch.cosine_similarity(mean - mean.mean(), seen[0][0], dim=0) > 0.98
