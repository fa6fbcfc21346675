"""The training loop: plain steps over length-bucketed batches, which can stop after any one and go on from there.

    fit(student, tokens, validation, ...) ── Progress      the loop; leaves the student with its best weights
    step(module, ...)                                      one step of the optimizer: a batch, in passes that fit
    learning_rate(done, ...)                               warm-up, then down to nothing at the end of steps or time
    validate(student, tokens, ...)                         loss and exact match

AdamW (Loshchilov and Hutter, 2019). Every step has a random state of its own, a function of the seed and the step: with
the same number of threads a CPU gives the same weights, stopped on the way or not.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from services.kit.errors import FailedPrecondition
from services.kit.values import Metric
from services.kit.values import Progress as Report
from services.kit.worker import WorkerContext
from services.trainer import losses
from services.trainer.batches import ANY_TOKENS, Batch, Plan, batches, passes
from services.trainer.calls import HistoryPoint, HyperParameters
from services.trainer.checkpoint import Keeper, Progress, load_weights
from services.trainer.losses import OutputLoss
from services.trainer.parallel import Team
from services.trainer.pretrained import Student
from services.trainer.replacement import Replaced, mentions_of
from services.trainer.tokens import Tokens

BATCH_TOKENS, EPOCHS, LEARNING_RATE, PATIENCE = 4096, 3.0, 5e-5, 3
WARM_UP_SHARE = 0.06
WEIGHT_DECAY = 0.01
GRADIENT_NORM = 1.0
CHECKPOINTS_A_RUN, LEAST_CHECKPOINT_STEPS = 10, 20
# Validation looks at so many rows or, where that is more, at 3 % of the rows trained on by all of its rounds together.
VALIDATION_ROWS, VALIDATION_SHARE = 256, 0.03
VALIDATION_TOKENS = 8192
# Where the time is limited: a round takes about this share of it, or less; after it, so many times its seconds are
# trained before the next. A row is thought to take a third of what it takes in training.
ROUND_SHARE, TRAINED_A_ROUND, LEAST_ROUND_ROWS = 0.05, 4.0, 32
# Half of what a pass costs or less: up to a tenth slower where a batch has few rows, and padding stays under 5 %.
CPU_PASS_TOKENS = 50
# An estimate: what a GPU could compute in the time that it takes to begin a pass.
GPU_PASS_TOKENS = 2048
REPORT_INTERVAL_S = 1.0


def fit(
    student: Student,
    tokens: Tokens,
    validation: Tokens,
    asked: HyperParameters,
    seed: int,
    context: WorkerContext,
    checkpoints: Keeper,
    folder: Path,
    team: Team,
) -> Progress:
    """Trains `student`; the first of the team then has its best weights, on the CPU.

    The best are those of the highest exact match in validation and, among equals, of the least loss; without
    validation rows the last. It stops when neither has got better for `patience` rounds.
    """
    model = student.model.to(team.device)
    optimizer = adamw(model, asked.learning_rate or LEARNING_RATE)
    plan = plan_of(tokens, asked, seed)
    mentions = mentions_of(student, tokens, asked)
    watched = sample(len(validation), plan, len(tokens), seed)
    interval = asked.checkpoint_steps or max(LEAST_CHECKPOINT_STEPS, math.ceil(plan.steps / CHECKPOINTS_A_RUN))
    limit = asked.max_seconds or math.inf
    patience = PATIENCE if asked.patience is None else asked.patience
    best = folder / "best.safetensors"
    progress = checkpoints.restore(model, optimizer, best)
    module = team.join(OutputLoss(student, asked.label_smoothing or 0.0))
    report = _Reporter(context, plan.steps, progress.step)
    summed: list[tuple[torch.Tensor, int]] = []

    def save() -> None:
        if team.rank == 0:
            checkpoints.save(progress, model, optimizer, best)

    started, rests_until = time.perf_counter() - progress.seconds, 0.0
    for batch in plan.from_step(progress.step):
        if patience and progress.stale >= patience:
            break
        set_learning_rate(optimizer, max(progress.step / plan.steps, progress.seconds / limit), plan.steps)
        torch.manual_seed(_seed(seed, progress.step, team.rank))
        rows_now = mentions.at(progress.step, tokens, seed)
        summed.append(step(module, rows_now, batch, optimizer, asked.micro_batch_tokens, team))
        progress.step += 1
        progress.seconds, stopping = _agree(team, time.perf_counter() - started, context.stopping)
        ends = progress.step == plan.steps or progress.seconds >= limit
        due = progress.seconds >= max(rests_until, _next_round(progress, limit))
        stocktaking = ends or progress.step % interval == 0 or due
        if stocktaking or stopping or report.due(progress):
            _add_up(progress, summed, team, optimizer)
        if stocktaking:
            if not progress.watched:
                progress.watched = min(len(watched), _affordable(progress, limit, asked, validation))
            rows = watched[: progress.watched]
            _take_stock(progress, student, validation, rows, progress.step / plan.epoch_steps, team)
            began = progress.seconds
            progress.seconds, _ = _agree(team, time.perf_counter() - started, False)
            rests_until = progress.seconds + TRAINED_A_ROUND * (progress.seconds - began)
        if stocktaking or stopping:
            save()
            if stopping:
                context.stop()
                context.raise_if_stopping()
        report(progress)
        if ends:
            break
    if team.rank == 0:
        load_weights(model, best)
        student.model = model.cpu()
    return progress


def plan_of(tokens: Tokens, asked: HyperParameters, seed: int) -> Plan:
    """The steps that were asked for."""
    epochs = EPOCHS if asked.epochs is None else asked.epochs
    return Plan(tokens.lengths, asked.batch_tokens or BATCH_TOKENS, seed, epochs)


def step(
    module: torch.nn.Module,
    tokens: Tokens | Replaced,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    micro_batch_tokens: int | None,
    team: Team,
) -> tuple[torch.Tensor, int]:
    """One step of the optimizer. The sum of the losses of this process's rows, and how many output tokens they have."""
    own = team.share(batch)
    rows = in_passes(own, tokens, micro_batch_tokens, team.device) or [[]]
    wanted = int(tokens.lengths[batch, 1].sum())
    total = torch.zeros((), device=team.device)
    for place, part in enumerate(rows):
        with team.apart(module, len(rows) - 1 - place):
            # A process without rows still has to take part in the exchange of gradients.
            loss = module([tokens[row] for row in part or batch[:1]]) * (1.0 if part else 0.0)
            (loss * (team.size / wanted)).backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(module.parameters(), GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, int(tokens.lengths[own, 1].sum())


def in_passes(rows: Batch, tokens: Tokens | Replaced, micro_batch_tokens: int | None, on: torch.device) -> list[Batch]:
    """The rows in the parts in which they go through the model.

    What a pass costs beside its tokens is, on a CPU, clearing and adding up the gradients of large embeddings: measured
    with two of 30,522 by 384. A GPU waits for small passes rather than for padding.
    """
    cost = GPU_PASS_TOKENS if on.type == "cuda" else CPU_PASS_TOKENS
    return passes(rows, tokens.lengths, micro_batch_tokens or ANY_TOKENS, cost)


def adamw(model: torch.nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW over what is trained; matrices decay, biases and norms do not."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [weight for weight in trained if weight.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def learning_rate(done: float, steps: int) -> float:
    """The factor of the learning rate when so much is done, 0 to 1: a linear warm-up, then linearly down to nothing."""
    if done < WARM_UP_SHARE:
        return min(1.0, (done + 1 / steps) / WARM_UP_SHARE)
    return max(0.0, 1 - done) / (1 - WARM_UP_SHARE)


def set_learning_rate(optimizer: torch.optim.Optimizer, done: float, steps: int) -> None:
    """Sets it for the step that begins when so much is done, of the steps or of the time."""
    for group in optimizer.param_groups:
        group["lr"] = optimizer.defaults["lr"] * learning_rate(done, steps)


def prepare_torch(threads: int) -> None:
    """So many CPU threads, the same result every time where torch can, and the fastest ways to it.

    0 threads: as many as torch takes by itself, one a physical core, where the process may use them all.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
    torch.backends.cuda.matmul.allow_tf32 = True
    if torch.cuda.is_available():
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it has not written: filling it first took 4 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    # Has oneDNN multiply matrices: twice as fast as the usual library on an AMD processor. It may round factors
    # to bfloat16 where there are AMX units, and does not elsewhere; sums and everything else stay in 32 bits.
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    # On a CPU the backward pass of flash attention takes several times that of the plain one.
    torch.backends.cuda.enable_flash_sdp(False)


def sample(rows: int, plan: Plan, trained_rows: int, seed: int) -> list[int]:
    """The validation rows that are looked at, in no order: a few hundred, or as many as take little of the training's
    time. Where that is short, only the first of them are."""
    trained = trained_rows * plan.steps / max(1, plan.epoch_steps)
    most = max(VALIDATION_ROWS, round(VALIDATION_SHARE * trained))
    return random.Random(seed).sample(range(rows), min(rows, most))


def _affordable(progress: Progress, limit: float, asked: HyperParameters, validation: Tokens) -> int:
    """How many rows a round can look at in its share of the time, by how long the steps took so far."""
    if limit == math.inf or not len(validation):
        return len(validation)
    seconds_a_token = progress.seconds / (progress.step * (asked.batch_tokens or BATCH_TOKENS)) / 3
    a_row = seconds_a_token * float(validation.lengths.sum(axis=1).mean())
    return max(LEAST_ROUND_ROWS, int(ROUND_SHARE * limit / a_row))


def validate(student: Student, tokens: Tokens, rows: Sequence[int], team: Team) -> tuple[float, float] | None:
    """The mean loss per output token and the exact match in percent; None without rows."""
    if not rows:
        return None
    student.model.eval()
    lengths = tokens.lengths[list(rows)]
    packed = batches(lengths, VALIDATION_TOKENS, 0, 0)
    own = team.share(range(len(packed)))
    scores = [losses.score(student, [tokens[rows[row]] for row in packed[place]]) for place in own]
    student.model.train()
    loss, written, right = team.sums(
        sum(one.loss for one in scores), sum(one.tokens for one in scores), sum(one.right for one in scores)
    )
    return loss / written, 100 * right / len(rows)


def _take_stock(
    progress: Progress, student: Student, validation: Tokens, rows: Sequence[int], epoch: float, team: Team
) -> None:
    """Validates, adds a point to the history, and notes whether these weights are the best so far."""
    found = validate(student, validation, rows, team)
    loss, exact = found or (None, None)
    trained = progress.loss_sum / max(1, progress.loss_tokens)
    progress.history.append(HistoryPoint(progress.step, epoch, trained, loss, exact))
    progress.loss_sum, progress.loss_tokens = 0.0, 0
    before = [point for point in progress.history[:-1] if point.validation_loss is not None]
    if loss is None or exact is None:
        progress.best_step, progress.stale = progress.step, 0
        return
    least = min((point.validation_loss or 0.0 for point in before), default=math.inf)
    most = max((point.validation_exact_match or 0.0 for point in before), default=-1.0)
    progress.stale = 0 if loss < least or exact > most else progress.stale + 1
    if progress.best_loss is None or (exact, -loss) > (progress.best_exact_match, -progress.best_loss):
        progress.best_step, progress.best_loss, progress.best_exact_match = progress.step, loss, exact
        progress.stale = 0


def _next_round(progress: Progress, limit: float) -> float:
    """Seconds after which it is time to take stock, where the time is limited."""
    return limit * (len(progress.history) + 1) / CHECKPOINTS_A_RUN


def _add_up(
    progress: Progress, summed: list[tuple[torch.Tensor, int]], team: Team, optimizer: torch.optim.Optimizer
) -> None:
    """Adds what was summed up since; only now does a GPU have to be waited for."""
    [tokens, *sums] = team.sums(sum(tokens for _, tokens in summed), *(loss.item() for loss, _ in summed))
    summed.clear()
    for loss in sums:  # one by one, so that the sum is the same whenever this is called
        progress.loss_sum += loss
    progress.loss_tokens += round(tokens)
    if not math.isfinite(progress.loss_sum):
        raise _diverged(progress.step, optimizer.defaults["lr"])


def _agree(team: Team, seconds: float, stopping: bool) -> tuple[float, bool]:
    """The first process's seconds, and whether any was told to stop: all must take the same way."""
    if team.size == 1:
        return seconds, stopping
    of_first, told = team.sums(seconds if team.rank == 0 else 0.0, stopping)
    return of_first, told > 0


def _seed(seed: int, step: int, rank: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:8]) >> 1


def _diverged(step: int, learning_rate: float) -> FailedPrecondition:
    return FailedPrecondition(
        "DIVERGED",
        f"The loss was not a number after {step} steps at the learning rate {learning_rate:g}. "
        f"Take a smaller one, for example {learning_rate / 3:.1g}.",
    )


class _Reporter:
    """Reports progress about once a second."""

    def __init__(self, context: WorkerContext, steps: int, resumed_from: int) -> None:
        self._context, self._steps, self._resumed_from = context, steps, resumed_from
        self._last = 0.0

    def due(self, progress: Progress) -> bool:
        return time.monotonic() - self._last >= REPORT_INTERVAL_S or progress.step == self._steps

    def __call__(self, progress: Progress) -> None:
        if not self.due(progress):
            return
        self._last = time.monotonic()
        last = progress.history[-1] if progress.history else HistoryPoint()
        measured = {"resumed_from_step": float(self._resumed_from)}
        if progress.loss_tokens:
            measured["train_loss"] = progress.loss_sum / progress.loss_tokens
        elif progress.history:
            measured["train_loss"] = last.train_loss
        if last.validation_loss is not None:
            measured["validation_loss"] = last.validation_loss
        if last.validation_exact_match is not None:
            measured["validation_exact_match"] = last.validation_exact_match
        shown = ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in measured.items() if name.endswith("loss")
        )
        if last.validation_exact_match is not None:
            shown += f", exact match {last.validation_exact_match:.0f} %"
        self._context.report(
            Report(
                progress.step, self._steps, "steps", f"step {progress.step} of {self._steps}: {shown}",
                tuple(Metric(name, value) for name, value in measured.items()),
            )
        )  # fmt: skip
