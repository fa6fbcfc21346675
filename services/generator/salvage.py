"""What was generated and paid for so far, as a dataset: for a run that was stopped, or is still under way.

salvage     the stored answers of all parts, through the same consensus as a finished generation's; nothing is asked
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.generator.consensus import Collection
from services.generator.job import SLOT
from services.kit.artifacts import Artifacts, check_key
from services.kit.errors import NotFound
from services.kit.journal import Journal
from services.kit.values import Artifact, PromptSpec, Row


@dataclass(frozen=True)
class SalvageRequest:
    """Whose answers; the fields are those of the proto's message."""

    request_id: str = ""
    spec: PromptSpec = field(default_factory=PromptSpec)
    exclude: tuple[Artifact, ...] = ()


@dataclass(frozen=True)
class Salvaged:
    """The rows, in a canonical order, and the examples left out, by reason."""

    rows: tuple[Row, ...]
    dropped: dict[str, int]


def salvage(request: SalvageRequest, artifacts: Artifacts, excluded: list[str]) -> Salvaged:
    """Gathers what the journals hold of the requests whose ids begin with `request.request_id`.

    It blocks. NotFound (NOTHING_GENERATED) where they hold no example.
    """
    prefix = f"{artifacts.service}/journal/{check_key(request.request_id)}/"
    parts = sorted({key.rpartition("/")[0] for key in artifacts.store.list(prefix)})
    collection = Collection(request.spec.demonstrations, excluded, request.spec.own_instruction)
    for part in parts:
        taken: set[str] = set()
        for entry in Journal(artifacts, part.partition("/journal/")[2]).read():
            if entry.invalid or entry.lost or entry.key in taken or not (slot := SLOT.fullmatch(entry.key)):
                continue
            taken.add(entry.key)
            for example in entry.value["examples"][: int(slot[2])]:
                collection.add(example)
    if not collection.kept:
        raise NotFound("NOTHING_GENERATED", f"Nothing that can be used was generated for {request.request_id} yet.")
    return Salvaged(tuple(collection.rows(collection.kept)), collection.dropped(collection.kept))
