"""Fine-tuning: the stage from request to result.

    train(request, context) ── TrainResult     in one process, or in one per GPU
    train_as(team, request, context)           one process's part: loads, fits, stores the model and its untuned base
    opened(request, ...)                       the model and the rows as tokens, as `search` wants them too

What is learned and when is `loop`, from what `losses`, in which order `batches`. Losses are means per output token: the
model is asked for the output and its end, never for the input. On a CPU the same request gives the same weights,
stopped on the way or not, with the same number of threads.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from services.kit import encoding
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from services.kit.locations import resolve
from services.kit.settings import Settings
from services.kit.values import Artifact, Row
from services.kit.values import Progress as Report
from services.kit.wire import to_json
from services.kit.worker import WorkerContext
from services.trainer import adapters, labels, parallel, pretrained
from services.trainer.batches import padding_share
from services.trainer.calls import HyperParameters, SearchRequest, TrainRequest, TrainResult
from services.trainer.checkpoint import Checkpoints, Progress
from services.trainer.loop import fit, in_passes, plan_of, prepare_torch
from services.trainer.parallel import Team
from services.trainer.pretrained import Student
from services.trainer.replacement import mentions_of
from services.trainer.tokens import Tokens, tokenise

# A checkpoint of another loop is not gone on from: the steps after it would be others.
_LOOP = 3
# So many outputs are read back to see what the tokenizer does to them, so many batches looked at for their padding.
_OUTPUTS_READ_BACK, _BATCHES_MEASURED = 10_000, 10_000


@dataclass(frozen=True)
class Opened:
    """A model, and the rows as the tokens that it reads and writes."""

    student: Student
    train: Tokens
    validation: Tokens
    notes: tuple[str, ...]


def train(request: TrainRequest, context: WorkerContext) -> TrainResult:
    """Fine-tunes `request.model`. A checkpoint of the same request, if there is one, is gone on from.

    Raises InvalidArgument (NO_SUCH_SOURCE), FailedPrecondition (NO_ROWS, NO_SAFETENSORS, UNSUPPORTED_ARCHITECTURE,
    BAD_MODEL, NO_LABEL_HEAD, NO_CUDA, DIVERGED), DiskFull, ResourceExhausted (OUT_OF_MEMORY), and, after a checkpoint,
    Cancelled.
    """
    count = parallel.processes(context.settings)
    if count > 1:
        return parallel.launch(request, context, count)
    return train_as(Team(), request, context)


def train_as(team: Team, request: TrainRequest, context: WorkerContext) -> TrainResult:
    """One process's part in the training. Only the first of the team stores anything; the others' result is empty."""
    settings, asked = context.settings, request.hyper_parameters
    prepare_torch(settings.threads)
    if asked.qlora:
        adapters.check_qlora()
    artifacts = Artifacts.open(settings, "trainer")
    rows, validation = rows_of(artifacts, request)
    context.report(Report(message="loading the model", unit="steps"))
    with tempfile.TemporaryDirectory(prefix="p2m-train-") as name:
        folder = Path(name)
        found = opened(request, rows, validation, settings, folder)
        student, tokens, held_out = found.student, found.train, found.validation
        base, _ = _store(artifacts, student, folder) if team.rank == 0 else (Artifact(), "")
        parameters = sum(weight.numel() for weight in student.model.parameters())
        whole = replace(student)
        if asked.qlora:
            student.model = adapters.with_qlora(student, folder)
        elif asked.lora:
            student.model = adapters.with_lora(student)
        checkpoints = Checkpoints(artifacts, request.request_id, content_of(request), folder)
        try:
            progress = fit(student, tokens, held_out, asked, request.seed, context, checkpoints, folder, team)
        except torch.OutOfMemoryError as error:
            raise ResourceExhausted(
                "OUT_OF_MEMORY",
                "The device ran out of memory. Take fewer micro_batch_tokens, lora, or a smaller model.",
            ) from error
        if team.rank:
            return TrainResult()
        if asked.qlora:
            student.model = adapters.merged_into(student.model, whole)
        elif asked.lora:
            student.model = adapters.merged(student.model)
        model, digest = _store(artifacts, student, folder)
        notes = (
            *found.notes,
            *_notes_on_text(student, tokens, rows),
            *_notes_on_training(student, tokens, held_out, request, progress),
        )
    return TrainResult(
        model, base, tuple(progress.history), progress.best_step, parameters, progress.seconds, notes, digest,
        student.labels,
    )  # fmt: skip


def opened(request: TrainRequest, rows: list[Row], validation: list[Row], settings: Settings, folder: Path) -> Opened:
    """Loads `request.model` and writes the rows' tokens to `folder`. Raises what `train` raises of a model."""
    asked = request.hyper_parameters
    choice = labels.choose(asked.head, request.spec, rows, validation)
    student = pretrained.load(
        resolve(request.model, settings), request.seed, asked.max_input_tokens, asked.max_output_tokens, choice.shares
    )
    validation, notes = labels.fitting(choice, asked.head, student.labels, validation)
    tokens = tokenise(student, request.spec, rows, folder / "train.tokens")
    held_out = tokenise(student, request.spec, validation, folder / "validation.tokens")
    note_on_length = pretrained.limit_answers(student, int(tokens.lengths[:, 1].max()))
    return Opened(student, tokens, held_out, (*notes, *([note_on_length] if note_on_length else [])))


