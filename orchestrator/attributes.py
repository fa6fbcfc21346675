"""What the generated examples are to differ in: by the LLM's proposal, made once a run, or as a person wrote it.

    of_run          for a run's generation: the options' own, else the proposal, shown to a person where one is asked
    question        the proposal as a question that takes an edited answer
    read, parse     a person's file, or text: one JSON object {"topics", "lengths", "difficulties", "labels"}
    told            one as such text

A kind that is left out or empty steers nothing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2m.generator.v1 import generator_pb2
from p2m.run.v1 import run_pb2

from services.kit.errors import InvalidArgument, NotFound, P2MError, from_os_error
from services.kit.values import Allowance, Ledger
from services.kit.wire import from_message, to_message

if TYPE_CHECKING:
    from orchestrator.steps.step import Step

log = logging.getLogger(__name__)

QUESTION = "attributes"
NONE = "none"
KINDS = ("topics", "lengths", "difficulties", "labels")

# Fewer examples than these need no steering; the generator, which proposes for a single part, counts alike.
_EXAMPLES, _REQUESTS = 100, 20
_MOST_OF_A_KIND, _MOST_CHARACTERS, _MOST_BYTES = 1_000, 200, 1_000_000


@dataclass(frozen=True)
class Steering:
    """What a run's parts are told; None: each has its own proposed. `by` is "option", "person" or "llm"."""

    attributes: generator_pb2.Attributes | None = None
    by: str = "llm"
    ledger: Ledger = field(default_factory=Ledger)


async def of_run(step: Step, number: int, parts: int, lease: Allowance) -> Steering:
    """The same for all parts of a run. A single part that nobody is asked about proposes while it begins to write."""
    if step.options.HasField("attributes"):
        return Steering(step.options.attributes, "option")
    few = lease.requests is not None and lease.requests < _REQUESTS * parts
    if number < _EXAMPLES or few or (parts == 1 and not step.options.ask):
        return Steering()
    request = generator_pb2.ProposeRequest(request_id=f"{step.name}/attributes", spec=step.spec, seed=step.options.seed)
    request.allowance.CopyFrom(to_message(lease, type(request.allowance)))
    try:
        answer = await step.stages.propose(request)
    except P2MError as error:
        # What stands in the way of the examples too, they will tell.
        log.info("nothing was proposed: %s", error.message)
        return Steering()
    ledger = from_message(answer.ledger, Ledger)
    if not step.options.ask:
        return Steering(answer.attributes, "llm", ledger)
    chosen = await step.ask(question(answer.attributes))
    if chosen == NONE:
        return Steering(generator_pb2.Attributes(), "person", ledger)
    taken = parse(chosen)
    return Steering(taken, "llm" if taken == answer.attributes else "person", ledger)


def question(proposed: generator_pb2.Attributes) -> run_pb2.Question:
    """The proposal, and nothing at all; any other JSON object of that form is an answer too."""
    options = [run_pb2.Option(value=told(proposed), label="As the LLM proposes.")] if proposed.ByteSize() else []
    options.append(run_pb2.Option(value=NONE, label="Nothing: leave it to the LLM what it writes about."))
    lines = [f"{kind}: {'; '.join(getattr(proposed, kind))}" for kind in KINDS if getattr(proposed, kind)]
    return run_pb2.Question(
        id=QUESTION,
        text="What shall the generated examples differ in? To edit it, answer with the name of a JSON file.",
        options=options,
        details=lines or ["The LLM proposed nothing."],
        open=True,
    )


def told(attributes: generator_pb2.Attributes) -> str:
    """One line of JSON that `parse` reads."""
    return json.dumps({kind: [*getattr(attributes, kind)] for kind in KINDS}, ensure_ascii=False)


def typed(text: str) -> str:
    """What a person answered: the content of the file where the text names one."""
    if text.lstrip().startswith("{") or len(text) > 4096:
        return text
    path = Path(text)
    return told(read(path)) if path.suffix and path.is_file() else text


def read(path: Path) -> generator_pb2.Attributes:
    """The attributes in a file. NotFound, and what `parse` raises, named with the file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound("NO_SUCH_FILE", f"There is no file {path} with attributes.") from error
    except OSError as error:
        raise from_os_error(error, f"Reading {path}") from error
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _refused(f"{path} is no text in UTF-8.") from None
    except InvalidArgument as error:
        raise _refused(f"{path}: {error.message}") from None


def parse(text: str) -> generator_pb2.Attributes:
    """The attributes in a JSON object; InvalidArgument says what is wrong with it."""
    if len(text) > _MOST_BYTES:
        raise _refused(f"the attributes have {len(text):,} characters; wanted at most {_MOST_BYTES:,}.")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(f"the attributes are no JSON ({str(error)[:80]}); wanted {_FORM}.") from None
    if not isinstance(given, dict) or set(given) - set(KINDS):
        other = sorted(set(given) - set(KINDS))[0] if isinstance(given, dict) else type(given).__name__
        raise _refused(f"the attributes hold {str(other)[:80]!r}; wanted {_FORM}.")
    attributes = generator_pb2.Attributes()
    for kind, values in given.items():
        getattr(attributes, kind).extend(_texts(kind, values))
    check(attributes)
    return attributes


def check(attributes: generator_pb2.Attributes) -> None:
    """InvalidArgument for too many of a kind, or one that is empty or too long."""
    for kind in KINDS:
        values = getattr(attributes, kind)
        if len(values) > _MOST_OF_A_KIND:
            raise _refused(f"there are {len(values):,} {kind}; wanted at most {_MOST_OF_A_KIND:,}.")
        for value in values:
            if not value.strip() or len(value) > _MOST_CHARACTERS:
                raise _refused(f"{kind} hold {value[:40]!r}; wanted 1 to {_MOST_CHARACTERS} characters each.")


def _texts(kind: str, values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _refused(f"{kind} is {json.dumps(values)[:60]}; wanted a list of texts.")
    return [*dict.fromkeys(" ".join(value.split()) for value in values)]


def _refused(message: str) -> InvalidArgument:
    return InvalidArgument("BAD_ATTRIBUTES", message, field="attributes")


_FORM = '{"topics": [...], "lengths": [...], "difficulties": [...], "labels": [...]}, each a list of texts'
