"""Exported models: they write what the model that they were made of writes, and say where they cannot be made."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from orchestrator import card_usage
from services.evaluator.measure import TimeJob, latency, time_and_answer
from services.evaluator.predict import loaded
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.settings import Settings
from services.kit.values import PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer import export_ctranslate2, export_onnx, pretrained
from services.trainer.calls import ExportFormat, ExportRequest, HyperParameters, TrainRequest
from services.trainer.export import export
from services.trainer.train import train
from tests.support.models import copy_rows, tiny_bart, tiny_encoder, tiny_gpt2, tiny_llama, tiny_t5
from tests.support.record import sample_record

SPEC = PromptSpec("Say the first word.")
# Unlike lengths, so that a batch has padding.
INPUTS = ("word1 word2 word3", "word4", "word5 word6 word7 word8 word9 word1", "x y", "hello, word2!", "word7 word1")


def _wild(make: Callable[[Path], Path], folder: Path) -> Path:
    """A model of random weights, large enough that its answers differ from input to input."""
    import torch

    student = pretrained.load(make(folder / "raw"), 0)
    student.model.generation_config.max_new_tokens = 12
    torch.manual_seed(0)
    for weight in student.model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0.0, 0.4)
    (folder / "model").mkdir()
    pretrained.save(student, folder / "model")
    return folder / "model"


def _beside(model: Path, out: Path) -> Path:
    """The model's folder without its weights."""
    return Path(shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors")))


def _told(done: int, total: int, message: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Artifacts, Any, list[Row]]:
    """A model of an encoder that has learned to copy the first word, and rows that it has not seen."""
    folder = tmp_path_factory.mktemp("trained")
    settings = Settings(home=folder, openai_base_url="", openai_api_key="", hub_offline=True, threads=1)
    artifacts = Artifacts.open(settings, "tests")
    rows = copy_rows(460)
    asked = HyperParameters(learning_rate=3e-3, epochs=16, batch_tokens=512)
    request = TrainRequest(
        "run/train", artifacts.put_rows(rows[:400]), artifacts.put_rows(rows[400:420]), SPEC,
        f"folder:{tiny_encoder(folder / 'encoder')}", asked,
    )  # fmt: skip
    return settings, artifacts, train(request, WorkerContext(settings)).model, rows[420:]


@pytest.mark.parametrize("make", [tiny_t5, tiny_bart, tiny_gpt2, tiny_llama])
def test_ctranslate2_writes_the_same(make: Any, settings: Settings, tmp_path: Path) -> None:
    """In 32 bits a converted T5, BART, GPT-2 or Llama writes letter by letter what transformers writes."""
    model = _wild(make, tmp_path)
    out = _beside(model, tmp_path / "out")
    export_ctranslate2.export(model, out / "ctranslate2", quantization="float32")
    expected = loaded(model, settings).answer(SPEC, INPUTS)
    assert len(set(expected)) > 2, "the model says too little for this to prove anything"
    assert loaded(out, settings).answer(SPEC, INPUTS) == expected


def test_a_decoder_as_onnx_writes_the_same(settings: Settings, tmp_path: Path) -> None:
    """In 32 bits a GPT-2's graph writes what transformers writes, in a batch of unlike lengths too."""
    model = _wild(tiny_gpt2, tmp_path)
    out = _beside(model, tmp_path / "out")
    export_onnx.export(model, out / "onnx", False, _told)
    expected = loaded(model, settings).answer(SPEC, INPUTS)
    assert len(set(expected)) > 2
    assert loaded(out, settings).answer(SPEC, INPUTS) == expected


def test_a_classifier_as_onnx_picks_the_same(settings: Settings, tmp_path: Path) -> None:
    """A head for labels picks the same label as a graph, with no decoder in it."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(tmp_path / "raw"))
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=128, pad_token_id=0, initializer_range=0.5, id2label=dict(enumerate("abcdefg")),
    )  # fmt: skip
    model = tmp_path / "model"
    BertForSequenceClassification(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    out = _beside(model, tmp_path / "out")
    export_onnx.export(model, out / "onnx", False, _told)
    expected = loaded(model, settings).answer(SPEC, INPUTS)
    assert len(set(expected)) > 1
    assert loaded(out, settings).answer(SPEC, INPUTS) == expected
    with pytest.raises(FailedPrecondition, match="no converter for classifiers"):
        export_ctranslate2.export(model, tmp_path / "no")


def test_8_bits_are_as_good_and_small(trained: Any, tmp_path: Path) -> None:
    """ONNX in 8 bits of the pair made of an encoder has no large weight in 32 bits, and knows what the model knows."""
    settings, artifacts, model, rows = trained
    context = WorkerContext(settings)
    made = export(ExportRequest("run/export", model, ExportFormat.ONNX_INT8), context).model
    folder = artifacts.fetch(made, tmp_path / "exports" / "onnx-int8")
    weights = [one for path in folder.glob("onnx/*.onnx") for one in onnx.load(path).graph.initializer]
    large = [one for one in weights if math.prod(one.dims) >= 4096]
    assert large and {one.data_type for one in large} <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".onnx"}
    inputs = tuple(row.input for row in rows)
    timed = time_and_answer(TimeJob("onnx_int8", str(folder), SPEC, inputs, True, 20, 5.0), context)
    assert sum(one == row.output for one, row in zip(timed.outputs, rows, strict=True)) >= 0.95 * len(rows)
    assert timed.runtime.startswith("onnxruntime") and timed.latency.inputs == 20
    assert 0 < timed.latency.p50_ms <= timed.latency.p95_ms

    artifacts.fetch(model, tmp_path / "model")
    record = sample_record()
    record["chosen"]["model"]["architecture"] = "encoder"
    record["spec"] |= {"instruction": SPEC.instruction, "demonstrations": [{"input": inputs[0], "output": ""}]}
    for written_as in ("", "onnx-int8"):
        assert _ran(card_usage.snippet(record, written_as), tmp_path, inputs[:5]) == list(timed.outputs[:5])


@pytest.mark.parametrize("make, architecture", [(tiny_t5, "encoder-decoder"), (tiny_gpt2, "decoder-only")])
def test_the_cards_code_runs(make: Any, architecture: str, settings: Settings, tmp_path: Path) -> None:
    """The card's code for transformers and for CTranslate2 answers as the service does."""
    model = _wild(make, tmp_path)
    out = _beside(model, tmp_path / "exports" / "ctranslate2-int8")
    export_ctranslate2.export(model, out / "ctranslate2")
    record = sample_record()
    record["chosen"]["model"]["architecture"] = architecture
    record["spec"] |= {"instruction": SPEC.instruction, "demonstrations": []}
    for written_as, folder in (("", model), ("ctranslate2-int8", out)):
        expected = loaded(folder, settings).answer(SPEC, INPUTS)
        assert _ran(card_usage.snippet(record, written_as), tmp_path, INPUTS) == expected


def _ran(code: str, folder: Path, inputs: tuple[str, ...]) -> list[str]:
    """What the code's `answer` says, run in `folder`."""
    names: dict[str, Any] = {}
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "card", "exec"), names)
        return [names["answer"](text) for text in inputs]


