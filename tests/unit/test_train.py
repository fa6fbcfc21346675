"""Training: batches, encoding, what is learned, stopping and going on, checkpoints, and models of every kind."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from services.kit import encoding
from services.kit.artifacts import Artifacts
from services.kit.errors import Cancelled, DiskFull, FailedPrecondition, P2MError
from services.kit.settings import Settings
from services.kit.values import Progress, PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer import pretrained
from services.trainer.batches import Plan, batches, padding_share, passes
from services.trainer.calls import ExportFormat, ExportRequest, HyperParameters, TrainRequest, TrainResult
from services.trainer.export import export
from services.trainer.train import train
from tests.support.models import copy_rows, tiny_encoder, tiny_gpt2, tiny_t5

SPEC = PromptSpec("Copy the first word.")
QUICK = HyperParameters(learning_rate=3e-3, epochs=2, batch_tokens=512, checkpoint_steps=5)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """One thread, so that results are the same on any machine and no other test is slowed down."""
    return Settings(home=tmp_path / "home", openai_base_url="", openai_api_key="", hub_offline=True, threads=1)


class Context(WorkerContext):
    """Keeps what was reported, and stops the job at its first report at or after `stop_at` steps."""

    def __init__(self, settings: Settings, stop_at: float | None = None) -> None:
        super().__init__(settings)
        self.reports: list[Progress] = []
        self._stop_at = stop_at

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)
        if self._stop_at is not None and progress.total and progress.done >= self._stop_at:
            self.stop()

    @property
    def resumed_from(self) -> float:
        return next(metric.value for metric in self.reports[-2].metrics if metric.name == "resumed_from_step")


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.trainer.loop.REPORT_INTERVAL_S", 0.0)


def _request(
    artifacts: Artifacts,
    model: Path,
    asked: HyperParameters = QUICK,
    rows: list[Row] | None = None,
    validation: list[Row] | None = None,
    spec: PromptSpec = SPEC,
) -> TrainRequest:
    rows = copy_rows(120) if rows is None else rows
    held_out = copy_rows(20, seed=1) if validation is None else validation
    return TrainRequest(
        "run/train", artifacts.put_rows(rows), artifacts.put_rows(held_out), spec, f"folder:{model}", asked, 0
    )


def _answers(folder: Path, inputs: list[str], spec: PromptSpec = SPEC) -> list[str]:
    """What plain transformers gets out of a model folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    decoder_only = not config.get("is_encoder_decoder")
    model = (AutoModelForCausalLM if decoder_only else AutoModelForSeq2SeqLM).from_pretrained(folder).eval()
    encode = encoding.encode_prompts if decoder_only else encoding.encode_inputs
    batch = tokenizer.pad({"input_ids": encode(tokenizer, spec, inputs, 128)}, return_tensors="pt")
    written = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    start = batch["input_ids"].shape[1] if decoder_only else 0
    return [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in written[:, start:].tolist()]


# -- encoding


