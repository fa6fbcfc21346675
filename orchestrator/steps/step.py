"""What a step is given and what it gives, and what several of them ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import ParseDict
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from orchestrator import leases
from orchestrator.stages import Report, Stages
from services.kit.errors import BudgetExhausted, P2MError
from services.kit.settings import Settings
from services.kit.values import Allowance, Ledger
from services.kit.wire import from_message, to_message

DEFAULT_NUMBER = 200
DEFAULT_TEACHER_ROWS = 100

# Of these a run recovers by going on without the stage; anything else would only hide a fault.
_CAN_GO_ON = (
    "UNAVAILABLE",
    "FAILED_PRECONDITION",
    "NOT_FOUND",
    "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED",
)

_PART_IS_DOWN = ("SERVICE_UNREACHABLE", "STORE_UNREACHABLE", "DATABASE_UNREACHABLE")


@dataclass(frozen=True)
class Outcome:
    """What a step gives: one line for a person, what was spent, and values that later steps and the record take."""

    message: str
    values: dict[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    skipped: bool = False


@dataclass(frozen=True)
class Step:
    """What a step has at hand."""

    name: str
    """The run's name."""
    prompt: str
    options: run_pb2.RunOptions
    done: dict[str, dict[str, Any]]
    """The values of earlier steps, by stage."""
    spent: dict[str, Ledger]
    """What earlier stages spent."""
    standing: run_pb2.Run
    """The run as it stood when the step began."""
    stages: Stages
    settings: Settings
    report: Report
    ask: Callable[[run_pb2.Question], Awaitable[str]]
    """Waits, durably, for a person's answer."""
    parent: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The values of the run that this one improves, by stage; none for a run of its own."""

    @property
    def spec(self) -> common_pb2.PromptSpec:
        return ParseDict(self.done["parse"]["spec"], common_pb2.PromptSpec())

    def artifact(self, stage: str, key: str) -> common_pb2.Artifact:
        return ParseDict(self.done[stage][key], common_pb2.Artifact())

    def left(self) -> Allowance:
        """What of the budget the stages before have left."""
        budget = from_message(self.options.budget, Allowance) if self.options.HasField("budget") else Allowance()
        return leases.left(budget, self.spent.values())

    def lease(self, stage: str) -> Allowance:
        """This stage's part of what parsing left, disjoint from those of the stages beside it."""
        idle = {
            "datasets": self.options.skip_datasets,
            "generate": wanted_examples(self.options) == 0,
            "evaluate": teacher_rows(self.options) == 0,
        }
        weights = {name: share for name, share in leases.SHARES.items() if not idle.get(name)}
        return leases.split(self.left(), weights)[stage]


def wanted_examples(options: run_pb2.RunOptions) -> int:
    """How many examples to generate."""
    if options.skip_generation:
        return 0
    return int(options.number) if options.HasField("number") else DEFAULT_NUMBER


def teacher_rows(options: run_pb2.RunOptions) -> int:
    """How many test rows the teacher answers at most."""
    return int(options.teacher_rows) if options.HasField("teacher_rows") else DEFAULT_TEACHER_ROWS


def may_go_on(error: BaseException) -> bool:
    """Whether a run goes on without the stage that failed so: not where a part is down, which is no answer."""
    if not isinstance(error, P2MError) or part_is_down(error):
        return False
    return error.code in _CAN_GO_ON or isinstance(error, BudgetExhausted)


def part_is_down(error: P2MError) -> bool:
    """Whether a service, the store or the database is out of reach: the run stops there, and can go on there."""
    return error.reason in _PART_IS_DOWN


def message_of(allowance: Allowance) -> common_pb2.Allowance:
    return to_message(allowance, common_pb2.Allowance)


def key_part(name: str) -> str:
    """A dataset's name as a part of a request id: what a key may not have becomes "_"."""
    return "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "_" for c in name)[:100].strip(".") or "_"
