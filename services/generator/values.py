"""What a generation is asked for and what it gives; the fields are those of the proto's messages.

GenerateRequest     check: whether it can be done; temperature: how freely the LLM is to write by now
Generated           rows, and how it went: StopReason, RepeatShare, Outcome
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from services.generator.variety import Attributes
from services.kit.errors import InvalidArgument
from services.kit.values import Allowance, Artifact, Ledger, Metric, Prefer, PromptSpec, Row

MOST_EXAMPLES = 1_000_000
INITIAL_TEMPERATURE, MAX_TEMPERATURE = 0.8, 1.2


class StopReason(IntEnum):
    """Why generation ended."""

    UNSPECIFIED = 0
    NUMBER = 1
    BUDGET = 2
    NOTHING_NEW = 3


@dataclass(frozen=True)
class GenerateRequest:
    """Examples to generate."""

    request_id: str = ""
    allowance: Allowance = field(default_factory=Allowance)
    spec: PromptSpec = field(default_factory=PromptSpec)
    number: int = 0
    part: int = 0
    parts: int = 0
    seed: int = 0
    initial_temperature: float | None = None
    max_temperature: float | None = None
    exclude: tuple[Artifact, ...] = ()
    attributes: Attributes | None = None
    prefer: Prefer = Prefer.UNSPECIFIED
    judge: bool = False


@dataclass(frozen=True)
class RepeatShare:
    """Of the examples read up to `examples`, since the one before: repeated inputs and near ones, in percent."""

    examples: int = 0
    duplicates: float = 0.0
    near_duplicates: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of some of the money: see `outcomes`."""

    name: str = ""
    examples: int = 0
    requests: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    dollars: float = 0.0


@dataclass(frozen=True)
class Generated:
    """The rows, in a canonical order; examples left out, by reason; why it ended; what was spent, and on what; how
    varied it is; what a person should know of how it went; requests that went by batches."""

    rows: tuple[Row, ...]
    dropped: dict[str, int]
    stop_reason: StopReason
    ledger: Ledger
    metrics: tuple[Metric, ...] = ()
    repeats: tuple[RepeatShare, ...] = ()
    attributes: Attributes = field(default_factory=Attributes)
    outcomes: tuple[Outcome, ...] = ()
    notes: tuple[str, ...] = ()
    batched: int = 0


def check(request: GenerateRequest) -> None:
    """Returns where the request can be done; InvalidArgument names the field where not."""
    if not 1 <= request.number <= MOST_EXAMPLES:
        _refuse("number", f"number is {request.number:,}; wanted 1 to {MOST_EXAMPLES:,}.")
    if not request.spec.own_instruction.strip() and not request.spec.demonstrations:
        _refuse("spec", "spec has neither an instruction nor demonstrations; wanted at least one of them.")
    for name in ("initial_temperature", "max_temperature"):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= 2:
            _refuse(name, f"{name} is {value:g}; wanted 0 to 2.")
    if not 0 <= request.part < max(1, request.parts):
        _refuse("part", f"part is {request.part} of {max(1, request.parts)}; parts are counted from 0.")


def temperature(request: GenerateRequest, kept: int, repeated: float = 0.0) -> float:
    """T0 + (Tmax - T0) * n / N, within 0 and 2 (prompt2model's schedule).

    Where `repeated`, the share of examples that were nothing new, is more than n / N, it stands in its place: an LLM
    that repeats itself would stay at the low temperature at which it does so.
    """
    start = INITIAL_TEMPERATURE if request.initial_temperature is None else request.initial_temperature
    end = MAX_TEMPERATURE if request.max_temperature is None else request.max_temperature
    return min(2.0, max(0.0, start + (end - start) * max(kept / request.number, repeated)))


def _refuse(name: str, message: str) -> None:
    raise InvalidArgument("BAD_REQUEST", message, field=name)
