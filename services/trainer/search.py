"""Looking for the model and the hyper-parameters to train with, within a time.

    search(request, context) ── SearchResult
    ├── trials         what may be tried; the finished trials in the store; the best of them
    ├── Optuna         chooses the next trial (TPE, Bergstra et al., 2011) and gives up what is behind (median rule)
    └── _try           one trial: a training from the pretrained weights, on one process, without a checkpoint

The first trials are each model as it is usually trained. A trial is judged by the validation split alone: the test
split plays no part. Each trial's choice is a function of the seed and of the trials before it, so that a search that is
killed goes on with the trials of no kill; it loses the one that was under way, and that one's time.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch

from services.kit.artifacts import Artifacts
from services.kit.errors import Cancelled, DiskFull, FailedPrecondition, InvalidArgument, P2MError
from services.kit.locations import split
from services.kit.values import Progress as Report
from services.kit.values import Row
from services.kit.worker import WorkerContext
from services.trainer import adapters
from services.trainer.calls import (
    HyperParameters,
    SearchCandidate,
    SearchRequest,
    SearchResult,
    TrainRequest,
    Trial,
    TrialState,
)
from services.trainer.checkpoint import Progress, plain, write
from services.trainer.loop import EPOCHS, fit, prepare_torch
from services.trainer.parallel import Team
from services.trainer.train import content_of, opened, rows_of
from services.trainer.trials import Finished, Space, Trials, best, pareto, value

MOST_TRIALS, MOST_CANDIDATES = 100, 20
MOST_SECONDS = 7 * 24 * 3600.0
# A trial is compared with those before it from this tenth of its way on: the learning rate warms up before.
_FIRST_COMPARED = 2
_LEAST_COMPARED_WITH = 3
# A trial has at most this share of the time, its rate falling to nothing within it: a long training tried once, or cut
# off before its end, is compared with nothing.
_SHARE_OF_A_TRIAL = 0.2
# So often a choice that was made before is made anew; then there is nothing left to try.
_REPEATS = 20


def search(request: SearchRequest, context: WorkerContext) -> SearchResult:
    """Tries what the request names until its time is up. Finished trials of the same request are not tried again.

    A model that cannot be loaded is a trial that failed, told in its `error`. Raises InvalidArgument for what cannot be
    meant, FailedPrecondition (NO_ROWS) without rows to train on or to validate with, DiskFull, Cancelled.
    """
    check(request)
    prepare_torch(context.settings.threads)
    artifacts = Artifacts.open(context.settings, "trainer")
    rows, validation = rows_of(artifacts, request)
    if not validation:
        raise FailedPrecondition("NO_ROWS", "The validation split has no rows; a search needs some to compare by.")
    space = Space(request)
    trials = Trials(artifacts, request.request_id, content_of(request))
    study = _study(trials.finished, space, request)
    while len(trials.finished) < MOST_TRIALS and _time_for_another(trials, request.budget_seconds):
        context.raise_if_stopping()
        chosen = _next(study, space, trials.finished, request)
        if chosen is None:
            break
        finished = _Attempt(request, context, space, study, chosen, trials).run(rows, validation)
        trials.add(finished)
        if finished.trial.state == TrialState.OUT_OF_TIME:
            break
    return SearchResult(
        tuple(one.trial for one in trials.finished), best(trials.finished), pareto(trials.finished), trials.seconds,
        tuple(_notes(trials, request)),
    )  # fmt: skip


def check(request: SearchRequest) -> None:
    """InvalidArgument where what is asked for cannot be meant."""
    if not 1 <= request.budget_seconds <= MOST_SECONDS:
        raise InvalidArgument(
            "BAD_BUDGET",
            f"budget_seconds is {request.budget_seconds:g}; wanted 1 to {MOST_SECONDS:,.0f}.",
            field="budget_seconds",
        )
    if not 1 <= len(request.candidates) <= MOST_CANDIDATES:
        raise InvalidArgument(
            "BAD_CANDIDATES",
            f"There are {len(request.candidates)} candidates; wanted 1 to {MOST_CANDIDATES}.",
            field="candidates",
        )
    for number, candidate in enumerate(request.candidates):
        where = f"candidates[{number}]"
        try:
            split(candidate.model)
        except InvalidArgument as error:
            raise InvalidArgument(error.reason, error.message, field=f"{where}.model") from error
        if candidate.model in [other.model for other in request.candidates[:number]]:
            raise InvalidArgument("BAD_CANDIDATES", f"{candidate.model[:120]} is there twice.", field=f"{where}.model")
        if not (math.isfinite(candidate.cpu_latency_ms) and candidate.cpu_latency_ms >= 0):
            raise InvalidArgument(
                "BAD_CANDIDATES",
                f"cpu_latency_ms is {candidate.cpu_latency_ms:g}; wanted at least 0.",
                field=f"{where}.cpu_latency_ms",
            )


class _Attempt:
    """One trial under way. It stands where a training has its checkpoints: it keeps the best weights, and no others."""

    def __init__(
        self, request: SearchRequest, context: WorkerContext, space: Space, study: optuna.Study, chosen: optuna.Trial,
        trials: Trials,
    ) -> None:  # fmt: skip
        self._request, self._study, self._chosen = request, study, chosen
        self._candidate, self._asked = space.asked(chosen.params)
        self._number, self._spent = len(trials.finished), trials.seconds
        self._began = time.monotonic()
        self._context = _Timed(context, self._began + request.budget_seconds - self._spent, self._shown)
        self._rows = 0
        self._progress = Progress()
        self._told = 0

    def run(self, rows: list[Row], validation: list[Row]) -> Finished:
        """Trains; what came of it. Raises Cancelled and DiskFull alone."""
        self._context.report(Report(message="loading the model"))
        state, error, parameters, size = TrialState.COMPLETE, "", 0, 0
        try:
            with tempfile.TemporaryDirectory(prefix="p2m-search-") as name:
                folder = Path(name)
                request = _training(self._request, self._candidate, self._asked)
                found = opened(request, rows, validation, self._context.settings, folder)
                self._rows = len(found.validation)
                if not self._rows:
                    raise FailedPrecondition("NO_ROWS", "None of the validation rows can be answered by its head.")
                weights = [*found.student.model.parameters()]
                parameters, size = sum(w.numel() for w in weights), 4 * sum(w.numel() for w in weights)
                if self._asked.qlora:
                    found.student.model = adapters.with_qlora(found.student, folder)
                elif self._asked.lora:
                    found.student.model = adapters.with_lora(found.student)
                most = min(self._asked.max_seconds or math.inf, _SHARE_OF_A_TRIAL * self._request.budget_seconds)
                fit(
                    found.student, found.train, found.validation, replace(self._asked, max_seconds=most), request.seed,
                    self._context, self, folder, Team(),
                )  # fmt: skip
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except Cancelled:
            self._context.raise_if_told()
            state = TrialState.OUT_OF_TIME
        except DiskFull:
            raise
        except (P2MError, torch.OutOfMemoryError) as failure:
            state = TrialState.FAILED
            error = failure.message if isinstance(failure, P2MError) else "The device ran out of memory."
        finally:
            found = None  # type: ignore[assignment]  # its memory, before the next model is loaded
            gc.collect()
        return self._finished(state, error, parameters, size)

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, best: Path) -> Progress:
        """Every trial begins with the pretrained weights."""
        return Progress()

    def save(self, progress: Progress, model: torch.nn.Module, optimizer: torch.optim.Optimizer, best: Path) -> None:
        """Tells Optuna how far it is and how good. TrialPruned where that is behind."""
        self._progress = progress
        if progress.best_step == progress.step:
            write(plain({name: w for name, w in model.named_parameters() if w.requires_grad}), best)
        if progress.best_loss is None:
            return
        tenth = round(10 * progress.history[-1].epoch / (self._asked.epochs or EPOCHS))
        if tenth == self._told:
            return
        self._told = tenth
        self._chosen.report(value(progress.best_exact_match, progress.best_loss, self._rows), tenth)
        if tenth < 10 and self._chosen.should_prune():
            raise optuna.TrialPruned

    def _finished(self, state: TrialState, error: str, parameters: int, size: int) -> Finished:
        loss, exact = self._progress.best_loss, self._progress.best_exact_match
        worth = None if loss is None else value(exact, loss, self._rows)
        if state == TrialState.COMPLETE and worth is None:
            state, error = TrialState.FAILED, "It was over before anything was measured."
        if state == TrialState.COMPLETE:
            ended = self._study.tell(self._chosen, worth)
        else:
            ended = self._study.tell(self._chosen, state=optuna.trial.TrialState.PRUNED)
        asked = HyperParameters(
            learning_rate=self._asked.learning_rate, epochs=self._asked.epochs, batch_tokens=self._asked.batch_tokens
        )
        return Finished(
            Trial(
                self._number, self._candidate.model, asked, state, None if loss is None else exact, loss,
                time.monotonic() - self._began, parameters, size, self._candidate.cpu_latency_ms, error,
            ),
            dict(ended.params), worth, dict(ended.intermediate_values),
        )  # fmt: skip

    def _shown(self, progress: Report) -> Report:
        spent = self._spent + time.monotonic() - self._began
        what = f"trial {self._number + 1}, {self._candidate.model}: {progress.message}"
        return Report(min(spent, self._request.budget_seconds), self._request.budget_seconds, "seconds", what)


class _Timed(WorkerContext):
    """The worker's context, which also stops when the time is up."""

    def __init__(self, whole: WorkerContext, deadline: float, shown: Callable[[Report], Report]) -> None:
        super().__init__(whole.settings)
        self._whole, self._deadline, self._shown = whole, deadline, shown

    @property
    def stopping(self) -> bool:
        return self._whole.stopping or time.monotonic() >= self._deadline

    def report(self, progress: Report) -> None:
        self._whole.report(self._shown(progress))

    def raise_if_told(self) -> None:
        """Cancelled where not the time was up but somebody said so."""
        self._whole.raise_if_stopping()


