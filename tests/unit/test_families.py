"""Every family of models is trained, saved, loaded and answers; decoders learn to stop; LoRA is merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, GenerationConfig

from services.evaluator import predict
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings
from services.kit.values import PromptSpec
from services.kit.worker import WorkerContext
from services.trainer import adapters, loop, pretrained
from services.trainer.calls import HyperParameters, TrainRequest, TrainResult
from services.trainer.pretrained import Student
from services.trainer.train import train
from tests.support import models
from tests.support.models import copy_rows

SPEC = PromptSpec("Copy the first word.")
FAMILIES = {
    "t5": models.tiny_t5,
    "bart": models.tiny_bart,
    "mt5": models.tiny_mt5,
    "umt5": models.tiny_umt5,
    "encoder-decoder": models.tiny_pair,
    "gpt2": models.tiny_gpt2,
    "llama": models.tiny_llama,
}
# What becomes a pair of encoder and decoder first.
ENCODERS = {"bert": models.tiny_encoder, "roberta": models.tiny_roberta}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", openai_base_url="", openai_api_key="", hub_offline=True, threads=1)


@pytest.fixture
def in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that does not round, as it would with AMX units: its losses are compared with others."""

    def prepare(threads: int) -> None:
        loop.prepare_torch(threads)
        torch.backends.mkldnn.matmul.fp32_precision = "ieee"

    monkeypatch.setattr("services.trainer.train.prepare_torch", prepare)


def _trained(artifacts: Artifacts, settings: Settings, folder: Path, **asked: object) -> TrainResult:
    usual = {
        "learning_rate": 5e-3,
        "epochs": 4,
        "checkpoint_steps": 5,
        "batch_tokens": 512,
        "max_output_tokens": 8,
        "patience": 0,
    }
    rows = copy_rows(400)
    request = TrainRequest(
        "run/train", artifacts.put_rows(rows[:300]), artifacts.put_rows(rows[300:320]), SPEC, f"folder:{folder}",
        HyperParameters(**(usual | asked)),  # type: ignore[arg-type]
    )  # fmt: skip
    return train(request, WorkerContext(settings))


@torch.inference_mode()
def _loss(student: Student, rows: list[tuple[list[int], list[int]]]) -> float:
    """The mean loss per output token, by what transformers itself makes of labels, row by row without padding."""
    student.model.eval()
    total = 0.0
    for read, written in rows:
        tokens = [*read, *written] if student.decoder_only else read
        wanted = [*[-100] * len(read), *written] if student.decoder_only else written
        loss = student.model(input_ids=torch.tensor([tokens]), labels=torch.tensor([wanted])).loss
        total += float(loss) * len(written)
    return total / sum(len(written) for _, written in rows)


@pytest.mark.usefixtures("in_32_bits")
@pytest.mark.parametrize("family", [*FAMILIES, *ENCODERS])
def test_a_family_makes_the_round_trip(settings: Settings, artifacts: Artifacts, tmp_path: Path, family: str) -> None:
    """Its loss falls, its folder is safetensors that Predict loads, and the loaded model has the trained one's loss.

    The student is loaded a second time from what was stored, so weights that saving drops or ties wrongly would show.
    """
    make = (FAMILIES | ENCODERS)[family]
    result = _trained(artifacts, settings, make(tmp_path / "m"))
    assert result.history[-1].train_loss < result.history[0].train_loss
    folder = artifacts.fetch(result.model, tmp_path / "out")
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
    kind = {"bert": "encoder-decoder", "roberta": "encoder-decoder"}.get(family, family)
    assert AutoConfig.from_pretrained(folder).model_type == kind
    again = pretrained.load(folder, 0, max_output_tokens=8)
    [best] = [point.validation_loss for point in result.history if point.step == result.best_step]
    held_out = copy_rows(400)[300:320]
    data = again.encode(SPEC, [row.input for row in held_out], [row.output for row in held_out])
    assert _loss(again, data) == pytest.approx(best, rel=1e-3)
    assert all(written[-1] == again.eos for _, written in data)
    answers = predict.loaded(folder, settings).answer(SPEC, ("word1 word2 word3", "word4"))
    assert len(answers) == 2


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_base_and_student_stop_at_the_same_length(
    settings: Settings, artifacts: Artifacts, tmp_path: Path, family: str
) -> None:
    """Both may write half as much again as the longest training output, at least 8 tokens more; a note says so."""
    result = _trained(artifacts, settings, FAMILIES[family](tmp_path / "m"), max_output_tokens=64)
    for name in ("base", "model"):
        folder = artifacts.fetch(getattr(result, name), tmp_path / name)
        assert GenerationConfig.from_pretrained(folder).max_new_tokens == 2 + 8
    assert any(note.startswith("Base and student write at most 10 tokens") for note in result.notes)


