"""A search's trials: what may be tried, what was found, and which are the best.

    Space(request)              what is searched, around what each model is known to want
    ├── distributions           for Optuna: the model, and factors of its usual learning rate, epochs and tokens
    └── asked(chosen)           the candidate and the hyper-parameters that a choice means
    Trials(artifacts, ...)      the finished ones, in the store beside the checkpoints: a JSON object each
    value(...), best(trials), pareto(trials)

Factors, since a rate that suits one model ruins another: what is learned of a factor with one model holds for the next.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from services.kit.artifacts import Artifacts
from services.kit.errors import NotFound
from services.kit.wire import from_json, to_json
from services.trainer.calls import (
    HyperParameters,
    SearchCandidate,
    SearchRequest,
    Trial,
    TrialState,
    checkpoint_prefix,
)
from services.trainer.loop import BATCH_TOKENS, EPOCHS, LEARNING_RATE

log = logging.getLogger(__name__)

_FACTORS: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(0.25, 4.0, log=True),
    "epochs": FloatDistribution(0.5, 2.0, log=True),
    "batch_tokens": IntDistribution(-2, 2),  # a power of two
}


@dataclass(frozen=True)
class Finished:
    """A trial with what Optuna learns from: the choice, its value, and the values on the way by tenth of the way."""

    trial: Trial = field(default_factory=Trial)
    chosen: dict[str, Any] = field(default_factory=dict)
    value: float | None = None
    on_the_way: dict[int, float] = field(default_factory=dict)


class Space:
    """What is searched: of what the request has not set itself."""

    def __init__(self, request: SearchRequest) -> None:
        self._request = request
        self._candidates = {candidate.model: candidate for candidate in request.candidates}
        fixed = request.hyper_parameters
        self.distributions: dict[str, BaseDistribution] = {
            name: factor for name, factor in _FACTORS.items() if getattr(fixed, name) is None
        }
        if len(self._candidates) > 1:
            self.distributions["model"] = CategoricalDistribution([*self._candidates])

    def start(self, model: str) -> dict[str, Any]:
        """The choice of what a model is usually trained with."""
        factors = {"learning_rate": 1.0, "epochs": 1.0, "batch_tokens": 0, "model": model}
        return {name: value for name, value in factors.items() if name in self.distributions}

    def asked(self, chosen: dict[str, Any]) -> tuple[SearchCandidate, HyperParameters]:
        """The candidate and the hyper-parameters that a choice means."""
        candidate = self._candidates[chosen.get("model", self._request.candidates[0].model)]
        fixed, start = self._request.hyper_parameters, candidate.start
        rate = fixed.learning_rate or _digits((start.learning_rate or LEARNING_RATE) * chosen.get("learning_rate", 1.0))
        epochs = fixed.epochs or _digits((start.epochs or EPOCHS) * chosen.get("epochs", 1.0))
        tokens = fixed.batch_tokens or round(
            (start.batch_tokens or BATCH_TOKENS) * 2.0 ** chosen.get("batch_tokens", 0)
        )
        return candidate, replace(fixed, learning_rate=rate, epochs=epochs, batch_tokens=max(1, tokens))


class Trials:
    """The finished trials of one request, in order. `content` names what is searched: others' are not taken."""

    def __init__(self, artifacts: Artifacts, request_id: str, content: str) -> None:
        self._store = artifacts.store
        self._prefix = f"{checkpoint_prefix(artifacts, request_id)}/trials"
        self._content = content
        self.finished: list[Finished] = []
        while (found := self._read(len(self.finished))) is not None:
            self.finished.append(found)

    @property
    def seconds(self) -> float:
        """What they took together."""
        return sum(one.trial.seconds for one in self.finished)

    def add(self, finished: Finished) -> None:
        """Keeps it. From now on no kill loses it."""
        record = {"content": self._content, "finished": json.loads(to_json(finished))}
        self._store.put(self._key(len(self.finished)), json.dumps(record).encode())
        self.finished.append(finished)

    def _read(self, number: int) -> Finished | None:
        try:
            record = json.loads(self._store.get(self._key(number)))
            if record["content"] == self._content:
                return from_json(json.dumps(record["finished"]), Finished)
        except NotFound:
            pass
        except (ValueError, KeyError, TypeError):
            log.warning("the record of trial %d is damaged; it and those after it are tried again", number)
        return None

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number}.json"


def value(exact_match: float, loss: float, rows: int) -> float:
    """What a trial is worth: exact match in percent and, among equals, the loss, which never outweighs one row."""
    return exact_match + 100 / max(1, rows) / (1 + loss)


def best(finished: Sequence[Finished]) -> int | None:
    """The number of the complete trial that is worth most; among equals that of the faster, then the smaller model."""
    complete = [one for one in finished if one.trial.state == TrialState.COMPLETE and one.value is not None]
    found = max(
        complete,
        key=lambda one: (one.value or 0.0, -one.trial.cpu_latency_ms, -one.trial.size_bytes, -one.trial.number),
        default=None,
    )
    return None if found is None else found.trial.number


def pareto(finished: Sequence[Finished]) -> tuple[int, ...]:
    """The numbers of the complete trials that no other beats: as good in exact match, size and latency, better in one.

    Of those that are equal in all three the first counts.
    """
    complete = [one.trial for one in finished if one.trial.state == TrialState.COMPLETE]

    def costs(trial: Trial) -> tuple[float, float, float]:
        return (-(trial.validation_exact_match or 0.0), float(trial.size_bytes), trial.cpu_latency_ms)

    def beats(one: Trial, other: Trial) -> bool:
        pairs = [*zip(costs(one), costs(other), strict=True)]
        if not all(a <= b for a, b in pairs):
            return False
        return one.number < other.number or any(a < b for a, b in pairs)

    return tuple(trial.number for trial in complete if not any(beats(o, trial) for o in complete if o is not trial))


def _digits(number: float) -> float:
    """Three digits that count: nobody wants a learning rate of 4.871528e-5."""
    return float(f"{number:.3g}")