def test_instruction_is_cut_before_the_input(tmp_path: Path) -> None:
    """Too long a text loses the end of its instruction first, and of its input only when no instruction is left."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(tmp_path))
    spec = PromptSpec("word1 word2 word3 word4")

    def text(input: str, room: int) -> str:
        [tokens] = encoding.encode_inputs(tokenizer, spec, [input], room)
        assert len(tokens) <= room
        return str(tokenizer.decode(tokens))

    assert text("word7 word8", 99) == "[CLS] word1 word2 word3 word4 word7 word8 [SEP]"
    assert text("word7 word8", 6) == "[CLS] word1 word2 word7 word8 [SEP]"
    assert text("word7 word8", 4) == "[CLS] word7 word8 [SEP]"
    assert text("word7 word8", 3) == "[CLS] word7 [SEP]"


def test_special_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    """A row that spells out [SEP] or </s> does not end its input or output."""
    for make, token in ((tiny_encoder, "[SEP]"), (tiny_t5, "</s>")):
        tokenizer = AutoTokenizer.from_pretrained(make(tmp_path / make.__name__))
        end = tokenizer.convert_tokens_to_ids(token)
        [tokens] = encoding.encode_inputs(tokenizer, SPEC, [f"a {token} b"], 99)
        assert tokens.count(end) == 1
        [tokens] = encoding.encode_outputs(tokenizer, [f"a {token} b"], 99, eos=end)
        assert tokens.count(end) == 1


@pytest.mark.parametrize("text", ["2024-05-01", "word1-word2/word3, word4.", "it's $12.50 (n/a)!", "", "-", "a - b"])
def test_glue_keeps_outputs_as_they_are(tmp_path: Path, text: str) -> None:
    """A student made of an encoder writes marks without the spaces that WordPiece puts around them."""
    student = pretrained.load(tiny_encoder(tmp_path / "encoder"), 0)
    pretrained.save(student, tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert encoding.read_back(tokenizer, [text]) == [text]


# -- batches


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    """Each row is in one batch, no batch is over the limit but a lone long row, and another epoch has another order."""
    lengths = [(5 + n % 40, 2 + n % 3) for n in range(300)] + [(900, 5)]
    packed = batches(lengths, 256, seed=1, epoch=0)
    assert sorted(row for batch in packed for row in batch) == list(range(301))
    for batch in packed:
        size = len(batch) * (max(lengths[row][0] for row in batch) + max(lengths[row][1] for row in batch))
        assert size <= 256 or len(batch) == 1
    assert packed == batches(lengths, 256, seed=1, epoch=0)
    assert packed != batches(lengths, 256, seed=1, epoch=1) and packed != batches(lengths, 256, seed=2, epoch=0)


def test_a_step_mixes_lengths() -> None:
    """A step has rows of several lengths; its parts, padded each, are within the limit, and another seed mixes anew."""
    lengths = [(5 + (n * 37) % 300, 5) for n in range(2000)] + [(3000, 5)]
    plan = Plan(lengths, 2048, seed=0, epochs=1)
    steps = [*plan.from_step(0)]
    assert sorted(row for batch in steps for row in batch) == list(range(2001))
    apart = [max(lengths[row][0] for row in batch) - min(lengths[row][0] for row in batch) for batch in steps]
    alone = batches(lengths, 2048, seed=0, epoch=0)
    apart_alone = [max(lengths[row][0] for row in batch) - min(lengths[row][0] for row in batch) for batch in alone]
    assert np.median(apart) > 10 * max(1.0, float(np.median(apart_alone)))
    for batch in steps:
        parts = passes(batch, lengths, 2048, 0)
        computed = sum(len(part) * (max(lengths[row][0] for row in part) + 5) for part in parts)
        assert computed <= 2048 or len(batch) == 1
    assert len(steps) < 1.1 * len(alone)
    assert steps != [*Plan(lengths, 2048, seed=1, epochs=1).from_step(0)]


def test_passes_cost_the_least() -> None:
    """No way to cut a batch into neighbours costs less; a pass is within the limit, but for a longer row alone."""
    rng = random.Random(0)
    for _ in range(50):
        lengths = [(rng.randint(1, 60), rng.randint(1, 9)) for _ in range(8)]

        def cost(found: list[list[int]], lengths: list[tuple[int, int]] = lengths) -> int:
            tokens = [len(one) * sum(max(lengths[row][n] for row in one) for n in (0, 1)) for one in found]
            fits = all(size <= 100 or len(one) == 1 for size, one in zip(tokens, found, strict=True))
            return sum(tokens) + 20 * len(found) if fits else 9_999

        every = []
        for cuts in itertools.product((False, True), repeat=7):
            found = [[0]]
            for row, cut in enumerate(cuts, 1):
                found = [*found, [row]] if cut else [*found[:-1], [*found[-1], row]]
            every.append(found)
        chosen = passes([*range(8)], lengths, 100, 20)
        assert cost(chosen) == min(map(cost, every)) < 9_999


@pytest.mark.parametrize("longest_output", [6, 60])
def test_bucketing_pads_little(longest_output: int) -> None:
    """Rows of very different lengths are padded by less than 5 %, also where one length says nothing of the other."""
    lengths = [(5 + (n * 37) % 300, 5 + (n * 101) % longest_output) for n in range(4000)]
    steps = Plan(lengths, 2048, 0, 1).from_step(0)
    packed = [part for batch in steps for part in passes(batch, lengths, 2048, 100)]
    assert padding_share(lengths, packed) < 0.05


# -- learning


@pytest.mark.parametrize("make, epochs, rate", [(tiny_encoder, 10, 3e-3), (tiny_gpt2, 30, 5e-3)])
def test_it_learns(
    settings: Settings, artifacts: Artifacts, tmp_path: Path, make: Callable[[Path], Path], epochs: int, rate: float
) -> None:
    """Both kinds learn to copy a word of inputs they never saw, and to stop after it; the base cannot.

    transformers loads both. An answer is right only where it ends by itself: it may have eight tokens and needs one.
    """
    rows = copy_rows(500)
    asked = HyperParameters(learning_rate=rate, epochs=epochs, batch_tokens=512, max_output_tokens=8, patience=0)
    request = _request(artifacts, make(tmp_path / "model"), asked, rows[:400], rows[400:420])
    result = train(request, Context(settings))
    inputs, wanted = [row.input for row in rows[420:]], [row.output for row in rows[420:]]

    def share_right(name: str) -> float:
        answers = _answers(artifacts.fetch(getattr(result, name), tmp_path / name), inputs)
        return sum(a == b for a, b in zip(answers, wanted, strict=True)) / len(wanted)

    assert share_right("model") > 0.9
    assert share_right("base") < 0.2
    assert result.history[-1].train_loss < result.history[0].train_loss / 2
    assert result.parameters > 90_000 and result.seconds > 0


def test_t5_trains(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """An encoder-decoder's loss falls and its folder gives answers that end by themselves."""
    asked = HyperParameters(
        learning_rate=3e-3, epochs=6, batch_tokens=512, max_output_tokens=20, patience=0, checkpoint_steps=5
    )
    result = train(_request(artifacts, tiny_t5(tmp_path / "t5"), asked), Context(settings))
    assert result.history[-1].train_loss < result.history[0].train_loss / 1.5
    [answer] = _answers(artifacts.fetch(result.model, tmp_path / "out"), ["word1 word2 word3"])
    assert len(answer.split()) < 8