@pytest.mark.parametrize("family, rate", [("gpt2", 5e-3), ("llama", 3e-3)])
def test_a_decoder_learns_to_stop(
    settings: Settings, artifacts: Artifacts, tmp_path: Path, family: str, rate: float
) -> None:
    """After training, what follows the prompt is the output and at once the end-of-sequence token, on unseen inputs.

    Before training it is not: the end is learned because the labels hold it, and hold the output alone.
    """
    result = _trained(artifacts, settings, FAMILIES[family](tmp_path / "m"), epochs=25, learning_rate=rate)
    rows = copy_rows(400)[360:]
    inputs, outputs = [row.input for row in rows], [row.output for row in rows]

    def stops(name: str) -> float:
        """The share of the rows after which exactly the output's tokens and the end are written."""
        student = pretrained.load(artifacts.fetch(getattr(result, name), tmp_path / name), 0, max_output_tokens=8)
        student.model.eval()
        right = 0
        for read, wanted in student.encode(SPEC, inputs, outputs):
            with torch.inference_mode():
                written = student.model.generate(
                    input_ids=torch.tensor([read]), attention_mask=torch.ones(1, len(read), dtype=torch.long)
                )
            right += written[0, len(read) :].tolist() == wanted and wanted[-1] == student.eos
        return right / len(rows)

    assert stops("model") > 0.9
    assert stops("base") < 0.1


@pytest.mark.usefixtures("in_32_bits")
@pytest.mark.parametrize("family", [*FAMILIES, *ENCODERS])
def test_lora_fits_and_is_merged(settings: Settings, artifacts: Artifacts, tmp_path: Path, family: str) -> None:
    """Adapters sit in every attention and feed-forward layer, train few weights, and end up in a plain model."""
    make: Callable[[Path], Path] = (FAMILIES | ENCODERS)[family]
    folder = make(tmp_path / "m")
    adapted = adapters.with_lora(pretrained.load(folder, 0))
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    plain = pretrained.load(folder, 0).model
    layers = [
        name
        for name, layer in plain.named_modules()
        if (isinstance(layer, torch.nn.Linear) or type(layer).__name__ == "Conv1D")
        and layer is not plain.get_output_embeddings()
    ]
    assert len(layers) == len(trained) / 2  # an A and a B each
    result = _trained(artifacts, settings, folder, lora=True)
    before, after = (
        load_file(artifacts.fetch(one, tmp_path / name) / "model.safetensors")
        for name, one in (("base", result.base), ("model", result.model))
    )
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed and not any("embed" in name for name in changed)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_adapters_move_to_the_whole_weights(tmp_path: Path, family: str) -> None:
    """Adapters that were trained beside a copy of the weights end up in the whole ones, and change answers alike."""
    folder = FAMILIES[family](tmp_path / "m")
    copy, whole = pretrained.load(folder, 0), pretrained.load(folder, 0)
    adapted = adapters.with_lora(copy)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.1)
    rows = whole.encode(SPEC, ["word1 word2"], ["word1"])
    before = _loss(whole, rows)
    wanted = _loss(replace(copy, model=adapted), rows)
    merged = adapters.merged_into(adapted, whole)
    assert type(merged) is type(pretrained.load(folder, 0).model)
    assert _loss(replace(whole, model=merged), rows) == pytest.approx(wanted, rel=1e-4)
    assert wanted != pytest.approx(before, rel=1e-2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_qlora_without_a_gpu_is_refused(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """QLoRA on a machine without CUDA is FAILED_PRECONDITION, NO_CUDA, and names what to take instead."""
    with pytest.raises(FailedPrecondition, match="--lora instead") as caught:
        _trained(artifacts, settings, models.tiny_gpt2(tmp_path / "m"), qlora=True)
    assert caught.value.reason == "NO_CUDA"


def test_a_gguf_file_becomes_safetensors(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """A decoder in a GGUF file trains; base and model are plain safetensors with the file's own tokens and numbers.

    The numbers of the base are those that llama.cpp would unpack, and any text comes back from the tokenizer.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize

    folder = models.tiny_gguf(tmp_path / "m")
    result = _trained(artifacts, settings, folder)
    base = artifacts.fetch(result.base, tmp_path / "base")
    assert sorted(file.suffix for file in base.iterdir()) == [".json", ".json", ".json", ".json", ".safetensors"]
    assert "quantization_config" not in (base / "config.json").read_text()
    numbers = load_file(base / "model.safetensors")
    packed = {tensor.name: tensor for tensor in GGUFReader(folder / "tiny.gguf").tensors}
    for ours, theirs in (("embed_tokens", "token_embd"), ("layers.1.self_attn.v_proj", "blk.1.attn_v")):
        unpacked = torch.from_numpy(dequantize(packed[f"{theirs}.weight"].data, packed[f"{theirs}.weight"].tensor_type))
        assert torch.equal(numbers[f"model.{ours}.weight"], unpacked)
    student = pretrained.load(base, 0)
    assert student.encode(SPEC, ["x"], ["ab"]) == pretrained.load(folder, 0).encode(SPEC, ["x"], ["ab"])
    assert student.encode(SPEC, ["x"], ["ab"])[0][1] == [len(student.tokenizer) - 1, student.eos]
    text = "Naïve  café,\n2024-05-01 東京"
    assert student.tokenizer.decode(student.tokenizer(text)["input_ids"]) == text
    assert len(predict.loaded(artifacts.fetch(result.model, tmp_path / "out"), settings).answer(SPEC, ("word1",))) == 1
    assert result.history[-1].train_loss < result.history[0].train_loss
