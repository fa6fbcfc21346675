"""Looking for model and hyper-parameters: what is tried, what is kept, when it ends, what wins."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.kit.artifacts import Artifacts
from services.kit.errors import Cancelled, FailedPrecondition, InvalidArgument
from services.kit.settings import Settings
from services.kit.values import Artifact, Progress, PromptSpec
from services.kit.worker import WorkerContext
from services.trainer import search, trials
from services.trainer.calls import (
    HyperParameters,
    SearchCandidate,
    SearchRequest,
    SearchResult,
    Trial,
    TrialState,
    checkpoint_prefix,
)
from tests.support.models import copy_rows, tiny_encoder, tiny_t5

START = HyperParameters(learning_rate=3e-3, epochs=1, batch_tokens=256)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", openai_base_url="", openai_api_key="", hub_offline=True, threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"folder:{tiny_encoder(tmp_path_factory.mktemp('search') / 'encoder')}"


@pytest.fixture
def request_(settings: Settings, model: str) -> SearchRequest:
    """A search of one tiny model, for as long as it takes."""
    artifacts = Artifacts.open(settings, "tests")
    return SearchRequest(
        "run/search", artifacts.put_rows(copy_rows(40)), artifacts.put_rows(copy_rows(20, seed=1)),
        PromptSpec("Copy the first word."), (SearchCandidate(model, START, 5.0),),
        HyperParameters(head="text", checkpoint_steps=1), 600.0, 3,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_TRIALS", 5)


class Context(WorkerContext):
    """Stops when the trial of the number `stop_in` is under way; counts the trainings that were begun."""

    def __init__(self, settings: Settings, stop_in: int | None = None) -> None:
        super().__init__(settings)
        self.begun: set[str] = set()
        self.reports: list[Progress] = []
        self._stop_in = stop_in

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)
        self.begun.add(progress.message.partition(",")[0])
        if self._stop_in is not None and progress.message.startswith(f"trial {self._stop_in},"):
            self.stop()


def _plain(result: SearchResult) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in result.trials]


def test_a_search_tries_and_finds(settings: Settings, request_: SearchRequest) -> None:
    """The first trial is the usual training; later ones differ within their range, none twice; the best wins by
    validation, and every trial tells what it took."""
    context = Context(settings)
    result = search.search(request_, context)
    first, *others = result.trials
    assert first.hyper_parameters == START and len(others) == 4
    tried = [trial.hyper_parameters for trial in result.trials]
    assert len(set(tried)) == len(tried)
    for asked in tried:
        assert 3e-3 / 4.05 <= (asked.learning_rate or 0) <= 3e-3 * 4.05 and 0.5 <= (asked.epochs or 0) <= 2
        assert asked.batch_tokens in (64, 128, 256, 512, 1024)
    complete = [trial for trial in result.trials if trial.state == TrialState.COMPLETE]
    assert result.best is not None
    best = result.trials[result.best]
    assert best.validation_exact_match == max(trial.validation_exact_match or 0 for trial in complete)
    assert all(trial.seconds > 0 and trial.size_bytes == 4 * trial.parameters > 0 for trial in result.trials)
    assert result.pareto == (result.best,) or best.validation_exact_match == 0
    assert result.seconds == pytest.approx(sum(trial.seconds for trial in result.trials))
    assert {report.total for report in context.reports} == {600.0}


def test_stopped_and_gone_on(settings: Settings, request_: SearchRequest) -> None:
    """A search that is stopped in its third trial goes on with that one and ends with the trials of no stop."""
    whole = search.search(replace(request_, request_id="whole/search"), Context(settings))
    with pytest.raises(Cancelled):
        search.search(request_, Context(settings, stop_in=3))
    after = Context(settings)
    assert _plain(search.search(request_, after)) == _plain(whole)
    assert after.begun == {"trial 3", "trial 4", "trial 5"}


def test_a_damaged_record_costs_its_trial(settings: Settings, request_: SearchRequest) -> None:
    """A record that is no record is tried again, and so is all after it; the result is the same."""
    first = search.search(request_, Context(settings))
    store = Artifacts.open(settings, "trainer").store
    prefix = checkpoint_prefix(Artifacts.open(settings, "trainer"), request_.request_id)
    store.put(f"{prefix}/trials/3.json", b'{"content": 3, "finished"')
    again = Context(settings)
    assert _plain(search.search(request_, again)) == _plain(first)
    assert {"trial 4"} <= again.begun <= {"trial 4", "trial 5"}


def test_other_requests_trials_are_not_taken(settings: Settings, request_: SearchRequest) -> None:
    """Trials of other rows, under the same id, are not gone on from."""
    search.search(request_, Context(settings))
    other = replace(request_, train=Artifacts.open(settings, "tests").put_rows(copy_rows(30, seed=5)))
    context = Context(settings)
    search.search(other, context)
    assert "trial 1" in context.begun


def test_the_budget_is_kept(settings: Settings, request_: SearchRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is up the trial under way ends within a step, is told as such, and does not win."""
    now = itertools.count()
    monkeypatch.setattr(search, "MOST_TRIALS", 100)
    monkeypatch.setattr(
        "services.trainer.search.time.monotonic", lambda: next(now) * 0.5
    )  # each look at the clock takes half a second
    result = search.search(replace(request_, budget_seconds=150.0), Context(settings))
    assert 1 <= len(result.trials) < 100
    assert result.seconds <= 150.0 + 10.0
    *_, last = result.trials
    assert last.state in (TrialState.OUT_OF_TIME, TrialState.COMPLETE, TrialState.PRUNED)
    assert all(trial.state != TrialState.OUT_OF_TIME for trial in result.trials[:-1])


