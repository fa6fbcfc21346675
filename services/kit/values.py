"""The plain values that stages exchange: what an implementation takes and returns.

    PromptSpec ── Demonstration        the task
    Artifact                           a reference to stored bytes
    Allowance, Ledger, Prefer          what may be spent, what was, and whether time or cost matters more
    Progress                           how far a long call is
    ScorePart                          why something ranks where it does
    Row                                one row of a dataset

Their fields have the names and the meaning of the messages in proto/p2m/common/v1, so that `wire` converts them
without a word about each. Every field has a default, since an unset proto field is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


@dataclass(frozen=True)
class Artifact:
    """A reference to bytes in the store (see `artifacts`)."""

    uri: str = ""
    sha256: str = ""
    size_bytes: int = 0
    media_type: str = ""


@dataclass(frozen=True)
class Demonstration:
    """One worked example of the task."""

    input: str = ""
    output: str = ""


@dataclass(frozen=True)
class PromptSpec:
    """A parsed prompt. `instruction` is English; `original_instruction` is "" where nothing was translated."""

    instruction: str = ""
    demonstrations: tuple[Demonstration, ...] = ()
    language: str = "en"
    original_instruction: str = ""

    @property
    def own_instruction(self) -> str:
        """The instruction as the person wrote it: what generation and training use."""
        return self.original_instruction or self.instruction


@dataclass(frozen=True)
class Allowance:
    """A lease out of the run's budget. None is no limit of that kind; 0 is none at all."""

    requests: int | None = None
    tokens: int | None = None
    dollars: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Prefer(IntEnum):
    """What matters more where the LLM's server sells the same answers at two prices; UNSPECIFIED is as TIME."""

    UNSPECIFIED = 0
    TIME = 1
    COST = 2


@dataclass(frozen=True)
class Ledger:
    """What was spent on the LLM. Ledgers add up with `+`."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    replayed: int = 0
    invalid: int = 0

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.dollars + other.dollars,
            self.replayed + other.replayed,
            self.invalid + other.invalid,
        )


@dataclass(frozen=True)
class Metric:
    """One measured value."""

    name: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far a long call is: `done` of `total` `unit`s (total 0: unknown), one line for a person, measurements."""

    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    message: str = ""
    metrics: tuple[Metric, ...] = ()
    ledger: Ledger | None = None


@dataclass(frozen=True)
class ScorePart:
    """One part of a score."""

    name: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Row:
    """One row of a dataset artifact. `answers` lists all right outputs where there are several."""

    input: str = ""
    output: str = ""
    source: str = ""
    split: str = ""
    answers: tuple[str, ...] = field(default=())