def rows_of(artifacts: Artifacts, request: TrainRequest | SearchRequest) -> tuple[list[Row], list[Row]]:
    """The rows to train on and those to validate with, the latter [] where there is no such split."""
    rows = artifacts.read_rows(request.train)
    if isinstance(request, TrainRequest) and request.leave_out:
        absent = {*request.leave_out} - {row.source for row in rows}
        if absent:
            raise InvalidArgument(
                "NO_SUCH_SOURCE",
                f"The training split has no rows of {sorted(absent)[0][:80]!r} to leave out; its sources are "
                f"{', '.join(sorted({row.source for row in rows}))[:300]}.",
                field="leave_out",
            )
        rows = [row for row in rows if row.source not in request.leave_out]
    if not rows:
        raise FailedPrecondition("NO_ROWS", "The training split has no rows; wanted at least one.")
    return rows, artifacts.read_rows(request.validation) if request.validation.uri else []


def content_of(request: TrainRequest | SearchRequest) -> str:
    """A digest of what is trained or tried, and how."""
    what = to_json(replace(request, request_id="")) + torch.__version__ + str(_LOOP)
    return hashlib.sha256(what.encode()).hexdigest()


def _store(artifacts: Artifacts, student: Student, folder: Path) -> tuple[Artifact, str]:
    """Stores the model; its folder and the digest of its weights."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        pretrained.save(student, Path(name))
        with (Path(name) / "model.safetensors").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return artifacts.put_folder(Path(name)), digest


def _notes_on_text(student: Student, tokens: Tokens, rows: Sequence[Row]) -> list[str]:
    """What the tokenizer and the limits do to the rows."""
    notes = []
    if tokens.inputs_cut:
        notes.append(
            f"{tokens.inputs_cut:,} of {len(rows):,} inputs were longer than {student.max_input_tokens} tokens with "
            "the instruction; the instruction was cut first, from its end."
        )
    if student.labels:
        return notes
    if tokens.outputs_cut:
        notes.append(
            f"{tokens.outputs_cut:,} of {len(rows):,} outputs were longer than {student.max_output_tokens} tokens and "
            "were cut."
        )
    outputs = [row.output for row in rows[:_OUTPUTS_READ_BACK]]
    changed = [
        (output, back)
        for output, back in zip(outputs, encoding.read_back(student.tokenizer, outputs), strict=True)
        if output.strip() != back
    ]
    if changed:
        output, back = changed[0]
        notes.append(
            f"{100 * len(changed) / len(outputs):.1f} % of the outputs do not survive the model's tokenizer, for "
            f"example {output[:60]!r} comes back as {back[:60]!r}: they cannot be matched exactly."
        )
    return notes


def _notes_on_training(
    student: Student, tokens: Tokens, validation: Tokens, request: TrainRequest, progress: Progress
) -> list[str]:
    asked = request.hyper_parameters
    plan = plan_of(tokens, asked, request.seed)
    computed = [
        part
        for batch in islice(plan.from_step(0), _BATCHES_MEASURED)
        for part in in_passes(batch, tokens, asked.micro_batch_tokens, parallel.device())
    ]
    padding = padding_share(tokens.lengths, computed)
    notes = [f"{100 * padding:.1f} % of the tokens in the batches were padding."]
    if note := mentions_of(student, tokens, asked).note:
        notes.append(note)
    if progress.step < plan.steps:
        notes.append(
            f"Training ended after {progress.step / plan.epoch_steps:.1f} epochs, since {_cause(asked, progress)}."
        )
    if not len(validation):
        notes.append("There was no validation split: the last weights were kept.")
    elif progress.watched < len(validation):
        notes.append(f"The best weights were found with {progress.watched:,} of {len(validation):,} validation rows.")
    return notes


def _cause(asked: HyperParameters, progress: Progress) -> str:
    over = asked.max_seconds and progress.seconds >= asked.max_seconds
    return "the time was up" if over else "it no longer improved"