def test_ctranslate2_names_what_it_takes(trained: Any) -> None:
    """A pair made of an encoder has no converter: the refusal names the families that have, and the way out."""
    settings, _, model, _ = trained
    with pytest.raises(FailedPrecondition) as caught:
        export(ExportRequest("run/export", model, ExportFormat.CTRANSLATE2_INT8), WorkerContext(settings))
    assert caught.value.reason == "EXPORT_UNSUPPORTED"
    assert all(word in caught.value.message for word in ("encoder-decoder", "t5", "llama", "onnx-int8"))


def test_a_format_is_wanted(settings: Settings) -> None:
    """Without a format there is nothing to do, and the message names all there are."""
    with pytest.raises(InvalidArgument, match="onnx int8"):
        export(ExportRequest("run/export"), WorkerContext(settings))


def test_a_damaged_export_is_told(settings: Settings, tmp_path: Path) -> None:
    """A graph that is none is a model that cannot be loaded, not a bug."""
    out = _beside(tiny_t5(tmp_path / "t5"), tmp_path / "out")
    (out / "onnx").mkdir()
    (out / "onnx" / "encoder.onnx").write_bytes(b"nothing")
    (out / "onnx" / "export.json").write_text(json.dumps({"kind": "encoder-decoder"}))
    with pytest.raises(FailedPrecondition) as caught:
        loaded(out, settings)
    assert caught.value.reason == "BAD_MODEL" and not re.search("Traceback", caught.value.message)


def test_latency_is_of_the_nearest_rank() -> None:
    """Of 1 to 100 ms half take at most 50 and 95 take at most 95; of one answer both are that one."""
    found = latency([number / 1000 for number in range(100, 0, -1)], 2)
    assert (round(found.p50_ms), round(found.p95_ms), found.inputs, found.threads) == (50, 95, 100, 2)
    one = latency([0.007], 1)
    assert round(one.p50_ms) == round(one.p95_ms) == round(one.mean_ms) == 7
