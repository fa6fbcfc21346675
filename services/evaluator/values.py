"""What the evaluator takes and returns; the fields are those of evaluator.proto, where each is explained.

EvaluateRequest ── Contestant ── TeacherRows
EvaluateResult ─┬─ Score ── Estimate
                ├─ Comparison ── Estimate
                ├─ Verdict
                ├─ Agreement ── Estimate
                ├─ ErrorSlice ── Estimate, ErrorExample
                └─ SliceComparison ── Estimate
PredictRequest, PredictResult
MeasureRequest
MeasureResult ── Latency
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from services.kit.values import Allowance, Artifact, Ledger, PromptSpec

STUDENT = "student"
BEFORE = "before"
DEFAULT_MARGIN = 5.0


class Verdict(IntEnum):
    """What to do with the student."""

    UNSPECIFIED = 0
    SHIP = 1
    DO_NOT_SHIP = 2
    NOT_ENOUGH_EVIDENCE = 3


@dataclass(frozen=True)
class TeacherRows:
    """The LLM as a contestant; `max_rows` 0: all rows."""

    max_rows: int = 0


@dataclass(frozen=True)
class Contestant:
    """One who answers the test rows: exactly one of `model`, `nearest_neighbour` and `teacher` is set."""

    name: str = ""
    model: Artifact | None = None
    nearest_neighbour: Artifact | None = None
    teacher: TeacherRows | None = None


@dataclass(frozen=True)
class EvaluateRequest:
    """Contestants to measure on a locked test split."""

    request_id: str = ""
    allowance: Allowance = field(default_factory=Allowance)
    spec: PromptSpec = field(default_factory=PromptSpec)
    contestants: tuple[Contestant, ...] = ()
    test: Artifact = field(default_factory=Artifact)
    seed: int = 0
    margin: float | None = None
    validation: Artifact | None = None
    slices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Score:
    """One contestant's score by one metric on one slice."""

    contestant: str = ""
    slice: str = ""
    metric: str = ""
    estimate: Estimate = Estimate()
    rows: int = 0


@dataclass(frozen=True)
class Comparison:
    """The student less another contestant, on the rows that both answered."""

    against: str = ""
    metric: str = ""
    difference: Estimate = Estimate()
    rows: int = 0


@dataclass(frozen=True)
class SliceComparison:
    """The student less another contestant on the test rows of one slice, and the scores of both there."""

    slice: str = ""
    against: str = ""
    metric: str = ""
    student: float = 0.0
    other: float = 0.0
    difference: Estimate = Estimate()
    rows: int = 0


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau between the scores on generated and on real rows, by one metric."""

    metric: str = ""
    tau: Estimate = Estimate()
    contestants: int = 0
    generated_rows: int = 0
    real_rows: int = 0


@dataclass(frozen=True)
class ErrorExample:
    """A row that the student got wrong."""

    input: str = ""
    output: str = ""
    prediction: str = ""


@dataclass(frozen=True)
class ErrorSlice:
    """Rows with something in common that the student gets wrong more often than the others."""

    name: str = ""
    kind: str = ""
    rows: int = 0
    error_rate: Estimate = Estimate()
    rest_error_rate: Estimate = Estimate()
    difference: Estimate = Estimate()
    examples: tuple[ErrorExample, ...] = ()
    test_rows: int = 0
    test_error_rate: Estimate | None = None


@dataclass(frozen=True)
class EvaluateResult:
    """The measurements."""

    scores: tuple[Score, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict = Verdict.UNSPECIFIED
    verdict_reason: str = ""
    predictions: Artifact = field(default_factory=Artifact)
    ceiling: float = 0.0
    bertscore_encoder: str = ""
    ledger: Ledger = field(default_factory=Ledger)
    notes: tuple[str, ...] = ()
    more_rows: int = 0
    agreements: tuple[Agreement, ...] = ()
    slices: tuple[ErrorSlice, ...] = ()
    slices_split: str = ""
    slices_wrong: str = ""
    slice_comparisons: tuple[SliceComparison, ...] = ()


@dataclass(frozen=True)
class PredictRequest:
    """Inputs to answer."""

    model: Artifact = field(default_factory=Artifact)
    spec: PromptSpec = field(default_factory=PromptSpec)
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictResult:
    """The answers, in the order of the inputs."""

    outputs: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class MeasureRequest:
    """A model to time, and to score beside the student where `predictions` is set."""

    request_id: str = ""
    spec: PromptSpec = field(default_factory=PromptSpec)
    name: str = ""
    model: Artifact = field(default_factory=Artifact)
    test: Artifact = field(default_factory=Artifact)
    predictions: Artifact | None = None
    seed: int = 0
    timed_inputs: int = 0
    timed_seconds: float = 0.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of an answer, an input at a time."""

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    mean_ms: float = 0.0
    inputs: int = 0
    threads: int = 0
    processor: str = ""


@dataclass(frozen=True)
class MeasureResult:
    """What was measured of one model."""

    scores: tuple[Score, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    same: float = 0.0
    latency: Latency = Latency()
    rows_per_second: float = 0.0
    load_seconds: float = 0.0
    runtime: str = ""