@pytest.mark.parametrize(("own", "most"), [(None, 20.0), (5.0, 5.0)])
def test_a_trial_has_its_share_of_the_time(
    settings: Settings, request_: SearchRequest, monkeypatch: pytest.MonkeyPatch, own: float | None, most: float
) -> None:
    """At most a fifth of the budget, so that several are compared; a person's own limit counts where it is less."""
    given = []
    fit = search.fit

    def watched(student: Any, train: Any, validation: Any, asked: HyperParameters, *rest: Any) -> Any:
        given.append(asked.max_seconds)
        return fit(student, train, validation, asked, *rest)

    monkeypatch.setattr(search, "fit", watched)
    asked = replace(request_.hyper_parameters, max_seconds=own)
    search.search(replace(request_, hyper_parameters=asked, budget_seconds=100.0), Context(settings))
    assert given and set(given) == {most}


def test_too_little_time_for_any(settings: Settings, request_: SearchRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not one trial comes to its end there is no best, and the notes say so."""
    now = itertools.count()
    monkeypatch.setattr("services.trainer.search.time.monotonic", lambda: float(next(now)))
    result = search.search(replace(request_, budget_seconds=3.0), Context(settings))
    assert result.best is None and result.pareto == ()
    assert [trial.state for trial in result.trials] == [TrialState.OUT_OF_TIME]
    assert "No trial came to its end" in result.notes[0]


def test_a_model_that_cannot_be_loaded_fails_alone(settings: Settings, request_: SearchRequest, tmp_path: Path) -> None:
    """It is one failed trial with its reason, is not tried again, and the others are."""
    broken = SearchCandidate(f"folder:{tmp_path / 'nowhere'}", START)
    result = search.search(replace(request_, candidates=(broken, *request_.candidates)), Context(settings))
    assert [trial.state for trial in result.trials if trial.model == broken.model] == [TrialState.FAILED]
    assert result.trials[0].error and any("failed" in note for note in result.notes)
    assert result.best is not None and result.trials[result.best].model != broken.model
    alone = search.search(replace(request_, request_id="b/search", candidates=(broken,)), Context(settings))
    assert len(alone.trials) == 1 and alone.best is None


def test_a_rate_that_diverges_fails_alone(settings: Settings, request_: SearchRequest) -> None:
    """A loss that is not a number fails the trial, not the search."""
    wild = replace(request_.candidates[0], start=replace(START, learning_rate=1e30))
    result = search.search(replace(request_, candidates=(wild,)), Context(settings))
    assert result.trials[0].state == TrialState.FAILED and "smaller" in result.trials[0].error
    assert len(result.trials) > 1


def test_what_is_set_is_not_searched(settings: Settings, request_: SearchRequest) -> None:
    """With rate, epochs and tokens set there is one trial a model, each with what was set."""
    fixed = replace(request_, hyper_parameters=replace(START, head="text"))
    result = search.search(fixed, Context(settings))
    assert [trial.hyper_parameters for trial in result.trials] == [START]


def test_models_are_tried_in_their_order(settings: Settings, request_: SearchRequest, tmp_path: Path) -> None:
    """Each model's usual training comes first, in the order given, then what differs."""
    other = SearchCandidate(f"folder:{tiny_t5(tmp_path / 't5')}", replace(START, epochs=2))
    result = search.search(replace(request_, candidates=(other, *request_.candidates)), Context(settings))
    assert [trial.model for trial in result.trials[:2]] == [other.model, request_.candidates[0].model]
    assert result.trials[0].hyper_parameters.epochs == 2


def test_what_is_behind_is_given_up(
    settings: Settings, request_: SearchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that is worse than the median of those before, when they were as far, is pruned and takes fewer steps."""
    worth = iter(range(1000, 0, -1))
    monkeypatch.setattr(search, "value", lambda exact, loss, rows: float(next(worth)))
    result = search.search(request_, Context(settings))
    assert [trial.state for trial in result.trials[:3]] == [TrialState.COMPLETE] * 3
    assert {trial.state for trial in result.trials[3:]} == {TrialState.PRUNED}
    assert result.best == 0


def test_trials_write_no_checkpoints(settings: Settings, request_: SearchRequest) -> None:
    """Beside the trials' records nothing of them stays in the store."""
    artifacts = Artifacts.open(settings, "trainer")
    before = {*artifacts.store.list("")}
    search.search(request_, Context(settings))
    prefix = checkpoint_prefix(artifacts, request_.request_id)
    assert {*artifacts.store.list("")} - before == {f"{prefix}/trials/{number}.json" for number in range(5)}


def test_no_validation_rows(settings: Settings, request_: SearchRequest) -> None:
    """Without validation rows there is nothing to compare by: FAILED_PRECONDITION."""
    empty = Artifacts.open(settings, "tests").put_rows([])
    for without in (empty, Artifact()):
        with pytest.raises(FailedPrecondition) as caught:
            search.search(replace(request_, validation=without), Context(settings))
        assert caught.value.reason == "NO_ROWS"


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"budget_seconds": 0.0}, "budget_seconds"),
        ({"budget_seconds": float("nan")}, "budget_seconds"),
        ({"budget_seconds": 1e9}, "budget_seconds"),
        ({"candidates": ()}, "candidates"),
        ({"candidates": tuple(SearchCandidate(f"folder:/m{n}") for n in range(21))}, "candidates"),
        ({"candidates": (SearchCandidate("folder:/a"), SearchCandidate("folder:/a"))}, "candidates[1].model"),
        ({"candidates": (SearchCandidate("the best model"),)}, "candidates[0].model"),
        ({"candidates": (SearchCandidate("folder:/a", cpu_latency_ms=float("nan")),)}, "candidates[0].cpu_latency_ms"),
    ],
)
def test_hostile_requests(settings: Settings, request_: SearchRequest, changes: dict[str, Any], field: str) -> None:
    """What cannot be meant is INVALID_ARGUMENT, before anything is loaded, and names the field."""
    with pytest.raises(InvalidArgument) as caught:
        search.search(replace(request_, **changes), Context(settings))
    assert caught.value.field == field


