"""Fine-tuning: one plain loop over length-bucketed batches, which can stop after any step and go on from there.

    train(request, context) ── TrainResult     loads, fits, stores the model and its untuned base
    fit(student, ...)                          the loop

AdamW (Loshchilov and Hutter, 2019) with linear warm-up and decay. Losses are means per output token: the model is asked
for the output and its end, never for the input. On a CPU the same request gives the same weights, stopped on the way or
not, with the same number of threads.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from services.kit import encoding
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, ResourceExhausted
from services.kit.locations import resolve
from services.kit.values import Artifact, Metric, PromptSpec, Row
from services.kit.values import Progress as Report
from services.kit.wire import to_json
from services.kit.worker import WorkerContext
from services.trainer import adapters, classify, labels, pretrained
from services.trainer.batches import batches, padding_share
from services.trainer.calls import HistoryPoint, HyperParameters, TrainRequest, TrainResult
from services.trainer.checkpoint import Checkpoints, Progress, load_weights
from services.trainer.pretrained import Student

WARM_UP_SHARE = 0.06
WEIGHT_DECAY = 0.01
GRADIENT_NORM = 1.0
CHECKPOINTS_A_RUN, LEAST_CHECKPOINT_STEPS = 10, 20
REPORT_INTERVAL_S = 1.0
_IGNORED = -100

Tokens = Sequence[tuple[list[int], list[int]]]


def train(request: TrainRequest, context: WorkerContext) -> TrainResult:
    """Fine-tunes `request.model`. A checkpoint of the same request, if there is one, is gone on from.

    Raises FailedPrecondition (NO_ROWS, NO_SAFETENSORS, UNSUPPORTED_ARCHITECTURE, BAD_MODEL, DIVERGED), DiskFull,
    ResourceExhausted (OUT_OF_MEMORY), and, after a checkpoint, Cancelled.
    """
    settings, asked = context.settings, request.hyper_parameters
    prepare_torch(settings.threads)
    artifacts = Artifacts.open(settings, "trainer")
    rows, validation = _rows(artifacts, request)
    context.report(Report(message="loading the model", unit="steps"))
    choice = labels.choose(asked.head, request.spec, rows, validation)
    student = pretrained.load(
        resolve(request.model, settings), request.seed, asked.max_input_tokens, asked.max_output_tokens, choice.shares
    )
    validation, notes_on_head = labels.fitting(choice, asked.head, student.labels, validation)
    with tempfile.TemporaryDirectory(prefix="p2m-train-") as name:
        folder = Path(name)
        base, _ = _store(artifacts, student, folder)
        parameters = sum(weight.numel() for weight in student.model.parameters())
        if asked.lora:
            student.model = adapters.with_lora(student)
        data = _encode(student, request.spec, rows)
        content = hashlib.sha256(to_json(replace(request, request_id="")).encode() + torch.__version__.encode())
        checkpoints = Checkpoints(artifacts, request.request_id, content.hexdigest(), folder)
        try:
            progress = fit(
                student,
                data,
                _encode(student, request.spec, validation),
                asked,
                request.seed,
                context,
                checkpoints,
                folder,
            )
        except torch.OutOfMemoryError as error:
            raise ResourceExhausted(
                "OUT_OF_MEMORY", "The device ran out of memory. Take fewer batch_tokens, lora, or a smaller model."
            ) from error
        if asked.lora:
            student.model = adapters.merged(student.model)
        model, digest = _store(artifacts, student, folder)
    notes = (
        *notes_on_head,
        *_notes_on_text(student, request.spec, rows),
        *_notes_on_training(data, asked, progress, validation),
    )
    return TrainResult(
        model,
        base,
        tuple(progress.history),
        progress.best_step,
        parameters,
        progress.seconds,
        notes,
        digest,
        student.labels,
    )


def fit(
    student: Student,
    data: Tokens,
    validation: Tokens,
    asked: HyperParameters,
    seed: int,
    context: WorkerContext,
    checkpoints: Checkpoints,
    folder: Path,
) -> Progress:
    """Trains `student` and leaves it with its best weights: those of the least validation loss, or the last."""
    model = student.model.to(device())
    optimizer = adamw(model, asked.learning_rate or 5e-5)
    plan, epoch_steps = schedule(data, asked, seed)
    interval = asked.checkpoint_steps or max(LEAST_CHECKPOINT_STEPS, math.ceil(len(plan) / CHECKPOINTS_A_RUN))
    patience = 3 if asked.patience is None else asked.patience
    best = folder / "best.safetensors"
    torch.manual_seed(seed)
    progress = checkpoints.restore(model, optimizer, best)
    report = _Reporter(context, len(plan), progress.step)
    while progress.step < len(plan) and not (patience and progress.stale >= patience):
        started = time.perf_counter()
        set_learning_rate(optimizer, progress.step, len(plan))
        loss, tokens = step(student, [data[row] for row in plan[progress.step]], optimizer)
        if not math.isfinite(loss):
            raise _diverged(progress.step, optimizer.defaults["lr"])
        progress.step += 1
        progress.loss_sum += loss
        progress.loss_tokens += tokens
        ends = progress.step == len(plan) or progress.seconds >= (asked.max_seconds or math.inf)
        if ends or progress.step % interval == 0:
            _take_stock(progress, student, validation, progress.step / epoch_steps)
            progress.seconds += time.perf_counter() - started
            checkpoints.save(progress, model, optimizer, best)
            context.raise_if_stopping()
        else:
            progress.seconds += time.perf_counter() - started
            if context.stopping:
                checkpoints.save(progress, model, optimizer, best)
                context.raise_if_stopping()
        report(progress)
        if ends:
            break
    load_weights(model, best)
    student.model = model.cpu()
    return progress


def step(student: Student, rows: Tokens, optimizer: torch.optim.Optimizer) -> tuple[float, int]:
    """One optimizer step; the sum of the losses of the output tokens, and how many they are."""
    total, tokens = loss_of(student, rows)
    (total / tokens).backward()
    torch.nn.utils.clip_grad_norm_(student.model.parameters(), GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total.item(), tokens


def adamw(model: torch.nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW over what is trained; matrices decay, biases and norms do not."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [weight for weight in trained if weight.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def schedule(data: Tokens, asked: HyperParameters, seed: int) -> tuple[list[list[int]], float]:
    """All batches of the run in their order, and how many an epoch has on average."""
    epochs = 3.0 if asked.epochs is None else asked.epochs
    lengths = [(len(read), len(written)) for read, written in data]
    whole = math.ceil(epochs)
    by_epoch = [batches(lengths, asked.batch_tokens or 4096, seed, epoch) for epoch in range(whole)]
    plan = [batch for epoch in by_epoch for batch in epoch]
    epoch_steps = len(plan) / whole
    return plan[: max(1, round(epoch_steps * epochs))], epoch_steps


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Linear warm-up over the first steps, then linear decay to nothing."""
    warm_up = max(1, round(steps * WARM_UP_SHARE))
    factor = (step + 1) / warm_up if step < warm_up else (steps - step) / max(1, steps - warm_up)
    for group in optimizer.param_groups:
        group["lr"] = optimizer.defaults["lr"] * factor


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_torch(threads: int) -> None:
    """So many CPU threads (0: one per core), and the same result every time where torch can."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    torch.use_deterministic_algorithms(device().type == "cpu", warn_only=True)


def loss_of(student: Student, rows: Tokens) -> tuple[torch.Tensor, int]:
    """The sum of the cross entropies of the rows' output tokens, and how many they are."""
    model, on = student.model, next(student.model.parameters()).device
    with torch.autocast("cuda", torch.bfloat16, enabled=on.type == "cuda" and torch.cuda.is_bf16_supported()):
        if student.labels:
            ids, mask = _padded([read for read, _ in rows], student.pad, on)
            targets = torch.tensor([number for _, [number] in rows], device=on)
            return classify.loss_of(model, ids, mask, targets), len(rows)
        if student.decoder_only:
            ids, mask = _padded([read + written for read, written in rows], student.pad, on)
            targets, _ = _padded([[_IGNORED] * len(read) + written for read, written in rows], _IGNORED, on)
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            targets = targets[:, 1:]
        else:
            ids, mask = _padded([read for read, _ in rows], student.pad, on)
            targets, _ = _padded([written for _, written in rows], _IGNORED, on)
            before, _ = _padded([[student.start, *written[:-1]] for _, written in rows], student.pad, on)
            logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=before).logits
    total = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="sum")
    return total, sum(len(written) for _, written in rows)