def _study(finished: Sequence[Finished], space: Space, request: SearchRequest) -> optuna.Study:
    """A study in memory that knows the finished trials, with each model's usual training to be tried first."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=max(_LEAST_COMPARED_WITH, len(request.candidates)), n_warmup_steps=_FIRST_COMPARED
    )
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for one in finished:
        complete = one.trial.state == TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                # What failed is to Optuna a trial given up before it began: the worst that there is.
                state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
                value=one.value if complete else None,
                params=one.chosen,
                distributions=space.distributions,
                intermediate_values=one.on_the_way,
            )
        )
    return study


def _next(
    study: optuna.Study, space: Space, finished: Sequence[Finished], request: SearchRequest
) -> optuna.Trial | None:
    """The next choice; None where everything was tried. Not a second time what was tried, nor a model that fails."""
    number = len(finished)
    study.sampler = optuna.samplers.TPESampler(
        seed=(request.seed * 1_000_003 + number) % 2**32, n_startup_trials=len(request.candidates) + 4
    )
    if number < len(request.candidates):
        study.enqueue_trial(space.start(request.candidates[number].model))
        return study.ask(fixed_distributions=space.distributions)
    broken = {one.trial.model for one in finished if one.trial.state == TrialState.FAILED and not one.trial.parameters}
    tried = [space.asked(one.chosen) for one in finished]
    if not space.distributions or broken.issuperset(candidate.model for candidate in request.candidates):
        return None
    for _ in range(_REPEATS):
        chosen = study.ask(fixed_distributions=space.distributions)
        if space.asked(chosen.params) not in tried and space.asked(chosen.params)[0].model not in broken:
            return chosen
        study.tell(chosen, state=optuna.trial.TrialState.FAIL)
    return None


def _time_for_another(trials: Trials, budget_seconds: float) -> bool:
    """Whether the time that is left is more than the quickest complete trial took."""
    quickest = min(
        (one.trial.seconds for one in trials.finished if one.trial.state == TrialState.COMPLETE), default=0.0
    )
    over = any(one.trial.state == TrialState.OUT_OF_TIME for one in trials.finished)
    return not over and budget_seconds - trials.seconds > quickest


def _training(request: SearchRequest, candidate: SearchCandidate, asked: HyperParameters) -> TrainRequest:
    return TrainRequest(
        request.request_id, request.train, request.validation, request.spec, candidate.model, asked, request.seed
    )


def _notes(trials: Trials, request: SearchRequest) -> list[str]:
    states: list[Any] = [one.trial.state for one in trials.finished]
    tried = {one.trial.model for one in trials.finished}
    notes = []
    if TrialState.COMPLETE not in states:
        notes.append(f"No trial came to its end in {request.budget_seconds:.0f} s; give the search more time.")
    if untried := [candidate.model for candidate in request.candidates if candidate.model not in tried]:
        notes.append(f"There was no time to try {', '.join(untried)}.")
    notes += [f"{one.trial.model} failed: {one.trial.error}" for one in trials.finished if one.trial.error]
    return [*dict.fromkeys(notes)]