def _finished(number: int, exact: float, size: int, latency: float, state: TrialState = TrialState.COMPLETE) -> Any:
    trial = Trial(number, "folder:/m", START, state, exact, 0.5, 1.0, size // 4, size, latency)
    return trials.Finished(trial, {}, trials.value(exact, 0.5, 100))


def test_the_front_and_the_best() -> None:
    """The front holds what no other complete trial beats in all of quality, size and latency; equals count once."""
    found = [
        _finished(0, 90, 400, 5), _finished(1, 80, 200, 3), _finished(2, 80, 200, 3), _finished(3, 70, 300, 4),
        _finished(4, 99, 100, 1, TrialState.PRUNED), _finished(5, 85, 400, 2),
    ]  # fmt: skip
    assert trials.pareto(found) == (0, 1, 5)
    assert trials.best(found) == 0
    assert trials.best([_finished(0, 90, 400, 5), _finished(1, 90, 200, 3)]) == 1
    assert trials.best([]) is None and trials.pareto([]) == ()


def test_loss_never_outweighs_a_row() -> None:
    """One row more that is right is worth more than any loss."""
    assert trials.value(50.0, 1e9, 200) < trials.value(50.5, 1e9, 200)
    assert trials.value(50.0, 0.0, 200) <= trials.value(50.5, 1e9, 200)
    assert trials.value(50.0, 0.1, 200) > trials.value(50.0, 0.2, 200)