def _padded(rows: Sequence[Sequence[Any]], value: int, on: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tensors [rows, longest]: the tokens, filled up at the right with `value`; 1 where a token is, 0 where filled."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids.to(on), mask.to(on)


@torch.no_grad()  # type: ignore[untyped-decorator]
def validation_loss(student: Student, data: Tokens) -> float | None:
    """The mean loss per output token; None without rows."""
    if not data:
        return None
    student.model.eval()
    lengths = [(len(read), len(written)) for read, written in data]
    sums = [loss_of(student, [data[row] for row in batch]) for batch in batches(lengths, 8192, 0, 0)]
    student.model.train()
    return float(sum(total.item() for total, _ in sums) / sum(tokens for _, tokens in sums))


def _take_stock(progress: Progress, student: Student, validation: Tokens, epoch: float) -> None:
    """Validates, adds a point to the history, and notes whether these weights are the best so far."""
    loss = validation_loss(student, validation)
    progress.history.append(HistoryPoint(progress.step, epoch, progress.loss_sum / max(1, progress.loss_tokens), loss))
    progress.loss_sum, progress.loss_tokens = 0.0, 0
    if loss is not None and progress.best_loss is not None and loss >= progress.best_loss:
        progress.stale += 1
        return
    progress.best_step, progress.best_loss, progress.stale = progress.step, loss, 0


class _Reporter:
    """Reports progress about once a second."""

    def __init__(self, context: WorkerContext, steps: int, resumed_from: int) -> None:
        self._context, self._steps, self._resumed_from = context, steps, resumed_from
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < REPORT_INTERVAL_S and progress.step < self._steps:
            return
        self._last = now
        measured = {"resumed_from_step": float(self._resumed_from)}
        if progress.loss_tokens:
            measured["train_loss"] = progress.loss_sum / progress.loss_tokens
        elif progress.history:
            measured["train_loss"] = progress.history[-1].train_loss
        if progress.history and progress.history[-1].validation_loss is not None:
            measured["validation_loss"] = progress.history[-1].validation_loss
        losses = ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in measured.items() if name.endswith("loss")
        )
        self._context.report(
            Report(
                progress.step, self._steps, "steps", f"step {progress.step} of {self._steps}: {losses}",
                tuple(Metric(name, value) for name, value in measured.items()),
            )
        )  # fmt: skip