def test_lora_is_merged(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """With LoRA the result is a plain model of the same size that differs from its base."""
    asked = HyperParameters(learning_rate=3e-3, epochs=4, batch_tokens=512, lora=True, checkpoint_steps=5)
    result = train(_request(artifacts, tiny_gpt2(tmp_path / "gpt2"), asked), Context(settings))
    weights = [
        load_file(artifacts.fetch(folder, tmp_path / name) / "model.safetensors")
        for name, folder in (("model", result.model), ("base", result.base))
    ]
    assert weights[0].keys() == weights[1].keys()
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_early_stopping_keeps_the_best(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """When validation gets no better it stops, and the weights kept are those of the least validation loss."""
    # What is asked for in validation is never in training: the loss there can only rise.
    held_out = [Row(row.input, "word9 word9 word9") for row in copy_rows(20, seed=3)]
    asked = HyperParameters(learning_rate=5e-3, epochs=30, batch_tokens=512, checkpoint_steps=10, patience=2)
    result = train(_request(artifacts, tiny_encoder(tmp_path / "m"), asked, validation=held_out), Context(settings))
    losses = {point.step: point.validation_loss for point in result.history}
    assert result.best_step == min(losses, key=lambda step: losses[step] or 0.0)
    assert result.history[-1].step == result.best_step + 20 < 180
    assert any("no longer improved" in note for note in result.notes)


def test_no_validation_keeps_the_last(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """Without validation rows there is no early stopping and the last weights are kept; a note says so."""
    result = train(_request(artifacts, tiny_encoder(tmp_path / "m"), validation=[]), Context(settings))
    assert result.best_step == result.history[-1].step
    assert result.history[-1].validation_loss is None
    assert any("no validation split" in note for note in result.notes)


def test_time_limit(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """`max_seconds` ends the training at the next step with a validated model."""
    asked = HyperParameters(epochs=1000, batch_tokens=512, max_seconds=0.2)
    result = train(_request(artifacts, tiny_encoder(tmp_path / "m"), asked), Context(settings))
    assert 0.2 <= result.seconds < 5
    assert result.history[-1].validation_loss is not None
    assert any("the time was up" in note for note in result.notes)


def test_notes_on_what_is_cut_and_lost(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """The notes count cut inputs and name an output that the tokenizer changes."""
    rows = [Row(f"{row.input} {'word1 ' * 30}", row.output.upper()) for row in copy_rows(20)]
    asked = HyperParameters(epochs=1, max_input_tokens=16)
    result = train(_request(artifacts, tiny_encoder(tmp_path / "m"), asked, rows), Context(settings))
    assert any(note.startswith("20 of 20 inputs were longer than 16 tokens") for note in result.notes)
    assert any(note.startswith("100.0 % of the outputs do not survive") for note in result.notes)


# -- stopping and going on


@pytest.fixture
def whole(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> TrainResult:
    """An uninterrupted run, in a store of its own, with dropout, so that a wrong random state would show."""
    other = settings.model_copy(update={"home": tmp_path / "whole"})
    return train(_request(Artifacts.open(other, "tests"), _with_dropout(tmp_path)), Context(other))


def _with_dropout(tmp_path: Path) -> Path:
    folder = tiny_t5(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"dropout_rate": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_stopped_and_resumed_gives_the_same_weights(
    settings: Settings, artifacts: Artifacts, tmp_path: Path, whole: TrainResult
) -> None:
    """Stopped after three steps, after eight, and resumed: the weights' digest and the history are those of one go."""
    request = _request(artifacts, _with_dropout(tmp_path))
    for stop_at in (3, 8):
        with pytest.raises(Cancelled):
            train(request, Context(settings, stop_at))
    context = Context(settings)
    resumed = train(request, context)
    assert context.resumed_from == 9
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.history == whole.history
    assert resumed.best_step == whole.best_step


@pytest.mark.parametrize("name", ["weights.safetensors", "exp_avg.safetensors", "manifest.json"])
def test_a_damaged_slot_is_passed_over(
    settings: Settings, artifacts: Artifacts, tmp_path: Path, whole: TrainResult, name: str
) -> None:
    """A truncated file in the newer slot makes it go on from the older one, to the same weights."""
    request = _request(artifacts, _with_dropout(tmp_path))
    with pytest.raises(Cancelled):
        train(request, Context(settings, stop_at=11))
    slots = sorted(
        (settings.home_folder / "store/trainer/checkpoints/run/train").iterdir(),
        key=lambda slot: json.loads((slot / "manifest.json").read_text())["progress"]["step"],
    )
    assert len(slots) == 2
    damaged = slots[1] / name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    context = Context(settings)
    assert train(request, context).weights_sha256 == whole.weights_sha256
    assert context.resumed_from == 10


def test_other_content_starts_anew(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """A checkpoint of other data or hyper-parameters under the same request id is not gone on from."""
    model = tiny_encoder(tmp_path / "model")
    with pytest.raises(Cancelled):
        train(_request(artifacts, model), Context(settings, stop_at=3))
    context = Context(settings)
    train(_request(artifacts, model, HyperParameters(learning_rate=1e-3, epochs=1, batch_tokens=512)), context)
    assert context.resumed_from == 0


def test_a_full_disk_loses_nothing(
    settings: Settings, artifacts: Artifacts, tmp_path: Path, whole: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a checkpoint finds no space it is DISK_FULL, and with space again the run goes on from the one before."""
    request = _request(artifacts, _with_dropout(tmp_path))
    with pytest.raises(Cancelled):
        train(request, Context(settings, stop_at=3))
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if "checkpoints" in str(target):
            raise OSError(28, "No space left on device")
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("services.kit.files.shutil.copyfile", full)
        with pytest.raises(DiskFull):
            train(request, Context(settings))
    context = Context(settings)
    assert train(request, context).weights_sha256 == whole.weights_sha256
    assert context.resumed_from == 4


# -- what is refused


def _refused(settings: Settings, request: TrainRequest) -> P2MError:
    with pytest.raises(FailedPrecondition) as caught:
        train(request, Context(settings))
    return caught.value


def test_divergence_is_named(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """A loss that is no number ends the run as DIVERGED with a smaller learning rate to try."""
    asked = HyperParameters(learning_rate=1e30, epochs=2, batch_tokens=512)
    error = _refused(settings, _request(artifacts, tiny_encoder(tmp_path / "m"), asked))
    assert error.reason == "DIVERGED" and "3e+29" in error.message


def test_no_rows(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """An empty training split is refused before the model is loaded."""
    assert _refused(settings, _request(artifacts, tmp_path, rows=[])).reason == "NO_ROWS"


def test_only_safetensors(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """A folder whose weights are a pickle is refused; the pickle is not opened."""
    folder = tiny_t5(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert _refused(settings, _request(artifacts, folder)).reason == "NO_SAFETENSORS"


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "UNSUPPORTED_ARCHITECTURE"),
        ({"model_type": "nothing-known", "architectures": ["Nothing"]}, "BAD_MODEL"),
        ({"d_model": 48}, "BAD_MODEL"),
        ({"num_layers": 2, "num_decoder_layers": 2}, "BAD_MODEL"),
    ],
    ids=["an image model", "an unknown kind", "other shapes", "missing weights"],
)
def test_unusable_models(
    settings: Settings, artifacts: Artifacts, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    """A model that writes no text, is unknown, or lacks some of its weights is refused, not trained at random."""
    folder = tiny_t5(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    assert _refused(settings, _request(artifacts, folder)).reason == reason


def test_a_models_own_code_is_not_run(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """A folder that asks for code of its own (auto_map) is refused and the code does not run."""
    folder = tiny_t5(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForSeq2SeqLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    assert _refused(settings, _request(artifacts, folder)).reason == "BAD_MODEL"
    assert not (tmp_path / "ran").exists()


# -- export


def test_export_halves_the_size(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """bf16 has half the bytes of the weights and still answers; 32 bits are the very same folder."""
    result = train(_request(artifacts, tiny_encoder(tmp_path / "m")), Context(settings))
    folders = {
        format: artifacts.fetch(
            export(ExportRequest("run/export", result.model, format), Context(settings)).model, tmp_path / format.name
        )
        for format in (ExportFormat.SAFETENSORS, ExportFormat.SAFETENSORS_BF16)
    }
    same, half = (load_file(folder / "model.safetensors") for folder in folders.values())
    assert {tensor.dtype for tensor in half.values()} == {torch.bfloat16}
    trained = load_file(artifacts.fetch(result.model, tmp_path / "trained") / "model.safetensors")
    assert all(torch.equal(same[name], trained[name]) for name in trained) and same.keys() == trained.keys()
    assert len(_answers(folders[ExportFormat.SAFETENSORS_BF16], ["word1 word2 word3"])) == 1


def test_export_of_no_model(settings: Settings, artifacts: Artifacts, tmp_path: Path) -> None:
    """What holds no safetensors is refused with the reason."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("a")
    with pytest.raises(FailedPrecondition) as caught:
        export(
            ExportRequest("run/export", artifacts.put_folder(tmp_path / "text"), ExportFormat.SAFETENSORS),
            Context(settings),
        )
    assert caught.value.reason == "NO_SAFETENSORS"