def _rows(artifacts: Artifacts, request: TrainRequest) -> tuple[list[Row], list[Row]]:
    rows = artifacts.read_rows(request.train)
    if not rows:
        raise FailedPrecondition("NO_ROWS", "The training split has no rows; wanted at least one.")
    return rows, artifacts.read_rows(request.validation) if request.validation.uri else []


def _encode(student: Student, spec: PromptSpec, rows: Sequence[Row]) -> Tokens:
    return student.encode(spec, [row.input for row in rows], [row.output for row in rows])


def _store(artifacts: Artifacts, student: Student, folder: Path) -> tuple[Artifact, str]:
    """Stores the model; its folder and the digest of its weights."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        pretrained.save(student, Path(name))
        with (Path(name) / "model.safetensors").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return artifacts.put_folder(Path(name)), digest


def _notes_on_text(student: Student, spec: PromptSpec, rows: Sequence[Row]) -> list[str]:
    """What the tokenizer and the limits do to the rows."""
    notes = []
    uncut = student.encode_inputs(spec, [row.input for row in rows], 1 << 30)
    cut = sum(len(tokens) > student.max_input_tokens for tokens in uncut)
    if cut:
        notes.append(
            f"{cut:,} of {len(rows):,} inputs were longer than {student.max_input_tokens} tokens with the instruction; "
            "the instruction was cut first, from its end."
        )
    if student.labels:
        return notes
    outputs = [row.output for row in rows]
    written = encoding.encode_outputs(student.tokenizer, outputs, 1 << 30, eos=student.eos)
    cut = sum(len(tokens) > student.max_output_tokens for tokens in written)
    if cut:
        notes.append(
            f"{cut:,} of {len(rows):,} outputs were longer than {student.max_output_tokens} tokens and were cut."
        )
    changed = [
        (output, back)
        for output, back in zip(outputs, encoding.read_back(student.tokenizer, outputs), strict=True)
        if output.strip() != back
    ]
    if changed:
        output, back = changed[0]
        notes.append(
            f"{100 * len(changed) / len(rows):.1f} % of the outputs do not survive the model's tokenizer, for example "
            f"{output[:60]!r} comes back as {back[:60]!r}: they cannot be matched exactly."
        )
    return notes


def _notes_on_training(
    data: Tokens, asked: HyperParameters, progress: Progress, validation: Sequence[Row]
) -> list[str]:
    plan, epoch_steps = schedule(data, asked, 0)
    padding = padding_share([(len(read), len(written)) for read, written in data], plan)
    notes = [f"{100 * padding:.1f} % of the tokens in the batches were padding."]
    if progress.step < len(plan):
        cause = (
            "the time was up"
            if asked.max_seconds and progress.seconds >= asked.max_seconds
            else "it no longer improved"
        )
        notes.append(f"Training ended after {progress.step / epoch_steps:.1f} epochs, since {cause}.")
    if not validation:
        notes.append("There was no validation split: the last weights were kept.")
    return notes


def _diverged(step: int, learning_rate: float) -> FailedPrecondition:
    return FailedPrecondition(
        "DIVERGED",
        f"The loss was not a number after {step} steps at the learning rate {learning_rate:g}. "
        f"Take a smaller one, for example {learning_rate / 3:.1g}.",
    )
